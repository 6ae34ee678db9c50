//! What is asked of a shard's owner, here or over a node link.

use crate::{
    catalog::NodeId,
    cluster::{Consistency, Idempotency, Receipt, Unavailable},
    entity::{EntityKey, Versioned},
    storage::GroupId,
};
use serde::{Deserialize, Serialize};

/// A command for one entity.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CommandRequest {
    pub key: EntityKey,
    pub command: Versioned,
    pub cause: Cause,
    pub idempotency: Option<Idempotency>,
    pub if_version: Option<u64>,
    pub trace_id: Option<String>,
}

/// Where a command comes from; recorded in the same entry as its events, so that each cause takes
/// effect once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    Client,
    /// Effect `number` of the shard `source`, which has nothing left to deliver below `done_below`.
    Effect {
        source: GroupId,
        number: u64,
        done_below: u64,
    },
    /// A timer of this shard.
    Timer {
        at_ms: u64,
        number: u64,
    },
    /// The end of a task in this shard's outbox; `dead` is the error it was given up with.
    Task {
        number: u64,
        dead: Option<String>,
    },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum CommandReply {
    Done {
        reply: Vec<u8>,
        version: u64,
        replayed: bool,
        receipt: Option<Receipt>,
    },
    Rejected(Vec<u8>),
    IdempotencyKeyReused,
    VersionMismatch {
        actual: u64,
    },
    /// The cause has taken effect before.
    Duplicate,
    /// Nothing happened; ask that other node.
    NotOwner {
        hint: Option<NodeId>,
    },
    /// Nothing happened; ask again.
    TryAgain,
    /// It may have happened, or may still happen.
    Unknown,
    Unavailable(Unavailable),
    /// The first answer under this idempotency key was a rejection. Nothing happened, then and now.
    RejectedBefore(Vec<u8>),
}

/// A question about one entity.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct QueryRequest {
    pub key: EntityKey,
    pub query: Query,
    pub consistency: Consistency,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Query {
    State,
    /// Events after number `after`, oldest first.
    History {
        after: u64,
        limit: u32,
    },
    /// Waits until the version is above `after`, at most `timeout_ms`, then as `State`.
    Changed {
        after: u64,
        timeout_ms: u64,
    },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum QueryReply {
    State(StoredState),
    History(Vec<StoredEvent>),
    NotOwner { hint: Option<NodeId> },
    Unavailable(Unavailable),
}

/// An entity's state, encoded.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StoredState {
    /// `None` for an entity without events.
    pub state: Option<Versioned>,
    pub version: u64,
    pub applied_index: u64,
}

impl StoredState {
    /// What it weighs in an answer.
    pub fn bytes(&self) -> usize {
        self.state.as_ref().map_or(0, |state| state.bytes.len())
    }
}

/// One event of a history, encoded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredEvent {
    pub sequence: u64,
    pub at_ms: u64,
    pub event: Versioned,
}
