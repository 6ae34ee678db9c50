//! The catalog as an entity: roster and shard map, changed by consensus like anything else.

use super::{ClusterId, InstanceId, Member, NodeId, Placement};
use crate::entity::{Context, Decision, Entity};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

/// There is one catalog per cluster.
pub const CATALOG_ID: &str = "cluster";

pub struct Catalog;

/// Roster and shard map.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub cluster: Option<ClusterId>,
    pub shards: u16,
    pub members: BTreeMap<NodeId, Member>,
    pub placements: Vec<Placement>,
    /// The highest node id ever given out.
    pub last_node: u64,
    /// Nodes up to this id founded the cluster: only they may create a group.
    pub founders: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Command {
    /// Writes down what the founding nodes agreed on. Once.
    Found { cluster: ClusterId, shards: u16, members: Vec<Member>, placements: Vec<Placement> },
    /// A node joins, or an old one comes back (perhaps at another address). `node` is ignored.
    Join(Member),
    /// A node takes the place of the one that had its name, under an id of its own: whoever forgot what
    /// it voted must never vote again under the same one. `node` is ignored.
    Replace(Member),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Event {
    Founded { cluster: ClusterId, shards: u16, members: Vec<Member>, placements: Vec<Placement> },
    Joined(Member),
    Moved(Member),
    Replaced { node: NodeId, by: Member },
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
    NameTaken { name: String, by: InstanceId },
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
            Command::Found { .. } if state.cluster.is_some() => Decision::Reject(Rejection::AlreadyFounded),
            Command::Found { cluster, shards, members, placements } => {
                Decision::accept(vec![Event::Founded { cluster, shards, members, placements }], Reply::Done)
            }
            Command::Join(_) | Command::Replace(_) if state.cluster.is_none() => {
                Decision::Reject(Rejection::NotFounded)
            }
            Command::Join(joining) => join(state, joining),
            Command::Replace(joining) => replace(state, joining),
        }
    }

    fn evolve(state: &mut State, event: &Event) {
        match event {
            Event::Founded { cluster, shards, members, placements } => {
                state.cluster = Some(*cluster);
                state.shards = *shards;
                state.members = members.iter().map(|m| (m.node, m.clone())).collect();
                state.placements.clone_from(placements);
                state.last_node = members.iter().map(|m| m.node.0).max().unwrap_or(0);
                state.founders = state.last_node;
            }
            Event::Joined(member) | Event::Moved(member) => {
                state.last_node = state.last_node.max(member.node.0);
                state.members.insert(member.node, member.clone());
            }
            Event::Replaced { node, by } => {
                state.last_node = state.last_node.max(by.node.0);
                state.members.remove(node);
                state.members.insert(by.node, by.clone());
                state.placements.iter_mut().for_each(|placement| placement.replace(*node, by.node));
            }
        }
    }
}

fn join(state: &State, joining: Member) -> Decision<Catalog> {
    let known = state.members.values().find(|m| m.name == joining.name);
    match known {
        Some(known) if known.instance != joining.instance => {
            Decision::Reject(Rejection::NameTaken { name: joining.name, by: known.instance })
        }
        Some(known) => {
            let member = Member { node: known.node, ..joining };
            let events = if member == *known { Vec::new() } else { vec![Event::Moved(member)] };
            Decision::accept(events, Reply::Member(known.node))
        }
        None => {
            let node = NodeId(state.last_node + 1);
            Decision::accept(vec![Event::Joined(Member { node, ..joining })], Reply::Member(node))
        }
    }
}

fn replace(state: &State, joining: Member) -> Decision<Catalog> {
    match state.members.values().find(|m| m.name == joining.name) {
        Some(lost) if lost.instance != joining.instance => {
            let by = Member { node: NodeId(state.last_node + 1), ..joining };
            let reply = Reply::Member(by.node);
            Decision::accept(vec![Event::Replaced { node: lost.node, by }], reply)
        }
        // It has taken the place already, or there is none to take.
        _ => join(state, joining),
    }
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

    fn founded() -> State {
        let mut state = State::default();
        let members = vec![Member { node: NodeId(1), ..member("n1", 1) }];
        let found = Command::Found { cluster: ClusterId(7), shards: 4, members, placements: vec![] };
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
    fn a_node_that_replaces_another_gets_an_id_of_its_own_and_the_places_of_the_other() {
        let mut state = State::default();
        let members: Vec<Member> =
            (1..=3).map(|n| Member { node: NodeId(n), ..member(&format!("n{n}"), u128::from(n)) }).collect();
        let placements = crate::catalog::plan(&members, 4, 3);
        let found = Command::Found { cluster: ClusterId(7), shards: 4, members, placements: placements.clone() };
        apply(&mut state, found).expect("founded");
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
        assert!(!view.may_create(&state.placements[1]), "whoever came later finds the group, or waits for it");
        assert!(view.may_create(&placements[1]));
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
}
