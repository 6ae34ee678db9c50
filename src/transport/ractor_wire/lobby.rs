//! Connections that have not proven themselves. When there are too many, the oldest has to go:
//! a flood of silent clients then cannot keep out a node, which needs only a moment.

use parking_lot::Mutex;
use std::{collections::VecDeque, sync::Arc};
use tokio::task::AbortHandle;

pub(super) struct Lobby {
    max: usize,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    tasks: VecDeque<(u64, AbortHandle)>,
}

/// A place in the lobby; dropped when the connection has proven itself, or has failed.
pub(super) struct Place {
    lobby: Arc<Lobby>,
    number: u64,
}

impl Lobby {
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, waiting: Mutex::default() })
    }

    /// Runs a task with a place of its own. True if the oldest had to go for it.
    pub fn enter<F>(self: &Arc<Self>, task: impl FnOnce(Place) -> F) -> bool
    where
        F: Future<Output = ()> + Send + 'static,
    {
        // locked while spawning, so that the task cannot leave before it is listed
        let mut waiting = self.waiting.lock();
        let number = waiting.next;
        waiting.next += 1;
        let place = Place { lobby: self.clone(), number };
        let handle = tokio::spawn(task(place)).abort_handle();
        waiting.tasks.push_back((number, handle));
        if waiting.tasks.len() <= self.max {
            return false;
        }
        let oldest = waiting.tasks.pop_front();
        drop(waiting);
        if let Some((_, oldest)) = oldest {
            oldest.abort();
        }
        true
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.waiting.lock().tasks.len()
    }

    /// Sends everyone away.
    pub fn clear(&self) {
        let tasks = std::mem::take(&mut self.waiting.lock().tasks);
        for (_, task) in tasks {
            task.abort();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.lobby.waiting.lock().tasks.retain(|(number, _)| *number != self.number);
    }
}
