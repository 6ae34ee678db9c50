//! What `decide` is given beside the state, and what it returns.

use super::{Effect, Entity};

/// Facts chosen once by the owner, so that `decide` needs no clock and no random source.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The deciding entity's id.
    pub id: &'a str,
    /// Events so far; the next event gets this number plus one.
    pub version: u64,
    /// Milliseconds since the Unix epoch. Never goes backwards for one entity.
    pub now_ms: u64,
    /// 64 random bits, fresh for each command.
    pub random: u64,
}

/// The outcome of a command.
#[derive(Debug, Clone)]
pub enum Decision<E: Entity> {
    /// The events become the entity's history, the effects happen, the caller gets the reply.
    Accept { events: Vec<E::Event>, effects: Vec<Effect>, reply: E::Reply },
    /// Nothing happens; the caller gets the reason.
    Reject(E::Rejection),
}

impl<E: Entity> Decision<E> {
    /// Accepts with events and no effects; add effects with [`Decision::with`].
    pub fn accept(events: Vec<E::Event>, reply: E::Reply) -> Self {
        Self::Accept { events, effects: Vec::new(), reply }
    }

    /// Answers without changing anything.
    pub fn reply(reply: E::Reply) -> Self {
        Self::accept(Vec::new(), reply)
    }

    pub fn reject(rejection: impl Into<E::Rejection>) -> Self {
        Self::Reject(rejection.into())
    }

    /// Adds an effect. A rejection stays a rejection.
    #[must_use]
    pub fn with(self, effect: impl Into<Effect>) -> Self {
        self.with_all([effect.into()])
    }

    /// Adds effects in order. A rejection stays a rejection.
    #[must_use]
    pub fn with_all(mut self, more: impl IntoIterator<Item = Effect>) -> Self {
        if let Self::Accept { effects, .. } = &mut self {
            effects.extend(more);
        }
        self
    }
}
