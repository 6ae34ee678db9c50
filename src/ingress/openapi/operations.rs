//! Schemas of what operators see of tasks and dead letters. As in `schemas`, nothing here is ever
//! made: the real types are in `ingress::tasks`.
#![allow(dead_code)]

use super::EntityKey;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub struct ResolveHeaders {
    /// 1 to 255 visible ASCII characters: makes the change once, however often it is sent.
    #[param(rename = "Idempotency-Key", example = "6f1f2f0e-5d4e-4b8f-9a54-0f5f6f1d2c3b")]
    idempotency_key: Option<String>,
}

/// Bytes.
#[derive(Serialize, ToSchema)]
#[schema(value_type = String, format = Binary)]
pub struct Binary(Vec<u8>);

/// A backup that was put in.
#[derive(Serialize, ToSchema)]
pub struct RestoredBackup {
    #[schema(example = "6f1f2f0e5d4e4b8f9a540f5f6f1d2c3b", pattern = "^[0-9a-f]{32}$")]
    backup: String,
    /// The cluster that it was taken of.
    #[schema(example = "0c5c1bd0a0a84d1e8b1d0e6c1f7a2b3c", pattern = "^[0-9a-f]{32}$")]
    cluster: String,
    #[schema(example = "2026-11-26T10:00:00.000Z")]
    taken_at: String,
    shards: u16,
    /// Keys and values in it, of all shards.
    pairs: u64,
    /// Length of the file.
    bytes: u64,
    /// It had been restored before, and nothing was done now.
    was_before: bool,
}

/// A task that has not ended.
#[derive(Serialize, ToSchema)]
pub struct Task {
    #[schema(example = "task_3_17")]
    id: String,
    #[schema(example = "send-email")]
    handler: String,
    /// Chosen by the entity.
    tag: String,
    /// Who asked for it.
    entity: EntityKey,
    #[schema(inline)]
    state: TaskState,
    /// Attempts that failed.
    attempts: u32,
    attempts_max: u32,
    /// Not before this time; `null`: at once.
    #[schema(format = DateTime)]
    next_attempt_at: Option<String>,
    /// When it is given up.
    #[schema(format = DateTime)]
    deadline_at: Option<String>,
    #[schema(format = DateTime)]
    queued_at: Option<String>,
    last_error: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Before its time.
    Scheduled,
    /// Waits for its turn.
    Queued,
    Running,
    /// Waits for its next attempt.
    Retrying,
}

/// A task or a tell that was given up.
#[derive(Serialize, ToSchema)]
pub struct DeadLetter {
    #[schema(example = "dl_3_17")]
    id: String,
    #[schema(inline)]
    kind: DeadLetterKind,
    /// Whose task or tell it was.
    entity: EntityKey,
    /// Of a task.
    #[schema(example = "send-email")]
    handler: Option<String>,
    /// Of a task.
    tag: Option<String>,
    /// Of a task.
    attempts: Option<u32>,
    /// Of a tell: who could not take it.
    to: Option<EntityKey>,
    payload_bytes: u64,
    error: String,
    #[schema(format = DateTime)]
    given_up_at: Option<String>,
    /// The task's payload, or the tell's command; only where one letter is read.
    payload_hex: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeadLetterKind {
    Task,
    Tell,
}

#[derive(Serialize, ToSchema)]
pub struct ResolvedLetter {
    #[schema(example = "dl_3_17")]
    id: String,
    /// `retried` or `discarded`.
    #[schema(example = "retried")]
    resolution: String,
}

/// A fault on purpose, in force on the node that was asked.
#[derive(Serialize, ToSchema)]
pub struct Fault {
    id: u64,
    #[schema(example = "slow-disk")]
    fault: String,
    duration_ms: u64,
    /// Of `slow-disk` and `delay`.
    delay_ms: Option<u64>,
    /// Of `clock-jump`.
    offset_ms: Option<i64>,
    /// Of `loss`, `reorder` and `duplicate`.
    probability: Option<f64>,
    /// Of faults of the network: between the node that was asked and these. Left out: all others.
    peers: Option<Vec<String>>,
    /// Of faults of the network: `both`, `outgoing` or `incoming`.
    direction: Option<String>,
}
