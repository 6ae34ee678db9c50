//! Refunds of a part that an order asks for: one per return, known by an id that the order gives.
//!
//! The order may ask as often as it likes: a refund is opened once per id, and its outcome told
//! again.

use super::{Refund, RefundStatus, Status, Step};
use crate::commerce::{
    Money,
    gateway::Operation,
    order::{self, RefundOutcome},
};

impl Step<'_> {
    pub(super) fn refund_part(&mut self, order_id: String, refund_id: String, amount: Money) {
        let known = self.draft.state.refunds.iter().find(|refund| refund.id == refund_id);
        match known.map(|refund| (refund.is_pending(), refund.in_flight())) {
            // Somebody cares right now: do not wait for the timer.
            Some((true, in_flight)) => self.run(Operation::Query, in_flight),
            Some((false, _)) => self.report_refund(&refund_id),
            None => {
                if let Err(reason) = self.open_part(refund_id.clone(), amount) {
                    let outcome = RefundOutcome::Declined { reason };
                    self.tell(order_id, order::Command::RefundSettled { refund_id, outcome });
                }
            }
        }
    }

    fn open_part(&mut self, refund_id: String, amount: Money) -> Result<(), String> {
        let state = &self.draft.state;
        if state.status != Status::Captured || state.in_flight.is_some() || state.reverse_wanted {
            return Err(format!("the payment is {} and cannot be refunded in parts now", state.status.name()));
        }
        self.open_refund(refund_id, Some(amount)).map_err(|refused| refused.to_string())
    }

    /// Tells the order, if there is one, where a refund is.
    pub(super) fn report_refund(&mut self, refund_id: &str) {
        let Some(refund) = self.draft.state.refunds.iter().find(|refund| refund.id == refund_id) else { return };
        let outcome = outcome_of(refund);
        self.tell_order(order::Command::RefundSettled { refund_id: refund_id.to_owned(), outcome });
    }
}

fn outcome_of(refund: &Refund) -> RefundOutcome {
    let reason = refund.reason.clone().unwrap_or_default();
    match refund.status {
        RefundStatus::Succeeded => RefundOutcome::Succeeded,
        RefundStatus::Failed => RefundOutcome::Declined { reason },
        RefundStatus::Pending | RefundStatus::Unknown => RefundOutcome::Unresolved {
            reason: format!("the gateway does not say what became of the refund: {reason}"),
        },
    }
}
