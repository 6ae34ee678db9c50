//! The bounded queue in front of a store and the writer thread behind it.
//!
//! ```text
//! submit ─ lock ─ admit into the view ─ enqueue        (blocks while the queue is full)
//!                                          │
//! writer thread:   gather what waits ─▶ Backend::commit ─▶ done, done, done
//! ```
//!
//! Invariants: one lock orders the view and the queue, so the view shows exactly the writes queued
//! so far. Every `done` is called once, on the writer thread, in queue order. After the first
//! failed commit nothing is committed any more, here or in any pipeline with the same [`Poison`].
//! Dropping the pipeline drains the queue first. A simulation takes the thread's place by [`Steps`].

use super::{Done, EntryRecord, Error, GroupId, Options, StateChange, Write, admission};
use bytes::Bytes;
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::JoinHandle,
};

/// A write on its way. Entries are shared with the view, which serves them until they are stored.
pub(super) enum Job {
    Append {
        group: GroupId,
        entries: Arc<Vec<EntryRecord>>,
    },
    Truncate {
        group: GroupId,
        from: u64,
    },
    Vote {
        group: GroupId,
        vote: Bytes,
    },
    Purge {
        group: GroupId,
        upto: u64,
        mark: Bytes,
    },
    State(Vec<StateChange>),
    /// The state store has durably reached this epoch.
    StateReached(u64),
}

impl Job {
    /// The group whose log it changes; none for the state store.
    pub fn group(&self) -> Option<GroupId> {
        match self {
            Job::Append { group, .. }
            | Job::Truncate { group, .. }
            | Job::Vote { group, .. }
            | Job::Purge { group, .. } => Some(*group),
            Job::State(_) | Job::StateReached(_) => None,
        }
    }
}

impl From<Write> for Job {
    fn from(write: Write) -> Self {
        match write {
            Write::Append { group, entries } => Job::Append { group, entries: Arc::new(entries) },
            Write::Truncate { group, from } => Job::Truncate { group, from },
            Write::Vote { group, vote } => Job::Vote { group, vote },
            Write::Purge { group, upto, mark } => Job::Purge { group, upto, mark },
            Write::State(changes) => Job::State(changes),
        }
    }
}

/// What readers see of the groups, queued writes included.
pub(super) trait View: Send + 'static {
    fn bounds(&self, group: GroupId) -> admission::Bounds;
    /// Takes in an admitted write. `ticket` is its place in the queue.
    fn admit(&mut self, ticket: u64, job: &Job);
}

/// Makes groups of writes durable, on the writer thread.
pub(super) trait Backend: Send + 'static {
    type View: View;
    /// Returns when everything in `jobs` (ticket and write, in queue order) is durable.
    fn commit(&mut self, jobs: &[(u64, Job)], shared: &Shared<Self::View>) -> Result<(), Error>;
}

/// Why a store is closed, shared by all its pipelines.
pub(super) type Poison = Arc<Mutex<Option<Error>>>;

struct Item {
    ticket: u64,
    job: Result<Job, Error>,
    weight: usize,
    done: Done,
}

struct Queue<V> {
    view: V,
    items: VecDeque<Item>,
    bytes: usize,
    next_ticket: u64,
    closing: bool,
}

/// The part of a pipeline that its writer thread shares with everyone else.
pub(super) struct Shared<V> {
    queue: Mutex<Queue<V>>,
    poison: Poison,
    filled: Condvar,
    /// Called beside `filled`, where steps take the place of the thread.
    wake: Option<Wake>,
    drained: Condvar,
    writes_max: usize,
    bytes_max: usize,
    group_bytes_max: usize,
}

impl<V: View> Shared<V> {
    fn new(view: V, options: &Options, poison: Poison, wake: Option<Wake>) -> Arc<Self> {
        let queue = Queue { view, items: VecDeque::new(), bytes: 0, next_ticket: 1, closing: false };
        Arc::new(Self {
            queue: Mutex::new(queue),
            poison,
            filled: Condvar::new(),
            wake,
            drained: Condvar::new(),
            writes_max: options.queue_writes_max.max(1),
            bytes_max: size(options.queue_bytes_max),
            group_bytes_max: size(options.group_bytes_max),
        })
    }

    /// The view, under the lock that orders writes: keep it short.
    pub fn view<R>(&self, look: impl FnOnce(&mut V) -> R) -> R {
        look(&mut self.queue.lock().view)
    }

    fn submit(&self, write: Write, done: Done) {
        let weight = admission::weight(&write);
        let mut queue = self.queue.lock();
        self.wait_for_room(&mut queue, weight);
        let poisoned = self.poison.lock().clone();
        let job = match poisoned {
            Some(error) => Err(error),
            None => admission::check(&write, weight, |group| queue.view.bounds(group)).map(|()| Job::from(write)),
        };
        self.push(queue, job, weight, done);
    }

    /// Queues what one of the store's own threads has to say; never waits.
    pub fn note(&self, job: Job) {
        self.push(self.queue.lock(), Ok(job), 1, Box::new(|_| ()));
    }

    fn push(&self, mut queue: MutexGuard<'_, Queue<V>>, job: Result<Job, Error>, weight: usize, done: Done) {
        let ticket = queue.next_ticket;
        queue.next_ticket += 1;
        if let Ok(job) = &job {
            queue.view.admit(ticket, job);
        }
        queue.bytes += weight;
        queue.items.push_back(Item { ticket, job, weight, done });
        drop(queue);
        self.tell_writer();
    }

    fn tell_writer(&self) {
        self.filled.notify_one();
        if let Some(wake) = &self.wake {
            wake();
        }
    }

    fn wait_for_room(&self, queue: &mut MutexGuard<'_, Queue<V>>, weight: usize) {
        let full = |q: &Queue<V>| {
            !q.items.is_empty() && (q.items.len() >= self.writes_max || q.bytes + weight > self.bytes_max)
        };
        while full(queue) {
            self.drained.wait(queue);
        }
    }

    /// Waits for writes and takes one group of them; `None` once the store closes and all is done.
    fn gather(&self) -> Option<Vec<Item>> {
        let mut queue = self.queue.lock();
        while queue.items.is_empty() {
            if queue.closing {
                return None;
            }
            self.filled.wait(&mut queue);
        }
        Some(self.take_group(queue))
    }

    fn take_group(&self, mut queue: MutexGuard<'_, Queue<V>>) -> Vec<Item> {
        let mut bytes = 0;
        let mut count = 0;
        for item in &queue.items {
            bytes += item.weight;
            if count > 0 && bytes > self.group_bytes_max {
                break;
            }
            count += 1;
        }
        let group: Vec<Item> = queue.items.drain(..count).collect();
        queue.bytes -= group.iter().map(|item| item.weight).sum::<usize>();
        drop(queue);
        self.drained.notify_all();
        group
    }
}

/// Says that there is something to do.
pub(super) type Wake = Arc<dyn Fn() + Send + Sync>;

/// A running queue and writer thread; dropping it drains both.
pub(super) struct Pipeline<V: View> {
    shared: Arc<Shared<V>>,
    writer: Option<JoinHandle<()>>,
}

impl<V: View> Pipeline<V> {
    /// Starts the writer thread `name`. Fails only when the system refuses a thread.
    pub fn start<B: Backend<View = V>>(
        name: &str,
        view: V,
        options: &Options,
        poison: Poison,
        backend: B,
    ) -> Result<Self, Error> {
        let shared = Shared::new(view, options, poison, None);
        let theirs = shared.clone();
        let writer = std::thread::Builder::new()
            .name(name.into())
            .spawn(move || run(&theirs, backend))
            .map_err(|e| Error::Unusable { path: "the writer thread".into(), detail: e.to_string() })?;
        Ok(Self { shared, writer: Some(writer) })
    }

    /// A queue without a thread: its owner commits by [`Steps`], on whatever thread and at whatever
    /// time it likes, and is told by `wake` that something waits.
    pub fn stepped<B: Backend<View = V>>(
        view: V,
        options: &Options,
        poison: Poison,
        backend: B,
        wake: Wake,
    ) -> (Self, Steps<B>) {
        let shared = Shared::new(view, options, poison, Some(wake));
        (Self { shared: shared.clone(), writer: None }, Steps { shared, backend })
    }

    pub fn submit(&self, write: Write, done: Done) {
        self.shared.submit(write, done);
    }

    pub fn shared(&self) -> Arc<Shared<V>> {
        self.shared.clone()
    }

    pub fn view<R>(&self, look: impl FnOnce(&mut V) -> R) -> R {
        self.shared.view(look)
    }
}

impl<V: View> Drop for Pipeline<V> {
    fn drop(&mut self) {
        self.shared.queue.lock().closing = true;
        self.shared.tell_writer();
        let Some(writer) = self.writer.take() else { return };
        // A `done` may own the last handle of the store; the thread then ends by itself.
        if writer.thread().id() != std::thread::current().id() && writer.join().is_err() {
            tracing::error!("the storage writer thread panicked");
        }
    }
}

/// What the writer thread would do, a group at a time.
pub(super) struct Steps<B: Backend> {
    shared: Arc<Shared<B::View>>,
    backend: B,
}

impl<B: Backend> Steps<B> {
    /// Commits one group of what waits; false if nothing does.
    pub fn step(&mut self) -> bool {
        let queue = self.shared.queue.lock();
        if queue.items.is_empty() {
            return false;
        }
        let group = self.shared.take_group(queue);
        commit_group(&self.shared, &mut self.backend, group);
        true
    }

    pub fn is_waiting(&self) -> bool {
        !self.shared.queue.lock().items.is_empty()
    }

    /// Whether the store is gone and nothing of it waits.
    pub fn is_closed(&self) -> bool {
        let queue = self.shared.queue.lock();
        queue.closing && queue.items.is_empty()
    }
}

fn run<B: Backend>(shared: &Shared<B::View>, mut backend: B) {
    while let Some(group) = shared.gather() {
        commit_group(shared, &mut backend, group);
    }
}

fn commit_group<B: Backend>(shared: &Shared<B::View>, backend: &mut B, group: Vec<Item>) {
    let mut jobs = Vec::with_capacity(group.len());
    let mut answers = Vec::with_capacity(group.len());
    for Item { ticket, job, done, .. } in group {
        match job {
            Ok(job) => {
                jobs.push((ticket, job));
                answers.push((done, None));
            }
            Err(refusal) => answers.push((done, Some(refusal))),
        }
    }
    let mut poisoned = shared.poison.lock().clone();
    if poisoned.is_none() && !jobs.is_empty() {
        poisoned = commit(backend, &jobs, shared).err();
        if let Some(error) = &poisoned {
            shared.poison.lock().get_or_insert_with(|| error.clone());
        }
    }
    drop(jobs);
    answer(answers, poisoned.as_ref());
}

/// Commits, and turns every failure (a panic of the engine included) into the final answer.
fn commit<B: Backend>(backend: &mut B, jobs: &[(u64, Job)], shared: &Shared<B::View>) -> Result<(), Error> {
    let outcome = catch_unwind(AssertUnwindSafe(|| backend.commit(jobs, shared)));
    let detail = match outcome {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(Error::Poisoned { detail })) => detail,
        Ok(Err(other)) => other.to_string(),
        Err(panic) => format!("the engine panicked: {}", panic_text(panic.as_ref())),
    };
    tracing::error!(%detail, "storage failed; nothing is written any more");
    Err(Error::Poisoned { detail })
}

fn answer(answers: Vec<(Done, Option<Error>)>, poisoned: Option<&Error>) {
    for (done, refusal) in answers {
        let result = match poisoned.cloned().or(refusal) {
            Some(error) => Err(error),
            None => Ok(()),
        };
        if catch_unwind(AssertUnwindSafe(|| done(result))).is_err() {
            tracing::error!("a completion of a storage write panicked");
        }
    }
}

/// The message of a caught panic.
pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message").to_owned()
}

fn size(bytes: bytesize::ByteSize) -> usize {
    usize::try_from(bytes.as_u64()).unwrap_or(usize::MAX).max(1)
}
