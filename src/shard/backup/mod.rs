//! A shard's part in backups: `cut` takes it out of a running cluster, `restore` puts it into a new one.
//! docs/decisions/0038-backup.md.

mod cut;
mod pinned;
mod restore;
mod restorer;
mod sound;
#[cfg(test)]
mod tests;
mod types;

pub use cut::{CutAnswer, CutAsk, Cuts, HOLD_MAX, Part, Pause};
pub use pinned::Pinned;
pub use restore::{Declined, Restore, RestoreAnswer, Restores};
pub use types::{
    BackupId, CHUNK_BYTES, CHUNK_PAIRS, Origin, Pairs, RANGES, ShardHead, Sum, TypeVersions, decode_chunk, encode_chunk,
};
