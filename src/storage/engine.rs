//! Writes groups to sled: one atomic batch over all trees, one flush, one fdatasync.
//!
//! ```text
//! jobs ─▶ pack records ─▶ meta, anchor, dropped records ─▶ seal (hash chain) ─▶ sled batch
//!      ─▶ index learns the places ─▶ flush ─▶ fdatasync ─▶ head note ─▶ (the pipeline calls `done`)
//! ```
//!
//! sled's own flush on Linux is `sync_file_range`, which is no fsync: without the fdatasync a power
//! cut loses acknowledged data. See docs/decisions/0001-sled-journal.md.

use super::{
    Error, GroupId,
    faults::Faults,
    head::{Head, HeadFile},
    index::Index,
    ledger::Ledger,
    meta::{Anchor, Meta, Put},
    pack::{Packer, Sealed},
    pipeline::{Backend, Job, Shared},
    record::Kind,
    runs::{At, Run},
    state::{Changes, StateBatch, StateStore},
};
use parking_lot::RwLock;
use sled::{
    Db, IVec, Transactional, Tree,
    transaction::{ConflictableTransactionError, TransactionError, TransactionalTree},
};
use std::{fs::File, sync::Arc};

/// Held in write mode while the state store changes, so that a reader sees all of a batch or none.
pub(super) type Gate = Arc<RwLock<()>>;

/// The sled database and its trees.
#[derive(Debug, Clone)]
pub(super) struct Trees {
    pub db: Db,
    pub journal: Tree,
    pub meta: Tree,
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
    dropped: std::ops::Range<u64>,
    meta: Vec<Put>,
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
        let mut meta = Vec::new();
        let mut places = Vec::new();
        // The batch is atomic, so only the order within a group matters; together they pack better.
        let mut ordered: Vec<&(u64, Job)> = jobs.iter().filter(|(_, job)| job.group().is_some()).collect();
        ordered.sort_by_key(|(_, job)| job.group());
        for (ticket, job) in ordered {
            self.plan_job(*ticket, job, &mut packer, &mut meta, &mut places);
        }
        let state = self.plan_state(jobs, &mut packer, &mut meta)?;
        self.ledger.open(packer.next_seq() - 1);
        let dropped = self.plan_drops(first_seq, &mut meta);
        let records = packer.seal(self.newest.hash, self.meta.digest());
        records.iter().for_each(|record| self.ledger.set_hash(record.seq, record.hash));
        Ok(Batch { records, dropped, meta, state, places })
    }

    fn plan_job(&mut self, ticket: u64, job: &Job, packer: &mut Packer, meta: &mut Vec<Put>, places: &mut Places) {
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
                meta.push(self.meta.set_vote(*group, vote));
            }
            Job::Purge { group, upto, mark } => {
                packer.mark(*group, Kind::Purge, *upto, 0, mark);
                meta.extend(self.meta.set_purged(*group, *upto, mark));
                self.ledger.purge(*group, *upto);
            }
            Job::State(_) => {}
        }
    }

    /// State changes leave a mark in the journal too: it moves the chain on, so that the head note
    /// guards them as well.
    fn plan_state(
        &mut self,
        jobs: &[(u64, Job)],
        packer: &mut Packer,
        meta: &mut Vec<Put>,
    ) -> Result<StateBatch, Error> {
        let changes = jobs
            .iter()
            .filter_map(|(_, job)| if let Job::State(changes) = job { Some(changes) } else { None })
            .flatten();
        let mut digest = self.meta.state;
        let batch = self.trees.state.plan(changes, &mut digest)?;
        if !batch.values.is_empty() {
            packer.mark(GroupId(0), Kind::State, 0, batch.values.len() as u32, &[]);
            meta.push(self.meta.set_state(digest));
        }
        Ok(batch)
    }

    /// Drops dead records from before this batch and moves the anchor of the chain behind them.
    fn plan_drops(&mut self, first_seq: u64, meta: &mut Vec<Put>) -> std::ops::Range<u64> {
        let Some((dropped, hash)) = self.ledger.drop_dead(first_seq) else { return 0..0 };
        meta.push(self.meta.set_anchor(Anchor { seq: dropped.end - 1, hash }));
        dropped
    }

    fn apply(&self, batch: Batch) -> Result<Places, Error> {
        let records = batch.records.into_iter().map(|record| (journal_key(record.seq), Some(IVec::from(record.bytes))));
        let journal: Changes = records.chain(batch.dropped.map(|seq| (journal_key(seq), None))).collect();
        let meta: Changes = batch.meta.into_iter().map(|(key, value)| (key.into(), Some(value.into()))).collect();
        let trees = &self.trees;
        let _changing = (!batch.state.values.is_empty()).then(|| self.gate.write());
        let work = [
            (&trees.journal, journal),
            (&trees.meta, meta),
            (&trees.state.values, batch.state.values),
            (&trees.state.parts, batch.state.parts),
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

fn put_all(tree: &TransactionalTree, changes: &Changes) -> Result<(), ConflictableTransactionError<String>> {
    for (key, value) in changes {
        match value {
            Some(value) => tree.insert(key, value)?,
            None => tree.remove(key)?,
        };
    }
    Ok(())
}

/// Key of a record in the journal tree: big endian, so that tree order is sequence order.
pub(super) fn journal_key(seq: u64) -> IVec {
    IVec::from(&seq.to_be_bytes())
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
