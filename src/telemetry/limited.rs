//! Log lines that an outsider or a broken disk could repeat without end: one a second per place.

use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// The least time between two lines of one place.
const PERIOD: Duration = Duration::from_secs(1);

/// One place that logs, usually a `static`.
///
/// ```
/// use quorate::telemetry::Limited;
/// static REFUSED: Limited = Limited::new();
/// if let Some(left_out) = REFUSED.admit() {
///     tracing::warn!(left_out, "refused a packet");
/// }
/// ```
pub struct Limited {
    state: Mutex<State>,
}

struct State {
    last: Option<Instant>,
    left_out: u64,
}

impl Limited {
    pub const fn new() -> Self {
        Self { state: Mutex::new(State { last: None, left_out: 0 }) }
    }

    /// `Some` when a line may be written now, with the number left out since the last one.
    pub fn admit(&self) -> Option<u64> {
        self.admit_at(Instant::now())
    }

    fn admit_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock();
        if state.last.is_some_and(|last| now.saturating_duration_since(last) < PERIOD) {
            state.left_out += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.left_out))
    }
}

impl Default for Limited {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_says_how_many_were_left_out() {
        let (place, start) = (Limited::new(), Instant::now());
        assert_eq!(place.admit_at(start), Some(0));
        for ms in [1, 500, 999] {
            assert_eq!(place.admit_at(start + Duration::from_millis(ms)), None);
        }
        assert_eq!(place.admit_at(start + PERIOD), Some(3));
        assert_eq!(place.admit_at(start + PERIOD * 2), Some(0));
    }
}
