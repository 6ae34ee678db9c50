//! The stock of one SKU: how many there are, and who holds how many of them.
//!
//! Reservations of one order run as a *chain*: the order tells the stock of its first SKU (sorted
//! by name), each stock that grants its leg passes the rest on to the next, the last one answers
//! the order; a refusal answers the order at once, which then undoes the legs granted so far.
//! A stock never waits for anything, so nothing can deadlock; and because every order takes SKUs
//! in the same order, two orders never refuse each other over the last units: the one that got
//! the first contested SKU goes on. A chain over n SKUs costs n + 1 replicated hops, where telling
//! each SKU and hearing from each would cost 2n.
//!
//! One durable timer per SKU sweeps expired reservations: it is set when the first one opens and
//! moved only by an earlier deadline, so a hot SKU does not pay for it on every order.
//!
//! CONSERVATION: `on_hand = supplied − committed`, `reserved = Σ open`, `reserved ≤ on_hand`.

mod messages;
mod requests;
mod state;

pub use messages::{Command, Event, Leg, Rejection, Reply, Route, Undo, UndoLeg};
pub use requests::{AdjustStock, PutStock, SKU_BYTES_MAX, StockView};
pub use state::{Levels, Reservation, State};

use super::order::{self, Order};
use crate::entity::{Context, Decision, Effect, Entity};

/// The most that may be on hand of one SKU.
pub const ON_HAND_MAX: u64 = 1_000_000_000_000;
/// The most reservations that may be open on one SKU; past it, reserving is refused. Keeps the
/// encoded state well under [`crate::entity::codec::VALUE_BYTES_MAX`].
pub const RESERVATIONS_MAX: usize = 8192;
/// The most reservations that one sweep ends; it comes back at once for the rest.
pub const SWEEP_BATCH_MAX: usize = 256;
/// Sweeps happen on whole multiples of this, so that deadlines close together share one.
const SWEEP_GRAIN_MS: u64 = 1000;
const SWEEP_TIMER: &str = "sweep";

/// The entity; its id is the SKU.
pub struct Stock;

impl Entity for Stock {
    const TYPE: &'static str = "stock";

    type State = State;
    type Command = Command;
    type Event = Event;
    type Reply = Reply;
    type Rejection = Rejection;

    fn decide(state: &State, command: Command, context: &Context<'_>) -> Decision<Self> {
        match command {
            Command::Put { on_hand, backorder_limit } => put(state, on_hand, backorder_limit),
            Command::Adjust { delta, reason } => adjust(state, delta, reason),
            Command::Reserve { route, expires_at_ms } => reserve(state, route, expires_at_ms, context),
            Command::Commit(route) => commit(state, route, context),
            Command::Undo(undo) => give_back(state, undo, context),
            Command::Sweep => sweep(state, context),
        }
    }

    fn evolve(state: &mut State, event: &Event) {
        state.apply(event);
    }
}

fn put(state: &State, on_hand: u64, backorder_limit: u64) -> Decision<Stock> {
    if on_hand > ON_HAND_MAX {
        return Decision::reject(Rejection::TooMany { on_hand_max: ON_HAND_MAX });
    }
    if on_hand < state.levels.reserved {
        return Decision::reject(Rejection::BelowReserved { on_hand, reserved: state.levels.reserved });
    }
    let mut after = state.levels;
    after.put(on_hand, backorder_limit);
    // A repeated PUT changes nothing and leaves no trace.
    let event = (after != state.levels).then_some(Event::Put { on_hand, backorder_limit });
    Decision::accept(event.into_iter().collect(), Reply::Levels(after))
}

fn adjust(state: &State, delta: i64, reason: String) -> Decision<Stock> {
    if !state.levels.listed {
        return Decision::reject(Rejection::NotFound);
    }
    let Some(on_hand) = state.levels.on_hand.checked_add_signed(delta) else {
        return Decision::reject(Rejection::InsufficientStock { available: state.levels.available() });
    };
    if on_hand > ON_HAND_MAX {
        return Decision::reject(Rejection::TooMany { on_hand_max: ON_HAND_MAX });
    }
    if on_hand < state.levels.reserved {
        return Decision::reject(Rejection::InsufficientStock { available: state.levels.available() });
    }
    let mut after = state.levels;
    after.adjust(delta);
    Decision::accept(vec![Event::Adjusted { delta, reason }], Reply::Levels(after))
}

fn reserve(state: &State, route: Route, expires_at_ms: u64, context: &Context<'_>) -> Decision<Stock> {
    let Some(leg) = route.leg_of(context.id) else {
        return Decision::reply(Reply::Ack);
    };
    let quantity = leg.quantity;
    // Granted before: the answer may have been lost, so pass it on again.
    if state.open.contains_key(&route.order_id) {
        return pass_on_reserve(Vec::new(), None, route, expires_at_ms);
    }
    if let Some(refusal) = state.refusal(quantity, expires_at_ms, context.now_ms) {
        let (order_id, done) = (route.order_id, route.done);
        let answer = order::Command::StockRefused { done, sku: context.id.to_owned(), refusal };
        return Decision::reply(Reply::Ack).with(Effect::tell::<Order>(order_id, &answer));
    }
    let order_id = route.order_id.clone();
    let timer = state.earlier_sweep(expires_at_ms).map(sweep_at);
    let granted = Event::Reserved { order_id, quantity, expires_at_ms };
    pass_on_reserve(vec![granted], timer, route, expires_at_ms)
}

fn pass_on_reserve(events: Vec<Event>, timer: Option<Effect>, route: Route, expires_at_ms: u64) -> Decision<Stock> {
    let next = match route.next() {
        Ok((sku, route)) => Effect::tell::<Stock>(sku, &Command::Reserve { route, expires_at_ms }),
        Err(order_id) => Effect::tell::<Order>(order_id, &order::Command::StockReserved),
    };
    Decision::accept(events, Reply::Ack).with_all(timer).with(next)
}

fn commit(state: &State, route: Route, context: &Context<'_>) -> Decision<Stock> {
    if route.leg_of(context.id).is_none() {
        return Decision::reply(Reply::Ack);
    }
    let open = state.open.get(&route.order_id);
    let (expired, held) = match open {
        None => (None, false),
        // Past its deadline, though not swept yet: it ends here.
        Some(held) if held.expires_at_ms <= context.now_ms => (Some(route.order_id.clone()), false),
        Some(_) => (None, true),
    };
    if !held {
        let answer = order::Command::CommitRefused { done: route.done };
        let events = expired.map(|order_id| Event::Expired { order_id }).into_iter().collect();
        return Decision::accept(events, Reply::Ack).with(Effect::tell::<Order>(route.order_id, &answer));
    }
    let committed = Event::Committed { order_id: route.order_id.clone() };
    let next = match route.next() {
        Ok((sku, route)) => Effect::tell::<Stock>(sku, &Command::Commit(route)),
        Err(order_id) => Effect::tell::<Order>(order_id, &order::Command::StockCommitted),
    };
    Decision::accept(vec![committed], Reply::Ack).with(next)
}

fn give_back(state: &State, undo: Undo, context: &Context<'_>) -> Decision<Stock> {
    let Some(leg) = undo.legs.first().filter(|leg| leg.sku == context.id) else {
        return Decision::reply(Reply::Ack);
    };
    let order_id = undo.order_id.clone();
    let event = match leg.restock {
        true if state.levels.committed >= u64::from(leg.quantity) => {
            Some(Event::Restocked { order_id, quantity: leg.quantity })
        }
        // A reservation that ran out meanwhile is gone already.
        false if state.open.contains_key(&order_id) => Some(Event::Released { order_id }),
        _ => None,
    };
    let next = match undo.next() {
        Ok((sku, undo)) => Effect::tell::<Stock>(sku, &Command::Undo(undo)),
        Err(order_id) => Effect::tell::<Order>(order_id, &order::Command::StockUndone),
    };
    Decision::accept(event.into_iter().collect(), Reply::Ack).with(next)
}

fn sweep(state: &State, context: &Context<'_>) -> Decision<Stock> {
    // A timer that was replaced, or fires twice.
    if state.sweep_at_ms.is_none_or(|at_ms| at_ms > context.now_ms) {
        return Decision::reply(Reply::Ack);
    }
    let expired = state.expired(context.now_ms, SWEEP_BATCH_MAX);
    let next_sweep_ms = state.sweep_after(&expired, context.now_ms);
    let notice = order::Command::ReservationExpired { sku: context.id.to_owned() };
    let notices: Vec<_> = expired.iter().map(|order| Effect::tell::<Order>(order.as_str(), &notice)).collect();
    Decision::accept(vec![Event::Swept { expired, next_sweep_ms }], Reply::Ack)
        .with_all(next_sweep_ms.map(sweep_at))
        .with_all(notices)
}

fn sweep_at(at_ms: u64) -> Effect {
    Effect::schedule::<Stock>(SWEEP_TIMER, at_ms, &Command::Sweep)
}
