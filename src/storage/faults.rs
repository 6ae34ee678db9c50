//! Faults of the disk, given to a store when it is built: tests hold back a flush or let it fail.
//!
//! A production store gets [`Faults::none`], which is a `None` to look at per group commit.

use super::Error;
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;

/// A handle on the moment between "written" and "synced". Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Faults(Option<Arc<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    held: bool,
    /// Only flushes of the state store wait.
    state_held: bool,
    /// Flushes that wait.
    waiting: usize,
    fail_next: Option<String>,
}

impl Faults {
    /// No fault can ever be injected.
    pub const fn none() -> Self {
        Self(None)
    }

    /// Faults can be injected through this handle and its clones.
    pub fn armed() -> Self {
        Self(Some(Arc::default()))
    }

    /// From now on a flush waits, until [`Faults::release`] or until the store is dropped.
    pub fn hold(&self) {
        self.change(|state| state.held = true);
    }

    /// From now on a flush of the state store waits; the journal's go on.
    pub fn hold_state(&self) {
        self.change(|state| state.state_held = true);
    }

    /// Lets a held flush, and every later one, go on.
    pub fn release(&self) {
        self.change(|state| (state.held, state.state_held) = (false, false));
    }

    /// The next flush fails with `detail`, as a failed fsync would.
    pub fn fail_next(&self, detail: &str) {
        self.change(|state| state.fail_next = Some(detail.to_owned()));
    }

    /// Whether a flush is waiting right now: what it writes is taken from the queue, not durable.
    pub fn is_holding(&self) -> bool {
        self.0.as_ref().is_some_and(|inner| inner.state.lock().waiting > 0)
    }

    /// Called by a writer thread where the sync happens.
    pub(super) fn before_sync(&self) -> Result<(), Error> {
        self.wait_while(|state| state.held)
    }

    /// As [`Faults::before_sync`], for the state store.
    pub(super) fn before_state_sync(&self) -> Result<(), Error> {
        self.wait_while(|state| state.held || state.state_held)
    }

    fn wait_while(&self, is_held: impl Fn(&State) -> bool) -> Result<(), Error> {
        let Some(inner) = &self.0 else { return Ok(()) };
        let mut state = inner.state.lock();
        state.waiting += 1;
        while is_held(&state) {
            inner.changed.wait(&mut state);
        }
        state.waiting -= 1;
        match state.fail_next.take() {
            Some(detail) => Err(Error::Poisoned { detail }),
            None => Ok(()),
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        if let Some(inner) = &self.0 {
            change(&mut inner.state.lock());
            inner.changed.notify_all();
        }
    }
}
