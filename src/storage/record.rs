//! The bytes of the journal: records and the blocks in them. All integers are little endian.
//!
//! ```text
//! record  magic "QJR2" | seq u64 | previous hash [16] | body bytes u32 | blocks u32 | CRC32C u32 | body
//! block   payload bytes u32 | CRC32C u32 | group u16 | kind u8 | 0 u8 | term u64 | first index u64 | count u32 | payload
//! ```
//!
//! The record's CRC covers its header, a block's CRC the whole block except the CRC. The hash of a
//! record is the first 16 bytes of BLAKE3 over all its bytes; the next record carries it, so a
//! record that is missing, swapped or altered breaks the chain.

use super::{EntryRecord, Error, GroupId};
use bytes::Bytes;
use std::ops::Range;

/// The largest record, in bytes.
pub const RECORD_BYTES_MAX: usize = 100 << 10;
pub(super) const RECORD_HEADER: usize = 40;
pub(super) const BLOCK_HEADER: usize = 32;
pub(super) const PAYLOAD_BYTES_MAX: usize = RECORD_BYTES_MAX - RECORD_HEADER - BLOCK_HEADER;
/// Before the bytes of a part: its number and the length of the whole entry.
pub(super) const PART_HEADER: usize = 8;
const MAGIC: &[u8; 4] = b"QJR2";

/// First 16 bytes of BLAKE3.
pub(super) type Hash = [u8; 16];

pub(super) fn hash(bytes: &[u8]) -> Hash {
    truncated(blake3::hash(bytes))
}

pub(super) fn truncated(hash: blake3::Hash) -> Hash {
    let mut short = Hash::default();
    short.copy_from_slice(&hash.as_bytes()[..16]);
    short
}

/// What a block says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// `count` entries of one term from `first` on; payload: (length u32, bytes) each.
    Append = 1,
    /// One part of entry `first`, of `count` parts in consecutive records.
    Part = 2,
    /// Entries at `first` and above are gone.
    Truncate = 3,
    /// The payload is the group's vote.
    Vote = 4,
    /// Entries at `first` and below are gone; the payload is the mark.
    Purge = 5,
    /// The state store has durably reached epoch `first`.
    State = 6,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Append, Self::Part, Self::Truncate, Self::Vote, Self::Purge, Self::State]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// A checked record header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub seq: u64,
    pub previous: Hash,
    /// Bytes after the header.
    pub body: u32,
    pub blocks: u32,
}

impl Header {
    /// Writes the header into the first [`RECORD_HEADER`] bytes of `record`.
    pub fn write(&self, record: &mut [u8]) {
        record[..4].copy_from_slice(MAGIC);
        record[4..12].copy_from_slice(&self.seq.to_le_bytes());
        record[12..28].copy_from_slice(&self.previous);
        record[28..32].copy_from_slice(&self.body.to_le_bytes());
        record[32..36].copy_from_slice(&self.blocks.to_le_bytes());
        let crc = crc32c::crc32c(&record[..36]);
        record[36..40].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads and checks the header at the front of `bytes`, which should be that of record `seq`.
    pub fn parse(seq: u64, bytes: &[u8]) -> Result<Self, Error> {
        let bad = |detail: String| corrupt_record(seq, detail);
        let Some(header) = bytes.get(..RECORD_HEADER) else {
            return Err(bad(format!("{} bytes are too few for a header", bytes.len())));
        };
        if header.iter().all(|byte| *byte == 0) {
            return Err(bad("missing".into()));
        }
        if u32_at(header, 36) != crc32c::crc32c(&header[..36]) {
            return Err(bad("the header's checksum does not match".into()));
        }
        if &header[..4] != MAGIC {
            return Err(bad(format!("unknown format {:?}", String::from_utf8_lossy(&header[..4]))));
        }
        let found = u64_at(header, 4);
        if found != seq {
            return Err(bad(format!("holds record {found}")));
        }
        let body = u32_at(header, 28);
        if body as usize > RECORD_BYTES_MAX - RECORD_HEADER {
            return Err(bad(format!("claims {body} bytes after the header")));
        }
        let mut previous = Hash::default();
        previous.copy_from_slice(&header[12..28]);
        Ok(Self { seq, previous, body, blocks: u32_at(header, 32) })
    }

    /// As [`Header::parse`], for all bytes of a record.
    pub fn read(seq: u64, record: &[u8]) -> Result<Self, Error> {
        let header = Self::parse(seq, record)?;
        let found = record.len() - RECORD_HEADER;
        if header.body as usize != found {
            return Err(corrupt_record(seq, format!("has {found} bytes after the header instead of {}", header.body)));
        }
        Ok(header)
    }
}

/// A checked block, borrowed from its record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block<'a> {
    pub group: GroupId,
    pub kind: Kind,
    pub term: u64,
    pub first: u64,
    pub count: u32,
    pub payload: &'a [u8],
    seq: u64,
    offset: usize,
}

impl<'a> Block<'a> {
    /// Reads and checks the block at `offset` of record `seq`.
    pub fn read(seq: u64, record: &'a [u8], offset: usize) -> Result<Self, Error> {
        let at = |detail: &str| corrupt_record(seq, format!("block at byte {offset}: {detail}"));
        let rest = record.get(offset..).filter(|rest| rest.len() >= BLOCK_HEADER).ok_or_else(|| at("cut off"))?;
        let end = BLOCK_HEADER + u32_at(rest, 0) as usize;
        let bytes = rest.get(..end).ok_or_else(|| at("its length points past the record"))?;
        let (group, first, count) = (GroupId(u16_at(bytes, 8)), u64_at(bytes, 20), u32_at(bytes, 28));
        if u32_at(bytes, 4) != block_crc(bytes) {
            return Err(corrupt_block(
                seq,
                group,
                first,
                count,
                format!("the checksum of the block at byte {offset} does not match"),
            ));
        }
        let kind = Kind::from_byte(bytes[10]).ok_or_else(|| at("unknown kind"))?;
        Ok(Self { group, kind, term: u64_at(bytes, 12), first, count, payload: &bytes[BLOCK_HEADER..], seq, offset })
    }

    /// Where the next block starts.
    pub fn end(&self) -> usize {
        self.offset + BLOCK_HEADER + self.payload.len()
    }

    /// Indexes of the entries of an `Append` or `Part`, and of nothing else.
    pub fn indexes(&self) -> Result<Range<u64>, Error> {
        let count = match self.kind {
            Kind::Append => u64::from(self.count),
            Kind::Part => 1,
            _ => 0,
        };
        let end = self.first.checked_add(count).ok_or_else(|| self.corrupt("the index is out of range"))?;
        Ok(self.first..end)
    }

    /// Copies the entries of `range` out of an `Append` block.
    pub fn entries(&self, range: Range<u64>, into: &mut Vec<EntryRecord>) -> Result<(), Error> {
        let mut rest = self.payload;
        for index in self.indexes()? {
            let (length, after) = rest.split_at_checked(4).ok_or_else(|| self.corrupt("an entry is cut off"))?;
            let (payload, after) = after
                .split_at_checked(u32_at(length, 0) as usize)
                .ok_or_else(|| self.corrupt("an entry is cut off"))?;
            rest = after;
            if range.contains(&index) {
                into.push(EntryRecord { index, term: self.term, payload: Bytes::copy_from_slice(payload) });
            }
        }
        if rest.is_empty() { Ok(()) } else { Err(self.corrupt("bytes are left over")) }
    }

    /// Number of this part, length of the whole entry, and the part's bytes.
    pub fn part(&self) -> Result<(u32, usize, &'a [u8]), Error> {
        let (head, bytes) =
            self.payload.split_at_checked(PART_HEADER).ok_or_else(|| self.corrupt("a part is cut off"))?;
        Ok((u32_at(head, 0), u32_at(head, 4) as usize, bytes))
    }

    pub fn corrupt(&self, detail: &str) -> Error {
        let count = if self.kind == Kind::Append { self.count } else { 1 };
        corrupt_block(self.seq, self.group, self.first, count, detail.to_owned())
    }
}

/// Fills in the header of the block that makes up all of `block`; its payload is there already.
pub(super) fn write_block_header(block: &mut [u8], group: GroupId, kind: Kind, term: u64, first: u64, count: u32) {
    let payload = (block.len() - BLOCK_HEADER) as u32;
    block[..4].copy_from_slice(&payload.to_le_bytes());
    block[8..10].copy_from_slice(&group.0.to_le_bytes());
    block[10] = kind as u8;
    block[11] = 0;
    block[12..20].copy_from_slice(&term.to_le_bytes());
    block[20..28].copy_from_slice(&first.to_le_bytes());
    block[28..32].copy_from_slice(&count.to_le_bytes());
    let crc = block_crc(block);
    block[4..8].copy_from_slice(&crc.to_le_bytes());
}

fn block_crc(block: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&block[..4]), &block[8..])
}

pub(super) fn corrupt_record(seq: u64, detail: String) -> Error {
    Error::Corrupt { place: format!("journal record {seq}"), detail }
}

fn corrupt_block(seq: u64, group: GroupId, first: u64, count: u32, detail: String) -> Error {
    let end = first.saturating_add(u64::from(count));
    Error::Corrupt { place: format!("journal record {seq}, group {}, entries {first}..{end}", group.0), detail }
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut array = [0; 4];
    array.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(array)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut array = [0; 8];
    array.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(array)
}
