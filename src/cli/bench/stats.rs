//! Counting.

use hdrhistogram::Histogram;
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Latencies are kept to three digits, up to a minute.
const LATENCY_MICROS_MAX: u64 = 60_000_000;
const DIGITS: u8 = 3;

/// What is going on right now, for the progress line.
#[derive(Debug, Default)]
pub(super) struct Live {
    good: AtomicU64,
    bad: AtomicU64,
}

impl Live {
    pub fn count(&self, good: bool) {
        // A sum for display: it orders nothing.
        if good { &self.good } else { &self.bad }.fetch_add(1, Ordering::Relaxed);
    }

    /// Successes and errors so far.
    pub fn read(&self) -> (u64, u64) {
        (self.good.load(Ordering::Relaxed), self.bad.load(Ordering::Relaxed))
    }
}

/// What one worker, or all of them, measured.
pub(super) struct Stats {
    latencies: Histogram<u64>,
    /// Successes within the window: what the rate is made of.
    pub in_window: u64,
    pub errors: BTreeMap<String, u64>,
}

impl Stats {
    pub fn new() -> Self {
        // The bounds are constants that the histogram accepts; growing covers what is beyond.
        let mut latencies = Histogram::new_with_bounds(1, LATENCY_MICROS_MAX, DIGITS)
            .unwrap_or_else(|_| unreachable!("constant bounds"));
        latencies.auto(true);
        Self { latencies, in_window: 0, errors: BTreeMap::new() }
    }

    pub fn record(&mut self, outcome: Result<(), String>, took: Duration, in_window: bool) {
        match outcome {
            Ok(()) => {
                self.latencies.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1));
                self.in_window += u64::from(in_window);
            }
            Err(code) => *self.errors.entry(code).or_default() += 1,
        }
    }

    pub fn merge(&mut self, other: Self) {
        // Both have the same bounds and may grow: adding cannot fail.
        _ = self.latencies.add(&other.latencies);
        self.in_window += other.in_window;
        for (code, count) in other.errors {
            *self.errors.entry(code).or_default() += count;
        }
    }

    pub fn successes(&self) -> u64 {
        self.latencies.len()
    }

    /// Milliseconds below which the fraction `quantile` of the successes stayed.
    pub fn millis_at(&self, quantile: f64) -> f64 {
        millis(self.latencies.value_at_quantile(quantile))
    }

    pub fn millis_max(&self) -> f64 {
        millis(self.latencies.max())
    }

    pub fn millis_mean(&self) -> f64 {
        (self.latencies.mean()).round() / 1000.0
    }
}

#[expect(clippy::cast_precision_loss, reason = "latencies stay far below 2^52 microseconds")]
fn millis(micros: u64) -> f64 {
    micros as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_add_up() {
        let mut all = Stats::new();
        for worker in 0..2u64 {
            let mut stats = Stats::new();
            for i in 1..=100 {
                stats.record(Ok(()), Duration::from_millis(worker * 100 + i), i <= 99);
            }
            stats.record(Err("no-quorum".into()), Duration::ZERO, true);
            all.merge(stats);
        }
        assert_eq!((all.successes(), all.in_window, all.errors["no-quorum"]), (200, 198, 2));
        assert!((all.millis_at(0.5) - 100.0).abs() < 1.0, "{}", all.millis_at(0.5));
        assert!((all.millis_max() - 200.0).abs() < 1.0, "{}", all.millis_max());
    }
}
