//! SKELETON: signatures first, bodies follow.
#![allow(unused)]

use super::types::*;
use crate::{
    Config,
    entity::{Entity, TaskOutcome},
};
use std::{marker::PhantomData, path::PathBuf, sync::Arc, time::Duration};

/// A running node (or, from [`Cluster::in_memory`], several) and the way to its entities.
#[derive(Clone)]
pub struct Cluster {}

/// Collects entity types and task handlers before a node starts.
pub struct Builder {}

/// The address of one entity. Cheap to make and to clone; holds nothing open.
pub struct EntityRef<E> {
    _entity: PhantomData<fn() -> E>,
}

/// What a task handler is told about its attempt.
#[derive(Debug, Clone)]
pub struct TaskContext {
    /// Stable across retries, failovers and restarts: use it as the key at whoever is called.
    pub idempotency_key: String,
    /// 1 for the first.
    pub attempt: u32,
    /// The entity that asked for the task.
    pub entity_type: String,
    pub entity_id: String,
}

/// Why an attempt failed, and whether to try again.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TaskError {
    #[error("{0}")]
    Retry(String),
    /// No retry can help: the task ends here.
    #[error("{0}")]
    Fatal(String),
}

impl Cluster {
    pub fn builder(config: Config) -> Builder { todo!() }
    /// One durable node in `data_dir`, no peers, no ports.
    pub fn single_node(data_dir: impl Into<PathBuf>) -> Builder { todo!() }
    /// `nodes` nodes in this process, on memory storage and memory links.
    pub fn in_memory(nodes: usize) -> Builder { todo!() }
    /// For a cluster of several nodes in this process: the same handle seen from node `index`
    /// (0-based). Node 0 is where [`Builder::start`] leaves you.
    pub fn on_node(&self, index: usize) -> Cluster { todo!() }
    pub fn entity<E: Entity>(&self, id: impl Into<String>) -> EntityRef<E> { todo!() }
    /// The shop, operations and documentation routes, for mounting in your own app.
    pub fn http_router(&self) -> axum::Router { todo!() }
    pub fn name(&self) -> &str { todo!() }
    pub fn config(&self) -> &Config { todo!() }
    pub fn status(&self) -> NodeStatus { todo!() }
    pub fn members(&self) -> Vec<MemberStatus> { todo!() }
    pub fn shards(&self) -> Vec<ShardStatus> { todo!() }
    /// Any entity by type and id; `data` is its state as JSON (states are `Serialize`).
    pub async fn inspect(&self, entity_type: &str, id: &str, consistency: Consistency) -> Result<(EntityStatus, serde_json::Value), Unavailable> { todo!() }
    /// Waits until this node is `Ready`.
    pub async fn ready(&self, timeout: Duration) -> Result<(), Unavailable> { todo!() }
    /// Hands leadership over, finishes what is in flight, stops. The node stays a member.
    pub async fn shutdown(&self) { todo!() }
    /// As `shutdown`, for good: the node is no longer counted on. (API.md `leave`.)
    pub async fn leave(&self) -> Result<(), Unavailable> { todo!() }
}

impl Builder {
    #[must_use]
    pub fn entity<E: Entity>(self) -> Self { todo!() }
    /// Registers the handler (and queue) `name`: bytes in, bytes out, at least once.
    #[must_use]
    pub fn task_handler<F, Fut>(self, name: &str, handler: F) -> Self
    where
        F: Fn(TaskContext, Vec<u8>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Vec<u8>, TaskError>> + Send + 'static,
    { todo!() }
    pub async fn start(self) -> Result<Cluster, StartError> { todo!() }
}

/// Why a node could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{0}")]
    Config(String),
    #[error("{0}")]
    Failed(String),
}

impl<E: Entity> EntityRef<E> {
    pub async fn ask(&self, command: impl Into<E::Command>) -> Result<E::Reply, AskError<E::Rejection>> { todo!() }
    pub async fn ask_with(&self, command: impl Into<E::Command>, options: AskOptions) -> Result<Answer<E::Reply>, AskError<E::Rejection>> { todo!() }
    pub async fn state(&self, consistency: Consistency) -> Result<Snapshot<E::State>, Unavailable> { todo!() }
    /// Events after number `after`, oldest first, at most `limit`.
    pub async fn history(&self, after: u64, limit: usize, consistency: Consistency) -> Result<Vec<Recorded<E::Event>>, Unavailable> { todo!() }
    /// Waits at the owner until the version is above `after`, at most `timeout`, then answers the
    /// state as it is (linearizable).
    pub async fn changed(&self, after: u64, timeout: Duration) -> Result<Snapshot<E::State>, Unavailable> { todo!() }
}
