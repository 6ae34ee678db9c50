//! Durable storage of one node: the journal that all its Raft groups share, and the state store
//! that checkpoints write to.
//!
//! ```text
//! submit(entries, votes, marks) ─▶ journal writer: gather ─▶ one append ─▶ fdatasync ─▶ every `done`
//!                                       ▲                                              │
//!                                       └───── the next group gathers meanwhile ◀──────┘
//! submit(state) ─▶ state writer: a sorted run in sled each ─▶ flush + fdatasync ─▶ `done`
//! ```
//!
//! Journal writes of one caller become durable in the order in which they were submitted, and so do
//! state writes; wait for `done` to order one after the other. A write that fails poisons the store
//! (POISON-ON-FSYNC-FAILURE): this and every later `done` gets the error, nothing is retried over it;
//! reads then still show what was queued, so stop using the store. This module knows nothing of Raft:
//! entries, votes and purge marks are bytes to it.
//!
//! | file | is |
//! |---|---|
//! | `pipeline` | the bounded queue and the writer thread that all stores share |
//! | `admission` | what a write may look like: sizes, consecutive indexes, no gaps |
//! | `record`, `pack` | the journal's bytes: records and blocks, read and written |
//! | `segment`, `journal` | the journal's files, and where each record is in them |
//! | `runs`, `index`, `ledger` | in which record each entry is; which records still hold live ones |
//! | `meta`, `head` | votes and purge marks that outlive old segments; the guard against a lost tail |
//! | `engine`, `state` | what the journal's writer thread does; the state store: sorted runs in sled, and readers of it that outlive merges |
//! | `disk`, `recover`, `replay` | the whole opened, checked at start, read |
//! | `held` | a disk that lies, in builds that can be sabotaged |
//! | `memory` | the twin that can lose unflushed writes |
//!
//! docs/storage-format.md has the bytes and the recovery rules.

mod admission;
#[doc(hidden)]
pub mod conformance;
mod disk;
mod engine;
mod faults;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod head;
mod held;
mod index;
mod journal;
mod ledger;
mod memory;
mod meta;
mod options;
mod pack;
mod pipeline;
mod record;
mod recover;
mod replay;
mod runs;
mod segment;
mod state;
#[cfg(test)]
mod tests;

pub use admission::{ENTRY_BYTES_MAX, MARK_BYTES_MAX, STATE_KEY_BYTES_MAX, STATE_VALUE_BYTES_MAX, WRITE_BYTES_MAX};
pub use disk::SledStorage;
pub use faults::Faults;
pub use memory::{MemoryStorage, Steps};
pub use options::Options;
pub use record::RECORD_BYTES_MAX;

use bytes::Bytes;
use std::{ops::Range, sync::Arc};

/// Number of a Raft group: the shard's number, or [`GroupId::CATALOG`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct GroupId(pub u16);

impl GroupId {
    pub const CATALOG: GroupId = GroupId(u16::MAX);
}

/// One log entry. `term` is kept apart so that it can be read without decoding the payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryRecord {
    pub index: u64,
    pub term: u64,
    pub payload: Bytes,
}

/// A put (`Some`) or a deletion (`None`) in the state store.
pub type StateChange = (Vec<u8>, Option<Bytes>);

/// What can be made durable.
#[derive(Debug, Clone)]
pub enum Write {
    /// Entries of consecutive indexes, right after the group's last one. A group without entries
    /// and without a purge mark takes any first index. Entries at or above the first index that
    /// are already there are replaced, as if truncated before. No entries at all is a barrier.
    Append { group: GroupId, entries: Vec<EntryRecord> },
    /// Forget every entry with an index of `from` or above. None there is no error.
    Truncate { group: GroupId, from: u64 },
    /// Replace the group's vote.
    Vote { group: GroupId, vote: Bytes },
    /// Forget every entry with an index of `upto` or below; `mark` is the log id of `upto`, kept
    /// for [`GroupState::purged`]. Also valid past the last entry (after a snapshot came in): the
    /// group's next entry is then `upto + 1`. Below the present mark it changes nothing; without one
    /// it must leave no gap before the first entry.
    Purge { group: GroupId, upto: u64, mark: Bytes },
    /// Change the state store, all or nothing once it is durable; of two changes to one key the later
    /// one counts. A reader meanwhile may see a part of it.
    State(Vec<StateChange>),
}

/// What recovery found of a group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupState {
    pub vote: Option<Bytes>,
    pub purged: Option<(u64, Bytes)>,
    /// Index range of the entries present. If there are none it is empty and starts where the
    /// next entry must: past the purge mark, or at 0 (then any index may come next).
    pub entries: Range<u64>,
}

/// Called once, from the writer thread, when the write is durable or has failed.
pub type Done = Box<dyn FnOnce(Result<(), Error>) + Send>;

/// Why storage cannot go on. Every variant but [`Error::Refused`] is final for this process.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    #[error("{path}: {detail}")]
    Unusable { path: String, detail: String },
    #[error("{path} is in use by another process")]
    InUse { path: String },
    #[error("{place} is corrupt: {detail}")]
    Corrupt { place: String, detail: String },
    #[error("storage failed and is closed: {detail}")]
    Poisoned { detail: String },
    /// The write breaks the contract of [`Write`] (a gap, a value over its limit). Nothing of it
    /// was stored; the store goes on.
    #[error("write refused: {detail}")]
    Refused { detail: String },
}

/// Reads the state store as it is, or as it was when it was pinned ([`Storage::pin`]).
pub trait StateRead: Send + Sync + 'static {
    /// A value of the state store, as of the last write the writer thread has taken.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error>;

    /// Up to `limit` pairs with `start <= key < end`, in key order.
    fn scan(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Bytes)>, Error>;
}

/// The journal and the state store of one node.
///
/// Two implementations: sled, and a memory twin that can lose unflushed writes. One conformance
/// suite runs on both.
pub trait Storage: StateRead {
    /// Queues a write and returns at once; blocks only while the (bounded) queue is full.
    fn submit(&self, write: Write, done: Done);

    /// What the journal holds of `group` (writes that are queued but not durable included).
    fn group(&self, group: GroupId) -> GroupState;

    /// Entries in `range`, in order; those absent are left out.
    fn entries(&self, group: GroupId, range: Range<u64>) -> Result<Vec<EntryRecord>, Error>;

    /// How many segments of the journal have begun since the one that holds the group's oldest entry:
    /// none of them can go before that entry does.
    fn segments_held(&self, group: GroupId) -> usize;

    /// What the state store holds of `group` (the keys that begin with its number, two bytes big
    /// endian) as a reader sees it now, for as long as this is kept, whatever is written, merged or
    /// deleted since.
    ///
    /// It holds nobody up, but it costs disk: what it reads and what has been merged away meanwhile,
    /// at most what the group has now, goes only after it is dropped, with the next write of state or
    /// when the store closes. Drop it before the directory is opened again.
    fn pin(&self, group: GroupId) -> Arc<dyn StateRead>;
}

impl dyn Storage {
    /// Submits and waits until the write is durable.
    pub async fn write(&self, write: Write) -> Result<(), Error> {
        let (tx, rx) = tokio::sync::oneshot::channel();
        self.submit(write, Box::new(move |result| drop(tx.send(result))));
        rx.await.unwrap_or_else(|_| Err(Error::Poisoned { detail: "the writer thread is gone".into() }))
    }
}
