//! Those who wait are served as soon as something is free: by whatever freed it, in the same
//! decision. Only a long queue takes more than one.

use super::{
    Answer, Command, Event, Levels, Owner, RESERVATIONS_MAX, Reply, SERVE_BATCH_MAX, SWEEP_BATCH_MAX, SWEEP_TIMER,
    State, Stock,
};
use crate::entity::{Context, Decision, Effect};

/// A decision in the making: the few numbers that matter as they will be after it. The state
/// itself, with thousands of reservations, is never copied.
pub(super) struct After<'a> {
    state: &'a State,
    pub levels: Levels,
    /// How many reservations are open.
    pub open: usize,
    /// Who waits no longer, of those who wait in the state.
    pub gone: Option<Owner>,
    pub events: Vec<Event>,
    pub effects: Vec<Effect>,
}

impl<'a> After<'a> {
    pub fn of(state: &'a State) -> Self {
        let (levels, open) = (state.levels, state.open.len());
        Self { state, levels, open, gone: None, events: Vec::new(), effects: Vec::new() }
    }

    /// Serves those who wait, as far as what is free goes, without ever passing anyone over.
    pub fn serve(mut self, context: &Context<'_>) -> Self {
        let mut owners = Vec::new();
        let waiting = self.state.waiting.iter().filter(|waiting| self.gone.as_ref() != Some(&waiting.owner));
        for waiting in waiting {
            let quantity = u64::from(waiting.quantity);
            if quantity > self.levels.free() || self.open >= RESERVATIONS_MAX {
                break;
            }
            if owners.len() == SERVE_BATCH_MAX {
                self.effects.push(Effect::tell::<Stock>(context.id, &Command::Serve));
                break;
            }
            self.levels.serve(quantity);
            self.open += 1;
            let answer = Answer::Served { done: waiting.done, sku: context.id.to_owned() };
            self.effects.push(waiting.owner.tell(answer));
            owners.push(waiting.owner.clone());
        }
        if !owners.is_empty() {
            self.events.push(Event::Served { owners });
        }
        self
    }

    pub fn accept(self) -> Decision<Stock> {
        Decision::accept(self.events, Reply::Ack).with_all(self.effects)
    }

    pub fn accept_with_levels(self) -> Decision<Stock> {
        Decision::accept(self.events, Reply::Levels(self.levels)).with_all(self.effects)
    }
}

/// The rest of a long queue.
pub(super) fn go_on(state: &State, context: &Context<'_>) -> Decision<Stock> {
    After::of(state).serve(context).accept()
}

/// Ends what has run out, at most [`SWEEP_BATCH_MAX`] at a time.
pub(super) fn sweep(state: &State, context: &Context<'_>) -> Decision<Stock> {
    // A timer that was replaced, or fires twice.
    if state.sweep_at_ms.is_none_or(|at_ms| at_ms > context.now_ms) {
        return Decision::reply(Reply::Ack);
    }
    let mut after = After::of(state);
    let expired: Vec<_> = state.open.due(context.now_ms).take(SWEEP_BATCH_MAX).cloned().collect();
    let next_sweep_ms = state.sweep_after(expired.len(), context.now_ms);
    after.effects.extend(next_sweep_ms.map(sweep_at));
    for owner in &expired {
        let quantity = state.open.get(owner).map_or(0, |held| u64::from(held.quantity));
        after.levels.release(quantity);
        after.open -= 1;
        after.effects.push(owner.tell(Answer::Expired { sku: context.id.to_owned() }));
    }
    after.events.push(Event::Swept { expired, next_sweep_ms });
    after.serve(context).accept()
}

pub(super) fn sweep_at(at_ms: u64) -> Effect {
    Effect::schedule::<Stock>(SWEEP_TIMER, at_ms, &Command::Sweep)
}
