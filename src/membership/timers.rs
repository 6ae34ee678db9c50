//! What is to be done when, on a clock that stands still while the process does.

use super::identity::Identity;
use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
    time::Duration,
};

/// Something that comes due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Due {
    Swim(foca::Timer<Identity>),
    /// Call seeds and remembered peers. Void unless the number is the latest one.
    Announce(u64),
    /// Ask for missing records, publish one's own.
    Housekeeping,
}

/// A timer queue in order of time.
///
/// When the earliest timer is found to be overdue by more than `stall`, the process did not run:
/// it was stopped, swapped out or starved. All timers are then put off by that much, so that the
/// steps of a probe keep their distance, and a suspect keeps the time it was promised, in which
/// its answer can be heard.
#[derive(Debug)]
pub(super) struct Timers {
    queue: BinaryHeap<Reverse<Entry>>,
    sequence: u64,
    /// How far this clock is behind the caller's.
    lag: Duration,
    stall: Duration,
    pub stalls: u64,
}

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    at: Duration,
    sequence: u64,
    due: Due,
}

impl Timers {
    pub fn new(stall: Duration) -> Self {
        Self { queue: BinaryHeap::new(), sequence: 0, lag: Duration::ZERO, stall, stalls: 0 }
    }

    pub fn schedule(&mut self, now: Duration, after: Duration, due: Due) {
        self.sequence += 1;
        let at = now.saturating_sub(self.lag).saturating_add(after);
        self.queue.push(Reverse(Entry { at, sequence: self.sequence, due }));
    }

    /// Notices a stall. To be called first whenever the caller's clock is read.
    pub fn wake(&mut self, now: Duration) {
        let Some(Reverse(earliest)) = self.queue.peek() else { return };
        let overdue = now.saturating_sub(self.lag).saturating_sub(earliest.at);
        if overdue > self.stall {
            self.lag += overdue;
            self.stalls += 1;
        }
    }

    /// The next of those due at `now`, earliest first.
    pub fn pop(&mut self, now: Duration) -> Option<Due> {
        let Reverse(earliest) = self.queue.peek()?;
        if earliest.at > now.saturating_sub(self.lag) {
            return None;
        }
        self.queue.pop().map(|Reverse(entry)| entry.due)
    }

    /// When the next one is due, on the caller's clock.
    pub fn next(&self) -> Option<Duration> {
        self.queue.peek().map(|Reverse(earliest)| earliest.at.saturating_add(self.lag))
    }
}

impl Due {
    /// Of those due at one moment, foca wants the end of a probe before the start of the next.
    fn rank(&self) -> u8 {
        match self {
            Self::Swim(foca::Timer::SendIndirectProbe { .. }) => 0,
            Self::Swim(foca::Timer::ProbeRandomMember(_)) => 1,
            Self::Swim(foca::Timer::ChangeSuspectToDown { .. }) => 2,
            Self::Swim(_) => 3,
            Self::Announce(_) | Self::Housekeeping => 4,
        }
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.due.rank(), self.sequence).cmp(&(other.at, other.due.rank(), other.sequence))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn timers_come_in_order_and_only_when_due() {
        let mut timers = Timers::new(MS * 1000);
        timers.schedule(MS, MS * 20, Due::Announce(1));
        timers.schedule(MS, MS * 10, Due::Housekeeping);
        timers.schedule(MS, MS * 20, Due::Swim(foca::Timer::ProbeRandomMember(0)));
        assert_eq!((timers.next(), timers.pop(MS * 10)), (Some(MS * 11), None));
        assert_eq!(timers.pop(MS * 11), Some(Due::Housekeeping));
        assert_eq!(timers.pop(MS * 21), Some(Due::Swim(foca::Timer::ProbeRandomMember(0))));
        assert_eq!(timers.pop(MS * 21), Some(Due::Announce(1)));
        assert_eq!((timers.next(), timers.pop(MS * 99)), (None, None));
    }

    #[test]
    fn a_stall_puts_everything_off_by_its_length() {
        let mut timers = Timers::new(MS * 1000);
        timers.schedule(Duration::ZERO, MS * 100, Due::Announce(1));
        timers.schedule(Duration::ZERO, MS * 800, Due::Announce(2));
        // 400 ms late is no stall; 5000 ms late is.
        timers.wake(MS * 500);
        assert_eq!((timers.stalls, timers.next()), (0, Some(MS * 100)));
        timers.wake(MS * 5100);
        assert_eq!((timers.stalls, timers.next()), (1, Some(MS * 5100)));
        timers.schedule(MS * 5100, MS * 300, Due::Announce(3));
        assert_eq!(timers.pop(MS * 5100), Some(Due::Announce(1)));
        assert_eq!(timers.pop(MS * 5799), Some(Due::Announce(3)), "300 ms after it was asked for");
        assert_eq!(timers.pop(MS * 5799), None, "700 ms after the first, as before the stall");
        assert_eq!(timers.pop(MS * 5800), Some(Due::Announce(2)));
    }
}
