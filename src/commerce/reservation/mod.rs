//! A reservation of its own: units of several SKUs, all or none, held for a time.
//!
//! ```text
//! hold ─▶ stock(a) ─▶ stock(b) ─▶ … ─▶ held ─▶ committed | released | expired
//!             └──────────┴─▶ rejected: what was granted goes back
//! ```
//!
//! It runs the same chains over the same stocks as an order ([`crate::commerce::stock`]). Its
//! deadline is its own: a durable timer here, none at the stocks. So there is one place that
//! decides whether a commit came in time; once it has said yes, every stock still holds its leg and
//! none can refuse; and extending costs one command, however many SKUs there are.
//!
//! Invariants: no status change outside [`Status::allowed`]; a commit is accepted only before the
//! deadline; whatever was granted is taken as a whole or given back as a whole.

mod messages;
mod request;
mod state;
mod view;

pub use messages::{Command, Event, Fact, Rejection, Reply};
pub use request::{ExtendReservation, MakeReservation, NewReservation, ReserveItem, TTL_MAX_MS, TTL_MIN_MS};
pub use state::{Refused, State, Status, StockTrack};
pub use view::ReservationView;

use super::{
    draft::Draft,
    stock::{self, Answer, Stock},
};
use crate::entity::{Context, Decision, Effect, Entity, Row};

/// The longest reservation id, in bytes; bounds what a stock remembers per reservation.
pub const ID_BYTES_MAX: usize = 64;
const DUE_TIMER: &str = "due";

/// The entity; its id is `res_…`.
pub struct Reservation;

impl Entity for Reservation {
    const TYPE: &'static str = "reservation";
    const LISTS_VERSION: u16 = 1;

    type State = State;
    type Command = Command;
    type Event = Event;
    type Reply = Reply;
    type Rejection = Rejection;

    fn decide(state: &State, command: Command, context: &Context<'_>) -> Decision<Self> {
        let mut keeper = Keeper { draft: Draft::new(state), context };
        let from_client = !matches!(command, Command::Due | Command::Stock(_));
        match keeper.handle(command) {
            Err(rejection) => Decision::Reject(rejection),
            Ok(()) if from_client => keeper.draft.accept_with(|after| Reply::Reservation(Box::new(after.clone()))),
            Ok(()) => keeper.draft.accept(Reply::Ack),
        }
    }

    fn evolve(state: &mut State, event: &Event) {
        state.apply(event);
    }

    fn rows(state: &State) -> Vec<Row> {
        state.rows()
    }

    fn check(state: &State) -> Result<(), String> {
        state.check()
    }
}

struct Keeper<'a> {
    draft: Draft<Reservation>,
    context: &'a Context<'a>,
}

impl Keeper<'_> {
    fn handle(&mut self, command: Command) -> Result<(), Rejection> {
        if let Command::Hold(wanted) = command {
            return self.hold(wanted);
        }
        if !self.draft.state.exists() {
            return Err(Rejection::NotFound);
        }
        match command {
            Command::Hold(_) => {}
            Command::Commit => self.commit()?,
            Command::Release => self.release()?,
            Command::Extend { ttl_ms } => self.extend(ttl_ms)?,
            Command::Due => self.due(),
            Command::Stock(answer) => self.heard(answer),
        }
        Ok(())
    }

    fn hold(&mut self, wanted: NewReservation) -> Result<(), Rejection> {
        if self.draft.state.exists() {
            return Err(Rejection::AlreadyExists);
        }
        if self.context.id.len() > ID_BYTES_MAX {
            return Err(Rejection::Invalid { detail: format!("a reservation id has at most {ID_BYTES_MAX} bytes") });
        }
        let ttl_ms = wanted.ttl_ms;
        let items = wanted.into_legs().map_err(|detail| Rejection::Invalid { detail })?;
        self.emit(Fact::Requested { items, ttl_ms });
        if let Some((sku, route)) = self.draft.state.route(self.context.id) {
            self.tell_stock(sku, &stock::Command::Reserve { route, until_ms: None, may_wait: false });
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<(), Rejection> {
        if self.is_to_become(Status::Committed)? {
            self.emit(Fact::Committed);
            self.draft.effect(Effect::cancel_schedule(DUE_TIMER));
            if let Some((sku, route)) = self.draft.state.route(self.context.id) {
                self.tell_stock(sku, &stock::Command::Commit(route));
            }
        }
        Ok(())
    }

    fn release(&mut self) -> Result<(), Rejection> {
        if self.is_to_become(Status::Released)? {
            self.emit(Fact::Released);
            self.draft.effect(Effect::cancel_schedule(DUE_TIMER));
            self.give_back(usize::MAX);
        }
        Ok(())
    }

    /// Never shortens: a repeated request is harmless.
    fn extend(&mut self, ttl_ms: u64) -> Result<(), Rejection> {
        let from = self.draft.state.status_at(self.context.now_ms);
        if from != Status::Held {
            return Err(Rejection::IllegalTransition { from, to: Status::Held });
        }
        let until_ms = self.context.now_ms.saturating_add(ttl_ms);
        if self.draft.state.until_ms.is_some_and(|now| now < until_ms) {
            self.emit(Fact::Extended { until_ms });
            self.draft.effect(due_at(until_ms));
        }
        Ok(())
    }

    /// The timer fired; it may be one that an extension has replaced.
    fn due(&mut self) {
        let state = &self.draft.state;
        if state.status == Status::Held && state.status_at(self.context.now_ms) == Status::Expired {
            self.emit(Fact::Expired);
            self.give_back(usize::MAX);
        }
    }

    /// An answer counts only if it is waited for; late and repeated ones change nothing.
    fn heard(&mut self, answer: Answer) {
        match (self.draft.state.stock, answer) {
            (StockTrack::Reserving, Answer::Reserved) => {
                // The time begins when it is held.
                let until_ms = self.context.now_ms.saturating_add(self.draft.state.ttl_ms);
                self.emit(Fact::Held { until_ms });
                self.draft.effect(due_at(until_ms));
            }
            (StockTrack::Reserving, Answer::Refused { done, sku, refusal }) => {
                self.emit(Fact::Refused { done, sku, refusal });
                self.give_back(usize::from(done));
            }
            (StockTrack::Committing, Answer::Committed) => self.emit(Fact::StockCommitted),
            (StockTrack::Undoing, Answer::Undone) => self.emit(Fact::StockUndone),
            _ => {}
        }
    }

    /// Whether it is to change: not if it is there already, and an error if it cannot get there.
    fn is_to_become(&self, to: Status) -> Result<bool, Rejection> {
        match self.draft.state.status_at(self.context.now_ms) {
            from if from == to => Ok(false),
            from if from.may_become(to) => Ok(true),
            from => Err(Rejection::IllegalTransition { from, to }),
        }
    }

    /// Gives back the first `legs` of what was asked for.
    fn give_back(&mut self, legs: usize) {
        if let Some((sku, undo)) = self.draft.state.undo(self.context.id, legs) {
            self.tell_stock(sku, &stock::Command::Undo(undo));
        }
    }

    fn emit(&mut self, fact: Fact) {
        self.draft.emit(Event { at_ms: self.context.now_ms, fact });
    }

    fn tell_stock(&mut self, sku: String, command: &stock::Command) {
        self.draft.effect(Effect::tell::<Stock>(sku, command));
    }
}

fn due_at(at_ms: u64) -> Effect {
    Effect::schedule::<Reservation>(DUE_TIMER, at_ms, &Command::Due)
}
