//! Runs the tasks in a shard's outbox while this node owns it.
//!
//! ```text
//! outbox ─▶ its time ─▶ a turn in its queue ─▶ attempt ─┬─ done ────────▶ told to its entity
//!              ▲                                        ├─ no more ─────▶ told, and a dead letter
//!              └───────────── backoff ◀─── failed ◀─────┘
//! ```
//!
//! A task leaves the outbox in the entry that holds what its end led to, so that a task that an
//! owner had begun when it died is attempted again by the next one, with the same key. A task that
//! is given up always leaves a dead letter, whether or not its entity wants to hear of it.

use super::{
    applied::{Delivery, Outgoing, QueuedTask},
    dead_letters::shorten,
    entry::Item,
    patience::{Patience, refusal},
    registry::{TaskContext, TaskError},
    request::{Cause, CommandReply, CommandRequest},
    session::Session,
    task_queue::Queue,
};
use crate::{
    entity::{EntityKey, Retry, TaskOutcome, Versioned},
    storage::GroupId,
};
use parking_lot::Mutex;
use std::{
    any::Any,
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::Instant,
};

const RESULT_TIMEOUT: Duration = Duration::from_secs(5);
const RESULT_BACKOFF: Duration = Duration::from_millis(50);
/// How often the shard's gauges are set.
const MEASURE_EVERY: Duration = Duration::from_secs(1);

/// Which tasks of a session run at this moment.
#[derive(Default)]
pub struct Board(Mutex<BTreeSet<u64>>);

impl Board {
    pub fn is_running(&self, number: u64) -> bool {
        self.0.lock().contains(&number)
    }
}

/// Attempts the task in the background until it ends.
pub fn start(session: &Arc<Session>, number: u64, outgoing: Outgoing, done: mpsc::Sender<u64>) {
    let Delivery::Queued(queued) = outgoing.delivery else { return };
    let queue = session.queues.of(&queued.task.handler);
    let policy = policy(&queued, &queue.options.retry);
    let deadline_ms = deadline_ms(&queued, queue.options.deadline).unwrap_or(u64::MAX);
    let run = Attempts { session: session.clone(), number, from: outgoing.from, queued, queue, policy, deadline_ms };
    session.spawn(run.until_done(done));
}

/// What holds for a task: its own policy, its queue's, the built-in one.
pub fn policy(queued: &QueuedTask, queue: &Retry) -> Retry {
    queued.task.retry.or(*queue).or(Retry::BUILT_IN)
}

/// When a task is given up: its own deadline, or its queue's.
pub fn deadline_ms(queued: &QueuedTask, of_queue: Option<Duration>) -> Option<u64> {
    let of_queue = of_queue.filter(|_| queued.queued_at_ms > 0);
    let of_queue =
        of_queue.map(|d| queued.queued_at_ms.saturating_add(u64::try_from(d.as_millis()).unwrap_or(u64::MAX)));
    queued.deadline_ms.or(of_queue)
}

struct Attempts {
    session: Arc<Session>,
    number: u64,
    from: EntityKey,
    queued: QueuedTask,
    queue: Arc<Queue>,
    policy: Retry,
    deadline_ms: u64,
}

/// What the entity made of a task's end.
enum Report {
    Taken,
    /// It does not care, or rejects it.
    NotWanted,
    /// It cannot take it, however often it is told.
    Refused(String),
}

impl Attempts {
    async fn until_done(mut self, done: mpsc::Sender<u64>) {
        let result = self.work().await;
        let error = result.as_ref().err().cloned();
        match (self.report(result).await, error) {
            (Report::Taken, None) => {}
            (Report::Taken, Some(_)) => count_given_up("task", &self.queued.task.handler),
            // The receiver lives as long as the session.
            (Report::NotWanted, None) => _ = done.send(self.number).await,
            (Report::NotWanted, Some(error)) => self.give_up(error).await,
            (Report::Refused(why), None) => {
                self.give_up(format!("done, but its entity cannot take the result: {why}")).await;
            }
            (Report::Refused(why), Some(error)) => {
                self.give_up(format!("{error}; and its entity cannot take that: {why}")).await;
            }
        }
    }

    /// Attempts until there is a result, or no further attempt.
    async fn work(&mut self) -> Result<Vec<u8>, String> {
        let handler = self.queued.task.handler.clone();
        loop {
            if self.queued.attempts >= self.policy.attempts_max {
                return Err(self.queued.last_error.take().unwrap_or_else(|| "no attempts are allowed".into()));
            }
            let waiting = Gauged::new("quorate_task_queue_depth", &handler);
            let Some(turn) = self.turn().await else { return Err(self.too_late()) };
            drop(waiting);
            let attempt = {
                let _running = Gauged::new("quorate_tasks_running", &handler);
                let _listed = Listed::new(&self.session, self.number);
                self.attempt(turn).await
            };
            match attempt {
                Ok(output) => return Ok(output),
                Err(TaskError::Retry(error)) => self.note_failure(shorten(error)).await,
                Err(TaskError::Fatal(error)) => {
                    let error = shorten(error);
                    self.note_failure(error.clone()).await;
                    return Err(error);
                }
            }
        }
    }

    /// Waits for the task's time, then for its turn; `None` if the deadline comes first.
    async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        if self.queued.next_at_ms >= self.deadline_ms {
            return None;
        }
        let waiting = async {
            self.session.clock.sleep_until(self.queued.next_at_ms).await;
            self.queue.turn(&self.session.router).await
        };
        tokio::time::timeout(self.time_left(), waiting).await.ok().flatten()
    }

    fn time_left(&self) -> Duration {
        Duration::from_millis(self.deadline_ms.saturating_sub(self.session.clock.now_ms()))
    }

    fn too_late(&mut self) -> String {
        match self.queued.last_error.take() {
            Some(error) => format!("not done by its deadline; the last attempt: {error}"),
            None => "its deadline passed before its first attempt".into(),
        }
    }

    async fn attempt(&self, turn: OwnedSemaphorePermit) -> Result<Vec<u8>, TaskError> {
        let task = &self.queued.task;
        let Some(handler) = self.session.machine.registry().handler(&task.handler).cloned() else {
            return Err(TaskError::Retry(format!("no task handler `{}` is registered", task.handler)));
        };
        let (context, payload) = (self.context(), task.payload.clone());
        let limit = Duration::from_millis(self.policy.attempt_timeout_ms).min(self.time_left());
        // A task of its own, so that a panicking handler is a failed attempt. It keeps its turn until
        // it has really ended.
        let running = tokio::spawn(async move {
            let _turn = turn;
            handler(context, payload).await
        });
        let _abort = AbortOnDrop(running.abort_handle());
        let outcome = match tokio::time::timeout(limit, running).await {
            Ok(Ok(result)) => result,
            Ok(Err(ended)) => Err(TaskError::Retry(panicked("the handler", ended.try_into_panic().ok()))),
            Err(_) => Err(TaskError::Retry(format!("no result within {limit:?}"))),
        };
        let label = if outcome.is_ok() { "succeeded" } else { "failed" };
        let handler = task.handler.clone();
        metrics::counter!("quorate_tasks_total", "handler" => handler, "outcome" => label).increment(1);
        outcome
    }

    fn context(&self) -> TaskContext {
        let number = self.queued.first_number.unwrap_or(self.number);
        // Where it was on its way when that was backed up, its key stays.
        let origin = self.session.machine.look(|state| state.restores.origin_of(number));
        let cluster = origin.unwrap_or_else(|| self.session.router.cluster());
        TaskContext {
            idempotency_key: format!("{cluster}-{}-{number}", self.session.shard),
            attempt: self.queued.attempts + 1,
            entity_type: self.from.entity_type.to_string(),
            entity_id: self.from.id.to_string(),
        }
    }

    /// Writes the failed attempt down, and when the next one may begin.
    async fn note_failure(&mut self, error: String) {
        self.queued.attempts += 1;
        let (number, attempts, handler) = (self.number, self.queued.attempts, self.queued.task.handler.clone());
        tracing::debug!(entity = %self.from, handler, attempts, error, "a task attempt failed");
        let backoff = self.policy.backoff(attempts + 1).as_millis();
        let jitter = 0.5 + rand::random::<f64>();
        let retry_at_ms = self.session.clock.now_ms() + (backoff as f64 * jitter) as u64;
        (self.queued.next_at_ms, self.queued.last_error) = (retry_at_ms, Some(error.clone()));
        if attempts < self.policy.attempts_max {
            metrics::counter!("quorate_task_retries_total", "handler" => handler).increment(1);
        }
        self.session.submitter.upkeep(&Item::TaskFailed { number, attempts, retry_at_ms, error }).await;
    }

    async fn give_up(&self, error: String) {
        give_up(&self.session, self.number, error).await;
        count_given_up("task", &self.queued.task.handler);
    }

    /// Tells the entity, until it has it or will never take it.
    async fn report(&self, result: Result<Vec<u8>, String>) -> Report {
        let dead = result.as_ref().err().cloned();
        let command = match self.command(result) {
            Ok(Some(command)) => Some(command),
            Ok(None) => return Report::NotWanted,
            Err(Some(why)) => return Report::Refused(why),
            Err(None) => None,
        };
        let mut patience = Patience::new(&self.session.options);
        loop {
            let refused = match &command {
                Some(command) => match self.tell(command, &dead).await {
                    CommandReply::Done { .. } | CommandReply::Duplicate => return Report::Taken,
                    CommandReply::Rejected(_) => return Report::NotWanted,
                    other => refusal(&other).map(|(_, why)| why),
                },
                None => Some(format!("no entity type `{}` is registered", self.from.entity_type)),
            };
            let wait = match refused {
                Some(why) if patience.ends_at(Instant::now()) => return Report::Refused(why),
                Some(_) => patience.pause(),
                None => RESULT_BACKOFF,
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// The end as a command of the entity: `Ok(None)` if it wants none, `Err(None)` if its type is
    /// unknown here.
    fn command(&self, result: Result<Vec<u8>, String>) -> Result<Option<Versioned>, Option<String>> {
        let registry = self.session.machine.registry();
        let entity_type = registry.entity_type(&self.from.entity_type).cloned().ok_or(None)?;
        let task = &self.queued.task;
        // A success is the attempt after those that failed.
        let attempts = self.queued.attempts + u32::from(result.is_ok());
        let outcome = TaskOutcome { handler: task.handler.clone(), tag: task.tag.clone(), attempts, result };
        match catch_unwind(AssertUnwindSafe(|| entity_type.task_finished(outcome))) {
            Ok(command) => command.map_err(|error| Some(error.to_string())),
            Err(panic) => Err(Some(panicked("`task_finished`", Some(panic)))),
        }
    }

    async fn tell(&self, command: &Versioned, dead: &Option<String>) -> CommandReply {
        let request = CommandRequest {
            key: self.from.clone(),
            command: command.clone(),
            cause: Cause::Task { number: self.number, dead: dead.clone() },
            idempotency: None,
            if_version: None,
            trace_id: None,
        };
        self.session.router.command(request, RESULT_TIMEOUT).await
    }
}

/// Makes a dead letter of an effect.
pub async fn give_up(session: &Session, number: u64, error: String) {
    let error = shorten(error);
    tracing::warn!(shard = %session.shard, number, error, "an effect is given up and becomes a dead letter");
    session.submitter.upkeep(&Item::GiveUp { number, at_ms: session.clock.now_ms(), error }).await;
}

pub fn count_given_up(kind: &'static str, handler: &str) {
    let handler = handler.to_owned();
    metrics::counter!("quorate_dead_letters_total", "kind" => kind, "handler" => handler).increment(1);
}

/// Keeps the gauges of what waits on this shard.
pub async fn measure(session: Arc<Session>) {
    if session.group_id == GroupId::CATALOG {
        return; // no shard, and nothing waits there
    }
    let shard = session.shard.to_string();
    let pending = metrics::gauge!("quorate_outbox_pending", "shard" => shard.clone());
    let letters = metrics::gauge!("quorate_dead_letters", "shard" => shard);
    // Whoever owns the shard next counts on.
    let _reset = (ZeroOnDrop(pending.clone()), ZeroOnDrop(letters.clone()));
    let mut tick = tokio::time::interval(MEASURE_EVERY);
    loop {
        tick.tick().await;
        let (waiting, dead) = session.machine.look(|state| (state.outbox.len(), state.letters.len()));
        pending.set(waiting as f64);
        letters.set(dead as f64);
    }
}

fn panicked(who: &str, panic: Option<Box<dyn Any + Send>>) -> String {
    let text = |panic: &Box<dyn Any + Send>| {
        let owned = panic.downcast_ref::<String>().cloned();
        owned.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
    };
    match panic.as_ref().and_then(text) {
        Some(text) => format!("{who} panicked: {text}"),
        None => format!("{who} panicked"),
    }
}

/// One more of something per handler, as long as it lives.
struct Gauged(metrics::Gauge);

impl Gauged {
    fn new(name: &'static str, handler: &str) -> Self {
        let gauge = metrics::gauge!(name, "handler" => handler.to_owned());
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for Gauged {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

struct ZeroOnDrop(metrics::Gauge);

impl Drop for ZeroOnDrop {
    fn drop(&mut self) {
        self.0.set(0.0);
    }
}

/// On the board as long as it lives.
struct Listed<'a>(&'a Board, u64);

impl<'a> Listed<'a> {
    fn new(session: &'a Session, number: u64) -> Self {
        session.tasks.0.lock().insert(number);
        Self(&session.tasks, number)
    }
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.0.0.lock().remove(&self.1);
    }
}

/// An attempt ends with the session that began it: the next owner begins another.
struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
