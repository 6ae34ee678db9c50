//! The time as the owners of a node's shards see it.
//!
//! Nobody but an owner reads it: what replicas apply carries the time that its owner chose.

use std::time::Duration;
use tokio::sync::watch;

/// The longest sleep without another look: how late a timer may be when the machine's clock is set
/// forward.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// The machine's clock, or one that is off by as much as its hand says.
#[derive(Debug, Clone, Default)]
pub struct Clock(Option<watch::Receiver<i64>>);

/// Moves the [`Clock`] it came with.
#[derive(Debug)]
pub struct ClockHand(watch::Sender<i64>);

impl Clock {
    /// The machine's clock until its hand is moved. For tests of what takes a day,
    /// and for faults.
    pub fn movable() -> (Self, ClockHand) {
        let (hand, off_ms) = watch::channel(0);
        (Self(Some(off_ms)), ClockHand(hand))
    }

    /// Milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> u64 {
        super::now_ms().saturating_add_signed(self.0.as_ref().map_or(0, |off_ms| *off_ms.borrow()))
    }

    /// Sleeps until it is `at_ms`, also where the clock is moved meanwhile.
    pub async fn sleep_until(&self, at_ms: u64) {
        let mut off_ms = self.0.clone();
        while let wait_ms @ 1.. = at_ms.saturating_sub(self.now_ms()) {
            let wait = Duration::from_millis(wait_ms).min(LOOK_AGAIN);
            let moved = async {
                if let Some(off_ms) = &mut off_ms
                    && off_ms.changed().await.is_ok()
                {
                    return;
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = moved => {}
            }
        }
    }
}

impl ClockHand {
    /// Moves the clock forward; whoever sleeps until a time that has come by then wakes up.
    pub fn advance(&self, by: Duration) {
        self.0.send_modify(|off_ms| *off_ms += i64::try_from(by.as_millis()).unwrap_or(i64::MAX / 4));
    }

    /// Sets how far the clock is ahead of the machine's, or behind it.
    pub fn set_offset_ms(&self, offset_ms: i64) {
        self.0.send_replace(offset_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[tokio::test]
    async fn who_sleeps_for_a_day_wakes_up_when_the_clock_is_moved() {
        let (clock, hand) = Clock::movable();
        let started_ms = clock.now_ms();
        let sleeping = clock.clone();
        let sleeper = tokio::spawn(async move { sleeping.sleep_until(started_ms + 86_400_000).await });
        tokio::task::yield_now().await;
        hand.advance(DAY / 2);
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished(), "half a day is left");
        hand.advance(DAY / 2);
        tokio::time::timeout(Duration::from_secs(20), sleeper).await.expect("it is time").expect("no panic");
        assert!(clock.now_ms() >= started_ms + 86_400_000);
    }

    #[tokio::test]
    async fn what_is_past_is_not_waited_for() {
        let clock = Clock::default();
        clock.sleep_until(clock.now_ms()).await;
        clock.sleep_until(0).await;
    }
}
