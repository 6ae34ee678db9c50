//! Opening a store: lock, sled, and the check of everything that was acknowledged.
//!
//! 1. Take the directory's lock and sled's. 2. Sync all files and directories once: from then on
//!    only the database file needs it. 3. Read the meta tree. 4. Walk the journal from the anchor:
//!    every record must be there, chained to the one before, every block intact. 5. The journal
//!    must reach the head note, the meta tree must be the one of the newest record, the groups must
//!    be without holes. 6. The state store must add up to its digest.
//!
//! sled can panic on a damaged file. All this runs on a thread of its own, and a panic there is
//! reported as corruption.

use super::{
    Error, GroupId, Options,
    engine::{Engine, Gate, Trees},
    faults::Faults,
    head::{Head, HeadFile},
    index::{Index, Place},
    ledger::Ledger,
    meta::Meta,
    pipeline::panic_text,
    record::{Block, Header, Kind, RECORD_HEADER, corrupt_record, hash},
    runs::{At, Run},
    state::StateStore,
};
use std::{
    fs::{self, File, TryLockError},
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// sled's directory below the store's.
pub(super) const SLED_DIR: &str = "sled";
/// sled's database file below its directory.
pub(super) const SLED_FILE: &str = "db";
const LOCK_FILE: &str = "lock";
/// sled wants at least four values in a segment; ours are up to 100 KiB, sixteen to a leaf.
const SEGMENT_BYTES: usize = 8 << 20;
/// How long sled may take to let go of a database that this process has closed.
const RELEASE_WAIT: Duration = Duration::from_secs(5);

/// A store that has passed all checks.
pub(super) struct Recovered {
    pub engine: Engine,
    pub index: Index,
    /// Keeps other processes out as long as it is open.
    pub lock: File,
}

/// Opens or creates the store in `dir`.
pub(super) fn open(dir: &Path, options: &Options, faults: Faults) -> Result<Recovered, Error> {
    let (dir, options) = (dir.to_owned(), options.clone());
    let place = dir.display().to_string();
    let opening = std::thread::Builder::new()
        .name("storage-open".into())
        .spawn(move || recover(&dir, &options, faults))
        .map_err(|e| Error::Unusable { path: place.clone(), detail: e.to_string() })?;
    opening.join().unwrap_or_else(|panic| {
        Err(Error::Corrupt { place: format!("the database in {place}"), detail: format!("sled panicked: {}", panic_text(panic.as_ref())) })
    })
}

fn recover(dir: &Path, options: &Options, faults: Faults) -> Result<Recovered, Error> {
    let sled_dir = dir.join(SLED_DIR);
    fs::create_dir_all(&sled_dir).map_err(|e| unusable(dir, &e))?;
    let lock = lock(dir)?;
    let (head, noted) = HeadFile::open(dir)?;
    let trees = open_trees(&sled_dir, options)?;
    let file = File::open(sled_dir.join(SLED_FILE)).map_err(|e| unusable(&sled_dir, &e))?;
    sync_all(dir, &head).map_err(|e| unusable(dir, &e))?;
    let meta = load_meta(&trees)?;
    let Replay { ledger, newest, .. } = Replay::run(&trees, &meta, noted)?;
    if options.verify_state_at_open {
        trees.state.verify(meta.state)?;
    }
    let index = index(&ledger, &meta);
    let engine = Engine { trees, gate: Gate::default(), meta, ledger, newest, file, head, faults };
    Ok(Recovered { engine, index, lock })
}

fn lock(dir: &Path) -> Result<File, Error> {
    let path = dir.join(LOCK_FILE);
    let file = File::options().write(true).create(true).truncate(false).open(&path).map_err(|e| unusable(&path, &e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::InUse { path: dir.display().to_string() }),
        Err(TryLockError::Error(e)) => Err(unusable(&path, &e)),
    }
}

fn open_trees(dir: &Path, options: &Options) -> Result<Trees, Error> {
    let config = sled::Config::new()
        .path(dir)
        .segment_size(SEGMENT_BYTES)
        .cache_capacity(options.cache_bytes_max.as_u64())
        .flush_every_ms(None);
    let db = open_sled(dir, &config)?;
    let tree = |name: &str| db.open_tree(name).map_err(|e| sled_error(dir, e));
    let (journal, meta) = (tree("journal")?, tree("meta")?);
    let state = StateStore { values: tree("state")?, parts: tree("parts")? };
    Ok(Trees { db, journal, meta, state })
}

/// sled releases its lock only when its last deferred destructor has run, a moment after a store
/// of this process was dropped. Our own lock says that nobody else can be holding it for long.
fn open_sled(dir: &Path, config: &sled::Config) -> Result<sled::Db, Error> {
    let deadline = Instant::now() + RELEASE_WAIT;
    loop {
        match config.open() {
            Err(sled::Error::Io(e)) if e.to_string().contains("could not acquire lock") => {
                if Instant::now() > deadline {
                    return Err(Error::InUse { path: dir.display().to_string() });
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            other => return other.map_err(|e| sled_error(dir, e)),
        }
    }
}

/// Makes what was created durable, names included.
fn sync_all(dir: &Path, head: &HeadFile) -> io::Result<()> {
    head.sync()?;
    let sled_dir = dir.join(SLED_DIR);
    for entry in fs::read_dir(&sled_dir)? {
        File::open(entry?.path())?.sync_all()?;
    }
    File::open(&sled_dir)?.sync_all()?;
    File::open(dir)?.sync_all()?;
    let parent: PathBuf = dir.canonicalize()?.parent().map_or_else(|| dir.to_owned(), Path::to_owned);
    match File::open(parent).and_then(|parent| parent.sync_all()) {
        // Somebody else's directory: it was there before, or `create_dir_all` would have failed.
        Err(e) if e.kind() == ErrorKind::PermissionDenied => Ok(()),
        other => other,
    }
}

fn load_meta(trees: &Trees) -> Result<Meta, Error> {
    let mut meta = Meta::default();
    for pair in &trees.meta {
        let (key, value) = pair.map_err(|e| corrupt("the meta tree", e.to_string()))?;
        meta.load(&key, &value)?;
    }
    Ok(meta)
}

/// An entry whose parts are being read.
struct Parts {
    group: GroupId,
    index: u64,
    at: At,
}

/// The walk over the journal.
struct Replay<'a> {
    meta: &'a Meta,
    ledger: Ledger,
    newest: Head,
    parts: Option<Parts>,
}

impl<'a> Replay<'a> {
    fn run(trees: &Trees, meta: &'a Meta, noted: Option<Head>) -> Result<Self, Error> {
        let newest = Head { seq: meta.anchor.seq, hash: meta.anchor.hash };
        let mut replay = Self { meta, ledger: Ledger::new(newest.seq + 1), newest, parts: None };
        let bound = noted.unwrap_or_default();
        let mut meta_digest = 0;
        replay.check_bound(bound)?;
        for pair in &trees.journal {
            let (key, record) = pair.map_err(|e| corrupt("the journal", e.to_string()))?;
            meta_digest = replay.record(&key, &record)?;
            replay.check_bound(bound)?;
        }
        replay.finish(bound, noted.is_some(), meta_digest)?;
        Ok(replay)
    }

    /// The record of the head note must be the one that was noted.
    fn check_bound(&self, bound: Head) -> Result<(), Error> {
        if self.newest.seq == bound.seq && self.newest.hash != bound.hash && bound.seq > 0 {
            return Err(corrupt_record(bound.seq, "its hash is not the one in the head file".into()));
        }
        Ok(())
    }

    fn record(&mut self, key: &[u8], record: &[u8]) -> Result<u64, Error> {
        let seq = self.newest.seq + 1;
        let found = key.try_into().map(u64::from_be_bytes).map_err(|_| corrupt("the journal", format!("unknown key {key:02x?}")))?;
        if found != seq {
            return Err(corrupt_record(seq.min(found), if found > seq { format!("missing; the next one is {found}") } else { "should have been dropped".into() }));
        }
        let header = Header::read(seq, record)?;
        if header.previous != self.newest.hash {
            let place = if seq == self.meta.anchor.seq + 1 { seq } else { seq - 1 };
            return Err(corrupt_record(place, format!("record {seq} is not chained to the record before it")));
        }
        self.ledger.open(seq);
        let mut offset = RECORD_HEADER;
        for _ in 0..header.blocks {
            let block = Block::read(seq, record, offset)?;
            self.block(seq, offset, &block)?;
            offset = block.end();
        }
        if offset != record.len() {
            return Err(corrupt_record(seq, format!("{} bytes after its last block", record.len() - offset)));
        }
        self.newest = Head { seq, hash: hash(record) };
        self.ledger.set_hash(seq, self.newest.hash);
        Ok(header.meta_digest)
    }

    fn block(&mut self, seq: u64, offset: usize, block: &Block<'_>) -> Result<(), Error> {
        match block.kind {
            Kind::Append => {
                block.entries(0..0, &mut Vec::new())?;
                let range = block.indexes()?;
                self.append(block, Run { first: range.start, end: range.end, place: At { seq, offset: offset as u32, parts: 0 } })
            }
            Kind::Part => self.part(seq, offset, block),
            Kind::Truncate => {
                self.ledger.truncate(block.group, block.first);
                Ok(())
            }
            Kind::Purge if self.purged(block.group).is_none_or(|purged| purged < block.first) => {
                Err(block.corrupt("the meta tree does not know of this purge"))
            }
            Kind::Purge | Kind::Vote | Kind::State => Ok(()),
        }
    }

    /// Entries of a record that was dropped are dead, and so are those below the purge mark; what
    /// remains must follow what is there.
    fn append(&mut self, block: &Block<'_>, mut run: Run<At>) -> Result<(), Error> {
        self.ledger.truncate(block.group, run.first);
        run.first = run.first.max(self.purged(block.group).map_or(0, |purged| purged + 1));
        if run.first >= run.end {
            return Ok(());
        }
        let present = self.ledger.runs(block.group).and_then(|runs| runs.range());
        if present.is_some_and(|present| present.end != run.first) {
            return Err(block.corrupt("entries before it are missing"));
        }
        self.ledger.append(block.group, &[run]);
        Ok(())
    }

    fn part(&mut self, seq: u64, offset: usize, block: &Block<'_>) -> Result<(), Error> {
        let (number, ..) = block.part()?;
        if offset != RECORD_HEADER || number >= block.count {
            return Err(block.corrupt("a part out of place"));
        }
        let first_seq = seq - u64::from(number).min(seq);
        let at = At { seq: first_seq, offset: offset as u32, parts: block.count };
        if number == 0 {
            self.parts = Some(Parts { group: block.group, index: block.first, at });
        }
        match &self.parts {
            Some(parts) if (parts.group, parts.index, parts.at) == (block.group, block.first, at) => {}
            // The entry was dead when its first records were dropped.
            None if first_seq <= self.meta.anchor.seq => return Ok(()),
            _ => return Err(block.corrupt("a part without the ones before it")),
        }
        if number + 1 < block.count {
            return Ok(());
        }
        self.parts = None;
        self.append(block, Run { first: block.first, end: block.indexes()?.end, place: at })
    }

    fn finish(&self, bound: Head, is_noted: bool, meta_digest: u64) -> Result<(), Error> {
        if self.newest.seq < bound.seq {
            let detail = format!("missing: record {} is known to be durable, the journal ends at {}", bound.seq, self.newest.seq);
            return Err(corrupt_record(self.newest.seq + 1, detail));
        }
        if self.newest.seq > 0 && !is_noted {
            return Err(corrupt("the head file", "missing, although the journal has records".into()));
        }
        if meta_digest != self.meta.digest() {
            let detail = format!("votes, purge marks and digests are not those of journal record {}", self.newest.seq);
            return Err(corrupt("the meta tree", detail));
        }
        if let Some(parts) = &self.parts {
            return Err(corrupt(&format!("journal, group {}, entry {}", parts.group.0, parts.index), "its last part is missing".into()));
        }
        self.ledger.groups().try_for_each(|(group, runs)| {
            let next = self.purged(group).map(|purged| purged + 1);
            match (next, runs.range()) {
                (Some(next), Some(range)) if range.start != next => {
                    Err(corrupt(&format!("journal, group {}, entries {next}..{}", group.0, range.start), "missing".into()))
                }
                _ => Ok(()),
            }
        })
    }

    fn purged(&self, group: GroupId) -> Option<u64> {
        self.meta.purged.get(&group).map(|(upto, _)| *upto)
    }
}

fn index(ledger: &Ledger, meta: &Meta) -> Index {
    let mut index = Index::default();
    for (group, runs) in ledger.groups() {
        let known = index.group_mut(group);
        runs.iter().for_each(|run| known.runs.push(run.first, run.end, Place::Stored(run.place)));
    }
    meta.votes.iter().for_each(|(group, vote)| index.group_mut(*group).vote = Some(vote.clone()));
    meta.purged.iter().for_each(|(group, purged)| index.group_mut(*group).purged = Some(purged.clone()));
    index
}

/// The checks of steps 3 to 6 on trees that are open, for tests that damage them.
#[cfg(test)]
pub(super) fn check_for_test(dir: &Path, trees: &Trees) -> Result<(), Error> {
    let meta = load_meta(trees)?;
    let (_, noted) = HeadFile::open(dir)?;
    Replay::run(trees, &meta, noted)?;
    trees.state.verify(meta.state)
}

fn sled_error(dir: &Path, error: sled::Error) -> Error {
    let place = format!("the database in {}", dir.display());
    match error {
        sled::Error::Io(e) if !matches!(e.kind(), ErrorKind::UnexpectedEof | ErrorKind::InvalidData) => unusable(dir, &e),
        // The settings are always ours: others mean that sled's file of them is damaged.
        sled::Error::Unsupported(detail) => Error::Corrupt { place: format!("the settings of {place}"), detail },
        other => Error::Corrupt { place, detail: other.to_string() },
    }
}

fn unusable(path: &Path, error: &io::Error) -> Error {
    Error::Unusable { path: path.display().to_string(), detail: error.to_string() }
}

fn corrupt(place: &str, detail: String) -> Error {
    Error::Corrupt { place: place.to_owned(), detail }
}
