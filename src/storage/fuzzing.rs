//! The journal under the fuzzer: see `crate::fuzzing`.
//!
//! | mode | what is in the files | what must hold |
//! |---|---|---|
//! | written | what the journal wrote, in random writes; then damage to the segments, or to the head | it is refused as corrupt, or what was acknowledged is there, unaltered |
//! | forged | records and heads with right checksums and a right chain that say anything | no panic; what can be opened can be written to and opened again |
//! | raw | anything | no panic |

use super::{
    EntryRecord, Error, GroupId, GroupState, MemoryStorage, Options, Storage, Write,
    conformance::write,
    disk::read_entries,
    faults::Faults,
    head::{self, Head, HeadFile},
    index::Index,
    journal::Table,
    meta::Meta,
    pipeline::{Pipeline, Poison},
    record::{BLOCK_HEADER, Hash, Header, Kind, RECORD_BYTES_MAX, RECORD_HEADER, hash, write_block_header},
    recover::{self, JOURNAL_DIR},
    segment::{SegmentDir, SegmentHead},
};
use crate::fuzzing::Input;
use bytes::Bytes;
use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
};

/// Small, so that a few writes fill several.
const SEGMENT_BYTES: u64 = 4096;
const GROUPS: u16 = 3;
const WRITES_MAX: u32 = 48;
const KINDS: [Kind; 6] = [Kind::Append, Kind::Part, Kind::Truncate, Kind::Vote, Kind::Purge, Kind::State];

pub fn journal(data: &[u8]) {
    let mut input = Input::new(data);
    let scratch = Scratch::new();
    match input.below(4) {
        0 | 1 => written(&scratch.0, &mut input),
        2 => forged(&scratch.0, &mut input),
        _ => raw(&scratch.0, input),
    }
}

fn written(dir: &Path, input: &mut Input<'_>) {
    let mut pair = Pair { real: Opened::open(dir).expect("a new journal"), model: MemoryStorage::new() };
    for step in 0..WRITES_MAX {
        if input.is_empty() {
            break;
        }
        match input.below(16) {
            0 => {
                drop(pair.real);
                pair.real = Opened::open(dir).expect("it was closed in order");
                pair.compare().expect("nothing is damaged");
            }
            1 => break,
            kind => {
                let group = GroupId(input.below(GROUPS as u8).into());
                let what = any_write(input, kind, group, &pair.model.group(group), step);
                pair.write(what);
            }
        }
    }
    pair.compare().expect("nothing is damaged");
    let Pair { real, model } = pair;
    drop(real);
    damage(dir, input);
    match Opened::open(dir) {
        Err(Error::Corrupt { .. }) => {}
        Err(other) => panic!("expected intact or corrupt, got: {other}"),
        Ok(real) => goes_on(dir, Pair { real, model }),
    }
}

/// Damage that opening did not mind is none: all is there, now and after more was written over it.
fn goes_on(dir: &Path, mut pair: Pair) {
    if pair.compare().is_err() {
        return;
    }
    for group in (0..GROUPS).map(GroupId) {
        let next = pair.model.group(group).entries.end;
        let entries = vec![EntryRecord { index: next, term: 9, payload: Bytes::from_static(b"afterwards") }];
        pair.write(Write::Append { group, entries });
    }
    drop(pair.real);
    pair.real = Opened::open(dir).expect("opened before, and closed in order");
    pair.compare().expect("opened and read before");
}

/// The journal, and what it should hold.
struct Pair {
    real: Opened,
    model: MemoryStorage,
}

impl Pair {
    fn write(&self, what: Write) {
        let (real, model) = (self.real.write(what.clone()), write(&self.model, what));
        assert_eq!(format!("{real:?}"), format!("{model:?}"));
    }

    /// The error with which the journal refuses to be read, if it does.
    fn compare(&self) -> Result<(), Error> {
        for group in (0..GROUPS).map(GroupId) {
            assert_eq!(self.real.group(group), self.model.group(group), "group {}", group.0);
            let expected = self.model.entries(group, 0..u64::MAX).expect("in memory");
            match self.real.entries(group) {
                Ok(found) => assert_eq!(found, expected, "group {}", group.0),
                Err(error @ Error::Corrupt { .. }) => return Err(error),
                Err(other) => panic!("expected intact or corrupt, got: {other}"),
            }
        }
        Ok(())
    }
}

fn any_write(input: &mut Input<'_>, kind: u8, group: GroupId, state: &GroupState, step: u32) -> Write {
    let (first, end) = (state.entries.start, state.entries.end);
    let near = |input: &mut Input<'_>| first.saturating_sub(1) + u64::from(input.byte()) % (end - first + 3);
    let mark = || Bytes::from(format!("mark {step}"));
    match kind {
        2..=7 => any_append(input, group, end, step),
        8 => {
            let first = near(input);
            any_append(input, group, first, step)
        }
        9 => Write::Truncate { group, from: near(input) },
        10 | 11 => Write::Purge { group, upto: near(input), mark: mark() },
        12 => Write::Vote { group, vote: mark() },
        13 => Write::Purge { group, upto: input.number(), mark: mark() },
        14 => Write::Truncate { group, from: input.number() },
        _ => {
            let first = input.number();
            any_append(input, group, first, step)
        }
    }
}

fn any_append(input: &mut Input<'_>, group: GroupId, first: u64, step: u32) -> Write {
    let count = u64::from(input.below(4));
    let entry = |at: u64| EntryRecord {
        index: first.saturating_add(at),
        term: u64::from(step) / 3,
        payload: any_payload(input, step),
    };
    Write::Append { group, entries: (0..count).map(entry).collect() }
}

/// Usually small; now and then as large as a segment, or larger than a record.
fn any_payload(input: &mut Input<'_>, step: u32) -> Bytes {
    let length = match input.byte() {
        short @ 0..=219 => usize::from(short),
        long @ 220..=249 => usize::from(long - 219) * 150,
        huge => RECORD_BYTES_MAX - 80 + usize::from(huge - 250) * 40_000,
    };
    Bytes::from(vec![step as u8; length])
}

/// Alters the segments, or the head; one damage may hide another, so never both.
fn damage(dir: &Path, input: &mut Input<'_>) {
    if input.below(4) == 0 {
        let head = File::options().write(true).open(dir.join(head::FILE)).expect("the head file");
        let length = head.metadata().expect("its length").len();
        return alter(&head, length, input);
    }
    for _ in 0..input.below(4) {
        let mut files: Vec<PathBuf> =
            fs::read_dir(dir.join(JOURNAL_DIR)).expect("the segments").map(|f| f.expect("a file").path()).collect();
        files.sort();
        let Some(path) = files.get(usize::from(input.byte()) % files.len().max(1)) else { return };
        if input.below(16) == 0 {
            fs::remove_file(path).expect("a file of ours");
            continue;
        }
        let file = File::options().write(true).read(true).open(path).expect("a file of ours");
        let length = file.metadata().expect("its length").len();
        alter(&file, length, input);
    }
}

fn alter(file: &File, length: u64, input: &mut Input<'_>) {
    let at = input.number() % length.max(1);
    match input.below(8) {
        0 => file.set_len(at).expect("a file of ours"),
        1 => {
            let zeros = vec![0; usize::from(input.byte()) * 16];
            file.write_all_at(&zeros, at).expect("a file of ours");
        }
        // What was there is written to another place: a lost or a misdirected write.
        2 => {
            let mut bytes = vec![0; usize::from(input.byte()) * 8];
            let from = input.number() % length.max(1);
            let read = file.read_at(&mut bytes, from).unwrap_or(0);
            file.write_all_at(&bytes[..read], at).expect("a file of ours");
        }
        _ => file.write_all_at(input.bytes(usize::from(1 + at as u8 % 4)), at).expect("a file of ours"),
    }
}

/// Everything a forger could write who knows the format and the checksums.
fn forged(dir: &Path, input: &mut Input<'_>) {
    let mut head = HeadFile::open(dir).expect("a new head file").0;
    let journal = dir.join(JOURNAL_DIR);
    fs::create_dir_all(&journal).expect("a directory of ours");
    let mut chain = Hash::default();
    let mut next = if input.below(4) > 0 { 1 } else { input.number() };
    let mut newest = Head::default();
    for _ in 0..1 + input.below(3) {
        let oldest = if input.below(4) > 0 { 1 } else { input.number() };
        let first = if input.below(8) > 0 { next } else { input.number() };
        let segment = SegmentHead { first, oldest, previous: chain, meta: any_meta(input) };
        let mut bytes = segment.encode();
        chain = hash(&bytes);
        next = first;
        for _ in 0..input.below(8) {
            let record = any_record(input, next, chain);
            chain = hash(&record);
            newest = Head { seq: next, hash: chain };
            next = next.wrapping_add(1);
            bytes.extend_from_slice(&record);
        }
        fs::write(journal.join(format!("{first:020}.segment")), bytes).expect("a directory of ours");
    }
    if input.below(4) > 0 {
        head.write(newest).expect("a file of ours");
    }
    drop(head);
    look_and_write(dir);
}

fn any_meta(input: &mut Input<'_>) -> Meta {
    let mut meta = Meta::default();
    for _ in 0..input.below(3) {
        let group = GroupId(input.below(GROUPS as u8).into());
        meta.set_vote(group, Bytes::copy_from_slice(input.piece()));
        meta.set_purged(group, input.number(), Bytes::from_static(b"mark"));
    }
    meta.set_state_epoch(u64::from(input.byte()));
    meta
}

fn any_record(input: &mut Input<'_>, seq: u64, previous: Hash) -> Vec<u8> {
    let mut record = vec![0; RECORD_HEADER];
    let blocks = u32::from(input.below(4));
    for _ in 0..blocks {
        let start = record.len();
        record.resize(start + BLOCK_HEADER, 0);
        let kind = KINDS[usize::from(input.below(KINDS.len() as u8))];
        let group = GroupId(input.below(GROUPS as u8).into());
        let (term, first, count) = (input.number(), input.number(), any_count(input));
        match kind {
            Kind::Append if input.below(4) > 0 => {
                for _ in 0..count.min(64) {
                    let entry = input.piece();
                    record.extend_from_slice(&(entry.len() as u32).to_le_bytes());
                    record.extend_from_slice(entry);
                }
            }
            Kind::Part if input.below(4) > 0 => {
                record.extend_from_slice(&any_count(input).to_le_bytes());
                record.extend_from_slice(&any_count(input).to_le_bytes());
                record.extend_from_slice(input.piece());
            }
            _ => record.extend_from_slice(input.piece()),
        }
        write_block_header(&mut record[start..], group, kind, term, first, count);
    }
    let body = (record.len() - RECORD_HEADER) as u32;
    let blocks = if input.below(16) > 0 { blocks } else { any_count(input) };
    Header { seq, previous, body, blocks }.write(&mut record);
    record
}

fn any_count(input: &mut Input<'_>) -> u32 {
    input.number() as u32
}

fn raw(dir: &Path, mut input: Input<'_>) {
    let journal = dir.join(JOURNAL_DIR);
    fs::create_dir_all(&journal).expect("a directory of ours");
    if input.is_odd() {
        fs::write(dir.join(head::FILE), input.piece()).expect("a directory of ours");
    }
    let first = input.number();
    fs::write(journal.join(format!("{first:020}.segment")), input.rest()).expect("a directory of ours");
    look_and_write(dir);
}

/// If the journal opens, everything in it is read, written to, and it opens again.
fn look_and_write(dir: &Path) {
    let Ok(opened) = Opened::open(dir) else { return };
    for group in (0..GROUPS).map(GroupId) {
        let (state, entries) = (opened.group(group), opened.entries(group));
        let expected = state.entries.end - state.entries.start;
        assert!(entries.map_or(true, |entries| entries.len() as u64 == expected), "group {}: {state:?}", group.0);
        let entries = vec![EntryRecord { index: state.entries.end, term: 1, payload: Bytes::from_static(b"new") }];
        match opened.write(Write::Append { group, entries }) {
            Ok(()) | Err(Error::Refused { .. }) => {}
            Err(other) => panic!("group {}: {other}", group.0),
        }
    }
    drop(opened);
    let again = Opened::open(dir);
    assert!(again.is_ok(), "opened before, and closed in order: {:?}", again.err());
}

/// A journal without a state store beside it.
struct Opened {
    pipeline: Pipeline<Index>,
    table: Table,
}

impl Opened {
    fn open(dir: &Path) -> Result<Self, Error> {
        let (head, noted) = HeadFile::open(dir)?;
        let (segments, found) = SegmentDir::open(dir.join(JOURNAL_DIR), SEGMENT_BYTES).expect("a directory of ours");
        let (engine, index, table) = recover::replay(segments, &found, head, noted, Faults::none())?;
        let pipeline = Pipeline::start("storage-fuzz", index, &Options::default(), Poison::default(), engine)?;
        Ok(Self { pipeline, table })
    }

    fn write(&self, what: Write) -> Result<(), Error> {
        let (done, result) = mpsc::channel();
        self.pipeline.submit(what, Box::new(move |outcome| drop(done.send(outcome))));
        result.recv().expect("every write is answered")
    }

    fn group(&self, group: GroupId) -> GroupState {
        self.pipeline.view(|index| index.state(group))
    }

    fn entries(&self, group: GroupId) -> Result<Vec<EntryRecord>, Error> {
        read_entries(&self.pipeline, &self.table, group, 0..u64::MAX)
    }
}

/// A directory of its own, gone afterwards. On a disk in memory (`TMPDIR`) a sync costs nothing.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("quorate-fuzz-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).expect("a temporary directory");
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left behind is in a directory for temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}
