//! The consecutive entries of one group, in runs that share a place.

use std::{collections::VecDeque, ops::Range};

/// Entries `first..end`, all found at `place`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run<P> {
    pub first: u64,
    pub end: u64,
    pub place: P,
}

/// Where stored entries are: a block in a record, or one large entry over several records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct At {
    /// Sequence number of the (first) record.
    pub seq: u64,
    /// Where the block starts in the record, in bytes.
    pub offset: u32,
    /// Number of consecutive records, each holding one part of one entry; 0 for a whole block.
    pub parts: u32,
}

impl At {
    /// Sequence numbers of the records it needs.
    pub fn records(&self) -> Range<u64> {
        self.seq..self.seq + u64::from(self.parts.max(1))
    }
}

/// Runs in index order, without holes and without empty runs.
#[derive(Debug)]
pub(super) struct Runs<P> {
    list: VecDeque<Run<P>>,
}

impl<P> Default for Runs<P> {
    fn default() -> Self {
        Self { list: VecDeque::new() }
    }
}

impl<P: Clone + PartialEq> Runs<P> {
    /// Index range of all entries; `None` if there are none.
    pub fn range(&self) -> Option<Range<u64>> {
        Some(self.list.front()?.first..self.list.back()?.end)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Run<P>> {
        self.list.iter()
    }

    /// Adds entries at the end; the caller has made room by `truncate` and leaves no hole.
    pub fn push(&mut self, first: u64, end: u64, place: P) {
        if first >= end {
            return;
        }
        match self.list.back_mut() {
            Some(last) if last.place == place && last.end == first => last.end = end,
            last => {
                assert!(last.is_none_or(|last| last.end == first), "a hole before entry {first}");
                self.list.push_back(Run { first, end, place });
            }
        }
    }

    /// Removes entries at `from` and above, telling how many at which place.
    pub fn truncate(&mut self, from: u64, mut gone: impl FnMut(&P, u64)) {
        while let Some(last) = self.list.back_mut() {
            if last.end <= from {
                return;
            }
            if last.first < from {
                gone(&last.place, last.end - from);
                last.end = from;
                return;
            }
            gone(&last.place, last.end - last.first);
            self.list.pop_back();
        }
    }

    /// Removes entries at `upto` and below, telling how many at which place.
    pub fn purge(&mut self, upto: u64, mut gone: impl FnMut(&P, u64)) {
        let next = upto + 1;
        while let Some(run) = self.list.front_mut() {
            if run.first >= next {
                return;
            }
            if run.end > next {
                gone(&run.place, next - run.first);
                run.first = next;
                return;
            }
            gone(&run.place, run.end - run.first);
            self.list.pop_front();
        }
    }

    /// The runs that hold entries of `range`, cut to it.
    pub fn within(&self, range: Range<u64>) -> impl Iterator<Item = Run<P>> + '_ {
        let start = self.list.partition_point(|run| run.end <= range.start);
        self.list.iter().skip(start).take_while(move |run| run.first < range.end).map(move |run| Run {
            first: run.first.max(range.start),
            end: run.end.min(range.end),
            place: run.place.clone(),
        })
    }

    /// Gives new places to what is left of the run that starts at or covers `first` and is at
    /// `place`. `pieces` cover the run in index order.
    pub fn replace(&mut self, first: u64, place: &P, pieces: impl Iterator<Item = Run<P>>) {
        let at = self.list.partition_point(|run| run.end <= first);
        if self.list.get(at).is_none_or(|run| run.place != *place) {
            return;
        }
        let Some(old) = self.list.remove(at) else { return };
        let mut at = at;
        for piece in pieces {
            let (first, end) = (piece.first.max(old.first), piece.end.min(old.end));
            if first >= end {
                continue;
            }
            match at.checked_sub(1).and_then(|before| self.list.get_mut(before)) {
                Some(before) if before.place == piece.place && before.end == first => before.end = end,
                _ => {
                    self.list.insert(at, Run { first, end, place: piece.place });
                    at += 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(list: &[(u64, u64, char)]) -> Runs<char> {
        let mut runs = Runs::default();
        list.iter().for_each(|(first, end, place)| runs.push(*first, *end, *place));
        runs
    }

    fn list(runs: &Runs<char>) -> Vec<(u64, u64, char)> {
        runs.iter().map(|r| (r.first, r.end, r.place)).collect()
    }

    #[test]
    fn truncation_and_purge_cut_runs_and_report_what_went() {
        let mut runs = runs(&[(5, 8, 'a'), (8, 10, 'b'), (10, 15, 'c')]);
        let mut gone = Vec::new();
        runs.truncate(9, |place, count| gone.push((*place, count)));
        runs.purge(5, |place, count| gone.push((*place, count)));
        assert_eq!(list(&runs), [(6, 8, 'a'), (8, 9, 'b')]);
        assert_eq!(gone, [('c', 5), ('b', 1), ('a', 1)]);
        runs.purge(100, |_, _| ());
        assert_eq!(runs.range(), None);
    }

    #[test]
    fn a_replaced_run_keeps_only_what_was_not_cut_meanwhile() {
        let mut runs = runs(&[(1, 4, 'a'), (4, 10, 'q')]);
        runs.truncate(8, |_, _| ());
        let pieces = [Run { first: 4, end: 6, place: 'a' }, Run { first: 6, end: 10, place: 'b' }];
        runs.replace(4, &'q', pieces.into_iter());
        assert_eq!(list(&runs), [(1, 6, 'a'), (6, 8, 'b')]);
    }

    #[test]
    fn a_run_that_was_cut_off_and_written_over_is_not_replaced() {
        let mut runs = runs(&[(1, 4, 'q')]);
        runs.truncate(1, |_, _| ());
        runs.push(1, 3, 'r');
        runs.replace(1, &'q', [Run { first: 1, end: 4, place: 'a' }].into_iter());
        assert_eq!(list(&runs), [(1, 3, 'r')]);
    }
}
