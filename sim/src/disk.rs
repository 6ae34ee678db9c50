//! A node's disk: writes become durable some virtual time after they were queued, and those that
//! were not are lost in a crash.

use bytesize::ByteSize;
use quorate::storage::{MemoryStorage, Options, Steps};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::Notify;

/// How long a flush takes, at random between the two.
#[derive(Debug, Clone, Copy)]
pub struct Speed {
    pub fastest_us: u64,
    pub slowest_us: u64,
}

impl Speed {
    pub const USUAL: Speed = Speed { fastest_us: 80, slowest_us: 2_000 };
    pub const SLOW: Speed = Speed { fastest_us: 20_000, slowest_us: 300_000 };
}

/// A disk that outlives its node's crashes.
pub struct Disk {
    store: Arc<MemoryStorage>,
    speed: Arc<Mutex<Speed>>,
    random: StdRng,
}

impl Disk {
    /// An empty one.
    pub fn new(seed: u64) -> Self {
        let (random, speed, wake) = (StdRng::seed_from_u64(seed), Arc::new(Mutex::new(Speed::USUAL)), Arc::default());
        let (store, steps) = MemoryStorage::stepped(&options(), waker(&wake));
        let mut disk = Self { store: Arc::new(store), speed, random };
        disk.drive(steps, wake);
        disk
    }

    pub fn store(&self) -> Arc<MemoryStorage> {
        self.store.clone()
    }

    pub fn set_speed(&self, speed: Speed) {
        *lock(&self.speed) = speed;
    }

    /// Whatever was not flushed is gone, and who holds the old store gets errors.
    pub fn cut_power(&mut self) {
        let wake = Arc::default();
        let (store, steps) = self.store.crash_stepped(waker(&wake));
        self.store = Arc::new(store);
        self.drive(steps, wake);
    }

    /// Flushes group after group, as a writer thread would, in virtual time.
    fn drive(&mut self, mut steps: Steps, wake: Arc<Notify>) {
        let (speed, mut random) = (self.speed.clone(), StdRng::from_rng(&mut self.random));
        tokio::spawn(async move {
            while !steps.is_closed() {
                if steps.is_waiting() {
                    let Speed { fastest_us, slowest_us } = *lock(&speed);
                    let flush = Duration::from_micros(random.random_range(fastest_us..=slowest_us));
                    tokio::time::sleep(flush).await;
                    steps.step();
                } else {
                    wake.notified().await;
                }
            }
        });
    }
}

/// Without a bound that could be reached: a full queue blocks its caller, and here the caller's
/// thread is the one that would make room.
fn options() -> Options {
    Options { queue_writes_max: usize::MAX, queue_bytes_max: ByteSize::gib(64), ..Options::default() }
}

fn waker(wake: &Arc<Notify>) -> Arc<dyn Fn() + Send + Sync> {
    let wake = wake.clone();
    Arc::new(move || wake.notify_one())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
