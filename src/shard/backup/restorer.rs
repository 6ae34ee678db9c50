//! How the leader of a shard has the steps of a restore taken: each is an entry of the log, and there is no
//! session meanwhile, so that nobody else proposes anything.

use super::{
    restore::{Declined, Restore, RestoreAnswer},
    types::BackupId,
};
use crate::{
    replication::ProposeError,
    shard::{
        entry::{self, Item, Outcome, Pack},
        host::ShardHost,
        inspection::Answer,
    },
};

/// Rows deleted by one entry where a restore is taken back.
const CLEAR_STEP: u32 = 1024;
/// Checkpoints' worth of changes that may wait for one while a backup is restored.
const CHECKPOINTS_WAITING: usize = 4;

impl ShardHost {
    /// Has the shard take a step of a restore, if this node leads it.
    pub(in crate::shard) async fn restore(&self, backup: BackupId, step: Restore) -> Answer {
        // What was applied before, wherever, is applied here.
        if !self.leadership().is_me || self.group().read_barrier().await.is_err() {
            return Answer::NotOwner { hint: self.not_owner() };
        }
        let answer = match step {
            Restore::Begin { .. } => self.begin_restore(backup, step).await,
            Restore::Clear { .. } => self.take_back(backup).await,
            Restore::Chunk { ref chunk, .. } => match self.machine().look(|state| state.refusal(backup, chunk)) {
                Some(refused) => Ok(refused),
                None => {
                    self.room().await;
                    self.step(backup, step).await
                }
            },
            Restore::Probe => {
                let probed = self.machine().look_mut(|state| state.probe(backup));
                probed.map_err(|error| ProposeError::Stopped(error.to_string()))
            }
            Restore::End { .. } | Restore::Open => self.step(backup, step).await,
        };
        match answer {
            Ok(Outcome::Declined(why)) => Answer::Restore(RestoreAnswer::Declined(why)),
            Ok(Outcome::Duplicate) => Answer::Restore(RestoreAnswer::Before),
            Ok(_) => Answer::Restore(RestoreAnswer::Done),
            Err(ProposeError::NotLeader { leader }) => Answer::NotOwner { hint: leader },
            Err(ProposeError::Unknown | ProposeError::Stopped(_)) => Answer::Unknown,
        }
    }

    async fn room(&self) {
        self.machine().room(self.checkpoint_bytes() * CHECKPOINTS_WAITING).await;
    }

    /// In the place of another restore, if nobody finished that.
    async fn begin_restore(&self, backup: BackupId, step: Restore) -> Result<Outcome, ProposeError> {
        match self.step(backup, step.clone()).await? {
            Outcome::Declined(Declined::OtherBackup) => {
                if let Some(other) = self.machine().look(|state| state.restores.backup()) {
                    self.take_back(other).await?;
                }
                self.step(backup, step).await
            }
            outcome => Ok(outcome),
        }
    }

    async fn take_back(&self, backup: BackupId) -> Result<Outcome, ProposeError> {
        loop {
            self.room().await;
            match self.step(backup, Restore::Clear { limit: CLEAR_STEP }).await? {
                Outcome::Changed { .. } => {}
                outcome => return Ok(outcome),
            }
        }
    }

    async fn step(&self, backup: BackupId, step: Restore) -> Result<Outcome, ProposeError> {
        let mut pack = Pack::default();
        let item = entry::encode(&Item::Restore { backup, step });
        pack.push(&item.map_err(|error| ProposeError::Stopped(error.to_string()))?);
        let (_, outcomes) = self.group().propose(pack.finish()).await?.done().await?;
        entry::decode_outcomes(&outcomes).first().copied().ok_or(ProposeError::Unknown)
    }
}
