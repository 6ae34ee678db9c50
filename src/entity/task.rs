//! Tasks: work for a handler outside, done at least once.
//!
//! A payload is any value that can be encoded. `Vec<u8>` stands for itself, so that bytes made
//! elsewhere stay as they are; everything else goes through [`codec`].

use super::codec;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{any::Any, time::Duration};

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

/// A [`Task`] with a time before which it is not begun, or after which it is given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimedTask {
    pub task: Task,
    /// No attempt begins before it. Milliseconds since the epoch; 0: at once.
    pub run_at_ms: u64,
    /// What is not done by then is given up; `None` takes the queue's.
    pub deadline_ms: Option<u64>,
}

/// How often and how fast a task is tried again. A field of 0 takes the queue's value, and where
/// the queue says nothing either, [`Retry::BUILT_IN`]'s. The default leaves everything to the queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    pub attempts_max: u32,
    /// Wait before the second attempt; doubles with each further one, with ±50 % jitter.
    pub backoff_min_ms: u64,
    pub backoff_max_ms: u64,
    /// How long one attempt may run.
    pub attempt_timeout_ms: u64,
}

/// How a task ended, handed to [`super::Entity::task_finished`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskOutcome {
    pub handler: String,
    pub tag: String,
    pub attempts: u32,
    /// The handler's output, or the last error once the task is given up.
    pub result: Result<Vec<u8>, String>,
}

impl Task {
    /// # Panics
    /// If the payload cannot be encoded. Inside `decide` that restarts the entity and answers an
    /// internal error; nothing reaches the log.
    pub fn new<P: Serialize + 'static>(handler: impl Into<String>, tag: impl Into<String>, payload: P) -> Self {
        #[expect(
            clippy::expect_used,
            reason = "a payload that cannot be encoded is a defect of its type, see # Panics"
        )]
        let payload = encode_payload(payload).expect("a payload must be encodable");
        Self { handler: handler.into(), tag: tag.into(), payload, retry: Retry::default() }
    }
}

impl TimedTask {
    /// # Panics
    /// As [`Task::new`].
    pub fn new<P: Serialize + 'static>(handler: impl Into<String>, tag: impl Into<String>, payload: P) -> Self {
        Self { task: Task::new(handler, tag, payload), run_at_ms: 0, deadline_ms: None }
    }

    /// Not before this time: `context.now_ms + …` for a countdown.
    #[must_use]
    pub fn run_at_ms(mut self, at_ms: u64) -> Self {
        self.run_at_ms = at_ms;
        self
    }

    /// Given up at this time, or once no further attempt would begin before it, however many are left.
    #[must_use]
    pub fn deadline_ms(mut self, at_ms: u64) -> Self {
        self.deadline_ms = Some(at_ms);
        self
    }

    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.task.retry = retry;
        self
    }
}

impl Retry {
    /// What holds where neither task nor queue says anything.
    pub const BUILT_IN: Self =
        Self { attempts_max: 10, backoff_min_ms: 100, backoff_max_ms: 30_000, attempt_timeout_ms: 30_000 };

    /// This policy, with `other`'s values where it has none.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        let pick = |own: u64, other: u64| if own == 0 { other } else { own };
        Self {
            attempts_max: if self.attempts_max == 0 { other.attempts_max } else { self.attempts_max },
            backoff_min_ms: pick(self.backoff_min_ms, other.backoff_min_ms),
            backoff_max_ms: pick(self.backoff_max_ms, other.backoff_max_ms),
            attempt_timeout_ms: pick(self.attempt_timeout_ms, other.attempt_timeout_ms),
        }
    }

    /// The mean wait before attempt number `attempt` (the second attempt is 2). A maximum below the
    /// minimum is the minimum.
    pub fn backoff(&self, attempt: u32) -> Duration {
        let doublings = attempt.saturating_sub(2).min(20);
        let wait_ms = self.backoff_min_ms.saturating_mul(1 << doublings);
        Duration::from_millis(wait_ms.min(self.backoff_max_ms.max(self.backoff_min_ms)))
    }
}

impl TaskOutcome {
    /// The result as the handler gave it. An output that cannot be read is an error, too: what it
    /// says about the world outside is lost.
    pub fn read<T: DeserializeOwned + 'static>(self) -> Result<T, String> {
        decode_payload(self.result?).map_err(|e| e.to_string())
    }
}

/// The bytes of a task's input or output.
pub fn encode_payload<P: Serialize + 'static>(payload: P) -> Result<Vec<u8>, codec::Error> {
    match (&payload as &dyn Any).downcast_ref::<Vec<u8>>() {
        Some(bytes) => Ok(bytes.clone()),
        None => codec::encode("task payload", &payload),
    }
}

/// The value that [`encode_payload`] encoded.
pub fn decode_payload<P: DeserializeOwned + 'static>(bytes: Vec<u8>) -> Result<P, codec::Error> {
    let boxed: Box<dyn Any> = Box::new(bytes);
    match boxed.downcast::<P>() {
        Ok(payload) => Ok(*payload),
        Err(boxed) => {
            let bytes = boxed.downcast_ref::<Vec<u8>>().map_or(&[][..], Vec::as_slice);
            codec::decode("task payload", bytes)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_stand_for_themselves_and_other_payloads_are_encoded() {
        let bytes = vec![1, 2, 3];
        assert_eq!(encode_payload(bytes.clone()), Ok(bytes.clone()));
        assert_eq!(decode_payload::<Vec<u8>>(bytes.clone()), Ok(bytes));
        let mail = ("ada@example.org".to_owned(), 7_u32);
        let encoded = encode_payload(mail.clone()).expect("encodes");
        assert_eq!(decode_payload::<(String, u32)>(encoded.clone()), Ok(mail));
        assert!(decode_payload::<(String, u32)>(encoded[1..].to_vec()).is_err());
    }

    #[test]
    fn what_a_task_leaves_open_its_queue_says_and_then_the_built_in_policy() {
        let queue = Retry { attempts_max: 3, backoff_max_ms: 500, ..Retry::default() };
        let task = Retry { attempts_max: 7, ..Retry::default() };
        let policy = task.or(queue).or(Retry::BUILT_IN);
        let expected = Retry { attempts_max: 7, backoff_max_ms: 500, ..Retry::BUILT_IN };
        assert_eq!(policy, expected);
    }

    #[test]
    fn the_wait_doubles_up_to_its_bound() {
        let retry = Retry { backoff_min_ms: 100, backoff_max_ms: 700, ..Retry::BUILT_IN };
        let waits: Vec<_> = (2..7).map(|attempt| retry.backoff(attempt).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 700, 700]);
        assert_eq!(retry.backoff(u32::MAX).as_millis(), 700);
        let hourly = Retry { backoff_min_ms: 3_600_000, ..Retry::BUILT_IN };
        assert_eq!(hourly.backoff(2).as_secs(), 3600, "whoever asks for an hour gets an hour");
    }

    #[test]
    fn an_outcome_is_read_as_the_handler_gave_it() {
        let outcome = |result| TaskOutcome { handler: "h".into(), tag: "t".into(), attempts: 1, result };
        let sent = encode_payload("message-7".to_owned()).expect("encodes");
        assert_eq!(outcome(Ok(sent)).read::<String>(), Ok("message-7".to_owned()));
        assert_eq!(outcome(Err("no".into())).read::<String>(), Err("no".to_owned()));
        assert!(outcome(Ok(vec![255])).read::<String>().is_err());
    }
}
