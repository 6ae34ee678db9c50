//! The state store: sorted runs of pairs in sled, newest last, merged behind the scenes.
//!
//! ```text
//! apply(changes) ─▶ a new run per partition: blocks, then the lists and the root in one batch
//! get ─▶ newest run ─▶ … ─▶ oldest run         (a filter in memory skips most of them)
//! compactor: several runs ─▶ one run           (a log-structured merge tree: O'Neil et al., 1996)
//! pin: a partition's list, kept               (its runs stay readable when others have taken their place)
//! ```
//!
//! A checkpoint changes thousands of small pairs. As a pair of sled's each would cost 5 to 10 µs, and a
//! batch of them locks out every reader of the process while it is applied; a block of 32 KiB costs as
//! much as one pair, and locks nobody out.
//!
//! Invariants: a run is never changed; a list names only runs whose blocks are all written; blocks are
//! deleted only when the list that no longer names them is durable and nobody holds their run. Who reads
//! holds the list with all its runs, so a block that a reader misses is damage. Blocks that no list names
//! at open (of a merge that a crash cut short, or of runs still read when the store closed) are deleted then.
//! Everything is read and checked at open.

mod block;
mod compactor;
mod engine;
mod filter;
mod manifest;
mod merge;
mod pin;
mod run;
#[cfg(test)]
mod tests;

pub(super) use engine::{Nothing, StateEngine};
pub(super) use pin::Pin;

use super::{Error, GroupId, StateChange, engine::failed};
use bytes::Bytes;
use manifest::{Partition, Root, decode_list, encode_list, list_key, partition};
use merge::Merge;
use parking_lot::{Mutex, RwLock};
use run::{Cursor, Run};
use sled::{Batch, Tree};
use std::{
    collections::{BTreeMap, HashSet},
    ops::{Bound, Range},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Oldest first. Readers keep the list they began with, and with it the blocks of its runs.
type List = Arc<Vec<Arc<Run>>>;

type Pairs = Vec<(Vec<u8>, Bytes)>;

/// The store. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct StateStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    tree: Tree,
    lists: RwLock<BTreeMap<Partition, List>>,
    /// Held while lists change.
    root: Mutex<Root>,
    next_run: AtomicU64,
}

impl StateStore {
    /// Reads and checks everything.
    pub fn open(tree: Tree) -> Result<Self, Error> {
        let stored = read_lists(&tree)?;
        let root = read_root(&tree)?;
        if !root.covers(stored.iter().map(|(partition, list)| (*partition, list.as_slice()))) {
            return Err(corrupt("the lists of its runs are not those that were written".into()));
        }
        let mut lists = BTreeMap::new();
        let mut known = HashSet::new();
        for (partition, bytes) in stored {
            let entries = decode_list(&bytes).ok_or_else(|| corrupt(format!("list {partition:02x?} is damaged")))?;
            known.extend(entries.iter().map(|entry| entry.id));
            let runs = entries.into_iter().map(|entry| Run::load(&tree, entry).map(Arc::new));
            lists.insert(partition, Arc::new(runs.collect::<Result<Vec<_>, _>>()?));
        }
        delete_unknown(&tree, &known).map_err(|e| corrupt(e.to_string()))?;
        let next_run = AtomicU64::new(known.iter().max().map_or(1, |newest| newest + 1));
        Ok(Self(Arc::new(Inner { tree, lists: RwLock::new(lists), root: Mutex::new(root), next_run })))
    }

    /// Number of the last write.
    pub fn epoch(&self) -> u64 {
        self.0.root.lock().epoch
    }

    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        self.find(&self.list(partition(key)), key)
    }

    /// Up to `limit` pairs in key order.
    pub fn scan(&self, range: Range<&[u8]>, limit: usize) -> Result<Pairs, Error> {
        if range.start >= range.end {
            return Ok(Vec::new());
        }
        let partitions = partition(range.start)..=partition(range.end);
        let lists: Vec<List> = self.0.lists.read().range(partitions).map(|(_, list)| list.clone()).collect();
        let mut found = Vec::new();
        // Partitions are in key order.
        for list in &lists {
            self.collect(list, &range, limit, &mut found)?;
        }
        Ok(found)
    }

    /// The group's partition as it is now, whatever is written and merged later.
    pub fn pin(&self, group: GroupId) -> Pin {
        let partition = group.0.to_be_bytes();
        Pin { store: self.clone(), partition, list: self.list(partition) }
    }

    /// Applies one write, all or nothing; durable after the next sync.
    pub fn apply(&self, changes: &[StateChange]) -> Result<(), Error> {
        let mut partitions: BTreeMap<Partition, Vec<&StateChange>> = BTreeMap::new();
        for change in changes {
            partitions.entry(partition(&change.0)).or_default().push(change);
        }
        let mut fresh = Vec::with_capacity(partitions.len());
        for (partition, mut pairs) in partitions {
            let mut writer = run::Writer::new(&self.0.tree, self.next_run(), pairs.len() as u64);
            // Of two changes of one key the later counts.
            pairs.sort_by(|(one, _), (other, _)| one.cmp(other));
            let mut last_ones = pairs.chunk_by(|(one, _), (other, _)| one == other).filter_map(|same| same.last());
            let written = last_ones.try_for_each(|(key, value)| writer.push(key, value.as_deref()));
            let run = written.and_then(|()| writer.finish()).map_err(|e| failed("a run of state", e))?;
            fresh.push((partition, run));
        }
        self.replace(1, || {
            let grown = fresh.into_iter().map(|(partition, run)| {
                let runs = self.list(partition).iter().cloned().chain(run.map(Arc::new)).collect();
                (partition, Arc::new(runs))
            });
            grown.collect()
        })
    }

    fn next_run(&self) -> u64 {
        self.0.next_run.fetch_add(1, Ordering::Relaxed)
    }

    fn list(&self, partition: Partition) -> List {
        self.0.lists.read().get(&partition).cloned().unwrap_or_default()
    }

    fn partitions(&self) -> Vec<Partition> {
        self.0.lists.read().keys().copied().collect()
    }

    /// What the runs of a list say of a key.
    fn find(&self, list: &List, key: &[u8]) -> Result<Option<Bytes>, Error> {
        for run in list.iter().rev() {
            if let Some(found) = run.find(&self.0.tree, key)? {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Adds what the runs of a list have in the range, until `limit` pairs are found.
    fn collect(&self, list: &List, range: &Range<&[u8]>, limit: usize, found: &mut Pairs) -> Result<(), Error> {
        let mut pairs = self.merged(list.iter().rev().cloned(), Bound::Included(range.start))?;
        while found.len() < limit
            && let Some((key, value)) = pairs.next()?
            && key.as_slice() < range.end
        {
            found.extend(value.map(|value| (key, value)));
        }
        Ok(())
    }

    fn merged(&self, newest_first: impl Iterator<Item = Arc<Run>>, from: Bound<&[u8]>) -> Result<Merge<'_>, Error> {
        let cursors = newest_first.map(|run| Cursor::seek(&self.0.tree, run, from));
        Ok(Merge::new(cursors.collect::<Result<_, _>>()?))
    }

    /// Replaces lists in memory and in sled, in one batch, and counts `writes`. No list changes while
    /// the closure looks at them.
    fn replace(&self, writes: u64, lists: impl FnOnce() -> Vec<(Partition, List)>) -> Result<(), Error> {
        let mut root = self.0.root.lock();
        let lists = lists();
        let mut new_root = *root;
        new_root.epoch += writes;
        let encode = |list: &List| encode_list(list.iter().map(|run| run.entry));
        let mut batch = Batch::default();
        for (partition, list) in &lists {
            let old = self.0.lists.read().get(partition).map(encode);
            let new = encode(list);
            new_root.replace(*partition, old.as_deref(), Some(&new));
            batch.insert(&list_key(*partition), new);
        }
        batch.insert(manifest::ROOT, new_root.encode());
        self.0.tree.apply_batch(batch).map_err(|e| failed("a batch of state", e))?;
        self.0.lists.write().extend(lists);
        *root = new_root;
        Ok(())
    }

    #[cfg(test)]
    pub fn tree(&self) -> &Tree {
        &self.0.tree
    }
}

fn read_lists(tree: &Tree) -> Result<BTreeMap<Partition, Vec<u8>>, Error> {
    let pairs = tree.scan_prefix([manifest::LIST]).map(|pair| {
        let (key, list) = pair.map_err(|e| corrupt(e.to_string()))?;
        match key.as_ref() {
            [_, a, b] => Ok(([*a, *b], list.to_vec())),
            other => Err(corrupt(format!("unknown key {other:02x?}"))),
        }
    });
    pairs.collect()
}

fn read_root(tree: &Tree) -> Result<Root, Error> {
    match tree.get(manifest::ROOT).map_err(|e| corrupt(e.to_string()))? {
        Some(bytes) => Root::decode(&bytes).ok_or_else(|| corrupt("its root is damaged".into())),
        None => Ok(Root::default()),
    }
}

/// Deletes the blocks of runs that were being written or deleted, or still read, when the process ended.
fn delete_unknown(tree: &Tree, known: &HashSet<u64>) -> sled::Result<()> {
    let mut next = vec![run::CHUNK];
    while let Some(key) = tree.range(next..vec![run::CHUNK + 1]).keys().next().transpose()? {
        let Some(id) = run::run_of(&key) else { return Ok(()) };
        if !known.contains(&id) {
            run::delete(tree, id)?;
        }
        next = [&[run::CHUNK], (id + 1).to_be_bytes().as_slice()].concat();
    }
    Ok(())
}

fn corrupt(detail: String) -> Error {
    Error::Corrupt { place: "the state store".to_owned(), detail }
}
