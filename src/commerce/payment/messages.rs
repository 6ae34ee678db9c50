//! What a payment is told and what it remembers.
//!
//! The order of variants and fields is the stored format: append, never reorder, and raise the
//! entity's version when a shape changes (tests/fixtures/events/README.md).

use crate::commerce::{Money, gateway::GatewayResponse};
use serde::{Deserialize, Serialize};

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
}

/// Other entities hear from a payment by a command of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    Ack,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Rejection {
    #[error("the payment belongs to another order")]
    OtherOrder,
}

impl Rejection {
    /// A stable code for clients.
    pub fn code(&self) -> &'static str {
        match self {
            Self::OtherOrder => "payment-of-another-order",
        }
    }
}

impl Command {
    /// The order that sent it, if an order did.
    pub(super) fn order_id(&self) -> Option<&str> {
        match self {
            Self::Authorize(Authorize { order_id, .. }) | Self::Capture { order_id } | Self::Reverse { order_id } => {
                Some(order_id)
            }
            Self::GatewayAnswered { .. } | Self::QueryDue { .. } => None,
        }
    }
}
