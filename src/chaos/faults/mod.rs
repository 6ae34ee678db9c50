//! Each fault from its beginning to the moment when nothing is left of it.
//!
//! ```text
//! begin ─▶ lasts ─▶ heal ─▶ wait until it is gone (or a violation)
//! ```
//!
//! What a fault does to a node's process it does alone: [`Stage::take`] keeps others away until it
//! is done, and says that the node's end is no surprise.

mod directory;
mod disk;
mod journal;
mod members;
mod network;
mod process;

use super::{
    cluster::{Cluster, Node},
    fault::Fault,
    network::Network,
};
use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// What a fault works on, and its own times.
pub struct Stage<'a> {
    pub cluster: &'a Cluster,
    pub network: &'a Network,
    /// Of the fault, from 1.
    pub number: u64,
    pub lasts: Duration,
    pub recover_within: Duration,
    pub times: &'a Mutex<Times>,
    /// Told when it begins and when it is healed.
    pub news: &'a (dyn Fn(Moment) + Send + Sync),
}

/// When it began and was healed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Times {
    pub begun: Option<Instant>,
    pub healed: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    Begun,
    Healed,
}

/// What must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// It was healed, and is not gone.
    NotHealed(String),
    /// The product did something else than what the fault must bring about.
    Unexpected(String),
    /// It could not be brought about: nothing is said about the product.
    NotDone(String),
}

/// A node that nobody else does anything to; its end is no surprise meanwhile.
pub struct Taken<'a> {
    node: &'a Node,
    _turn: tokio::sync::MutexGuard<'a, ()>,
}

impl std::ops::Deref for Taken<'_> {
    type Target = Node;

    fn deref(&self) -> &Node {
        self.node
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.node.leave_alone();
    }
}

impl<'a> Stage<'a> {
    pub async fn take(&self, number: u16) -> Taken<'a> {
        let node = self.cluster.node(number);
        let turn = node.busy.lock().await;
        node.meddle();
        Taken { node, _turn: turn }
    }

    pub fn begun(&self) {
        self.times.lock().begun.get_or_insert_with(Instant::now);
        (self.news)(Moment::Begun);
    }

    pub fn healed(&self) {
        self.times.lock().healed.get_or_insert_with(Instant::now);
        (self.news)(Moment::Healed);
    }

    /// As long as the fault lasts.
    pub async fn last(&self) {
        tokio::time::sleep(self.lasts).await;
    }

    /// Starts a node and waits until it is ready.
    pub async fn bring_back(&self, node: &Node) -> Result<(), Trouble> {
        self.bring_back_with(node, &[]).await
    }

    /// The same, with further arguments this once.
    pub async fn bring_back_with(&self, node: &Node, arguments: &[&str]) -> Result<(), Trouble> {
        node.start_with(arguments)
            .map_err(|error| Trouble::NotDone(format!("{} cannot be started: {error}", node.name)))?;
        node.wait_ready(self.recover_within).await.map_err(Trouble::NotHealed)
    }
}

/// Carries a fault out; returns when nothing is left of it.
pub async fn carry_out(stage: &Stage<'_>, fault: &Fault) -> Result<(), Trouble> {
    match fault {
        Fault::Kill { node } => process::kill(stage, *node).await,
        Fault::KillOwner { shard } => process::kill_owner(stage, *shard).await,
        Fault::KillAll => process::kill_all(stage).await,
        Fault::Pause { node } => process::pause(stage, *node).await,
        Fault::RollingRestart => process::rolling_restart(stage).await,
        Fault::RestartLoop { node, times } => process::restart_loop(stage, *node, *times).await,
        Fault::Partition { .. }
        | Fault::PartitionOneWay { .. }
        | Fault::PartitionPartial { .. }
        | Fault::Loss { .. }
        | Fault::Delay { .. }
        | Fault::Reorder { .. }
        | Fault::Duplicate { .. } => network::change(stage, fault).await,
        Fault::Reset { node } => network::reset(stage, *node).await,
        Fault::SlowDisk { node, delay_ms } => disk::slow(stage, *node, *delay_ms).await,
        Fault::FullDisk { node } => disk::fatal(stage, *node, "full-disk").await,
        Fault::FailedFsync { node } => disk::fatal(stage, *node, "failed-fsync").await,
        Fault::ClockJump { node, offset_ms } => disk::clock(stage, *node, *offset_ms).await,
        Fault::TornWrite { node } => directory::torn_write(stage, *node).await,
        Fault::FlipBytes { node } => directory::flip_bytes(stage, *node).await,
        Fault::Wipe { node } => directory::wipe(stage, *node).await,
        Fault::Leave { node } => members::leave(stage, *node).await,
    }
}
