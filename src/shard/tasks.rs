//! Runs the tasks in a shard's outbox while this node owns it.
//!
//! A task is attempted until it succeeds or its retries are used up; its end goes back to its
//! entity as a command, in the same entry that takes the task out of the outbox. A task that an
//! owner had begun when it died is attempted again by the next one, with the same key.

use super::{
    applied::{Delivery, Outgoing},
    entry::Item,
    registry::{TaskContext, TaskError},
    request::{Cause, CommandReply, CommandRequest},
    session::Session,
};
use crate::entity::{Task, TaskOutcome, Versioned};
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::sync::{Semaphore, mpsc};

const RESULT_TIMEOUT: Duration = Duration::from_secs(5);
const RESULT_BACKOFF: Duration = Duration::from_millis(50);

/// Starts tasks, within a bound per handler.
pub struct Runner {
    in_flight_max: usize,
    queues: Mutex<HashMap<String, Arc<Semaphore>>>,
}

impl Runner {
    pub fn new(session: &Session) -> Self {
        Self { in_flight_max: session.options.tasks_in_flight, queues: Mutex::default() }
    }

    /// Attempts the task in the background until it ends.
    pub fn start(&self, session: &Arc<Session>, number: u64, outgoing: Outgoing, done: mpsc::Sender<u64>) {
        let Delivery::Task { task, attempts, retry_at_ms, last_error } = outgoing.delivery else { return };
        let queue = self.queue(&task.handler);
        let session_ = session.clone();
        let run = Attempts { session: session_, number, from: outgoing.from, task, attempts, retry_at_ms, last_error };
        session.spawn(run.until_done(queue, done));
    }

    fn queue(&self, handler: &str) -> Arc<Semaphore> {
        let mut queues = self.queues.lock();
        let queue = queues.entry(handler.to_owned());
        queue.or_insert_with(|| Arc::new(Semaphore::new(self.in_flight_max))).clone()
    }
}

struct Attempts {
    session: Arc<Session>,
    number: u64,
    from: crate::entity::EntityKey,
    task: Task,
    attempts: u32,
    retry_at_ms: u64,
    last_error: Option<String>,
}

impl Attempts {
    async fn until_done(mut self, queue: Arc<Semaphore>, done: mpsc::Sender<u64>) {
        let result = loop {
            if self.attempts >= self.task.retry.attempts_max {
                break Err(self.last_error.take().unwrap_or_else(|| "no attempts are allowed".into()));
            }
            let wait_ms = self.retry_at_ms.saturating_sub(super::now_ms());
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
            let Ok(permit) = queue.clone().acquire_owned().await else { return };
            let attempt = self.attempt().await;
            drop(permit);
            self.attempts += 1;
            match attempt {
                Ok(output) => break Ok(output),
                Err(TaskError::Fatal(error)) => break Err(error),
                Err(TaskError::Retry(error)) => self.note_failure(error).await,
            }
        };
        self.report(result, done).await;
    }

    async fn attempt(&self) -> Result<Vec<u8>, TaskError> {
        let Some(handler) = self.session.machine.registry().handler(&self.task.handler).cloned() else {
            return Err(TaskError::Retry(format!("no task handler `{}` is registered", self.task.handler)));
        };
        let context = TaskContext {
            idempotency_key: format!("{}-{}-{}", self.session.router.cluster(), self.session.shard, self.number),
            attempt: self.attempts + 1,
            entity_type: self.from.entity_type.to_string(),
            entity_id: self.from.id.to_string(),
        };
        let limit = Duration::from_millis(self.task.retry.attempt_timeout_ms);
        // A task of its own, so that a panicking handler is a failed attempt.
        let running = tokio::spawn(handler(context, self.task.payload.clone()));
        let abort = running.abort_handle();
        let outcome = match tokio::time::timeout(limit, running).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(TaskError::Retry("the handler panicked".into())),
            Err(_) => {
                abort.abort();
                Err(TaskError::Retry(format!("no result within {limit:?}")))
            }
        };
        let label = if outcome.is_ok() { "succeeded" } else { "failed" };
        metrics::counter!("quorate_tasks_total", "handler" => self.task.handler.clone(), "outcome" => label)
            .increment(1);
        outcome
    }

    async fn note_failure(&mut self, error: String) {
        tracing::debug!(entity = %self.from, handler = self.task.handler, attempts = self.attempts, error, "a task attempt failed");
        let backoff = self.task.retry.backoff(self.attempts + 1).as_millis();
        let jitter = 0.5 + rand::random::<f64>();
        self.retry_at_ms = super::now_ms() + (backoff as f64 * jitter) as u64;
        self.last_error = Some(error.clone());
        let (number, attempts, retry_at_ms) = (self.number, self.attempts, self.retry_at_ms);
        self.session.submitter.upkeep(&Item::TaskFailed { number, attempts, retry_at_ms, error }).await;
    }

    /// Tells the entity, until it has it.
    async fn report(self, result: Result<Vec<u8>, String>, done: mpsc::Sender<u64>) {
        let dead = result.as_ref().err().cloned();
        let (handler, tag) = (self.task.handler.clone(), self.task.tag.clone());
        let outcome = TaskOutcome { handler, tag, attempts: self.attempts, result };
        let registry = self.session.machine.registry();
        let Some(entity_type) = registry.entity_type(&self.from.entity_type).cloned() else { return };
        let command = match entity_type.task_finished(outcome) {
            Ok(Some(command)) => command,
            Ok(None) => {
                let _ = done.send(self.number).await;
                return;
            }
            Err(error) => {
                tracing::error!(entity = %self.from, %error, "a task's result cannot be encoded; it is dropped");
                let _ = done.send(self.number).await;
                return;
            }
        };
        while !self.told(&command, &dead, &done).await {
            tokio::time::sleep(RESULT_BACKOFF).await;
        }
    }

    async fn told(&self, command: &Versioned, dead: &Option<String>, done: &mpsc::Sender<u64>) -> bool {
        let request = CommandRequest {
            key: self.from.clone(),
            command: command.clone(),
            cause: Cause::Task { number: self.number, dead: dead.clone() },
            idempotency: None,
            if_version: None,
            trace_id: None,
        };
        match self.session.router.command(request, RESULT_TIMEOUT).await {
            CommandReply::Done { .. } | CommandReply::Duplicate => true,
            CommandReply::Rejected(_) => {
                let _ = done.send(self.number).await;
                true
            }
            _ => false,
        }
    }
}
