//! Bounded load from many clients through all nodes, every attempt of it recorded.
//!
//! ```text
//! start ─▶ prepare (stock) ─▶ clients: one workload each, closed loop ─┐
//!                          └▶ watch: memory and owners of every node ──┴─▶ recorder ─▶ history
//! ```
//!
//! - Beside the clients of registers there is a reader at each node, who asks no other.
//! - A client waits for its answer, or gives up on it, before it asks again; between two operations
//!   it pauses. So neither a slow cluster nor a long run is asked for more than can be checked.
//! - What is asked is drawn from the seed, per client; what is answered decides how a client goes
//!   on, so two runs ask alike but not the same.
//! - Stock and keys have fixed names: a cluster takes one load in its life.

mod checkout;
mod client;
mod recorder;
mod register;
mod transfer;
mod watch;
mod workload;

pub use checkout::is_cancelled_by_card;
pub use recorder::{HISTORY_BYTES_MAX, OPERATIONS_MAX, Sample};
pub use workload::{UnknownWorkload, Workload, skus};

use super::history::History;
use client::Client;
use recorder::Recorder;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// Longest wait for clients to finish what they are at when the load is stopped. Longer than one
/// of them may insist: whoever is not done then hangs.
const LAST_ANSWERS_MAX: Duration = Duration::from_secs(60);

#[derive(Debug, Clone)]
pub struct Options {
    /// Every node, as `http://host:port`.
    pub urls: Vec<String>,
    /// Workloads get them in turn; at least one each.
    pub clients: usize,
    pub workloads: Vec<Workload>,
    pub seed: u64,
    /// What the history's times count from.
    pub started: Instant,
}

/// A load that is running.
pub struct Load {
    recorder: Arc<Recorder>,
    running: JoinSet<()>,
}

/// Starts it; must be called inside of a tokio runtime.
///
/// # Panics
/// Without urls or workloads.
pub fn start(options: Options) -> Load {
    assert!(!options.urls.is_empty() && !options.workloads.is_empty(), "a load needs nodes and workloads");
    let recorder = Arc::new(Recorder::new(options.started));
    let mut running = JoinSet::new();
    running.spawn(watch::run(options.urls.clone(), recorder.clone()));
    running.spawn(prepare_and_run(options, recorder.clone()));
    Load { recorder, running }
}

impl Load {
    /// How it goes.
    #[must_use]
    pub fn sample(&self) -> Sample {
        self.recorder.sample()
    }

    /// Lets every client finish the operation it is at: retries until it is decided, for a bounded
    /// time. What is still open after that is unknown.
    pub async fn stop(mut self) -> History {
        self.recorder.stop.cancel();
        let finished = async { while self.running.join_next().await.is_some() {} };
        if tokio::time::timeout(LAST_ANSWERS_MAX, finished).await.is_err() {
            self.running.shutdown().await;
        }
        self.recorder.take()
    }
}

async fn prepare_and_run(options: Options, recorder: Arc<Recorder>) {
    let client = |number: usize, workload| Client::new(number, workload, &options, recorder.clone());
    for workload in &options.workloads {
        if !workload::stock_up(&mut client(0, *workload)).await {
            return;
        }
    }
    let clients = options.clients.max(options.workloads.len());
    let mut running = JoinSet::new();
    for (number, workload) in (1..=clients).zip(options.workloads.iter().cycle()) {
        let of_this = clients.div_ceil(options.workloads.len());
        let client = client(number, *workload);
        match workload {
            Workload::Checkout | Workload::HotSku => running.spawn(checkout::run(client)),
            Workload::Register => running.spawn(register::run(client, of_this)),
            Workload::Transfer => running.spawn(transfer::run(client)),
        };
    }
    if options.workloads.contains(&Workload::Register) {
        for node in 0..options.urls.len() {
            running.spawn(register::read_at(client(clients + 1 + node, Workload::Register), node));
        }
    }
    while running.join_next().await.is_some() {}
}
