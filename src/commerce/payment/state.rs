//! What a payment remembers.

use super::{Authorize, Event, Fact, NewPayment, Refund, Status};
use crate::commerce::{
    Money,
    gateway::Operation,
    saga::{UNDER_WAY, UNDER_WAY_AS},
};
use crate::entity::{Row, newest_first};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub status: Status,
    /// The order it belongs to. A payment of its own has none.
    pub order_id: Option<String>,
    /// What is (to be) authorized; absent if it was voided before it began.
    pub amount: Option<Money>,
    pub payment_method: String,
    /// The gateway's reference of the authorization.
    pub authorization: Option<String>,
    /// Minor units of the amount's currency.
    pub captured: i64,
    pub refunded: i64,
    /// The order wants its money back as soon as nothing is in flight.
    pub reverse_wanted: bool,
    /// The gateway operation whose outcome is awaited.
    pub in_flight: Option<InFlight>,
    /// Definite refusals to void or refund so far: each frees its key for a new one.
    pub reversals_declined: u16,
    /// Why it was declined, or what is unknown and why.
    pub reason: Option<String>,
    pub created_at_ms: u64,
    pub updated_at_ms: u64,
    pub metadata: BTreeMap<String, String>,
    /// Capture all of it as soon as it is authorized.
    pub capture_at_once: bool,
    /// Until when it may be captured. The payment of an order has no end of its own: its saga
    /// captures or reverses it as soon as the stock has answered.
    pub expires_at_ms: Option<u64>,
    /// Minor units of the capture in flight, where that is less than the amount.
    pub capturing_part: Option<i64>,
    /// Definite refusals to capture so far: each frees its key for a new one.
    pub captures_declined: u16,
    /// The void in flight is there because the authorization ran out.
    pub expiring: bool,
    /// Partial refunds, oldest first; at most [`super::REFUNDS_MAX`].
    pub refunds: Vec<Refund>,
}

/// One gateway operation under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct InFlight {
    pub operation: Operation,
    /// Which try it is (1 for the first); part of the gateway key.
    pub number: u16,
    /// Tasks that gave up without an answer so far.
    pub round: u32,
}

impl InFlight {
    /// Names the task: `refund-2#0`.
    pub(super) fn tag(self) -> String {
        format!("{}-{}#{}", self.operation, self.number, self.round)
    }

    /// The round of a task of this operation; `None` if the tag is another operation's.
    pub(super) fn round_of(self, tag: &str) -> Option<u32> {
        let (operation, round) = tag.split_once('#')?;
        let own = format!("{}-{}", self.operation, self.number);
        (operation == own).then(|| round.parse().ok()).flatten()
    }
}

/// The gateway's word for an authorization that ran out before it was captured.
pub(super) const AUTHORIZATION_EXPIRED: &str = "authorization_expired";

impl State {
    pub(super) fn apply(&mut self, event: &Event) {
        self.updated_at_ms = event.at_ms;
        match &event.fact {
            Fact::AuthorizationRequested(request) => self.begin(request, event.at_ms),
            Fact::Authorized { reference } => {
                self.authorization = Some(reference.clone());
                self.settle(Status::Authorized);
            }
            Fact::Declined { reason } => self.settle_for(Status::Declined, reason),
            Fact::CaptureRequested => self.begin_capture(None),
            Fact::PartCaptureRequested { amount } => self.begin_capture(Some(amount.amount())),
            Fact::Captured { .. } => {
                self.captured = self.amount_of_capture();
                self.settle(Status::Captured);
            }
            Fact::CaptureDeclined { reason } => self.capture_declined(reason),
            Fact::VoidedBeforeAuthorization { order_id } => {
                self.order_id = Some(order_id.clone());
                self.created_at_ms = event.at_ms;
                self.settle(Status::Voided);
            }
            Fact::ReversalRequested => self.reverse_wanted = true,
            Fact::VoidRequested => self.start(Operation::Void, self.reversals_declined.saturating_add(1)),
            Fact::RefundRequested => self.start(Operation::Refund, self.next_reversal()),
            Fact::Voided { .. } => self.settle(Status::Voided),
            Fact::Refunded { .. } => {
                self.refunded = self.captured;
                self.settle(Status::Captured);
            }
            Fact::ReversalDeclined { reason } => {
                self.reversals_declined = self.reversals_declined.saturating_add(1);
                self.reverse_wanted = false;
                self.expiring = false;
                let back = if self.captured > 0 { Status::Captured } else { Status::Authorized };
                self.settle_for(back, reason);
            }
            Fact::OutcomeUnknown { error } => {
                self.status = Status::Unknown;
                self.reason = Some(error.clone());
                if let Some(in_flight) = &mut self.in_flight {
                    in_flight.round = in_flight.round.saturating_add(1);
                }
            }
            Fact::Created(payment) => self.create(payment, event.at_ms),
            Fact::ExpiryRequested => {
                self.expiring = true;
                self.start(Operation::Void, self.reversals_declined.saturating_add(1));
            }
            Fact::AuthorizationExpired => {
                self.expiring = false;
                self.settle_for(Status::AuthorizationExpired, AUTHORIZATION_EXPIRED);
            }
            Fact::RefundOpened { refund_id, amount } => self.open_refund(refund_id, *amount, event.at_ms),
            Fact::RefundSucceeded { refund_id, .. } => self.refund_succeeded(refund_id),
            Fact::RefundFailed { refund_id, reason } => self.refund_failed(refund_id, reason),
            Fact::RefundUnknown { refund_id, error } => self.refund_unknown(refund_id, error),
        }
    }

    /// CONSERVATION: refunds, pending ones included ≤ captured ≤ authorized.
    pub fn check(&self) -> Result<(), String> {
        let authorized = self.amount.map_or(0, |amount| amount.amount());
        let (captured, refunded, pending) = (self.captured, self.refunded, self.refunds_pending());
        let made = |refund: &&Refund| refund.status == super::RefundStatus::Succeeded;
        let listed: i64 = self.refunds.iter().filter(made).map(|refund| refund.amount).sum();
        if !(0..=authorized).contains(&captured) {
            Err(format!("captured is {captured}, authorized {authorized}"))
        } else if refunded < 0 || refunded.saturating_add(pending) > captured {
            Err(format!("refunded is {refunded} and {pending} are pending, captured {captured}"))
        } else if listed > refunded {
            Err(format!("refunded is {refunded}, the refunds that were made add up to {listed}"))
        } else {
            Ok(())
        }
    }

    /// Whether anything ever happened to it.
    pub fn exists(&self) -> bool {
        self.amount.is_some() || self.order_id.is_some()
    }

    /// Listed while the gateway owes an answer, newest first. The payment of an order is a step of that.
    pub(super) fn rows(&self) -> Vec<Row> {
        let under_way = self.in_flight.is_some() || self.refunds.iter().any(Refund::is_pending);
        if self.order_id.is_some() || !under_way {
            return Vec::new();
        }
        let order = newest_first(self.created_at_ms);
        vec![Row::new(UNDER_WAY, "", order), Row::new(UNDER_WAY_AS, self.status.name(), order)]
    }

    /// Whether the time in which it may be captured is over.
    pub fn has_run_out(&self, now_ms: u64) -> bool {
        self.expires_at_ms.is_some_and(|at_ms| at_ms <= now_ms)
    }

    /// The operation that a task of this tag was for, and the task's round, if its answer is
    /// still awaited.
    pub(super) fn awaited(&self, tag: &str) -> Option<(InFlight, u32)> {
        let refunds = self.refunds.iter().filter(|refund| refund.is_pending()).map(Refund::in_flight);
        let mut all = self.in_flight.into_iter().chain(refunds);
        all.find_map(|in_flight| in_flight.round_of(tag).map(|round| (in_flight, round)))
    }

    /// The amount a gateway operation is about.
    pub(super) fn amount_of(&self, in_flight: InFlight) -> Option<Money> {
        let amount = self.amount?;
        let units = match (in_flight.operation, self.refund_of(in_flight)) {
            (Operation::Refund, Some(refund)) => refund.amount,
            (Operation::Refund, None) => self.captured - self.refunded,
            (Operation::Capture, _) => self.amount_of_capture(),
            _ => amount.amount(),
        };
        Money::new(units, amount.currency()).ok()
    }

    fn amount_of_capture(&self) -> i64 {
        self.capturing_part.or(self.amount.map(|money| money.amount())).unwrap_or(0)
    }

    fn create(&mut self, payment: &NewPayment, at_ms: u64) {
        self.status = Status::Authorizing;
        self.amount = Some(payment.amount);
        self.payment_method = payment.payment_method.clone();
        self.metadata = payment.metadata.clone();
        self.capture_at_once = payment.capture;
        self.created_at_ms = at_ms;
        // From its creation and not from its authorization: what is lost on the way must not make
        // it last longer here than at the gateway.
        self.expires_at_ms = Some(at_ms.saturating_add(payment.authorization_valid_ms));
        self.start(Operation::Authorize, 1);
    }

    fn begin_capture(&mut self, part: Option<i64>) {
        self.status = Status::Capturing;
        self.capturing_part = part;
        self.start(Operation::Capture, self.captures_declined.saturating_add(1));
    }

    fn capture_declined(&mut self, reason: &str) {
        self.captures_declined = self.captures_declined.saturating_add(1);
        self.capturing_part = None;
        let expired = reason == AUTHORIZATION_EXPIRED;
        self.settle_for(if expired { Status::AuthorizationExpired } else { Status::Authorized }, reason);
    }

    fn begin(&mut self, request: &Authorize, at_ms: u64) {
        self.status = Status::Authorizing;
        self.order_id = Some(request.order_id.clone());
        self.amount = Some(request.amount);
        self.payment_method = request.payment_method.clone();
        self.created_at_ms = at_ms;
        self.start(Operation::Authorize, 1);
    }

    fn start(&mut self, operation: Operation, number: u16) {
        self.in_flight = Some(InFlight { operation, number, round: 0 });
    }

    fn settle(&mut self, status: Status) {
        self.status = status;
        self.in_flight = None;
        self.reason = None;
    }

    fn settle_for(&mut self, status: Status, reason: &str) {
        self.settle(status);
        self.reason = Some(reason.to_owned());
    }
}
