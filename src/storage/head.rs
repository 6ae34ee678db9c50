//! The guard against a silently lost tail.
//!
//! When a byte of sled's log is damaged, sled takes what comes before as the whole log: the newest
//! records vanish without an error. So the sequence number and hash of the newest durable record
//! are noted in a small file of their own, and at open the journal must reach at least that far.
//!
//! The note is a lower bound by construction: it is written only after the sync of the database
//! file, and is never synced itself, so it may lag behind but never be ahead. It has two slots,
//! used in turn, in sectors of their own: a torn write damages one of them only.
//!
//! ```text
//! slot (at byte 0 and 4096): seq u64 | hash [16] | CRC32C u32
//! ```

use super::{
    Error,
    record::{Hash, u32_at, u64_at},
};
use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::FileExt,
    path::Path,
};

/// Name of the file in the store's directory.
pub(super) const FILE: &str = "head";
const SLOT_BYTES: usize = 28;
const SLOT_SPACING: u64 = 4096;

/// The newest record known to be durable; `seq` is 0 if there is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub seq: u64,
    pub hash: Hash,
}

/// The open file.
#[derive(Debug)]
pub(super) struct HeadFile {
    file: File,
    next_slot: u64,
}

impl HeadFile {
    /// Opens or creates the file. `None` if it was not there.
    pub fn open(dir: &Path) -> Result<(Self, Option<Head>), Error> {
        let path = dir.join(FILE);
        let unusable = |e: io::Error| Error::Unusable { path: path.display().to_string(), detail: e.to_string() };
        let existed = path.try_exists().map_err(unusable)?;
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(unusable)?;
        if !existed {
            file.set_len(2 * SLOT_SPACING).map_err(unusable)?;
            return Ok((Self { file, next_slot: 0 }, None));
        }
        let slots = [read_slot(&file, 0).map_err(unusable)?, read_slot(&file, 1).map_err(unusable)?];
        let (head, next_slot) = newest(slots)?;
        Ok((Self { file, next_slot }, Some(head)))
    }

    /// Notes the newest durable record, in the slot that holds the older note.
    pub fn write(&mut self, head: Head) -> io::Result<()> {
        let mut slot = [0; SLOT_BYTES];
        slot[..8].copy_from_slice(&head.seq.to_le_bytes());
        slot[8..24].copy_from_slice(&head.hash);
        let crc = crc32c::crc32c(&slot[..24]);
        slot[24..].copy_from_slice(&crc.to_le_bytes());
        self.file.write_all_at(&slot, self.next_slot * SLOT_SPACING)?;
        self.next_slot = 1 - self.next_slot;
        Ok(())
    }

    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}

enum Slot {
    Blank,
    Damaged,
    Note(Head),
}

fn read_slot(file: &File, number: u64) -> io::Result<Slot> {
    let mut slot = [0; SLOT_BYTES];
    match file.read_exact_at(&mut slot, number * SLOT_SPACING) {
        // A power cut can leave the file shorter than it was made: nothing was noted yet.
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(Slot::Blank),
        other => other?,
    }
    if slot == [0; SLOT_BYTES] {
        return Ok(Slot::Blank);
    }
    if u32_at(&slot, 24) != crc32c::crc32c(&slot[..24]) {
        return Ok(Slot::Damaged);
    }
    let mut hash = Hash::default();
    hash.copy_from_slice(&slot[8..24]);
    Ok(Slot::Note(Head { seq: u64_at(&slot, 0), hash }))
}

/// The newer note, and the slot to write next. One damaged slot is a torn write; if no slot can be
/// read although something was written, the bound is lost.
fn newest(slots: [Slot; 2]) -> Result<(Head, u64), Error> {
    match slots {
        [Slot::Note(a), Slot::Note(b)] if a.seq > b.seq => Ok((a, 1)),
        [_, Slot::Note(b)] => Ok((b, 0)),
        [Slot::Note(a), _] => Ok((a, 1)),
        [Slot::Blank, Slot::Blank] => Ok((Head::default(), 0)),
        _ => Err(Error::Corrupt { place: "the head file".into(), detail: "no slot has a valid checksum".into() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_note_survives_the_loss_of_the_other_slot() {
        let dir = tempfile::tempdir().unwrap();
        let (mut file, found) = HeadFile::open(dir.path()).unwrap();
        assert_eq!(found, None);
        let heads = [1u8, 2, 3].map(|n| Head { seq: u64::from(n), hash: [n; 16] });
        for head in heads {
            file.write(head).unwrap();
            assert_eq!(HeadFile::open(dir.path()).unwrap().1, Some(head));
        }
        file.file.write_all_at(b"torn", 4).unwrap();
        assert_eq!(HeadFile::open(dir.path()).unwrap().1, Some(heads[1]));
        file.file.write_all_at(b"torn", SLOT_SPACING).unwrap();
        assert!(matches!(HeadFile::open(dir.path()), Err(Error::Corrupt { .. })));
    }
}
