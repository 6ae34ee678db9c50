//! Opening a store: lock, sled, and the check of everything that was acknowledged.
//!
//! 1. Take the directory's lock and sled's. 2. Sync all files and directories once: from then on
//!    only segments and the database file need it. 3. Walk the journal: every record must be there,
//!    chained to the one before, every block intact; it must reach the head note, and the groups must
//!    be without holes. 4. Every block of the state store must be there and intact, and it must have
//!    reached the epoch that the journal has noted.
//!
//! sled can panic on a damaged file. All this runs on a thread of its own, and a panic there is
//! reported as corruption.

use super::{
    Error, Options,
    engine::Engine,
    faults::Faults,
    head::{Head, HeadFile},
    index::{Index, Place},
    journal::{Journal, Table},
    ledger::Ledger,
    meta::Meta,
    pipeline::panic_text,
    replay::{Replay, corrupt},
    segment::SegmentDir,
    state::StateStore,
};
use std::{
    fs::{self, File, TryLockError},
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Directory of the journal's segments below the store's.
pub(super) const JOURNAL_DIR: &str = "journal";
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
    pub journal: Engine,
    pub index: Index,
    pub table: Table,
    pub db: sled::Db,
    pub state: StateStore,
    /// sled's database file, opened twice.
    pub files: [File; 2],
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
        Err(Error::Corrupt {
            place: format!("the database in {place}"),
            detail: format!("sled panicked: {}", panic_text(panic.as_ref())),
        })
    })
}

fn recover(dir: &Path, options: &Options, faults: Faults) -> Result<Recovered, Error> {
    let sled_dir = dir.join(SLED_DIR);
    fs::create_dir_all(&sled_dir).map_err(|e| unusable(dir, &e))?;
    let lock = lock(dir)?;
    let (head, noted) = HeadFile::open(dir)?;
    let journal_dir = dir.join(JOURNAL_DIR);
    let (segments, found) = SegmentDir::open(journal_dir.clone(), options.segment_bytes.as_u64())
        .map_err(|e| unusable(&journal_dir, &e))?;
    let (db, state) = open_sled_store(&sled_dir, options)?;
    let open_file = || File::open(sled_dir.join(SLED_FILE)).map_err(|e| unusable(&sled_dir, &e));
    let files = [open_file()?, open_file()?];
    sync_all(dir, &head).map_err(|e| unusable(dir, &e))?;
    let (journal, index, table) = replay(segments, &found, head, noted, faults)?;
    check_epoch(&state, &journal.meta)?;
    Ok(Recovered { journal, index, table, db, state, files, lock })
}

/// The journal in `segments`, checked as a whole: its writer, and what its readers need.
pub(super) fn replay(
    mut segments: SegmentDir,
    found: &[u64],
    head: HeadFile,
    noted: Option<Head>,
    faults: Faults,
) -> Result<(Engine, Index, Table), Error> {
    let (Replay { meta, ledger, table, .. }, end) = Replay::run(&mut segments, found, noted)?;
    let index = index(&ledger, &meta);
    let journal = Engine { journal: Journal::new(segments, table.clone(), end), meta, ledger, head, faults };
    Ok((journal, index, table))
}

/// The state store may be ahead of what the journal has noted, but never behind.
fn check_epoch(state: &StateStore, meta: &Meta) -> Result<(), Error> {
    let (found, noted) = (state.epoch(), meta.state_epoch);
    if found < noted {
        return Err(corrupt("the state store", format!("it is at epoch {found}; epoch {noted} was durable")));
    }
    Ok(())
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

fn open_sled_store(dir: &Path, options: &Options) -> Result<(sled::Db, StateStore), Error> {
    let config = sled::Config::new()
        .path(dir)
        .segment_size(SEGMENT_BYTES)
        .cache_capacity(options.cache_bytes_max.as_u64())
        .flush_every_ms(None);
    let db = open_sled(dir, &config)?;
    let state = StateStore::open(db.open_tree("state").map_err(|e| sled_error(dir, e))?)?;
    Ok((db, state))
}

/// sled releases its lock only when its last deferred destructor has run, a moment after a store
/// of this process was dropped. Our own lock says that nobody else can be holding it for long.
pub(super) fn open_sled(dir: &Path, config: &sled::Config) -> Result<sled::Db, Error> {
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
    for below in [SLED_DIR, JOURNAL_DIR] {
        let below = dir.join(below);
        for entry in fs::read_dir(&below)? {
            File::open(entry?.path())?.sync_all()?;
        }
        File::open(&below)?.sync_all()?;
    }
    File::open(dir)?.sync_all()?;
    let parent: PathBuf = dir.canonicalize()?.parent().map_or_else(|| dir.to_owned(), Path::to_owned);
    match File::open(parent).and_then(|parent| parent.sync_all()) {
        // Somebody else's directory: it was there before, or `create_dir_all` would have failed.
        Err(e) if e.kind() == ErrorKind::PermissionDenied => Ok(()),
        other => other,
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

fn sled_error(dir: &Path, error: sled::Error) -> Error {
    let place = format!("the database in {}", dir.display());
    match error {
        sled::Error::Io(e) if !matches!(e.kind(), ErrorKind::UnexpectedEof | ErrorKind::InvalidData) => {
            unusable(dir, &e)
        }
        // The settings are always ours: others mean that sled's file of them is damaged.
        sled::Error::Unsupported(detail) => Error::Corrupt { place: format!("the settings of {place}"), detail },
        other => Error::Corrupt { place, detail: other.to_string() },
    }
}

fn unusable(path: &Path, error: &io::Error) -> Error {
    Error::Unusable { path: path.display().to_string(), detail: error.to_string() }
}
