//! Replication: one Raft group per shard and one for the catalog.
//!
//! The only module that sees openraft. Above it a [`Group`] takes opaque commands and says when
//! they are committed and applied; below it a [`Machine`] applies them, and [`crate::storage`]
//! makes entries and votes durable (ACK-IS-QUORUM-DURABLE: openraft counts this node only after
//! the journal's `done`, which comes after the fsync).
//!
//! ```text
//! Group::propose ─▶ openraft ─▶ log_store ─▶ storage journal (shared by all groups of the node)
//!                      │  └────▶ network ─▶ transport (shared by all groups of the node)
//!                      ▼ committed
//!                  state_machine ─▶ Machine::apply ─▶ replies
//! ```

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod group;
mod log_store;
mod machine;
mod network;
mod options;
mod replicas;
mod state_machine;
#[cfg(test)]
mod tests;
mod types;

pub use group::{Group, Lag, Leadership, ProposeError, Proposed, ReadError};
pub use machine::{Applied, CommittedEntry, EntryKind, Machine, Position, SnapshotSink, SnapshotSource};
pub use network::{PeerClient, RpcKind, Service, parse_raft};
pub use options::Options;
pub use replicas::tidy_closed;

/// First byte of every command handed to [`Group::propose`]: entries are stored and sent without
/// being copied or wrapped, so the command carries the tag that tells it from blank and
/// membership entries.
pub const COMMAND_TAG: u8 = 1;
