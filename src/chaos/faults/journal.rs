//! Damage to a journal, by its bytes as docs/storage-format.md has them.
//!
//! It reads the files on its own, and not with the product's code: whoever looks for mistakes must
//! not make the same ones.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

const SEGMENT_HEAD: u64 = 44;
const RECORD_HEAD: u64 = 40;
const RECORD_MAGIC: &[u8; 4] = b"QJR2";
/// What a torn write leaves of its record: the head, and the beginning of its body.
const TORN_BODY: usize = 100;

/// The newest segment with its records.
struct Newest {
    file: File,
    /// Offset and length of each.
    records: Vec<(u64, u64)>,
    /// Where the next record would be.
    end: u64,
}

/// Leaves half a record behind the last one.
pub fn tear(data: &Path) -> io::Result<()> {
    let newest = newest(data)?;
    let mut torn = vec![0xA5; RECORD_HEAD as usize + TORN_BODY];
    torn[..4].copy_from_slice(RECORD_MAGIC);
    // A body much longer than what is there of it.
    torn[28..32].copy_from_slice(&4096_u32.to_le_bytes());
    newest.file.write_all_at(&torn, newest.end)?;
    newest.file.sync_all()
}

/// Changes a byte in the middle of a record that has others behind it: acknowledged beyond doubt.
pub fn flip(data: &Path) -> io::Result<()> {
    let newest = newest(data)?;
    let (offset, length) = match &newest.records[..] {
        [] => {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the newest segment of the journal has no record yet",
            ));
        }
        [records @ .., _] if !records.is_empty() => records[records.len() / 2],
        [only, ..] => *only,
    };
    let (at, mut byte) = (offset + length / 2, [0]);
    newest.file.read_exact_at(&mut byte, at)?;
    newest.file.write_all_at(&[byte[0] ^ 0x10], at)?;
    newest.file.sync_all()
}

fn newest(data: &Path) -> io::Result<Newest> {
    let mut segments: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(data.join("journal"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "segment") {
            segments.push(path);
        }
    }
    segments.sort();
    let path = segments.pop().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the journal has no segment"))?;
    let file = OpenOptions::new().read(true).write(true).open(&path)?;
    let length = file.metadata()?.len();
    let number = |at: u64| -> io::Result<u64> {
        let mut bytes = [0; 4];
        file.read_exact_at(&mut bytes, at)?;
        Ok(u64::from(u32::from_le_bytes(bytes)))
    };
    let mut at = SEGMENT_HEAD + number(36)?;
    let mut records = Vec::new();
    while at + RECORD_HEAD <= length {
        let mut magic = [0; 4];
        file.read_exact_at(&mut magic, at)?;
        if magic != *RECORD_MAGIC {
            break;
        }
        let record = RECORD_HEAD + number(at + 28)?;
        records.push((at, record));
        at += record;
    }
    // A killed node may have left a cut record itself; a fault behind its claimed end would be
    // outside of the file.
    if at + RECORD_HEAD + TORN_BODY as u64 > length {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the newest segment of the journal is full"));
    }
    Ok(Newest { file, records, end: at })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{EntryRecord, GroupId, Options, SledStorage, Storage, Write};
    use bytes::Bytes;
    use std::sync::mpsc;

    const GROUP: GroupId = GroupId(1);

    fn write(storage: &SledStorage, index: u64) {
        let (done, is_done) = mpsc::channel();
        let entries = vec![EntryRecord { index, term: 1, payload: Bytes::from(vec![index as u8; 200]) }];
        let append = Write::Append { group: GROUP, entries };
        storage.submit(append, Box::new(move |result| done.send(result).expect("somebody waits")));
        is_done.recv().expect("an answer").expect("durable");
    }

    fn written() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        let storage = SledStorage::open(dir.path(), &Options::default()).expect("opened");
        (1..=9).for_each(|index| write(&storage, index));
        dir
    }

    #[test]
    fn a_torn_write_costs_nothing_that_was_acknowledged() {
        let dir = written();
        tear(dir.path()).expect("torn");
        let storage = SledStorage::open(dir.path(), &Options::default()).expect("it opens all the same");
        assert_eq!(storage.group(GROUP).entries, 1..10);
        write(&storage, 10);
    }

    #[test]
    fn a_flipped_byte_is_named_at_the_next_start() {
        let dir = written();
        flip(dir.path()).expect("flipped");
        let refused = SledStorage::open(dir.path(), &Options::default()).err().expect("damaged").to_string();
        assert!(refused.contains("corrupt"), "{refused}");
    }
}
