//! Puts a shard of a backup into an empty one, through its log: every replica gets it by the means that
//! replicate everything.
//!
//! ```text
//! Begin ─▶ serves nothing ─▶ Chunk* ─▶ End: whole ─▶ Open: serves what was restored
//! ```
//!
//! Every step may be sent again, by whoever goes on after a crash: what has been done is answered as done.

use super::types::{BackupId, Origin, RANGES, ShardHead, Sum, decode_chunk};
use crate::{
    catalog::ClusterId,
    entity::{EntityKey, ShardId},
    replication::ProposeError,
    shard::{
        applied::{AppliedState, EntityRecord, EventRecord, Outgoing, Timer, decode, encode},
        dead_letters,
        entry::{self, Item, Kept, Outcome, Pack},
        host::ShardHost,
        inspection::Answer,
        keys, lists,
    },
    storage::Error,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Rows deleted by one log entry where a restore is taken back.
const CLEAR_STEP: u32 = 1024;

/// One step, as a log entry has it and as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Restore {
    /// The shard, which must be empty, serves nothing from here on.
    Begin { cluster: ClusterId, head: ShardHead },
    /// The next pairs, as the backup has them.
    Chunk { number: u64, chunk: Bytes },
    /// All of them are there, and add up to this.
    End { sum: Sum },
    /// The shard serves.
    Open,
    /// This restore is given up: up to so many rows go. Once none is left, the shard is empty and serves.
    Clear { limit: u32 },
}

/// Why a step was not done. Nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Declined {
    /// The shard holds something.
    NotEmpty,
    /// Another backup is being restored into it.
    OtherBackup,
    /// It does not follow what was done before.
    OutOfOrder,
    /// What is there does not add up to what the backup says.
    Damaged,
}

impl Declined {
    /// The one that has this number.
    pub fn numbered(number: u64) -> Self {
        match number {
            0 => Self::NotEmpty,
            1 => Self::OtherBackup,
            2 => Self::OutOfOrder,
            _ => Self::Damaged,
        }
    }
}

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestoreAnswer {
    Done,
    Declined(Declined),
}

/// How far a restore is, kept with every step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restoring {
    backup: BackupId,
    cluster: ClusterId,
    head: ShardHead,
    sum: Sum,
    has_ended: bool,
}

/// What a shard that was restored knows of it, for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    backup: BackupId,
    /// In the order of their numbers.
    origins: Vec<Origin>,
}

/// A shard's past and present as a restored one.
#[derive(Default)]
pub struct Restores {
    now: Option<Restoring>,
    past: Option<Restored>,
}

impl Restores {
    pub fn under_way(&self) -> bool {
        self.now.is_some()
    }

    /// The backup that is being restored.
    pub fn backup(&self) -> Option<BackupId> {
        self.now.as_ref().map(|now| now.backup)
    }

    /// Entries of another cluster's log may be asked for by those who hold its receipts.
    pub fn has_past(&self) -> bool {
        self.past.is_some()
    }

    pub fn origins(&self) -> &[Origin] {
        self.past.as_ref().map_or(&[], |past| &past.origins)
    }

    /// The cluster that gave this number to an effect, if it is another than this one.
    pub fn origin_of(&self, effect: u64) -> Option<ClusterId> {
        self.origins().iter().find(|origin| effect <= origin.effects).map(|origin| origin.cluster)
    }
}

impl AppliedState {
    pub fn load_restores(&mut self) -> Result<(), Error> {
        let now = self.overlay.get(keys::RESTORING)?.map(|bytes| decode(&bytes)).transpose()?;
        let past = self.overlay.get(keys::ORIGINS)?.map(|bytes| decode(&bytes)).transpose()?;
        self.restores = Restores { now, past };
        Ok(())
    }

    pub(in crate::shard) fn restore(&mut self, backup: BackupId, step: Restore) -> Result<Outcome, Error> {
        let (now, past) = (&self.restores.now, &self.restores.past);
        let has_it = past.as_ref().is_some_and(|past| past.backup == backup);
        let declined = |why| Ok(Outcome::Declined(why));
        match (step, now) {
            (Restore::Clear { limit }, Some(now)) if now.backup == backup => self.clear(limit as usize),
            (Restore::Clear { .. }, _) => Ok(Outcome::Done),
            (_, None) if has_it => Ok(Outcome::Done),
            (_, Some(now)) if now.backup != backup => declined(Declined::OtherBackup),
            (Restore::Begin { .. }, Some(_)) => Ok(Outcome::Done),
            (Restore::Begin { cluster, head }, None) if self.is_empty()? => {
                self.entities.clear();
                self.note(Restoring { backup, cluster, head, sum: Sum::default(), has_ended: false })
            }
            (Restore::Begin { .. }, None) => declined(Declined::NotEmpty),
            (Restore::Chunk { number, .. }, Some(now)) if number < now.sum.chunks => Ok(Outcome::Done),
            (Restore::Chunk { number, chunk }, Some(now)) if number == now.sum.chunks && !now.has_ended => {
                let now = now.clone();
                self.take_chunk(now, &chunk)
            }
            (Restore::End { sum }, Some(now)) if now.sum == sum => {
                let now = Restoring { has_ended: true, ..now.clone() };
                self.note(now)
            }
            (Restore::End { .. }, Some(_)) => declined(Declined::Damaged),
            (Restore::Open, Some(now)) if now.has_ended => {
                let now = now.clone();
                self.open_restored(now)
            }
            (Restore::Chunk { .. } | Restore::Open, Some(_)) | (_, None) => declined(Declined::OutOfOrder),
        }
    }

    /// Nothing that a backup would copy is there, and nothing ever was.
    fn is_empty(&self) -> Result<bool, Error> {
        for (start, end) in RANGES {
            if !self.overlay.scan(start, end, 1)?.is_empty() {
                return Ok(false);
            }
        }
        Ok((self.meta.next_effect, self.meta.next_timer) == (0, 0))
    }

    fn note(&mut self, now: Restoring) -> Result<Outcome, Error> {
        self.overlay.put(keys::RESTORING.to_vec(), encode(&now)?);
        self.restores.now = Some(now);
        Ok(Outcome::Done)
    }

    fn take_chunk(&mut self, now: Restoring, chunk: &[u8]) -> Result<Outcome, Error> {
        let Some(pairs) = decode_chunk(chunk).ok().filter(|pairs| pairs.iter().all(|pair| is_sound(&now.head, pair)))
        else {
            return Ok(Outcome::Declined(Declined::Damaged));
        };
        let sum = now.sum.and(chunk, pairs.len());
        for (key, value) in pairs {
            let entity = keys::parse_entity(&key);
            self.overlay.put(key, value);
            if let Some(entity) = entity {
                self.fold_restored(&entity)?;
            }
        }
        self.note(Restoring { sum, ..now })
    }

    /// An entity's history is there: its state and its rows follow from it.
    fn fold_restored(&mut self, key: &EntityKey) -> Result<(), Error> {
        let entity_type = self.registry.entity_type(&key.entity_type).cloned();
        self.entities.remove(key);
        let entity = self.entity(key)?;
        entity.touch();
        let rows = match (&entity_type, &entity.state) {
            (Some(entity_type), Some(state)) => Some(lists::of(entity_type, key, entity.version, state)),
            _ => None,
        };
        match rows {
            Some(rows) => self.move_rows(key, &[], &rows),
            None => self.rows_are_lost(&key.entity_type),
        }
        Ok(())
    }

    fn open_restored(&mut self, now: Restoring) -> Result<Outcome, Error> {
        let Restoring { backup, cluster, head, .. } = now;
        (self.meta.next_effect, self.meta.next_timer) = (head.effects, head.timers);
        let mut origins = head.origins;
        origins.push(Origin { effects: head.effects, cluster });
        let past = Restored { backup, origins };
        self.overlay.put(keys::ORIGINS.to_vec(), encode(&past)?);
        self.overlay.delete(keys::RESTORING.to_vec());
        self.restores = Restores { now: None, past: Some(past) };
        self.load()?;
        Ok(Outcome::Done)
    }

    /// Done when nothing is left; `Changed` while there is more.
    fn clear(&mut self, limit: usize) -> Result<Outcome, Error> {
        self.entities.clear();
        let mut left = limit;
        for (start, end) in RANGES {
            let rows = self.overlay.scan(start, end, left)?;
            left -= rows.len();
            rows.into_iter().for_each(|(key, _)| self.overlay.delete(key));
        }
        let (start, end) = keys::all_rows();
        let rows = self.overlay.scan(&start, &end, left)?;
        left -= rows.len();
        rows.into_iter().for_each(|(key, _)| self.overlay.withdraw(key));
        if left == 0 {
            return Ok(Outcome::Changed { version: 0 });
        }
        self.overlay.delete(keys::RESTORING.to_vec());
        self.restores.now = None;
        self.load()?;
        Ok(Outcome::Done)
    }

    /// What the shard's part of a backup begins with.
    pub fn head(&self) -> ShardHead {
        let position = self.meta.progress.position;
        ShardHead {
            shard: ShardId(self.overlay.group().0),
            term: position.map_or(0, |position| position.term),
            index: position.map_or(0, |position| position.index),
            effects: self.meta.next_effect,
            timers: self.meta.next_timer,
            origins: self.restores.origins().to_vec(),
        }
    }
}

/// Whether a pair can be read, and is of the shard that the head describes: what cannot be read must not get
/// into a log that every replica applies.
fn is_sound(head: &ShardHead, (key, value): &(Vec<u8>, Bytes)) -> bool {
    let number = keys::parse_number(key).filter(|number| *number <= head.effects);
    match key.first() {
        Some(b'd') => number.is_some() && dead_letters::is_readable(value),
        Some(b'e') => keys::parse_entity(key).is_some() && EntityRecord::is_readable(value),
        Some(b'h') => key.len() > 8 && EventRecord::is_readable(value),
        Some(b'i') => Kept::decode(value).is_ok(),
        Some(b'n') => decode::<(u64, u64)>(value).is_ok(),
        Some(b'o') => number.is_some() && decode::<Outgoing>(value).is_ok(),
        Some(b'r') => match keys::parse_received(key) {
            Some((_, 0)) => decode::<u64>(value).is_ok(),
            found => found.is_some(),
        },
        Some(b't') => {
            keys::parse_timer(key).is_some_and(|(_, number)| number <= head.timers) && decode::<Timer>(value).is_ok()
        }
        Some(b'x') => keys::parse_answer_expiry(key).is_some() && value.is_empty(),
        _ => false,
    }
}

impl ShardHost {
    /// Has the shard take a step of a restore, if this node leads it. There is no session meanwhile, so that
    /// nobody else proposes anything.
    pub(in crate::shard) async fn restore(&self, backup: BackupId, step: Restore) -> Answer {
        if !self.leadership().is_me {
            return Answer::NotOwner { hint: self.not_owner() };
        }
        let answer = match step {
            Restore::Begin { .. } => self.begin_restore(backup, step).await,
            Restore::Clear { .. } => self.take_back(backup).await,
            Restore::Chunk { .. } => {
                self.machine().room(self.dirty_bytes_max()).await;
                self.step(backup, step).await
            }
            Restore::End { .. } | Restore::Open => self.step(backup, step).await,
        };
        match answer {
            Ok(Outcome::Declined(why)) => Answer::Restore(RestoreAnswer::Declined(why)),
            Ok(_) => Answer::Restore(RestoreAnswer::Done),
            Err(ProposeError::NotLeader { leader }) => Answer::NotOwner { hint: leader },
            Err(ProposeError::Unknown | ProposeError::Stopped(_)) => Answer::Unknown,
        }
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
            self.machine().room(self.dirty_bytes_max()).await;
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
