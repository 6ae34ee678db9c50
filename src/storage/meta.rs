//! The meta tree: a vote and a purge mark per group, the anchor of the journal's chain, and the
//! digest of the state store, each under its own key with a CRC.
//!
//! ```text
//! "v" group u16 be → CRC32C u32 | vote                    "a" → CRC32C u32 | seq u64 | hash [16]
//! "p" group u16 be → CRC32C u32 | upto u64 | mark         "s" → CRC32C u32 | digest u128 | count u64 | next part id u64
//! ```
//!
//! Every journal record carries a digest of the whole tree (the wrapping sum of 8 hash bytes per
//! pair): a value that is old but intact, or missing, does not go unnoticed.

use super::{
    Error, GroupId,
    record::{Hash, u64_at},
};
use bytes::Bytes;
use std::collections::BTreeMap;

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

/// The meta tree in memory, as of the last batch built.
#[derive(Debug, Default)]
pub(super) struct Meta {
    pub votes: BTreeMap<GroupId, Bytes>,
    pub purged: BTreeMap<GroupId, (u64, Bytes)>,
    pub anchor: Anchor,
    pub state: StateDigest,
    sums: BTreeMap<Vec<u8>, u64>,
    digest: u64,
}

/// A pair to be put into the tree.
pub(super) type Put = (Vec<u8>, Vec<u8>);

impl Meta {
    pub fn digest(&self) -> u64 {
        self.digest
    }

    pub fn set_vote(&mut self, group: GroupId, vote: &Bytes) -> Put {
        self.votes.insert(group, vote.clone());
        self.put(group_key(b'v', group), &[vote])
    }

    /// `None` if the present mark is higher.
    pub fn set_purged(&mut self, group: GroupId, upto: u64, mark: &Bytes) -> Option<Put> {
        if self.purged.get(&group).is_some_and(|(present, _)| *present > upto) {
            return None;
        }
        self.purged.insert(group, (upto, mark.clone()));
        Some(self.put(group_key(b'p', group), &[&upto.to_le_bytes(), mark]))
    }

    pub fn set_anchor(&mut self, anchor: Anchor) -> Put {
        self.anchor = anchor;
        self.put(b"a".to_vec(), &[&anchor.seq.to_le_bytes(), &anchor.hash])
    }

    pub fn set_state(&mut self, state: StateDigest) -> Put {
        self.state = state;
        self.put(
            b"s".to_vec(),
            &[&state.sum.to_le_bytes(), &state.count.to_le_bytes(), &state.next_part_id.to_le_bytes()],
        )
    }

    /// Takes in a pair found at open.
    pub fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        let payload = checked(key, value)?;
        let malformed = || corrupt(key, "malformed");
        match key {
            [b'v', a, b] => {
                self.votes.insert(group_of(*a, *b), Bytes::copy_from_slice(payload));
            }
            [b'p', a, b] if payload.len() >= 8 => {
                self.purged.insert(group_of(*a, *b), (u64_at(payload, 0), Bytes::copy_from_slice(&payload[8..])));
            }
            b"a" => {
                let hash = payload.get(8..).and_then(|hash| hash.try_into().ok()).ok_or_else(malformed)?;
                self.anchor = Anchor { seq: u64_at(payload, 0), hash };
            }
            b"s" if payload.len() == 32 => {
                let sum = u128::from(u64_at(payload, 0)) | u128::from(u64_at(payload, 8)) << 64;
                self.state = StateDigest { sum, count: u64_at(payload, 16), next_part_id: u64_at(payload, 24) };
            }
            _ => return Err(malformed()),
        }
        self.account(key.to_vec(), value);
        Ok(())
    }

    fn put(&mut self, key: Vec<u8>, payload: &[&[u8]]) -> Put {
        let mut value = vec![0; 4];
        payload.iter().for_each(|piece| value.extend_from_slice(piece));
        let crc = crc(&key, &value[4..]);
        value[..4].copy_from_slice(&crc.to_le_bytes());
        self.account(key.clone(), &value);
        (key, value)
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
        [b'v', a, b] => format!("the vote of group {}", group_of(*a, *b).0),
        [b'p', a, b] => format!("the purge mark of group {}", group_of(*a, *b).0),
        b"a" => "the anchor of the journal".to_owned(),
        b"s" => "the digest of the state store".to_owned(),
        _ => format!("meta key {key:02x?}"),
    };
    Error::Corrupt { place, detail: detail.to_owned() }
}

fn group_key(prefix: u8, group: GroupId) -> Vec<u8> {
    let [a, b] = group.0.to_be_bytes();
    vec![prefix, a, b]
}

fn group_of(a: u8, b: u8) -> GroupId {
    GroupId(u16::from_be_bytes([a, b]))
}
