//! What replication asks of a replicated state machine, in terms that hide openraft.

use crate::storage;
use bytes::Bytes;
use futures::future::BoxFuture;

/// A place in a group's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Position {
    pub term: u64,
    pub index: u64,
}

/// How far a machine is, and the voters as of there (opaque to it).
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Applied {
    pub position: Option<Position>,
    /// Replication's own encoding of the membership; empty at first.
    pub membership: Vec<u8>,
}

/// A committed entry on its way into the machine.
#[derive(Debug, Clone)]
pub struct CommittedEntry {
    pub position: Position,
    pub kind: EntryKind,
}

#[derive(Debug, Clone)]
pub enum EntryKind {
    /// Marks the start of an owner's term.
    Blank,
    /// A command as proposed, its tag byte included.
    Command(Bytes),
    /// New voters: becomes [`Applied::membership`].
    Membership(Vec<u8>),
}

/// The state a group replicates.
///
/// DETERMINISTIC-APPLY: `apply` uses nothing but the entries and what it applied before.
pub trait Machine: Send + Sync + 'static {
    fn applied(&self) -> Applied;

    /// Applies entries in log order and answers each with bytes meant for its proposer on this
    /// node. An error is final: the group stops on this node.
    fn apply(&self, entries: Vec<CommittedEntry>) -> Result<Vec<Bytes>, storage::Error>;

    /// Makes everything applied so far durable. The log before it may then be dropped.
    fn checkpoint(&self) -> BoxFuture<'static, Result<Applied, storage::Error>>;

    /// A reader of the last checkpoint, which stays as it is while the reader lives. `None`
    /// before the first checkpoint.
    fn snapshot(&self) -> BoxFuture<'static, Result<Option<Box<dyn SnapshotSource>>, storage::Error>>;

    /// Begins to receive another replica's snapshot beside the present state.
    fn receive(&self) -> BoxFuture<'static, Result<Box<dyn SnapshotSink>, storage::Error>>;

    /// Replaces the present state by the received one, all or nothing.
    fn install(
        &self,
        received: Box<dyn SnapshotSink>,
        applied: Applied,
    ) -> BoxFuture<'static, Result<(), storage::Error>>;
}

/// Yields a snapshot in chunks of bounded size.
pub trait SnapshotSource: Send + 'static {
    fn applied(&self) -> Applied;
    /// The next chunk of about `bytes_max`, or `None` at the end.
    fn next_chunk(&mut self, bytes_max: usize) -> Result<Option<Bytes>, storage::Error>;
}

/// Takes a snapshot in chunks.
pub trait SnapshotSink: Send + 'static {
    fn put(&mut self, chunk: Bytes) -> BoxFuture<'_, Result<(), storage::Error>>;
    /// Lets the machine that made this sink take its own type back.
    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any + Send>;
}
