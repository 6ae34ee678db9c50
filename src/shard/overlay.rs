//! A write-back cache over the state store: changes since the last checkpoint in memory, the rest
//! on disk.

mod changes;

use super::{chain::Chain, keys};
use crate::storage::{Error, GroupId, StateChange, StateRead, Storage};
use bytes::Bytes;
use changes::{Change, Changes};
use std::{collections::BTreeMap, sync::Arc};

pub struct Overlay {
    /// Over all that is put and deleted.
    pub chain: Chain,
    storage: Arc<dyn Storage>,
    /// What is under the changes: the store, or a pin of it.
    reads: Arc<dyn StateRead>,
    group: GroupId,
    generation: u32,
    prefix: Vec<u8>,
    dirty: Changes,
    /// Handed to the store, not yet known to be durable (and perhaps not yet readable there).
    flushing: Option<Arc<Changes>>,
}

impl Overlay {
    pub fn open(storage: Arc<dyn Storage>, group: GroupId) -> Result<Self, Error> {
        let generation = read_generation(&*storage, group)?;
        let prefix = keys::prefix(group, generation);
        Ok(Self {
            chain: Chain::default(),
            reads: storage.clone(),
            storage,
            group,
            generation,
            prefix,
            dirty: Changes::default(),
            flushing: None,
        })
    }

    /// What is there now, to be read for as long as this is kept, whatever is written and flushed
    /// since. Copies what is in memory. The chain is not in it, and it is not to be written or pinned.
    pub fn pin(&self) -> Overlay {
        Overlay {
            chain: Chain::default(),
            storage: self.storage.clone(),
            reads: self.storage.pin(self.group),
            group: self.group,
            generation: self.generation,
            prefix: self.prefix.clone(),
            dirty: self.dirty.clone(),
            // How much of it the store has by now does not show: it lies over all of it.
            flushing: self.flushing.clone(),
        }
    }

    pub fn generation(&self) -> u32 {
        self.generation
    }

    pub fn group(&self) -> GroupId {
        self.group
    }

    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    pub fn dirty_bytes(&self) -> usize {
        self.dirty.bytes()
    }

    pub fn put(&mut self, key: Vec<u8>, value: impl Into<Bytes>) {
        let value = value.into();
        self.chain.put(&key, &value);
        self.write(key, value);
    }

    /// As [`Overlay::put`], for what a checkpoint adds by itself: each replica takes its own.
    pub fn write(&mut self, key: Vec<u8>, value: impl Into<Bytes>) {
        self.dirty.put(key, value.into(), false);
    }

    /// As [`Overlay::put`], for a key that is absent just now: numbers that are given out once. If it is deleted
    /// before the next checkpoint, it never reaches the disk, unless it was there at the last one: what a restore
    /// that was given up has left behind goes under the same numbers.
    pub fn put_new(&mut self, key: Vec<u8>, value: impl Into<Bytes>) {
        let value = value.into();
        self.chain.put(&key, &value);
        self.write_absent(key, value);
    }

    /// As [`Overlay::write`], for a key that is absent just now. It costs the disk nothing if it is
    /// withdrawn before the next checkpoint, unless it was there at the last one.
    pub fn write_absent(&mut self, key: Vec<u8>, value: impl Into<Bytes>) {
        self.dirty.put(key, value.into(), true);
    }

    pub fn delete(&mut self, key: Vec<u8>) {
        self.chain.delete(&key);
        self.withdraw(key);
    }

    /// As [`Overlay::delete`], for what was written by [`Overlay::write_absent`].
    pub fn withdraw(&mut self, key: Vec<u8>) {
        self.dirty.withdraw(key);
    }

    /// As [`Overlay::delete`], for what was written by [`Overlay::write`].
    pub fn erase(&mut self, key: Vec<u8>) {
        self.dirty.erase(key);
    }

    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        if let Some(change) = self.dirty.get(key) {
            return Ok(change.clone());
        }
        if let Some(change) = self.flushing.as_ref().and_then(|f| f.get(key)) {
            return Ok(change.clone());
        }
        self.reads.get(&self.full(key))
    }

    /// Up to `limit` pairs with `start <= key < end`, in key order.
    pub fn scan(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Bytes)>, Error> {
        if start >= end || limit == 0 {
            return Ok(Vec::new());
        }
        let changes = self.changes(start, end, limit);
        // Each deletion may hide one stored pair, so that many more have to be read.
        let deletions = changes.iter().filter(|(_, change)| change.is_none()).count();
        let stored = self.reads.scan(&self.full(start), &self.full(end), limit + deletions)?;
        let mut merged: BTreeMap<Vec<u8>, Bytes> =
            stored.into_iter().map(|(k, v)| (k[self.prefix.len()..].to_vec(), v)).collect();
        for (key, change) in changes {
            match change {
                Some(value) => merged.insert(key.into(), value),
                None => merged.remove(&*key),
            };
        }
        Ok(merged.into_iter().take(limit).collect())
    }

    /// Changes in a range, in key order; of two to one key the newer. Not beyond the `limit`-th that
    /// is no deletion: what lies behind it is not among the first `limit` pairs.
    fn changes(&self, start: &[u8], end: &[u8], limit: usize) -> Vec<(Bytes, Change)> {
        let (older, newer) =
            (self.flushing.as_ref().map(|flushing| flushing.walk(start, end)), self.dirty.walk(start, end));
        let mut older = older.iter().flat_map(|older| older.rows()).peekable();
        let mut newer = newer.rows().peekable();
        let (mut changes, mut pairs) = (Vec::new(), 0);
        while pairs < limit {
            let next = match (older.peek(), newer.peek()) {
                (Some((old, _)), Some((new, _))) if old < new => older.next(),
                (Some((old, _)), Some((new, _))) => {
                    if old == new {
                        older.next();
                    }
                    newer.next()
                }
                (Some(_), None) => older.next(),
                (None, _) => newer.next(),
            };
            let Some((key, change)) = next else { break };
            pairs += usize::from(change.is_some());
            changes.push((key.clone(), change.clone()));
        }
        changes
    }

    /// Moves the changes out for one atomic write. [`Overlay::flushed`] must follow before the
    /// next call.
    pub fn begin_flush(&mut self) -> Vec<StateChange> {
        debug_assert!(self.flushing.is_none(), "one flush at a time");
        let changes = Arc::new(std::mem::take(&mut self.dirty));
        self.flushing = Some(changes.clone());
        changes.iter().map(|(key, change)| (self.full(key), change.clone())).collect()
    }

    /// The write of [`Overlay::begin_flush`] is durable. Answers what it was: thousands of small pieces, to be
    /// dropped where nobody waits.
    pub fn flushed(&mut self) -> impl Sized + use<> {
        self.flushing.take()
    }

    fn full(&self, key: &[u8]) -> Vec<u8> {
        [&self.prefix, key].concat()
    }
}

pub fn read_generation(storage: &dyn Storage, group: GroupId) -> Result<u32, Error> {
    let stored = storage.get(&keys::generation(group))?;
    let bytes = stored.as_deref().and_then(|b| b.try_into().ok());
    Ok(bytes.map_or(0, u32::from_be_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{MemoryStorage, Write};
    use proptest::{collection::vec, prelude::*};

    /// Of two kinds.
    fn key(key: u8) -> Vec<u8> {
        vec![if key < 6 { b'k' } else { b'l' }, key]
    }

    #[derive(Debug, Clone)]
    enum Step {
        Put(u8),
        /// By [`Overlay::put_new`], where there is nothing.
        PutNew(u8),
        Delete(u8),
        /// By [`Overlay::erase`], whatever is there.
        Erase(u8),
        Begin,
        Written,
        Flushed,
        Pin,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0..12u8).prop_map(Step::Put),
            2 => (0..12u8).prop_map(Step::PutNew),
            5 => (0..12u8).prop_map(Step::Delete),
            1 => (0..12u8).prop_map(Step::Erase),
            1 => Just(Step::Begin),
            1 => Just(Step::Written),
            1 => Just(Step::Flushed),
            1 => Just(Step::Pin),
        ];
        vec(step, 0..80)
    }

    fn assert_shows(overlay: &Overlay, model: &BTreeMap<Vec<u8>, Bytes>) {
        for limit in [1, 3, 100] {
            let expected = model.range(key(2)..key(9)).take(limit).map(|(k, v)| (k.clone(), v.clone()));
            let expected: Vec<_> = expected.collect();
            assert_eq!(overlay.scan(&key(2), &key(9), limit).expect("read"), expected);
        }
        assert_eq!(overlay.get(&key(5)).expect("read"), model.get(&key(5)).cloned());
    }

    /// Beside a plain map: what is there, whatever is in memory, on its way or on disk. And pins: what was
    /// there when they were taken.
    fn follows(steps: Vec<Step>) {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        let mut overlay = Overlay::open(storage.clone(), GroupId(1)).expect("opens");
        let mut model = BTreeMap::new();
        let (mut is_flushing, mut on_its_way) = (false, None);
        let mut pins: Vec<(Overlay, BTreeMap<Vec<u8>, Bytes>)> = Vec::new();
        let write = |changes: Option<Vec<StateChange>>| {
            if let Some(changes) = changes {
                futures::executor::block_on(storage.write(Write::State(changes))).expect("written");
            }
        };
        for (at, step) in steps.into_iter().enumerate() {
            let value = Bytes::from(vec![at as u8]);
            match step {
                Step::Put(k) if model.insert(key(k), value.clone()).is_none() => overlay.write_absent(key(k), value),
                Step::Put(k) => overlay.write(key(k), value),
                Step::PutNew(k) if model.contains_key(&key(k)) => {}
                Step::PutNew(k) => {
                    model.insert(key(k), value.clone());
                    overlay.put_new(key(k), value);
                }
                Step::Delete(k) => {
                    if model.remove(&key(k)).is_some() {
                        overlay.withdraw(key(k));
                    }
                }
                Step::Erase(k) => {
                    model.remove(&key(k));
                    overlay.erase(key(k));
                }
                Step::Begin if !is_flushing => {
                    on_its_way = Some(overlay.begin_flush());
                    is_flushing = true;
                }
                Step::Written => write(on_its_way.take()),
                Step::Flushed if is_flushing => {
                    write(on_its_way.take());
                    overlay.flushed();
                    is_flushing = false;
                }
                Step::Begin | Step::Flushed => {}
                Step::Pin => pins.push((overlay.pin(), model.clone())),
            }
            assert_shows(&overlay, &model);
            pins.iter().for_each(|(pin, then)| assert_shows(pin, then));
        }
        write(on_its_way.take());
        overlay.flushed();
        write(Some(overlay.begin_flush()));
        overlay.flushed();
        pins.iter().for_each(|(pin, then)| assert_shows(pin, then));
        let reopened = Overlay::open(storage.clone(), GroupId(1)).expect("opens");
        let left: BTreeMap<_, _> = reopened.scan(b"k", b"m", 100).expect("read").into_iter().collect();
        assert_eq!(left, model, "what was deleted must not come back");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_is_there_and_what_pins_show_does_not_depend_on_when_it_was_flushed(steps in steps()) {
            follows(steps);
        }
    }
}
