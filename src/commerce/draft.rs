//! A decision in the making: events are folded into a working copy as they are emitted, so the
//! rest of the decision and its reply see the state *after* them.

use crate::entity::{Decision, Effect, Entity};

pub(super) struct Draft<E: Entity> {
    pub state: E::State,
    events: Vec<E::Event>,
    effects: Vec<Effect>,
}

impl<E: Entity> Draft<E> {
    pub fn new(state: &E::State) -> Self {
        Self { state: state.clone(), events: Vec::new(), effects: Vec::new() }
    }

    pub fn emit(&mut self, event: E::Event) {
        E::evolve(&mut self.state, &event);
        self.events.push(event);
    }

    pub fn effect(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    pub fn accept(self, reply: E::Reply) -> Decision<E> {
        Decision::Accept { events: self.events, effects: self.effects, reply }
    }

    /// Accepts with a reply made from the state after the events.
    pub fn accept_with(self, reply: impl FnOnce(&E::State) -> E::Reply) -> Decision<E> {
        let reply = reply(&self.state);
        self.accept(reply)
    }
}
