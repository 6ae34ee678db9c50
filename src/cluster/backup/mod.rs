//! Backups: everything at one moment, in one file, and out of it again. docs/decisions/0038-backup.md.

mod cut;
mod file;
mod restore;
#[cfg(test)]
mod tests;

pub use crate::shard::backup::{BackupId, Origin, ShardHead, Sum, TypeVersions};
pub use cut::{Backup, BrokenOff};
pub use file::{BackupHeader, BackupReader, BackupWriter, DamagedBackup, STATE_FORMAT, Section};
pub use restore::{RestoreError, RestoredBackup};
