//! [`EntityRef`]: the address of one entity.

use super::{
    node::Node,
    types::{Answer, AskError, AskOptions, Consistency, Idempotency, Recorded, Snapshot, Unavailable},
};
use crate::{
    entity::{Entity, EntityKey, ShardId, Versioned, codec, decode_event, encode_command},
    shard::{Cause, CommandReply, CommandRequest, Query, QueryReply, QueryRequest, Router, StoredState},
};
use std::{marker::PhantomData, sync::Arc, time::Duration};

/// The address of one entity. Cheap to make and to clone; holds nothing open.
pub struct EntityRef<E> {
    node: Arc<Node>,
    id: String,
    _entity: PhantomData<fn() -> E>,
}

impl<E> Clone for EntityRef<E> {
    fn clone(&self) -> Self {
        Self { node: self.node.clone(), id: self.id.clone(), _entity: PhantomData }
    }
}

impl<E: Entity> EntityRef<E> {
    pub(super) fn new(node: Arc<Node>, id: String) -> Self {
        Self { node, id, _entity: PhantomData }
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// Sends a command and waits until what it decided is durable on a quorum.
    pub async fn ask(&self, command: impl Into<E::Command>) -> Result<E::Reply, AskError<E::Rejection>> {
        Ok(self.ask_with(command, AskOptions::default()).await?.reply)
    }

    /// As [`EntityRef::ask`], with an idempotency key, a condition or a time limit.
    pub async fn ask_with(
        &self,
        command: impl Into<E::Command>,
        options: AskOptions,
    ) -> Result<Answer<E::Reply>, AskError<E::Rejection>> {
        check_idempotency(options.idempotency.as_ref())?;
        let request = CommandRequest {
            key: self.key()?,
            command: encode_command::<E>(&command.into()).map_err(invalid)?,
            cause: Cause::Client,
            idempotency: options.idempotency,
            if_version: options.if_version,
            trace_id: options.trace_id,
        };
        let timeout = options.timeout.unwrap_or(self.node.config().shard.command_timeout);
        let started = tokio::time::Instant::now();
        let router = self.node.router(timeout).await?;
        let shard = ShardId(router.group_of(&request.key).0);
        let reply = router.command(request, timeout.saturating_sub(started.elapsed())).await;
        let answer = understand::<E>(reply, shard);
        let outcome = answer.as_ref().err().map_or("done", outcome_label);
        metrics::counter!("quorate_commands_total", "type" => E::TYPE, "outcome" => outcome).increment(1);
        metrics::histogram!("quorate_command_seconds", "type" => E::TYPE).record(started.elapsed().as_secs_f64());
        answer
    }

    /// The entity's state; the default state at version 0 if it has no events.
    pub async fn state(&self, consistency: Consistency) -> Result<Snapshot<E::State>, Unavailable> {
        let (router, timeout) = self.open().await?;
        let request = QueryRequest { key: self.key()?, query: Query::State, consistency };
        match router.query(request, timeout).await? {
            QueryReply::State(stored) => self.snapshot(&router, stored, consistency).await,
            _ => Err(Unavailable::mixed_up()),
        }
    }

    /// Events after number `after`, oldest first, at most `limit` (and at most 1,000).
    pub async fn history(
        &self,
        after: u64,
        limit: usize,
        consistency: Consistency,
    ) -> Result<Vec<Recorded<E::Event>>, Unavailable> {
        let (router, timeout) = self.open().await?;
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        let request = QueryRequest { key: self.key()?, query: Query::History { after, limit }, consistency };
        let QueryReply::History(stored) = router.query(request, timeout).await? else {
            return Err(Unavailable::mixed_up());
        };
        let recorded = stored.into_iter().map(|stored| {
            let event = decode_event::<E>(&stored.event)?;
            Ok(Recorded { sequence: stored.sequence, at_ms: stored.at_ms, event })
        });
        recorded.collect::<Result<_, codec::Error>>().map_err(invalid)
    }

    /// Waits at the owner until the version is above `after`, at most `timeout`, then answers the
    /// state as it is (linearizable).
    pub async fn changed(&self, after: u64, timeout: Duration) -> Result<Snapshot<E::State>, Unavailable> {
        let deadline = tokio::time::Instant::now() + timeout;
        loop {
            let (router, margin) = self.open().await?;
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            // A step at a time, so that a lost owner costs a step and not the whole wait.
            let step = left.min(STEP);
            let query = Query::Changed { after, timeout_ms: u64::try_from(step.as_millis()).unwrap_or(u64::MAX) };
            let request = QueryRequest { key: self.key()?, query, consistency: Consistency::Linearizable };
            let QueryReply::State(stored) = router.query(request, step + margin).await? else {
                return Err(Unavailable::mixed_up());
            };
            if stored.version > after || left <= step {
                return self.snapshot(&router, stored, Consistency::Linearizable).await;
            }
        }
    }

    async fn open(&self) -> Result<(Router, Duration), Unavailable> {
        let timeout = self.node.config().shard.command_timeout;
        Ok((self.node.router(timeout).await?, timeout))
    }

    fn key(&self) -> Result<EntityKey, Unavailable> {
        let key = EntityKey::new(E::TYPE, self.id.as_str());
        key.map_err(|e| Unavailable::Invalid { detail: e.to_string() })
    }

    pub(super) async fn snapshot(
        &self,
        router: &Router,
        stored: StoredState,
        consistency: Consistency,
    ) -> Result<Snapshot<E::State>, Unavailable> {
        let (version, applied_index) = (stored.version, stored.applied_index);
        let state = match stored.state {
            _ if version == 0 => E::State::default(),
            Some(Versioned { version, bytes }) if version == E::STATE_VERSION => {
                codec::decode("state", &bytes).map_err(invalid)?
            }
            // The owner runs another build, or does not know the type: fold the history here.
            Some(_) | None => self.refold(router, version, consistency).await?,
        };
        Ok(Snapshot { state, version, applied_index })
    }

    async fn refold(&self, router: &Router, version: u64, consistency: Consistency) -> Result<E::State, Unavailable> {
        const PAGE: u32 = 500;
        let timeout = self.node.config().shard.command_timeout;
        let (mut state, mut after) = (E::State::default(), 0);
        while after < version {
            let query = Query::History { after, limit: PAGE };
            let request = QueryRequest { key: self.key()?, query, consistency };
            let QueryReply::History(events) = router.query(request, timeout).await? else {
                return Err(Unavailable::mixed_up());
            };
            let Some(last) = events.last().map(|e| e.sequence) else { return Err(Unavailable::mixed_up()) };
            for stored in events.iter().take_while(|e| e.sequence <= version) {
                E::evolve(&mut state, &decode_event::<E>(&stored.event).map_err(invalid)?);
            }
            after = last;
        }
        Ok(state)
    }
}

pub(super) fn check_idempotency(idempotency: Option<&Idempotency>) -> Result<(), Unavailable> {
    let fits = |key: &str| (1..=255).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic());
    match idempotency {
        Some(given) if !fits(&given.key) => {
            Err(Unavailable::Invalid { detail: "an idempotency key has 1 to 255 visible ASCII characters".into() })
        }
        _ => Ok(()),
    }
}

/// One step of a long wait for a change.
const STEP: Duration = Duration::from_secs(5);

fn understand<E: Entity>(reply: CommandReply, shard: ShardId) -> Result<Answer<E::Reply>, AskError<E::Rejection>> {
    match reply {
        CommandReply::Done { reply, version, replayed, receipt } => {
            Ok(Answer { reply: codec::decode("reply", &reply).map_err(invalid)?, version, replayed, receipt })
        }
        CommandReply::Rejected(bytes) => Err(AskError::Rejected(codec::decode("rejection", &bytes).map_err(invalid)?)),
        CommandReply::RejectedBefore(bytes) => {
            Err(AskError::RejectedBefore(codec::decode("rejection", &bytes).map_err(invalid)?))
        }
        CommandReply::IdempotencyKeyReused => Err(AskError::IdempotencyKeyReused),
        CommandReply::VersionMismatch { actual } => Err(AskError::VersionMismatch { actual }),
        CommandReply::Unavailable(why) => Err(why.into()),
        CommandReply::Unknown => Err(Unavailable::OutcomeUnknown { shard }.into()),
        CommandReply::NotOwner { .. } | CommandReply::TryAgain | CommandReply::Duplicate => {
            Err(Unavailable::NoQuorum { shard }.into())
        }
    }
}

fn outcome_label<R>(error: &AskError<R>) -> &'static str {
    match error {
        AskError::Rejected(_) | AskError::RejectedBefore(_) => "rejected",
        AskError::IdempotencyKeyReused => "key_reused",
        AskError::VersionMismatch { .. } => "version_mismatch",
        AskError::Unavailable(Unavailable::NoQuorum { .. }) => "no_quorum",
        AskError::Unavailable(Unavailable::OutcomeUnknown { .. }) => "unknown",
        AskError::Unavailable(Unavailable::Overloaded { .. }) => "overloaded",
        AskError::Unavailable(_) => "unavailable",
    }
}

fn invalid(error: codec::Error) -> Unavailable {
    Unavailable::Invalid { detail: error.to_string() }
}
