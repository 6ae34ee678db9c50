//! The state store: values in one sled tree, the parts of large ones in another.
//!
//! ```text
//! values  key → 0 u8 | hash [16] | value                          small values
//!         key → 1 u8 | hash [16] | length u64 | part id u64       values over INLINE_BYTES_MAX
//! parts   part id u64 be, number u32 be → bytes                   PART_BYTES_MAX each but the last
//! ```
//!
//! The hash (16 bytes of BLAKE3) covers key and value, so a value that was damaged or belongs to
//! another key is never served. The sum of all hashes is kept with the meta values: at open it shows
//! whether a pair is missing or old.

use super::{
    Error, StateChange,
    meta::StateDigest,
    record::{Hash, truncated, u64_at},
};
use bytes::Bytes;
use sled::{IVec, Tree};
use std::{collections::BTreeMap, ops::Range};

/// Values up to this size stay in one piece.
const INLINE_BYTES_MAX: usize = 96 << 10;
const PART_BYTES_MAX: usize = 96 << 10;
const HEAD: usize = 17;

/// Changes of one tree.
pub(super) type Changes = Vec<(IVec, Option<IVec>)>;

/// What a batch does to the two trees.
#[derive(Debug, Default)]
pub(super) struct StateBatch {
    pub values: Changes,
    pub parts: Changes,
}

/// The two trees.
#[derive(Debug, Clone)]
pub(super) struct StateStore {
    pub values: Tree,
    pub parts: Tree,
}

/// A value as it is stored.
struct Stored<'a> {
    hash: Hash,
    body: Body<'a>,
}

enum Body<'a> {
    Inline(&'a [u8]),
    InParts { length: usize, id: u64 },
}

impl StateStore {
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        match self.values.get(key).map_err(|e| corrupt(key, &e.to_string()))? {
            Some(stored) => self.load(key, &stored).map(Some),
            None => Ok(None),
        }
    }

    pub fn scan(&self, range: Range<&[u8]>, limit: usize) -> Result<Vec<(Vec<u8>, Bytes)>, Error> {
        if range.start >= range.end {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for pair in self.values.range(range).take(limit) {
            let (key, stored) =
                pair.map_err(|e| Error::Corrupt { place: "the state store".into(), detail: e.to_string() })?;
            found.push((key.to_vec(), self.load(&key, &stored)?));
        }
        Ok(found)
    }

    /// Reads everything and compares it with the digest.
    pub fn verify(&self, expected: StateDigest) -> Result<(), Error> {
        let (mut sum, mut count) = (0u128, 0u64);
        for pair in &self.values {
            let (key, stored) =
                pair.map_err(|e| Error::Corrupt { place: "the state store".into(), detail: e.to_string() })?;
            self.load(&key, &stored)?;
            sum = sum.wrapping_add(u128::from_le_bytes(Stored::parse(&key, &stored)?.hash));
            count += 1;
        }
        if (sum, count) == (expected.sum, expected.count) {
            return Ok(());
        }
        let detail = format!(
            "{count} values do not add up to the recorded digest of {}: some are missing or old",
            expected.count
        );
        Err(Error::Corrupt { place: "the state store".into(), detail })
    }

    /// Turns changes into what is to be written, and takes them into the digest.
    pub fn plan<'a>(
        &self,
        changes: impl Iterator<Item = &'a StateChange>,
        digest: &mut StateDigest,
    ) -> Result<StateBatch, Error> {
        let last: BTreeMap<&[u8], Option<&Bytes>> =
            changes.map(|(key, value)| (key.as_slice(), value.as_ref())).collect();
        let mut batch = StateBatch::default();
        for (key, value) in last {
            self.plan_removal(key, digest, &mut batch)?;
            let stored = value.map(|value| plan_value(key, value, digest, &mut batch.parts));
            batch.values.push((IVec::from(key), stored));
        }
        Ok(batch)
    }

    /// Takes the old value out of the digest, and its parts out of their tree.
    fn plan_removal(&self, key: &[u8], digest: &mut StateDigest, batch: &mut StateBatch) -> Result<(), Error> {
        let Some(old) = self.values.get(key).map_err(|e| corrupt(key, &e.to_string()))? else { return Ok(()) };
        let old = Stored::parse(key, &old)?;
        digest.sum = digest.sum.wrapping_sub(u128::from_le_bytes(old.hash));
        digest.count = digest.count.saturating_sub(1);
        if let Body::InParts { length, id } = old.body {
            batch.parts.extend((0..part_count(length)).map(|number| (part_key(id, number), None)));
        }
        Ok(())
    }

    fn load(&self, key: &[u8], stored: &[u8]) -> Result<Bytes, Error> {
        let stored = Stored::parse(key, stored)?;
        let value = match stored.body {
            Body::Inline(bytes) => Bytes::copy_from_slice(bytes),
            Body::InParts { length, id } => self.join(key, length, id)?,
        };
        if pair_hash(key, &value) == stored.hash { Ok(value) } else { Err(corrupt(key, "the checksum does not match")) }
    }

    fn join(&self, key: &[u8], length: usize, id: u64) -> Result<Bytes, Error> {
        let mut value = Vec::with_capacity(length.min(super::STATE_VALUE_BYTES_MAX));
        for number in 0..part_count(length) {
            let part = self.parts.get(part_key(id, number)).map_err(|e| corrupt(key, &e.to_string()))?;
            value.extend_from_slice(&part.ok_or_else(|| corrupt(key, &format!("part {number} is missing")))?);
        }
        Ok(value.into())
    }
}

impl<'a> Stored<'a> {
    fn parse(key: &[u8], stored: &'a [u8]) -> Result<Self, Error> {
        let (head, rest) = stored.split_at_checked(HEAD).ok_or_else(|| corrupt(key, "cut off"))?;
        let mut hash = Hash::default();
        hash.copy_from_slice(&head[1..]);
        let body = match head[0] {
            0 => Body::Inline(rest),
            1 if rest.len() == 16 && u64_at(rest, 0) <= super::STATE_VALUE_BYTES_MAX as u64 => {
                Body::InParts { length: u64_at(rest, 0) as usize, id: u64_at(rest, 8) }
            }
            _ => return Err(corrupt(key, "malformed")),
        };
        Ok(Self { hash, body })
    }
}

fn plan_value(key: &[u8], value: &Bytes, digest: &mut StateDigest, parts: &mut Changes) -> IVec {
    let hash = pair_hash(key, value);
    digest.sum = digest.sum.wrapping_add(u128::from_le_bytes(hash));
    digest.count += 1;
    let inline = value.len() <= INLINE_BYTES_MAX;
    let mut stored = Vec::with_capacity(HEAD + if inline { value.len() } else { 16 });
    stored.push(u8::from(!inline));
    stored.extend_from_slice(&hash);
    if inline {
        stored.extend_from_slice(value);
    } else {
        let id = digest.next_part_id;
        digest.next_part_id += 1;
        stored.extend_from_slice(&(value.len() as u64).to_le_bytes());
        stored.extend_from_slice(&id.to_le_bytes());
        parts.extend(
            (0u32..)
                .zip(value.chunks(PART_BYTES_MAX))
                .map(|(number, part)| (part_key(id, number), Some(IVec::from(part)))),
        );
    }
    stored.into()
}

fn pair_hash(key: &[u8], value: &[u8]) -> Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(key.len() as u64).to_le_bytes()).update(key).update(value);
    truncated(hasher.finalize())
}

fn part_count(length: usize) -> u32 {
    length.div_ceil(PART_BYTES_MAX) as u32
}

fn part_key(id: u64, number: u32) -> IVec {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&id.to_be_bytes());
    key[8..].copy_from_slice(&number.to_be_bytes());
    IVec::from(&key)
}

fn corrupt(key: &[u8], detail: &str) -> Error {
    Error::Corrupt { place: format!("state value \"{}\"", key.escape_ascii()), detail: detail.to_owned() }
}
