//! The store on disk, as its users see it: the journal in its segments, the state in sled.

use super::{
    Done, EntryRecord, Error, GroupId, GroupState, Options, StateRead, Storage, Write,
    faults::Faults,
    index::{Index, Place},
    journal::Table,
    pipeline::{Pipeline, Poison, panic_text},
    record::{Block, corrupt_record},
    recover::{self, Recovered},
    runs::{At, Run},
    state::{Nothing, Pin, StateEngine, StateStore},
};
use bytes::{Bytes, BytesMut};
use std::{
    fs::File,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
};

/// Journal and state store in a directory of their own.
///
/// Dropping it writes out what is queued, calls every `done`, and releases the directory.
pub struct SledStorage {
    // Dropped in this order: the state store's writer has something to note in the journal, and the
    // lock is released last.
    state_pipeline: Pipeline<Nothing>,
    journal_pipeline: Pipeline<Index>,
    table: Table,
    state: StateStore,
    faults: Faults,
    _lock: File,
}

impl SledStorage {
    /// Opens the store in `dir`, creating it if it is not there, after checking everything that it
    /// has acknowledged.
    ///
    /// # Errors
    /// [`Error::Unusable`] if the directory cannot be written to, [`Error::InUse`] if another
    /// store has it open, [`Error::Corrupt`] if anything acknowledged is damaged or missing.
    pub fn open(dir: &Path, options: &Options) -> Result<Self, Error> {
        Self::open_with_faults(dir, options, Faults::none())
    }

    /// As [`SledStorage::open`]; the syncs can be held back or made to fail through `faults`.
    pub fn open_with_faults(dir: &Path, options: &Options, faults: Faults) -> Result<Self, Error> {
        let recovered = recover::open(dir, options, faults.clone())?;
        let Recovered { journal, index, table, db, state, files, lock } = recovered;
        let poison = Poison::default();
        let journal_pipeline = Pipeline::start("storage-journal", index, options, poison.clone(), journal)?;
        let journal = journal_pipeline.shared();
        let engine = StateEngine::start(db, state.clone(), files, faults.clone(), journal, poison.clone())?;
        let state_pipeline = Pipeline::start("storage-state", Nothing, options, poison, engine)?;
        Ok(Self { state_pipeline, journal_pipeline, table, state, faults, _lock: lock })
    }

    /// Where the journal's records are, for tests that damage them.
    #[cfg(test)]
    pub(super) fn table(&self) -> &Table {
        &self.table
    }

    /// sled's tree, for tests that damage it.
    #[cfg(test)]
    pub(super) fn state_tree(&self) -> &sled::Tree {
        self.state.tree()
    }
}

impl Drop for SledStorage {
    fn drop(&mut self) {
        self.faults.release();
    }
}

impl Storage for SledStorage {
    fn submit(&self, write: Write, done: Done) {
        match write {
            Write::State(_) => self.state_pipeline.submit(write, done),
            _ => self.journal_pipeline.submit(write, done),
        }
    }

    fn group(&self, group: GroupId) -> GroupState {
        self.journal_pipeline.view(|index| index.state(group))
    }

    fn entries(&self, group: GroupId, range: Range<u64>) -> Result<Vec<EntryRecord>, Error> {
        guarded(|| read_entries(&self.journal_pipeline, &self.table, group, range))
    }

    fn segments_held(&self, group: GroupId) -> usize {
        let oldest = self.journal_pipeline.view(|index| index.oldest_record(group));
        oldest.map_or(0, |seq| self.table.segments_after(seq))
    }

    fn pin(&self, group: GroupId) -> Arc<dyn StateRead> {
        Arc::new(Pinned(self.state.pin(group)))
    }
}

impl StateRead for SledStorage {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        guarded(|| self.state.get(key))
    }

    fn scan(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Bytes)>, Error> {
        guarded(|| self.state.scan(start..end, limit))
    }
}

/// A pin as its users see it.
struct Pinned(Pin);

impl StateRead for Pinned {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        guarded(|| self.0.get(key))
    }

    fn scan(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Bytes)>, Error> {
        guarded(|| self.0.scan(start..end, limit))
    }
}

/// sled can panic when it reads a damaged page.
fn guarded<T>(read: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|panic| {
        Err(Error::Corrupt {
            place: "the database".into(),
            detail: format!("sled panicked: {}", panic_text(panic.as_ref())),
        })
    })
}

/// The entries of `range`, from the records where the index says that they are.
pub(super) fn read_entries(
    journal: &Pipeline<Index>,
    table: &Table,
    group: GroupId,
    range: Range<u64>,
) -> Result<Vec<EntryRecord>, Error> {
    loop {
        let places = journal.view(|index| index.places(group, range.clone()));
        let mut reader = Reader { table, last: None };
        let mut entries = Vec::new();
        match places.iter().try_for_each(|run| reader.run(group, run, &mut entries)) {
            Ok(()) => return Ok(entries),
            Err(error) if are_still_at(journal, group, &places) => return Err(error),
            // Purged between the look into the index and the read, and perhaps written over.
            Err(_) => {}
        }
    }
}

fn are_still_at(journal: &Pipeline<Index>, group: GroupId, places: &[Run<Place>]) -> bool {
    journal.view(|index| places.iter().all(|run| index.places(group, run.first..run.end) == std::slice::from_ref(run)))
}

/// Reads runs of entries; neighbours are often in the same record.
struct Reader<'a> {
    table: &'a Table,
    last: Option<(u64, Bytes)>,
}

impl Reader<'_> {
    fn run(&mut self, group: GroupId, run: &Run<Place>, into: &mut Vec<EntryRecord>) -> Result<(), Error> {
        match &run.place {
            Place::Queued { entries, .. } => {
                into.extend(entries.iter().filter(|e| (run.first..run.end).contains(&e.index)).cloned());
                Ok(())
            }
            Place::Stored(at) if at.parts > 0 => self.parts(group, run.first, *at, into),
            Place::Stored(at) => {
                let record = self.record(at.seq)?;
                let block = Block::read(at.seq, &record, at.offset as usize)?;
                let before = into.len();
                block.entries(run.first..run.end, into)?;
                if block.group != group || (into.len() - before) as u64 != run.end - run.first {
                    return Err(block.corrupt("not the entries that were written there"));
                }
                Ok(())
            }
        }
    }

    fn parts(&mut self, group: GroupId, index: u64, at: At, into: &mut Vec<EntryRecord>) -> Result<(), Error> {
        let mut payload = BytesMut::new();
        let mut entry = (0, 0);
        for seq in at.records() {
            let record = self.record(seq)?;
            let block = Block::read(seq, &record, at.offset as usize)?;
            let (number, total, bytes) = block.part()?;
            if (block.group, block.first, u64::from(number)) != (group, index, seq - at.seq) {
                return Err(block.corrupt("not the part that was written there"));
            }
            payload.extend_from_slice(bytes);
            entry = (block.term, total);
        }
        let (term, total) = entry;
        if payload.len() != total {
            return Err(corrupt_record(
                at.seq,
                format!("group {}, entry {index}: {} of {total} bytes", group.0, payload.len()),
            ));
        }
        into.push(EntryRecord { index, term, payload: payload.freeze() });
        Ok(())
    }

    fn record(&mut self, seq: u64) -> Result<Bytes, Error> {
        if let Some((last, record)) = &self.last
            && *last == seq
        {
            return Ok(record.clone());
        }
        let record = self.table.read(seq)?.ok_or_else(|| corrupt_record(seq, "missing".into()))?;
        let record = Bytes::from(record);
        self.last = Some((seq, record.clone()));
        Ok(record)
    }
}
