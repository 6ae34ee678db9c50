//! What goes in and out of a [`super::Cluster`].

use crate::{
    catalog::{ClusterId, NodeId},
    entity::{EntityKey, ShardId},
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How fresh a read must be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    /// Sees every write acknowledged before the read began: answered by the shard's owner.
    #[default]
    Linearizable,
    /// This node's replica, which may lag; works without a quorum. Where this node holds no
    /// replica of the shard, the nearest node that does answers.
    Local,
}

/// Makes a command take effect once, however often it is sent: what the entity decided first, a
/// rejection included, is the answer to all of them.
///
/// The answer is kept with the entity, in the log entry of its effect, for
/// `shard.idempotency_retention` at least. [`Unavailable`] and [`AskError::VersionMismatch`] are no
/// decisions and are not kept: the command may take effect when it comes again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Idempotency {
    /// 1–255 visible ASCII characters.
    pub key: String,
    /// Hash of the request; the same key with another fingerprint is refused.
    pub fingerprint: [u8; 16],
}

/// How to ask. [`Default`]: no idempotency key, no condition, the time limit of
/// the configuration (`shard.command_timeout`).
#[derive(Debug, Clone, Default)]
pub struct AskOptions {
    pub idempotency: Option<Idempotency>,
    /// Refuse unless the entity is at this version.
    pub if_version: Option<u64>,
    /// How long to try; `None` takes the configured default.
    pub timeout: Option<Duration>,
    /// W3C trace id, carried into logs and effects.
    pub trace_id: Option<String>,
}

/// Proof of an acknowledged write. Written `3-2-1047-9c0b7e11`, see [`super::InvalidReceipt`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    pub shard: ShardId,
    pub term: u64,
    pub index: u64,
    /// CRC32C of the committed entry.
    pub entry_hash: u32,
}

/// The answer to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer<R> {
    pub reply: R,
    /// The entity's version after the command.
    pub version: u64,
    /// True when the idempotency key had been used before and this is the first answer again.
    pub replayed: bool,
    /// Absent when the command changed nothing.
    pub receipt: Option<Receipt>,
}

/// An entity's state as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot<S> {
    pub state: S,
    /// Events so far; 0 for an entity that does not exist.
    pub version: u64,
    /// Raft log index that the answering replica had applied.
    pub applied_index: u64,
}

/// One event of an entity's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded<E> {
    /// 1 for the entity's first event, without gaps.
    pub sequence: u64,
    /// When the owner decided it, in milliseconds since the epoch.
    pub at_ms: u64,
    pub event: E,
}

/// Why a command got no reply. `R` is the entity's own rejection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError<R> {
    /// The entity refused; nothing happened.
    #[error("rejected: {0:?}")]
    Rejected(R),
    /// As [`AskError::Rejected`], to a key that was used before: the first answer again, whatever the
    /// entity would decide now.
    #[error("rejected before: {0:?}")]
    RejectedBefore(R),
    /// The idempotency key was used before with another request; nothing happened.
    #[error("the idempotency key was used before with another request")]
    IdempotencyKeyReused,
    /// The entity is not at the version asked for; nothing happened.
    #[error("the entity is at version {actual}")]
    VersionMismatch { actual: u64 },
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

impl<R> AskError<R> {
    /// The entity's own reason, whether it was given just now or is the first answer again.
    pub fn rejection(&self) -> Option<&R> {
        match self {
            Self::Rejected(reason) | Self::RejectedBefore(reason) => Some(reason),
            Self::IdempotencyKeyReused | Self::VersionMismatch { .. } | Self::Unavailable(_) => None,
        }
    }
}

/// Why the runtime could not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Unavailable {
    /// No majority of the shard's replicas can be reached; nothing happened.
    #[error("shard {shard} has no quorum or no owner")]
    NoQuorum { shard: ShardId },
    /// Sent, but not answered in time: it may have happened. Safe to retry with the same key.
    #[error("the outcome is unknown: the owner of shard {shard} was lost or too slow")]
    OutcomeUnknown { shard: ShardId },
    /// A named bound was reached; nothing happened. Try again later.
    #[error("overloaded: {limit} is at its limit")]
    Overloaded { limit: String },
    /// `decide` or `evolve` panicked; nothing happened, and the entity was restarted.
    #[error("entity {key} failed while deciding; it was restarted")]
    EntityFailed { key: String },
    /// No such entity type is registered on the owner.
    #[error("no entity type `{entity_type}` is registered")]
    UnknownType { entity_type: String },
    /// The id cannot name an entity, or a value is too large or cannot be read.
    #[error("invalid: {detail}")]
    Invalid { detail: String },
    /// This node is stopping; nothing happened.
    #[error("this node is shutting down")]
    ShuttingDown,
    /// What is stored of the entity breaks its own laws: it takes no commands; nothing happened.
    #[error("entity {key} is frozen: its state breaks its own laws")]
    Frozen { key: String },
    /// A backup is being restored into the shard; nothing happened.
    #[error("shard {shard} is being restored from a backup")]
    Restoring { shard: ShardId },
}

impl Unavailable {
    pub(super) fn mixed_up() -> Self {
        Self::Invalid { detail: "the owner answered another question".into() }
    }
}

/// A node as `quorate members` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberStatus {
    pub node: NodeId,
    pub name: String,
    pub address: String,
    pub http: String,
    pub zone: Option<String>,
    /// `alive`, `suspect` or `down` as this node sees it; `alive` for itself.
    pub gossip: String,
    /// Whether this node's link with it is up; true for itself.
    pub linked: bool,
    pub is_self: bool,
    /// It goes for good once no shard counts on it any more.
    pub leaving: bool,
}

/// A shard as `quorate shards` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardStatus {
    pub shard: ShardId,
    /// The nodes that are to hold a replica.
    pub replicas: Vec<NodeId>,
    /// The nodes whose replicas vote, as this node's replica knows them; others than `replicas` while
    /// one is being filled. Empty where this node holds no replica.
    pub voters: Vec<NodeId>,
    /// The node that owns it, if this node knows of one.
    pub owner: Option<NodeId>,
    pub term: u64,
    /// Of this node's replica; `None` where it holds none.
    pub applied_index: Option<u64>,
    pub last_log_index: Option<u64>,
    /// Effects waiting for delivery (exact on the owner).
    pub outbox: usize,
    /// Entity actors alive on this node.
    pub active_entities: usize,
}

/// A node's own summary, as `quorate status` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    pub cluster: Option<ClusterId>,
    pub node: Option<NodeId>,
    pub name: String,
    pub version: String,
    pub uptime_ms: u64,
    pub phase: Phase,
    /// Shards that have no known owner, as seen from here.
    pub shards_without_owner: Vec<ShardId>,
    pub shards_owned: usize,
    /// Broken invariants that this node has found and that still stand.
    pub violations: usize,
}

/// How far a node is on its way up or down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Waiting for its seeds, or joining.
    Joining,
    /// A member, but its shards are not all caught up.
    Recovering,
    Ready,
    Draining,
}

/// An entity in raw form, as the admin route and `quorate entity` show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntityStatus {
    pub key: EntityKey,
    pub shard: ShardId,
    pub owner: Option<NodeId>,
    pub version: u64,
    pub applied_index: u64,
}
