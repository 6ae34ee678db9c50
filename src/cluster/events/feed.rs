//! What stands, and the last events that led to it.

use super::{
    ClusterEvent, EventId, Fault, FaultChange, LeaderChange, MemberChange, MemberSeen, News, ShardSeen, Snapshot,
};
use crate::{
    catalog::NodeId,
    cluster::{
        audit::{Finding, Violation},
        faults::FaultStatus,
    },
    entity::{EntityKey, ShardId},
    shard::now_ms,
};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};
use tokio::sync::{Notify, watch};

/// Events that a reader may lag behind.
pub const EVENTS_KEPT: usize = 1024;
/// Broken invariants that are told one by one; the others are told when there is room.
pub const STANDING_MAX: usize = 256;
/// The longest text in an event.
const TEXT_BYTES_MAX: usize = 2048;

/// What happens in the cluster, as one process sees it.
pub struct Feed {
    boot: u64,
    state: Mutex<State>,
    /// The number of the last event.
    last: watch::Sender<u64>,
    /// The roster has changed.
    roster: Notify,
}

#[derive(Default)]
struct State {
    /// Oldest first, numbered without gaps up to `last`.
    events: VecDeque<Arc<ClusterEvent>>,
    last: u64,
    members: BTreeMap<NodeId, MemberSeen>,
    shards: BTreeMap<ShardId, ShardSeen>,
    faults: BTreeMap<Key, Fault>,
}

/// Which fault.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    NodeFailed,
    Injected(u64),
    Conservation(ShardId, EntityKey),
    StateHash(ShardId, NodeId),
}

impl Key {
    fn of(fault: &Fault) -> Self {
        match fault {
            Fault::NodeFailed(_) => Self::NodeFailed,
            Fault::Injected(fault) => Self::Injected(fault.id),
            Fault::Violation(Finding { shard, violation, .. }) => match violation {
                Violation::Conservation { entity, .. } => Self::Conservation(*shard, entity.clone()),
                Violation::StateHash { peer, .. } => Self::StateHash(*shard, *peer),
            },
        }
    }

    fn is_violation(&self) -> bool {
        matches!(self, Self::Conservation(..) | Self::StateHash(..))
    }
}

impl Feed {
    pub(in crate::cluster) fn new(boot: u64) -> Self {
        Self { boot, state: Mutex::default(), last: watch::Sender::new(0), roster: Notify::new() }
    }

    /// Random number of this process.
    pub fn boot(&self) -> u64 {
        self.boot
    }

    /// What stands now.
    pub fn snapshot(&self) -> Snapshot {
        let state = self.state.lock();
        Snapshot {
            id: EventId { boot: self.boot, number: state.last },
            at_ms: now_ms(),
            members: state.members.values().cloned().collect(),
            shards: state.shards.values().cloned().collect(),
            faults: state.faults.values().cloned().collect(),
        }
    }

    /// Up to `limit` events behind number `after`, oldest first; `None` if some of them are gone.
    pub fn after(&self, after: u64, limit: usize) -> Option<Vec<Arc<ClusterEvent>>> {
        let state = self.state.lock();
        let seen = after.checked_sub(state.gone())?;
        let skip = usize::try_from(seen).unwrap_or(usize::MAX);
        Some(state.events.iter().skip(skip).take(limit).cloned().collect())
    }

    /// Up to `limit` of those that are kept, oldest first.
    pub fn oldest(&self, limit: usize) -> Vec<Arc<ClusterEvent>> {
        self.state.lock().events.iter().take(limit).cloned().collect()
    }

    /// The numbers of the last event that is gone, and of the last one; the same if none is kept.
    pub fn span(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.gone(), state.last)
    }

    /// Completes when there is an event behind number `after`.
    pub async fn later_than(&self, after: u64) {
        // It cannot be closed: this holds the sender.
        _ = self.last.subscribe().wait_for(|last| *last > after).await;
    }

    /// The members as they are now, all of them.
    pub(super) fn note_members(&self, now: Vec<MemberSeen>) {
        let mut state = self.state.lock();
        let now: BTreeMap<NodeId, MemberSeen> = now.into_iter().map(|member| (member.status.node, member)).collect();
        let before = std::mem::take(&mut state.members);
        // Who comes under the name of one that goes, comes after.
        for member in before.values().filter(|member| !now.contains_key(&member.status.node)) {
            self.push(&mut state, News::Membership { change: MemberChange::Removed, member: member.clone() });
        }
        let mut after = BTreeMap::new();
        for (node, mut member) in now {
            let known = before.get(&node);
            member.boot_id = member.boot_id.or(known.and_then(|known| known.boot_id));
            if let Some(change) = change_of(known, &member) {
                self.push(&mut state, News::Membership { change, member: member.clone() });
            }
            after.insert(node, member);
        }
        state.members = after;
    }

    /// Who leads a shard of which this node holds a replica.
    pub(super) fn note_leader(&self, shard: ShardId, owner: Option<(NodeId, String)>, term: u64) {
        let mut state = self.state.lock();
        let now = ShardSeen { shard, owner, term };
        let change = match (state.shards.get(&shard), &now.owner) {
            // That nobody leads it yet is no loss.
            (None, None) => None,
            (Some(known), None) => known.owner.is_some().then_some(LeaderChange::Lost),
            (known, Some(_)) => (known != Some(&now)).then_some(LeaderChange::Elected),
        };
        match change {
            Some(change) => {
                state.shards.insert(shard, now.clone());
                self.push(&mut state, News::Leadership { change, shard: now });
            }
            // The terms of elections that nobody wins are no events, and so not in what stands.
            None => _ = state.shards.entry(shard).or_insert(now),
        }
    }

    /// This node's replica of a shard is closed: what becomes of it is told by others.
    pub(in crate::cluster) fn replica_closed(&self, shard: ShardId) {
        let mut state = self.state.lock();
        if let Some(shard) = state.shards.remove(&shard) {
            self.push(&mut state, News::Leadership { change: LeaderChange::Closed, shard });
        }
    }

    pub(in crate::cluster) fn fault_began(&self, fault: Fault) {
        self.begin(&mut self.state.lock(), fault);
    }

    pub(in crate::cluster) fn fault_ended(&self, fault: &FaultStatus) {
        self.end(&mut self.state.lock(), &Key::Injected(fault.id));
    }

    /// The broken invariants that stand now, all of them.
    pub(in crate::cluster) fn note_violations(&self, now: Vec<Finding>) {
        let mut state = self.state.lock();
        let now: BTreeMap<Key, Fault> =
            now.into_iter().map(Fault::Violation).map(|fault| (Key::of(&fault), fault)).collect();
        let known: BTreeSet<Key> = state.faults.keys().filter(|key| key.is_violation()).cloned().collect();
        for ended in known.iter().filter(|key| !now.contains_key(key)) {
            self.end(&mut state, ended);
        }
        let standing = known.iter().filter(|key| now.contains_key(key)).count();
        let new = now.into_iter().filter(|(key, _)| !known.contains(key));
        for (_, fault) in new.take(STANDING_MAX.saturating_sub(standing)) {
            self.begin(&mut state, fault);
        }
    }

    /// Whether a broken invariant stands, as far as was told.
    pub(in crate::cluster) fn has_violations(&self) -> bool {
        self.state.lock().faults.keys().any(Key::is_violation)
    }

    /// The roster has changed: whoever watches the members has to look.
    pub(in crate::cluster) fn roster_changed(&self) {
        self.roster.notify_one();
    }

    pub(super) async fn roster_change(&self) {
        self.roster.notified().await;
    }

    fn begin(&self, state: &mut State, fault: Fault) {
        let fault = shortened(fault);
        state.faults.insert(Key::of(&fault), fault.clone());
        self.push(state, News::Fault { change: FaultChange::Began, fault });
    }

    fn end(&self, state: &mut State, key: &Key) {
        if let Some(fault) = state.faults.remove(key) {
            self.push(state, News::Fault { change: FaultChange::Ended, fault });
        }
    }

    fn push(&self, state: &mut State, news: News) {
        state.last += 1;
        let id = EventId { boot: self.boot, number: state.last };
        state.events.push_back(Arc::new(ClusterEvent { id, at_ms: now_ms(), news }));
        if state.events.len() > EVENTS_KEPT {
            state.events.pop_front();
        }
        self.last.send_replace(state.last);
    }
}

impl State {
    /// The number of the last event that is not kept any more.
    fn gone(&self) -> u64 {
        self.last - self.events.len() as u64
    }
}

/// What is most worth saying of how a member has changed.
fn change_of(before: Option<&MemberSeen>, now: &MemberSeen) -> Option<MemberChange> {
    let Some(before) = before else { return Some(MemberChange::Joined) };
    let is_new_process = before.boot_id.is_some() && before.boot_id != now.boot_id;
    if before == now {
        None
    } else if is_new_process {
        Some(MemberChange::Restarted)
    } else if before.status.gossip != now.status.gossip {
        Some(match now.status.gossip.as_str() {
            "alive" => MemberChange::Alive,
            "suspect" => MemberChange::Suspect,
            _ => MemberChange::Down,
        })
    } else if before.status.linked != now.status.linked {
        Some(if now.status.linked { MemberChange::Linked } else { MemberChange::Unlinked })
    } else {
        Some(MemberChange::Updated)
    }
}

/// With texts that fit an event.
fn shortened(mut fault: Fault) -> Fault {
    let text = match &mut fault {
        Fault::NodeFailed(why) => why,
        Fault::Violation(Finding { violation: Violation::Conservation { detail, .. }, .. }) => detail,
        Fault::Violation(_) | Fault::Injected(_) => return fault,
    };
    if text.len() > TEXT_BYTES_MAX {
        let end = (0..=TEXT_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    fault
}
