//! What a stock is told, what it remembers, what it answers.
//!
//! The order of variants and fields is the stored format: append, never reorder, and raise the
//! entity's version when a shape changes (tests/fixtures/events/README.md).

use super::Levels;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Set what is on hand.
    Put { on_hand: u64, backorder_limit: u64 },
    /// Change what is on hand by so many.
    Adjust { delta: i64, reason: String },
    /// Hold a leg for an order until a time (milliseconds since the epoch).
    Reserve { route: Route, expires_at_ms: u64 },
    /// Turn a held leg into units taken.
    Commit(Route),
    /// Give a leg back.
    Undo(Undo),
    /// From the timer: end the reservations whose time is up.
    Sweep,
}

/// An order's way over its SKUs: the legs still to do, the current one first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    pub order_id: String,
    /// Legs done before these.
    pub done: u16,
    pub legs: Vec<Leg>,
}

/// So many units of one SKU; an order has one leg per SKU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leg {
    pub sku: String,
    pub quantity: u32,
}

/// An order's way back over its SKUs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undo {
    pub order_id: String,
    pub legs: Vec<UndoLeg>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UndoLeg {
    pub sku: String,
    pub quantity: u32,
    /// True: it was committed, put the units back. False: it is held, release it.
    pub restock: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    Put {
        on_hand: u64,
        backorder_limit: u64,
    },
    Adjusted {
        delta: i64,
        reason: String,
    },
    Reserved {
        order_id: String,
        quantity: u32,
        expires_at_ms: u64,
    },
    Committed {
        order_id: String,
    },
    Released {
        order_id: String,
    },
    /// Committed units of an order that was never shipped came back.
    Restocked {
        order_id: String,
        quantity: u32,
    },
    /// A commit came after the deadline.
    Expired {
        order_id: String,
    },
    /// The timer fired: these orders' reservations ended; the next sweep is at that time.
    Swept {
        expired: Vec<String>,
        next_sweep_ms: Option<u64>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// To `Put` and `Adjust`: the levels after it.
    Levels(Levels),
    /// To what other entities send; they are answered by a command of their own.
    Ack,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Rejection {
    #[error("there is no stock item of this name")]
    NotFound,
    #[error("{on_hand} on hand would be less than the {reserved} reserved")]
    BelowReserved { on_hand: u64, reserved: u64 },
    #[error("only {available} are available")]
    InsufficientStock { available: u64 },
    #[error("at most {on_hand_max} may be on hand")]
    TooMany { on_hand_max: u64 },
}

impl Rejection {
    /// A stable code for clients.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound => "not-found",
            Self::BelowReserved { .. } => "below-reserved",
            Self::InsufficientStock { .. } => "insufficient-stock",
            Self::TooMany { .. } => "stock-limit",
        }
    }
}

impl Route {
    /// The current leg, if it is this SKU's.
    pub(super) fn leg_of(&self, sku: &str) -> Option<&Leg> {
        self.legs.first().filter(|leg| leg.sku == sku)
    }

    /// The next SKU and the way from there; or, at the end, the order to answer.
    pub(super) fn next(mut self) -> Result<(String, Route), String> {
        if self.legs.len() < 2 {
            return Err(self.order_id);
        }
        self.legs.remove(0);
        self.done += 1;
        Ok((self.legs[0].sku.clone(), self))
    }
}

impl Undo {
    /// As [`Route::next`].
    pub(super) fn next(mut self) -> Result<(String, Undo), String> {
        if self.legs.len() < 2 {
            return Err(self.order_id);
        }
        self.legs.remove(0);
        Ok((self.legs[0].sku.clone(), self))
    }
}
