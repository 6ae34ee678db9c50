//! The catalog as an entity: roster and shard map, changed by consensus like anything else.
//!
//! The shard map says where replicas are wanted. It changes when members come and go; the leaders of the
//! groups follow it, and report when a group's voters are those that are wanted ([`Command::Settled`]).
//! Until then whoever held a replica before is remembered in [`State::moving`]: a replica is let go, and a
//! member that leaves is struck off the roster, only when nobody counts on it any more.

use super::{ClusterId, InstanceId, Member, NodeId, Placement, plan};
use crate::{
    entity::{Context, Decision, Entity},
    storage::GroupId,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// There is one catalog per cluster.
pub const CATALOG_ID: &str = "cluster";

pub struct Catalog;

/// Roster and shard map.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub cluster: Option<ClusterId>,
    pub shards: u16,
    pub replication_factor: u8,
    pub members: BTreeMap<NodeId, Member>,
    /// Where replicas are wanted.
    pub placements: Vec<Placement>,
    /// Where the founders wanted them: with these voters, and no others, may a group be created.
    pub founding: Vec<Placement>,
    /// Who else may still hold a replica that counts, by group.
    pub moving: BTreeMap<GroupId, BTreeSet<NodeId>>,
    /// Members that go as soon as they hold no replica that counts.
    pub leaving: BTreeSet<NodeId>,
    /// The highest node id ever given out.
    pub last_node: u64,
    /// The highest epoch of a placement.
    pub epoch: u64,
}

/// What the founding nodes agreed on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Founding {
    pub cluster: ClusterId,
    pub shards: u16,
    pub replication_factor: u8,
    pub members: Vec<Member>,
    pub placements: Vec<Placement>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Command {
    /// Writes down what the founding nodes agreed on. Once.
    Found(Founding),
    /// A node joins, or an old one comes back (perhaps at another address). `node` is ignored.
    Join(Member),
    /// A node takes the place of the one that had its name, under an id of its own: whoever forgot what
    /// it voted must never vote again under the same one. `node` is ignored.
    Replace(Member),
    /// A node that was a member, perhaps at another address, asks whether it still is. `node` is ignored.
    Return(Member),
    /// The member of this name is to go for good; it may be down.
    Leave { name: String },
    /// The group's voters are those that were wanted with this epoch, and nobody else.
    Settled { group: GroupId, epoch: u64 },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Event {
    Founded(Founding),
    Joined(Member),
    Moved(Member),
    Replaced {
        node: NodeId,
        by: Member,
    },
    Leaving {
        node: NodeId,
    },
    /// These groups are wanted elsewhere.
    Placed(Vec<Placement>),
    Settled {
        group: GroupId,
    },
    Left {
        node: NodeId,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    Done,
    Member(NodeId),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rejection {
    AlreadyFounded,
    NotFounded,
    NameTaken {
        name: String,
        by: InstanceId,
    },
    NotAMember {
        name: String,
    },
    /// Nobody would be left to hold the data.
    LastMember {
        name: String,
    },
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlreadyFounded => f.write_str("the cluster exists already"),
            Self::NotFounded => f.write_str("the cluster is not founded yet"),
            Self::NameTaken { name, by } => write!(
                f,
                "the name {name} belongs to a node with another data directory (instance {by}); start that one, or \
                 choose another name; if that directory is lost or damaged, start on an empty one with --replace"
            ),
            Self::NotAMember { name } => write!(
                f,
                "{name} is not a member of the cluster any more: it left, or was removed; its data directory is of no \
                 use, start on an empty one to join as a new member"
            ),
            Self::LastMember { name } => {
                write!(f, "{name} is the last member that stays: with it the cluster and its data would be gone")
            }
        }
    }
}

impl Entity for Catalog {
    const TYPE: &'static str = "_catalog";

    type State = State;
    type Command = Command;
    type Event = Event;
    type Reply = Reply;
    type Rejection = Rejection;

    fn decide(state: &State, command: Command, _context: &Context<'_>) -> Decision<Self> {
        match command {
            Command::Found(_) if state.cluster.is_some() => Decision::Reject(Rejection::AlreadyFounded),
            Command::Found(founding) => Decision::accept(vec![Event::Founded(founding)], Reply::Done),
            _ if state.cluster.is_none() => Decision::Reject(Rejection::NotFounded),
            Command::Join(joining) => join(state, joining),
            Command::Replace(joining) => replace(state, joining),
            Command::Return(member) => match state.member_named(&member.name) {
                Some(_) => join(state, member),
                None => Decision::Reject(Rejection::NotAMember { name: member.name }),
            },
            Command::Leave { name } => leave(state, name),
            Command::Settled { group, epoch } => settled(state, group, epoch),
        }
    }

    fn evolve(state: &mut State, event: &Event) {
        match event {
            Event::Founded(founding) => {
                state.cluster = Some(founding.cluster);
                state.shards = founding.shards;
                state.replication_factor = founding.replication_factor;
                state.members = founding.members.iter().map(|m| (m.node, m.clone())).collect();
                state.placements.clone_from(&founding.placements);
                state.founding.clone_from(&founding.placements);
                state.last_node = founding.members.iter().map(|m| m.node.0).max().unwrap_or(0);
            }
            Event::Joined(member) | Event::Moved(member) => {
                state.last_node = state.last_node.max(member.node.0);
                state.members.insert(member.node, member.clone());
            }
            Event::Replaced { node, by } => {
                state.last_node = state.last_node.max(by.node.0);
                state.strike_off(*node);
                state.members.insert(by.node, by.clone());
                state.epoch += 1;
                for placement in state.placements.iter_mut().filter(|placement| placement.is_on(*node)) {
                    placement.replace(*node, by.node);
                    placement.epoch = state.epoch;
                }
            }
            Event::Leaving { node } => {
                state.leaving.insert(*node);
            }
            Event::Placed(changed) => changed.iter().for_each(|placement| state.place(placement)),
            Event::Settled { group } => {
                state.moving.remove(group);
            }
            Event::Left { node } => state.strike_off(*node),
        }
    }
}

impl State {
    pub fn member_named(&self, name: &str) -> Option<&Member> {
        self.members.values().find(|member| member.name == name)
    }

    /// Whether a replica of this node is wanted, or may still count.
    fn holds_anything(&self, node: NodeId) -> bool {
        self.placements.iter().any(|placement| placement.is_on(node))
            || self.moving.values().any(|nodes| nodes.contains(&node))
    }

    fn strike_off(&mut self, node: NodeId) {
        self.members.remove(&node);
        self.leaving.remove(&node);
        self.moving.retain(|_, nodes| {
            nodes.remove(&node);
            !nodes.is_empty()
        });
    }

    fn place(&mut self, wanted: &Placement) {
        let Some(placement) = self.placements.iter_mut().find(|p| p.group == wanted.group) else { return };
        let before = std::mem::replace(placement, wanted.clone());
        self.epoch = self.epoch.max(wanted.epoch);
        let moving = self.moving.entry(wanted.group).or_default();
        moving.extend(before.replicas);
        moving.retain(|node| !wanted.is_on(*node));
        if moving.is_empty() {
            self.moving.remove(&wanted.group);
        }
    }

    /// The placements that change if this member comes and that one goes.
    fn placed(&self, coming: Option<&Member>, going: Option<NodeId>) -> Vec<Event> {
        let stays = |node: &NodeId| !self.leaving.contains(node) && Some(*node) != going;
        let mut members: BTreeMap<NodeId, Member> =
            self.members.iter().filter(|(node, _)| stays(node)).map(|(node, m)| (*node, m.clone())).collect();
        members.extend(coming.map(|member| (member.node, member.clone())));
        let members: Vec<Member> = members.into_values().collect();
        let mut changed = plan(&members, self.shards, usize::from(self.replication_factor));
        changed.retain(|wanted| !self.placements.iter().any(|present| present.agrees_with(wanted)));
        changed.iter_mut().for_each(|wanted| wanted.epoch = self.epoch + 1);
        if changed.is_empty() { Vec::new() } else { vec![Event::Placed(changed)] }
    }
}

fn join(state: &State, joining: Member) -> Decision<Catalog> {
    match state.member_named(&joining.name) {
        Some(known) if known.instance != joining.instance => {
            Decision::Reject(Rejection::NameTaken { name: joining.name, by: known.instance })
        }
        Some(known) => {
            let node = known.node;
            let member = Member { node, ..joining };
            // Who leaves has given its places away already.
            let is_spread_anew = member.zone != known.zone && !state.leaving.contains(&node);
            let placed = if is_spread_anew { state.placed(Some(&member), None) } else { Vec::new() };
            let moved = (member != *known).then_some(Event::Moved(member));
            Decision::accept(moved.into_iter().chain(placed).collect(), Reply::Member(node))
        }
        None => {
            let member = Member { node: NodeId(state.last_node + 1), ..joining };
            let (placed, reply) = (state.placed(Some(&member), None), Reply::Member(member.node));
            Decision::accept([vec![Event::Joined(member)], placed].concat(), reply)
        }
    }
}

fn replace(state: &State, joining: Member) -> Decision<Catalog> {
    match state.member_named(&joining.name) {
        Some(lost) if lost.instance != joining.instance => {
            let by = Member { node: NodeId(state.last_node + 1), ..joining };
            let reply = Reply::Member(by.node);
            // Who was leaving has given its places away already.
            let placed = match state.leaving.contains(&lost.node) {
                true => state.placed(Some(&by), Some(lost.node)),
                false => Vec::new(),
            };
            Decision::accept([vec![Event::Replaced { node: lost.node, by }], placed].concat(), reply)
        }
        // It has taken the place already, or there is none to take.
        _ => join(state, joining),
    }
}

fn leave(state: &State, name: String) -> Decision<Catalog> {
    let Some(node) = state.member_named(&name).map(|member| member.node) else {
        return Decision::Reject(Rejection::NotAMember { name });
    };
    if state.leaving.contains(&node) {
        return Decision::accept(Vec::new(), Reply::Member(node));
    }
    if state.members.len() - state.leaving.len() == 1 {
        return Decision::Reject(Rejection::LastMember { name });
    }
    let mut events = vec![Event::Leaving { node }];
    match state.holds_anything(node) {
        true => events.extend(state.placed(None, Some(node))),
        false => events.push(Event::Left { node }),
    }
    Decision::accept(events, Reply::Member(node))
}

fn settled(state: &State, group: GroupId, epoch: u64) -> Decision<Catalog> {
    let is_wanted = state.placements.iter().any(|p| p.group == group && p.epoch == epoch);
    if !is_wanted || !state.moving.contains_key(&group) {
        // Told already, or overtaken by another change.
        return Decision::accept(Vec::new(), Reply::Done);
    }
    let mut after = state.clone();
    Catalog::evolve(&mut after, &Event::Settled { group });
    let gone = after.leaving.iter().filter(|node| !after.holds_anything(**node));
    let left = gone.map(|node| Event::Left { node: *node });
    Decision::accept([Event::Settled { group }].into_iter().chain(left).collect(), Reply::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTEXT: Context<'static> = Context { id: CATALOG_ID, version: 0, now_ms: 0, random: 0 };

    fn member(name: &str, instance: u128) -> Member {
        let (node, instance) = (NodeId(0), InstanceId(instance));
        Member { node, name: name.into(), instance, address: "a:1".into(), http: "a:2".into(), zone: None }
    }

    fn apply(state: &mut State, command: Command) -> Result<Reply, Rejection> {
        match Catalog::decide(state, command, &CONTEXT) {
            Decision::Accept { events, reply, .. } => {
                events.iter().for_each(|e| Catalog::evolve(state, e));
                Ok(reply)
            }
            Decision::Reject(rejection) => Err(rejection),
        }
    }

    fn founding(nodes: u64) -> Founding {
        let node = |n| Member { node: NodeId(n), ..member(&format!("n{n}"), u128::from(n)) };
        let members: Vec<Member> = (1..=nodes).map(node).collect();
        let placements = plan(&members, 4, 3);
        Founding { cluster: ClusterId(7), shards: 4, replication_factor: 3, members, placements }
    }

    /// Founded by so many nodes.
    fn of(nodes: u64) -> State {
        let mut state = State::default();
        apply(&mut state, Command::Found(founding(nodes))).expect("founded");
        state
    }

    fn leave(name: &str) -> Command {
        Command::Leave { name: name.into() }
    }

    /// What the leaders of all groups report.
    fn settle(state: &mut State) {
        for Placement { group, epoch, .. } in state.placements.clone() {
            apply(state, Command::Settled { group, epoch }).expect("taken note of");
        }
    }

    fn nodes(state: &State) -> Vec<u64> {
        state.members.keys().map(|node| node.0).collect()
    }

    fn founded() -> State {
        let mut state = State::default();
        let found = Command::Found(founding(1));
        assert_eq!(apply(&mut state, found.clone()), Ok(Reply::Done));
        assert_eq!(apply(&mut state, found), Err(Rejection::AlreadyFounded));
        state
    }

    #[test]
    fn a_node_that_comes_back_keeps_its_id_and_may_move() {
        let mut state = founded();
        assert_eq!(apply(&mut state, Command::Join(member("n2", 2))), Ok(Reply::Member(NodeId(2))));
        let moved = Member { address: "b:1".into(), ..member("n2", 2) };
        assert_eq!(apply(&mut state, Command::Join(moved)), Ok(Reply::Member(NodeId(2))));
        assert_eq!(state.members[&NodeId(2)].address, "b:1");
    }

    #[test]
    fn a_node_that_comes_back_in_another_zone_has_its_shards_spread_anew() {
        let mut state = of(4);
        let in_zone = |n: u64, zone: &str| {
            Command::Join(Member { zone: Some(zone.into()), ..member(&format!("n{n}"), u128::from(n)) })
        };
        let placements = state.placements.clone();
        for (node, zone) in [(1, "a"), (2, "b"), (3, "c")] {
            apply(&mut state, in_zone(node, zone)).expect("a member");
        }
        assert_eq!(state.placements, placements, "four zones, one of them unnamed");
        apply(&mut state, in_zone(4, "a")).expect("a member");
        let shards = &state.placements[1..];
        let both = |p: &&Placement| p.is_on(NodeId(1)) && p.is_on(NodeId(4));
        assert!(placements[1..].iter().any(|p| both(&p)), "or this shows nothing");
        assert_eq!(shards.iter().find(both), None);
        assert!(shards.iter().all(|p| p.replicas.len() == 3 && p.is_on(NodeId(2)) && p.is_on(NodeId(3))));
        assert!(!state.moving.is_empty(), "until the leaders have followed");
        settle(&mut state);

        // Who leaves gets nothing back by coming back elsewhere.
        apply(&mut state, leave("n4")).expect("it may");
        let without = state.placements.clone();
        apply(&mut state, in_zone(4, "d")).expect("still a member");
        assert_eq!(state.placements, without);
        assert_eq!(state.members[&NodeId(4)].zone.as_deref(), Some("d"));
    }

    #[test]
    fn a_node_that_replaces_another_gets_an_id_of_its_own_and_the_places_of_the_other() {
        let mut state = of(3);
        let placements = state.placements.clone();
        let replace = || Command::Replace(member("n2", 22));
        assert_eq!(apply(&mut state, replace()), Ok(Reply::Member(NodeId(4))));
        assert_eq!(apply(&mut state, replace()), Ok(Reply::Member(NodeId(4))), "asked again");
        assert_eq!(state.members.keys().map(|n| n.0).collect::<Vec<_>>(), [1, 3, 4]);
        for (now, before) in state.placements.iter().zip(&placements) {
            assert_eq!(now.replicas, [NodeId(1), NodeId(3), NodeId(4)], "sorted, and as many");
            let expected = if before.preferred == NodeId(2) { NodeId(4) } else { before.preferred };
            assert_eq!(now.preferred, expected);
        }
        let view = crate::catalog::View::of(&state, 2).expect("founded");
        assert_eq!(view.founding(GroupId(0)), None, "who came later finds the group, or waits for it");
        let founders = crate::catalog::View::of(&of(3), 1).expect("founded");
        assert_eq!(founders.founding(GroupId(0)), Some(&placements[1]));
        let late = apply(&mut state, Command::Join(member("n2", 2)));
        assert_eq!(late, Err(Rejection::NameTaken { name: "n2".into(), by: InstanceId(22) }));
        assert_eq!(
            apply(&mut state, Command::Replace(member("n9", 9))),
            Ok(Reply::Member(NodeId(5))),
            "nobody's place"
        );
    }

    #[test]
    fn a_taken_name_is_refused_and_ids_are_never_given_out_twice() {
        let mut state = founded();
        let taken = apply(&mut state, Command::Join(member("n1", 99)));
        assert_eq!(taken, Err(Rejection::NameTaken { name: "n1".into(), by: InstanceId(1) }));
        assert_eq!(apply(&mut state, Command::Join(member("n2", 2))), Ok(Reply::Member(NodeId(2))));
        assert_eq!(apply(&mut state, Command::Join(member("n3", 3))), Ok(Reply::Member(NodeId(3))));
    }

    #[test]
    fn who_joins_gets_its_share_and_who_had_it_is_let_go_when_the_group_has_settled() {
        let mut state = of(3);
        assert_eq!(apply(&mut state, Command::Join(member("n4", 4))), Ok(Reply::Member(NodeId(4))));
        let shards = || state.placements[1..].iter();
        assert!(shards().any(|p| p.is_on(NodeId(4))) && shards().all(|p| p.replicas.len() == 3));
        assert!(!state.placements[0].is_on(NodeId(4)), "three hold the catalog");
        let moved: Vec<GroupId> = shards().filter(|p| p.is_on(NodeId(4))).map(|p| p.group).collect();
        assert_eq!(state.moving.keys().copied().collect::<Vec<_>>(), moved);
        let view = crate::catalog::View::of(&state, 2).expect("founded");
        for group in moved {
            assert!((1..=4).all(|node| view.may_hold(NodeId(node), group)), "until it has settled");
            assert_eq!(view.founding(group).map(|p| p.replicas.len()), Some(3), "its founders may still create it");
        }
        settle(&mut state);
        assert_eq!(state.moving, BTreeMap::new());
        let view = crate::catalog::View::of(&state, 3).expect("founded");
        for placement in &state.placements {
            let holders = (1..=4).map(NodeId).filter(|node| view.may_hold(*node, placement.group));
            assert_eq!(holders.collect::<Vec<_>>(), placement.replicas);
        }
    }

    #[test]
    fn who_leaves_is_a_member_until_no_group_counts_on_it() {
        let mut state = of(4);
        assert_eq!(apply(&mut state, leave("n2")), Ok(Reply::Member(NodeId(2))));
        assert_eq!(apply(&mut state, leave("n2")), Ok(Reply::Member(NodeId(2))), "asked again");
        assert_eq!((nodes(&state), state.leaving.len()), (vec![1, 2, 3, 4], 1));
        assert!(state.placements.iter().all(|p| !p.is_on(NodeId(2)) && p.replicas.len() == 3));
        let before = state.clone();
        assert_eq!(apply(&mut state, Command::Settled { group: GroupId(0), epoch: 0 }), Ok(Reply::Done));
        assert_eq!(state, before, "that was about where it was wanted before");
        settle(&mut state);
        assert_eq!((nodes(&state), state.leaving.len(), state.moving.len()), (vec![1, 3, 4], 0, 0));
        let unknown = Err(Rejection::NotAMember { name: "n2".into() });
        assert_eq!(apply(&mut state, leave("n2")), unknown);
        assert_eq!(apply(&mut state, Command::Return(member("n2", 2))), unknown, "it is told so");
        assert_eq!(apply(&mut state, Command::Return(member("n3", 3))), Ok(Reply::Member(NodeId(3))));
        let again = apply(&mut state, Command::Join(member("n2", 22)));
        assert_eq!(again, Ok(Reply::Member(NodeId(5))), "the name is free, the id is not");
    }

    #[test]
    fn a_cluster_shrinks_to_one_and_no_further() {
        let mut state = of(3);
        for (name, left) in [("n1", vec![2, 3]), ("n3", vec![2])] {
            apply(&mut state, leave(name)).expect("accepted");
            settle(&mut state);
            assert_eq!(nodes(&state), left);
        }
        assert_eq!(apply(&mut state, leave("n2")), Err(Rejection::LastMember { name: "n2".into() }));
        assert!(state.placements.iter().all(|p| p.replicas == [NodeId(2)] && p.preferred == NodeId(2)));
    }

    #[test]
    fn two_may_leave_at_once_and_not_the_last_two() {
        let mut state = of(3);
        apply(&mut state, leave("n1")).expect("accepted");
        apply(&mut state, leave("n2")).expect("accepted");
        assert_eq!(apply(&mut state, leave("n3")), Err(Rejection::LastMember { name: "n3".into() }));
        assert_eq!(nodes(&state), [1, 2, 3]);
        settle(&mut state);
        assert_eq!(nodes(&state), [3]);
    }

    #[test]
    fn a_member_without_a_replica_leaves_at_once() {
        let mut state = of(1);
        state.replication_factor = 1;
        for n in 2..=10 {
            apply(&mut state, Command::Join(member(&format!("n{n}"), n))).expect("joined");
            settle(&mut state);
        }
        // Five hold the catalog, and four at most a shard.
        let idle = (6..=10).find(|n| !state.holds_anything(NodeId(*n))).expect("one of these holds nothing");
        let before = state.placements.clone();
        apply(&mut state, leave(&format!("n{idle}"))).expect("accepted");
        assert!(!nodes(&state).contains(&idle) && state.leaving.is_empty());
        assert_eq!(state.placements, before);
    }

    #[test]
    fn who_replaces_a_member_that_was_leaving_stays() {
        let mut state = of(4);
        apply(&mut state, leave("n2")).expect("accepted");
        assert_eq!(apply(&mut state, Command::Replace(member("n2", 22))), Ok(Reply::Member(NodeId(5))));
        settle(&mut state);
        assert_eq!((nodes(&state), state.leaving.len()), (vec![1, 3, 4, 5], 0));
        assert!(state.placements[1..].iter().any(|p| p.is_on(NodeId(5))));
    }
}
