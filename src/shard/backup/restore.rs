//! Puts a shard of a backup into an empty one, through its log: every replica gets it by the means that
//! replicate everything.
//!
//! ```text
//! Begin ─▶ serves nothing ─▶ Chunk* ─▶ End: whole ─▶ Open: serves what was restored
//! ```
//!
//! Every step may be sent again, by whoever goes on after a crash: what has been done is answered as done.

use super::{
    sound,
    types::{BackupId, Origin, RANGES, ShardHead, Sum},
};
use crate::{
    catalog::ClusterId,
    entity::{EntityKey, ShardId},
    shard::{
        applied::{AppliedState, decode, encode},
        entry::Outcome,
        keys, lists,
    },
    storage::Error,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Rows of lists deleted beside each pair: more than an entity has, so that few are left at the end.
const ROWS_PER_PAIR: usize = 8;
/// Beyond so much that is not written yet, folded states are not kept: a replica that was away applies many chunks
/// before its next checkpoint, which must not grow beyond what one write takes.
const UNWRITTEN_MAX: usize = 16 << 20;

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
    /// Asked only: whether it could begin.
    Probe,
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
    /// All of this backup was restored before.
    Before,
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
        let may_begin = match &step {
            Restore::Begin { head, .. } => head.is_sound() && self.is_empty()?,
            _ => false,
        };
        let (now, past) = (&self.restores.now, &self.restores.past);
        let has_it = past.as_ref().is_some_and(|past| past.backup == backup);
        let declined = |why| Ok(Outcome::Declined(why));
        match (step, now) {
            (Restore::Clear { limit }, Some(now)) if now.backup == backup => self.clear(limit as usize),
            (Restore::Clear { .. } | Restore::Probe, _) => Ok(Outcome::Done),
            (_, None) if has_it => Ok(Outcome::Duplicate),
            (_, Some(now)) if now.backup != backup => declined(Declined::OtherBackup),
            (Restore::Begin { .. }, Some(_)) => Ok(Outcome::Done),
            (Restore::Begin { cluster, head }, None) if may_begin => {
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

    /// Nothing that a backup would copy is there, and nothing ever was. The same on every replica, however much of
    /// it is written.
    fn is_empty(&mut self) -> Result<bool, Error> {
        self.settle()?;
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
        // Its owner has looked at it. What this replica cannot read was written by a later build.
        let Some(pairs) = sound::read_chunk(&now.head, chunk) else {
            let place = format!("restored chunk of group {}", self.overlay.group().0);
            return Err(Error::Corrupt { place, detail: "this build cannot read it".into() });
        };
        let sum = now.sum.and(chunk, pairs.len());
        let is_kept = self.overlay.dirty_bytes() < UNWRITTEN_MAX;
        for (key, value) in pairs {
            let entity = keys::parse_entity(&key);
            self.overlay.put(key, value);
            if let Some(entity) = entity {
                self.fold_restored(&entity, is_kept)?;
            }
        }
        // What was folded counts, and is written, with the next checkpoint.
        self.settle()?;
        self.note(Restoring { sum, ..now })
    }

    /// An entity's history is there: its state and its rows follow from it.
    fn fold_restored(&mut self, key: &EntityKey, is_kept: bool) -> Result<(), Error> {
        let entity_type = self.registry.entity_type(&key.entity_type).cloned();
        self.entities.remove(key);
        let entity = self.entity(key)?;
        if is_kept {
            entity.touch();
        }
        let rows = match (&entity_type, &entity.state) {
            (Some(entity_type), Some(state)) => Some(lists::of(entity_type, key, entity.version, state)),
            _ => None,
        };
        match rows {
            Some(rows) => self.move_rows(key, &[], &rows),
            None => self.rows_are_lost(&key.entity_type),
        }
        if !is_kept {
            // Its record says no state: it is folded again when it is asked for.
            self.entities.remove(key);
        }
        Ok(())
    }

    fn open_restored(&mut self, now: Restoring) -> Result<Outcome, Error> {
        let Restoring { backup, cluster, head, .. } = now;
        (self.meta.next_effect, self.meta.next_timer) = (head.effects, head.timers);
        let mut origins = head.origins;
        if origins.last().is_none_or(|last| last.effects < head.effects) {
            origins.push(Origin { effects: head.effects, cluster });
        }
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
        let rows = self.overlay.scan(&start, &end, limit * ROWS_PER_PAIR)?;
        let has_more = left == 0 || rows.len() == limit * ROWS_PER_PAIR;
        rows.into_iter().for_each(|(key, _)| self.overlay.withdraw(key));
        if has_more {
            return Ok(Outcome::Changed { version: 0 });
        }
        self.overlay.delete(keys::RESTORING.to_vec());
        self.restores.now = None;
        self.load()?;
        Ok(Outcome::Done)
    }

    /// Why a chunk is not to be proposed: what no replica could read must not get into a log that all of them apply.
    pub(super) fn refusal(&self, backup: BackupId, chunk: &[u8]) -> Option<Outcome> {
        match (&self.restores.now, &self.restores.past) {
            (Some(now), _) if now.backup != backup => Some(Outcome::Declined(Declined::OtherBackup)),
            (Some(now), _) if sound::read_chunk(&now.head, chunk).is_some() => None,
            (Some(_), _) => Some(Outcome::Declined(Declined::Damaged)),
            (None, Some(past)) if past.backup == backup => Some(Outcome::Duplicate),
            (None, _) => Some(Outcome::Declined(Declined::OutOfOrder)),
        }
    }

    /// What beginning would come to.
    pub(super) fn probe(&mut self, backup: BackupId) -> Result<Outcome, Error> {
        let is_empty = self.is_empty()?;
        Ok(match (&self.restores.now, &self.restores.past) {
            (Some(_), _) => Outcome::Done,
            (None, Some(past)) if past.backup == backup => Outcome::Duplicate,
            (None, _) if is_empty => Outcome::Done,
            (None, _) => Outcome::Declined(Declined::NotEmpty),
        })
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
