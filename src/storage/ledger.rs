//! The writer's account of which journal records still hold live entries.
//!
//! Segments are let go oldest first, once nothing in them is alive. Unlike the readers' index, the
//! ledger knows only of writes that are in the batch being built or before it: a purge that is
//! still queued must not free a record yet.

use super::{
    EntryRecord, GroupId,
    runs::{At, Run, Runs},
};
use std::collections::{HashMap, VecDeque};

/// Live entries per record, and where each group's entries are.
#[derive(Debug)]
pub(super) struct Ledger {
    /// Sequence number of the oldest record in `live`.
    base: u64,
    /// Live entries of each record.
    live: VecDeque<u64>,
    groups: HashMap<GroupId, Runs<At>>,
}

impl Ledger {
    /// No records yet; the first one will be `base`.
    pub fn new(base: u64) -> Self {
        Self { base, live: VecDeque::new(), groups: HashMap::new() }
    }

    /// Makes records up to and including `seq` known.
    pub fn open(&mut self, seq: u64) {
        while self.base + (self.live.len() as u64) <= seq {
            self.live.push_back(0);
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

    /// Sequence number of the oldest record that holds a live entry, or the next one to come:
    /// everything before it may go.
    pub fn oldest_live(&mut self) -> u64 {
        while self.live.front() == Some(&0) {
            self.live.pop_front();
            self.base += 1;
        }
        self.base
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
            let Some(live) = seq.checked_sub(self.base).and_then(|at| self.live.get_mut(at as usize)) else {
                continue;
            };
            *live = if add { *live + entries } else { live.saturating_sub(entries) };
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
    fn only_dead_records_at_the_front_may_go() {
        let mut ledger = Ledger::new(1);
        let group = GroupId(1);
        for seq in 1..=80 {
            ledger.open(seq);
            ledger.append(group, &[run(seq * 10, seq * 10 + 10, seq)]);
        }
        assert_eq!(ledger.oldest_live(), 1);
        ledger.purge(group, 345);
        assert_eq!(ledger.oldest_live(), 34);
        ledger.append(GroupId(2), &[run(1, 2, 40)]);
        ledger.purge(group, 1000);
        assert_eq!(ledger.oldest_live(), 40, "another group's entry is still alive");
        ledger.purge(GroupId(2), 1);
        assert_eq!(ledger.oldest_live(), 81);
    }

    #[test]
    fn an_entry_in_parts_keeps_all_its_records() {
        let mut ledger = Ledger::new(1);
        let group = GroupId(1);
        ledger.open(50);
        ledger.append(group, &[Run { first: 5, end: 6, place: At { seq: 1, offset: 40, parts: 12 } }, run(6, 7, 13)]);
        assert_eq!(ledger.oldest_live(), 1);
        ledger.truncate(group, 5);
        assert_eq!(ledger.oldest_live(), 51);
    }
}
