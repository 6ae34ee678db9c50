//! Backups: everything at one moment, in one file, and out of it again. docs/decisions/0038-backup.md.

mod file;

pub use crate::shard::backup::{BackupId, Origin, ShardHead, Sum};
pub use file::{BackupHeader, BackupReader, BackupWriter, DamagedBackup, Section, TypeVersions};
