//! What of a shard is in a backup, and in which form.

use crate::{
    catalog::{ClusterId, bits128},
    entity::{ShardId, codec},
    shard::keys,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A backup, wherever it is mentioned: 128 random bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BackupId(#[serde(with = "bits128")] pub u128);

impl BackupId {
    pub fn random() -> Self {
        Self(rand::random())
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// What a shard's part of a backup begins with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardHead {
    pub shard: ShardId,
    /// Term and index of the last entry of the cut.
    pub term: u64,
    pub index: u64,
    /// Numbers given out so far, to effects
    pub effects: u64,
    /// and to timers: the next ones go on behind them.
    pub timers: u64,
    /// Where effects with low numbers come from, if not from the cluster that was backed up.
    pub origins: Vec<Origin>,
}

/// Effects up to this number were given it by this cluster: what a shard that was restored brings with it.
///
/// A task's key is made of the cluster and the number. A task that was on its way at the cut must be
/// given the key that it had, and a task with a number that both clusters have given out since then another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    pub effects: u64,
    pub cluster: ClusterId,
}

/// In which versions the events and commands of an entity type are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypeVersions {
    pub event: u16,
    pub command: u16,
}

/// No shard gives out so many numbers. A backup that says so is none.
const NUMBER_MAX: u64 = 1 << 62;

impl ShardHead {
    /// Whether a shard can go on from there.
    pub fn is_sound(&self) -> bool {
        self.effects < NUMBER_MAX && self.timers < NUMBER_MAX
    }
}

/// Keys without the prefix of their group, and values.
pub type Pairs = Vec<(Vec<u8>, Bytes)>;

/// Bytes of pairs in one chunk, which becomes one log entry when it is restored. One pair may be larger.
pub const CHUNK_BYTES: usize = 64 << 10;
/// Pairs in one chunk: each may be an entity whose history has to be folded while nothing else is applied.
pub const CHUNK_PAIRS: usize = 128;

/// Which keys are copied, in the order in which they are. Entities come last: to be restored they need
/// their histories. Not copied: what is about this cluster's log (`c`, `g`, `m`), what is under way (`b`), and what
/// follows from the rest (`l`, `v`).
pub const RANGES: [(&[u8], &[u8]); 7] =
    [(b"d", b"e"), (b"h", b"j"), (b"n", b"p"), (b"r", b"s"), (b"t", b"u"), (b"x", b"y"), (b"e", b"f")];

/// Whether a key belongs into a backup.
pub fn is_copied(key: &[u8]) -> bool {
    key.len() <= keys::BYTES_MAX && RANGES.iter().any(|(start, end)| *start <= key && key < *end)
}

pub fn encode_chunk(pairs: &Pairs) -> Result<Bytes, codec::Error> {
    codec::encode("chunk of a backup", pairs).map(Bytes::from)
}

/// The pairs of a chunk.
///
/// # Errors
/// It is no chunk, or holds something that is not copied.
pub fn decode_chunk(chunk: &[u8]) -> Result<Pairs, codec::Error> {
    let pairs: Pairs = codec::decode("chunk of a backup", chunk)?;
    match pairs.iter().find(|(key, _)| !is_copied(key)) {
        None => Ok(pairs),
        Some((key, _)) => {
            let detail = format!("a key of kind {:?} has no place in it", key.first().map(|kind| char::from(*kind)));
            Err(codec::Error::Malformed { what: "chunk of a backup", detail })
        }
    }
}

/// Over the chunks of a shard so far, in their order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum {
    pub chunks: u64,
    pub pairs: u64,
    /// `BLAKE3(hash before · chunk)`
    pub hash: [u8; 32],
}

impl Sum {
    #[must_use]
    pub fn and(self, chunk: &[u8], pairs: usize) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.hash).update(chunk);
        Self { chunks: self.chunks + 1, pairs: self.pairs + pairs as u64, hash: *hasher.finalize().as_bytes() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{entity::EntityKey, storage::GroupId};

    #[test]
    fn what_a_shard_knows_of_its_own_log_is_not_copied() {
        let entity = EntityKey::new("order", "a").expect("a name");
        let copied = [
            keys::dead_letter(1),
            keys::entity(&entity),
            keys::history(&entity, 1),
            keys::answer(&entity, "k"),
            keys::timer_name(&entity, "n"),
            keys::outbox(1),
            keys::received(GroupId(1), 1),
            keys::timer(1, 1),
            keys::answer_expiry(1, &entity, "k"),
        ];
        assert!(copied.iter().all(|key| is_copied(key)));
        let row = keys::list("order", "status", "pending");
        for key in [keys::META, keys::LISTS, keys::CHAIN, keys::RESTORING, keys::ORIGINS, &keys::ledger(1), &row, b""] {
            assert!(!is_copied(key), "{key:?}");
            let chunk = encode_chunk(&vec![(key.to_vec(), Bytes::new())]).expect("encodes");
            assert!(decode_chunk(&chunk).is_err(), "{key:?}");
        }
    }

    #[test]
    fn a_sum_depends_on_the_order_of_its_chunks() {
        let sum = |chunks: [&[u8]; 2]| chunks.iter().fold(Sum::default(), |sum, chunk| sum.and(chunk, 1));
        assert_ne!(sum([b"a", b"b"]), sum([b"b", b"a"]));
        assert_ne!(sum([b"ab", b""]).hash, sum([b"a", b"b"]).hash);
    }
}
