//! Taking back what was sent: the units go back on the shelf, their price back to the customer.
//!
//! ```text
//! return ─┬─▶ stock(a) ─▶ stock(b) ─▶ … ─▶ order: restocked
//!         └─▶ payment ─▶ gateway ─▶ payment ─▶ order: refunded
//!                           └ refused, or silent ─▶ order: needs_attention ─ cancel ─▶ tried again
//! ```
//!
//! Both run at once and each is known by the id of the return, so that whatever is repeated takes
//! effect once. A refund that was refused for good is tried again under a new id; one that nobody
//! knows the outcome of keeps its id, and with it its gateway key.

use super::{
    Action, Fact, RETURNS_MAX, Refund, RefundOutcome, Rejection,
    saga::Saga,
    shipping::{price, return_id},
};
use crate::commerce::{
    Money, payment,
    stock::{self, Leg, Restock},
};

impl Saga<'_> {
    pub(super) fn take_back(&mut self, items: Vec<Leg>, reason: Option<String>) -> Result<(), Rejection> {
        self.may(Action::Return)?;
        let at = self.draft.state.shipping.returns.len();
        if at >= RETURNS_MAX {
            return Err(Rejection::TooManyReturns { max: RETURNS_MAX });
        }
        let items = self.choose(Action::Return, items, &self.draft.state.left_to_return())?;
        let return_id = return_id(self.context.id, at);
        let refund = self.price_of(&items)?;
        self.emit(Fact::Returned { return_id: return_id.clone(), items: items.clone(), reason, refund });
        if let Some(first) = items.first().map(|leg| leg.sku.clone()) {
            let order_id = self.context.id.to_owned();
            let restock = Restock { order_id, return_id: return_id.clone(), legs: items };
            self.tell_stock(first, &stock::Command::Restock(restock));
        }
        self.ask_for_refund(at);
        Ok(())
    }

    pub(super) fn return_restocked(&mut self, return_id: String) {
        if self.return_at(|id, _| *id == return_id).is_some_and(|at| !self.draft.state.shipping.returns[at].restocked) {
            self.emit(Fact::ReturnRestocked { return_id });
        }
    }

    /// An answer counts while its refund has no final one.
    pub(super) fn refund_settled(&mut self, refund_id: &str, outcome: RefundOutcome) {
        let Some(at) = self.return_at(|id, back| back.refund_id(id) == refund_id) else { return };
        let return_id = return_id(self.context.id, at);
        match (self.draft.state.shipping.returns[at].refund, outcome) {
            (Refund::Succeeded | Refund::Declined, _) | (Refund::Unresolved, RefundOutcome::Unresolved { .. }) => {}
            (_, RefundOutcome::Succeeded) => self.emit(Fact::ReturnRefunded { return_id }),
            (_, RefundOutcome::Declined { reason }) => self.emit(Fact::RefundDeclined { return_id, reason }),
            (_, RefundOutcome::Unresolved { reason }) => self.emit(Fact::RefundUnresolved { return_id, reason }),
        }
    }

    /// Tries every refund that is stuck again.
    pub(super) fn retry_refunds(&mut self) {
        for at in 0..self.draft.state.shipping.returns.len() {
            if self.draft.state.shipping.returns[at].refund.is_stuck() {
                self.emit(Fact::RefundRetried { return_id: return_id(self.context.id, at) });
                self.ask_for_refund(at);
            }
        }
    }

    fn ask_for_refund(&mut self, at: usize) {
        let (Some(back), Some(details)) = (self.draft.state.shipping.returns.get(at), self.details()) else { return };
        let Ok(amount) = Money::new(back.amount, details.total.currency()) else { return };
        if back.refund == Refund::Pending {
            let refund_id = back.refund_id(&return_id(self.context.id, at));
            let order_id = self.context.id.to_owned();
            self.tell_payment(&payment::Command::RefundPart { order_id, refund_id, amount });
        }
    }

    /// What was paid for these units, which come back after those that have come back already.
    fn price_of(&self, items: &[Leg]) -> Result<Money, Rejection> {
        let state = &self.draft.state;
        let details = self.details().ok_or(Rejection::NotFound)?;
        let price = |item: &Leg| {
            let leg = state.reservations.iter().position(|leg| leg.sku == item.sku);
            let before = leg.map_or(0, |leg| state.shipping.returned(leg));
            price(&details, &item.sku, before, item.quantity)
        };
        let sum = items.iter().map(price).sum();
        Money::new(sum, details.total.currency()).map_err(|error| Rejection::Invalid { detail: error.to_string() })
    }

    fn return_at(&self, is_meant: impl Fn(&String, &super::Return) -> bool) -> Option<usize> {
        let mut all = self.draft.state.shipping.returns.iter().enumerate();
        all.find(|(at, back)| is_meant(&return_id(self.context.id, *at), back)).map(|(at, _)| at)
    }
}
