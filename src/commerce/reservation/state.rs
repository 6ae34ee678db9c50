//! What a reservation remembers, its transition table, and how each fact changes it.

use super::{Event, Fact};
use crate::commerce::{
    order::{Reason, Refusal},
    saga::{UNDER_WAY, UNDER_WAY_AS},
    stock::{Leg, Owner, Route, Undo, UndoLeg},
};
use crate::entity::{Row, newest_first};
use serde::{Deserialize, Serialize};
use std::fmt;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// One per SKU, sorted by SKU. Empty while nothing was asked for.
    pub items: Vec<Leg>,
    pub status: Status,
    pub stock: StockTrack,
    pub ttl_ms: u64,
    /// Until when it is held; `None` before that.
    pub until_ms: Option<u64>,
    pub refused: Option<Refused>,
    pub created_at_ms: u64,
    pub updated_at_ms: u64,
}

/// Why it is not held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    pub sku: String,
    pub refusal: Refusal,
}

/// What the world sees.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The stocks are being asked.
    #[default]
    Pending,
    Held,
    Committed,
    Released,
    Expired,
    /// There was not enough stock: nothing is held.
    Rejected,
}

/// How far the stocks have come with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StockTrack {
    #[default]
    Reserving,
    Held,
    Committing,
    Committed,
    Undoing,
    /// Nothing is held or taken.
    Clear,
}

impl Status {
    pub const ALL: [Status; 6] =
        [Self::Pending, Self::Held, Self::Committed, Self::Released, Self::Expired, Self::Rejected];

    /// The transition table: where a reservation may go from here.
    pub fn allowed(self) -> &'static [Status] {
        match self {
            Self::Pending => &[Self::Held, Self::Rejected],
            Self::Held => &[Self::Committed, Self::Released, Self::Expired],
            Self::Committed | Self::Released | Self::Expired | Self::Rejected => &[],
        }
    }

    pub fn may_become(self, next: Status) -> bool {
        self.allowed().contains(&next)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Held => "held",
            Self::Committed => "committed",
            Self::Released => "released",
            Self::Expired => "expired",
            Self::Rejected => "rejected",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl State {
    /// False for an id under which nothing was asked for.
    pub fn exists(&self) -> bool {
        !self.items.is_empty()
    }

    /// Whether the stocks have done all that its status says.
    pub fn is_settled(&self) -> bool {
        matches!(self.stock, StockTrack::Held | StockTrack::Committed | StockTrack::Clear)
    }

    /// Listed while the stocks owe an answer, newest first.
    pub(super) fn rows(&self) -> Vec<Row> {
        if !self.exists() || self.is_settled() {
            return Vec::new();
        }
        let order = newest_first(self.created_at_ms);
        vec![Row::new(UNDER_WAY, "", order), Row::new(UNDER_WAY_AS, self.status.name(), order)]
    }

    /// Its status at a time: whose time is up is expired, though the timer has not come by yet.
    pub fn status_at(&self, now_ms: u64) -> Status {
        let over = self.until_ms.is_some_and(|until_ms| until_ms <= now_ms);
        if self.status == Status::Held && over { Status::Expired } else { self.status }
    }

    /// Why it was rejected.
    pub fn reason(&self) -> Option<Reason> {
        self.refused.as_ref().map(|refused| refused.refusal.reason(&refused.sku))
    }

    pub(super) fn apply(&mut self, event: &Event) {
        self.updated_at_ms = event.at_ms;
        match &event.fact {
            Fact::Requested { items, ttl_ms } => {
                self.items.clone_from(items);
                self.ttl_ms = *ttl_ms;
                self.created_at_ms = event.at_ms;
            }
            Fact::Held { until_ms } => {
                (self.status, self.stock) = (Status::Held, StockTrack::Held);
                self.until_ms = Some(*until_ms);
            }
            Fact::Refused { done, sku, refusal } => {
                self.status = Status::Rejected;
                self.stock = if *done == 0 { StockTrack::Clear } else { StockTrack::Undoing };
                self.refused = Some(Refused { sku: sku.clone(), refusal: refusal.clone() });
            }
            Fact::Committed => (self.status, self.stock) = (Status::Committed, StockTrack::Committing),
            Fact::Released => (self.status, self.stock) = (Status::Released, StockTrack::Undoing),
            Fact::Extended { until_ms } => self.until_ms = Some(*until_ms),
            Fact::Expired => (self.status, self.stock) = (Status::Expired, StockTrack::Undoing),
            Fact::StockCommitted => self.stock = StockTrack::Committed,
            Fact::StockUndone => self.stock = StockTrack::Clear,
        }
    }

    /// CONSERVATION: what was granted is held, taken as a whole, or given back as a whole, and never
    /// two of these.
    pub fn check(&self) -> Result<(), String> {
        use StockTrack::{Clear, Committed, Committing, Held, Reserving, Undoing};
        let fits = match self.status {
            Status::Pending => self.stock == Reserving,
            Status::Held => self.stock == Held && self.until_ms.is_some(),
            Status::Committed => matches!(self.stock, Committing | Committed),
            Status::Released | Status::Expired | Status::Rejected => matches!(self.stock, Undoing | Clear),
        };
        match fits {
            true => Ok(()),
            false => Err(format!("it is {}, and its stock {:?}", self.status, self.stock)),
        }
    }

    /// The chain over every SKU, from its first.
    pub(super) fn route(&self, id: &str) -> Option<(String, Route)> {
        let first = self.items.first()?.sku.clone();
        Some((first, Route { owner: Owner::reservation(id), done: 0, legs: self.items.clone() }))
    }

    /// The way back over the first `legs` SKUs.
    pub(super) fn undo(&self, id: &str, legs: usize) -> Option<(String, Undo)> {
        let leg = |leg: &Leg| UndoLeg { sku: leg.sku.clone(), quantity: leg.quantity, restock: false };
        let legs: Vec<_> = self.items.iter().take(legs).map(leg).collect();
        let first = legs.first()?.sku.clone();
        Some((first, Undo { owner: Owner::reservation(id), legs }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_is_serialised() {
        for status in Status::ALL {
            assert_eq!(serde_json::to_string(&status).expect("serialises"), format!("\"{status}\""));
        }
    }

    #[test]
    fn what_has_ended_stays_as_it_is() {
        for status in [Status::Committed, Status::Released, Status::Expired, Status::Rejected] {
            assert!(status.allowed().is_empty(), "{status}");
        }
    }
}
