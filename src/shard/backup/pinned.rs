//! A shard as it was at one entry of its log, read out chunk by chunk.

use super::{
    cut::Part,
    types::{CHUNK_BYTES, CHUNK_PAIRS, Pairs, RANGES, ShardHead, encode_chunk},
};
use crate::{
    shard::{
        applied::{AppliedState, corrupt, version_of, without_state},
        overlay::Overlay,
    },
    storage::Error,
};
use bytes::Bytes;

/// Rows read at once: each may be an entity with a large state.
const ROWS_PER_LOOK: usize = 16;
/// States of one chunk's entities, as they are now: what is folded in one step is written in one checkpoint.
const FOLDED_BYTES: usize = 2 << 20;
/// Events that are folded in one step, while nothing else is applied to the shard.
const FOLDED_EVENTS: u64 = 10_000;

/// Reads what a backup takes of a shard.
pub struct Pinned {
    head: ShardHead,
    state: Overlay,
}

impl Pinned {
    pub fn of(state: &mut AppliedState) -> Result<Self, Error> {
        state.settle()?;
        Ok(Self { head: state.head(), state: state.overlay.pin() })
    }

    pub fn head(&self) -> &ShardHead {
        &self.head
    }

    /// The chunk that begins behind this key.
    pub fn part(&self, after: Option<&[u8]>) -> Result<Part, Error> {
        let mut chunk = Chunk::default();
        let first = after.map_or(0, range_of);
        for (start, end) in &RANGES[first.min(RANGES.len())..] {
            let mut start = match after {
                Some(after) if *start <= after && after < *end => [after, &[0]].concat(),
                _ => start.to_vec(),
            };
            loop {
                let rows = self.state.scan(&start, end, ROWS_PER_LOOK)?;
                let Some((last, _)) = rows.last() else { break };
                start = [last.as_slice(), &[0]].concat();
                for (key, value) in rows {
                    if !chunk.has_room(&key, &value) {
                        return part(chunk.pairs, true);
                    }
                    let value = portable(&key, value)?;
                    chunk.push(key, value);
                }
            }
        }
        part(chunk.pairs, false)
    }
}

/// A chunk that is being filled.
#[derive(Default)]
struct Chunk {
    pairs: Pairs,
    bytes: usize,
    /// States of its entities, which are not in it but will be folded for it.
    folded_bytes: usize,
    /// Events of their histories.
    folded_events: u64,
}

impl Chunk {
    /// One pair fits in any case.
    fn has_room(&mut self, key: &[u8], value: &[u8]) -> bool {
        let mut bytes = self.bytes + key.len();
        match key.first() {
            Some(b'e') => {
                self.folded_bytes += value.len();
                self.folded_events = self.folded_events.saturating_add(version_of(value));
            }
            _ => bytes += value.len(),
        }
        let fits = self.pairs.len() < CHUNK_PAIRS && bytes <= CHUNK_BYTES;
        let folds = self.folded_bytes <= FOLDED_BYTES && self.folded_events <= FOLDED_EVENTS;
        (fits && folds) || self.pairs.is_empty()
    }

    fn push(&mut self, key: Vec<u8>, value: Bytes) {
        self.bytes += key.len() + value.len();
        self.pairs.push((key, value));
    }
}

fn part(pairs: Pairs, has_more: bool) -> Result<Part, Error> {
    let last = pairs.last().filter(|_| has_more).map(|(key, _)| key.clone());
    let count = u32::try_from(pairs.len()).unwrap_or(u32::MAX);
    let chunk = if pairs.is_empty() { Bytes::new() } else { encode_chunk(&pairs).map_err(corrupt)? };
    Ok(Part { chunk, pairs: count, last })
}

/// The first range that may hold something behind this key.
fn range_of(key: &[u8]) -> usize {
    RANGES.iter().position(|(start, end)| *start <= key && key < *end).unwrap_or(RANGES.len())
}

/// What of a value makes sense in another cluster.
fn portable(key: &[u8], value: Bytes) -> Result<Bytes, Error> {
    match key.first() {
        // The state follows from the history, whatever version of the software folds it.
        Some(b'e') => without_state(&value),
        // It names a place in this cluster's log.
        Some(b'x') => Ok(Bytes::new()),
        _ => Ok(value),
    }
}
