//! What happens in the cluster, as this node sees it: members come and go, shards change owners,
//! something breaks.
//!
//! ```text
//! gossip, links, roster ─┐
//! Raft, per replica ─────┼─▶ Feed: what stands now, and the last events ─▶ whoever reads, at its own pace
//! faults, auditor ───────┘
//! ```
//!
//! The [`Feed`] holds what stands and folds every event into it under one lock. So a reader that begins
//! with a [`Snapshot`] and goes on behind its number is never wrong (list and watch, as Kubernetes has
//! it), and one that went on too late is told so and takes a snapshot. Readers have nothing of their own
//! here but a number: a slow one holds up nobody.
//!
//! This is what one process saw since it began, and nothing that is replicated: another node numbers its
//! own events, and sees other things, or the same at other moments. Between two looks at gossip and links
//! only what is different afterwards is an event.

mod feed;
#[cfg(test)]
mod tests;
mod watch;

pub use feed::{EVENTS_KEPT, Feed, STANDING_MAX};
pub(super) use watch::{follow_leader, follow_members};

use super::{audit::Finding, faults::FaultStatus, handle::Cluster, types::MemberStatus};
use crate::{catalog::NodeId, entity::ShardId};
use std::{fmt, str::FromStr};

/// Which event of which process. Written `<boot id, 16 hexadecimal digits>-<number>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventId {
    /// Random number of the process, as its peers see it, too.
    pub boot: u64,
    /// From 1 on, without gaps; 0 is before the first.
    pub number: u64,
}

/// It is not the id of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event id is 16 hexadecimal digits, `-` and a number")]
pub struct InvalidEventId;

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.boot, self.number)
    }
}

impl FromStr for EventId {
    type Err = InvalidEventId;

    fn from_str(text: &str) -> Result<Self, InvalidEventId> {
        let (boot, number) = text.split_once('-').ok_or(InvalidEventId)?;
        let boot = u64::from_str_radix(boot, 16).map_err(|_| InvalidEventId)?;
        let id = Self { boot, number: number.parse().map_err(|_| InvalidEventId)? };
        // One way to write it.
        if id.to_string() == text { Ok(id) } else { Err(InvalidEventId) }
    }
}

/// Something happened.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterEvent {
    pub id: EventId,
    /// When this node saw it, in milliseconds since the epoch.
    pub at_ms: u64,
    pub news: News,
}

/// What happened, with what stands now.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    Membership { change: MemberChange, member: MemberSeen },
    Leadership { change: LeaderChange, shard: ShardSeen },
    Fault { change: FaultChange, fault: Fault },
}

/// A member as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberSeen {
    pub status: MemberStatus,
    /// Random number of its process; `None` while this node has not heard of it.
    pub boot_id: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberChange {
    /// It is in the roster.
    Joined,
    /// It is not any more.
    Removed,
    /// It is another process than before.
    Restarted,
    /// Gossip says so.
    Alive,
    Suspect,
    Down,
    /// The link with it is up.
    Linked,
    Unlinked,
    /// Its addresses, or that its process became known.
    Updated,
}

impl MemberChange {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Joined => "joined",
            Self::Removed => "removed",
            Self::Restarted => "restarted",
            Self::Alive => "alive",
            Self::Suspect => "suspect",
            Self::Down => "down",
            Self::Linked => "linked",
            Self::Unlinked => "unlinked",
            Self::Updated => "updated",
        }
    }
}

/// A shard of which this node holds a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardSeen {
    pub shard: ShardId,
    /// Node and name.
    pub owner: Option<(NodeId, String)>,
    pub term: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaderChange {
    Elected,
    /// Nobody leads it, as far as this node knows.
    Lost,
    /// This node holds no replica of it any more: it goes on elsewhere.
    Closed,
}

impl LeaderChange {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Elected => "elected",
            Self::Lost => "lost",
            Self::Closed => "closed",
        }
    }
}

/// Something is wrong with this node, or was found by it.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// On purpose.
    Injected(FaultStatus),
    /// A broken invariant.
    Violation(Finding),
    /// This node cannot go on; why.
    NodeFailed(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultChange {
    Began,
    Ended,
}

impl FaultChange {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Began => "began",
            Self::Ended => "ended",
        }
    }
}

/// What stands at one moment: the events up to and with `id`, folded.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    pub id: EventId,
    pub at_ms: u64,
    pub members: Vec<MemberSeen>,
    pub shards: Vec<ShardSeen>,
    pub faults: Vec<Fault>,
}

impl Cluster {
    /// What happens in the cluster, as this node sees it.
    pub fn feed(&self) -> &Feed {
        self.node().feed()
    }
}
