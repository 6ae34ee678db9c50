//! What the other members look like from here.

use super::{Record, identity::Identity};
use crate::catalog::NodeId;
use std::collections::BTreeMap;

/// Every other node that gossip knows of, this one left out. A node whose record has not arrived
/// yet is not listed (it takes a round trip); a dead one stays listed until it is forgotten.
pub type View = BTreeMap<NodeId, MemberView>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberView {
    pub record: Record,
    pub state: State,
}

/// How a member is, as far as gossip can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    Alive,
    /// It missed probes and has `suspicion_timeout` to speak up. Members that did not probe it
    /// themselves may still list it as alive.
    Suspect,
    /// Gone, by its own word or for want of an answer.
    Down,
}

impl State {
    pub const ALL: [Self; 3] = [Self::Alive, Self::Suspect, Self::Down];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Suspect => "suspect",
            Self::Down => "down",
        }
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<foca::State> for State {
    fn from(state: foca::State) -> Self {
        match state {
            foca::State::Alive => Self::Alive,
            foca::State::Suspect => Self::Suspect,
            foca::State::Down => Self::Down,
        }
    }
}

/// Lists a member as it is now; true if that is news. A member in a new life stays listed as it
/// was until its new record is there, so that nobody takes the old boot id for the new one.
pub(super) fn update(view: &mut View, member: &foca::Member<Identity>, record: &Record) -> bool {
    let state = State::from(member.state());
    let outdated = record.generation < member.id().generation;
    if outdated && state != State::Down {
        return false;
    }
    match view.get_mut(&record.node) {
        Some(listed) if listed.state == state && listed.record.order() == record.order() => false,
        Some(listed) => {
            *listed = MemberView { record: record.clone(), state };
            true
        }
        None => {
            view.insert(record.node, MemberView { record: record.clone(), state });
            true
        }
    }
}
