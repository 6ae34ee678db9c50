//! The process manager: what an order does about a command.
//!
//! Each handler checks that its track waits for the answer (late and repeated ones change
//! nothing), records the fact, and asks for the next step. [`Saga::compensate`] is run after every
//! command and pushes an unwinding order on as far as its tracks have settled.

use super::{
    Action, Command, Details, Ending, Event, Fact, ID_BYTES_MAX, NewOrder, Order, PaymentTrack, Rejection, Reply,
    State, Status, StockTrack, payment_id,
};
use crate::commerce::{
    draft::Draft,
    payment::{self, Payment},
    stock::{self, Stock},
};
use crate::entity::{Context, Decision, Effect};
use std::sync::Arc;

pub(super) fn decide(state: &State, command: Command, context: &Context<'_>) -> Decision<Order> {
    let mut saga = Saga { draft: Draft::new(state), context };
    let full_reply = matches!(
        command,
        Command::Place(_) | Command::Cancel { .. } | Command::Fulfill { .. } | Command::Return { .. }
    );
    if let Err(rejection) = saga.handle(command) {
        return Decision::Reject(rejection);
    }
    saga.compensate();
    if full_reply {
        saga.draft.accept_with(|after| Reply::Order(Box::new(after.clone())))
    } else {
        saga.draft.accept(Reply::Ack)
    }
}

pub(super) struct Saga<'a> {
    pub draft: Draft<Order>,
    pub context: &'a Context<'a>,
}

impl Saga<'_> {
    fn handle(&mut self, command: Command) -> Result<(), Rejection> {
        if let Command::Place(order) = command {
            return self.place(*order);
        }
        if self.draft.state.details.is_none() {
            return Err(Rejection::NotFound);
        }
        match command {
            Command::Place(_) => {}
            Command::Cancel { reason } => return self.cancel(reason),
            Command::StockReserved => self.stock_reserved(),
            Command::StockRefused { done, sku, refusal } => {
                let ending = Ending::refused(&sku, &refusal);
                self.stock_settles(StockTrack::Reserving, Fact::StockRefused { done, ending });
            }
            Command::StockCommitted => self.stock_committed(),
            Command::CommitRefused { done } => self.commit_refused(done),
            Command::ReservationExpired { sku } => self.reservation_expired(sku),
            Command::StockUndone => {
                self.stock_settles(StockTrack::Undoing, Fact::StockUndone);
            }
            Command::PaymentAuthorized => self.payment_authorized(),
            Command::PaymentDeclined { reason } => self.payment_declined(reason),
            Command::PaymentCaptured => {
                if self.draft.state.payment == PaymentTrack::Capturing {
                    self.emit(Fact::PaymentCaptured);
                }
            }
            Command::CaptureDeclined { reason } => self.capture_declined(reason),
            Command::PaymentReversed { outcome } => self.payment_reversed(Fact::PaymentReversed { outcome }),
            Command::PaymentUnresolved { reason } => self.payment_unresolved(reason),
            Command::StockBackordered { done, sku } => self.stock_backordered(done, sku),
            Command::BackorderServed { done, sku } => self.backorder_served(done, sku),
            Command::ReservationDue => self.reservation_due(),
            Command::Fulfill { items, tracking } => return self.fulfill(items, tracking),
            Command::Return { items, reason } => return self.take_back(items, reason),
            Command::ReturnRestocked { return_id } => self.return_restocked(return_id),
            Command::RefundSettled { refund_id, outcome } => self.refund_settled(&refund_id, outcome),
        }
        Ok(())
    }

    fn place(&mut self, order: NewOrder) -> Result<(), Rejection> {
        if self.draft.state.details.is_some() {
            return Err(Rejection::AlreadyExists);
        }
        if self.context.id.len() > ID_BYTES_MAX {
            return Err(Rejection::Invalid { detail: format!("an order id has at most {ID_BYTES_MAX} bytes") });
        }
        let now_ms = self.context.now_ms;
        let details = order.into_details(now_ms).map_err(|detail| Rejection::Invalid { detail })?;
        self.emit(Fact::Placed(Arc::new(details)));
        self.reserve_from(0);
        Ok(())
    }

    fn cancel(&mut self, reason: String) -> Result<(), Rejection> {
        self.may(Action::Cancel)?;
        let state = &self.draft.state;
        if state.status != Status::NeedsAttention {
            self.emit(Fact::CompensationStarted { ending: Ending::cancelled("requested", reason) });
        } else if state.shipping.has_begun() {
            self.retry_refunds();
        } else {
            self.emit(Fact::CompensationResumed);
        }
        Ok(())
    }

    /// Whether a client may ask for it now.
    pub(super) fn may(&self, action: Action) -> Result<(), Rejection> {
        let state = &self.draft.state;
        if action.allowed_in().contains(&state.status) {
            return Ok(());
        }
        Err(Rejection::IllegalTransition { from: state.status, to: action.leads_to(), allowed: state.next() })
    }

    fn stock_reserved(&mut self) {
        if self.stock_settles(StockTrack::Reserving, Fact::StockReserved) {
            self.begin_payment();
        }
    }

    /// Asks for the money, if the order is whole and goes on.
    pub(super) fn begin_payment(&mut self) {
        if let (Status::Reserved, Some(details)) = (self.draft.state.status, self.details()) {
            let request = payment::Authorize {
                order_id: self.context.id.to_owned(),
                amount: details.total,
                payment_method: details.payment_method.clone(),
            };
            self.tell_payment(&payment::Command::Authorize(request));
            self.keep_time();
        }
    }

    fn payment_authorized(&mut self) {
        if self.draft.state.payment != PaymentTrack::Authorizing {
            return;
        }
        self.emit(Fact::PaymentAuthorized);
        if let Some((sku, route)) = self.draft.state.route(self.context.id) {
            self.tell_stock(sku, &stock::Command::Commit(route));
        }
    }

    fn stock_committed(&mut self) {
        let settled = self.stock_settles(StockTrack::Committing, Fact::StockCommitted);
        if settled && self.draft.state.status == Status::Authorized {
            self.tell_payment(&payment::Command::Capture { order_id: self.context.id.to_owned() });
        }
    }

    fn commit_refused(&mut self, done: u16) {
        if self.stock_settles(StockTrack::Committing, Fact::CommitRefused { done }) {
            self.give_up(Ending::expired("a reservation ran out before it was committed"));
        }
    }

    fn reservation_expired(&mut self, sku: String) {
        // While a chain is under way its own answer will tell, and say how far it came.
        if self.draft.state.stock == StockTrack::Held {
            let ending = Ending::expired(format!("the reservation of {sku} ran out"));
            self.emit(Fact::ReservationExpired { sku });
            self.give_up(ending);
        }
    }

    fn payment_declined(&mut self, reason: String) {
        if self.draft.state.payment == PaymentTrack::Authorizing {
            self.emit(Fact::PaymentDeclined { reason: reason.clone() });
            self.give_up(Ending::cancelled("payment-declined", reason));
        }
    }

    fn capture_declined(&mut self, reason: String) {
        if self.draft.state.payment == PaymentTrack::Capturing {
            self.emit(Fact::CaptureDeclined { reason: reason.clone() });
            self.give_up(Ending::cancelled("capture-declined", reason));
        }
    }

    fn payment_reversed(&mut self, reversed: Fact) {
        match self.draft.state.payment {
            PaymentTrack::Reversing => self.emit(reversed),
            // What could not be resolved has resolved itself after all.
            PaymentTrack::Unknown if self.draft.state.ending.is_some() => {
                self.emit(Fact::CompensationResumed);
                self.emit(reversed);
            }
            _ => {}
        }
    }

    fn payment_unresolved(&mut self, reason: String) {
        match self.draft.state.payment {
            PaymentTrack::Authorizing | PaymentTrack::Capturing => {
                self.give_up(Ending::cancelled("payment-unresolved", reason));
            }
            PaymentTrack::Reversing => self.emit(Fact::AttentionNeeded { reason }),
            _ => {}
        }
    }

    /// Records that a stock chain has ended, if the order waits for one in this track.
    fn stock_settles(&mut self, waiting: StockTrack, fact: Fact) -> bool {
        let waits = self.draft.state.stock == waiting;
        if waits {
            self.emit(fact);
        }
        waits
    }

    /// Begins to compensate, unless that is under way.
    pub(super) fn give_up(&mut self, ending: Ending) {
        if self.draft.state.status.may_become(Status::Compensating) && self.draft.state.status != Status::NeedsAttention
        {
            self.emit(Fact::CompensationStarted { ending });
        }
    }

    /// Pushes an order that goes no further towards its end.
    fn compensate(&mut self) {
        if self.draft.state.ending.is_none() {
            return;
        }
        if matches!(self.draft.state.stock, StockTrack::Held | StockTrack::Committed | StockTrack::Waiting) {
            self.give_stock_back();
        }
        let status = self.draft.state.status;
        if !matches!(status, Status::Pending | Status::Backordered | Status::Compensating) {
            return;
        }
        let payment = self.draft.state.payment;
        if !payment.is_clear() && payment != PaymentTrack::Reversing {
            self.emit(Fact::ReversalStarted);
            self.tell_payment(&payment::Command::Reverse { order_id: self.context.id.to_owned() });
        }
        if self.draft.state.stock == StockTrack::Clear && self.draft.state.payment.is_clear() {
            self.emit(Fact::Ended);
        }
    }

    fn give_stock_back(&mut self) {
        match self.draft.state.undo(self.context.id) {
            Some((sku, undo)) => {
                self.emit(Fact::UndoStarted);
                self.tell_stock(sku, &stock::Command::Undo(undo));
            }
            None => self.emit(Fact::StockUndone),
        }
    }

    pub(super) fn details(&self) -> Option<Arc<Details>> {
        self.draft.state.details.clone()
    }

    pub(super) fn emit(&mut self, fact: Fact) {
        self.draft.emit(Event { at_ms: self.context.now_ms, fact });
    }

    pub(super) fn tell_stock(&mut self, sku: String, command: &stock::Command) {
        self.draft.effect(Effect::tell::<Stock>(sku, command));
    }

    pub(super) fn tell_payment(&mut self, command: &payment::Command) {
        self.draft.effect(Effect::tell::<Payment>(payment_id(self.context.id), command));
    }
}
