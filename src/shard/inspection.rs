//! What operators ask of one shard's owner: which tasks wait, what was given up; and what they
//! tell it to do with that. Here, or over a node link.

use super::{
    StateHash,
    applied::{Delivery, Outgoing, QueuedTask},
    backup::{BackupId, CutAnswer, CutAsk, Restore, RestoreAnswer},
    dead_letters::{DeadLetter, EffectId, shorten},
    entry::{Item, KeyedAnswer},
    host::ShardHost,
    router::{Router, SendFailure, Target, pause},
    session::Session,
    tasks,
};
use crate::{
    catalog::NodeId,
    cluster::{Idempotency, Unavailable},
    entity::{EntityKey, ShardId, Versioned, codec},
    replication::Service,
    storage::{Error, GroupId},
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

/// Entries of a list that are shown at once. One answer carries one more, which tells that there
/// is more.
pub const PAGE_MAX: usize = 100;

/// A task that has not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskStatus {
    pub id: EffectId,
    pub handler: String,
    pub tag: String,
    /// Who asked for it.
    pub entity: EntityKey,
    pub state: TaskState,
    /// Attempts that failed.
    pub attempts: u32,
    pub attempts_max: u32,
    /// Not before this time; `None` if it may begin at once.
    pub next_attempt_at_ms: Option<u64>,
    /// When it is given up.
    pub deadline_at_ms: Option<u64>,
    /// When it was asked for, or put back; `None` if that was not noted.
    pub queued_at_ms: Option<u64>,
    pub last_error: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Before the time it was asked for.
    Scheduled,
    /// Waits for its turn, or its end for its entity.
    Queued,
    Running,
    /// Has failed and waits for its next attempt.
    Retrying,
}

/// An effect that was given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetterStatus {
    pub id: EffectId,
    /// Whose effect it was.
    pub entity: EntityKey,
    pub what: DeadEffect,
    pub error: String,
    /// When it was given up; `None` if that was not noted.
    pub at_ms: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeadEffect {
    Task { handler: String, tag: String, attempts: u32, payload_bytes: usize },
    Tell { to: EntityKey, command_bytes: usize },
}

/// What to do with a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Resolution {
    /// Back into the outbox, with all its attempts before it.
    Retry,
    /// Forgotten for good.
    Discard,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ShardRequest {
    pub group: GroupId,
    pub ask: Ask,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Ask {
    /// Tasks with numbers above `after`, at most `limit`.
    Tasks {
        after: u64,
        limit: u32,
    },
    DeadLetters {
        after: u64,
        limit: u32,
    },
    DeadLetter {
        number: u64,
    },
    Resolve {
        number: u64,
        resolution: Resolution,
        idempotency: Option<Idempotency>,
    },
    /// Of the replica that is asked, whether it owns the shard or not.
    StateHash,
    /// Its part in a backup.
    Cut {
        backup: BackupId,
        ask: CutAsk,
    },
    Restore {
        backup: BackupId,
        step: Restore,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    Tasks(Vec<TaskStatus>),
    DeadLetters(Vec<DeadLetterStatus>),
    /// With its payload or command.
    DeadLetter(Option<(DeadLetterStatus, Vec<u8>)>),
    Resolved {
        replayed: bool,
    },
    NoSuchLetter,
    IdempotencyKeyReused,
    NotOwner {
        hint: Option<NodeId>,
    },
    /// It may have happened, or may still happen.
    Unknown,
    StateHash(StateHash),
    Cut(CutAnswer),
    Restore(RestoreAnswer),
}

/// Answers as the owner.
async fn answer(session: &Arc<Session>, ask: Ask) -> Result<Answer, Error> {
    let page = |limit: u32| (PAGE_MAX + 1).min(limit as usize);
    let machine = &session.machine;
    match ask {
        Ask::Tasks { after, limit } => Ok(Answer::Tasks(waiting_tasks(session, after, page(limit)))),
        Ask::DeadLetters { after, limit } => {
            let letters = machine.look(|state| state.letters_after(after, page(limit)))?;
            let letters = letters.into_iter().map(|(number, letter)| letter_status(session.shard, number, letter).0);
            Ok(Answer::DeadLetters(letters.collect()))
        }
        Ask::DeadLetter { number } => {
            let letter = machine.look(|state| state.letter(number))?;
            Ok(Answer::DeadLetter(letter.map(|letter| letter_status(session.shard, number, letter))))
        }
        Ask::Resolve { number, resolution, idempotency } => resolve(session, number, resolution, idempotency).await,
        // Asked of the host.
        Ask::StateHash | Ask::Cut { .. } | Ask::Restore { .. } => Ok(Answer::NotOwner { hint: None }),
    }
}

fn waiting_tasks(session: &Session, after: u64, limit: usize) -> Vec<TaskStatus> {
    let now_ms = session.clock.now_ms();
    let status = |(number, outgoing): (&u64, &Outgoing)| match &outgoing.delivery {
        Delivery::Queued(queued) => Some(task_status(session, *number, &outgoing.from, queued, now_ms)),
        Delivery::Tell { .. } | Delivery::Task { .. } => None,
    };
    let after = after.saturating_add(1);
    session.machine.look(|state| state.outbox.range(after..).filter_map(status).take(limit).collect())
}

fn task_status(session: &Session, number: u64, from: &EntityKey, queued: &QueuedTask, now_ms: u64) -> TaskStatus {
    let queue = session.queues.options(&queued.task.handler);
    let later = queued.next_at_ms > now_ms;
    let state = match (session.tasks.is_running(number), queued.attempts) {
        (true, _) => TaskState::Running,
        (false, 0) if later => TaskState::Scheduled,
        (false, 0) => TaskState::Queued,
        (false, _) => TaskState::Retrying,
    };
    TaskStatus {
        id: EffectId { shard: session.shard, number },
        // A page must fit one answer, whatever entities call their tasks.
        handler: shorten(queued.task.handler.clone()),
        tag: shorten(queued.task.tag.clone()),
        entity: from.clone(),
        state,
        attempts: queued.attempts,
        attempts_max: tasks::policy(queued, &queue.retry).attempts_max,
        next_attempt_at_ms: later.then_some(queued.next_at_ms),
        deadline_at_ms: tasks::deadline_ms(queued, queue.deadline),
        queued_at_ms: Some(queued.queued_at_ms).filter(|at| *at > 0),
        last_error: queued.last_error.clone(),
    }
}

fn letter_status(shard: ShardId, number: u64, letter: DeadLetter) -> (DeadLetterStatus, Vec<u8>) {
    let (what, bytes) = match letter.outgoing.delivery {
        Delivery::Tell { to, command } => (DeadEffect::Tell { to, command_bytes: command.bytes.len() }, command.bytes),
        Delivery::Queued(QueuedTask { task, attempts, .. }) | Delivery::Task { task, attempts, .. } => {
            let (handler, tag, payload_bytes) = (shorten(task.handler), shorten(task.tag), task.payload.len());
            (DeadEffect::Task { handler, tag, attempts, payload_bytes }, task.payload)
        }
    };
    let id = EffectId { shard, number };
    let at_ms = Some(letter.at_ms).filter(|at| *at > 0);
    (DeadLetterStatus { id, entity: letter.outgoing.from, what, error: letter.error, at_ms }, bytes)
}

async fn resolve(
    session: &Arc<Session>,
    number: u64,
    resolution: Resolution,
    idempotency: Option<Idempotency>,
) -> Result<Answer, Error> {
    let _one_at_a_time = session.letters.lock().await;
    let id = EffectId { shard: session.shard, number };
    if let Some(given) = &idempotency
        && let Some(first) = session.machine.answer(&id.answers_at(), &given.key)?
    {
        let same = first.answer.fingerprint == given.fingerprint;
        return Ok(if same { Answer::Resolved { replayed: true } } else { Answer::IdempotencyKeyReused });
    }
    if !session.machine.look(|state| state.letters.contains(&number)) {
        return Ok(Answer::NoSuchLetter);
    }
    let at_ms = session.clock.now_ms();
    let retention = u64::try_from(session.options.idempotency_retention.as_millis()).unwrap_or(u64::MAX);
    let answer = idempotency.map(|given| KeyedAnswer {
        idempotency_key: given.key,
        fingerprint: given.fingerprint,
        reply: Vec::new(),
        version: 0,
        expires_at_ms: at_ms.saturating_add(retention),
    });
    let item = match resolution {
        Resolution::Retry => Item::RetryDeadLetter { number, at_ms, answer },
        Resolution::Discard => match word(session, number)? {
            Some(word) => Item::DiscardTask { number, answer, word },
            None => Item::DiscardDeadLetter { number, answer },
        },
    };
    Ok(match session.submitter.upkeep(&item).await {
        true => Answer::Resolved { replayed: false },
        false => Answer::Unknown,
    })
}

/// What the entity of a task is to hear when its dead letter is discarded.
fn word(session: &Session, number: u64) -> Result<Option<Versioned>, Error> {
    let Some(letter) = session.machine.look(|state| state.letter(number))? else { return Ok(None) };
    let (from, delivery) = (letter.outgoing.from, letter.outgoing.delivery);
    let (Delivery::Queued(QueuedTask { task, .. }) | Delivery::Task { task, .. }) = delivery else { return Ok(None) };
    let Some(entity_type) = session.machine.registry().entity_type(&from.entity_type) else { return Ok(None) };
    // An operator must be able to get rid of it, whatever its entity makes of that.
    let asked = catch_unwind(AssertUnwindSafe(|| entity_type.task_discarded(&task.handler, &task.tag)));
    Ok(asked.unwrap_or(Ok(None)).unwrap_or_else(|error| {
        tracing::error!(entity = %from, %error, "the entity cannot be told that its task is discarded");
        None
    }))
}

impl ShardHost {
    /// Answers if this node is the owner; of a replica's own hash whoever has one.
    pub async fn ask(self: &Arc<Self>, ask: Ask) -> Answer {
        let ask = match ask {
            Ask::StateHash => return Answer::StateHash(self.machine().state_hash()),
            Ask::Cut { backup, ask } => return Box::pin(self.cut(backup, ask)).await,
            Ask::Restore { backup, step } => return Box::pin(self.restore(backup, step)).await,
            ask => ask,
        };
        let session = match self.leading().await {
            Ok(session) => session,
            Err(hint) => return Answer::NotOwner { hint },
        };
        answer(&session, ask).await.unwrap_or_else(|error| {
            tracing::error!(shard = %session.shard, %error, "a shard cannot answer for its tasks");
            Answer::NotOwner { hint: None }
        })
    }
}

impl Router {
    /// Asks a shard's owner, for at most `timeout`.
    pub async fn ask_shard(&self, request: ShardRequest, timeout: Duration) -> Result<Answer, Unavailable> {
        let (group, deadline) = (request.group, Instant::now() + timeout);
        let changes = matches!(request.ask, Ask::Resolve { .. } | Ask::Restore { .. });
        let may_repeat = !matches!(&request.ask, Ask::Resolve { idempotency: None, .. });
        let (mut attempt, mut unknown) = (0, false);
        loop {
            // Boxed, for the sake of whoever has futures of this one in futures of theirs.
            match Box::pin(self.try_ask(&request, attempt, deadline)).await {
                Answer::NotOwner { hint } => self.learn(group, hint),
                Answer::Unknown if may_repeat => unknown = changes,
                Answer::Unknown => return Err(Unavailable::OutcomeUnknown { shard: ShardId(group.0) }),
                answer => return Ok(answer),
            }
            attempt += 1;
            if !pause(attempt, deadline).await {
                let shard = ShardId(group.0);
                return Err(match unknown {
                    true => Unavailable::OutcomeUnknown { shard },
                    false => Unavailable::NoQuorum { shard },
                });
            }
        }
    }

    /// Asks one node, here or elsewhere, until `deadline`; `None` if it does not answer.
    pub async fn ask_node(&self, node: NodeId, request: ShardRequest, deadline: Instant) -> Option<Answer> {
        if node != self.me() {
            return self.send(node, Service::Shard, &request, deadline).await.ok();
        }
        let host = self.host(request.group)?;
        let answer = Box::pin(async move { host.ask(request.ask).await });
        tokio::time::timeout_at(deadline, answer).await.ok()
    }

    /// The running hash of another node's replica; `None` if it cannot tell just now.
    pub async fn state_hash_at(&self, node: NodeId, group: GroupId, timeout: Duration) -> Option<StateHash> {
        let request = ShardRequest { group, ask: Ask::StateHash };
        match self.send(node, Service::Shard, &request, Instant::now() + timeout).await {
            Ok(Answer::StateHash(hash)) => Some(hash),
            _ => None,
        }
    }

    async fn try_ask(&self, request: &ShardRequest, attempt: u32, deadline: Instant) -> Answer {
        match self.target(request.group, attempt) {
            Target::Nobody => Answer::NotOwner { hint: None },
            Target::Here(host) => {
                let answer = tokio::time::timeout_at(deadline, host.ask(request.ask.clone())).await;
                answer.unwrap_or(Answer::Unknown)
            }
            Target::Node(node) => match self.send(node, Service::Shard, request, deadline).await {
                Ok(answer) => answer,
                Err(SendFailure::NotSent | SendFailure::Overloaded) => Answer::NotOwner { hint: None },
                Err(SendFailure::Lost) => {
                    self.learn(request.group, None);
                    Answer::Unknown
                }
            },
        }
    }

    /// Answers a peer: here or not at all.
    pub async fn handle_ask(&self, body: Bytes) -> Result<Bytes, String> {
        let request: ShardRequest = codec::decode("request", &body).map_err(|e| e.to_string())?;
        let answer = match self.host(request.group) {
            Some(host) => host.ask(request.ask).await,
            None => Answer::NotOwner { hint: None },
        };
        codec::encode("reply", &answer).map(Bytes::from).map_err(|e| e.to_string())
    }
}
