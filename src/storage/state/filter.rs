//! A Bloom filter (B. H. Bloom, 1970) with the double hashing of Kirsch and Mitzenmacher: tells for
//! most keys that a run does not hold them, without reading a block. Lives in memory only.

use std::hash::{DefaultHasher, Hasher};

const BITS_PER_KEY: u64 = 10;
/// The best number of probes for ten bits per key; about one key in a hundred passes by mistake.
const PROBES: u64 = 7;

#[derive(Debug)]
pub(super) struct Filter(Vec<u64>);

impl Filter {
    /// A filter for about this many keys.
    pub fn new(keys: u64) -> Self {
        let words = (keys.max(1) * BITS_PER_KEY).div_ceil(64);
        Self(vec![0; usize::try_from(words).unwrap_or(usize::MAX)])
    }

    pub fn insert(&mut self, key: &[u8]) {
        for (word, mask) in probes(key, self.bits()) {
            self.0[word] |= mask;
        }
    }

    /// False: certainly not inserted. True: perhaps.
    pub fn may_hold(&self, key: &[u8]) -> bool {
        probes(key, self.bits()).all(|(word, mask)| self.0[word] & mask != 0)
    }

    fn bits(&self) -> u64 {
        self.0.len() as u64 * 64
    }
}

fn probes(key: &[u8], bits: u64) -> impl Iterator<Item = (usize, u64)> {
    let mut hasher = DefaultHasher::new();
    hasher.write(key);
    let hash = hasher.finish();
    let step = (hash >> 32) | 1;
    (0..PROBES).map(move |probe| {
        let bit = hash.wrapping_add(probe.wrapping_mul(step)) % bits;
        ((bit / 64) as usize, 1 << (bit % 64))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_inserted_key_passes_and_few_others_do() {
        let key = |n: u32| format!("key {n}").into_bytes();
        let mut filter = Filter::new(10_000);
        (0..10_000).for_each(|n| filter.insert(&key(n)));
        assert!((0..10_000).all(|n| filter.may_hold(&key(n))));
        let passed = (10_000..20_000).filter(|n| filter.may_hold(&key(*n))).count();
        assert!(passed < 300, "{passed} of 10000 pass by mistake");
    }
}
