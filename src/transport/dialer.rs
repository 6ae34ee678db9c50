//! Keeps one link up: dials, backs off, dials again.

use super::{links::Links, slot::Slot, wire::DialError};
use crate::catalog::NodeId;
use rand::RngExt;
use std::{
    sync::Weak,
    time::{Duration, Instant},
};

/// The longest pause while the peer merely has not heard of this node yet.
const UNKNOWN_PAUSE_MAX: Duration = Duration::from_millis(250);
/// A failure that stays the same is logged again after this long.
const REPEAT_LOG_AFTER: Duration = Duration::from_secs(30);

/// Runs until the links or the slot are dropped, or the task is aborted.
pub(super) async fn run(links: Weak<Links>, me: NodeId, slot: Weak<Slot>) {
    let mut failures = 0u32;
    let mut log = FailureLog::default();
    loop {
        let (pause, attempt) = {
            let (Some(links), Some(slot)) = (links.upgrade(), slot.upgrade()) else { return };
            let Some(wire) = links.wire() else { return };
            if links.is_closing() {
                return;
            }
            if slot.link.read().is_some() {
                failures = 0;
                (None, None)
            } else {
                let pause = backoff(links.options.redial_min, links.options.redial_max, failures);
                let peer = slot.peer.read().clone();
                (Some(pause), Some(wire.dial(me, peer)))
            }
        };
        let Some(attempt) = attempt else {
            wait(&slot, None).await;
            continue;
        };
        match attempt.await {
            Ok(()) => log.clear(),
            Err(error) => {
                failures += 1;
                log.note(&error);
                let most = if matches!(error, DialError::Unknown { .. }) { UNKNOWN_PAUSE_MAX } else { Duration::MAX };
                wait(&slot, pause.map(|pause| pause.min(most))).await;
            }
        }
    }
}

/// Waits for news of the slot, at most `pause`.
async fn wait(slot: &Weak<Slot>, pause: Option<Duration>) {
    // holding the slot while waiting is fine: whoever removes it aborts this task
    let Some(slot) = slot.upgrade() else { return };
    match pause {
        Some(pause) => {
            let _ = tokio::time::timeout(pause, slot.poke.notified()).await;
        }
        None => slot.poke.notified().await,
    }
}

/// `min` doubled per failure up to `max`, then a random part of the upper half of it.
fn backoff(min: Duration, max: Duration, failures: u32) -> Duration {
    let full = min.saturating_mul(1 << failures.min(16)).min(max);
    full.mul_f64(rand::rng().random_range(0.5..=1.0))
}

#[derive(Default)]
struct FailureLog {
    former: Option<(String, Instant)>,
}

impl FailureLog {
    fn clear(&mut self) {
        self.former = None;
    }

    fn note(&mut self, error: &DialError) {
        let text = error.to_string();
        let repeated =
            self.former.as_ref().is_some_and(|(former, at)| *former == text && at.elapsed() < REPEAT_LOG_AFTER);
        if !repeated {
            tracing::warn!(error = text, "cannot open a link; trying again");
            self.former = Some((text, Instant::now()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_up_to_its_maximum_and_varies() {
        let (min, max) = (Duration::from_millis(50), Duration::from_secs(2));
        for failures in 0..40 {
            let full = Duration::from_millis(50 << failures.min(10)).min(max);
            for _ in 0..50 {
                let pause = backoff(min, max, failures);
                assert!(pause >= full / 2 && pause <= full, "{failures}: {pause:?}");
            }
        }
    }
}
