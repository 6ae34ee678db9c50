//! What the journal's dropped records have left: a vote and a purge mark per group, the anchor of
//! the journal's chain, and the digest of the state store, each under its own key with a CRC.
//!
//! ```text
//! "mv" group u16 be → CRC32C u32 | vote                    "ma" → CRC32C u32 | seq u64 | hash [16]
//! "mp" group u16 be → CRC32C u32 | upto u64 | mark         "ms" → CRC32C u32 | digest u128 | count u64 | next part id u64
//! ```
//!
//! Votes and marks are first of all journal blocks. Only when records are dropped is what changed
//! since then written here, in the same batch; so a group commit usually writes its record and
//! nothing else. Opening starts from these values and takes in the journal's blocks in order.
//!
//! Every journal record carries a digest of all stored pairs (the wrapping sum of 8 hash bytes
//! each): a value that is old but intact, or missing, does not go unnoticed.

use super::{
    Error, GroupId,
    record::{Hash, u64_at},
};
use bytes::Bytes;
use sled::IVec;
use std::collections::{BTreeMap, BTreeSet};

/// The end of the chain that was dropped: sequence number and hash of its last record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Anchor {
    pub seq: u64,
    pub hash: Hash,
}

/// What the state store must add up to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct StateDigest {
    /// Wrapping sum of the hashes of all pairs.
    pub sum: u128,
    pub count: u64,
    /// Number of the next value that is kept in parts.
    pub next_part_id: u64,
}

/// What is kept of it, in the order of the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Item {
    Vote(GroupId),
    Purged(GroupId),
    Anchor,
    State,
}

/// Everything as of the last batch built or the last block replayed, and what is stored of it.
#[derive(Debug, Default)]
pub(super) struct Meta {
    pub votes: BTreeMap<GroupId, Bytes>,
    pub purged: BTreeMap<GroupId, (u64, Bytes)>,
    pub anchor: Anchor,
    pub state: StateDigest,
    /// Changed since the pairs were last written.
    unstored: BTreeSet<Item>,
    sums: BTreeMap<Vec<u8>, u64>,
    digest: u64,
}

/// Before every key of these values.
pub(super) const PREFIX: u8 = b'm';

impl Meta {
    /// Digest of the stored pairs.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    pub fn set_vote(&mut self, group: GroupId, vote: Bytes) {
        self.votes.insert(group, vote);
        self.unstored.insert(Item::Vote(group));
    }

    /// Changes nothing if the present mark is higher.
    pub fn set_purged(&mut self, group: GroupId, upto: u64, mark: Bytes) {
        if self.purged_upto(group).is_none_or(|present| present <= upto) {
            self.purged.insert(group, (upto, mark));
            self.unstored.insert(Item::Purged(group));
        }
    }

    pub fn set_anchor(&mut self, anchor: Anchor) {
        self.anchor = anchor;
        self.unstored.insert(Item::Anchor);
    }

    pub fn set_state(&mut self, state: StateDigest) {
        self.state = state;
        self.unstored.insert(Item::State);
    }

    pub fn purged_upto(&self, group: GroupId) -> Option<u64> {
        self.purged.get(&group).map(|(upto, _)| *upto)
    }

    /// The pairs that differ from what is stored. The caller writes them; the digest counts them
    /// as stored from now on.
    pub fn take_unstored(&mut self) -> Vec<(IVec, Option<IVec>)> {
        let items = std::mem::take(&mut self.unstored);
        items.into_iter().map(|item| self.encode(item)).collect()
    }

    /// Takes in a stored pair found at open.
    pub fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        let payload = checked(key, value)?;
        let malformed = || corrupt(key, "malformed");
        match key {
            [PREFIX, b'v', a, b] => {
                self.votes.insert(group_of(*a, *b), Bytes::copy_from_slice(payload));
            }
            [PREFIX, b'p', a, b] if payload.len() >= 8 => {
                self.purged.insert(group_of(*a, *b), (u64_at(payload, 0), Bytes::copy_from_slice(&payload[8..])));
            }
            [PREFIX, b'a'] => {
                let hash = payload.get(8..).and_then(|hash| hash.try_into().ok()).ok_or_else(malformed)?;
                self.anchor = Anchor { seq: u64_at(payload, 0), hash };
            }
            [PREFIX, b's'] if payload.len() == 32 => {
                let sum = u128::from(u64_at(payload, 0)) | u128::from(u64_at(payload, 8)) << 64;
                self.state = StateDigest { sum, count: u64_at(payload, 16), next_part_id: u64_at(payload, 24) };
            }
            _ => return Err(malformed()),
        }
        self.account(key.to_vec(), value);
        Ok(())
    }

    fn encode(&mut self, item: Item) -> (IVec, Option<IVec>) {
        let mut payload = vec![0; 4];
        let key = match item {
            Item::Vote(group) => {
                payload.extend_from_slice(self.votes.get(&group).map_or(&[], |vote| vote));
                group_key(b'v', group)
            }
            Item::Purged(group) => {
                let (upto, mark) = self.purged.get(&group).cloned().unwrap_or_default();
                payload.extend_from_slice(&upto.to_le_bytes());
                payload.extend_from_slice(&mark);
                group_key(b'p', group)
            }
            Item::Anchor => {
                payload.extend_from_slice(&self.anchor.seq.to_le_bytes());
                payload.extend_from_slice(&self.anchor.hash);
                vec![PREFIX, b'a']
            }
            Item::State => {
                payload.extend_from_slice(&self.state.sum.to_le_bytes());
                payload.extend_from_slice(&self.state.count.to_le_bytes());
                payload.extend_from_slice(&self.state.next_part_id.to_le_bytes());
                vec![PREFIX, b's']
            }
        };
        let crc = crc(&key, &payload[4..]);
        payload[..4].copy_from_slice(&crc.to_le_bytes());
        self.account(key.clone(), &payload);
        (key.into(), Some(payload.into()))
    }

    fn account(&mut self, key: Vec<u8>, value: &[u8]) {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(key.len() as u64).to_le_bytes()).update(&key).update(value);
        let sum = u64_at(hasher.finalize().as_bytes(), 0);
        let old = self.sums.insert(key, sum).unwrap_or(0);
        self.digest = self.digest.wrapping_sub(old).wrapping_add(sum);
    }
}

fn checked<'a>(key: &[u8], value: &'a [u8]) -> Result<&'a [u8], Error> {
    match value.split_at_checked(4) {
        Some((stored, payload)) if stored == crc(key, payload).to_le_bytes() => Ok(payload),
        _ => Err(corrupt(key, "the checksum does not match")),
    }
}

fn crc(key: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), payload)
}

fn corrupt(key: &[u8], detail: &str) -> Error {
    let place = match key {
        [PREFIX, b'v', a, b] => format!("the vote of group {}", group_of(*a, *b).0),
        [PREFIX, b'p', a, b] => format!("the purge mark of group {}", group_of(*a, *b).0),
        [PREFIX, b'a'] => "the anchor of the journal".to_owned(),
        [PREFIX, b's'] => "the digest of the state store".to_owned(),
        _ => format!("meta key {key:02x?}"),
    };
    Error::Corrupt { place, detail: detail.to_owned() }
}

fn group_key(kind: u8, group: GroupId) -> Vec<u8> {
    let [a, b] = group.0.to_be_bytes();
    vec![PREFIX, kind, a, b]
}

fn group_of(a: u8, b: u8) -> GroupId {
    GroupId(u16::from_be_bytes([a, b]))
}
