//! Writes groups to the journal: one append, one fdatasync.
//!
//! ```text
//! jobs ─▶ pack records ─▶ seal (hash chain) and append ─▶ index learns the places ─▶ fdatasync
//!      ─▶ head note ─▶ (the pipeline calls `done`)
//! ```

use super::{
    Error, GroupId,
    faults::Faults,
    head::HeadFile,
    index::Index,
    journal::Journal,
    ledger::Ledger,
    meta::Meta,
    pack::{Draft, Packer},
    pipeline::{Backend, Job, Shared},
    record::Kind,
    runs::{At, Run},
};

/// Everything the journal's writer thread owns.
pub(super) struct Engine {
    pub journal: Journal,
    pub meta: Meta,
    pub ledger: Ledger,
    pub head: HeadFile,
    pub faults: Faults,
}

/// Where the entries of each append went: group, ticket, places.
type Places = Vec<(GroupId, u64, Vec<Run<At>>)>;

impl Backend for Engine {
    type View = Index;

    fn commit(&mut self, jobs: &[(u64, Job)], shared: &Shared<Index>) -> Result<(), Error> {
        self.faults.before_write()?;
        let (drafts, places) = self.plan(jobs);
        let oldest_live = self.ledger.oldest_live();
        self.journal.append(drafts, &self.meta, oldest_live).map_err(|e| failed("the append", e))?;
        shared.view(|index| places.into_iter().for_each(|(group, ticket, runs)| index.settle(group, ticket, runs)));
        self.faults.before_sync()?;
        let newest = self.journal.sync().map_err(|e| failed("fdatasync", e))?;
        self.head.write(newest).map_err(|e| failed("the head note", e))
    }
}

impl Engine {
    fn plan(&mut self, jobs: &[(u64, Job)]) -> (Vec<Draft>, Places) {
        let mut packer = Packer::new(self.journal.next_seq(), expected_bytes(jobs));
        let mut places = Vec::new();
        // All of them are answered together, so only the order within a group matters; ordered by
        // group they pack better.
        let mut ordered: Vec<&(u64, Job)> = jobs.iter().collect();
        ordered.sort_by_key(|(_, job)| job.group());
        for (ticket, job) in ordered {
            self.plan_job(*ticket, job, &mut packer, &mut places);
        }
        self.ledger.open(packer.next_seq() - 1);
        (packer.finish(), places)
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
            Job::StateReached(epoch) => {
                packer.mark(GroupId(0), Kind::State, *epoch, 0, &[]);
                self.meta.set_state_epoch(*epoch);
            }
            // The state store has a pipeline of its own.
            Job::State(_) => {}
        }
    }
}

fn expected_bytes(jobs: &[(u64, Job)]) -> usize {
    let appended = jobs.iter().map(|(_, job)| match job {
        Job::Append { entries, .. } => entries.iter().map(|e| e.payload.len() + 40).sum(),
        Job::Vote { vote: mark, .. } | Job::Purge { mark, .. } => mark.len() + 40,
        Job::Truncate { .. } | Job::State(_) | Job::StateReached(_) => 40,
    });
    appended.sum()
}

pub(super) fn failed(what: &str, error: impl std::fmt::Display) -> Error {
    Error::Poisoned { detail: format!("{what} failed: {error}") }
}
