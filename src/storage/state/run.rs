//! A run: sorted pairs in blocks, written once.
//!
//! The blocks are in sled, in chunks of at most [`CHUNK_BYTES_MAX`]; what is needed to find a pair (the
//! first key of every block, a filter) is in memory, rebuilt when the store is opened.

use super::{
    block::{Block, Builder},
    filter::Filter,
    manifest::Entry,
};
use crate::storage::{Error, record::truncated};
use bytes::Bytes;
use sled::{IVec, Tree};
use std::{ops::Bound, sync::Arc};

/// sled keeps values of this size inside its log.
const CHUNK_BYTES_MAX: usize = 96 << 10;
/// Before the keys of all chunks: run u64 be, block u32 be, chunk u16 be.
pub(super) const CHUNK: u8 = b'b';
pub(super) const CHUNK_KEY_BYTES: usize = 15;

#[derive(Debug)]
pub(super) struct Run {
    pub entry: Entry,
    /// First key of every block.
    firsts: Vec<Box<[u8]>>,
    last: Box<[u8]>,
    filter: Filter,
}

/// A run is damaged: nobody who reads one can have its blocks deleted under him.
fn broken(run: u64, detail: impl Into<String>) -> Error {
    Error::Corrupt { place: format!("run {run} of the state store"), detail: detail.into() }
}

impl Run {
    /// Reads and checks a run that the manifest names.
    pub fn load(tree: &Tree, entry: Entry) -> Result<Self, Error> {
        let mut run = Self { entry, firsts: Vec::new(), last: Box::default(), filter: Filter::new(entry.pairs) };
        let (mut hasher, mut pairs) = (blake3::Hasher::new(), 0);
        for number in 0..entry.blocks {
            let block = run.block(tree, number)?;
            hasher.update(block.bytes());
            pairs += block.len() as u64;
            (0..block.len()).for_each(|at| run.filter.insert(block.key(at)));
            let last = block.len().checked_sub(1).ok_or_else(|| broken(entry.id, "an empty block"))?;
            run.firsts.push(block.key(0).into());
            run.last = block.key(last).into();
        }
        if truncated(hasher.finalize()) != entry.hash || pairs != entry.pairs {
            return Err(broken(entry.id, "its blocks are not those that were written"));
        }
        Ok(run)
    }

    /// What this run says of `key`: nothing, that it is deleted, or its value.
    pub fn find(&self, tree: &Tree, key: &[u8]) -> Result<Option<Option<Bytes>>, Error> {
        let covers = self.firsts.first().is_some_and(|first| first.as_ref() <= key) && key <= self.last.as_ref();
        if !covers || !self.filter.may_hold(key) {
            return Ok(None);
        }
        Ok(self.block(tree, self.block_of(key))?.find(key))
    }

    /// Number of the block that holds `key`, if any does.
    fn block_of(&self, key: &[u8]) -> u32 {
        self.firsts.partition_point(|first| first.as_ref() <= key).saturating_sub(1) as u32
    }

    fn block(&self, tree: &Tree, number: u32) -> Result<Block, Error> {
        let run = self.entry.id;
        let broken = |detail: &str| broken(run, format!("block {number}: {detail}"));
        let bytes = read_chunks(tree, run, number).map_err(|e| broken(&e.to_string()))?;
        let bytes = bytes.ok_or_else(|| broken("missing"))?;
        Block::open(run, number, bytes).ok_or_else(|| broken("the checksum does not match"))
    }
}

fn chunk_key(run: u64, block: u32, chunk: u16) -> [u8; CHUNK_KEY_BYTES] {
    let mut key = [CHUNK; CHUNK_KEY_BYTES];
    key[1..9].copy_from_slice(&run.to_be_bytes());
    key[9..13].copy_from_slice(&block.to_be_bytes());
    key[13..].copy_from_slice(&chunk.to_be_bytes());
    key
}

/// Number of the run that a chunk belongs to.
pub(super) fn run_of(chunk_key: &[u8]) -> Option<u64> {
    let (run, _) = chunk_key.strip_prefix(&[CHUNK])?.split_first_chunk::<8>()?;
    Some(u64::from_be_bytes(*run))
}

fn read_chunks(tree: &Tree, run: u64, block: u32) -> sled::Result<Option<IVec>> {
    let Some(first) = tree.get(chunk_key(run, block, 0))? else { return Ok(None) };
    if first.len() < CHUNK_BYTES_MAX {
        return Ok(Some(first));
    }
    let mut all = first.to_vec();
    for chunk in 1..=u16::MAX {
        let Some(next) = tree.get(chunk_key(run, block, chunk))? else { break };
        all.extend_from_slice(&next);
    }
    Ok(Some(all.into()))
}

/// Deletes all blocks of a run.
pub(super) fn delete(tree: &Tree, run: u64) -> sled::Result<()> {
    for key in tree.range(chunk_key(run, 0, 0)..=chunk_key(run, u32::MAX, u16::MAX)).keys() {
        tree.remove(key?)?;
    }
    Ok(())
}

/// Writes a run, pair by pair, in key order.
pub(super) struct Writer<'a> {
    tree: &'a Tree,
    id: u64,
    block: Builder,
    firsts: Vec<Box<[u8]>>,
    last: Vec<u8>,
    filter: Filter,
    hasher: blake3::Hasher,
    bytes: u64,
    pairs: u64,
}

impl<'a> Writer<'a> {
    /// `pairs` are to be expected.
    pub fn new(tree: &'a Tree, id: u64, pairs: u64) -> Self {
        Self {
            tree,
            id,
            block: Builder::default(),
            firsts: Vec::new(),
            last: Vec::new(),
            filter: Filter::new(pairs),
            hasher: blake3::Hasher::new(),
            bytes: 0,
            pairs: 0,
        }
    }

    pub fn push(&mut self, key: &[u8], value: Option<&[u8]>) -> sled::Result<()> {
        if self.block.is_full_for(key.len(), value.map_or(0, <[u8]>::len)) {
            self.write_block()?;
        }
        if self.block.is_empty() {
            self.firsts.push(key.into());
        }
        self.block.push(key, value);
        self.filter.insert(key);
        self.last.clear();
        self.last.extend_from_slice(key);
        self.pairs += 1;
        Ok(())
    }

    /// `None` if there was no pair.
    pub fn finish(mut self) -> sled::Result<Option<Run>> {
        if self.pairs == 0 {
            return Ok(None);
        }
        self.write_block()?;
        let blocks = self.firsts.len() as u32;
        let hash = truncated(self.hasher.finalize());
        let entry = Entry { id: self.id, blocks, bytes: self.bytes, pairs: self.pairs, hash };
        Ok(Some(Run { entry, firsts: self.firsts, last: self.last.into(), filter: self.filter }))
    }

    fn write_block(&mut self) -> sled::Result<()> {
        let number = self.firsts.len() as u32 - 1;
        let block = self.block.finish(self.id, number);
        self.hasher.update(&block);
        self.bytes += block.len() as u64;
        for (chunk, bytes) in (0..).zip(block.chunks(CHUNK_BYTES_MAX)) {
            self.tree.insert(chunk_key(self.id, number, chunk), bytes)?;
        }
        Ok(())
    }
}

/// Walks a run's pairs in key order, and holds the run.
pub(super) struct Cursor<'a> {
    tree: &'a Tree,
    run: Arc<Run>,
    number: u32,
    block: Option<Block>,
    at: usize,
}

impl<'a> Cursor<'a> {
    /// At the first pair whose key is within the bound.
    pub fn seek(tree: &'a Tree, run: Arc<Run>, from: Bound<&[u8]>) -> Result<Self, Error> {
        let mut cursor = Self { tree, run, number: 0, block: None, at: 0 };
        if let Bound::Included(key) | Bound::Excluded(key) = from {
            cursor.number = cursor.run.block_of(key);
        }
        cursor.load()?;
        if let (Some(block), Bound::Included(key) | Bound::Excluded(key)) = (&cursor.block, from) {
            cursor.at = block.lower_bound(key);
            cursor.settle()?;
        }
        if matches!(from, Bound::Excluded(key) if cursor.key() == Some(key)) {
            cursor.advance()?;
        }
        Ok(cursor)
    }

    /// The present key; `None` at the end.
    pub fn key(&self) -> Option<&[u8]> {
        self.block.as_ref().map(|block| block.key(self.at))
    }

    /// The present value; `None` is a deletion.
    pub fn value(&self) -> Option<Bytes> {
        self.block.as_ref()?.value(self.at)
    }

    pub fn advance(&mut self) -> Result<(), Error> {
        self.at += 1;
        self.settle()
    }

    /// Goes on to the next block where the present one ends.
    fn settle(&mut self) -> Result<(), Error> {
        if self.block.as_ref().is_some_and(|block| self.at >= block.len()) {
            self.number += 1;
            self.at = 0;
            self.load()?;
        }
        Ok(())
    }

    fn load(&mut self) -> Result<(), Error> {
        let within = self.number < self.run.entry.blocks;
        self.block = if within { Some(self.run.block(self.tree, self.number)?) } else { None };
        Ok(())
    }
}
