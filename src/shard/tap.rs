//! Taps: what an owner adds to a decision before it is proposed.
//!
//! As time and random bits, the effects that a tap adds are chosen once by the owner and are in
//! the log entry: apply stays deterministic, whatever the tap knew, and what was committed with
//! the events is not lost when the owner dies after it.

use crate::entity::{Context, Effect, Entity};

/// Hears of the decisions of one entity type on the nodes that make them.
pub trait Tap<E: Entity>: Send + Sync + 'static {
    /// Effects to be committed in the same entry as the events. Called for every command that was
    /// accepted with events, between `decide` and the log: it must not wait, and a panic in it
    /// counts as one in `decide`.
    fn effects(&self, decided: &Tapped<'_, E>) -> Vec<Effect>;
}

/// A decision that is not committed yet, and may never be.
pub struct Tapped<'a, E: Entity> {
    /// As `decide` was given it; `version` is the number of events before these.
    pub context: &'a Context<'a>,
    /// The state before the events.
    pub state: &'a E::State,
    pub events: &'a [E::Event],
}
