//! Changed rows by key: found by a hash, and put in order only where somebody walks them.
//!
//! Nearly all rows are written, read and erased by their whole keys, and keys of one kind begin alike, which
//! makes them dear to compare. So order is kept of those kinds only that somebody has walked since the last
//! checkpoint: a row's kind is the first byte of its key.

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use std::{
    collections::{BTreeSet, HashMap, hash_map::Entry},
    ops::Bound,
};

/// What is known of a row: its value, or that it is erased.
pub type Change = Option<Bytes>;

#[derive(Default)]
pub struct Changes {
    rows: Rows,
    /// Of keys and values, each time that they were written.
    bytes: usize,
    order: Mutex<Order>,
}

type Rows = HashMap<Bytes, Row>;

#[derive(Clone)]
struct Row {
    change: Change,
    /// It is in no store yet: erasing it leaves nothing to delete there.
    fresh: bool,
}

/// The keys of the rows of some kinds.
#[derive(Clone, Default)]
struct Order {
    kinds: BTreeSet<u8>,
    keys: BTreeSet<Bytes>,
}

impl Changes {
    pub fn get(&self, key: &[u8]) -> Option<&Change> {
        self.rows.get(key).map(|row| &row.change)
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Bytes, &Change)> {
        self.rows.iter().map(|(key, row)| (key, &row.change))
    }

    /// A row has this value. `fresh`: if it was not changed before, it is in no store.
    pub fn put(&mut self, key: Vec<u8>, value: Bytes, fresh: bool) {
        self.bytes += key.len() + value.len();
        self.set(key, Some(value), fresh);
    }

    /// A row is erased, and has to be in the store as well.
    pub fn erase(&mut self, key: Vec<u8>) {
        self.bytes += key.len();
        self.set(key, None, false);
    }

    /// A row is erased: if it is fresh there is nothing left of it.
    pub fn withdraw(&mut self, key: Vec<u8>) {
        if !self.rows.get(key.as_slice()).is_some_and(|row| row.fresh) {
            return self.erase(key);
        }
        if let Some(Row { change: Some(value), .. }) = self.rows.remove(key.as_slice()) {
            self.bytes = self.bytes.saturating_sub(key.len() + value.len());
        }
        self.order.get_mut().keys.remove(key.as_slice());
    }

    fn set(&mut self, key: Vec<u8>, change: Change, fresh: bool) {
        match self.rows.entry(Bytes::from(key)) {
            Entry::Occupied(mut row) => row.get_mut().change = change,
            Entry::Vacant(place) => {
                self.order.get_mut().add(place.key());
                place.insert(Row { change, fresh });
            }
        }
    }

    /// The rows from `start` to before `end`, to be walked in key order.
    pub fn walk<'a>(&'a self, start: &'a [u8], end: &'a [u8]) -> Walk<'a> {
        let mut order = self.order.lock();
        order.cover(start, end, &self.rows);
        Walk { rows: &self.rows, order, start, end }
    }
}

impl Clone for Changes {
    fn clone(&self) -> Self {
        let order = Mutex::new(self.order.lock().clone());
        Self { rows: self.rows.clone(), bytes: self.bytes, order }
    }
}

impl Order {
    fn add(&mut self, key: &Bytes) {
        if self.kinds.contains(&kind(key)) {
            self.keys.insert(key.clone());
        }
    }

    /// Has all kinds of rows from `start` to before `end`.
    fn cover(&mut self, start: &[u8], end: &[u8], rows: &Rows) {
        let last = match end {
            // The first byte alone is before all rows of its kind.
            [next] => next.saturating_sub(1),
            _ => kind(end),
        };
        let missing: BTreeSet<u8> = (kind(start)..=last).filter(|kind| !self.kinds.contains(kind)).collect();
        if !missing.is_empty() {
            self.keys.extend(rows.keys().filter(|key| missing.contains(&kind(key))).cloned());
            self.kinds.extend(missing);
        }
    }
}

fn kind(key: &[u8]) -> u8 {
    key.first().copied().unwrap_or(0)
}

/// Rows of a range, while nobody else walks them.
pub struct Walk<'a> {
    rows: &'a Rows,
    order: MutexGuard<'a, Order>,
    start: &'a [u8],
    end: &'a [u8],
}

impl Walk<'_> {
    pub fn rows(&self) -> impl Iterator<Item = (&Bytes, &Change)> {
        let range = (Bound::Included(self.start), Bound::Excluded(self.end));
        let keys = self.order.keys.range::<[u8], _>(range);
        keys.filter_map(|key| self.rows.get(key).map(|row| (key, &row.change)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(changes: &Changes, start: &[u8], end: &[u8]) -> Vec<Vec<u8>> {
        changes.walk(start, end).rows().map(|(key, _)| key.to_vec()).collect()
    }

    #[test]
    fn a_range_has_the_rows_of_all_its_kinds_and_no_others() {
        let mut changes = Changes::default();
        for key in ["", "a", "a1", "b2", "b1", "c", "c1"] {
            changes.put(key.into(), Bytes::new(), false);
        }
        changes.erase(b"b3".to_vec());
        let all: Vec<&[u8]> = vec![b"", b"a", b"a1", b"b1", b"b2", b"b3", b"c", b"c1"];
        assert_eq!(keys(&changes, b"b", b"c"), all[3..6]);
        assert_eq!(changes.order.lock().kinds, [b'b'].into(), "nobody has walked the others");
        assert_eq!(keys(&changes, b"a1", b"b2"), all[2..4]);
        assert_eq!(keys(&changes, b"", b"d"), all);
        assert_eq!(keys(&changes, b"c", b"c1"), all[6..7]);
        assert_eq!(keys(&changes, b"", b"a"), all[..1]);
    }

    #[test]
    fn a_row_that_is_gone_is_in_no_range_and_one_that_came_back_is_there_once() {
        let mut changes = Changes::default();
        let fresh = |changes: &mut Changes, key: &str| changes.put(key.into(), Bytes::from_static(b"value"), true);
        ["k1", "k2", "k3"].iter().for_each(|key| fresh(&mut changes, key));
        changes.withdraw(b"k1".to_vec());
        assert_eq!(keys(&changes, b"k", b"l"), [b"k2", b"k3"]);
        changes.withdraw(b"k2".to_vec());
        fresh(&mut changes, "k1");
        changes.withdraw(b"k1".to_vec());
        fresh(&mut changes, "k1");
        assert_eq!(keys(&changes, b"k", b"l"), [b"k1", b"k3"]);
        assert_eq!(changes.bytes(), 2 * 7);
        assert_eq!(changes.iter().count(), 2);
    }

    #[test]
    fn rows_that_come_and_go_leave_nothing_behind() {
        let mut changes = Changes::default();
        for walked in [false, true] {
            for number in 0..1000_u32 {
                let key = [b"o".as_slice(), &number.to_be_bytes()].concat();
                changes.put(key.clone(), Bytes::new(), true);
                changes.withdraw(key);
            }
            assert_eq!((changes.bytes(), changes.iter().count(), keys(&changes, b"o", b"p").len()), (0, 0, 0));
            assert!(changes.order.lock().keys.is_empty(), "walked before: {walked}");
        }
    }
}
