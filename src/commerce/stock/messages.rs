//! What a stock is told, what it remembers, what it answers.
//!
//! The order of variants and fields is the stored format: append, never reorder, and raise the
//! entity's version when a shape changes (tests/fixtures/events/README.md). `upcast` reads what
//! version 1 wrote.

use super::{Levels, Owner};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Set what is on hand.
    Put { on_hand: u64, backorder_limit: u64 },
    /// Change what is on hand by so many.
    Adjust { delta: i64, reason: String },
    /// Hold a leg for its owner.
    Reserve {
        route: Route,
        /// Until when, in milliseconds since the epoch; `None`: until the owner says otherwise.
        until_ms: Option<u64>,
        /// Where there is no stock, wait for it.
        may_wait: bool,
    },
    /// Turn a held leg into units taken.
    Commit(Route),
    /// Give a leg back.
    Undo(Undo),
    /// From the timer: end the reservations whose time is up.
    Sweep,
    /// From itself: go on serving those who wait.
    Serve,
    /// Take units back that a customer had.
    Restock(Restock),
}

/// An owner's way over its SKUs: the legs still to do, the current one first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    pub owner: Owner,
    /// Legs done before these.
    pub done: u16,
    pub legs: Vec<Leg>,
}

/// So many units of one SKU; an owner has one leg per SKU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leg {
    pub sku: String,
    pub quantity: u32,
}

/// An owner's way back over its SKUs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undo {
    pub owner: Owner,
    pub legs: Vec<UndoLeg>,
}

/// The way of a return over its SKUs: the legs still to do, the current one first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restock {
    pub order_id: String,
    pub return_id: String,
    pub legs: Vec<Leg>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UndoLeg {
    pub sku: String,
    pub quantity: u32,
    /// True: it was committed, put the units back. False: it is held or waits, release it.
    pub restock: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    Put {
        on_hand: u64,
        backorder_limit: u64,
        /// The number of the `Put` or `Adjusted` before this one, 0 if there is none: people's
        /// changes can be listed without reading what happened between them.
        previous: u64,
    },
    Adjusted {
        delta: i64,
        reason: String,
        previous: u64,
    },
    Reserved {
        owner: Owner,
        quantity: u32,
        until_ms: Option<u64>,
    },
    Committed {
        owner: Owner,
    },
    Released {
        owner: Owner,
    },
    /// Committed units came back.
    Restocked {
        owner: Owner,
        quantity: u32,
    },
    /// A commit came after the deadline.
    Expired {
        owner: Owner,
    },
    /// The timer fired: these reservations ended; the next sweep is at that time.
    Swept {
        expired: Vec<Owner>,
        next_sweep_ms: Option<u64>,
    },
    /// There was no stock: this owner waits for it, behind those who wait already.
    Backordered {
        owner: Owner,
        quantity: u32,
        done: u16,
    },
    /// Stock came in: the first of those who wait, in order, hold theirs now.
    Served {
        owners: Vec<Owner>,
    },
    /// An owner waits no longer.
    Withdrawn {
        owner: Owner,
    },
    /// Units that a customer had came back.
    Returned {
        order_id: String,
        return_id: String,
        quantity: u32,
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
    #[error("{short} units would be owed to backorders; the backorder limit is {limit}")]
    BelowBackorderLimit { short: u64, limit: u64 },
}

impl Rejection {
    /// A stable code for clients.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound => "not-found",
            Self::BelowReserved { .. } => "below-reserved",
            Self::InsufficientStock { .. } => "insufficient-stock",
            Self::TooMany { .. } => "stock-limit",
            Self::BelowBackorderLimit { .. } => "backorder-limit",
        }
    }
}

impl Event {
    /// Whether people did this: `Put` or `Adjusted`. The number of the one before, 0 if none.
    pub fn supply(&self) -> Option<u64> {
        match self {
            Self::Put { previous, .. } | Self::Adjusted { previous, .. } => Some(*previous),
            _ => None,
        }
    }
}

impl Route {
    /// The current leg, if it is this SKU's.
    pub(super) fn leg_of(&self, sku: &str) -> Option<&Leg> {
        self.legs.first().filter(|leg| leg.sku == sku)
    }

    /// The next SKU and the way from there; or, at the end, the owner to answer.
    pub(super) fn next(mut self) -> Result<(String, Route), Owner> {
        if self.legs.len() < 2 {
            return Err(self.owner);
        }
        self.legs.remove(0);
        self.done += 1;
        Ok((self.legs[0].sku.clone(), self))
    }
}

impl Undo {
    /// As [`Route::next`].
    pub(super) fn next(mut self) -> Result<(String, Undo), Owner> {
        if self.legs.len() < 2 {
            return Err(self.owner);
        }
        self.legs.remove(0);
        Ok((self.legs[0].sku.clone(), self))
    }
}
