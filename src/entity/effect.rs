//! Effects: what an entity wants to happen elsewhere, committed in the same entry as its events.
//!
//! EFFECTS-WITH-EVENTS: an effect is delivered at least once and the receiver records
//! (source, effect number) in the same entry as its own events, so each takes effect once.

use super::{
    Entity,
    codec::{self, Versioned},
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// One durable effect. Build it with the constructors below.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Send a command to another entity (or to oneself). No order is promised between effects.
    Tell { entity_type: String, id: String, command: Versioned },
    /// Send a command to oneself at a time. A second schedule of the same name replaces the first.
    Schedule { name: String, at_ms: u64, command: Versioned },
    /// Take a schedule back; does nothing if it has fired or never was.
    CancelSchedule { name: String },
    /// Run a registered handler until it succeeds or its retries are used up.
    Task(Task),
}

/// A unit of work for a task handler.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// The registered handler's name, which is also the name of its queue.
    pub handler: String,
    /// Chosen by the entity; comes back in [`TaskOutcome`] so that it can tell its tasks apart.
    pub tag: String,
    /// The handler's input.
    pub payload: Vec<u8>,
    pub retry: Retry,
}

/// How often and how fast a task is tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    pub attempts_max: u32,
    /// Wait before the second attempt; doubles with each further one, with ±50 % jitter.
    pub backoff_min_ms: u64,
    pub backoff_max_ms: u64,
    /// How long one attempt may run.
    pub attempt_timeout_ms: u64,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts_max: 10, backoff_min_ms: 100, backoff_max_ms: 30_000, attempt_timeout_ms: 30_000 }
    }
}

/// How a task ended, handed to [`Entity::task_finished`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskOutcome {
    pub handler: String,
    pub tag: String,
    pub attempts: u32,
    /// The handler's output, or the last error once the retries are used up.
    pub result: Result<Vec<u8>, String>,
}

impl Effect {
    /// Sends `command` to the entity `id` of type `E`.
    ///
    /// # Panics
    /// If the command cannot be encoded. Inside `decide` that restarts the entity and answers an
    /// internal error; nothing reaches the log.
    pub fn tell<E: Entity>(id: impl Into<String>, command: &E::Command) -> Self {
        let command = encode_command::<E>(command);
        Self::Tell { entity_type: E::TYPE.to_owned(), id: id.into(), command }
    }

    /// Sends `command` to the deciding entity itself at `at_ms` (milliseconds since the epoch).
    ///
    /// # Panics
    /// As [`Effect::tell`].
    pub fn schedule<E: Entity>(name: impl Into<String>, at_ms: u64, command: &E::Command) -> Self {
        Self::Schedule { name: name.into(), at_ms, command: encode_command::<E>(command) }
    }

    pub fn cancel_schedule(name: impl Into<String>) -> Self {
        Self::CancelSchedule { name: name.into() }
    }

    /// Runs the task handler `handler` with `payload`.
    pub fn task(handler: impl Into<String>, tag: impl Into<String>, payload: Vec<u8>) -> Self {
        Self::Task(Task { handler: handler.into(), tag: tag.into(), payload, retry: Retry::default() })
    }

    /// As [`Effect::task`], with a retry policy of its own.
    pub fn task_with_retry(handler: impl Into<String>, tag: impl Into<String>, payload: Vec<u8>, retry: Retry) -> Self {
        Self::Task(Task { handler: handler.into(), tag: tag.into(), payload, retry })
    }
}

impl Retry {
    /// The mean wait before attempt number `attempt` (the second attempt is 2).
    pub fn backoff(&self, attempt: u32) -> Duration {
        let doublings = attempt.saturating_sub(2).min(20);
        let wait_ms = self.backoff_min_ms.saturating_mul(1 << doublings);
        Duration::from_millis(wait_ms.min(self.backoff_max_ms))
    }
}

#[expect(clippy::expect_used, reason = "a command that cannot be encoded is a defect of its type, see # Panics")]
fn encode_command<E: Entity>(command: &E::Command) -> Versioned {
    let bytes = codec::encode("command", command).expect("a command must be encodable");
    Versioned { version: E::COMMAND_VERSION, bytes }
}
