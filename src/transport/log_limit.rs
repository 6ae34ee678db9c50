//! Keeps strangers from filling the log.

use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// Lets [`LINES_MAX`](Self::LINES_MAX) lines through per [`PERIOD`](Self::PERIOD) and counts the rest.
#[derive(Debug, Default)]
pub(super) struct LogLimit(Mutex<Window>);

#[derive(Debug, Default)]
struct Window {
    since: Option<Instant>,
    lines: u32,
    suppressed: u64,
}

impl LogLimit {
    pub const LINES_MAX: u32 = 5;
    pub const PERIOD: Duration = Duration::from_secs(5);

    /// Whether to write a line now; if so, how many were left out before it.
    pub fn allow(&self, now: Instant) -> Option<u64> {
        let mut window = self.0.lock();
        let fresh = window.since.is_none_or(|since| now.saturating_duration_since(since) >= Self::PERIOD);
        if fresh {
            window.since = Some(now);
            window.lines = 0;
        }
        if window.lines >= Self::LINES_MAX {
            window.suppressed += 1;
            return None;
        }
        window.lines += 1;
        Some(std::mem::take(&mut window.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_past_the_limit_are_counted_and_told_later() {
        let (limit, start) = (LogLimit::default(), Instant::now());
        let written = (0..100).filter(|_| limit.allow(start).is_some()).count();
        assert_eq!(written, LogLimit::LINES_MAX as usize);
        assert_eq!(limit.allow(start + LogLimit::PERIOD), Some(100 - u64::from(LogLimit::LINES_MAX)));
        assert_eq!(limit.allow(start + LogLimit::PERIOD), Some(0));
    }
}
