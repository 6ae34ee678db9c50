//! What a payment remembers.

use super::{Authorize, Event, Fact};
use crate::commerce::{Money, gateway::Operation};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub status: Status,
    /// Absent while the payment does not exist.
    pub order_id: Option<String>,
    /// What is (to be) authorized.
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
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    #[default]
    Created,
    Authorizing,
    Authorized,
    Capturing,
    Captured,
    Declined,
    Voided,
    AuthorizationExpired,
    /// The gateway has not said what became of the operation in flight.
    Unknown,
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

impl Status {
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Authorizing => "authorizing",
            Self::Authorized => "authorized",
            Self::Capturing => "capturing",
            Self::Captured => "captured",
            Self::Declined => "declined",
            Self::Voided => "voided",
            Self::AuthorizationExpired => "authorization_expired",
            Self::Unknown => "unknown",
        }
    }

    /// Where a payment may go from here. The table of docs/shop.md.
    pub fn allowed(self) -> &'static [Status] {
        use Status::*;
        match self {
            Created => &[Authorizing, Voided],
            Authorizing => &[Authorized, Declined, Unknown],
            Authorized => &[Capturing, Voided, AuthorizationExpired, Unknown],
            Capturing => &[Captured, Authorized, AuthorizationExpired, Unknown],
            Captured => &[Unknown],
            Unknown => &[Authorized, Declined, Captured, Voided, AuthorizationExpired],
            Declined | Voided | AuthorizationExpired => &[],
        }
    }
}

/// The gateway's word for an authorization that ran out before it was captured.
const AUTHORIZATION_EXPIRED: &str = "authorization_expired";

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
            Fact::CaptureRequested => {
                self.status = Status::Capturing;
                self.start(Operation::Capture, 1);
            }
            Fact::Captured { .. } => {
                self.captured = self.amount.map_or(0, |money| money.amount());
                self.settle(Status::Captured);
            }
            Fact::CaptureDeclined { reason } if reason == AUTHORIZATION_EXPIRED => {
                self.settle_for(Status::AuthorizationExpired, reason);
            }
            Fact::CaptureDeclined { reason } => self.settle_for(Status::Authorized, reason),
            Fact::VoidedBeforeAuthorization { order_id } => {
                self.order_id = Some(order_id.clone());
                self.created_at_ms = event.at_ms;
                self.settle(Status::Voided);
            }
            Fact::ReversalRequested => self.reverse_wanted = true,
            Fact::VoidRequested => self.start(Operation::Void, self.reversals_declined + 1),
            Fact::RefundRequested => self.start(Operation::Refund, self.reversals_declined + 1),
            Fact::Voided { .. } => self.settle(Status::Voided),
            Fact::Refunded { .. } => {
                self.refunded = self.captured;
                self.settle(Status::Captured);
            }
            Fact::ReversalDeclined { reason } => {
                self.reversals_declined = self.reversals_declined.saturating_add(1);
                self.reverse_wanted = false;
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
        }
    }

    /// The amount a gateway operation is about.
    pub(super) fn amount_of(&self, operation: Operation) -> Option<Money> {
        let amount = self.amount?;
        match operation {
            Operation::Refund => Money::new(self.captured - self.refunded, amount.currency()).ok(),
            _ => Some(amount),
        }
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
