//! A block: sorted pairs, the unit that is read, written and checked.
//!
//! ```text
//! CRC32C u32 | pairs u32 | offset u32 × pairs | (key bytes u16 | value bytes u32 | key | value)*
//! ```
//!
//! Offsets count from the block's first byte. A deletion has [`DELETED`] in place of the value's
//! length and no value. The CRC covers the number of the run and of the block, too, so that a block
//! in another's place is noticed.

use crate::storage::record::{u16_at, u32_at};
use bytes::Bytes;
use sled::IVec;

/// A block is closed when it has this many bytes; a single pair may make it larger.
pub(super) const BLOCK_BYTES: usize = 32 << 10;
const DELETED: u32 = u32::MAX;
const PAIR_HEAD: usize = 6;
const FIXED: usize = 8;

/// Collects the pairs of one block, in key order.
#[derive(Debug, Default)]
pub(super) struct Builder {
    offsets: Vec<u32>,
    pairs: Vec<u8>,
}

impl Builder {
    pub fn push(&mut self, key: &[u8], value: Option<&[u8]>) {
        self.offsets.push(self.pairs.len() as u32);
        self.pairs.extend_from_slice(&(key.len() as u16).to_le_bytes());
        let length = value.map_or(DELETED, |value| value.len() as u32);
        self.pairs.extend_from_slice(&length.to_le_bytes());
        self.pairs.extend_from_slice(key);
        self.pairs.extend_from_slice(value.unwrap_or_default());
    }

    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// Whether a pair of this size belongs into the next block.
    pub fn is_full_for(&self, key: usize, value: usize) -> bool {
        let bytes = FIXED + 4 * self.offsets.len() + self.pairs.len() + PAIR_HEAD + 4 + key + value;
        !self.is_empty() && bytes > BLOCK_BYTES
    }

    /// The block's bytes; the builder is empty again.
    pub fn finish(&mut self, run: u64, number: u32) -> Vec<u8> {
        let start = FIXED + 4 * self.offsets.len();
        let mut block = Vec::with_capacity(start + self.pairs.len());
        block.extend_from_slice(&[0; 4]);
        block.extend_from_slice(&(self.offsets.len() as u32).to_le_bytes());
        for offset in self.offsets.drain(..) {
            block.extend_from_slice(&(start as u32 + offset).to_le_bytes());
        }
        block.append(&mut self.pairs);
        let crc = crc(run, number, &block);
        block[..4].copy_from_slice(&crc.to_le_bytes());
        block
    }
}

fn crc(run: u64, number: u32, block: &[u8]) -> u32 {
    let place = crc32c::crc32c_append(crc32c::crc32c(&run.to_le_bytes()), &number.to_le_bytes());
    crc32c::crc32c_append(place, &block[4..])
}

/// A checked block.
#[derive(Debug, Clone)]
pub(super) struct Block(IVec);

impl Block {
    /// Checks the bytes of block `number` of run `run`; `None` if they are damaged.
    pub fn open(run: u64, number: u32, bytes: IVec) -> Option<Self> {
        if bytes.len() < FIXED || u32_at(&bytes, 0) != crc(run, number, &bytes) {
            return None;
        }
        let block = Self(bytes);
        let fits = |at| block.bounds(at).is_some();
        (block.0.len() >= FIXED + 4 * block.len() && (0..block.len()).all(fits)).then_some(block)
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Number of pairs.
    pub fn len(&self) -> usize {
        u32_at(&self.0, 4) as usize
    }

    pub fn key(&self, at: usize) -> &[u8] {
        let (start, middle, _) = self.bounds(at).unwrap_or_default();
        &self.0[start..middle]
    }

    /// The value at `at`; `None` is a deletion.
    pub fn value(&self, at: usize) -> Option<Bytes> {
        let (_, middle, end) = self.bounds(at)?;
        end.map(|end| Bytes::copy_from_slice(&self.0[middle..end]))
    }

    /// The first pair whose key is not below `key`.
    pub fn lower_bound(&self, key: &[u8]) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.key(middle) < key { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// What the block says of `key`: nothing, that it is deleted, or its value.
    pub fn find(&self, key: &[u8]) -> Option<Option<Bytes>> {
        let at = self.lower_bound(key);
        (at < self.len() && self.key(at) == key).then(|| self.value(at))
    }

    /// Start of the key, its end, and the end of the value; `None` where a damaged block points
    /// past its end.
    fn bounds(&self, at: usize) -> Option<(usize, usize, Option<usize>)> {
        let bytes = self.0.as_ref();
        let offset = FIXED + 4 * at;
        let pair = u32_at(bytes.get(offset..offset + 4)?, 0) as usize;
        let head = bytes.get(pair..pair + PAIR_HEAD)?;
        let (key, value) = (u16_at(head, 0) as usize, u32_at(head, 2));
        let start = pair + PAIR_HEAD;
        let end = (value != DELETED).then(|| start + key + value as usize);
        (end.unwrap_or(start + key) <= bytes.len()).then_some((start, start + key, end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_and_deletions_are_found_and_any_flipped_byte_is_noticed() {
        let mut builder = Builder::default();
        builder.push(b"a", Some(b"1"));
        builder.push(b"b", None);
        builder.push(b"d", Some(b""));
        let bytes = builder.finish(7, 3);
        assert!(builder.is_empty());
        let block = Block::open(7, 3, bytes.as_slice().into()).unwrap();
        assert_eq!(block.find(b"a"), Some(Some(Bytes::from_static(b"1"))));
        assert_eq!(block.find(b"b"), Some(None));
        assert_eq!(block.find(b"c"), None);
        assert_eq!(block.find(b"d"), Some(Some(Bytes::new())));
        assert_eq!(block.find(b"e"), None);
        assert!(Block::open(7, 4, bytes.as_slice().into()).is_none(), "another block's place");
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 32;
            assert!(Block::open(7, 3, damaged.into()).is_none(), "byte {at}");
        }
    }
}
