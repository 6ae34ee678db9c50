//! A write-back cache over the state store: changes since the last checkpoint in memory, the rest
//! on disk.

use super::{chain::Chain, keys};
use crate::storage::{Error, GroupId, StateChange, Storage};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

type Changes = BTreeMap<Vec<u8>, Option<Bytes>>;

/// Keys that are in no store yet: dropping one of them leaves nothing to delete.
type Fresh = HashSet<Vec<u8>>;

pub struct Overlay {
    /// Over all that is put and deleted.
    pub chain: Chain,
    storage: Arc<dyn Storage>,
    group: GroupId,
    generation: u32,
    prefix: Vec<u8>,
    dirty: Changes,
    dirty_bytes: usize,
    fresh: Fresh,
    /// Handed to the store, not yet known to be durable (and perhaps not yet readable there).
    flushing: Option<Arc<Changes>>,
}

impl Overlay {
    pub fn open(storage: Arc<dyn Storage>, group: GroupId) -> Result<Self, Error> {
        let generation = read_generation(&*storage, group)?;
        let prefix = keys::prefix(group, generation);
        Ok(Self {
            chain: Chain::default(),
            storage,
            group,
            generation,
            prefix,
            dirty: Changes::new(),
            dirty_bytes: 0,
            fresh: Fresh::new(),
            flushing: None,
        })
    }

    pub fn generation(&self) -> u32 {
        self.generation
    }

    pub fn group(&self) -> GroupId {
        self.group
    }

    pub fn dirty_bytes(&self) -> usize {
        self.dirty_bytes
    }

    pub fn put(&mut self, key: Vec<u8>, value: impl Into<Bytes>) {
        let value = value.into();
        self.chain.put(&key, &value);
        self.write(key, value);
    }

    /// As [`Overlay::put`], for what a checkpoint adds by itself: each replica takes its own.
    pub fn write(&mut self, key: Vec<u8>, value: impl Into<Bytes>) {
        let value = value.into();
        self.dirty_bytes += key.len() + value.len();
        self.dirty.insert(key, Some(value));
    }

    /// As [`Overlay::put`], for a key that was never written before: numbers that are given out
    /// once. If it is deleted before the next checkpoint, it never reaches the disk.
    pub fn put_new(&mut self, key: Vec<u8>, value: impl Into<Bytes>) {
        self.fresh.insert(key.clone());
        self.put(key, value);
    }

    pub fn delete(&mut self, key: Vec<u8>) {
        self.chain.delete(&key);
        if self.fresh.remove(&key) {
            if let Some(Some(value)) = self.dirty.remove(&key) {
                self.dirty_bytes = self.dirty_bytes.saturating_sub(key.len() + value.len());
            }
            return;
        }
        self.erase(key);
    }

    /// As [`Overlay::delete`], for what was written by [`Overlay::write`].
    pub fn erase(&mut self, key: Vec<u8>) {
        self.dirty_bytes += key.len();
        self.dirty.insert(key, None);
    }

    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        if let Some(change) = self.dirty.get(key) {
            return Ok(change.clone());
        }
        if let Some(change) = self.flushing.as_ref().and_then(|f| f.get(key)) {
            return Ok(change.clone());
        }
        self.storage.get(&self.full(key))
    }

    /// Up to `limit` pairs with `start <= key < end`, in key order.
    pub fn scan(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Bytes)>, Error> {
        if start >= end || limit == 0 {
            return Ok(Vec::new());
        }
        let range = || (std::ops::Bound::Included(start.to_vec()), std::ops::Bound::Excluded(end.to_vec()));
        let mut changes: BTreeMap<&[u8], &Option<Bytes>> = BTreeMap::new();
        if let Some(flushing) = &self.flushing {
            changes.extend(flushing.range(range()).map(|(k, v)| (k.as_slice(), v)));
        }
        changes.extend(self.dirty.range(range()).map(|(k, v)| (k.as_slice(), v)));
        // Each deletion may hide one stored pair, so that many more have to be read.
        let deletions = changes.values().filter(|v| v.is_none()).count();
        let stored = self.storage.scan(&self.full(start), &self.full(end), limit + deletions)?;
        let mut merged: BTreeMap<Vec<u8>, Bytes> =
            stored.into_iter().map(|(k, v)| (k[self.prefix.len()..].to_vec(), v)).collect();
        for (key, change) in changes {
            match change {
                Some(value) => merged.insert(key.to_vec(), value.clone()),
                None => merged.remove(key),
            };
        }
        Ok(merged.into_iter().take(limit).collect())
    }

    /// Moves the changes out for one atomic write. [`Overlay::flushed`] must follow before the
    /// next call.
    pub fn begin_flush(&mut self) -> Vec<StateChange> {
        debug_assert!(self.flushing.is_none(), "one flush at a time");
        let changes = Arc::new(std::mem::take(&mut self.dirty));
        self.dirty_bytes = 0;
        self.fresh.clear();
        self.flushing = Some(changes.clone());
        changes.iter().map(|(k, v)| (self.full(k), v.clone())).collect()
    }

    /// The write of [`Overlay::begin_flush`] is durable.
    pub fn flushed(&mut self) {
        self.flushing = None;
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
