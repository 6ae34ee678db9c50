//! The running hash over everything that apply writes: two replicas that applied the same entries
//! to the same state have the same one, and two that do not will not agree again.
//!
//! `h(n) = BLAKE3(h(n−1) · rows written and deleted by entry n · term, index and hash of entry n)`
//!
//! It is written with every checkpoint and goes with every snapshot, so that a restart continues
//! it. At every [`MARK_EVERY`]th entry a mark is kept, so that replicas that are not equally far
//! can still be compared.
//!
//! Not in it: an entity's folded state, which is written at times of each replica's own, and whose
//! encoding a user's type need not make the same each time; its events are.

use super::ledger::LogPlace;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// Entries between two marks.
pub const MARK_EVERY: u64 = 64;
/// Marks kept: a replica further behind than all of them is compared once it has caught up.
pub const MARKS_KEPT: usize = 128;

/// What is written of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// The entry after which it began: 0 for a shard's whole life.
    pub since: u64,
    /// The last entry in it.
    pub index: u64,
    pub hash: [u8; 32],
    pub marks: VecDeque<Mark>,
}

/// The hash after an entry, as it is shown and compared: its first 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    pub index: u64,
    pub hash: u64,
}

/// A replica's running hash over everything that it applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateHash {
    /// The entry after which it began. Only hashes that began at the same one can be compared.
    pub since: u64,
    /// After the last applied entry.
    pub now: Mark,
    /// After earlier ones, oldest first.
    pub marks: Vec<Mark>,
}

/// Where two replicas that could be compared differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compared {
    /// They know the hash of no entry in common, or began at different ones.
    Incomparable,
    Same,
    /// The first entry in common after which they differ.
    DifferAt(u64),
}

impl StateHash {
    /// Nothing was applied yet, not even the entry with index 0: a replica that is still to be filled.
    fn is_blank(&self) -> bool {
        self.now == Mark { index: 0, hash: 0 }
    }

    pub fn compare(&self, other: &Self) -> Compared {
        let points = |hash: &Self| -> BTreeMap<u64, u64> {
            hash.marks.iter().chain([&hash.now]).map(|mark| (mark.index, mark.hash)).collect()
        };
        let (mine, theirs) = (points(self), points(other));
        let mut common =
            mine.iter().filter_map(|(index, hash)| Some((*index, *hash == *theirs.get(index)?))).peekable();
        if self.is_blank() || other.is_blank() || self.since != other.since || common.peek().is_none() {
            return Compared::Incomparable;
        }
        common.find(|(_, same)| !same).map_or(Compared::Same, |(index, _)| Compared::DifferAt(index))
    }
}

#[derive(Default)]
pub struct Chain {
    saved: Saved,
    /// Rows of the entry that is being applied.
    hasher: Box<blake3::Hasher>,
}

impl Chain {
    /// Goes on from what was written, if that is of `applied_index`. Otherwise (it was written by
    /// a build that kept no hash) it begins there.
    pub fn open(saved: Option<Saved>, applied_index: Option<u64>) -> Self {
        let index = applied_index.unwrap_or(0);
        let saved = saved.filter(|saved| saved.index == index);
        Self { saved: saved.unwrap_or(Saved { since: index, index, ..Saved::default() }), hasher: Box::default() }
    }

    pub fn saved(&self) -> &Saved {
        &self.saved
    }

    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        self.part(b'+', key);
        self.hasher.update(&(value.len() as u64).to_le_bytes()).update(value);
    }

    pub fn delete(&mut self, key: &[u8]) {
        self.part(b'-', key);
    }

    fn part(&mut self, what: u8, key: &[u8]) {
        self.hasher.update(&[what]).update(&(key.len() as u64).to_le_bytes()).update(key);
    }

    /// All rows of this entry are in.
    pub fn end(&mut self, place: LogPlace) {
        self.hasher.update(&self.saved.hash);
        self.hasher.update(&place.term.to_le_bytes()).update(&place.index.to_le_bytes());
        self.hasher.update(&place.entry_hash.to_le_bytes());
        self.saved.hash = *self.hasher.finalize().as_bytes();
        self.hasher.reset();
        self.saved.index = place.index;
        if place.index.is_multiple_of(MARK_EVERY) {
            self.saved.marks.push_back(self.now());
            if self.saved.marks.len() > MARKS_KEPT {
                self.saved.marks.pop_front();
            }
        }
    }

    /// An owner's term begins after this entry. A hash that does not reach back to the beginning
    /// (an older build was replaced, on each replica at another place) begins anew here, which is
    /// the same place for all of them.
    pub fn begin_term(&mut self, place: LogPlace) {
        if self.saved.since > 0 {
            self.saved = Saved { since: place.index, index: place.index, ..Saved::default() };
        }
    }

    pub fn shown(&self) -> StateHash {
        StateHash { since: self.saved.since, now: self.now(), marks: self.saved.marks.iter().copied().collect() }
    }

    /// From here on it differs from that of every other replica.
    #[cfg(test)]
    pub fn disturb(&mut self) {
        self.saved.hash[0] ^= 1;
    }

    /// The hash after the last entry.
    pub fn now(&self) -> Mark {
        let mut first = [0; 8];
        first.copy_from_slice(&self.saved.hash[..8]);
        Mark { index: self.saved.index, hash: u64::from_be_bytes(first) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(index: u64) -> LogPlace {
        LogPlace { term: 1, index, entry_hash: 7 }
    }

    fn fill(chain: &mut Chain, entries: std::ops::RangeInclusive<u64>) {
        for index in entries {
            chain.put(&index.to_be_bytes(), b"value");
            chain.end(place(index));
        }
    }

    #[test]
    fn it_tells_rows_deletions_and_entries_apart() {
        let hash = |with: &dyn Fn(&mut Chain)| {
            let mut chain = Chain::default();
            with(&mut chain);
            chain.end(place(1));
            chain.now().hash
        };
        let different = [
            hash(&|_| {}),
            hash(&|c| c.put(b"ab", b"c")),
            hash(&|c| c.put(b"a", b"bc")),
            hash(&|c| c.put(b"ab", b"")),
            hash(&|c| c.delete(b"ab")),
            hash(&|c| {
                c.delete(b"ab");
                c.delete(b"ab");
            }),
        ];
        let unique: std::collections::BTreeSet<_> = different.iter().collect();
        assert_eq!(unique.len(), different.len());
        let mut other = Chain::default();
        other.end(LogPlace { entry_hash: 8, ..place(1) });
        assert_ne!(other.now().hash, different[0], "another entry at the same place");
    }

    #[test]
    fn a_replica_that_is_still_to_be_filled_differs_from_nobody() {
        let (mut filled, blank) = (Chain::default(), Chain::default());
        filled.end(place(0));
        assert_eq!(filled.shown().marks.len(), 1, "its first entry");
        for (one, other) in [(&filled, &blank), (&blank, &filled), (&blank, &blank)] {
            assert_eq!(one.shown().compare(&other.shown()), Compared::Incomparable);
        }
        assert_eq!(filled.shown().compare(&filled.shown()), Compared::Same);
    }

    #[test]
    fn a_difference_never_heals() {
        let (mut a, mut b) = (Chain::default(), Chain::default());
        fill(&mut a, 1..=3);
        fill(&mut b, 1..=3);
        assert_eq!(a.now(), b.now());
        a.put(b"x", b"1");
        b.put(b"x", b"2");
        fill(&mut a, 4..=300);
        fill(&mut b, 4..=300);
        assert_ne!(a.now(), b.now());
        let marks = |chain: &Chain| chain.saved().marks.iter().map(|mark| mark.index).collect::<Vec<_>>();
        assert_eq!((marks(&a), marks(&b)), (vec![64, 128, 192, 256], vec![64, 128, 192, 256]));
        assert!(a.saved().marks.iter().zip(&b.saved().marks).all(|(a, b)| a.hash != b.hash));
    }

    #[test]
    fn a_restart_goes_on_where_it_was_written() {
        let mut whole = Chain::default();
        fill(&mut whole, 1..=100);
        let mut first = Chain::default();
        fill(&mut first, 1..=70);
        let mut second = Chain::open(Some(first.saved().clone()), Some(70));
        fill(&mut second, 71..=100);
        assert_eq!(second.saved(), whole.saved());
    }

    #[test]
    fn replicas_that_began_at_different_places_agree_from_the_next_term_on() {
        let (mut a, mut b) = (Chain::open(None, Some(10)), Chain::open(None, Some(12)));
        fill(&mut a, 11..=20);
        fill(&mut b, 13..=20);
        assert_ne!(a.saved().since, b.saved().since);
        for chain in [&mut a, &mut b] {
            chain.end(place(21));
            chain.begin_term(place(21));
            fill(chain, 22..=30);
        }
        assert_eq!((a.saved(), a.saved().since), (b.saved(), 21));
        let mut whole = Chain::default();
        fill(&mut whole, 1..=2);
        whole.begin_term(place(2));
        assert_eq!(whole.saved().since, 0, "one that reaches back to the beginning goes on");
    }

    #[test]
    fn the_marks_are_bounded() {
        let mut chain = Chain::default();
        fill(&mut chain, 1..=MARK_EVERY * (MARKS_KEPT as u64 + 5));
        assert_eq!(chain.saved().marks.len(), MARKS_KEPT);
        assert_eq!(chain.saved().marks.front().map(|mark| mark.index), Some(6 * MARK_EVERY));
    }

    #[test]
    fn a_hash_of_another_place_is_not_gone_on_with() {
        let mut old = Chain::default();
        fill(&mut old, 1..=5);
        let chain = Chain::open(Some(old.saved().clone()), Some(9));
        assert_eq!((chain.saved().since, chain.saved().index, chain.saved().hash), (9, 9, [0; 32]));
    }

    #[test]
    fn replicas_are_compared_where_both_have_been() {
        let mut ahead = Chain::default();
        fill(&mut ahead, 1..=200);
        let mut behind = Chain::default();
        fill(&mut behind, 1..=130);
        assert_eq!(ahead.shown().compare(&behind.shown()), Compared::Same);
        behind.disturb();
        fill(&mut behind, 131..=200);
        assert_eq!(ahead.shown().compare(&behind.shown()), Compared::DifferAt(192));
        let later = Chain::open(None, Some(200));
        assert_eq!(ahead.shown().compare(&later.shown()), Compared::Incomparable, "it began elsewhere");
        let mut young = Chain::default();
        fill(&mut young, 1..=3);
        assert_eq!(ahead.shown().compare(&young.shown()), Compared::Incomparable, "nothing in common yet");
    }
}
