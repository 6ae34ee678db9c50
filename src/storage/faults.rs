//! Faults of the disk, given to a store when it is built: tests hold back a flush or let it fail,
//! chaos also makes the disk slow or full.
//!
//! A production store gets [`Faults::none`], which is a `None` to look at per group commit.

use super::Error;
use parking_lot::{Condvar, Mutex};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

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
    /// How much longer every sync takes.
    slow: Duration,
    full: bool,
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
        self.change(|state| (state.held, state.state_held, state.slow) = (false, false, Duration::ZERO));
    }

    /// The next flush fails with `detail`, as a failed fsync would.
    pub fn fail_next(&self, detail: &str) {
        self.change(|state| state.fail_next = Some(detail.to_owned()));
    }

    /// Takes back [`Faults::fail_next`], if no flush has failed yet.
    pub fn forgive(&self) {
        self.change(|state| state.fail_next = None);
    }

    /// From now on every flush takes so much longer; no time at all makes it as fast as ever.
    pub fn slow_down(&self, by: Duration) {
        self.change(|state| state.slow = by);
    }

    /// Whether writes fail from now on for want of space.
    pub fn fill_up(&self, full: bool) {
        self.change(|state| state.full = full);
    }

    /// Whether a flush is waiting right now: what it writes is taken from the queue, not durable.
    pub fn is_holding(&self) -> bool {
        self.0.as_ref().is_some_and(|inner| inner.state.lock().waiting > 0)
    }

    /// Called by a writer thread before it writes.
    pub(super) fn before_write(&self) -> Result<(), Error> {
        match &self.0 {
            Some(inner) if inner.state.lock().full => Err(Error::Poisoned {
                detail: "the append failed: no space left on device (a fault on purpose)".into(),
            }),
            _ => Ok(()),
        }
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
        let began = Instant::now();
        while began.elapsed() < state.slow {
            let ends = began + state.slow;
            inner.changed.wait_until(&mut state, ends);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_disk_takes_its_time_until_it_is_released() {
        let faults = Faults::armed();
        let slow = Duration::from_millis(60);
        faults.slow_down(slow);
        let began = Instant::now();
        faults.before_sync().expect("slow, not broken");
        assert!(began.elapsed() >= slow);
        faults.slow_down(Duration::from_secs(3600));
        let theirs = faults.clone();
        let waiting = std::thread::spawn(move || theirs.before_state_sync());
        while !faults.is_holding() {
            std::thread::yield_now();
        }
        faults.release();
        waiting.join().expect("it ends").expect("not broken");
    }

    #[test]
    fn a_full_disk_takes_no_write_until_there_is_space() {
        let faults = Faults::armed();
        faults.fill_up(true);
        let refused = faults.before_write().expect_err("full").to_string();
        assert!(refused.contains("no space left"), "{refused}");
        faults.fill_up(false);
        faults.before_write().expect("space again");
        faults.fail_next("x");
        faults.forgive();
        faults.before_sync().expect("forgiven");
    }

    #[test]
    fn a_store_of_production_has_no_faults() {
        let faults = Faults::none();
        faults.fill_up(true);
        faults.fail_next("x");
        faults.slow_down(Duration::from_secs(3600));
        faults.before_write().expect("no fault");
        faults.before_sync().expect("no fault");
    }
}
