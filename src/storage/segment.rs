//! The files of the journal: segments of a fixed size, written once from front to back.
//!
//! ```text
//! <first seq, 20 digits>.segment   head | record | record | … | zeros
//! <number>.spare                   a segment that is no longer needed, to be written over
//! head   magic "QJS1" | first seq u64 | oldest seq u64 | previous hash [16] | body bytes u32 | CRC32C u32 | body: meta values
//! ```
//!
//! The head is a link of the hash chain: it carries the hash of the record before it, and the first
//! record behind it carries the head's. `oldest` is the first sequence number that was still needed
//! when the head was written: what is older may be gone, what is newer must be there.
//!
//! A segment gets its full size, in zeros, before it is used, and is renamed instead of deleted when
//! it is done with: so a sync has data to write and no metadata of the file system.

use super::{
    Error,
    meta::Meta,
    record::{Hash, hash, u32_at, u64_at},
};
use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

const MAGIC: &[u8; 4] = b"QJS1";
const HEAD_BYTES: usize = 44;
const SEGMENT_SUFFIX: &str = ".segment";
const SPARE_SUFFIX: &str = ".spare";
/// The numbers that records have: from 1 on, and no journal gets to the end.
const SEQS: std::ops::Range<u64> = 1..1 << 62;
/// A head larger than this was not written by us: votes and marks of every shard fit many times.
const BODY_BYTES_MAX: usize = 64 << 20;

/// The head of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SegmentHead {
    pub first: u64,
    pub oldest: u64,
    pub previous: Hash,
    pub meta: Meta,
}

impl SegmentHead {
    pub fn encode(&self) -> Vec<u8> {
        let body = self.meta.encode();
        let mut bytes = vec![0; HEAD_BYTES];
        bytes[..4].copy_from_slice(MAGIC);
        bytes[4..12].copy_from_slice(&self.first.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.oldest.to_le_bytes());
        bytes[20..36].copy_from_slice(&self.previous);
        bytes[36..40].copy_from_slice(&(body.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&body);
        let crc = head_crc(&bytes);
        bytes[40..44].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the head of segment `first`: the head, its length, and its hash.
    pub fn read(first: u64, file: &File) -> Result<(Self, u64, Hash), Error> {
        let bad = |detail: String| Error::Corrupt { place: format!("journal segment {first}"), detail };
        let mut bytes = vec![0; HEAD_BYTES];
        file.read_exact_at(&mut bytes, 0).map_err(|e| bad(format!("its head cannot be read: {e}")))?;
        let body = u32_at(&bytes, 36) as usize;
        if &bytes[..4] != MAGIC || body > BODY_BYTES_MAX {
            return Err(bad("its head is malformed".into()));
        }
        bytes.resize(HEAD_BYTES + body, 0);
        file.read_exact_at(&mut bytes[HEAD_BYTES..], HEAD_BYTES as u64)
            .map_err(|e| bad(format!("its head cannot be read: {e}")))?;
        if u32_at(&bytes, 40) != head_crc(&bytes) {
            return Err(bad("the checksum of its head does not match".into()));
        }
        let meta = Meta::decode(&bytes[HEAD_BYTES..]).ok_or_else(|| bad("its meta values are malformed".into()))?;
        let mut previous = Hash::default();
        previous.copy_from_slice(&bytes[20..36]);
        let head = Self { first: u64_at(&bytes, 4), oldest: u64_at(&bytes, 12), previous, meta };
        if head.first != first {
            return Err(bad(format!("it is segment {}", head.first)));
        }
        if !SEQS.contains(&first) {
            return Err(bad("no record has its number".into()));
        }
        Ok((head, bytes.len() as u64, hash(&bytes)))
    }
}

fn head_crc(head: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&head[..40]), &head[HEAD_BYTES..])
}

/// The directory of the segments, and the spares in it.
#[derive(Debug)]
pub(super) struct SegmentDir {
    path: PathBuf,
    spares: Vec<PathBuf>,
    next_spare: u64,
    segment_bytes: u64,
}

/// Spares kept; what is done with past that is deleted.
const SPARES_MAX: usize = 4;

impl SegmentDir {
    /// Opens or creates the directory; gives the first sequence numbers of the segments in it, in
    /// order.
    pub fn open(path: PathBuf, segment_bytes: u64) -> io::Result<(Self, Vec<u64>)> {
        fs::create_dir_all(&path)?;
        let mut dir = Self { path, spares: Vec::new(), next_spare: 0, segment_bytes };
        let mut segments = Vec::new();
        for item in fs::read_dir(&dir.path)? {
            let item = item?;
            let Ok(name) = item.file_name().into_string() else { continue };
            if let Some(first) = name.strip_suffix(SEGMENT_SUFFIX).and_then(|n| n.parse().ok()) {
                segments.push(first);
            } else if let Some(number) = name.strip_suffix(SPARE_SUFFIX).and_then(|n| n.parse::<u64>().ok()) {
                dir.next_spare = dir.next_spare.max(number + 1);
                dir.spares.push(item.path());
            }
        }
        segments.sort_unstable();
        Ok((dir, segments))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    pub fn open_segment(&self, first: u64) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).open(self.segment_path(first))
    }

    /// Makes a segment that begins with `head`, durable together with its name.
    pub fn create(&mut self, head: &SegmentHead) -> io::Result<(File, Vec<u8>)> {
        let path = self.segment_path(head.first);
        match self.spares.pop() {
            Some(spare) => fs::rename(spare, &path)?,
            None => self.allocate(&path)?,
        }
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        let bytes = head.encode();
        file.write_all_at(&bytes, 0)?;
        file.sync_all()?;
        self.sync()?;
        Ok((file, bytes))
    }

    /// Lets a segment go: it becomes a spare.
    pub fn retire(&mut self, first: u64) -> io::Result<()> {
        let path = self.segment_path(first);
        if self.spares.len() >= SPARES_MAX {
            return fs::remove_file(path);
        }
        let spare = self.path.join(format!("{}{SPARE_SUFFIX}", self.next_spare));
        self.next_spare += 1;
        fs::rename(path, &spare)?;
        self.spares.push(spare);
        Ok(())
    }

    pub fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    fn segment_path(&self, first: u64) -> PathBuf {
        self.path.join(format!("{first:020}{SEGMENT_SUFFIX}"))
    }

    fn allocate(&self, path: &Path) -> io::Result<()> {
        let file = File::create(path)?;
        wipe(&file, 0, self.segment_bytes)?;
        file.sync_all()
    }
}

/// Writes zeros from `from` to `to`.
pub(super) fn wipe(file: &File, from: u64, to: u64) -> io::Result<()> {
    const STEP: u64 = 1 << 20;
    let zeros = vec![0; STEP.min(to.saturating_sub(from)) as usize];
    let mut at = from;
    while at < to {
        let length = STEP.min(to - at) as usize;
        file.write_all_at(&zeros[..length], at)?;
        at += length as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::GroupId;
    use bytes::Bytes;

    fn head(first: u64) -> SegmentHead {
        let mut meta = Meta::default();
        meta.set_vote(GroupId(1), Bytes::from_static(b"vote"));
        SegmentHead { first, oldest: 1, previous: [7; 16], meta }
    }

    #[test]
    fn any_flipped_byte_of_a_head_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let (mut segments, found) = SegmentDir::open(dir.path().join("journal"), 64 << 10).unwrap();
        assert!(found.is_empty());
        let (file, bytes) = segments.create(&head(5)).unwrap();
        assert_eq!(SegmentHead::read(5, &file).unwrap(), (head(5), bytes.len() as u64, hash(&bytes)));
        for at in 0..bytes.len() {
            file.write_all_at(&[bytes[at] ^ 8], at as u64).unwrap();
            let noticed = matches!(SegmentHead::read(5, &file), Err(Error::Corrupt { place, .. }) if place == "journal segment 5");
            assert!(noticed, "byte {at}");
            file.write_all_at(&bytes[at..=at], at as u64).unwrap();
        }
    }

    /// A fuzzer wrote such heads, with right checksums: opening the journal panicked.
    #[test]
    fn a_segment_of_records_that_cannot_be_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (mut segments, _) = SegmentDir::open(dir.path().join("journal"), 64 << 10).unwrap();
        for first in [0, 1 << 62, u64::MAX] {
            let (file, _) = segments.create(&head(first)).unwrap();
            assert!(matches!(SegmentHead::read(first, &file), Err(Error::Corrupt { .. })), "{first}");
        }
    }

    #[test]
    fn segments_that_are_done_with_are_used_again_up_to_a_bound() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let (mut segments, _) = SegmentDir::open(path.clone(), 64 << 10).unwrap();
        (1..=7).for_each(|first| drop(segments.create(&head(first)).unwrap()));
        (1..=6).for_each(|first| segments.retire(first).unwrap());
        let (mut segments, found) = SegmentDir::open(path.clone(), 64 << 10).unwrap();
        assert_eq!((found, segments.spares.len()), (vec![7], SPARES_MAX));
        let (file, _) = segments.create(&head(8)).unwrap();
        assert_eq!((file.metadata().unwrap().len(), segments.spares.len()), (64 << 10, SPARES_MAX - 1));
        assert_eq!(fs::read_dir(&path).unwrap().count(), 2 + SPARES_MAX - 1);
    }
}
