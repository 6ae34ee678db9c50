//! Task queues: how many attempts of one handler run at once on this node, and how fast they
//! begin.
//!
//! All tasks of one handler on one node share one queue, whichever shards they come from. A limit
//! on the whole cluster is divided, not leased: a node may use the part of it that its share of the
//! shards is. That needs no agreement between nodes, and what one node does not use another does
//! not get. See docs/decisions/0023-task-queues.md.

use super::{registry::Registry, router::Router};
use crate::entity::Retry;
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

/// The lowest rate: one attempt a day.
const RATE_MIN: f64 = 1.0 / 86_400.0;

/// How the tasks of one handler are run. The default leaves everything to the configuration and to
/// [`Retry::BUILT_IN`]. Register the same on every node.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TaskQueue {
    /// Attempts that run at once on each node; `None` takes `shard.tasks_in_flight`.
    pub concurrency: Option<usize>,
    /// Attempts that begin per second on each node. They are spaced evenly: a queue that was idle
    /// does not catch up.
    pub rate_per_second: Option<f64>,
    /// Attempts that begin per second in the whole cluster, divided among the nodes by the shards
    /// that each owns. While shards change hands it may be exceeded by one attempt for each.
    pub cluster_rate_per_second: Option<f64>,
    /// Attempts and backoff of tasks that do not bring their own.
    pub retry: Retry,
    /// Tasks without a deadline of their own are given up this long after they were asked for.
    pub deadline: Option<Duration>,
}

/// A queue that cannot be meant.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum InvalidQueue {
    #[error("the concurrency of task queue `{0}` is 0, so that nothing would ever run; use 1 or more")]
    NoConcurrency(String),
    #[error("a rate of task queue `{0}` is {1} per second; use a number of at least {RATE_MIN:.7} (one a day)")]
    BadRate(String, f64),
    #[error("the deadline of task queue `{0}` is 0, so that every task would be given up; use a longer one")]
    NoTime(String),
}

impl TaskQueue {
    pub fn validate(&self, name: &str) -> Result<(), InvalidQueue> {
        if self.concurrency == Some(0) {
            return Err(InvalidQueue::NoConcurrency(name.into()));
        }
        let rates = [self.rate_per_second, self.cluster_rate_per_second];
        if let Some(rate) = rates.into_iter().flatten().find(|rate| !rate.is_finite() || *rate < RATE_MIN) {
            return Err(InvalidQueue::BadRate(name.into(), rate));
        }
        if self.deadline.is_some_and(|deadline| deadline.is_zero()) {
            return Err(InvalidQueue::NoTime(name.into()));
        }
        Ok(())
    }

    /// The wait between the beginnings of two attempts, where this node owns `owned` of all
    /// `shards`.
    fn interval(&self, owned: usize, shards: usize) -> Duration {
        let share = owned.max(1) as f64 / shards.max(1) as f64;
        let of_cluster = self.cluster_rate_per_second.map(|rate| rate * share.min(1.0));
        let rate = [self.rate_per_second, of_cluster].into_iter().flatten().reduce(f64::min);
        rate.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(1.0 / rate))
    }
}

/// The queues of one node. Cheap to clone.
#[derive(Clone)]
pub struct Queues(Arc<Inner>);

struct Inner {
    registry: Arc<Registry>,
    concurrency: usize,
    open: Mutex<HashMap<String, Arc<Queue>>>,
}

impl Queues {
    /// `concurrency` is that of queues that do not say.
    pub fn new(registry: Arc<Registry>, concurrency: usize) -> Self {
        Self(Arc::new(Inner { registry, concurrency, open: Mutex::default() }))
    }

    pub fn of(&self, handler: &str) -> Arc<Queue> {
        let mut open = self.0.open.lock();
        if let Some(queue) = open.get(handler) {
            return queue.clone();
        }
        let options = self.options(handler);
        let concurrency = options.concurrency.unwrap_or(self.0.concurrency);
        let running = Arc::new(Semaphore::new(concurrency.min(Semaphore::MAX_PERMITS)));
        let queue = Arc::new(Queue { options, running, pace: Mutex::default() });
        open.insert(handler.to_owned(), queue.clone());
        queue
    }

    pub fn options(&self, handler: &str) -> TaskQueue {
        self.0.registry.queue(handler).cloned().unwrap_or_default()
    }
}

/// One handler's queue on this node.
pub struct Queue {
    pub options: TaskQueue,
    running: Arc<Semaphore>,
    pace: Mutex<Pace>,
}

impl Queue {
    /// Waits for a place among those that run, then for the rate. Held until the attempt ends.
    pub async fn turn(&self, router: &Router) -> Option<OwnedSemaphorePermit> {
        // In this order: who has its time must not be held up by who runs.
        let permit = self.running.clone().acquire_owned().await.ok()?;
        let (owned, shards) = match self.options.cluster_rate_per_second {
            Some(_) => router.share(),
            None => (1, 1),
        };
        let interval = self.options.interval(owned, shards);
        if !interval.is_zero() {
            let at = self.pace.lock().next(Instant::now(), interval);
            tokio::time::sleep_until(at).await;
        }
        Some(permit)
    }
}

/// Spaces beginnings evenly.
#[derive(Default)]
struct Pace {
    free_at: Option<Instant>,
}

impl Pace {
    /// When the next attempt may begin; the one after it `interval` later.
    fn next(&mut self, now: Instant, interval: Duration) -> Instant {
        let at = self.free_at.map_or(now, |free| free.max(now));
        self.free_at = Some(at + interval);
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_spaces_a_burst_and_does_not_catch_up_after_a_pause() {
        let (began, second) = (Instant::now(), Duration::from_secs(1));
        let mut pace = Pace::default();
        let burst: Vec<_> = (0..3).map(|_| pace.next(began, second) - began).collect();
        assert_eq!(burst, [Duration::ZERO, second, second * 2]);
        let later = began + second * 60;
        let after_pause: Vec<_> = (0..3).map(|_| pace.next(later, second) - later).collect();
        assert_eq!(after_pause, [Duration::ZERO, second, second * 2]);
    }

    #[test]
    fn the_slower_of_two_rates_counts_and_the_clusters_is_divided() {
        let queue = |node, cluster| TaskQueue {
            rate_per_second: node,
            cluster_rate_per_second: cluster,
            ..TaskQueue::default()
        };
        assert_eq!(queue(None, None).interval(1, 16), Duration::ZERO);
        assert_eq!(queue(Some(4.0), None).interval(1, 16), Duration::from_millis(250));
        assert_eq!(queue(None, Some(4.0)).interval(4, 16), Duration::from_secs(1));
        assert_eq!(queue(Some(0.5), Some(4.0)).interval(4, 16), Duration::from_secs(2));
        assert_eq!(queue(Some(2.0), Some(0.5)).interval(16, 16), Duration::from_secs(2));
    }

    #[test]
    fn the_nodes_parts_add_up_to_the_clusters_rate() {
        let queue = TaskQueue { cluster_rate_per_second: Some(30.0), ..TaskQueue::default() };
        let parts = [6, 5, 5].map(|owned| 1.0 / queue.interval(owned, 16).as_secs_f64());
        assert!((parts.iter().sum::<f64>() - 30.0).abs() < 1e-6, "{parts:?}");
    }

    #[test]
    fn queues_that_would_never_run_anything_are_refused_by_name() {
        let refused = |queue: TaskQueue| queue.validate("mail").expect_err("refused").to_string();
        assert!(refused(TaskQueue { concurrency: Some(0), ..TaskQueue::default() }).contains("`mail`"));
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-9] {
            let of_node = TaskQueue { rate_per_second: Some(rate), ..TaskQueue::default() };
            assert!(refused(of_node).contains("per second"), "{rate}");
            let of_cluster = TaskQueue { cluster_rate_per_second: Some(rate), ..TaskQueue::default() };
            assert!(refused(of_cluster).contains("per second"), "{rate}");
        }
        assert!(refused(TaskQueue { deadline: Some(Duration::ZERO), ..TaskQueue::default() }).contains("deadline"));
        assert_eq!(TaskQueue::default().validate("mail"), Ok(()));
    }
}
