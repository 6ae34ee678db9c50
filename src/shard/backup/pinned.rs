//! A shard as it was at one entry of its log, read out chunk by chunk.

use super::{
    cut::Part,
    types::{CHUNK_BYTES, CHUNK_PAIRS, Pairs, RANGES, ShardHead, encode_chunk},
};
use crate::{
    shard::{
        applied::{AppliedState, corrupt, without_state},
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
                    let (value, folded) = portable(&key, value)?;
                    if !chunk.take(key, value, folded) {
                        return part(chunk.pairs, true);
                    }
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
    folded: Folded,
}

/// What is not in a chunk, and will be folded for it: states of its entities, from events of their histories.
#[derive(Default)]
struct Folded {
    bytes: usize,
    events: u64,
}

impl Chunk {
    /// Takes a pair if there is room. One fits in any case.
    fn take(&mut self, key: Vec<u8>, value: Bytes, folded: Folded) -> bool {
        self.bytes += key.len() + value.len();
        self.folded.bytes += folded.bytes;
        self.folded.events = self.folded.events.saturating_add(folded.events);
        let fits = self.pairs.len() < CHUNK_PAIRS && self.bytes <= CHUNK_BYTES;
        let folds = self.folded.bytes <= FOLDED_BYTES && self.folded.events <= FOLDED_EVENTS;
        let has_room = (fits && folds) || self.pairs.is_empty();
        if has_room {
            self.pairs.push((key, value));
        }
        has_room
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

/// What of a value makes sense in another cluster, and what is to be folded there.
fn portable(key: &[u8], value: Bytes) -> Result<(Bytes, Folded), Error> {
    match key.first() {
        // The state follows from the history, whatever version of the software folds it.
        Some(b'e') => {
            let (record, events) = without_state(&value)?;
            Ok((record, Folded { bytes: value.len(), events }))
        }
        // It names a place in this cluster's log.
        Some(b'x') => Ok((Bytes::new(), Folded::default())),
        _ => Ok((value, Folded::default())),
    }
}
