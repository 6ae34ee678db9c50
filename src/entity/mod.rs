//! The programming model: pure, event-sourced entities.
//!
//! An entity is a type and an id. A *command* goes through [`Entity::decide`], which looks at the
//! state and returns a [`Decision`]: events, effects and a reply, or a rejection. Once the events
//! are durable on a quorum, every replica folds them into its state with [`Entity::evolve`] and
//! the caller gets the reply.
//!
//! ```text
//! command ──▶ decide(&state) ──▶ events + effects + reply ──▶ (replicated) ──▶ evolve(&mut state)
//! ```
//!
//! Both functions are pure: no clock, no randomness, no I/O. Time and randomness come in
//! [`Context`], chosen once by the owner. This module never waits, stores or sends anything.

pub mod codec;
mod decision;
mod effect;
mod key;
mod list;
mod task;

pub use codec::Versioned;
pub use decision::{Context, Decision};
pub use effect::Effect;
pub use key::{EntityKey, InvalidId, ShardId};
pub use list::{Place, Row, newest_first};
pub use task::{Retry, Task, TaskOutcome, TimedTask, decode_payload, encode_payload};

use serde::{Serialize, de::DeserializeOwned};
use std::{borrow::Cow, fmt};

/// A kind of entity: what it remembers, what it can be told, and how it decides.
///
/// Encodings outlive the process that wrote them. When a type below changes shape, raise its
/// version and teach the matching `upcast_*` function to read the old ones; a state needs no
/// upcaster, because it is folded again from its history when `STATE_VERSION` changes.
pub trait Entity: Sized + Send + Sync + 'static {
    /// The name in keys, URLs and metrics: lower-case letters, digits and `_`. Never change it.
    const TYPE: &'static str;
    const EVENT_VERSION: u16 = 1;
    const COMMAND_VERSION: u16 = 1;
    const STATE_VERSION: u16 = 1;
    /// 0: the type has no lists. Raise it whenever [`Entity::rows`] or the fields that it looks at
    /// change: all rows are then written anew, when a node opens its replicas.
    const LISTS_VERSION: u16 = 0;

    type State: Default + Clone + Serialize + DeserializeOwned + Send + Sync + 'static;
    type Command: Serialize + DeserializeOwned + Send + 'static;
    type Event: Serialize + DeserializeOwned + Clone + Send + Sync + 'static;
    type Reply: Serialize + DeserializeOwned + Clone + Send + 'static;
    /// A refusal that the caller is meant to understand (not an outage).
    type Rejection: fmt::Display + fmt::Debug + Serialize + DeserializeOwned + Clone + Send + 'static;

    /// Decides what a command means in a state. Pure; a panic restarts the entity from its
    /// applied state, answers an internal error and leaves no trace in the log.
    fn decide(state: &Self::State, command: Self::Command, context: &Context<'_>) -> Decision<Self>;

    /// Folds one event into the state. Pure and total: an event is a fact and cannot be refused.
    fn evolve(state: &mut Self::State, event: &Self::Event);

    /// The lists in which an entity with events is found, and where. Pure: every replica writes the
    /// rows in which it differs from the state before, in the entry that changes the state.
    fn rows(_state: &Self::State) -> Vec<Row> {
        Vec::new()
    }

    /// What a list carries of a state: all of it, unless most of it is not for those who look.
    fn listed(state: &Self::State) -> Cow<'_, Self::State> {
        Cow::Borrowed(state)
    }

    /// Whether a state obeys its laws of conservation: what must add up in it, whatever happened. The
    /// error says what does not. Pure. Checked on every replica now and then; an entity that breaks
    /// its own laws is frozen: it takes no commands until a build comes whose states obey them.
    fn check(_state: &Self::State) -> Result<(), String> {
        Ok(())
    }

    /// Turns the end of a task into a command to oneself. `None` drops it.
    fn task_finished(_outcome: TaskOutcome) -> Option<Self::Command> {
        None
    }

    /// Turns the end of a task that was given up, and whose dead letter an operator then discarded,
    /// into a command to oneself. `None`: nobody waits for it any more. Unlike the end itself it
    /// comes without an output or error: there is nothing to say but that it will not be done.
    fn task_discarded(_handler: &str, _tag: &str) -> Option<Self::Command> {
        None
    }

    /// Reads an event written in an older version than [`Entity::EVENT_VERSION`].
    fn upcast_event(version: u16, _bytes: &[u8]) -> Result<Self::Event, codec::Error> {
        Err(codec::Error::UnknownVersion { what: "event", found: version, known: Self::EVENT_VERSION })
    }

    /// Reads a command (in an outbox or a timer) written in an older version.
    fn upcast_command(version: u16, _bytes: &[u8]) -> Result<Self::Command, codec::Error> {
        Err(codec::Error::UnknownVersion { what: "command", found: version, known: Self::COMMAND_VERSION })
    }
}

/// Encodes an event in the version this build writes.
pub fn encode_event<E: Entity>(event: &E::Event) -> Result<Versioned, codec::Error> {
    Ok(Versioned { version: E::EVENT_VERSION, bytes: codec::encode("event", event)? })
}

/// Decodes an event of any version this build knows.
pub fn decode_event<E: Entity>(stored: &Versioned) -> Result<E::Event, codec::Error> {
    if stored.version == E::EVENT_VERSION {
        codec::decode("event", &stored.bytes)
    } else {
        E::upcast_event(stored.version, &stored.bytes)
    }
}

/// Encodes a command in the version this build writes.
pub fn encode_command<E: Entity>(command: &E::Command) -> Result<Versioned, codec::Error> {
    Ok(Versioned { version: E::COMMAND_VERSION, bytes: codec::encode("command", command)? })
}

/// Decodes a command of any version this build knows.
pub fn decode_command<E: Entity>(stored: &Versioned) -> Result<E::Command, codec::Error> {
    if stored.version == E::COMMAND_VERSION {
        codec::decode("command", &stored.bytes)
    } else {
        E::upcast_command(stored.version, &stored.bytes)
    }
}
