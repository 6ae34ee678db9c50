//! Who a reservation belongs to, and how a stock answers it.
//!
//! A stock serves two kinds of owner alike: an order, whose saga reserves on its way to a payment,
//! and a reservation that a client made by itself. It tells both the same things.

use crate::commerce::{
    order::{self, Order, Refusal},
    reservation::{self, Reservation},
};
use crate::entity::Effect;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The entity that a reservation belongs to, by kind and id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Owner {
    Order(Arc<str>),
    Reservation(Arc<str>),
}

/// What a stock says to an owner. `done` counts the legs of its chain before the one that is meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Every leg is held.
    Reserved,
    /// This leg cannot be had.
    Refused { done: u16, sku: String, refusal: Refusal },
    /// Every leg is committed.
    Committed,
    /// This leg had run out when it was to be committed.
    CommitRefused { done: u16 },
    /// A leg ran out.
    Expired { sku: String },
    /// Every leg is given back.
    Undone,
    /// This leg waits for stock to come in.
    Backordered { done: u16, sku: String },
    /// This leg has waited and is held now; the legs after it are still to do.
    Served { done: u16, sku: String },
}

impl Owner {
    pub fn order(id: &str) -> Self {
        Self::Order(id.into())
    }

    pub fn reservation(id: &str) -> Self {
        Self::Reservation(id.into())
    }

    pub fn id(&self) -> &str {
        match self {
            Self::Order(id) | Self::Reservation(id) => id,
        }
    }

    pub(super) fn tell(&self, answer: Answer) -> Effect {
        match self {
            Self::Order(id) => Effect::tell::<Order>(&**id, &for_order(answer)),
            Self::Reservation(id) => Effect::tell::<Reservation>(&**id, &reservation::Command::Stock(answer)),
        }
    }
}

/// The order had commands for these before there were other owners, and they are stored.
fn for_order(answer: Answer) -> order::Command {
    match answer {
        Answer::Reserved => order::Command::StockReserved,
        Answer::Refused { done, sku, refusal } => order::Command::StockRefused { done, sku, refusal },
        Answer::Committed => order::Command::StockCommitted,
        Answer::CommitRefused { done } => order::Command::CommitRefused { done },
        Answer::Expired { sku } => order::Command::ReservationExpired { sku },
        Answer::Undone => order::Command::StockUndone,
        Answer::Backordered { done, sku } => order::Command::StockBackordered { done, sku },
        Answer::Served { done, sku } => order::Command::BackorderServed { done, sku },
    }
}
