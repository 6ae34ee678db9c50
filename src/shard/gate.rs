//! Keeps a checkpoint as it is while a snapshot is read from it.
//!
//! Unlike a fair read-write lock, a waiting writer does not keep new readers out: a reader is
//! awaited by the task that applies entries, and must never wait for another replica's transfer.

use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::Notify;

#[derive(Default)]
pub struct Gate {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    readers: usize,
    writing: bool,
}

/// Held while a snapshot is read.
pub struct ReadPass(Arc<Gate>);

/// Held while a checkpoint is written.
pub struct WritePass(Arc<Gate>);

impl Gate {
    /// Waits only while a checkpoint is being written.
    pub async fn read(self: &Arc<Self>) -> ReadPass {
        self.until(|state| {
            let free = !state.writing;
            state.readers += usize::from(free);
            free
        })
        .await;
        ReadPass(self.clone())
    }

    /// Waits until nobody reads or writes.
    pub async fn write(self: &Arc<Self>) -> WritePass {
        self.until(|state| {
            let free = !state.writing && state.readers == 0;
            state.writing |= free;
            free
        })
        .await;
        WritePass(self.clone())
    }

    async fn until(&self, enter: impl Fn(&mut State) -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Listen first, then look: a change in between is not missed.
            changed.as_mut().enable();
            if enter(&mut self.state.lock()) {
                return;
            }
            changed.await;
        }
    }
}

impl Drop for ReadPass {
    fn drop(&mut self) {
        self.0.state.lock().readers -= 1;
        self.0.changed.notify_waiters();
    }
}

impl Drop for WritePass {
    fn drop(&mut self) {
        self.0.state.lock().writing = false;
        self.0.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn a_waiting_writer_keeps_no_reader_out_and_gets_its_turn() {
        let gate = Arc::new(Gate::default());
        let first = gate.read().await;
        let mut writer = Box::pin(gate.write());
        assert!(writer.as_mut().now_or_never().is_none(), "a reader is in");
        let second = gate.read().now_or_never().expect("readers do not wait for a waiting writer");
        drop((first, second));
        let writing = writer.await;
        assert!(gate.read().now_or_never().is_none(), "a checkpoint is being written");
        drop(writing);
        assert!(gate.read().now_or_never().is_some());
    }
}
