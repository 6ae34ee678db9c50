//! Effects: what an entity wants to happen elsewhere, committed in the same entry as its events.
//!
//! EFFECTS-WITH-EVENTS: an effect is delivered at least once and the receiver records
//! (source, effect number) in the same entry as its own events, so each takes effect once.

use super::{
    Entity, Retry, Task, TimedTask,
    codec::{self, Versioned},
};
use serde::{Deserialize, Serialize};

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
    /// As `Task`, not before a time or not after one.
    TimedTask(TimedTask),
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

    /// Runs the task handler `handler` with `payload`: any value that can be encoded, or bytes.
    /// For a time before or after which it must not run, see [`TimedTask`].
    ///
    /// # Panics
    /// As [`Effect::tell`].
    pub fn task<P: Serialize + 'static>(handler: impl Into<String>, tag: impl Into<String>, payload: P) -> Self {
        Self::Task(Task::new(handler, tag, payload))
    }

    /// As [`Effect::task`], with a retry policy of its own.
    ///
    /// # Panics
    /// As [`Effect::tell`].
    pub fn task_with_retry<P: Serialize + 'static>(
        handler: impl Into<String>,
        tag: impl Into<String>,
        payload: P,
        retry: Retry,
    ) -> Self {
        Self::Task(Task { retry, ..Task::new(handler, tag, payload) })
    }
}

impl From<TimedTask> for Effect {
    fn from(task: TimedTask) -> Self {
        Self::TimedTask(task)
    }
}

#[expect(clippy::expect_used, reason = "a command that cannot be encoded is a defect of its type, see # Panics")]
fn encode_command<E: Entity>(command: &E::Command) -> Versioned {
    let bytes = codec::encode("command", command).expect("a command must be encodable");
    Versioned { version: E::COMMAND_VERSION, bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_written_as_it_always_was() {
        let retry = Retry { attempts_max: 8, backoff_min_ms: 100, backoff_max_ms: 10_000, attempt_timeout_ms: 300 };
        let effect = Effect::task_with_retry("h", "t", vec![1_u8], retry);
        // Written down once: logs and outboxes hold such bytes.
        let bytes = [3, 1, b'h', 1, b't', 1, 1, 8, 100, 251, 16, 39, 251, 44, 1];
        assert_eq!(codec::encode("effect", &effect).expect("encodes"), bytes);
        assert_eq!(codec::decode::<Effect>("effect", &bytes), Ok(effect));
        let timed = Effect::from(TimedTask::new("h", "t", vec![1_u8]).run_at_ms(7).deadline_ms(9));
        let bytes = [4, 1, b'h', 1, b't', 1, 1, 0, 0, 0, 0, 7, 1, 9];
        assert_eq!(codec::encode("effect", &timed).expect("encodes"), bytes);
    }
}
