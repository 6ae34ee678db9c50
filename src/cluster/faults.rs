//! Faults on purpose: a switch for those who test what a cluster withstands.
//!
//! Only a node that was started with it ([`Builder::allow_faults`](super::Builder::allow_faults),
//! `quorate node --allow-faults`) has one; every other refuses. Each fault ends by itself after a
//! bounded time, and with the process; its beginning and its end are in the log.

use super::Idempotency;
use crate::{shard::ClockHand, storage};
use parking_lot::Mutex;
use serde::Serialize;
use std::{collections::VecDeque, sync::Arc, time::Duration};

/// Faults at a time.
pub const FAULTS_MAX: usize = 16;
/// The longest that one lasts.
pub const FAULT_DURATION_MAX: Duration = Duration::from_secs(600);
/// Answers kept for repeated requests; the oldest goes first.
const ANSWERS_MAX: usize = 64;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "fault", rename_all = "kebab-case")]
pub enum FaultKind {
    /// Every sync takes so much longer.
    SlowDisk { delay_ms: u64 },
    /// Writes fail: the node ends.
    FullDisk,
    /// The next sync fails: the node ends.
    FailedFsync,
    /// The clock that entities, timers and tasks go by is off by so much.
    ClockJump { offset_ms: i64 },
}

/// A fault that is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FaultStatus {
    pub id: u64,
    #[serde(flatten)]
    pub kind: FaultKind,
    pub duration_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FaultError {
    #[error("this node was not started with --allow-faults")]
    NotAllowed,
    #[error("{FAULTS_MAX} faults are in force already")]
    TooMany,
    #[error("the idempotency key was used before with another request")]
    IdempotencyKeyReused,
    /// It ended, or never was.
    #[error("there is no fault {0}")]
    NotFound(u64),
}

/// Turns faults on and off. Cheap to clone.
#[derive(Clone)]
pub struct FaultSwitch(Arc<Inner>);

struct Inner {
    disk: storage::Faults,
    clock: ClockHand,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    last: u64,
    in_force: Vec<FaultStatus>,
    answers: VecDeque<(Idempotency, FaultStatus)>,
}

impl FaultSwitch {
    /// `disk` is armed, and given to the store of the same node; `clock` moves that node's.
    pub(super) fn new(disk: storage::Faults, clock: ClockHand) -> Self {
        Self(Arc::new(Inner { disk, clock, state: Mutex::default() }))
    }

    /// Turns a fault on; it ends by itself after `duration` (at most [`FAULT_DURATION_MAX`]). The
    /// flag says that the same request had done so before.
    ///
    /// # Errors
    /// [`FaultError::TooMany`], [`FaultError::IdempotencyKeyReused`].
    pub fn inject(
        &self,
        kind: FaultKind,
        duration: Duration,
        idempotency: Option<Idempotency>,
    ) -> Result<(FaultStatus, bool), FaultError> {
        let duration = duration.min(FAULT_DURATION_MAX);
        let status = {
            let mut state = self.0.state.lock();
            if let Some(asked) = &idempotency
                && let Some((known, answer)) = state.answers.iter().find(|(known, _)| known.key == asked.key)
            {
                let same = known.fingerprint == asked.fingerprint;
                return if same { Ok((answer.clone(), true)) } else { Err(FaultError::IdempotencyKeyReused) };
            }
            if state.in_force.len() >= FAULTS_MAX {
                return Err(FaultError::TooMany);
            }
            state.last += 1;
            let duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
            let status = FaultStatus { id: state.last, kind, duration_ms };
            state.in_force.push(status.clone());
            if let Some(asked) = idempotency {
                state.answers.truncate(ANSWERS_MAX - 1);
                state.answers.push_front((asked, status.clone()));
            }
            self.0.take_effect(&state);
            status
        };
        if kind == FaultKind::FailedFsync {
            self.0.disk.fail_next("fdatasync failed: input/output error (a fault on purpose)");
        }
        tracing::warn!(fault = ?status.kind, id = status.id, duration_ms = status.duration_ms, "a fault on purpose begins");
        let (switch, id) = (self.clone(), status.id);
        tokio::spawn(async move {
            tokio::time::sleep(duration).await;
            // It may have been ended before.
            let _ = switch.end(id);
        });
        Ok((status, false))
    }

    /// Turns a fault off.
    ///
    /// # Errors
    /// [`FaultError::NotFound`].
    pub fn end(&self, id: u64) -> Result<FaultStatus, FaultError> {
        let mut state = self.0.state.lock();
        let at = state.in_force.iter().position(|fault| fault.id == id).ok_or(FaultError::NotFound(id))?;
        let ended = state.in_force.remove(at);
        self.0.take_effect(&state);
        if !state.in_force.iter().any(|fault| fault.kind == FaultKind::FailedFsync) {
            self.0.disk.forgive();
        }
        tracing::warn!(fault = ?ended.kind, id, "a fault on purpose ends");
        Ok(ended)
    }

    /// Those in force, oldest first.
    pub fn list(&self) -> Vec<FaultStatus> {
        self.0.state.lock().in_force.clone()
    }
}

impl Inner {
    /// Of several slow disks the slowest counts; clocks add up.
    fn take_effect(&self, state: &State) {
        let (mut slow_ms, mut full, mut offset_ms) = (0, false, 0i64);
        for fault in &state.in_force {
            match fault.kind {
                FaultKind::SlowDisk { delay_ms } => slow_ms = slow_ms.max(delay_ms),
                FaultKind::FullDisk => full = true,
                FaultKind::ClockJump { offset_ms: by } => offset_ms = offset_ms.saturating_add(by),
                FaultKind::FailedFsync => {}
            }
        }
        self.disk.slow_down(Duration::from_millis(slow_ms));
        self.disk.fill_up(full);
        self.clock.set_offset_ms(offset_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard;

    const SLOW: FaultKind = FaultKind::SlowDisk { delay_ms: 1 };
    const LONG: Duration = Duration::from_secs(60);

    fn switch() -> FaultSwitch {
        FaultSwitch::new(storage::Faults::armed(), shard::Clock::movable().1)
    }

    fn key(key: &str, fingerprint: u8) -> Option<Idempotency> {
        Some(Idempotency { key: key.into(), fingerprint: [fingerprint; 16] })
    }

    #[tokio::test]
    async fn a_fault_ends_by_itself_and_only_once() {
        let switch = switch();
        let (fault, _) = switch.inject(SLOW, Duration::from_millis(200), None).expect("on");
        assert_eq!(switch.list(), std::slice::from_ref(&fault));
        let ended = async {
            while !switch.list().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LONG, ended).await.expect("it ends by itself");
        assert_eq!(switch.end(fault.id), Err(FaultError::NotFound(fault.id)));
    }

    #[tokio::test]
    async fn the_longest_time_and_the_number_of_faults_are_bounded() {
        let switch = switch();
        let (fault, _) = switch.inject(SLOW, Duration::from_secs(1 << 40), None).expect("on");
        assert_eq!(u128::from(fault.duration_ms), FAULT_DURATION_MAX.as_millis());
        for _ in 1..FAULTS_MAX {
            switch.inject(SLOW, LONG, None).expect("on");
        }
        assert_eq!(switch.inject(SLOW, LONG, None), Err(FaultError::TooMany));
        switch.end(fault.id).expect("off");
        switch.inject(SLOW, LONG, None).expect("room again");
    }

    #[tokio::test]
    async fn a_request_with_a_key_takes_effect_once() {
        let switch = switch();
        let (first, replayed) = switch.inject(SLOW, LONG, key("a", 1)).expect("on");
        assert!(!replayed);
        assert_eq!(switch.inject(SLOW, LONG, key("a", 1)), Ok((first, true)));
        assert_eq!(switch.inject(SLOW, LONG, key("a", 2)), Err(FaultError::IdempotencyKeyReused));
        assert_eq!(switch.list().len(), 1);
        for number in 0..2 * ANSWERS_MAX {
            let (fault, _) = switch.inject(SLOW, LONG, key(&number.to_string(), 1)).expect("on");
            switch.end(fault.id).expect("off");
        }
        assert_eq!(switch.0.state.lock().answers.len(), ANSWERS_MAX);
    }
}
