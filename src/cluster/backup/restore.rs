//! Puts a backup into a cluster that holds nothing, as its bytes come in.
//!
//! ```text
//! header ─▶ does it fit? ─▶ begin every shard ─▶ chunk, chunk, …, end per shard ─▶ trailer ─▶ open every shard
//! ```
//!
//! No shard serves before all are whole, so that none hears of another's effects too early. Shards begin and open in
//! their order: those that are open are always the first ones. All are asked before the first one begins, so that
//! another backup is refused once one of them is open and not empty. The same backup again goes on where it broke off, at whichever node.

use super::{
    BackupHeader, BackupId, BackupReader, DamagedBackup,
    file::{STATE_FORMAT, Section},
};
use crate::{
    catalog::ClusterId,
    cluster::{Unavailable, handle::Cluster},
    entity::ShardId,
    shard::{
        Answer, Ask, Registry, Router, ShardRequest,
        backup::{Declined, Restore, RestoreAnswer},
    },
    storage::GroupId,
};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use std::{fmt::Display, time::Duration};

/// For an answer from the owner of one shard, through a change of it if need be.
const PROBE_WAIT: Duration = Duration::from_secs(30);
/// For one step, which waits behind a checkpoint, and that behind a snapshot on its way to another replica.
const STEP_WAIT: Duration = Duration::from_secs(150);

/// What was put in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoredBackup {
    pub backup: BackupId,
    /// The cluster that it was taken of.
    pub cluster: ClusterId,
    pub taken_at_ms: u64,
    pub shards: u16,
    pub pairs: u64,
    pub bytes: u64,
    /// It had been put in before, and nothing was done now: what has happened since then stays.
    pub was_before: bool,
}

/// Why a backup was not put in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    #[error("the backup is damaged: {0}")]
    Damaged(#[from] DamagedBackup),
    /// The caller's source failed. Whole or not: the same backup again goes on.
    #[error("the backup could not be read to its end: {0}")]
    Unreadable(String),
    /// This cluster, or this version of the software, cannot take it; nothing happened.
    #[error("{0}")]
    Incompatible(String),
    /// Nothing happened.
    #[error("shard {shard} holds data: a backup is restored into a new cluster, which has taken no writes yet")]
    NotEmpty { shard: ShardId },
    /// Somebody else has begun with another one since.
    #[error("another backup is being restored into shard {shard}")]
    Superseded { shard: ShardId },
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

impl Cluster {
    /// Puts a backup into this cluster, which must have as many shards as the one that it was taken of, and
    /// hold no entity. Shards answer [`Unavailable::Restoring`] from its beginning to its end. If it breaks off,
    /// restore the same backup again: it goes on. Another one takes its place.
    ///
    /// # Errors
    /// [`RestoreError`].
    pub async fn restore<E: Display>(
        &self,
        mut file: impl Stream<Item = Result<Bytes, E>> + Unpin,
    ) -> Result<RestoredBackup, RestoreError> {
        let router = self.founded_way().await?;
        let mut restore =
            Restoring { router, registry: self.node().registry(), header: None, pairs: 0, was_before: false };
        let mut reader = BackupReader::default();
        while let Some(part) = file.next().await {
            reader.feed(&part.map_err(|error| RestoreError::Unreadable(error.to_string()))?);
            while let Some(section) = reader.next_section()? {
                Box::pin(restore.take(section)).await?;
            }
        }
        match restore.header {
            Some(header) if reader.is_whole() => Ok(RestoredBackup {
                backup: header.backup,
                cluster: header.cluster,
                taken_at_ms: header.taken_at_ms,
                shards: restore.router.shards(),
                pairs: restore.pairs,
                bytes: reader.bytes(),
                was_before: restore.was_before,
            }),
            _ => Err(reader.cut_short().into()),
        }
    }
}

/// A restore under way.
struct Restoring<'a> {
    router: Router,
    registry: &'a Registry,
    header: Option<BackupHeader>,
    pairs: u64,
    was_before: bool,
}

impl Restoring<'_> {
    async fn take(&mut self, section: Section) -> Result<(), RestoreError> {
        match section {
            Section::Header(header) => {
                self.fits(&header).map_err(RestoreError::Incompatible)?;
                self.begin(&header).await?;
                self.header = Some(header);
            }
            Section::Chunk { shard, number, chunk, pairs } => {
                self.step(shard, Restore::Chunk { number, chunk }).await?;
                self.pairs += pairs.len() as u64;
            }
            Section::End { shard, sum } => self.step(shard, Restore::End { sum }).await?,
            Section::Trailer => {
                for shard in self.shards() {
                    self.step(shard, Restore::Open).await?;
                }
            }
        }
        Ok(())
    }

    fn shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.router.shards()).map(ShardId)
    }

    /// Whether this cluster can hold it, and this software read it.
    fn fits(&self, header: &BackupHeader) -> Result<(), String> {
        if header.state_format > STATE_FORMAT {
            return Err(format!(
                "the backup was written by version {}, in a form that is newer than this node's; restore it with that \
                 version or a later one",
                header.version
            ));
        }
        let (theirs, ours) = (header.shards.len(), usize::from(self.router.shards()));
        if theirs != ours {
            return Err(format!(
                "the backup has {theirs} shards and this cluster has {ours}: start one with `cluster.shards` = {theirs}"
            ));
        }
        for (name, written) in &header.entity_types {
            let Some(known) = self.registry.entity_type(name) else {
                return Err(format!("the backup has entities of type `{name}`, which this node does not know"));
            };
            let known = known.versions();
            if written.event > known.event || written.command > known.command {
                return Err(format!(
                    "the backup was written by version {}, which writes `{name}` in a form that is newer than this \
                     node's; restore it with that version or a later one",
                    header.version
                ));
            }
        }
        Ok(())
    }

    /// All are asked before one begins. Should one of them be written to in between, the others are as they were.
    async fn begin(&mut self, header: &BackupHeader) -> Result<(), RestoreError> {
        self.was_before = self.probe(header.backup).await?;
        for head in &header.shards {
            let step = Restore::Begin { cluster: header.cluster, head: head.clone() };
            if let Err(error) = self.send(header.backup, head.shard, step).await {
                return Err(self.take_back(header.backup, error).await);
            }
        }
        Ok(())
    }

    /// Whether all shards could begin; true if all of this backup is there.
    async fn probe(&self, backup: BackupId) -> Result<bool, RestoreError> {
        let mut was_before = true;
        for shard in self.shards() {
            match self.send(backup, shard, Restore::Probe).await {
                Ok(answer) => was_before &= answer == RestoreAnswer::Before,
                Err(error) => return Err(self.take_back(backup, error).await),
            }
        }
        Ok(was_before)
    }

    /// Where one shard is not empty, none is to wait for the rest of this backup, whoever began with it.
    async fn take_back(&self, backup: BackupId, error: RestoreError) -> RestoreError {
        if matches!(error, RestoreError::NotEmpty { .. }) {
            for shard in self.shards() {
                if let Err(error) = self.send(backup, shard, Restore::Clear { limit: 0 }).await {
                    return error;
                }
            }
        }
        error
    }

    async fn step(&self, shard: ShardId, step: Restore) -> Result<(), RestoreError> {
        match &self.header {
            Some(header) => self.send(header.backup, shard, step).await.map(drop),
            None => Ok(()),
        }
    }

    async fn send(&self, backup: BackupId, shard: ShardId, step: Restore) -> Result<RestoreAnswer, RestoreError> {
        let wait = if step == Restore::Probe { PROBE_WAIT } else { STEP_WAIT };
        let request = ShardRequest { group: GroupId(shard.0), ask: Ask::Restore { backup, step } };
        let declined = match self.router.ask_shard(request, wait).await? {
            Answer::Restore(RestoreAnswer::Declined(why)) => why,
            Answer::Restore(done) => return Ok(done),
            _ => return Err(Unavailable::mixed_up().into()),
        };
        Err(match declined {
            Declined::NotEmpty => RestoreError::NotEmpty { shard },
            Declined::OtherBackup | Declined::OutOfOrder => RestoreError::Superseded { shard },
            Declined::Damaged => {
                let detail = format!("what arrived at shard {shard} is not what was sent");
                DamagedBackup { at: 0, detail }.into()
            }
        })
    }
}
