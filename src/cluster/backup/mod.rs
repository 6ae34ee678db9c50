//! Backups: everything at one moment, in one file, and out of it again. docs/decisions/0038-backup.md.

mod cut;
mod file;
mod restore;
#[cfg(test)]
mod tests;

use super::{Cluster, Unavailable};
use crate::{entity::ShardId, shard::Router};

pub use crate::shard::backup::{BackupId, Origin, ShardHead, Sum, TypeVersions};
pub use cut::{Backup, BrokenOff};
pub use file::{BackupHeader, BackupReader, BackupWriter, DamagedBackup, STATE_FORMAT, Section};
pub use restore::{RestoreError, RestoredBackup};

impl Cluster {
    /// The way to all shards, once this node knows how many there are.
    async fn founded_way(&self) -> Result<Router, Unavailable> {
        let (router, _) = self.way().await?;
        match router.shards() {
            0 => Err(Unavailable::NoQuorum { shard: ShardId(0) }),
            _ => Ok(router),
        }
    }
}
