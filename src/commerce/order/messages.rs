//! What an order is told, what it remembers, what it answers.
//!
//! The order of variants and fields is the stored format: append, never reorder, and raise the
//! entity's version when a shape changes (tests/fixtures/events/README.md).

use super::{Action, Details, NewOrder, State, Status};
use crate::commerce::{Money, stock::Leg};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    Place(Box<NewOrder>),
    /// Before shipping: take everything back. On an order that needs attention: try again.
    Cancel {
        reason: String,
    },
    /// From stock: every leg is held.
    StockReserved,
    /// From stock: the leg after the first `done` cannot be had.
    StockRefused {
        done: u16,
        sku: String,
        refusal: Refusal,
    },
    /// From stock: every leg is committed.
    StockCommitted,
    /// From stock: the reservation of the leg after the first `done` had run out.
    CommitRefused {
        done: u16,
    },
    /// From stock: a reservation ran out.
    ReservationExpired {
        sku: String,
    },
    /// From stock: what was held or committed has been given back.
    StockUndone,
    PaymentAuthorized,
    PaymentDeclined {
        reason: String,
    },
    PaymentCaptured,
    /// The authorization stands, but could not be captured.
    CaptureDeclined {
        reason: String,
    },
    /// From payment: no money is kept.
    PaymentReversed {
        outcome: Reversal,
    },
    /// From payment: it cannot say what became of the money, or cannot give it back.
    PaymentUnresolved {
        reason: String,
    },
    /// From stock: the leg after the first `done` waits for stock to come in.
    StockBackordered {
        done: u16,
        sku: String,
    },
    /// From stock: that leg is held now; those after it are still to be asked for.
    BackorderServed {
        done: u16,
        sku: String,
    },
    /// From the timer: an order whose stock has no deadline of its own was to be paid by now.
    ReservationDue,
    /// From a client: these have been sent to the customer; none: everything that is left.
    Fulfill {
        items: Vec<Leg>,
        tracking: Option<String>,
    },
    /// From a client: these came back; none: everything that can.
    Return {
        items: Vec<Leg>,
        reason: Option<String>,
    },
    /// From stock: every unit of a return is on the shelf again.
    ReturnRestocked {
        return_id: String,
    },
    /// From payment: what became of the refund of a return.
    RefundSettled {
        refund_id: String,
        outcome: RefundOutcome,
    },
}

/// What became of a refund of a part of the payment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefundOutcome {
    Succeeded,
    /// Refused for good; no money moved.
    Declined {
        reason: String,
    },
    /// The gateway has not said for a long while; it goes on being asked.
    Unresolved {
        reason: String,
    },
}

/// Why a stock does not reserve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    UnknownSku,
    InsufficientStock {
        available: u64,
    },
    TooManyReservations,
    /// The reservation would have run out before it began.
    TooLate,
    /// More would be owed to those who wait than may be.
    BackorderLimit {
        limit: u64,
    },
    TooManyBackorders,
}

/// How a payment was taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reversal {
    Voided,
    Refunded,
    /// The card had been declined meanwhile.
    Declined,
    AuthorizationExpired,
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
    Placed(Arc<Details>),
    StockReserved,
    StockRefused {
        done: u16,
        ending: Ending,
    },
    PaymentAuthorized,
    StockCommitted,
    PaymentCaptured,
    PaymentDeclined {
        reason: String,
    },
    CaptureDeclined {
        reason: String,
    },
    CommitRefused {
        done: u16,
    },
    ReservationExpired {
        sku: String,
    },
    CompensationStarted {
        ending: Ending,
    },
    UndoStarted,
    StockUndone,
    ReversalStarted,
    PaymentReversed {
        outcome: Reversal,
    },
    AttentionNeeded {
        reason: String,
    },
    CompensationResumed,
    /// Everything is given back; the order is now what its ending says.
    Ended,
    /// The leg after the first `done` waits for stock to come in.
    StockBackordered {
        done: u16,
        sku: String,
    },
    /// That leg is held now.
    BackorderServed {
        done: u16,
        sku: String,
    },
    Fulfilled {
        items: Vec<Leg>,
        tracking: Option<String>,
    },
    /// These came back, and their price is to be refunded.
    Returned {
        return_id: String,
        items: Vec<Leg>,
        reason: Option<String>,
        refund: Money,
    },
    ReturnRestocked {
        return_id: String,
    },
    ReturnRefunded {
        return_id: String,
    },
    RefundDeclined {
        return_id: String,
        reason: String,
    },
    RefundUnresolved {
        return_id: String,
        reason: String,
    },
    RefundRetried {
        return_id: String,
    },
}

/// How an order that goes no further will end, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// Rejected, cancelled or expired.
    pub status: Status,
    pub reason: Reason,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// Stable, for programs: `insufficient-stock`, `payment-declined`, `requested`, …
    pub code: String,
    /// For people.
    pub detail: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// To what clients ask: the order after it.
    Order(Box<State>),
    /// To what other entities send.
    Ack,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Rejection {
    #[error("there is no such order")]
    NotFound,
    #[error("an order with this id has been placed before")]
    AlreadyExists,
    #[error("an order that is {from} cannot become {to}; from here it can become: {}", names(allowed))]
    IllegalTransition { from: Status, to: Status, allowed: Vec<Status> },
    #[error("{detail}")]
    Invalid { detail: String },
    #[error("there is no {sku} in the order")]
    NotInOrder { sku: String },
    #[error("{asked} of {sku} are more than the {left} that are left to {action}")]
    MoreThanLeft { sku: String, asked: u64, left: u32, action: Action },
    /// The last one that fits must take everything that is left.
    #[error("an order is sent in at most {max} fulfillments; send everything that is left with this one")]
    TooManyFulfillments { max: usize },
    #[error("an order takes at most {max} returns")]
    TooManyReturns { max: usize },
}

impl Rejection {
    /// A stable code for clients.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound => "not-found",
            Self::AlreadyExists => "already-exists",
            Self::IllegalTransition { .. } => "illegal-transition",
            Self::Invalid { .. } => "invalid",
            Self::NotInOrder { .. } => "not-in-order",
            Self::MoreThanLeft { .. } => "more-than-left",
            Self::TooManyFulfillments { .. } => "too-many-fulfillments",
            Self::TooManyReturns { .. } => "too-many-returns",
        }
    }
}

impl Reason {
    pub(super) fn new(code: &str, detail: impl Into<String>) -> Self {
        Self { code: code.to_owned(), detail: detail.into() }
    }
}

impl Ending {
    pub(super) fn cancelled(code: &str, detail: impl Into<String>) -> Self {
        Self { status: Status::Cancelled, reason: Reason::new(code, detail) }
    }

    pub(super) fn expired(detail: impl Into<String>) -> Self {
        Self { status: Status::Expired, reason: Reason::new("reservation-expired", detail) }
    }

    pub(super) fn refused(sku: &str, refusal: &Refusal) -> Self {
        let status = if *refusal == Refusal::TooLate { Status::Expired } else { Status::Rejected };
        Self { status, reason: refusal.reason(sku) }
    }
}

impl Refusal {
    /// What to tell whoever wanted to reserve.
    pub fn reason(&self, sku: &str) -> Reason {
        match self {
            Self::TooLate => Reason::new("reservation-expired", format!("no time was left to reserve {sku}")),
            Self::UnknownSku => Reason::new("unknown-sku", format!("there is no stock item {sku}")),
            Self::InsufficientStock { available } => {
                Reason::new("insufficient-stock", format!("only {available} of {sku} are available"))
            }
            Self::TooManyReservations => Reason::new(
                "too-many-reservations",
                format!("too many reservations are open on {sku}; try again later"),
            ),
            Self::BackorderLimit { limit } => {
                Reason::new("backorder-limit", format!("at most {limit} of {sku} may be owed to backorders"))
            }
            Self::TooManyBackorders => {
                Reason::new("too-many-backorders", format!("too many backorders wait for {sku}; try again later"))
            }
        }
    }
}

fn names(statuses: &[Status]) -> String {
    let names: Vec<_> = statuses.iter().map(|status| status.name()).collect();
    if names.is_empty() { "nothing else".to_owned() } else { names.join(", ") }
}
