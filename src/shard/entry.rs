//! What a shard's log entries carry: several items packed into one entry.
//!
//! `tag (1 byte) · [length (u32, little endian) · item (bincode)]*`

use super::{
    backup::{BackupId, Declined, Restore},
    request::Cause,
};
use crate::{
    entity::{Effect, EntityKey, Versioned, codec},
    replication::COMMAND_TAG,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// One decided step of a shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Item {
    Change(Change),
    /// These effects were delivered: drop them from the outbox.
    EffectsDone(Vec<u64>),
    /// An attempt of a task failed; the next one may start at `retry_at_ms`.
    TaskFailed {
        number: u64,
        attempts: u32,
        retry_at_ms: u64,
        error: String,
    },
    /// This timer's command was rejected: drop it.
    TimerDone {
        at_ms: u64,
        number: u64,
    },
    /// Forget up to `limit` idempotency keys that expired before `before_ms`.
    ForgetKeys {
        before_ms: u64,
        limit: u32,
    },
    /// This effect is given up without a word to its entity: it becomes a dead letter.
    GiveUp {
        number: u64,
        at_ms: u64,
        error: String,
    },
    /// Put what this dead letter holds back into the outbox, under a new number.
    RetryDeadLetter {
        number: u64,
        at_ms: u64,
        answer: Option<KeyedAnswer>,
    },
    DiscardDeadLetter {
        number: u64,
        answer: Option<KeyedAnswer>,
    },
    /// The entity rejected a command with an idempotency key, at version `base_version`: nothing
    /// changes, and the rejection is the key's answer.
    Rejected {
        key: EntityKey,
        base_version: u64,
        answer: KeyedAnswer,
    },
    /// As `DiscardDeadLetter`, and tell this to the entity whose task it was.
    DiscardTask {
        number: u64,
        answer: Option<KeyedAnswer>,
        word: Versioned,
    },
    /// A step of a restore. Between the first and the last one nothing else does anything.
    Restore {
        backup: BackupId,
        step: Restore,
    },
}

/// The outcome of one command, decided by the owner on version `base_version`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub key: EntityKey,
    pub base_version: u64,
    pub at_ms: u64,
    pub events: Vec<Versioned>,
    pub effects: Vec<Effect>,
    pub cause: Cause,
    pub answer: Option<KeyedAnswer>,
}

/// The answer kept under an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyedAnswer {
    pub idempotency_key: String,
    pub fingerprint: [u8; 16],
    pub reply: Vec<u8>,
    /// The entity's version after the change: a replay tells it with the first reply, however far
    /// the entity has gone since.
    pub version: u64,
    pub expires_at_ms: u64,
}

/// What is kept under an idempotency key: as before there were rejections, or a rejection. The second
/// is one byte longer, and so neither is ever mistaken for the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub answer: KeyedAnswer,
    /// The reply is the entity's rejection.
    pub rejected: bool,
}

impl Kept {
    pub fn encode(&self) -> Result<Vec<u8>, codec::Error> {
        match self.rejected {
            false => codec::encode("kept answer", &self.answer),
            true => codec::encode("kept answer", &(&self.answer, true)),
        }
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, codec::Error> {
        let answer =
            |error| codec::decode("kept answer", bytes).map(|answer| (answer, false)).map_err(|_: codec::Error| error);
        let (answer, rejected) = codec::decode("kept answer", bytes).or_else(answer)?;
        Ok(Self { answer, rejected })
    }
}

/// What apply made of an item; the same on every replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The entity's version afterwards.
    Changed {
        version: u64,
    },
    /// GAPLESS: decided on another version than the entity has.
    Refused {
        actual: u64,
    },
    /// The cause, or the idempotency key, has taken effect before.
    Duplicate,
    Done,
    /// A step of a restore that was not done.
    Declined(Declined),
}

/// Packs encoded items into one command.
pub struct Pack {
    bytes: Vec<u8>,
    pub count: usize,
}

impl Default for Pack {
    fn default() -> Self {
        Self { bytes: vec![COMMAND_TAG], count: 0 }
    }
}

impl Pack {
    pub fn push(&mut self, item: &[u8]) {
        self.bytes.extend_from_slice(&u32::try_from(item.len()).unwrap_or(u32::MAX).to_le_bytes());
        self.bytes.extend_from_slice(item);
        self.count += 1;
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn finish(self) -> Bytes {
        self.bytes.into()
    }
}

pub fn encode(item: &Item) -> Result<Vec<u8>, codec::Error> {
    codec::encode("log item", item)
}

pub fn decode(item: &[u8]) -> Result<Item, codec::Error> {
    codec::decode("log item", item)
}

/// The items of a packed command.
pub fn unpack(command: &[u8]) -> Result<Vec<Item>, codec::Error> {
    let malformed = |detail: &str| codec::Error::Malformed { what: "log entry", detail: detail.into() };
    let mut rest = command.strip_prefix(&[COMMAND_TAG]).ok_or_else(|| malformed("no tag"))?;
    let mut items = Vec::new();
    while !rest.is_empty() {
        let (length, body) = rest.split_first_chunk::<4>().ok_or_else(|| malformed("half a length"))?;
        let length = u32::from_le_bytes(*length) as usize;
        let (item, after) = body.split_at_checked(length).ok_or_else(|| malformed("half an item"))?;
        items.push(decode(item)?);
        rest = after;
    }
    Ok(items)
}

/// Outcomes travel from apply to the proposer of the same node only.
pub fn encode_outcomes(outcomes: &[Outcome]) -> Bytes {
    let mut bytes = Vec::with_capacity(outcomes.len() * 9);
    for outcome in outcomes {
        let (tag, number) = match outcome {
            Outcome::Changed { version } => (0, *version),
            Outcome::Refused { actual } => (1, *actual),
            Outcome::Duplicate => (2, 0),
            Outcome::Done => (3, 0),
            Outcome::Declined(why) => (4, *why as u64),
        };
        bytes.push(tag);
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.into()
}

pub fn decode_outcomes(bytes: &[u8]) -> Vec<Outcome> {
    let (chunks, _) = bytes.as_chunks::<9>();
    let decode = |chunk: &[u8; 9]| {
        let mut number = [0; 8];
        number.copy_from_slice(&chunk[1..]);
        let number = u64::from_le_bytes(number);
        match chunk[0] {
            0 => Outcome::Changed { version: number },
            1 => Outcome::Refused { actual: number },
            2 => Outcome::Duplicate,
            4 => Outcome::Declined(Declined::numbered(number)),
            _ => Outcome::Done,
        }
    };
    chunks.iter().map(decode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer() -> KeyedAnswer {
        KeyedAnswer {
            idempotency_key: "k1".into(),
            fingerprint: [7; 16],
            reply: vec![1, 0, 1],
            version: 3,
            expires_at_ms: 1 << 40,
        }
    }

    #[test]
    fn answers_kept_before_rejections_were_are_read_and_neither_is_taken_for_the_other() {
        for reply in [vec![], vec![0], vec![1], vec![1, 1], vec![0; 300]] {
            for rejected in [false, true] {
                let kept = Kept { answer: KeyedAnswer { reply: reply.clone(), ..answer() }, rejected };
                assert_eq!(Kept::decode(&kept.encode().unwrap()).unwrap(), kept);
            }
            let old = codec::encode("kept answer", &KeyedAnswer { reply, ..answer() }).unwrap();
            assert!(!Kept::decode(&old).unwrap().rejected);
        }
        assert!(Kept::decode(&[1]).is_err());
    }

    #[test]
    fn packed_items_come_out_as_they_went_in_and_torn_ones_are_refused() {
        let items = vec![
            Item::EffectsDone(vec![1, 2, 300]),
            Item::ForgetKeys { before_ms: 7, limit: 9 },
            Item::TaskFailed { number: 1, attempts: 2, retry_at_ms: 3, error: "no".into() },
            Item::GiveUp { number: 4, at_ms: 5, error: "never".into() },
            Item::RetryDeadLetter { number: 4, at_ms: 6, answer: None },
            Item::DiscardDeadLetter { number: 4, answer: None },
            Item::Rejected { key: EntityKey::new("order", "a").unwrap(), base_version: 7, answer: answer() },
            Item::DiscardTask { number: 4, answer: None, word: Versioned { version: 1, bytes: vec![7] } },
            Item::Restore { backup: BackupId(7), step: Restore::Open },
        ];
        let mut pack = Pack::default();
        for item in &items {
            pack.push(&encode(item).unwrap());
        }
        let bytes = pack.finish();
        assert_eq!(unpack(&bytes).unwrap(), items);
        for cut in 2..bytes.len() {
            let torn = unpack(&bytes[..cut]);
            assert!(torn.is_err() || torn.unwrap().len() < items.len(), "cut at {cut}");
        }
    }

    #[test]
    fn outcomes_survive_the_trip_to_the_proposer() {
        let declined = [Declined::NotEmpty, Declined::OtherBackup, Declined::OutOfOrder, Declined::Damaged];
        let mut outcomes =
            vec![Outcome::Changed { version: 9 }, Outcome::Refused { actual: 3 }, Outcome::Duplicate, Outcome::Done];
        outcomes.extend(declined.map(Outcome::Declined));
        assert_eq!(decode_outcomes(&encode_outcomes(&outcomes)), outcomes);
    }
}
