//! One shard replica on this node: opens a session when it becomes the owner, closes it when it
//! is no longer, takes checkpoints, answers queries.

use super::{
    Clock, Options,
    backup::Cuts,
    entry::Pack,
    machine::ShardMachine,
    request::{Cause, CommandReply, CommandRequest, Query, QueryReply, QueryRequest},
    router::Router,
    session::{Opening, Session},
    task_queue::Queues,
};
use crate::{
    catalog::NodeId,
    cluster::{Consistency, Unavailable},
    entity::{EntityKey, ShardId},
    replication::{Group, Lag, Leadership},
    sabotage::{self, Sabotage},
};
use parking_lot::Mutex;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{Notify, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

const CHECKPOINT_TICK: Duration = Duration::from_millis(250);
/// Moments of a period over which a node's shards spread their checkpoints.
const CHECKPOINT_PHASES: u16 = 16;
/// A replica that writes little lets its log go when it holds back this many segments that the other
/// replicas of its node have filled since.
pub const SEGMENTS_HELD_MAX: usize = 4;
/// A history answer carries at most this many events.
const HISTORY_MAX: u32 = 1000;
/// How far behind a replica may be to be handed leadership.
const TRANSFER_LAG_MAX: u64 = 64;

/// Told when a session can no longer go on.
#[derive(Clone, Default)]
pub struct OwnerLost(Arc<Notify>);

impl OwnerLost {
    pub fn tell(&self) {
        self.0.notify_one();
    }
}

pub struct ShardHost {
    group: Arc<Group>,
    machine: ShardMachine,
    session: Mutex<Option<Arc<Session>>>,
    barrier: ReadBarrier,
    options: Arc<Options>,
    clock: Clock,
    queues: Queues,
    cuts: Cuts,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// What opens a host.
pub struct Parts {
    pub group: Arc<Group>,
    pub machine: ShardMachine,
    pub options: Arc<Options>,
    pub clock: Clock,
    /// The node's, shared by its shards.
    pub queues: Queues,
    /// Knows of everything that runs for the shard, and so holds its storage.
    pub tasks: TaskTracker,
}

impl ShardHost {
    pub fn start(parts: Parts, router: Router) -> Arc<Self> {
        let Parts { group, machine, options, clock, queues, tasks } = parts;
        let host = Arc::new(Self {
            group,
            machine,
            session: Mutex::default(),
            barrier: ReadBarrier::default(),
            options,
            clock,
            queues,
            cuts: Cuts::default(),
            stop: CancellationToken::new(),
            tasks,
        });
        host.spawn(host.clone().follow_leadership(router));
        host.spawn(host.clone().take_checkpoints());
        host
    }

    async fn until_stopped(self: Arc<Self>, task: impl Future<Output = ()>) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = task => {}
        }
    }

    /// Runs a task until the host stops.
    pub(super) fn spawn(self: &Arc<Self>, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(self.clone().until_stopped(task));
    }

    pub fn group(&self) -> &Arc<Group> {
        &self.group
    }

    pub fn machine(&self) -> &ShardMachine {
        &self.machine
    }

    pub(super) fn cuts(&self) -> &Cuts {
        &self.cuts
    }

    /// Changes that make a checkpoint due.
    pub(super) fn checkpoint_bytes(&self) -> usize {
        usize::try_from(self.options.checkpoint_bytes.as_u64()).unwrap_or(usize::MAX)
    }

    pub fn leadership(&self) -> Leadership {
        *self.group.leadership().borrow()
    }

    /// True while this node serves the shard.
    pub fn is_serving(&self) -> bool {
        self.session.lock().is_some()
    }

    /// The open session, once it is certain that this node still leads; or who might.
    pub(super) async fn leading(&self) -> Result<Arc<Session>, Option<NodeId>> {
        let session = self.session.lock().clone();
        match session {
            Some(session) if self.barrier.pass(&self.group).await => Ok(session),
            _ => Err(self.not_owner()),
        }
    }

    pub fn active_entities(&self) -> usize {
        self.session.lock().as_ref().map_or(0, |s| s.active_entities())
    }

    pub fn lag(&self) -> Lag {
        self.group.lag()
    }

    pub(super) fn shard(&self) -> ShardId {
        ShardId(self.group.id().0)
    }

    pub(super) fn not_owner(&self) -> Option<NodeId> {
        let leadership = self.leadership();
        leadership.leader.filter(|_| !leadership.is_me)
    }

    /// Opens a session whenever this node leads, and closes it when the term ends.
    async fn follow_leadership(self: Arc<Self>, router: Router) {
        let mut leadership = self.group.leadership();
        loop {
            let current = *leadership.borrow_and_update();
            if current.is_me {
                tokio::select! {
                    () = self.serve(current.term, &router) => {}
                    changed = changed_from(&mut leadership, current) => if !changed { return },
                }
                let session = match sabotage::is(Sabotage::StaleReads) {
                    true => self.session.lock().clone(),
                    false => self.session.lock().take(),
                };
                if let Some(session) = session {
                    session.close();
                    tracing::info!(shard = %self.shard(), term = current.term, "no longer serving");
                }
            } else if leadership.changed().await.is_err() {
                return;
            }
        }
    }

    /// Serves one term; returns when a session failed, or has nothing to serve while a backup is restored, to be
    /// opened again.
    async fn serve(self: &Arc<Self>, term: u64, router: &Router) {
        if !sabotage::is(Sabotage::SkipGapless) && !self.catch_up(term).await {
            return;
        }
        let mut restoring = self.machine.restoring();
        if restoring.wait_for(|restoring| !restoring).await.is_err() {
            return;
        }
        let lost = OwnerLost::default();
        let opening = Opening {
            shard: self.shard(),
            group: self.group.clone(),
            machine: self.machine.clone(),
            router: router.clone(),
            options: self.options.clone(),
            clock: self.clock.clone(),
            queues: self.queues.clone(),
            tasks: self.tasks.clone(),
            lost: lost.clone(),
        };
        match Session::open(opening).await {
            Ok(session) => {
                tracing::info!(shard = %self.shard(), term, "serving");
                *self.session.lock() = Some(session);
                tokio::select! {
                    () = lost.0.notified() => {}
                    _ = restoring.wait_for(|restoring| *restoring) => {}
                }
            }
            Err(error) => tracing::error!(shard = %self.shard(), %error, "a session cannot be opened"),
        }
    }

    /// OWN-TERM-FIRST: everything committed in earlier terms is applied when this returns true.
    async fn catch_up(&self, term: u64) -> bool {
        let mut progress = self.machine.progress();
        if progress.wait_for(|(applied, _)| *applied >= term).await.is_err() {
            return false;
        }
        let fenced = self.fence().await;
        if !fenced {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        fenced
    }

    /// Commits an empty entry: whatever an earlier session of this term still had under way is
    /// decided by then, so that no actor starts on a state that is about to change under it.
    async fn fence(&self) -> bool {
        match self.group.propose(Pack::default().finish()).await {
            Ok(proposed) => proposed.done().await.is_ok(),
            Err(_) => false,
        }
    }

    async fn take_checkpoints(self: Arc<Self>) {
        let bytes_max = self.checkpoint_bytes();
        // Shards under the same load must not all take theirs at the same moment.
        let phase =
            |period: Duration| period * u32::from(self.shard().0 % CHECKPOINT_PHASES) / u32::from(CHECKPOINT_PHASES);
        let start = tokio::time::Instant::now() + phase(CHECKPOINT_TICK);
        let mut tick = tokio::time::interval_at(start, CHECKPOINT_TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut last = Instant::now();
        last = last.checked_sub(phase(self.options.checkpoint_interval)).unwrap_or(last);
        loop {
            tick.tick().await;
            let dirty = self.machine.dirty_bytes();
            let due = dirty > 0 && last.elapsed() >= self.options.checkpoint_interval;
            let holds_back = self.machine.segments_held() > SEGMENTS_HELD_MAX;
            let outcome = match (dirty >= bytes_max || due, holds_back) {
                (false, true) if self.group.is_checkpointed() => self.group.purge().await,
                (false, false) => continue,
                _ => {
                    last = Instant::now();
                    self.group.checkpoint().await
                }
            };
            if let Err(error) = outcome {
                tracing::error!(shard = %self.shard(), error, "a checkpoint failed");
                return;
            }
        }
    }

    pub async fn command(&self, request: CommandRequest) -> CommandReply {
        let session = self.session.lock().clone();
        match session {
            Some(session) => session.command(request).await,
            // What shards tell each other waits.
            None if self.machine.is_restoring() && request.cause == Cause::Client => {
                CommandReply::Unavailable(self.restoring())
            }
            None => CommandReply::NotOwner { hint: self.not_owner() },
        }
    }

    pub(super) fn restoring(&self) -> Unavailable {
        Unavailable::Restoring { shard: self.shard() }
    }

    /// Whether this replica is fresh enough: any is for a local read that has something to show, be it
    /// old. One that is still to be filled has not.
    pub(super) async fn may_answer(&self, consistency: Consistency) -> bool {
        match consistency {
            Consistency::Local => self.machine.progress().borrow().1 > 0,
            Consistency::Linearizable => {
                self.is_serving() && (sabotage::is(Sabotage::StaleReads) || self.barrier.pass(&self.group).await)
            }
        }
    }

    /// A command that finds the session just as it ends.
    #[cfg(test)]
    pub async fn command_too_late(&self, request: CommandRequest) -> CommandReply {
        let session = self.session.lock().clone().expect("it serves");
        session.close();
        session.command(request).await
    }

    pub async fn query(&self, request: QueryRequest) -> QueryReply {
        if self.machine.is_restoring() {
            return QueryReply::Unavailable(self.restoring());
        }
        if !self.may_answer(request.consistency).await {
            return QueryReply::NotOwner { hint: self.not_owner() };
        }
        let answer = match request.query {
            Query::State => self.machine.read(&request.key).map(QueryReply::State),
            Query::History { after, limit } => {
                let limit = limit.min(HISTORY_MAX) as usize;
                self.machine.history(&request.key, after, limit).map(QueryReply::History)
            }
            Query::Changed { after, timeout_ms } => self.changed(&request.key, after, timeout_ms).await,
        };
        answer.unwrap_or_else(|error| {
            tracing::error!(shard = %self.shard(), %error, "a query failed");
            QueryReply::Unavailable(Unavailable::NoQuorum { shard: self.shard() })
        })
    }

    async fn changed(&self, key: &EntityKey, after: u64, timeout_ms: u64) -> Result<QueryReply, crate::storage::Error> {
        let deadline = tokio::time::Instant::now() + Duration::from_millis(timeout_ms);
        loop {
            // Watch first, then look: a change in between is not missed.
            let change = self.machine.watch(key);
            let state = self.machine.read(key)?;
            if state.version > after {
                return Ok(QueryReply::State(state));
            }
            if tokio::time::timeout_at(deadline, change).await.is_err() {
                self.machine.unwatch(key);
                return Ok(QueryReply::State(self.machine.read(key)?));
            }
        }
    }

    /// Hands leadership to `to`, if it votes and is close behind. False if it does not, or is not.
    pub async fn hand_over(&self, to: NodeId) -> bool {
        if !self.group.voters().contains(&to) {
            return false;
        }
        let lag = self.group.lag();
        let close = lag.matched.get(&to).is_some_and(|matched| matched + TRANSFER_LAG_MAX >= lag.last_log_index);
        if close {
            self.group.transfer(to).await;
        }
        close
    }

    /// Stops serving and replicating. In-flight proposals of others are not waited for.
    pub async fn stop(&self) {
        self.stop.cancel();
        if let Some(session) = self.session.lock().take() {
            session.close();
        }
        self.group.shutdown().await;
    }
}

/// Waits for another term or leader; false if the group has stopped.
async fn changed_from(leadership: &mut tokio::sync::watch::Receiver<Leadership>, from: Leadership) -> bool {
    leadership.wait_for(|now| (now.term, now.is_me) != (from.term, from.is_me)).await.is_ok()
}

/// Lets many reads share one proof that this node still leads.
#[derive(Default)]
struct ReadBarrier(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    running: bool,
    next: Vec<oneshot::Sender<bool>>,
}

impl ReadBarrier {
    /// True once it is certain that this node led after the call began.
    async fn pass(&self, group: &Arc<Group>) -> bool {
        let (tx, rx) = oneshot::channel();
        let leads = {
            let mut waiting = self.0.lock();
            waiting.next.push(tx);
            !std::mem::replace(&mut waiting.running, true)
        };
        if leads {
            self.run(group).await;
        }
        rx.await.unwrap_or(false)
    }

    /// Proves leadership for everyone who waits, until nobody does.
    async fn run(&self, group: &Arc<Group>) {
        let guard = StopRunning(self);
        loop {
            let batch = {
                let mut waiting = self.0.lock();
                if waiting.next.is_empty() {
                    waiting.running = false;
                    std::mem::forget(guard);
                    return;
                }
                std::mem::take(&mut waiting.next)
            };
            let leads = group.read_barrier().await.is_ok();
            for reader in batch {
                // A reader that has given up does not mind.
                let _ = reader.send(leads);
            }
        }
    }
}

/// The one who runs the barrier may be cancelled: then whoever waits has to ask again.
struct StopRunning<'a>(&'a ReadBarrier);

impl Drop for StopRunning<'_> {
    fn drop(&mut self) {
        let mut waiting = self.0.0.lock();
        waiting.running = false;
        waiting.next.clear();
    }
}
