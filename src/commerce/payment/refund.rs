//! The ledger of partial refunds: each has an id, an amount and a gateway key of its own.
//!
//! A refund counts against what was captured from the moment it is opened until the gateway
//! refuses it: `refunded + pending ≤ captured`, whatever order the answers come in.

use super::{Fact, InFlight, Payment, QUERIES_BEFORE_NOTICE, REFUNDS_MAX, Rejection, State, Step, query_wait_ms};
use crate::commerce::{Money, gateway::Operation};
use crate::entity::Effect;
use serde::{Deserialize, Serialize};

/// One refund of a part of what was captured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refund {
    pub id: String,
    /// Minor units of the payment's currency.
    pub amount: i64,
    pub status: RefundStatus,
    /// Part of its gateway key: `pay_1:refund-2` is number 2.
    pub number: u16,
    /// Tasks that gave up without an answer so far.
    pub round: u32,
    /// Why it failed, or what is unknown.
    pub reason: Option<String>,
    pub created_at_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefundStatus {
    Pending,
    /// The gateway has not said what became of it; it is being asked.
    Unknown,
    Succeeded,
    Failed,
}

impl Refund {
    /// Not refused, and not known to be made.
    pub fn is_pending(&self) -> bool {
        matches!(self.status, RefundStatus::Pending | RefundStatus::Unknown)
    }

    pub(super) fn in_flight(&self) -> InFlight {
        InFlight { operation: Operation::Refund, number: self.number, round: self.round }
    }

    fn settle(&mut self, status: RefundStatus, reason: Option<&str>) {
        self.status = status;
        self.reason = reason.map(str::to_owned);
    }
}

impl State {
    /// Minor units of refunds that are under way.
    pub fn refunds_pending(&self) -> i64 {
        self.refunds.iter().filter(|refund| refund.is_pending()).map(|refund| refund.amount).sum()
    }

    /// Minor units that can still be refunded.
    pub fn refundable(&self) -> i64 {
        self.captured - self.refunded - self.refunds_pending()
    }

    /// The refund of the ledger that `in_flight` is about.
    pub(super) fn refund_of(&self, in_flight: InFlight) -> Option<&Refund> {
        let own = |refund: &&Refund| refund.number == in_flight.number;
        self.refunds.iter().find(own).filter(|_| in_flight.operation == Operation::Refund)
    }

    /// The number of the next refund's key. Every refund and every refused reversal has used one.
    pub(super) fn next_reversal(&self) -> u16 {
        let used = self.refunds.len().saturating_add(usize::from(self.reversals_declined));
        u16::try_from(used).unwrap_or(u16::MAX).saturating_add(1)
    }

    pub(super) fn open_refund(&mut self, id: &str, amount: Money, at_ms: u64) {
        let number = self.next_reversal();
        let status = RefundStatus::Pending;
        let refund = Refund {
            id: id.to_owned(),
            amount: amount.amount(),
            status,
            number,
            round: 0,
            reason: None,
            created_at_ms: at_ms,
        };
        self.refunds.push(refund);
    }

    pub(super) fn refund_succeeded(&mut self, id: &str) {
        if let Some(refund) = self.refund_mut(id) {
            refund.settle(RefundStatus::Succeeded, None);
            self.refunded += refund.amount;
        }
    }

    pub(super) fn refund_failed(&mut self, id: &str, reason: &str) {
        if let Some(refund) = self.refund_mut(id) {
            refund.settle(RefundStatus::Failed, Some(reason));
        }
    }

    pub(super) fn refund_unknown(&mut self, id: &str, error: &str) {
        if let Some(refund) = self.refund_mut(id) {
            refund.settle(RefundStatus::Unknown, Some(error));
            refund.round = refund.round.saturating_add(1);
        }
    }

    /// The pending refund of this id.
    fn refund_mut(&mut self, id: &str) -> Option<&mut Refund> {
        self.refunds.iter_mut().find(|refund| refund.id == id && refund.is_pending())
    }
}

impl Step<'_> {
    /// Opens a refund of `amount`, or of all that is left, and sends it to the gateway. Whether
    /// the payment is in a state to be refunded, the caller has checked.
    pub(super) fn open_refund(&mut self, refund_id: String, amount: Option<Money>) -> Result<(), Rejection> {
        let state = &self.draft.state;
        if state.refunds.len() >= usize::from(REFUNDS_MAX) {
            return Err(Rejection::TooManyRefunds { max: REFUNDS_MAX });
        }
        let left = self.part(state.refundable())?;
        let amount = self.in_own_currency(amount.unwrap_or(left))?;
        if amount.amount() == 0 || amount.amount() > left.amount() {
            return Err(Rejection::ExceedsCaptured { amount, left });
        }
        self.emit(Fact::RefundOpened { refund_id, amount });
        if let Some(in_flight) = self.draft.state.refunds.last().map(Refund::in_flight) {
            self.run(in_flight.operation, in_flight);
        }
        Ok(())
    }

    /// The gateway has said for good what became of a refund.
    pub(super) fn refund_settled(&mut self, refund_id: String, outcome: Result<String, String>) {
        let id = refund_id.clone();
        self.emit(match outcome {
            Ok(reference) => Fact::RefundSucceeded { refund_id, reference },
            Err(reason) => Fact::RefundFailed { refund_id, reason },
        });
        self.report_refund(&id);
        // A reversal gives back the rest, and cannot know it before this.
        if self.draft.state.reverse_wanted {
            self.advance_reversal();
        }
    }

    pub(super) fn refund_unanswered(&mut self, refund_id: String, error: String, number: u16) {
        let id = refund_id.clone();
        self.emit(Fact::RefundUnknown { refund_id, error });
        let Some(round) = self.draft.state.refunds.iter().find(|r| r.number == number).map(|r| r.round) else { return };
        let at_ms = self.context.now_ms + query_wait_ms(round);
        let due = super::Command::RefundQueryDue { number, round };
        self.draft.effect(Effect::schedule::<Payment>(format!("query-refund-{number}"), at_ms, &due));
        if round.is_multiple_of(QUERIES_BEFORE_NOTICE) {
            self.report_refund(&id);
        }
    }

    pub(super) fn refund_query_due(&mut self, number: u16, round: u32) {
        let due = |refund: &&Refund| refund.is_pending() && (refund.number, refund.round) == (number, round);
        if let Some(in_flight) = self.draft.state.refunds.iter().find(due).map(Refund::in_flight) {
            self.run(Operation::Query, in_flight);
        }
    }
}

/// `re_`, the payment's id without its own prefix, the refund's place in the ledger.
pub(super) fn refund_id(payment_id: &str, state: &State) -> String {
    let suffix = payment_id.strip_prefix("pay_").unwrap_or(payment_id);
    format!("re_{suffix}_{}", state.refunds.len() + 1)
}
