//! Which runs there are: one list per partition, and a root over all lists.
//!
//! ```text
//! "m" partition [2] → CRC32C u32 | (id u64 | blocks u32 | bytes u64 | pairs u64 | hash [16])*     oldest first
//! "s"               → CRC32C u32 | epoch u64 | sum u64
//! ```
//!
//! A *partition* is the first two bytes of a key: pairs of different groups never share a run. The sum
//! (of 8 bytes of BLAKE3 over every list with its key, wrapping) shows whether a list is missing or old;
//! the *epoch* counts writes.

use crate::storage::record::{Hash, u32_at, u64_at};

pub(super) const LIST: u8 = b'm';
pub(super) const ROOT: &[u8] = b"s";
const ENTRY_BYTES: usize = 44;

/// The first two bytes of a key, zeros where it is shorter.
pub(super) type Partition = [u8; 2];

pub(super) fn partition(key: &[u8]) -> Partition {
    [key.first().copied().unwrap_or(0), key.get(1).copied().unwrap_or(0)]
}

/// What must be known of a run to read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub id: u64,
    pub blocks: u32,
    pub bytes: u64,
    pub pairs: u64,
    /// First 16 bytes of BLAKE3 over all blocks.
    pub hash: Hash,
}

pub(super) fn list_key(partition: Partition) -> [u8; 3] {
    [LIST, partition[0], partition[1]]
}

pub(super) fn encode_list(entries: impl Iterator<Item = Entry>) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    for entry in entries {
        bytes.extend_from_slice(&entry.id.to_le_bytes());
        bytes.extend_from_slice(&entry.blocks.to_le_bytes());
        bytes.extend_from_slice(&entry.bytes.to_le_bytes());
        bytes.extend_from_slice(&entry.pairs.to_le_bytes());
        bytes.extend_from_slice(&entry.hash);
    }
    seal(bytes)
}

/// `None` if the bytes are damaged.
pub(super) fn decode_list(bytes: &[u8]) -> Option<Vec<Entry>> {
    let (entries, rest) = open(bytes)?.as_chunks::<ENTRY_BYTES>();
    let entry = |bytes: &[u8; ENTRY_BYTES]| {
        let mut hash = Hash::default();
        hash.copy_from_slice(&bytes[28..]);
        let (id, blocks) = (u64_at(bytes, 0), u32_at(bytes, 8));
        Entry { id, blocks, bytes: u64_at(bytes, 12), pairs: u64_at(bytes, 20), hash }
    };
    rest.is_empty().then(|| entries.iter().map(entry).collect())
}

/// What all lists must add up to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Root {
    /// Number of the last write.
    pub epoch: u64,
    sum: u64,
}

impl Root {
    /// Takes a list in, and the one that it replaces out.
    pub fn replace(&mut self, partition: Partition, old: Option<&[u8]>, new: Option<&[u8]>) {
        let share = |list: &[u8]| {
            let mut hasher = blake3::Hasher::new();
            u64_at(hasher.update(&partition).update(list).finalize().as_bytes(), 0)
        };
        self.sum = self.sum.wrapping_sub(old.map_or(0, share)).wrapping_add(new.map_or(0, share));
    }

    /// Whether `lists` are those this root was made of.
    pub fn covers<'a>(&self, lists: impl Iterator<Item = (Partition, &'a [u8])>) -> bool {
        let mut found = Self { epoch: self.epoch, sum: 0 };
        lists.for_each(|(partition, list)| found.replace(partition, None, Some(list)));
        found == *self
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; 4];
        bytes.extend_from_slice(&self.epoch.to_le_bytes());
        bytes.extend_from_slice(&self.sum.to_le_bytes());
        seal(bytes)
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let body = open(bytes)?;
        (body.len() == 16).then(|| Self { epoch: u64_at(body, 0), sum: u64_at(body, 8) })
    }
}

/// Fills in the CRC at the front.
fn seal(mut bytes: Vec<u8>) -> Vec<u8> {
    let crc = crc32c::crc32c(&bytes[4..]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn open(bytes: &[u8]) -> Option<&[u8]> {
    let (crc, body) = bytes.split_at_checked(4)?;
    (u32_at(crc, 0) == crc32c::crc32c(body)).then_some(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_roots_come_back_and_damage_is_noticed() {
        let entry = |id| Entry { id, blocks: 2, bytes: 3, pairs: 4, hash: [id as u8; 16] };
        let list = encode_list([entry(1), entry(2)].into_iter());
        assert_eq!(decode_list(&list), Some(vec![entry(1), entry(2)]));
        let mut root = Root { epoch: 9, sum: 0 };
        root.replace([0, 1], None, Some(&list));
        assert_eq!(Root::decode(&root.encode()), Some(root));
        assert!(root.covers([([0, 1], list.as_slice())].into_iter()));
        assert!(!root.covers([([0, 2], list.as_slice())].into_iter()));
        assert!(!root.covers(std::iter::empty()));
        for at in 0..list.len() {
            let mut damaged = list.clone();
            damaged[at] ^= 2;
            assert_eq!(decode_list(&damaged), None, "byte {at}");
        }
    }
}
