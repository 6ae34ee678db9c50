//! What a reservation is told, what it remembers, what it answers.
//!
//! The order of variants and fields is the stored format: append, never reorder, and raise the
//! entity's version when a shape changes (tests/fixtures/events/README.md).

use super::{NewReservation, State, Status};
use crate::commerce::{
    order::Refusal,
    stock::{Answer, Leg},
};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Hold all of it, or nothing.
    Hold(NewReservation),
    /// Take what is held.
    Commit,
    /// Give back what is held.
    Release,
    /// Hold it for so long from now, if that is longer than it is held anyway.
    Extend { ttl_ms: u64 },
    /// From the timer.
    Due,
    /// From stock.
    Stock(Answer),
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
    /// One leg per SKU, sorted by SKU.
    Requested {
        items: Vec<Leg>,
        ttl_ms: u64,
    },
    Held {
        until_ms: u64,
    },
    /// The leg after the first `done` cannot be had.
    Refused {
        done: u16,
        sku: String,
        refusal: Refusal,
    },
    Committed,
    Released,
    Extended {
        until_ms: u64,
    },
    Expired,
    /// Every stock has taken its units.
    StockCommitted,
    /// Every stock has them back.
    StockUndone,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// To what clients ask: the reservation after it.
    Reservation(Box<State>),
    /// To what stocks and timers send.
    Ack,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Rejection {
    #[error("there is no such reservation")]
    NotFound,
    #[error("a reservation with this id has been made before")]
    AlreadyExists,
    #[error("a reservation that is {from} cannot become {to}")]
    IllegalTransition { from: Status, to: Status },
    #[error("{detail}")]
    Invalid { detail: String },
}

impl Rejection {
    /// A stable code for clients.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound => "not-found",
            Self::AlreadyExists => "already-exists",
            Self::IllegalTransition { .. } => "illegal-transition",
            Self::Invalid { .. } => "invalid",
        }
    }
}
