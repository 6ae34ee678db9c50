//! Writes groups to sled: one atomic change, one flush, one fdatasync.
//!
//! ```text
//! jobs ─▶ pack records ─▶ dropped records, anchor, meta ─▶ seal (hash chain) ─▶ sled
//!      ─▶ index learns the places ─▶ flush ─▶ fdatasync ─▶ head note ─▶ (the pipeline calls `done`)
//! ```
//!
//! A group is usually one record and nothing else: a single insert, which costs sled one write to
//! its log where a batch costs two.
//!
//! sled's own flush on Linux is `sync_file_range`, which is no fsync: without the fdatasync a power
//! cut loses acknowledged data. See docs/decisions/0001-sled-journal.md.

use super::{
    Error, GroupId,
    faults::Faults,
    head::{Head, HeadFile},
    index::Index,
    ledger::Ledger,
    meta::{Anchor, Meta},
    pack::{Packer, Sealed},
    pipeline::{Backend, Job, Shared},
    record::Kind,
    runs::{At, Run},
    state::{Changes, StateBatch, StateStore},
};
use parking_lot::RwLock;
use sled::{
    Batch as SledBatch, Db, IVec, Transactional, Tree,
    transaction::{ConflictableTransactionError, TransactionError, TransactionalTree},
};
use std::{fs::File, sync::Arc};

/// Held in write mode while the state store changes, so that a reader sees all of a batch or none.
pub(super) type Gate = Arc<RwLock<()>>;

/// The sled database and its trees.
#[derive(Debug, Clone)]
pub(super) struct Trees {
    pub db: Db,
    /// The journal's records and the meta values.
    pub store: Tree,
    pub state: StateStore,
}

/// Everything the writer thread owns.
pub(super) struct Engine {
    pub trees: Trees,
    pub gate: Gate,
    pub meta: Meta,
    pub ledger: Ledger,
    /// Newest record, durable unless the store is poisoned.
    pub newest: Head,
    /// sled's database file, for the sync that sled leaves out.
    pub file: File,
    pub head: HeadFile,
    pub faults: Faults,
}

/// Where the entries of each append went: group, ticket, places.
type Places = Vec<(GroupId, u64, Vec<Run<At>>)>;

/// A group of writes, ready for sled.
struct Batch {
    records: Vec<Sealed>,
    /// Dropped records and new meta values.
    upkeep: Changes,
    state: StateBatch,
    places: Places,
}

impl Backend for Engine {
    type View = Index;

    fn commit(&mut self, jobs: &[(u64, Job)], shared: &Shared<Index>) -> Result<(), Error> {
        let batch = self.plan(jobs)?;
        let newest = batch.records.last().map_or(self.newest, |record| Head { seq: record.seq, hash: record.hash });
        let places = self.apply(batch)?;
        shared.view(|index| places.into_iter().for_each(|(group, ticket, runs)| index.settle(group, ticket, runs)));
        self.sync(newest)?;
        self.newest = newest;
        Ok(())
    }
}

impl Engine {
    fn plan(&mut self, jobs: &[(u64, Job)]) -> Result<Batch, Error> {
        let first_seq = self.newest.seq + 1;
        let mut packer = Packer::new(first_seq, expected_bytes(jobs));
        let mut places = Vec::new();
        // The batch is atomic, so only the order within a group matters; together they pack better.
        let mut ordered: Vec<&(u64, Job)> = jobs.iter().filter(|(_, job)| job.group().is_some()).collect();
        ordered.sort_by_key(|(_, job)| job.group());
        for (ticket, job) in ordered {
            self.plan_job(*ticket, job, &mut packer, &mut places);
        }
        let state = self.plan_state(jobs, &mut packer)?;
        self.ledger.open(packer.next_seq() - 1);
        let mut upkeep = self.plan_drops(first_seq);
        if !upkeep.is_empty() || !state.values.is_empty() {
            upkeep.extend(self.meta.take_unstored());
        }
        let records = packer.seal(self.newest.hash, self.meta.digest());
        records.iter().for_each(|record| self.ledger.set_hash(record.seq, record.hash));
        Ok(Batch { records, upkeep, state, places })
    }

    fn plan_job(&mut self, ticket: u64, job: &Job, packer: &mut Packer, places: &mut Places) {
        match job {
            Job::Append { group, entries } => {
                let runs = packer.append(*group, entries);
                self.ledger.open(packer.next_seq() - 1);
                self.ledger.append(*group, &runs);
                places.push((*group, ticket, runs));
            }
            Job::Truncate { group, from } => {
                packer.mark(*group, Kind::Truncate, *from, 0, &[]);
                self.ledger.truncate(*group, *from);
            }
            Job::Vote { group, vote } => {
                packer.mark(*group, Kind::Vote, 0, 0, vote);
                self.meta.set_vote(*group, vote.clone());
            }
            Job::Purge { group, upto, mark } => {
                packer.mark(*group, Kind::Purge, *upto, 0, mark);
                self.meta.set_purged(*group, *upto, mark.clone());
                self.ledger.purge(*group, *upto);
            }
            Job::State(_) => {}
        }
    }

    /// State changes leave a mark in the journal too: it moves the chain on, so that the head note
    /// guards them as well.
    fn plan_state(&mut self, jobs: &[(u64, Job)], packer: &mut Packer) -> Result<StateBatch, Error> {
        let changes = jobs
            .iter()
            .filter_map(|(_, job)| if let Job::State(changes) = job { Some(changes) } else { None })
            .flatten();
        let mut digest = self.meta.state;
        let batch = self.trees.state.plan(changes, &mut digest)?;
        if !batch.values.is_empty() {
            packer.mark(GroupId(0), Kind::State, 0, batch.values.len() as u32, &[]);
            self.meta.set_state(digest);
        }
        Ok(batch)
    }

    /// Drops dead records from before this batch and moves the anchor of the chain behind them.
    fn plan_drops(&mut self, first_seq: u64) -> Changes {
        let Some((dropped, hash)) = self.ledger.drop_dead(first_seq) else { return Changes::new() };
        self.meta.set_anchor(Anchor { seq: dropped.end - 1, hash });
        dropped.map(|seq| (journal_key(seq), None)).collect()
    }

    fn apply(&self, batch: Batch) -> Result<Places, Error> {
        let records = batch.records.into_iter().map(|record| (journal_key(record.seq), Some(IVec::from(record.bytes))));
        let changes: Changes = records.chain(batch.upkeep).collect();
        if batch.state.values.is_empty() {
            put(&self.trees.store, changes).map_err(|e| failed("the batch", e))?;
            return Ok(batch.places);
        }
        let _changing = self.gate.write();
        let work = [
            (&self.trees.store, changes),
            (&self.trees.state.values, batch.state.values),
            (&self.trees.state.parts, batch.state.parts),
        ];
        let touched: Vec<&(&Tree, Changes)> = work.iter().filter(|(_, changes)| !changes.is_empty()).collect();
        let trees: Vec<&Tree> = touched.iter().map(|(tree, _)| *tree).collect();
        trees
            .transaction(|views| touched.iter().zip(views).try_for_each(|((_, changes), view)| put_all(view, changes)))
            .map_err(|error: TransactionError<String>| failed("the batch", error))?;
        Ok(batch.places)
    }

    fn sync(&mut self, newest: Head) -> Result<(), Error> {
        self.trees.db.flush().map_err(|e| failed("the flush", e))?;
        self.faults.before_sync()?;
        self.file.sync_data().map_err(|e| failed("fdatasync", e))?;
        self.head.write(newest).map_err(|e| failed("the head note", e))
    }
}

/// One change is atomic by itself.
fn put(tree: &Tree, mut changes: Changes) -> sled::Result<()> {
    if let [(key, Some(value))] = changes.as_mut_slice() {
        return tree.insert(&*key, std::mem::take(value)).map(drop);
    }
    let mut batch = SledBatch::default();
    for (key, value) in changes {
        match value {
            Some(value) => batch.insert(key, value),
            None => batch.remove(key),
        }
    }
    tree.apply_batch(batch)
}

fn put_all(tree: &TransactionalTree, changes: &Changes) -> Result<(), ConflictableTransactionError<String>> {
    for (key, value) in changes {
        match value {
            Some(value) => tree.insert(key, value)?,
            None => tree.remove(key)?,
        };
    }
    Ok(())
}

/// Before the key of every record.
pub(super) const JOURNAL_PREFIX: u8 = b'j';

/// Key of a record: big endian, so that tree order is sequence order.
pub(super) fn journal_key(seq: u64) -> IVec {
    let mut key = [JOURNAL_PREFIX; 9];
    key[1..].copy_from_slice(&seq.to_be_bytes());
    IVec::from(&key)
}

fn expected_bytes(jobs: &[(u64, Job)]) -> usize {
    let appended = jobs.iter().map(|(_, job)| match job {
        Job::Append { entries, .. } => entries.iter().map(|e| e.payload.len() + 40).sum(),
        Job::Vote { vote: mark, .. } | Job::Purge { mark, .. } => mark.len() + 40,
        Job::Truncate { .. } | Job::State(_) => 40,
    });
    appended.sum()
}

fn failed(what: &str, error: impl std::fmt::Display) -> Error {
    Error::Poisoned { detail: format!("{what} failed: {error}") }
}
