//! A link whose batches meet with what the node was told to do to them.
//!
//! ```text
//! send ─▶ Gate (outgoing) ─▶ line          nothing in force: straight on
//! wire ─▶ Gate (incoming) ─▶ link          else: queue ─▶ delay ─▶ open? ─▶ on, in the same order
//! ```
//!
//! What waits is bounded by the credit window of whoever sent it, and ends with the link: silence
//! closes that after `dead_after`, as it does in a network that is really cut.

use super::wire::Line;
use crate::impairment::{Direction, Impairments, Path};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use tokio::{
    sync::mpsc,
    task::AbortHandle,
    time::{Instant, sleep_until},
};

/// One direction of a link. It has one producer.
pub(super) struct Gate<T> {
    path: Path,
    queue: mpsc::UnboundedSender<(Instant, T)>,
    /// What is in the queue or on its way out of it: nothing may overtake it.
    waiting: Arc<AtomicUsize>,
    pump: AbortHandle,
}

impl<T: Send + 'static> Gate<T> {
    /// `hand_on` gets what had to wait, in order; false ends the gate.
    pub fn new(path: Path, hand_on: impl FnMut(T) -> bool + Send + 'static) -> Self {
        let (queue, items) = mpsc::unbounded_channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let pump = tokio::spawn(pump(path.clone(), items, waiting.clone(), hand_on)).abort_handle();
        Self { path, queue, waiting, pump }
    }

    /// Gives back what may be handed on at once, which the caller then does; keeps what has to wait.
    pub fn pass(&self, item: T) -> Option<T> {
        if self.waiting.load(Ordering::Acquire) == 0 && self.path.condition().is_clear() {
            return Some(item);
        }
        self.waiting.fetch_add(1, Ordering::AcqRel);
        // Fails where the gate has ended: with the link.
        let _ = self.queue.send((Instant::now(), item));
        None
    }

    fn has_ended(&self) -> bool {
        self.queue.is_closed()
    }
}

impl<T> Drop for Gate<T> {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

async fn pump<T>(
    mut path: Path,
    mut items: mpsc::UnboundedReceiver<(Instant, T)>,
    waiting: Arc<AtomicUsize>,
    mut hand_on: impl FnMut(T) -> bool,
) {
    let mut last = Instant::now();
    while let Some((came_at, item)) = items.recv().await {
        // Never before what came before it.
        last = last.max(came_at + path.condition().stream_delay());
        sleep_until(last).await;
        path.open().await;
        if !hand_on(item) {
            return;
        }
        waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The line of a link to `peer`, behind a gate if anything can happen to it.
pub(super) fn outgoing(impairments: &Impairments, peer: &str, line: Arc<dyn Line>) -> Arc<dyn Line> {
    let Some(path) = impairments.path(peer, Direction::Outgoing) else { return line };
    let behind = line.clone();
    let gate = Gate::new(path, move |batch| behind.send(batch));
    Arc::new(ImpairedLine { line, gate })
}

struct ImpairedLine {
    line: Arc<dyn Line>,
    gate: Gate<Vec<u8>>,
}

impl Line for ImpairedLine {
    fn send(&self, batch: Vec<u8>) -> bool {
        match self.gate.pass(batch) {
            Some(batch) => self.line.send(batch),
            None => !self.gate.has_ended(),
        }
    }

    fn hang_up(&self) {
        self.line.hang_up();
    }
}
