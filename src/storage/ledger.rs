//! The writer's account of which journal records still hold live entries.
//!
//! Records are dropped oldest first, once nothing in them is alive; the newest record always
//! stays, because it carries the digest of the meta values. Unlike the readers' index, the ledger
//! knows only of writes that are in the batch being built or before it: a purge that is still
//! queued must not free a record yet.

use super::{
    EntryRecord, GroupId,
    record::Hash,
    runs::{At, Run, Runs},
};
use std::collections::{HashMap, VecDeque};

/// Records dropped per batch at most: bounds what a purge adds to one commit.
const DROPS_MAX: usize = 128;
/// Records worth a drop: fewer wait, because a drop makes a batch of what else is a single insert.
const DROPS_MIN: usize = 32;

#[derive(Debug, Clone, Copy)]
struct Record {
    live: u64,
    hash: Hash,
}

/// Live entries per record, and where each group's entries are.
#[derive(Debug)]
pub(super) struct Ledger {
    /// Sequence number of the oldest record.
    base: u64,
    records: VecDeque<Record>,
    groups: HashMap<GroupId, Runs<At>>,
}

impl Ledger {
    /// No records yet; the first one will be `base`.
    pub fn new(base: u64) -> Self {
        Self { base, records: VecDeque::new(), groups: HashMap::new() }
    }

    /// Makes records up to and including `seq` known.
    pub fn open(&mut self, seq: u64) {
        while self.base + (self.records.len() as u64) <= seq {
            self.records.push_back(Record { live: 0, hash: Hash::default() });
        }
    }

    pub fn set_hash(&mut self, seq: u64, hash: Hash) {
        if let Some(record) = seq.checked_sub(self.base).and_then(|at| self.records.get_mut(at as usize)) {
            record.hash = hash;
        }
    }

    /// Entries that replace whatever was at or above their first index.
    pub fn append(&mut self, group: GroupId, runs: &[Run<At>]) {
        if let Some(run) = runs.first() {
            self.truncate(group, run.first);
        }
        for run in runs {
            self.count(&run.place, run.end - run.first, true);
            self.groups.entry(group).or_default().push(run.first, run.end, run.place);
        }
    }

    pub fn truncate(&mut self, group: GroupId, from: u64) {
        let mut runs = self.groups.remove(&group).unwrap_or_default();
        runs.truncate(from, |at, count| self.count(at, count, false));
        self.groups.insert(group, runs);
    }

    pub fn purge(&mut self, group: GroupId, upto: u64) {
        let mut runs = self.groups.remove(&group).unwrap_or_default();
        runs.purge(upto, |at, count| self.count(at, count, false));
        self.groups.insert(group, runs);
    }

    /// Takes out the dead records at the front, if there are enough of them, but never `keep` or a
    /// later one. Gives their sequence numbers and the hash of the last of them: the new anchor.
    pub fn drop_dead(&mut self, keep: u64) -> Option<(std::ops::Range<u64>, Hash)> {
        let most = (keep.saturating_sub(self.base) as usize).min(DROPS_MAX);
        let dead = self.records.iter().take(most).take_while(|record| record.live == 0).count();
        if dead < DROPS_MIN {
            return None;
        }
        let first = self.base;
        let anchor = self.records.drain(..dead).next_back()?.hash;
        self.base += dead as u64;
        Some((first..self.base, anchor))
    }

    /// All groups and where their entries are.
    pub fn groups(&self) -> impl Iterator<Item = (GroupId, &Runs<At>)> {
        self.groups.iter().map(|(group, runs)| (*group, runs))
    }

    pub fn runs(&self, group: GroupId) -> Option<&Runs<At>> {
        self.groups.get(&group)
    }

    fn count(&mut self, at: &At, entries: u64, add: bool) {
        for seq in at.records() {
            let Some(record) = seq.checked_sub(self.base).and_then(|at| self.records.get_mut(at as usize)) else {
                continue;
            };
            record.live = if add { record.live + entries } else { record.live.saturating_sub(entries) };
        }
    }
}

/// First index and one past the last of entries that are known to be consecutive.
pub(super) fn span(entries: &[EntryRecord]) -> (u64, u64) {
    match (entries.first(), entries.last()) {
        (Some(first), Some(last)) => (first.index, last.index + 1),
        _ => (0, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(first: u64, end: u64, seq: u64) -> Run<At> {
        Run { first, end, place: At { seq, offset: 48, parts: 0 } }
    }

    #[test]
    fn only_dead_records_at_the_front_are_dropped_and_the_newest_stays() {
        let mut ledger = Ledger::new(1);
        let group = GroupId(1);
        for seq in 1..=80 {
            ledger.open(seq);
            ledger.set_hash(seq, [seq as u8; 16]);
            ledger.append(group, &[run(seq * 10, seq * 10 + 10, seq)]);
        }
        ledger.purge(group, 325);
        assert!(ledger.drop_dead(80).is_none(), "31 dead records are too few");
        ledger.purge(group, 345);
        assert_eq!(ledger.drop_dead(80), Some((1..34, [33; 16])));
        ledger.purge(group, 1000);
        assert_eq!(ledger.drop_dead(80), Some((34..80, [79; 16])));
        assert!(ledger.drop_dead(80).is_none());
    }

    #[test]
    fn an_entry_in_parts_keeps_all_its_records() {
        let mut ledger = Ledger::new(1);
        let group = GroupId(1);
        ledger.open(50);
        ledger.append(group, &[Run { first: 5, end: 6, place: At { seq: 1, offset: 48, parts: 12 } }, run(6, 7, 13)]);
        assert!(ledger.drop_dead(50).is_none());
        ledger.truncate(group, 5);
        assert_eq!(ledger.drop_dead(50).map(|(range, _)| range), Some(1..50));
    }
}
