//! Writes to the state store on a thread of its own, so that a checkpoint never holds up the
//! journal: one flush and one fdatasync per group of writes.
//!
//! sled's own flush on Linux is `sync_file_range`, which is no fsync: without the fdatasync a power
//! cut loses acknowledged data. See docs/decisions/0001-sled-journal.md.

use super::{
    StateStore,
    compactor::{Compactor, Work},
};
use crate::storage::{
    Error, GroupId,
    admission::Bounds,
    engine::failed,
    faults::Faults,
    index::Index,
    pipeline::{Backend, Job, Poison, Shared, View},
};
use std::{fs::File, sync::Arc};

/// Everything the state store's writer thread owns.
pub(in crate::storage) struct StateEngine {
    db: sled::Db,
    store: StateStore,
    /// sled's database file, for the sync that sled leaves out.
    file: File,
    faults: Faults,
    /// Where it is noted that a write is durable.
    journal: Arc<Shared<Index>>,
    compactor: Compactor,
}

/// Nobody looks at state that is still queued.
pub(in crate::storage) struct Nothing;

impl View for Nothing {
    fn bounds(&self, _: GroupId) -> Bounds {
        Bounds { entries: 0..0, purged: None }
    }

    fn admit(&mut self, _: u64, _: &Job) {}
}

impl StateEngine {
    /// `files` are sled's database file, opened once for each thread that syncs it.
    pub fn start(
        db: sled::Db,
        store: StateStore,
        files: [File; 2],
        faults: Faults,
        journal: Arc<Shared<Index>>,
        poison: Poison,
    ) -> Result<Self, Error> {
        let [file, theirs] = files;
        let work = Work { db: db.clone(), store: store.clone(), file: theirs, poison };
        let compactor = Compactor::start(work)?;
        compactor.wake();
        Ok(Self { db, store, file, faults, journal, compactor })
    }
}

impl Backend for StateEngine {
    type View = Nothing;

    fn commit(&mut self, jobs: &[(u64, Job)], _: &Shared<Nothing>) -> Result<(), Error> {
        self.faults.before_write()?;
        for (_, job) in jobs {
            if let Job::State(changes) = job {
                self.store.apply(changes)?;
            }
        }
        let epoch = self.store.epoch();
        self.db.flush().map_err(|e| failed("the flush", e))?;
        self.faults.before_state_sync()?;
        self.file.sync_data().map_err(|e| failed("fdatasync", e))?;
        // Queued before anyone can ask the journal to drop what this state was made from.
        self.journal.note(Job::StateReached(epoch));
        self.compactor.wake();
        Ok(())
    }
}
