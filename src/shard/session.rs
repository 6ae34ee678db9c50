//! An owner's session: everything that runs on a shard while this node leads it in one term.

use super::{
    Clock, Options,
    actor::{Arguments, Delivery, EntityActor, Message, Ticket},
    host::OwnerLost,
    machine::ShardMachine,
    outbox, patience, proposer,
    proposer::{Proposer, Submitter},
    request::{Cause, CommandReply, CommandRequest},
    router::Router,
    task_queue::Queues,
    tasks, timers,
};
use crate::{
    cluster::Unavailable,
    entity::{EntityKey, ShardId},
    replication::Group,
    storage::GroupId,
};
use parking_lot::Mutex;
use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::{Semaphore, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How often idle actors are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);
const RESTART_BACKOFF_MIN: Duration = Duration::from_millis(10);
const RESTART_BACKOFF_MAX: Duration = Duration::from_secs(10);
/// An entity that has not failed for this long starts over with the shortest backoff.
const FAILURES_FORGOTTEN: Duration = Duration::from_secs(60);

pub struct Session {
    pub shard: ShardId,
    pub group_id: GroupId,
    pub machine: ShardMachine,
    pub submitter: Submitter,
    pub router: Router,
    pub options: Arc<Options>,
    pub clock: Clock,
    pub queues: Queues,
    pub tasks: tasks::Board,
    /// Held while a dead letter is retried or discarded: one at a time, each knows what it does.
    pub letters: tokio::sync::Mutex<()>,
    pub stop: CancellationToken,
    running: TaskTracker,
    supervisor: ActorRef<Never>,
    admission: Arc<Semaphore>,
    /// Changes that wait for a checkpoint; past it clients wait.
    dirty_bytes_max: usize,
    slots: Mutex<HashMap<EntityKey, Slot>>,
}

/// One entity on this shard.
struct Slot {
    actor: Phase,
    /// Commands handed over and not yet answered.
    in_flight: Arc<AtomicUsize>,
    last_used: Instant,
    failures: u32,
    failed_at: Option<Instant>,
}

enum Phase {
    Absent,
    Starting(Vec<Delivery>),
    Active(ActorRef<Message>),
}

impl Default for Slot {
    fn default() -> Self {
        let (in_flight, last_used) = (Arc::default(), Instant::now());
        Self { actor: Phase::Absent, in_flight, last_used, failures: 0, failed_at: None }
    }
}

impl Slot {
    /// How long the entity still rests after its last failure.
    fn resting(&self) -> bool {
        let Some(failed_at) = self.failed_at else { return false };
        let doublings = self.failures.saturating_sub(1).min(16);
        failed_at.elapsed() < (RESTART_BACKOFF_MIN * (1 << doublings)).min(RESTART_BACKOFF_MAX)
    }
}

/// What opens a session.
pub struct Opening {
    pub shard: ShardId,
    pub group: Arc<Group>,
    pub machine: ShardMachine,
    pub router: Router,
    pub options: Arc<Options>,
    pub clock: Clock,
    pub queues: Queues,
    pub tasks: TaskTracker,
    pub lost: OwnerLost,
}

impl Session {
    pub async fn open(opening: Opening) -> Result<Arc<Self>, ractor::SpawnErr> {
        let Opening { shard, group, machine, router, options, clock, queues, tasks: running, lost } = opening;
        let stop = CancellationToken::new();
        let group_id = group.id();
        let pack = proposer::Options {
            pack_count: options.pack_count,
            pack_bytes: usize::try_from(options.pack_bytes.as_u64()).unwrap_or(usize::MAX),
            entries_in_flight: options.entries_in_flight,
        };
        let submitter = Proposer { shard, group, options: pack, lost, tasks: running.clone() }.start(stop.clone());
        let (failures_tx, failures) = tokio::sync::mpsc::unbounded_channel();
        let (supervisor, _) = Actor::spawn(None, Supervisor, failures_tx).await?;
        let session = Arc::new(Self {
            shard,
            group_id,
            machine,
            submitter,
            router,
            admission: Arc::new(Semaphore::new(options.commands_in_flight)),
            dirty_bytes_max: options.dirty_bytes_max(),
            options,
            clock,
            queues,
            tasks: tasks::Board::default(),
            letters: tokio::sync::Mutex::default(),
            stop,
            running,
            supervisor,
            slots: Mutex::default(),
        });
        session.spawn(session.clone().follow_failures(failures));
        session.spawn(session.clone().sweep_forever());
        session.spawn(outbox::run(session.clone()));
        session.spawn(timers::run(session.clone()));
        session.spawn(timers::forget_answers(session.clone()));
        session.spawn(tasks::measure(session.clone()));
        Ok(session)
    }

    /// Runs a task until the session ends.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.running.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// Ends the session: its actors stop, whoever waits for one is told to try again.
    pub fn close(&self) {
        self.stop.cancel();
        self.slots.lock().clear();
        // Linked actors end with their supervisor.
        self.supervisor.stop(Some("the session is over".into()));
    }

    pub fn active_entities(&self) -> usize {
        self.slots.lock().values().filter(|s| matches!(s.actor, Phase::Active(_))).count()
    }

    /// Hands a command to its entity's actor and waits for the answer.
    pub async fn command(self: &Arc<Self>, request: CommandRequest) -> CommandReply {
        let permit = match self.admit(&request) {
            Ok(permit) => permit,
            Err(limit) => return CommandReply::Unavailable(Unavailable::Overloaded { limit: limit.into() }),
        };
        if self.machine.registry().entity_type(&request.key.entity_type).is_none() {
            let entity_type = request.key.entity_type.to_string();
            let unknown = CommandReply::Unavailable(Unavailable::UnknownType { entity_type });
            return self.unless_received(&request.cause, unknown);
        }
        let (reply, answered) = oneshot::channel();
        let cause = request.cause.clone();
        if let Err(refused) = self.hand_over(request, reply, permit) {
            return self.unless_received(&cause, refused);
        }
        // Whoever drops an answer unsent has not proposed anything: see `Proposer::start`.
        answered.await.unwrap_or(CommandReply::TryAgain)
    }

    /// A refusal, or that the cause has taken effect before: whoever gives up an effect because of
    /// refusals relies on it.
    fn unless_received(&self, cause: &Cause, refusal: CommandReply) -> CommandReply {
        match cause {
            Cause::Effect { source, number, .. }
                if patience::refusal(&refusal).is_some() && self.machine.has_received(*source, *number) =>
            {
                CommandReply::Duplicate
            }
            _ => refusal,
        }
    }

    /// Admission is for clients only: what the cluster tells itself must get through, or it could
    /// never finish what it has begun.
    fn admit(&self, request: &CommandRequest) -> Result<Option<tokio::sync::OwnedSemaphorePermit>, &'static str> {
        if request.cause != Cause::Client {
            return Ok(None);
        }
        if self.machine.outbox_len() >= self.options.outbox {
            return Err("shard.outbox");
        }
        if self.machine.dirty_bytes() >= self.dirty_bytes_max {
            return Err("shard.checkpoint_bytes");
        }
        self.admission.clone().try_acquire_owned().map(Some).map_err(|_| "shard.commands_in_flight")
    }

    fn hand_over(
        self: &Arc<Self>,
        request: CommandRequest,
        reply: oneshot::Sender<CommandReply>,
        permit: Option<tokio::sync::OwnedSemaphorePermit>,
    ) -> Result<(), CommandReply> {
        let overloaded = |limit: &str| CommandReply::Unavailable(Unavailable::Overloaded { limit: limit.into() });
        let key = request.key.clone();
        let is_client = request.cause == Cause::Client;
        let mut slots = self.slots.lock();
        // What is handed over before [`Session::close`] has the lock, it drops.
        if self.stop.is_cancelled() {
            return Err(CommandReply::TryAgain);
        }
        if slots.len() >= self.options.active_entities && !slots.contains_key(&key) {
            passivate(&mut slots, self.options.active_entities * 9 / 10, Duration::ZERO);
            if slots.len() >= self.options.active_entities && is_client {
                return Err(overloaded("shard.active_entities"));
            }
        }
        let slot = slots.entry(key.clone()).or_default();
        if slot.resting() {
            return Err(CommandReply::Unavailable(Unavailable::EntityFailed { key: key.to_string() }));
        }
        let under_way = slot.in_flight.fetch_add(1, Ordering::AcqRel);
        let ticket = Ticket { entity: slot.in_flight.clone(), _shard: permit };
        if under_way >= self.options.commands_per_entity && is_client {
            return Err(overloaded("shard.commands_per_entity"));
        }
        slot.last_used = Instant::now();
        let delivery = Delivery { request, reply, ticket };
        match &mut slot.actor {
            // Sent under the lock, so that passivation cannot come between.
            Phase::Active(actor) => {
                // A dead actor drops the delivery, and with it the reply: the caller tries again.
                let _ = actor.cast(Message::Deliver(Box::new(delivery)));
            }
            Phase::Starting(waiting) => waiting.push(delivery),
            Phase::Absent => {
                slot.actor = Phase::Starting(vec![delivery]);
                drop(slots);
                let session = self.clone();
                self.spawn(async move { session.start_actor(key).await });
            }
        }
        Ok(())
    }

    async fn start_actor(self: Arc<Self>, key: EntityKey) {
        let Some(entity_type) = self.machine.registry().entity_type(&key.entity_type).cloned() else { return };
        let retention = self.options.idempotency_retention.as_millis();
        let arguments = Arguments {
            key: key.clone(),
            entity_type,
            machine: self.machine.clone(),
            submitter: self.submitter.clone(),
            clock: self.clock.clone(),
            idempotency_retention_ms: u64::try_from(retention).unwrap_or(u64::MAX),
            _running: self.running.token(),
        };
        let started = Actor::spawn_linked(None, EntityActor, arguments, self.supervisor.get_cell()).await;
        let mut slots = self.slots.lock();
        let Some(slot) = slots.get_mut(&key) else { return };
        let Phase::Starting(waiting) = std::mem::replace(&mut slot.actor, Phase::Absent) else { return };
        match started {
            Ok((actor, _)) => {
                for delivery in waiting {
                    let _ = actor.cast(Message::Deliver(Box::new(delivery)));
                }
                slot.actor = Phase::Active(actor);
            }
            // Nothing starts under a supervisor that has stopped: whoever waits tries again, at the next owner.
            Err(_) if self.stop.is_cancelled() => drop(waiting),
            Err(error) => {
                tracing::error!(entity = %key, %error, "an entity cannot start");
                slot.failures += 1;
                slot.failed_at = Some(Instant::now());
                let failed = || CommandReply::Unavailable(Unavailable::EntityFailed { key: key.to_string() });
                waiting.into_iter().for_each(|d| drop(d.reply.send(failed())));
            }
        }
    }

    /// Restarts with backoff: a failed actor's slot rests before the next command spawns a new
    /// actor from the applied state.
    async fn follow_failures(self: Arc<Self>, mut failures: tokio::sync::mpsc::UnboundedReceiver<ActorId>) {
        while let Some(failed) = failures.recv().await {
            let mut slots = self.slots.lock();
            let is_it = |slot: &Slot| matches!(&slot.actor, Phase::Active(actor) if actor.get_id() == failed);
            if let Some((key, slot)) = slots.iter_mut().find(|(_, slot)| is_it(slot)) {
                if slot.failed_at.is_some_and(|at| at.elapsed() > FAILURES_FORGOTTEN) {
                    slot.failures = 0;
                }
                slot.actor = Phase::Absent;
                slot.failures += 1;
                slot.failed_at = Some(Instant::now());
                tracing::warn!(entity = %key, failures = slot.failures, "an entity failed and will be restarted");
            }
        }
    }

    async fn sweep_forever(self: Arc<Self>) {
        let mut tick = tokio::time::interval(SWEEP_INTERVAL);
        loop {
            tick.tick().await;
            passivate(&mut self.slots.lock(), 0, self.options.idle_timeout);
        }
    }
}

/// Stops actors that have nothing under way and were idle for `idle`, least recently used first,
/// until `keep` are left.
fn passivate(slots: &mut HashMap<EntityKey, Slot>, keep: usize, idle: Duration) {
    let is_idle = |slot: &Slot| {
        let at_rest = match slot.actor {
            Phase::Active(_) => true,
            Phase::Absent => !slot.resting(),
            Phase::Starting(_) => false,
        };
        at_rest && slot.in_flight.load(Ordering::Acquire) == 0 && slot.last_used.elapsed() >= idle
    };
    let mut candidates: Vec<(Instant, EntityKey)> =
        slots.iter().filter(|(_, slot)| is_idle(slot)).map(|(key, slot)| (slot.last_used, key.clone())).collect();
    candidates.sort_unstable();
    let excess = slots.len().saturating_sub(keep);
    for (_, key) in candidates.into_iter().take(excess) {
        if let Some(Slot { actor: Phase::Active(actor), .. }) = slots.remove(&key) {
            actor.stop(None);
        }
    }
}

/// Supervises a session's entity actors: reports failures instead of failing with them.
struct Supervisor;

/// The supervisor takes no messages.
enum Never {}

impl ractor::Message for Never {}

impl Actor for Supervisor {
    type Msg = Never;
    type State = tokio::sync::mpsc::UnboundedSender<ActorId>;
    type Arguments = Self::State;

    async fn pre_start(&self, _me: ActorRef<Never>, failures: Self::State) -> Result<Self::State, ActorProcessingErr> {
        Ok(failures)
    }

    async fn handle_supervisor_evt(
        &self,
        _me: ActorRef<Never>,
        event: SupervisionEvent,
        failures: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        if let SupervisionEvent::ActorFailed(actor, error) = event {
            report(&actor, &error);
            // A session that is over does not mind.
            let _ = failures.send(actor.get_id());
        }
        Ok(())
    }
}

fn report(actor: &ActorCell, error: &ActorProcessingErr) {
    tracing::warn!(actor = %actor.get_id(), %error, "an entity actor failed");
}
