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
        let (mut pairs, mut bytes): (Pairs, usize) = (Pairs::new(), 0);
        let first = after.map_or(0, range_of);
        for (start, end) in &RANGES[first.min(RANGES.len())..] {
            let start = match after {
                Some(after) if *start <= after && after < *end => [after, &[0]].concat(),
                _ => start.to_vec(),
            };
            for (key, value) in self.state.scan(&start, end, CHUNK_PAIRS + 1 - pairs.len())? {
                bytes += key.len() + value.len();
                if pairs.len() == CHUNK_PAIRS || (bytes > CHUNK_BYTES && !pairs.is_empty()) {
                    return part(pairs, true);
                }
                let value = portable(&key, value)?;
                pairs.push((key, value));
            }
        }
        part(pairs, false)
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
