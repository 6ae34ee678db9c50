//! What a payment is told and what it remembers.
//!
//! The order of variants and fields is the stored format: append, never reorder, and raise the
//! entity's version when a shape changes (tests/fixtures/events/README.md).

use super::{Action, State, Status};
use crate::commerce::{
    Currency, Money,
    gateway::{GatewayResponse, Operation},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Begin: hold the amount on the card.
    Authorize(Authorize),
    /// Take what was authorized.
    Capture { order_id: String },
    /// See to it that no money is kept, however far the charge has come.
    Reverse { order_id: String },
    /// A gateway task ended; `Err` says nothing about what happened at the gateway.
    GatewayAnswered { tag: String, result: Result<GatewayResponse, String> },
    /// From the timer: ask again what became of the operation in flight.
    QueryDue { round: u32 },
    /// From a client, about a payment that belongs to no order.
    Ask(Ask),
    /// From the timer: the authorization has been valid for as long as it may be.
    ExpiryDue,
    /// From the timer: ask again what became of one refund.
    RefundQueryDue { number: u16, round: u32 },
    /// From its order: give back a part of what was captured, once per `refund_id`.
    RefundPart { order_id: String, refund_id: String, amount: Money },
}

/// What a client asks of a payment of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    Create(Box<NewPayment>),
    /// Take what was authorized, or `amount` of it: the rest is let go.
    Capture {
        amount: Option<Money>,
    },
    /// Let go of what was authorized.
    Void,
    /// Give back what was captured and not given back yet, or `amount` of it.
    Refund {
        amount: Option<Money>,
    },
}

/// A payment that belongs to no order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewPayment {
    pub amount: Money,
    pub payment_method: String,
    /// Capture all of it as soon as it is authorized.
    pub capture: bool,
    pub metadata: BTreeMap<String, String>,
    /// How long after its creation it may be captured, in milliseconds.
    pub authorization_valid_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authorize {
    pub order_id: String,
    pub amount: Money,
    pub payment_method: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When it was decided, in milliseconds since the epoch.
    pub at_ms: u64,
    pub fact: Fact,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fact {
    AuthorizationRequested(Authorize),
    Authorized {
        reference: String,
    },
    Declined {
        reason: String,
    },
    CaptureRequested,
    Captured {
        reference: String,
    },
    CaptureDeclined {
        reason: String,
    },
    /// A reversal overtook the authorization, which now never begins.
    VoidedBeforeAuthorization {
        order_id: String,
    },
    ReversalRequested,
    VoidRequested,
    Voided {
        reference: String,
    },
    RefundRequested,
    Refunded {
        reference: String,
    },
    /// The gateway refused to void or refund.
    ReversalDeclined {
        reason: String,
    },
    /// The task in flight gave up without an answer; a query follows.
    OutcomeUnknown {
        error: String,
    },
    /// A payment that belongs to no order begins: its amount is to be held on the card.
    Created(Box<NewPayment>),
    /// Less than what was authorized is to be captured, the rest let go.
    PartCaptureRequested {
        amount: Money,
    },
    /// The authorization has been valid long enough: the gateway is told to let go of it.
    ExpiryRequested,
    /// Nothing is held any more, and nothing was captured.
    AuthorizationExpired,
    RefundOpened {
        refund_id: String,
        amount: Money,
    },
    RefundSucceeded {
        refund_id: String,
        reference: String,
    },
    /// The gateway refused it for good; its amount can be refunded anew.
    RefundFailed {
        refund_id: String,
        reason: String,
    },
    /// The task of a refund gave up without an answer; a query follows.
    RefundUnknown {
        refund_id: String,
        error: String,
    },
}

/// Other entities hear from a payment by a command of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    Ack,
    /// To [`Command::Ask`]: the payment after it.
    Payment(Box<State>),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Rejection {
    #[error("the payment belongs to another order")]
    OtherOrder,
    #[error("there is no such payment")]
    NotFound,
    #[error("a payment with this id has been created before")]
    AlreadyExists,
    #[error("the payment belongs to order {order_id}, which alone captures, voids and refunds it")]
    BelongsToOrder { order_id: String },
    #[error("cannot {action} a payment that is {from}; from here it can become: {}", names(allowed))]
    IllegalTransition { action: Action, from: Status, allowed: Vec<Status> },
    #[error("the gateway has not answered yet: {operation} is under way")]
    OperationInProgress { operation: Operation },
    #[error("the payment is in {currency}")]
    OtherCurrency { currency: Currency },
    #[error("{amount} is more than the {authorized} that is authorized")]
    ExceedsAuthorized { amount: Money, authorized: Money },
    /// Refunds that are still pending count as made.
    #[error("{amount} cannot be refunded: of what was captured, {left} is left")]
    ExceedsCaptured { amount: Money, left: Money },
    #[error("a payment has at most {max} refunds")]
    TooManyRefunds { max: u16 },
    #[error("{detail}")]
    Invalid { detail: String },
}

impl Rejection {
    /// A stable code for clients.
    pub fn code(&self) -> &'static str {
        match self {
            Self::OtherOrder => "payment-of-another-order",
            Self::NotFound => "not-found",
            Self::AlreadyExists => "already-exists",
            Self::BelongsToOrder { .. } => "payment-belongs-to-order",
            Self::IllegalTransition { .. } => "illegal-transition",
            Self::OperationInProgress { .. } => "operation-in-progress",
            Self::OtherCurrency { .. } => "other-currency",
            Self::ExceedsAuthorized { .. } => "exceeds-authorized",
            Self::ExceedsCaptured { .. } => "exceeds-captured",
            Self::TooManyRefunds { .. } => "too-many-refunds",
            Self::Invalid { .. } => "invalid",
        }
    }
}

impl Command {
    /// The order that sent it, if an order did.
    pub(super) fn order_id(&self) -> Option<&str> {
        match self {
            Self::Authorize(Authorize { order_id, .. })
            | Self::Capture { order_id }
            | Self::Reverse { order_id }
            | Self::RefundPart { order_id, .. } => Some(order_id),
            Self::GatewayAnswered { .. }
            | Self::QueryDue { .. }
            | Self::Ask(_)
            | Self::ExpiryDue
            | Self::RefundQueryDue { .. } => None,
        }
    }
}

fn names(statuses: &[Status]) -> String {
    let names: Vec<_> = statuses.iter().map(|status| status.name()).collect();
    if names.is_empty() { "nothing else".to_owned() } else { names.join(", ") }
}
