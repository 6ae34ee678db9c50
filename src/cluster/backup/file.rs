//! A backup's bytes: written from the sections of its shards, read and checked section by section.
//!
//! ```text
//! "QUORATE BACKUP 1\n"  section*
//! section = kind u8 | length u32 | CRC32C u32 of kind, length and body | body        (little endian)
//! H header, JSON
//! P chunk: pairs of the shard at hand, bincode     ┐ for each shard of the header,
//! E end of a shard: shard u16, chunks u64,         │ in its order
//!   pairs u64, hash [32] over its chunks           ┘
//! T trailer: BLAKE3 over the header and all ends
//! ```
//!
//! A file without its trailer is no backup: that is how one shows that broke off.

use crate::{
    catalog::ClusterId,
    entity::ShardId,
    shard::backup::{BackupId, Pairs, ShardHead, Sum, TypeVersions, decode_chunk},
};
use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Raised with every change of what effects, timers, answers or records look like.
pub const STATE_FORMAT: u16 = 1;

const MAGIC: &[u8] = b"QUORATE BACKUP 1\n";
const SECTION_HEAD: usize = 9;
/// The largest body: a chunk, or the header of very many shards.
const BODY_BYTES_MAX: usize = 16 << 20;

const HEADER: u8 = b'H';
const CHUNK: u8 = b'P';
const END: u8 = b'E';
const TRAILER: u8 = b'T';
const END_BYTES: usize = 2 + 8 + 8 + 32;

/// What a backup says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupHeader {
    pub backup: BackupId,
    /// The cluster it was taken of.
    pub cluster: ClusterId,
    /// When, in milliseconds since the epoch, by the clock of the node that was asked.
    pub taken_at_ms: u64,
    /// The version of the software that wrote it.
    pub version: String,
    /// In which form its pairs are, the runtime's own: [`STATE_FORMAT`] or older.
    pub state_format: u16,
    /// By entity type, the versions that its events and commands are written in, at most.
    pub entity_types: BTreeMap<String, TypeVersions>,
    /// All shards, from 0 on.
    pub shards: Vec<ShardHead>,
}

/// A file that is no backup, or no longer a whole one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}, at byte {at}")]
pub struct DamagedBackup {
    /// Where the section begins that is wrong.
    pub at: u64,
    pub detail: String,
}

/// Writes the sections of one backup.
#[derive(Debug)]
pub struct BackupWriter {
    all: blake3::Hasher,
    sum: Sum,
}

impl BackupWriter {
    /// A writer, and what the file begins with.
    pub fn begin(header: &BackupHeader) -> Result<(Self, Bytes), serde_json::Error> {
        let json = serde_json::to_vec(header)?;
        let mut all = blake3::Hasher::new();
        all.update(&json);
        let bytes = [MAGIC, &section(HEADER, &json)].concat();
        Ok((Self { all, sum: Sum::default() }, bytes.into()))
    }

    /// The next chunk of the shard at hand.
    pub fn chunk(&mut self, chunk: &[u8], pairs: usize) -> Bytes {
        self.sum = self.sum.and(chunk, pairs);
        section(CHUNK, chunk).into()
    }

    /// The shard at hand is whole.
    pub fn end(&mut self, shard: ShardId) -> Bytes {
        let body = encode_end(shard, std::mem::take(&mut self.sum));
        self.all.update(&body);
        section(END, &body).into()
    }

    /// All shards are.
    pub fn finish(self) -> Bytes {
        section(TRAILER, self.all.finalize().as_bytes()).into()
    }
}

fn section(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes();
    let crc = checksum(kind, length, body).to_le_bytes();
    [&[kind], length.as_slice(), &crc, body].concat()
}

fn checksum(kind: u8, length: [u8; 4], body: &[u8]) -> u32 {
    let head = [kind, length[0], length[1], length[2], length[3]];
    crc32c::crc32c_append(crc32c::crc32c(&head), body)
}

fn encode_end(shard: ShardId, sum: Sum) -> Vec<u8> {
    [&shard.0.to_le_bytes(), sum.chunks.to_le_bytes().as_slice(), &sum.pairs.to_le_bytes(), &sum.hash].concat()
}

/// A part of a backup, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Section {
    Header(BackupHeader),
    Chunk {
        shard: ShardId,
        /// From 0 on, in each shard.
        number: u64,
        chunk: Bytes,
        pairs: Pairs,
    },
    End {
        shard: ShardId,
        sum: Sum,
    },
    Trailer,
}

/// Reads a backup as its bytes come in. Whatever it gives out is as it was written, and at its place.
#[derive(Debug)]
pub struct BackupReader {
    fed: BytesMut,
    /// Where `fed` begins.
    at: u64,
    all: blake3::Hasher,
    expects: Expects,
    header: Option<BackupHeader>,
    /// Which of the header's shards is at hand.
    shard: usize,
    sum: Sum,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expects {
    Magic,
    Header,
    Shards,
    Nothing,
}

impl Default for BackupReader {
    fn default() -> Self {
        Self {
            fed: BytesMut::new(),
            at: 0,
            all: blake3::Hasher::new(),
            expects: Expects::Magic,
            header: None,
            shard: 0,
            sum: Sum::default(),
        }
    }
}

impl BackupReader {
    pub fn feed(&mut self, bytes: &[u8]) {
        self.fed.extend_from_slice(bytes);
    }

    /// The next section; `None` if more bytes are needed for it, or nothing is to come.
    ///
    /// # Errors
    /// Once, and then again.
    pub fn next_section(&mut self) -> Result<Option<Section>, DamagedBackup> {
        if self.expects == Expects::Magic && !self.read_magic()? {
            return Ok(None);
        }
        if self.expects == Expects::Nothing {
            return if self.fed.is_empty() { Ok(None) } else { Err(self.damaged("there is more behind its end")) };
        }
        let Some((head, _)) = self.fed.split_first_chunk::<SECTION_HEAD>() else { return Ok(None) };
        let (kind, length, crc) = (head[0], [head[1], head[2], head[3], head[4]], [head[5], head[6], head[7], head[8]]);
        let bytes = u32::from_le_bytes(length) as usize;
        if bytes > BODY_BYTES_MAX {
            return Err(self.damaged("a section says that it is larger than any is"));
        }
        let Some(body) = self.fed.get(SECTION_HEAD..SECTION_HEAD + bytes) else { return Ok(None) };
        if checksum(kind, length, body) != u32::from_le_bytes(crc) {
            return Err(self.damaged("the checksum of a section does not match"));
        }
        let body = Bytes::copy_from_slice(body);
        let section = self.read(kind, body)?;
        self.drop_front(SECTION_HEAD + bytes);
        Ok(Some(section))
    }

    /// Whether the trailer has been read, and so everything.
    pub fn is_whole(&self) -> bool {
        self.expects == Expects::Nothing && self.fed.is_empty()
    }

    /// What is said of a file that ends here without being whole.
    pub fn cut_short(&self) -> DamagedBackup {
        self.damaged("the file ends before its trailer: it is not whole")
    }

    /// How many bytes were read and found good.
    pub fn bytes(&self) -> u64 {
        self.at
    }

    fn read_magic(&mut self) -> Result<bool, DamagedBackup> {
        let length = self.fed.len().min(MAGIC.len());
        if self.fed[..length] != MAGIC[..length] {
            return Err(self.damaged("this is no backup that this version of quorate can read"));
        }
        if length == MAGIC.len() {
            self.expects = Expects::Header;
            self.drop_front(length);
        }
        Ok(self.expects == Expects::Header)
    }

    fn read(&mut self, kind: u8, body: Bytes) -> Result<Section, DamagedBackup> {
        match (self.expects, kind) {
            (Expects::Header, HEADER) => self.read_header(&body),
            (Expects::Shards, CHUNK) if self.shard_at_hand().is_some() => self.read_chunk(body),
            (Expects::Shards, END) if self.shard_at_hand().is_some() => self.read_end(&body),
            (Expects::Shards, TRAILER) if self.shard_at_hand().is_none() => self.read_trailer(&body),
            _ => Err(self.damaged(&format!("a section of kind {:?} stands where none may", char::from(kind)))),
        }
    }

    fn read_header(&mut self, body: &[u8]) -> Result<Section, DamagedBackup> {
        let header: BackupHeader = serde_json::from_slice(body)
            .map_err(|error| self.damaged(&format!("its header cannot be read: {error}")))?;
        let in_order = header.shards.iter().zip(0_u16..).all(|(head, number)| head.shard.0 == number);
        if header.shards.is_empty() || header.shards.len() > usize::from(u16::MAX) || !in_order {
            return Err(self.damaged("its header does not name its shards in their order"));
        }
        self.all.update(body);
        self.expects = Expects::Shards;
        self.header = Some(header.clone());
        Ok(Section::Header(header))
    }

    fn read_chunk(&mut self, chunk: Bytes) -> Result<Section, DamagedBackup> {
        let pairs = decode_chunk(&chunk).map_err(|error| self.damaged(&error.to_string()))?;
        let (shard, number) = (self.shard_number(), self.sum.chunks);
        self.sum = self.sum.and(&chunk, pairs.len());
        Ok(Section::Chunk { shard, number, chunk, pairs })
    }

    fn read_end(&mut self, body: &[u8]) -> Result<Section, DamagedBackup> {
        let shard = self.shard_number();
        if body.len() != END_BYTES || body != encode_end(shard, self.sum) {
            return Err(self.damaged("the end of a shard does not fit what came before"));
        }
        self.all.update(body);
        self.shard += 1;
        Ok(Section::End { shard, sum: std::mem::take(&mut self.sum) })
    }

    fn read_trailer(&mut self, body: &[u8]) -> Result<Section, DamagedBackup> {
        if body != self.all.finalize().as_bytes() {
            return Err(self.damaged("the trailer does not fit what came before"));
        }
        self.expects = Expects::Nothing;
        Ok(Section::Trailer)
    }

    fn shard_at_hand(&self) -> Option<&ShardHead> {
        self.header.as_ref()?.shards.get(self.shard)
    }

    fn shard_number(&self) -> ShardId {
        ShardId(u16::try_from(self.shard).unwrap_or(u16::MAX))
    }

    fn drop_front(&mut self, bytes: usize) {
        // What is left is moved to the front by the buffer when it has to grow.
        drop(self.fed.split_to(bytes));
        self.at += bytes as u64;
    }

    fn damaged(&self, detail: &str) -> DamagedBackup {
        DamagedBackup { at: self.at, detail: detail.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::backup::{Origin, encode_chunk};
    use proptest::{collection::vec, prelude::*};

    fn header(shards: u16) -> BackupHeader {
        let origins = vec![Origin { effects: 3, cluster: ClusterId(9) }];
        let head = |shard| ShardHead {
            shard: ShardId(shard),
            term: 2,
            index: 7,
            effects: 5,
            timers: 1,
            origins: origins.clone(),
        };
        let versions = TypeVersions { event: 2, command: 1 };
        BackupHeader {
            backup: BackupId(u128::MAX - 1),
            cluster: ClusterId(7),
            taken_at_ms: 1_700_000_000_000,
            version: "0.1.0".into(),
            state_format: STATE_FORMAT,
            entity_types: [("order".to_owned(), versions)].into(),
            shards: (0..shards).map(head).collect(),
        }
    }

    fn pairs(number: u8) -> Pairs {
        vec![(vec![b'h', number], Bytes::from(vec![number; usize::from(number)])), (vec![b'e', number], Bytes::new())]
    }

    /// A backup with so many chunks in each shard.
    fn file(chunks: &[u8]) -> Vec<u8> {
        let header = header(u16::try_from(chunks.len()).expect("few"));
        let (mut writer, first) = BackupWriter::begin(&header).expect("encodes");
        let mut bytes = first.to_vec();
        for (shard, chunks) in (0..).zip(chunks) {
            for number in 0..*chunks {
                let pairs = pairs(number);
                bytes.extend(writer.chunk(&encode_chunk(&pairs).expect("encodes"), pairs.len()));
            }
            bytes.extend(writer.end(ShardId(shard)));
        }
        bytes.extend(writer.finish());
        bytes
    }

    fn read(bytes: &[u8], step: usize) -> Result<Vec<Section>, DamagedBackup> {
        let (mut reader, mut sections) = (BackupReader::default(), Vec::new());
        for part in bytes.chunks(step.max(1)) {
            reader.feed(part);
            while let Some(section) = reader.next_section()? {
                sections.push(section);
            }
        }
        if reader.is_whole() { Ok(sections) } else { Err(reader.cut_short()) }
    }

    #[test]
    fn what_was_written_is_read_again_however_it_comes_in() {
        let bytes = file(&[2, 0, 3]);
        let whole = read(&bytes, bytes.len()).expect("whole");
        assert_eq!(whole[0], Section::Header(header(3)));
        let chunks = |of: u16| {
            let is_of = |section: &&Section| matches!(section, Section::Chunk { shard, .. } if shard.0 == of);
            whole.iter().filter(is_of).cloned().collect::<Vec<_>>()
        };
        assert_eq!([chunks(0).len(), chunks(1).len(), chunks(2).len()], [2, 0, 3]);
        assert!(matches!(&chunks(2)[2], Section::Chunk { number: 2, pairs: found, .. } if *found == pairs(2)));
        assert_eq!(whole.last(), Some(&Section::Trailer));
        for step in [1, 2, 7, 100] {
            assert_eq!(read(&bytes, step).as_ref(), Ok(&whole));
        }
    }

    #[test]
    fn a_file_that_ends_anywhere_but_at_its_end_is_none() {
        let bytes = file(&[1, 2]);
        for cut in 0..bytes.len() {
            assert!(read(&bytes[..cut], 64).is_err(), "cut at {cut}");
        }
        let more = [bytes.as_slice(), b"x"].concat();
        assert_eq!(read(&more, 64).expect_err("more").at, bytes.len() as u64);
    }

    #[test]
    fn sections_that_are_left_out_or_change_places_are_missed() {
        let (header, bytes) = (header(2), file(&[2, 1]));
        let first = BackupWriter::begin(&header).expect("encodes").1.len();
        let mut at = first;
        let mut bounds = vec![0, first];
        while at < bytes.len() {
            let length = u32::from_le_bytes(bytes[at + 1..at + 5].try_into().expect("four")) as usize;
            at += SECTION_HEAD + length;
            bounds.push(at);
        }
        let sections: Vec<&[u8]> = bounds.windows(2).map(|bound| &bytes[bound[0]..bound[1]]).collect();
        assert_eq!((sections.concat(), sections.len()), (bytes.clone(), 7));
        for left_out in 0..sections.len() {
            let rest = sections.iter().enumerate().filter(|(at, _)| *at != left_out).map(|(_, part)| *part);
            assert!(read(&rest.collect::<Vec<_>>().concat(), 64).is_err(), "without section {left_out}");
        }
        for first in 1..sections.len() - 1 {
            let mut swapped = sections.clone();
            swapped.swap(first, first + 1);
            assert!(read(&swapped.concat(), 64).is_err(), "section {first} behind the next one");
        }
    }

    proptest! {
        #[test]
        fn any_byte_that_changes_is_noticed(chunks in vec(0..3_u8, 1..3), at in 0..10_000_usize, bit in 0..8_u8) {
            let mut bytes = file(&chunks);
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            prop_assert!(read(&bytes, 50).is_err(), "byte {} bit {}", at, bit);
        }

        #[test]
        fn bytes_that_are_no_backup_are_refused_and_do_no_harm(bytes in vec(any::<u8>(), 0..300), after_magic in any::<bool>()) {
            let bytes = if after_magic { [MAGIC, &bytes].concat() } else { bytes };
            prop_assert!(read(&bytes, 64).is_err());
        }
    }
}
