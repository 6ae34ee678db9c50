//! The twin in memory: what is flushed survives [`MemoryStorage::crash`], the rest is lost.
//!
//! It runs the same queue and writer thread as the store on sled. Each write exists twice: in the
//! view from the moment it is submitted, in the "disk" from the moment it is flushed.

use super::{
    Done, EntryRecord, Error, GroupId, GroupState, Options, StateChange, StateRead, Storage, Write,
    admission::Bounds,
    faults::Faults,
    pipeline::{self, Backend, Job, Pipeline, Poison, Shared, View},
};
use bytes::Bytes;
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, HashMap},
    ops::{Bound, Range},
    sync::Arc,
};

/// What is in the state store.
type State = BTreeMap<Vec<u8>, Bytes>;

#[derive(Debug, Clone, Default)]
struct Group {
    vote: Option<Bytes>,
    purged: Option<(u64, Bytes)>,
    entries: BTreeMap<u64, EntryRecord>,
}

impl Group {
    fn range(&self) -> Range<u64> {
        let next = self.purged.as_ref().map_or(0, |(upto, _)| upto + 1);
        match (self.entries.first_key_value(), self.entries.last_key_value()) {
            (Some((first, _)), Some((last, _))) => *first..*last + 1,
            _ => next..next,
        }
    }
}

/// Everything a store holds.
#[derive(Debug, Clone, Default)]
struct Contents {
    groups: HashMap<GroupId, Group>,
    state: State,
}

impl Contents {
    fn change_group(&mut self, job: &Job) {
        let Some(group) = job.group() else { return };
        let group = self.groups.entry(group).or_default();
        match job {
            Job::Append { entries, .. } => {
                if let Some(first) = entries.first() {
                    group.entries.split_off(&first.index);
                }
                group.entries.extend(entries.iter().map(|e| (e.index, e.clone())));
            }
            Job::Truncate { from, .. } => drop(group.entries.split_off(from)),
            Job::Vote { vote, .. } => group.vote = Some(vote.clone()),
            Job::Purge { upto, mark, .. } if group.purged.as_ref().is_none_or(|(present, _)| upto >= present) => {
                group.entries = group.entries.split_off(&(upto + 1));
                group.purged = Some((*upto, mark.clone()));
            }
            Job::Purge { .. } | Job::State(_) | Job::StateReached(_) => {}
        }
    }

    fn change_state(&mut self, changes: &[StateChange]) {
        for (key, value) in changes {
            match value {
                Some(value) => self.state.insert(key.clone(), value.clone()),
                None => self.state.remove(key),
            };
        }
    }
}

impl View for Contents {
    fn bounds(&self, group: GroupId) -> Bounds {
        self.groups.get(&group).map_or(Bounds { entries: 0..0, purged: None }, |g| Bounds {
            entries: g.range(),
            purged: g.purged.as_ref().map(|(upto, _)| *upto),
        })
    }

    fn admit(&mut self, _ticket: u64, job: &Job) {
        self.change_group(job);
    }
}

#[derive(Debug, Default)]
struct Disk {
    contents: Contents,
    crashed: bool,
}

impl Disk {
    /// A disk with `contents`, and who writes to it.
    fn holding(contents: &Contents, faults: &Faults) -> (Arc<Mutex<Disk>>, Writer) {
        let disk = Arc::new(Mutex::new(Disk { contents: contents.clone(), crashed: false }));
        (disk.clone(), Writer { disk, faults: faults.clone() })
    }
}

struct Writer {
    disk: Arc<Mutex<Disk>>,
    faults: Faults,
}

/// Makes the writes of a [`MemoryStorage::stepped`] durable, in place of its thread.
pub struct Steps(pipeline::Steps<Writer>);

impl Steps {
    /// Makes one group of what waits durable, and calls its `done`s; false if nothing waits.
    pub fn step(&mut self) -> bool {
        self.0.step()
    }

    pub fn is_waiting(&self) -> bool {
        self.0.is_waiting()
    }

    /// Whether the store is gone and nothing of it waits.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

impl Backend for Writer {
    type View = Contents;

    fn commit(&mut self, jobs: &[(u64, Job)], shared: &Shared<Contents>) -> Result<(), Error> {
        self.faults.before_write()?;
        let changes =
            || jobs.iter().filter_map(|(_, job)| if let Job::State(changes) = job { Some(changes) } else { None });
        shared.view(|contents| changes().for_each(|changes| contents.change_state(changes)));
        self.faults.before_sync()?;
        let mut disk = self.disk.lock();
        if disk.crashed {
            return Err(Error::Poisoned { detail: "the node has crashed".into() });
        }
        jobs.iter().for_each(|(_, job)| disk.contents.change_group(job));
        changes().for_each(|changes| disk.contents.change_state(changes));
        Ok(())
    }
}

/// Journal and state store in memory.
pub struct MemoryStorage {
    pipeline: Pipeline<Contents>,
    disk: Arc<Mutex<Disk>>,
    options: Options,
    faults: Faults,
}

impl MemoryStorage {
    /// An empty store without faults.
    ///
    /// # Panics
    /// If the system refuses another thread.
    pub fn new() -> Self {
        Self::with_faults(&Options::default(), Faults::none())
    }

    /// An empty store whose flushes can be held back or made to fail through `faults`.
    ///
    /// # Panics
    /// If the system refuses another thread.
    pub fn with_faults(options: &Options, faults: Faults) -> Self {
        Self::start(Contents::default(), options.clone(), faults)
    }

    /// Cuts the power: gives a store that holds what was flushed and nothing else, as if reopened,
    /// with the same faults handle (released). Writes of this one that were not flushed yet get
    /// an error, as does every later one.
    pub fn crash(&self) -> MemoryStorage {
        let contents = self.cut_power();
        Self::start(contents, self.options.clone(), self.faults.clone())
    }

    /// An empty store without a writer thread: whoever holds the [`Steps`] makes its writes durable,
    /// and `wake` says that some wait. For simulations, where nothing may depend on a thread. Give
    /// it bounds that it never reaches: a full queue would wait for itself.
    pub fn stepped(options: &Options, wake: Arc<dyn Fn() + Send + Sync>) -> (Self, Steps) {
        Self::start_stepped(Contents::default(), options.clone(), Faults::none(), wake)
    }

    /// As [`MemoryStorage::crash`], to go on by steps.
    pub fn crash_stepped(&self, wake: Arc<dyn Fn() + Send + Sync>) -> (Self, Steps) {
        let contents = self.cut_power();
        Self::start_stepped(contents, self.options.clone(), self.faults.clone(), wake)
    }

    /// What was flushed; nothing is from now on.
    fn cut_power(&self) -> Contents {
        let mut disk = self.disk.lock();
        disk.crashed = true;
        let contents = disk.contents.clone();
        drop(disk);
        self.faults.release();
        contents
    }

    fn start(contents: Contents, options: Options, faults: Faults) -> Self {
        let (disk, writer) = Disk::holding(&contents, &faults);
        let pipeline = match Pipeline::start("storage-memory", contents, &options, Poison::default(), writer) {
            Ok(pipeline) => pipeline,
            Err(error) => panic!("{error}"),
        };
        Self { pipeline, disk, options, faults }
    }

    fn start_stepped(
        contents: Contents,
        options: Options,
        faults: Faults,
        wake: Arc<dyn Fn() + Send + Sync>,
    ) -> (Self, Steps) {
        let (disk, writer) = Disk::holding(&contents, &faults);
        let (pipeline, steps) = Pipeline::stepped(contents, &options, Poison::default(), writer, wake);
        (Self { pipeline, disk, options, faults }, Steps(steps))
    }
}

impl Default for MemoryStorage {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for MemoryStorage {
    fn drop(&mut self) {
        // After a crash the handle belongs to the successor.
        if !self.disk.lock().crashed {
            self.faults.release();
        }
    }
}

impl Storage for MemoryStorage {
    fn submit(&self, write: Write, done: Done) {
        self.pipeline.submit(write, done);
    }

    fn group(&self, group: GroupId) -> GroupState {
        self.pipeline.view(|contents| {
            contents.groups.get(&group).map_or_else(GroupState::default, |g| GroupState {
                vote: g.vote.clone(),
                purged: g.purged.clone(),
                entries: g.range(),
            })
        })
    }

    fn entries(&self, group: GroupId, range: Range<u64>) -> Result<Vec<EntryRecord>, Error> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        Ok(self.pipeline.view(|contents| {
            let group = contents.groups.get(&group);
            group.map_or_else(Vec::new, |g| g.entries.range(range).map(|(_, entry)| entry.clone()).collect())
        }))
    }

    /// Memory is let go entry by entry.
    fn segments_held(&self, _group: GroupId) -> usize {
        0
    }

    fn pin(&self, group: GroupId) -> Arc<dyn StateRead> {
        Arc::new(Copied(self.pipeline.view(|contents| of_group(&contents.state, group))))
    }
}

impl StateRead for MemoryStorage {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        Ok(self.pipeline.view(|contents| contents.state.get(key).cloned()))
    }

    fn scan(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Bytes)>, Error> {
        Ok(self.pipeline.view(|contents| pairs(&contents.state, start, end, limit)))
    }
}

/// A copy of what there was of a group.
struct Copied(State);

impl StateRead for Copied {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        Ok(self.0.get(key).cloned())
    }

    fn scan(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Bytes)>, Error> {
        Ok(pairs(&self.0, start, end, limit))
    }
}

fn of_group(state: &State, group: GroupId) -> State {
    let prefix = group.0.to_be_bytes();
    let from = (Bound::Included(prefix.as_slice()), Bound::Unbounded);
    let theirs = state.range::<[u8], _>(from).take_while(|(key, _)| key.starts_with(&prefix));
    theirs.map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn pairs(state: &State, start: &[u8], end: &[u8], limit: usize) -> Vec<(Vec<u8>, Bytes)> {
    if start >= end {
        return Vec::new();
    }
    let range = (Bound::Included(start), Bound::Excluded(end));
    state.range::<[u8], _>(range).take(limit).map(|(key, value)| (key.clone(), value.clone())).collect()
}
