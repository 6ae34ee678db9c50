//! Tasks and dead letters of the whole cluster: every shard's owner is asked, a few at a time, in
//! the order of the shards.

use super::{
    handle::Cluster,
    types::{Idempotency, Unavailable},
};
use crate::{
    entity::ShardId,
    shard::{Answer, Ask, DeadLetterStatus, EffectId, PAGE_MAX, Resolution, Router, ShardRequest, TaskStatus},
    storage::GroupId,
};
use futures::{StreamExt, stream};
use std::time::Duration;

/// Owners asked at once. Each answers with a page at most, so that this bounds a list's memory.
pub(super) const OWNERS_ASKED: usize = 8;

/// A part of a list, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    pub data: Vec<T>,
    /// Whether there is more behind the last one.
    pub has_more: bool,
}

/// A dead letter was retried or discarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resolved {
    /// True when the idempotency key had been used before: nothing happened this time.
    pub replayed: bool,
}

/// Why a dead letter was neither retried nor discarded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// It was retried or discarded before, or never was.
    #[error("there is no dead letter {0}")]
    NotFound(EffectId),
    #[error("the idempotency key was used before with another request")]
    IdempotencyKeyReused,
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

impl Cluster {
    /// Tasks that have not ended, behind `after`; at most `limit`, and at most 100.
    pub async fn tasks(&self, after: Option<EffectId>, limit: usize) -> Result<Page<TaskStatus>, Unavailable> {
        let ask = |after, limit| Ask::Tasks { after, limit };
        let read = |answer| match answer {
            Answer::Tasks(tasks) => Ok(tasks),
            _ => Err(Unavailable::mixed_up()),
        };
        self.page(after, limit, ask, read).await
    }

    /// Effects that were given up, behind `after`; at most `limit`, and at most 100.
    pub async fn dead_letters(
        &self,
        after: Option<EffectId>,
        limit: usize,
    ) -> Result<Page<DeadLetterStatus>, Unavailable> {
        let ask = |after, limit| Ask::DeadLetters { after, limit };
        let read = |answer| match answer {
            Answer::DeadLetters(letters) => Ok(letters),
            _ => Err(Unavailable::mixed_up()),
        };
        self.page(after, limit, ask, read).await
    }

    /// One dead letter, with the payload of its task or the command of its tell.
    pub async fn dead_letter(&self, id: EffectId) -> Result<Option<(DeadLetterStatus, Vec<u8>)>, Unavailable> {
        let (router, timeout) = self.way().await?;
        if id.shard.0 >= router.shards() {
            return Ok(None);
        }
        match router.ask_shard(request(id.shard, Ask::DeadLetter { number: id.number }), timeout).await? {
            Answer::DeadLetter(letter) => Ok(letter),
            _ => Err(Unavailable::mixed_up()),
        }
    }

    /// Has a dead letter tried again, with all its attempts and its time before it. A task's
    /// handler is given the same key as before. If it is given up again, that is a new dead letter.
    pub async fn retry_dead_letter(
        &self,
        id: EffectId,
        idempotency: Option<Idempotency>,
    ) -> Result<Resolved, ResolveError> {
        self.resolve(id, Resolution::Retry, idempotency).await
    }

    /// Forgets a dead letter for good.
    pub async fn discard_dead_letter(
        &self,
        id: EffectId,
        idempotency: Option<Idempotency>,
    ) -> Result<Resolved, ResolveError> {
        self.resolve(id, Resolution::Discard, idempotency).await
    }

    async fn resolve(
        &self,
        id: EffectId,
        resolution: Resolution,
        idempotency: Option<Idempotency>,
    ) -> Result<Resolved, ResolveError> {
        super::entity_ref::check_idempotency(idempotency.as_ref())?;
        let (router, timeout) = self.way().await?;
        if id.shard.0 >= router.shards() {
            return Err(ResolveError::NotFound(id));
        }
        let ask = Ask::Resolve { number: id.number, resolution, idempotency };
        match router.ask_shard(request(id.shard, ask), timeout).await? {
            Answer::Resolved { replayed } => Ok(Resolved { replayed }),
            Answer::NoSuchLetter => Err(ResolveError::NotFound(id)),
            Answer::IdempotencyKeyReused => Err(ResolveError::IdempotencyKeyReused),
            _ => Err(Unavailable::mixed_up().into()),
        }
    }

    /// Reads shard after shard until the page is full and it is known whether there is more.
    async fn page<T>(
        &self,
        after: Option<EffectId>,
        limit: usize,
        ask: impl Fn(u64, u32) -> Ask,
        read: impl Fn(Answer) -> Result<Vec<T>, Unavailable>,
    ) -> Result<Page<T>, Unavailable> {
        let (router, timeout) = self.way().await?;
        let limit = limit.min(PAGE_MAX);
        let first = after.map_or(0, |id| id.shard.0);
        let requests = (first..router.shards()).map(|shard| {
            let after = after.filter(|id| id.shard.0 == shard).map_or(0, |id| id.number);
            // One more than is shown tells whether there is more.
            let ask = ask(after, u32::try_from(limit + 1).unwrap_or(u32::MAX));
            let (router, request) = (router.clone(), request(ShardId(shard), ask));
            async move { router.ask_shard(request, timeout).await }
        });
        let mut answers = stream::iter(requests).buffered(OWNERS_ASKED);
        let mut data = Vec::new();
        while data.len() <= limit
            && let Some(answer) = answers.next().await
        {
            data.extend(read(answer?)?);
        }
        let has_more = data.len() > limit;
        data.truncate(limit);
        Ok(Page { data, has_more })
    }

    pub(super) async fn way(&self) -> Result<(Router, Duration), Unavailable> {
        let timeout = self.config().shard.command_timeout;
        Ok((self.node().router(timeout).await?, timeout))
    }
}

fn request(shard: ShardId, ask: Ask) -> ShardRequest {
    ShardRequest { group: GroupId(shard.0), ask }
}
