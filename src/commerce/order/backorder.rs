//! Orders that may wait for stock: `pending → backordered → reserved`.
//!
//! ```text
//! order ─▶ stock(a): held ─▶ stock(b): none left ─▶ order: backordered
//!                              │ stock comes in
//!                              └─▶ order ─▶ stock(c) ─▶ … ─▶ order: reserved
//! ```
//!
//! A leg that waits may do so for weeks, so such an order reserves without deadlines: what it
//! holds already stays its own until it is whole, or cancelled. Nothing can deadlock: an order
//! holds only SKUs that sort before the one it waits for. Once it is whole it has the usual time to
//! be paid, and keeps that time by a timer of its own.
//!
//! Effects come unordered, so the news that a leg is served may arrive before the news that it
//! waits. A leg is waited for once: what comes for a leg that is held already is late.

use super::{Command, Ending, Fact, Order, PaymentTrack, ReservationStatus, State, Status, StockTrack, saga::Saga};
use crate::commerce::stock;
use crate::entity::Effect;

const DUE_TIMER: &str = "reservation";

impl Saga<'_> {
    /// Asks for the legs after the first `done`.
    pub(super) fn reserve_from(&mut self, done: u16) {
        let Some(details) = self.details() else { return };
        let Some((sku, route)) = self.draft.state.route_from(self.context.id, done) else { return };
        let until_ms = (!details.backorder).then_some(details.reserved_until_ms);
        self.tell_stock(sku, &stock::Command::Reserve { route, until_ms, may_wait: details.backorder });
    }

    pub(super) fn stock_backordered(&mut self, done: u16, sku: String) {
        if self.draft.state.stock == StockTrack::Reserving && self.draft.state.is_asked_for(done, &sku) {
            self.emit(Fact::StockBackordered { done, sku });
        }
    }

    pub(super) fn backorder_served(&mut self, done: u16, sku: String) {
        let waits = matches!(self.draft.state.stock, StockTrack::Reserving | StockTrack::Waiting);
        if !waits || !self.draft.state.is_asked_for(done, &sku) {
            return;
        }
        self.emit(Fact::BackorderServed { done, sku });
        match self.draft.state.stock {
            StockTrack::Reserving => self.reserve_from(done + 1),
            _ => self.begin_payment(),
        }
    }

    /// Sets the timer of an order whose stock has no deadline of its own.
    pub(super) fn keep_time(&mut self) {
        if let Some(at_ms) = self.draft.state.due_ms {
            self.draft.effect(Effect::schedule::<Order>(DUE_TIMER, at_ms, &Command::ReservationDue));
        }
    }

    pub(super) fn reservation_due(&mut self) {
        let due = self.draft.state.due_ms.is_some_and(|at_ms| at_ms <= self.context.now_ms);
        if due && self.draft.state.stock == StockTrack::Held {
            self.give_up(Ending::expired("the order was not paid in time"));
        }
    }
}

impl State {
    /// Every leg is held.
    pub(super) fn reserved(&mut self, now_ms: u64) {
        self.stock = StockTrack::Held;
        self.mark_all(ReservationStatus::Held);
        if matches!(self.status, Status::Pending | Status::Backordered) && self.ending.is_none() {
            self.status = Status::Reserved;
            self.payment = PaymentTrack::Authorizing;
            let time = self.details.as_ref().filter(|details| details.backorder);
            let ttl_ms = time.map(|details| details.reserved_until_ms.saturating_sub(details.created_at_ms));
            self.due_ms = ttl_ms.map(|ttl_ms| now_ms.saturating_add(ttl_ms));
        }
    }

    pub(super) fn leg_waits(&mut self, done: usize) {
        self.stock = StockTrack::Waiting;
        self.mark_held(done);
        if let Some(leg) = self.reservations.get_mut(done) {
            leg.status = ReservationStatus::Backordered;
        }
        if self.status == Status::Pending && self.ending.is_none() {
            self.status = Status::Backordered;
        }
    }

    pub(super) fn leg_served(&mut self, done: usize, now_ms: u64) {
        self.mark_held(done + 1);
        if done + 1 >= self.reservations.len() {
            self.reserved(now_ms);
        } else if self.ending.is_some() {
            // It goes no further: what it holds is given back.
            self.stock = StockTrack::Held;
        } else {
            self.stock = StockTrack::Reserving;
        }
    }

    /// When its reservations run out; `None` for an order that waits.
    pub(super) fn held_until_ms(&self) -> Option<u64> {
        let details = self.details.as_ref()?;
        if details.backorder { self.due_ms } else { Some(details.reserved_until_ms) }
    }

    /// Whether this is the leg after the first `done`, and neither held nor given up.
    fn is_asked_for(&self, done: u16, sku: &str) -> bool {
        let leg = self.reservations.get(usize::from(done)).filter(|leg| leg.sku == sku);
        leg.is_some_and(|leg| matches!(leg.status, ReservationStatus::Requested | ReservationStatus::Backordered))
    }

    fn mark_held(&mut self, legs: usize) {
        self.reservations.iter_mut().take(legs).for_each(|leg| leg.status = ReservationStatus::Held);
    }
}
