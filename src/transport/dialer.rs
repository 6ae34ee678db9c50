//! Keeps one link up: dials, backs off, dials again.

use super::{links::Links, slot::Slot, wire::DialError};
use crate::catalog::NodeId;
use futures::future::BoxFuture;
use rand::RngExt;
use std::{sync::Weak, time::Duration};
use tokio::time::Instant;

/// The longest pause while the peer merely has not heard of this node yet.
const UNKNOWN_PAUSE_MAX: Duration = Duration::from_millis(250);
/// A failure that stays the same is logged again after this long.
const REPEAT_LOG_AFTER: Duration = Duration::from_secs(30);

/// Runs until the links or the slot are dropped, or the task is aborted.
pub(super) async fn run(links: Weak<Links>, me: NodeId, slot: Weak<Slot>) {
    let mut failures = 0u32;
    // Of the link that is open, or was until just now.
    let mut opened_at: Option<Instant> = None;
    let mut log = FailureLog::default();
    loop {
        let step = {
            let (Some(links), Some(slot)) = (links.upgrade(), slot.upgrade()) else { return };
            let Some(wire) = links.wire() else { return };
            if links.is_closing() {
                return;
            }
            let (min, max) = (links.options.redial_min, links.options.redial_max);
            let lived = opened_at.map(|at| at.elapsed());
            if slot.link.read().is_some() {
                opened_at.get_or_insert_with(Instant::now);
                Step::Wait(None)
            } else if lived.is_some_and(|lived| lived < max) {
                // A peer that closes each link as soon as it is open must not be dialled without end.
                opened_at = None;
                failures += 1;
                Step::Wait(Some(backoff(min, max, failures - 1)))
            } else {
                if opened_at.take().is_some() {
                    failures = 0;
                }
                Step::Dial(wire.dial(me, slot.peer.read().clone()), backoff(min, max, failures))
            }
        };
        match step {
            Step::Wait(pause) => wait(&slot, pause).await,
            Step::Dial(attempt, pause) => match attempt.await {
                Ok(()) => {
                    log.clear();
                    opened_at = Some(Instant::now());
                }
                Err(error) => {
                    failures += 1;
                    log.note(&error);
                    let most =
                        if matches!(error, DialError::Unknown { .. }) { UNKNOWN_PAUSE_MAX } else { Duration::MAX };
                    wait(&slot, Some(pause.min(most))).await;
                }
            },
        }
    }
}

enum Step {
    /// For news of the slot, at most so long.
    Wait(Option<Duration>),
    /// And if it fails, pause for so long.
    Dial(BoxFuture<'static, Result<(), DialError>>, Duration),
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
