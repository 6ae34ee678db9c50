//! Merges runs, on a thread of its own, and deletes those that were merged away.
//!
//! No list names a run any more that was merged away, so whoever does not hold it yet never will: once
//! only the thread itself holds it, its blocks can go. The thread looks after each merge, when it is
//! woken, and when it ends; what is still read then is deleted at the next open.

use super::{
    StateStore,
    manifest::Partition,
    merge::pick,
    run::{self, Run, Writer},
};
use crate::storage::{Error, engine::failed, pipeline::Poison};
use crossbeam_channel::Receiver;
use std::{
    fs::File,
    ops::Bound,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

/// A running compactor; dropping it ends the merge under way and waits for the thread.
pub(super) struct Compactor {
    wake: Option<crossbeam_channel::Sender<()>>,
    closing: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread works with.
pub(super) struct Work {
    pub db: sled::Db,
    pub store: StateStore,
    /// sled's database file, for the sync that sled leaves out. Opened for this alone: of those who share an open
    /// file, only the first one that syncs is told that something was lost.
    pub file: File,
    pub poison: Poison,
}

impl Compactor {
    pub fn start(work: Work) -> Result<Self, Error> {
        let (wake, woken) = crossbeam_channel::bounded(1);
        let closing = Arc::new(AtomicBool::new(false));
        let theirs = closing.clone();
        let thread = std::thread::Builder::new().name("storage-merge".into()).spawn(move || {
            if let Err(error) = work.run(&woken, &theirs) {
                tracing::error!(%error, "merging state failed; nothing is written any more");
                work.poison.lock().get_or_insert(error);
            }
        });
        let thread =
            thread.map_err(|e| Error::Unusable { path: "the merging thread".into(), detail: e.to_string() })?;
        Ok(Self { wake: Some(wake), closing, thread: Some(thread) })
    }

    /// Has it look for something to merge or to delete.
    pub fn wake(&self) {
        // Full: it will look anyway.
        let _ = self.wake.as_ref().map(|wake| wake.try_send(()));
    }
}

impl Drop for Compactor {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Relaxed);
        self.wake = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that merges state panicked");
        }
    }
}

impl Work {
    fn run(&self, woken: &Receiver<()>, closing: &AtomicBool) -> Result<(), Error> {
        let mut dying = Vec::new();
        for () in woken {
            self.delete_unread(&mut dying)?;
            self.merge_all(closing, &mut dying)?;
        }
        self.delete_unread(&mut dying)
    }

    fn merge_all(&self, closing: &AtomicBool, dying: &mut Vec<Arc<Run>>) -> Result<(), Error> {
        for partition in self.store.partitions() {
            while !closing.load(Ordering::Relaxed) && self.merge(partition, closing, dying)? {
                self.delete_unread(dying)?;
            }
        }
        Ok(())
    }

    /// Deletes the blocks of those runs that nobody but `dying` holds.
    fn delete_unread(&self, dying: &mut Vec<Arc<Run>>) -> Result<(), Error> {
        // More than a look at the count: it is ordered after the last reads of whoever let go.
        for run in dying.extract_if(.., |run| Arc::get_mut(run).is_some()) {
            run::delete(&self.store.0.tree, run.entry.id).map_err(|e| failed("deleting a run", e))?;
        }
        Ok(())
    }

    /// Merges some runs of a partition into one; false if there is nothing to do. Those that it read
    /// are `dying` when no list, durable or in memory, names them any more.
    fn merge(&self, partition: Partition, closing: &AtomicBool, dying: &mut Vec<Arc<Run>>) -> Result<bool, Error> {
        let list = self.store.list(partition);
        let sizes: Vec<u64> = list.iter().map(|run| run.entry.bytes).collect();
        let Some(range) = pick(&sizes) else { return Ok(false) };
        let inputs = &list[range.clone()];
        let Some(output) = self.write(inputs, range.start == 0, closing)? else { return Ok(false) };
        // The blocks of the output before the list that names them, that list before the inputs go.
        self.sync()?;
        self.store.replace(0, || {
            let now = self.store.list(partition);
            // Only this thread takes runs out of a list: new ones have come behind the inputs at most.
            debug_assert!(now[range.clone()].iter().zip(inputs).all(|(run, input)| run.entry.id == input.entry.id));
            let (older, newer) = (&now[..range.start], &now[range.end..]);
            vec![(partition, Arc::new(older.iter().chain(&output).chain(newer).cloned().collect()))]
        })?;
        self.sync()?;
        dying.extend_from_slice(inputs);
        Ok(true)
    }

    /// Writes what the inputs (oldest first) hold together; deletions are left out if nothing is
    /// older. `None` if the store closes meanwhile; no run at all if nothing is left.
    #[expect(clippy::option_option, reason = "closing, and nothing left, are different answers")]
    fn write(
        &self,
        inputs: &[Arc<Run>],
        is_oldest: bool,
        closing: &AtomicBool,
    ) -> Result<Option<Option<Arc<Run>>>, Error> {
        let expected = inputs.iter().map(|run| run.entry.pairs).sum();
        let tree = &self.store.0.tree;
        let mut writer = Writer::new(tree, self.store.next_run(), expected);
        let mut pairs = self.store.merged(inputs.iter().rev().cloned(), Bound::Unbounded)?;
        while let Some((key, value)) = pairs.next()? {
            if closing.load(Ordering::Relaxed) {
                return Ok(None);
            }
            if value.is_some() || !is_oldest {
                writer.push(&key, value.as_deref()).map_err(|e| failed("a merged run", e))?;
            }
        }
        let run = writer.finish().map_err(|e| failed("a merged run", e))?;
        Ok(Some(run.map(Arc::new)))
    }

    /// What is written so far is durable, and nothing that others wrote was lost before: runs may only go for
    /// others that are there.
    fn sync(&self) -> Result<(), Error> {
        self.db.flush().map_err(|e| failed("the flush", e))?;
        self.file.sync_data().map_err(|e| failed("fdatasync", e))?;
        self.poison.lock().clone().map_or(Ok(()), Err)
    }
}
