//! Reading several runs as one, and which of them to make one.

use super::run::Cursor;
use crate::storage::Error;
use bytes::Bytes;
use std::ops::Range;

/// Runs worth merging.
const RUNS_MIN: usize = 4;

/// A key and its value; no value is a deletion.
pub(super) type Pair = (Vec<u8>, Option<Bytes>);

/// The pairs of several runs in key order; where several have a key, the newest one counts.
pub(super) struct Merge<'a> {
    /// Newest first.
    cursors: Vec<Cursor<'a>>,
}

impl<'a> Merge<'a> {
    pub fn new(newest_first: Vec<Cursor<'a>>) -> Self {
        Self { cursors: newest_first }
    }

    pub fn next(&mut self) -> Result<Option<Pair>, Error> {
        let keys = self.cursors.iter().enumerate().filter_map(|(at, cursor)| Some((cursor.key()?, at)));
        let Some((key, newest)) = keys.min() else { return Ok(None) };
        let (key, value) = (key.to_vec(), self.cursors[newest].value());
        for cursor in &mut self.cursors {
            if cursor.key() == Some(key.as_slice()) {
                cursor.advance()?;
            }
        }
        Ok(Some((key, value)))
    }
}

/// Which runs to merge next, of sizes given oldest first: the newest ones, as long as the next older
/// one is not much larger than all of them together. So each pair is written again only about as
/// often as the store's size can double (tiered compaction).
pub(super) fn pick(sizes: &[u64]) -> Option<Range<usize>> {
    let mut sum = 0;
    let mut start = sizes.len();
    while let Some(older) = start.checked_sub(1) {
        if start < sizes.len() && sizes[older] > 2 * sum {
            break;
        }
        sum += sizes[older];
        start = older;
    }
    (sizes.len() - start >= RUNS_MIN).then_some(start..sizes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_a_size_are_merged_and_much_larger_ones_left_alone() {
        assert_eq!(pick(&[]), None);
        assert_eq!(pick(&[1, 1, 1]), None);
        assert_eq!(pick(&[1, 1, 1, 1]), Some(0..4));
        assert_eq!(pick(&[64, 1, 1, 1, 1]), Some(1..5));
        assert_eq!(pick(&[64, 7, 1, 1, 1]), None);
        assert_eq!(pick(&[64, 16, 4, 1, 1, 2]), Some(1..6));
    }

    /// Writing `n` runs of one size leaves few runs and writes each pair few times.
    #[test]
    fn the_number_of_runs_and_the_work_stay_logarithmic() {
        let (mut sizes, mut written) = (Vec::new(), 0u64);
        for _ in 0..4096 {
            sizes.push(1u64);
            while let Some(range) = pick(&sizes) {
                let merged = sizes.drain(range).sum();
                written += merged;
                sizes.push(merged);
            }
            assert!(sizes.len() < 24, "{sizes:?}");
        }
        assert!(written < 4096 * 12, "{written} pairs written for 4096");
    }
}
