//! Dead letters: effects that were given up. They are part of the applied state, beside the
//! outbox that they come from and may be put back into.
//!
//! A retry gets a new number, because receivers count what is below the lowest waiting number as
//! received. A task keeps the key that its handler is given; for a tell nothing is lost, as it is
//! given up only while its receiver says that it has not taken it.

use super::{
    applied::{AppliedState, Delivery, Outgoing, decode, encode},
    entry::KeyedAnswer,
    keys,
};
use crate::{
    entity::{EntityKey, ShardId, Versioned},
    storage::Error,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Dead letters kept per shard; one more pushes the oldest out. The same on every replica, and so
/// no option.
pub const LETTERS_MAX: usize = 10_000;
/// Keys read at once when a replica opens.
const LOAD_STEP: usize = 64;
/// The longest error text that is kept, in bytes.
const ERROR_BYTES_MAX: usize = 2048;
/// No entity type has a hyphen: keys of requests for dead letters are kept under it.
const KEY_TYPE: &str = "dead-letter";

/// An effect that was given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    pub outgoing: Outgoing,
    pub error: String,
    /// When it was given up, in milliseconds since the epoch; 0 if that was not noted.
    pub at_ms: u64,
}

/// As it was written before the time was noted.
#[derive(Deserialize)]
struct DeadLetterV1 {
    outgoing: Outgoing,
    error: String,
}

/// Names an effect in the whole cluster. Written `3_17`, behind a prefix that says what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EffectId {
    pub shard: ShardId,
    pub number: u64,
}

impl fmt::Display for EffectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.shard, self.number)
    }
}

/// A text that names no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an effect is named by its shard and its number, as in 3_17")]
pub struct InvalidEffectId;

impl FromStr for EffectId {
    type Err = InvalidEffectId;

    fn from_str(text: &str) -> Result<Self, InvalidEffectId> {
        let (shard, number) = text.split_once('_').ok_or(InvalidEffectId)?;
        let (shard, number) = (shard.parse(), number.parse());
        let id =
            Self { shard: ShardId(shard.map_err(|_| InvalidEffectId)?), number: number.map_err(|_| InvalidEffectId)? };
        // One name each: no signs, no leading zeros.
        if id.to_string() == text { Ok(id) } else { Err(InvalidEffectId) }
    }
}

impl EffectId {
    /// The key under which answers to requests for this dead letter are kept.
    pub(super) fn answers_at(self) -> EntityKey {
        EntityKey { entity_type: KEY_TYPE.into(), id: self.to_string().into() }
    }
}

impl AppliedState {
    pub(super) fn load_letters(&mut self) -> Result<(), Error> {
        let mut start = keys::dead_letter(0);
        loop {
            let page = self.overlay.scan(&start, b"e", LOAD_STEP)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            start = [last.as_slice(), &[0]].concat();
            self.letters.extend(page.iter().filter_map(|(key, _)| keys::parse_number(key)));
        }
    }

    pub fn letter(&self, number: u64) -> Result<Option<DeadLetter>, Error> {
        self.overlay.get(&keys::dead_letter(number))?.as_ref().map(read).transpose()
    }

    /// Dead letters above `after`, oldest first.
    pub fn letters_after(&self, after: u64, limit: usize) -> Result<Vec<(u64, DeadLetter)>, Error> {
        let numbers = self.letters.range(after.saturating_add(1)..).take(limit);
        let read = numbers.map(|number| Ok(self.letter(*number)?.map(|letter| (*number, letter))));
        read.filter_map(Result::transpose).collect()
    }

    /// Moves an effect out of the outbox to the dead letters.
    pub(super) fn bury(&mut self, number: u64, at_ms: u64, error: String) -> Result<(), Error> {
        let Some(outgoing) = self.outbox.get(&number).cloned() else { return Ok(()) };
        self.drop_outgoing(number);
        let letter = DeadLetter { outgoing, error, at_ms };
        self.overlay.put(keys::dead_letter(number), encode(&letter)?);
        self.letters.insert(number);
        while self.letters.len() > LETTERS_MAX
            && let Some(oldest) = self.letters.pop_first()
        {
            tracing::error!(oldest, "there are more than {LETTERS_MAX} dead letters; the oldest is dropped");
            self.overlay.delete(keys::dead_letter(oldest));
        }
        Ok(())
    }

    /// Puts a dead letter back into the outbox, as if it had just been asked for. Does nothing if
    /// it is gone.
    pub(super) fn retry_letter(&mut self, number: u64, at_ms: u64, answer: Option<KeyedAnswer>) -> Result<(), Error> {
        let Some(mut letter) = self.take_letter(number, answer)? else { return Ok(()) };
        if let Delivery::Queued(task) = &mut letter.outgoing.delivery {
            task.first_number.get_or_insert(number);
            // As much time as it had.
            let lived = |deadline: u64| at_ms.saturating_add(deadline.saturating_sub(task.queued_at_ms));
            task.deadline_ms = task.deadline_ms.map(lived);
            task.queued_at_ms = at_ms;
            (task.attempts, task.next_at_ms) = (0, 0);
        }
        self.add_outgoing(&letter.outgoing.from, letter.outgoing.delivery)
    }

    /// Forgets a dead letter; `word` is for the entity whose it was. Does nothing if it is gone.
    pub(super) fn discard_letter(
        &mut self,
        number: u64,
        answer: Option<KeyedAnswer>,
        word: Option<Versioned>,
    ) -> Result<(), Error> {
        match (self.take_letter(number, answer)?, word) {
            (Some(letter), Some(command)) => {
                let from = letter.outgoing.from;
                self.add_outgoing(&from, Delivery::Tell { to: from.clone(), command })
            }
            _ => Ok(()),
        }
    }

    fn take_letter(&mut self, number: u64, answer: Option<KeyedAnswer>) -> Result<Option<DeadLetter>, Error> {
        let Some(letter) = self.letter(number)? else { return Ok(None) };
        self.letters.remove(&number);
        self.overlay.delete(keys::dead_letter(number));
        if let Some(answer) = answer {
            let id = EffectId { shard: ShardId(self.overlay.group().0), number };
            self.keep_answer(&id.answers_at(), answer)?;
        }
        Ok(Some(letter))
    }
}

pub(super) fn read(bytes: &Bytes) -> Result<DeadLetter, Error> {
    // The old form is shorter, and so never mistaken for the new one.
    let mut letter = decode::<DeadLetter>(bytes).or_else(|error| {
        let old = decode::<DeadLetterV1>(bytes).map_err(|_| error)?;
        Ok::<_, Error>(DeadLetter { outgoing: old.outgoing, error: old.error, at_ms: 0 })
    })?;
    letter.outgoing = letter.outgoing.current();
    Ok(letter)
}

/// An error text within its bound: it is kept in the log and in the state.
pub fn shorten(mut error: String) -> String {
    if error.len() > ERROR_BYTES_MAX {
        let end = (0..=ERROR_BYTES_MAX).rev().find(|at| error.is_char_boundary(*at)).unwrap_or(0);
        error.truncate(end);
        error.push('…');
    }
    error
}

#[cfg(test)]
mod tests;
