//! A reader that outlives merges.

use super::{List, Pairs, StateStore, manifest::Partition};
use crate::storage::Error;
use bytes::Bytes;
use std::ops::Range;

/// A group's partition as it was. It holds the runs that it reads, so their blocks stay.
pub(in crate::storage) struct Pin {
    pub(super) store: StateStore,
    pub(super) partition: Partition,
    pub(super) list: List,
}

impl Pin {
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        // A shorter key can be in the partition, but is not the group's.
        if !key.starts_with(&self.partition) {
            return Ok(None);
        }
        self.store.find(&self.list, key)
    }

    /// Up to `limit` pairs in key order.
    pub fn scan(&self, range: Range<&[u8]>, limit: usize) -> Result<Pairs, Error> {
        // Shorter keys of the partition are below all of the group's.
        let range = range.start.max(&self.partition)..range.end;
        let mut found = Pairs::new();
        if range.start < range.end {
            self.store.collect(&self.list, &range, limit, &mut found)?;
        }
        Ok(found)
    }
}
