//! The journal under the fuzzer: see `crate::fuzzing`.
//!
//! | mode | what is in the files | what must hold |
//! |---|---|---|
//! | written | what the journal wrote, then damaged: its segments, or its head file | it is refused, twice in the same words, or all that was acknowledged is there, unaltered, also after more was written |
//! | forged | records and heads with right checksums and a right chain that say anything | it is refused, or it can be read, written to and opened again |
//!
//! The state store stays out of it: sled's files are sled's.

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
use crate::fuzzing::{Input, Scratch};
use bytes::Bytes;
use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::mpsc,
};

/// Small, so that a few writes fill several.
const SEGMENT_BYTES: u64 = 4096;
const GROUPS: u8 = 3;
const WRITES_MAX: u32 = 48;
const KINDS: [Kind; 6] = [Kind::Append, Kind::Part, Kind::Truncate, Kind::Vote, Kind::Purge, Kind::State];

pub fn journal(data: &[u8]) {
    let mut input = Input::new(data);
    let scratch = Scratch::new();
    if input.is_odd() { forged(scratch.path(), &mut input) } else { written(scratch.path(), &mut input) }
}

/// The first bytes to try: writes and then damage, and journals that were forged right.
pub fn seeds() -> Vec<Vec<u8>> {
    let writes: [&[u8]; 6] =
        [&[2, 0, 2, 9, 200], &[15, 1], &[3, 1, 1, 225], &[11, 0, 1], &[10, 1, 1], &[4, 2, 3, 40, 255, 9]];
    let damages: [&[u8]; 6] = [
        &[0, 250, 0],
        &[1, 1, 0, 9, 255, 1],
        &[1, 0, 3, 1, 60, 1, 7],
        &[3, 0, 100, 2, 9, 40],
        &[1, 0, 0],
        &[0, 40, 7, 1, 2, 3],
    ];
    let mut seeds: Vec<Vec<u8>> =
        damages.iter().map(|damage| [&[0][..], &writes.concat()[..], &[1, 0], damage].concat()).collect();
    let append = [0, 1, 1, 2, 1, 3, b'o', b'n', b'e', 3, b't', b'w', b'o', 1];
    let part = [1, 1, 2, 7, 1, 0, 3, 3, b'a', b'l', b'l', 1];
    let mark = |kind: u8| [kind, 1, 0, 3, 0, 4, b'm', b'a', b'r', b'k', 1];
    for blocks in [&append[..], &part, &mark(2), &mark(3), &mark(4), &mark(5)] {
        // One segment from 1 on, without meta values, with two records of one block each, and the head.
        seeds.push([&[1, 1, 0, 1, 1, 0, 2, 1][..], blocks, &[1], blocks, &[1]].concat());
    }
    seeds
}

fn written(dir: &Path, input: &mut Input<'_>) {
    let mut pair = Pair { real: Opened::open(dir).expect("a new journal"), model: MemoryStorage::new() };
    for step in 0..WRITES_MAX {
        match input.below(16) {
            0 => break,
            1 => pair = pair.reopen(dir),
            kind => {
                let group = any_group(input);
                pair.write(any_write(input, kind, group, &pair.model.group(group), step));
            }
        }
    }
    let Pair { real, model } = pair.reopen(dir);
    drop(real);
    damage(dir, input);
    let Some(real) = open_or_refuse(dir) else { return };
    let pair = Pair { real, model };
    pair.compare();
    // Damage that opening did not mind is none: neither to what is written behind it.
    for group in groups() {
        pair.write(next_entry(group, &pair.model.group(group)));
    }
    pair.reopen(dir);
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

    fn compare(&self) {
        for group in groups() {
            assert_eq!(self.real.group(group), self.model.group(group), "group {}", group.0);
            let (real, model) = (self.real.entries(group), self.model.entries(group, 0..u64::MAX));
            assert_eq!(real.expect("it was opened"), model.expect("in memory"), "group {}", group.0);
        }
    }

    fn reopen(self, dir: &Path) -> Self {
        self.compare();
        drop(self.real);
        let pair = Self { real: Opened::open(dir).expect("it was closed in order"), model: self.model };
        pair.compare();
        pair
    }
}

fn groups() -> impl Iterator<Item = GroupId> {
    (0..GROUPS).map(|group| GroupId(group.into()))
}

fn any_group(input: &mut Input<'_>) -> GroupId {
    GroupId(input.below(GROUPS).into())
}

fn next_entry(group: GroupId, state: &GroupState) -> Write {
    let next = EntryRecord { index: state.entries.end, term: 9, payload: Bytes::from_static(b"afterwards") };
    Write::Append { group, entries: vec![next] }
}

/// Mostly sensible writes; some that are refused.
fn any_write(input: &mut Input<'_>, kind: u8, group: GroupId, state: &GroupState, step: u32) -> Write {
    let mark = Bytes::from(format!("mark {step}"));
    let (first, end) = (state.entries.start, state.entries.end);
    let near = |input: &mut Input<'_>| first.saturating_sub(1).saturating_add(input.number() % (end - first + 3));
    match kind {
        2..=8 => any_append(input, group, end, step),
        9 => {
            let first = near(input);
            any_append(input, group, first, step)
        }
        10 => Write::Truncate { group, from: near(input) },
        11 | 12 => Write::Purge { group, upto: near(input), mark },
        13 => Write::Purge { group, upto: input.number(), mark },
        14 => {
            let first = input.number();
            any_append(input, group, first, step)
        }
        _ => Write::Vote { group, vote: mark },
    }
}

fn any_append(input: &mut Input<'_>, group: GroupId, first: u64, step: u32) -> Write {
    let count = u64::from(input.below(4));
    let entry = |at: u64| {
        // Usually small; now and then as large as a segment, or larger than a record.
        let bytes = match input.byte() {
            short @ 0..=219 => usize::from(short),
            long @ 220..=249 => usize::from(long - 219) * 150,
            huge => RECORD_BYTES_MAX - 80 + usize::from(huge - 250) * 40_000,
        };
        let payload = Bytes::from(vec![step as u8; bytes]);
        EntryRecord { index: first.saturating_add(at), term: u64::from(step) / 3, payload }
    };
    Write::Append { group, entries: (0..count).map(entry).collect() }
}

/// Alters the segments, or the head file; never both, for one tells of the other.
fn damage(dir: &Path, input: &mut Input<'_>) {
    if input.below(4) == 0 {
        return alter(&dir.join(head::FILE), input);
    }
    for _ in 0..input.below(4) {
        let files = fs::read_dir(dir.join(JOURNAL_DIR)).expect("the segments");
        let mut files: Vec<PathBuf> = files.map(|file| file.expect("a file").path()).collect();
        files.sort();
        match files.get(usize::from(input.byte()) % files.len().max(1)) {
            Some(file) if input.below(16) == 0 => fs::remove_file(file).expect("a file of ours"),
            Some(file) => alter(file, input),
            None => {}
        }
    }
}

fn alter(path: &Path, input: &mut Input<'_>) {
    let file = File::options().read(true).write(true).open(path).expect("a file of ours");
    let length = file.metadata().expect("its length").len().max(1);
    let at = input.number() % length;
    let altered = match input.below(8) {
        0 => file.set_len(at),
        1 => file.write_all_at(&vec![0; usize::from(input.byte()) * 16], at),
        // What is in one place is written to another: a misdirected write.
        2 => {
            let mut bytes = vec![0; usize::from(input.byte()) * 8];
            let read = file.read_at(&mut bytes, input.number() % length).expect("a file of ours");
            file.write_all_at(&bytes[..read], at)
        }
        few => file.write_all_at(input.bytes(few.into()), at),
    };
    altered.expect("a file of ours");
}

/// Everything that someone can write who knows the format.
fn forged(dir: &Path, input: &mut Input<'_>) {
    let mut head = HeadFile::open(dir).expect("a new head file").0;
    let journal = dir.join(JOURNAL_DIR);
    fs::create_dir_all(&journal).expect("a directory of ours");
    let (mut chain, mut newest) = (Hash::default(), Head::default());
    let mut next = number_or(input, 1);
    for _ in 0..1 + input.below(3) {
        let first = number_or(input, next);
        let segment = SegmentHead { first, oldest: number_or(input, 1), previous: chain, meta: any_meta(input) };
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
    let Some(opened) = open_or_refuse(dir) else { return };
    let entries = |opened: &Opened| groups().map(|group| opened.entries(group).ok()).collect::<Vec<_>>();
    let before = entries(&opened);
    for group in groups() {
        let state = opened.group(group);
        let count = state.entries.end - state.entries.start;
        let found = before[usize::from(group.0)].as_ref().map_or(count, |entries| entries.len() as u64);
        assert_eq!(found, count, "group {}", group.0);
    }
    drop(opened);
    let opened = Opened::open(dir).expect("opened before, and closed in order");
    assert_eq!(entries(&opened), before);
    for group in groups() {
        match opened.write(next_entry(group, &opened.group(group))) {
            Ok(()) | Err(Error::Refused { .. }) => {}
            Err(other) => panic!("group {}: {other}", group.0),
        }
    }
    drop(opened);
    assert!(Opened::open(dir).is_ok(), "opened before, and closed in order");
}

/// `usual`, or now and then any number.
fn number_or(input: &mut Input<'_>, usual: u64) -> u64 {
    if input.below(8) > 0 { usual } else { input.number() }
}

fn any_meta(input: &mut Input<'_>) -> Meta {
    let mut meta = Meta::default();
    for _ in 0..input.below(3) {
        let group = any_group(input);
        meta.set_vote(group, Bytes::copy_from_slice(input.piece()));
        meta.set_purged(group, input.number(), Bytes::from_static(b"mark"));
    }
    meta
}

fn any_record(input: &mut Input<'_>, seq: u64, previous: Hash) -> Vec<u8> {
    let mut record = vec![0; RECORD_HEADER];
    let blocks = u32::from(input.below(4));
    for _ in 0..blocks {
        let start = record.len();
        record.resize(start + BLOCK_HEADER, 0);
        let kind = KINDS[usize::from(input.below(KINDS.len() as u8))];
        let (group, term, first, count) = (any_group(input), input.number(), input.number(), input.number() as u32);
        match kind {
            Kind::Append if input.below(4) > 0 => {
                for _ in 0..count.min(64) {
                    let entry = input.piece();
                    record.extend_from_slice(&(entry.len() as u32).to_le_bytes());
                    record.extend_from_slice(entry);
                }
            }
            Kind::Part => {
                let (number, total) = (input.number() as u32, input.number() as u32);
                record.extend([number, total].map(u32::to_le_bytes).concat());
                record.extend_from_slice(input.piece());
            }
            _ => record.extend_from_slice(input.piece()),
        }
        write_block_header(&mut record[start..], group, kind, term, first, count);
    }
    let body = (record.len() - RECORD_HEADER) as u32;
    let blocks = number_or(input, blocks.into()) as u32;
    Header { seq, previous, body, blocks }.write(&mut record);
    record
}

/// What is refused is refused again in the same words: nobody repairs, and so hides, damage.
fn open_or_refuse(dir: &Path) -> Option<Opened> {
    let error = match Opened::open(dir) {
        Ok(opened) => return Some(opened),
        Err(error) => error,
    };
    assert!(matches!(&error, Error::Corrupt { place, .. } if !place.is_empty()), "{error}");
    let again = Opened::open(dir).err().map(|error| error.to_string());
    assert_eq!(again, Some(error.to_string()));
    None
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
