//! The store on sled, as its users see it.

use super::{
    Done, EntryRecord, Error, GroupId, GroupState, Options, Storage, Write,
    engine::{Gate, Trees, journal_key},
    faults::Faults,
    index::{Index, Place},
    pipeline::{Pipeline, panic_text},
    record::{Block, Header, corrupt_record},
    recover,
    runs::{At, Run},
};
use bytes::{Bytes, BytesMut};
use sled::IVec;
use std::{
    fs::File,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

/// Journal and state store in a directory of their own.
///
/// Dropping it writes out what is queued, calls every `done`, and releases the directory.
pub struct SledStorage {
    // Dropped first: the writer thread ends before the lock is released.
    pipeline: Pipeline<Index>,
    trees: Trees,
    gate: Gate,
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
        let (trees, gate) = (recovered.engine.trees.clone(), recovered.engine.gate.clone());
        let pipeline = Pipeline::start(recovered.index, options, recovered.engine)?;
        Ok(Self { pipeline, trees, gate, faults, _lock: recovered.lock })
    }

    /// sled's trees, for tests that damage them.
    #[cfg(test)]
    pub(super) fn trees(&self) -> &Trees {
        &self.trees
    }

    fn read(&self, group: GroupId, range: Range<u64>) -> Result<Vec<EntryRecord>, Error> {
        loop {
            let places = self.pipeline.view(|index| index.places(group, range.clone()));
            let mut reader = Reader { trees: &self.trees, last: None };
            let mut entries = Vec::new();
            match places.iter().try_for_each(|run| reader.run(group, run, &mut entries)) {
                Err(Miss::Gone(seq)) if self.is_still_at(group, &places, seq) => {
                    return Err(corrupt_record(seq, "missing".into()));
                }
                // It was purged between the look into the index and the read: look again.
                Err(Miss::Gone(_)) => {}
                Err(Miss::Failed(error)) => return Err(error),
                Ok(()) => return Ok(entries),
            }
        }
    }

    fn is_still_at(&self, group: GroupId, places: &[Run<Place>], seq: u64) -> bool {
        let uses = |run: &Run<Place>| matches!(run.place, Place::Stored(at) if at.records().contains(&seq));
        places
            .iter()
            .filter(|run| uses(run))
            .any(|run| self.pipeline.view(|index| index.places(group, run.first..run.end)).iter().any(uses))
    }
}

impl Drop for SledStorage {
    fn drop(&mut self) {
        self.faults.release();
    }
}

impl Storage for SledStorage {
    fn submit(&self, write: Write, done: Done) {
        self.pipeline.submit(write, done);
    }

    fn group(&self, group: GroupId) -> GroupState {
        self.pipeline.view(|index| index.state(group))
    }

    fn entries(&self, group: GroupId, range: Range<u64>) -> Result<Vec<EntryRecord>, Error> {
        guarded(|| self.read(group, range))
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        let _stable = self.gate.read();
        guarded(|| self.trees.state.get(key))
    }

    fn scan(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Bytes)>, Error> {
        let _stable = self.gate.read();
        guarded(|| self.trees.state.scan(start..end, limit))
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

/// Why a read did not succeed.
enum Miss {
    /// The record is not there (any more).
    Gone(u64),
    Failed(Error),
}

impl From<Error> for Miss {
    fn from(error: Error) -> Self {
        Miss::Failed(error)
    }
}

/// Reads runs of entries; neighbours are often in the same record.
struct Reader<'a> {
    trees: &'a Trees,
    last: Option<(u64, IVec)>,
}

impl Reader<'_> {
    fn run(&mut self, group: GroupId, run: &Run<Place>, into: &mut Vec<EntryRecord>) -> Result<(), Miss> {
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
                    return Err(block.corrupt("not the entries that were written there").into());
                }
                Ok(())
            }
        }
    }

    fn parts(&mut self, group: GroupId, index: u64, at: At, into: &mut Vec<EntryRecord>) -> Result<(), Miss> {
        let mut payload = BytesMut::new();
        let mut entry = (0, 0);
        for seq in at.records() {
            let record = self.record(seq)?;
            let block = Block::read(seq, &record, at.offset as usize)?;
            let (number, total, bytes) = block.part()?;
            if (block.group, block.first, u64::from(number)) != (group, index, seq - at.seq) {
                return Err(block.corrupt("not the part that was written there").into());
            }
            payload.extend_from_slice(bytes);
            entry = (block.term, total);
        }
        let (term, total) = entry;
        if payload.len() != total {
            return Err(corrupt_record(
                at.seq,
                format!("group {}, entry {index}: {} of {total} bytes", group.0, payload.len()),
            )
            .into());
        }
        into.push(EntryRecord { index, term, payload: payload.freeze() });
        Ok(())
    }

    fn record(&mut self, seq: u64) -> Result<IVec, Miss> {
        if let Some((last, record)) = &self.last
            && *last == seq
        {
            return Ok(record.clone());
        }
        let record = self.trees.store.get(journal_key(seq)).map_err(|e| corrupt_record(seq, e.to_string()))?;
        let record = record.ok_or(Miss::Gone(seq))?;
        Header::read(seq, &record)?;
        self.last = Some((seq, record.clone()));
        Ok(record)
    }
}
