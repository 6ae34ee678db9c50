//! What the load got, over time; and the longest times in which it got nothing.

use super::{history::History, load::Sample};
use serde::Serialize;
use std::time::Duration;

/// Half a second, give or take what the machine had to do.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    /// The end of it, seconds since the load began.
    pub at_s: f64,
    pub acknowledged_per_s: f64,
    pub refused_per_s: f64,
    pub unknown_per_s: f64,
    /// `None`: nothing was answered.
    pub p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
}

/// How often a point is made.
pub const EVERY: Duration = Duration::from_millis(500);
/// A day at that rate; later points are left out.
const POINTS_MAX: usize = 24 * 3600 * 2;

#[derive(Debug, Default)]
pub struct Timeline {
    points: Vec<Point>,
    before: (f64, u64, u64, u64),
}

impl Timeline {
    pub fn add(&mut self, at: Duration, sample: &Sample) -> Point {
        let now = (at.as_secs_f64(), sample.acknowledged, sample.refused, sample.unknown);
        let seconds = (now.0 - self.before.0).max(0.001);
        let rate = |now: u64, before: u64| (now.saturating_sub(before) as f64 / seconds * 10.0).round() / 10.0;
        let latency = |quantile| {
            let micros = sample.latency.value_at_quantile(quantile) as f64;
            (!sample.latency.is_empty()).then_some((micros / 10.0).round() / 100.0)
        };
        let point = Point {
            at_s: (now.0 * 1000.0).round() / 1000.0,
            acknowledged_per_s: rate(now.1, self.before.1),
            refused_per_s: rate(now.2, self.before.2),
            unknown_per_s: rate(now.3, self.before.3),
            p50_ms: latency(0.5),
            p99_ms: latency(0.99),
        };
        if self.points.len() < POINTS_MAX {
            self.points.push(point);
        }
        self.before = now;
        point
    }

    pub fn points(self) -> Vec<Point> {
        self.points
    }
}

/// When writes were acknowledged, in microseconds since the load began, in order.
pub fn acknowledged_writes(history: &History) -> Vec<u64> {
    let writes = history.operations.iter().filter(|one| one.is_write() && one.acknowledged().is_some());
    let mut times: Vec<u64> = writes.map(|one| one.returned_us).collect();
    times.sort_unstable();
    times
}

/// The longest time between two acknowledged writes that touches this span, or from the last one
/// on to the end of the load. `None` if nothing was ever acknowledged.
pub fn longest_gap(times: &[u64], span: std::ops::Range<u64>) -> Option<Duration> {
    let first = times.partition_point(|time| *time <= span.start).saturating_sub(1);
    let last = times.partition_point(|time| *time < span.end).min(times.len().checked_sub(1)?);
    let touched = &times[first..=last];
    let longest = touched.windows(2).map(|pair| pair[1] - pair[0]).max();
    Some(Duration::from_micros(longest.unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::Histogram;

    fn sample(acknowledged: u64, refused: u64, micros: &[u64]) -> Sample {
        let mut latency = Histogram::new(3).expect("constant bounds");
        micros.iter().for_each(|one| latency.record(*one).expect("in bounds"));
        Sample { acknowledged, refused, unknown: 0, latency, ended: false }
    }

    #[test]
    fn rates_are_those_since_the_point_before() {
        let mut timeline = Timeline::default();
        let first = timeline.add(Duration::from_millis(500), &sample(100, 0, &[1000, 2000]));
        assert_eq!((first.acknowledged_per_s, first.p50_ms), (200.0, Some(1.0)));
        let second = timeline.add(Duration::from_millis(1500), &sample(100, 7, &[]));
        assert_eq!((second.acknowledged_per_s, second.refused_per_s, second.p99_ms), (0.0, 7.0, None));
        assert_eq!(timeline.points().len(), 2);
    }

    #[test]
    fn a_gap_counts_for_every_fault_that_it_touches() {
        let times = [10, 20, 30, 500, 510, 520];
        let gap = |from, to| longest_gap(&times, from..to).map(|gap| gap.as_micros());
        assert_eq!(gap(25, 100), Some(470), "it began before the next write");
        assert_eq!(gap(100, 200), Some(470), "it lies within");
        assert_eq!(gap(500, 515), Some(10), "it was over before");
        assert_eq!(gap(0, 25), Some(10));
        assert_eq!(gap(600, 700), Some(0), "nothing after the last write: the load had ended");
        assert_eq!(longest_gap(&[], 0..10), None);
    }
}
