//! The actor behind one active entity: decides commands one after the other on a state that runs
//! ahead of what is committed.
//!
//! Pipelining: the next command is decided while the changes of earlier ones are still on their
//! way to a quorum. Nobody sees an uncommitted reply: replies, rejections included, are handed to
//! the proposer and given out once everything they were decided on is committed.

use super::{
    Clock,
    entry::{self, Change, Item, Kept, KeyedAnswer},
    machine::ShardMachine,
    proposer::{Answer, Said, Submitter},
    registry::{Decided, EntityType, State},
    request::{Cause, CommandReply, CommandRequest},
};
use crate::{
    cluster::{Idempotency, Unavailable},
    entity::{Context, Effect, EntityKey, Versioned, codec},
    sabotage::{self, Sabotage},
};
use parking_lot::Mutex;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use std::{
    collections::HashSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::sync::oneshot;

/// A command on its way to the actor.
pub struct Delivery {
    pub request: CommandRequest,
    pub reply: oneshot::Sender<CommandReply>,
    /// Held until the command is answered.
    pub ticket: Ticket,
}

/// Counts a command under way; dropped when it is answered.
pub struct Ticket {
    pub entity: Arc<AtomicUsize>,
    pub _shard: Option<tokio::sync::OwnedSemaphorePermit>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.entity.fetch_sub(1, Ordering::AcqRel);
    }
}

pub enum Message {
    Deliver(Box<Delivery>),
}

impl ractor::Message for Message {}

/// Causes and idempotency keys of changes that are not committed yet.
#[derive(Default)]
pub struct InFlight {
    causes: HashSet<(u16, u64)>,
    keys: HashSet<String>,
}

/// Removes its marks when the change is decided one way or the other.
pub struct Marks {
    in_flight: Arc<Mutex<InFlight>>,
    cause: Option<(u16, u64)>,
    key: Option<String>,
}

impl Drop for Marks {
    fn drop(&mut self) {
        let mut in_flight = self.in_flight.lock();
        if let Some(cause) = &self.cause {
            in_flight.causes.remove(cause);
        }
        if let Some(key) = &self.key {
            in_flight.keys.remove(key);
        }
    }
}

pub struct EntityActor;

/// What an actor needs beside its messages.
pub struct Arguments {
    pub key: EntityKey,
    pub entity_type: Arc<dyn EntityType>,
    pub machine: ShardMachine,
    pub submitter: Submitter,
    pub clock: Clock,
    pub idempotency_retention_ms: u64,
}

pub struct Running {
    own: Arguments,
    in_flight: Arc<Mutex<InFlight>>,
    state: State,
    version: u64,
    at_ms: u64,
    /// Bytes of changes since the state was last measured.
    unmeasured: usize,
    /// The state is larger than [`codec::STATE_BYTES_MAX`]: no further events.
    too_large: bool,
    /// What it was started with breaks its own laws.
    broken: bool,
}

/// A state is measured whenever its changes add up to this many bytes.
const MEASURE_EVERY: usize = 256 << 10;
/// The longest name of a schedule, in bytes.
const SCHEDULE_NAME_MAX: usize = 255;

impl Actor for EntityActor {
    type Msg = Message;
    type State = Running;
    type Arguments = Arguments;

    async fn pre_start(&self, _me: ActorRef<Message>, own: Arguments) -> Result<Running, ActorProcessingErr> {
        let (version, at_ms, state) = own.machine.entity(&own.key)?;
        let state = state.ok_or_else(|| format!("the state of {} cannot be read", own.key))?;
        let broken = !own.machine.examine(&own.key, version, &state);
        Ok(Running {
            own,
            in_flight: Arc::default(),
            state,
            version,
            at_ms,
            unmeasured: MEASURE_EVERY,
            too_large: false,
            broken,
        })
    }

    async fn handle(
        &self,
        _me: ActorRef<Message>,
        message: Message,
        running: &mut Running,
    ) -> Result<(), ActorProcessingErr> {
        let Message::Deliver(delivery) = message;
        running.deliver(*delivery).await
    }
}

/// How a delivery goes on.
enum Step {
    /// Answer at once: a committed fact, or nothing happened.
    Now(CommandReply),
    /// Answer once everything before is committed.
    AfterPending(CommandReply),
    Propose {
        item: Vec<u8>,
        said: Said,
        marks: Marks,
    },
    /// `decide` panicked: answer, and let the supervisor restart this actor.
    Failed,
}

impl Running {
    async fn deliver(&mut self, delivery: Delivery) -> Result<(), ActorProcessingErr> {
        let Delivery { request, reply, ticket } = delivery;
        if reply.is_closed() {
            return Ok(());
        }
        let answer = Answer { reply, _ticket: ticket };
        match self.step(request) {
            Step::Now(now) => answer.send(now),
            Step::AfterPending(then) => self.own.submitter.barrier(answer, then).await,
            Step::Propose { item, said, marks } => {
                self.own.submitter.propose(item, answer, said, marks).await;
            }
            Step::Failed => {
                let key = self.own.key.to_string();
                answer.send(CommandReply::Unavailable(Unavailable::EntityFailed { key: key.clone() }));
                return Err(format!("{key} panicked while deciding").into());
            }
        }
        Ok(())
    }

    fn step(&mut self, request: CommandRequest) -> Step {
        match self.known_before(&request) {
            Ok(Some(reply)) => return Step::Now(reply),
            Ok(None) => {}
            Err(error) => return Step::Now(storage_failed(&error)),
        }
        if self.broken || self.own.machine.is_frozen(&self.own.key) {
            let key = self.own.key.to_string();
            return Step::Now(CommandReply::Unavailable(Unavailable::Frozen { key }));
        }
        if let Some(expected) = request.if_version.filter(|v| *v != self.version) {
            tracing::debug!(entity = %self.own.key, expected, actual = self.version, "version mismatch");
            return Step::AfterPending(CommandReply::VersionMismatch { actual: self.version });
        }
        if self.is_too_large() {
            let detail = format!("the state of {} is larger than {} bytes", self.own.key, codec::STATE_BYTES_MAX);
            return Step::Now(CommandReply::Unavailable(Unavailable::Invalid { detail }));
        }
        let now_ms = self.own.clock.now_ms().max(self.at_ms);
        let decided = {
            let context = Context { id: &self.own.key.id, version: self.version, now_ms, random: rand::random() };
            let (entity_type, state) = (&self.own.entity_type, &mut self.state);
            catch_unwind(AssertUnwindSafe(|| entity_type.decide(state, &request.command, &context)))
        };
        match decided {
            Err(_) => Step::Failed,
            Ok(Err(error)) => Step::Now(invalid(&error)),
            Ok(Ok(Decided::Reject(reason))) => self.reject(request, now_ms, reason),
            Ok(Ok(Decided::Accept { events, effects, reply })) => {
                let recorded = request.idempotency.is_some() || request.cause != Cause::Client;
                if events.is_empty() && effects.is_empty() && !recorded {
                    let version = self.version;
                    let done = CommandReply::Done { reply, version, replayed: false, receipt: None };
                    return Step::AfterPending(done);
                }
                if effects.iter().any(has_long_name) {
                    tracing::error!(entity = %self.own.key, "the name of a schedule is longer than {SCHEDULE_NAME_MAX} bytes");
                    return Step::Failed;
                }
                self.change(request, now_ms, events, effects, reply)
            }
        }
    }

    /// What is already known of the command's cause or key: the first answer again, or that it is
    /// still under way.
    fn known_before(&self, request: &CommandRequest) -> Result<Option<CommandReply>, crate::storage::Error> {
        if sabotage::is(Sabotage::SkipDedup) {
            return Ok(None);
        }
        let in_flight = self.in_flight.lock();
        let cause = cause_mark(&request.cause);
        let key = request.idempotency.as_ref().map(|i| &i.key);
        if cause.is_some_and(|c| in_flight.causes.contains(&c)) || key.is_some_and(|k| in_flight.keys.contains(k)) {
            return Ok(Some(CommandReply::TryAgain));
        }
        drop(in_flight);
        if let Cause::Effect { source, number, .. } = request.cause
            && self.own.machine.has_received(source, number)
        {
            return Ok(Some(CommandReply::Duplicate));
        }
        let Some(idempotency) = &request.idempotency else { return Ok(None) };
        let Some(first) = self.own.machine.answer(&self.own.key, &idempotency.key)? else { return Ok(None) };
        let Kept { answer, rejected } = first;
        if answer.fingerprint != idempotency.fingerprint {
            return Ok(Some(CommandReply::IdempotencyKeyReused));
        }
        if rejected {
            return Ok(Some(CommandReply::RejectedBefore(answer.reply)));
        }
        let receipt = self.own.machine.receipt_of(&self.own.key, &answer)?;
        let KeyedAnswer { reply, version, .. } = answer;
        Ok(Some(CommandReply::Done { reply, version, replayed: true, receipt }))
    }

    fn change(
        &mut self,
        request: CommandRequest,
        at_ms: u64,
        events: Vec<Versioned>,
        effects: Vec<Effect>,
        reply: Vec<u8>,
    ) -> Step {
        let marks = self.mark(&request);
        let base_version = self.version;
        self.version = base_version + events.len() as u64;
        self.at_ms = at_ms;
        let answer = request.idempotency.map(|given| self.keyed(given, reply.clone(), at_ms));
        let key = self.own.key.clone();
        let change = Change { key, base_version, at_ms, events, effects, cause: request.cause, answer };
        self.propose(&Item::Change(change), Said::Done(reply), marks)
    }

    /// A rejection. With a key it is kept like any other answer: the command must not take effect
    /// when it comes again after the client was told that it was refused.
    fn reject(&mut self, request: CommandRequest, at_ms: u64, reason: Vec<u8>) -> Step {
        let Some(given) = request.idempotency.clone() else {
            return Step::AfterPending(CommandReply::Rejected(reason));
        };
        let marks = self.mark(&request);
        let answer = self.keyed(given, reason.clone(), at_ms);
        let item = Item::Rejected { key: self.own.key.clone(), base_version: self.version, answer };
        self.propose(&item, Said::Rejected(reason), marks)
    }

    fn keyed(&self, given: Idempotency, reply: Vec<u8>, at_ms: u64) -> KeyedAnswer {
        KeyedAnswer {
            idempotency_key: given.key,
            fingerprint: given.fingerprint,
            reply,
            version: self.version,
            expires_at_ms: at_ms.saturating_add(self.own.idempotency_retention_ms),
        }
    }

    fn propose(&mut self, item: &Item, said: Said, marks: Marks) -> Step {
        match entry::encode(item) {
            Ok(item) if item.len() <= super::proposer::ITEM_BYTES_MAX => {
                self.unmeasured += item.len();
                Step::Propose { item, said, marks }
            }
            // The state already holds events that will never be committed: start over.
            Ok(_) | Err(_) => Step::Failed,
        }
    }

    /// Measures the state now and then: a checkpoint must always be able to write it.
    fn is_too_large(&mut self) -> bool {
        if self.unmeasured >= MEASURE_EVERY {
            self.unmeasured = 0;
            let saved = self.own.entity_type.save(&self.state);
            self.too_large = saved.map_or(true, |saved| saved.bytes.len() > codec::STATE_BYTES_MAX);
        }
        self.too_large
    }

    fn mark(&self, request: &CommandRequest) -> Marks {
        let cause = cause_mark(&request.cause);
        let key = request.idempotency.as_ref().map(|i| i.key.clone());
        let mut in_flight = self.in_flight.lock();
        in_flight.causes.extend(cause);
        in_flight.keys.extend(key.clone());
        Marks { in_flight: self.in_flight.clone(), cause, key }
    }
}

fn has_long_name(effect: &Effect) -> bool {
    match effect {
        Effect::Schedule { name, .. } | Effect::CancelSchedule { name } => name.len() > SCHEDULE_NAME_MAX,
        Effect::Tell { .. } | Effect::Task(_) | Effect::TimedTask(_) => false,
    }
}

/// Tells causes apart: effects by source and number; timers and tasks by pseudo-sources that no
/// group has.
fn cause_mark(cause: &Cause) -> Option<(u16, u64)> {
    const TIMERS: u16 = u16::MAX - 1;
    const TASKS: u16 = u16::MAX - 2;
    match cause {
        Cause::Client => None,
        Cause::Effect { source, number, .. } => Some((source.0, *number)),
        Cause::Timer { number, .. } => Some((TIMERS, *number)),
        Cause::Task { number, .. } => Some((TASKS, *number)),
    }
}

fn invalid(error: &codec::Error) -> CommandReply {
    CommandReply::Unavailable(Unavailable::Invalid { detail: error.to_string() })
}

fn storage_failed(error: &crate::storage::Error) -> CommandReply {
    tracing::error!(%error, "storage failed while deciding");
    CommandReply::Unknown
}
