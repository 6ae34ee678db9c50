//! What an order remembers, and how each fact changes it.

use super::{Ending, Event, Fact, Item, Refund, Reversal, Shipping, Status};
use crate::commerce::{
    Money,
    stock::{Leg, Owner, Route, Undo, UndoLeg},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Absent while the order is not placed. Shared, because it never changes after that.
    pub details: Option<Arc<Details>>,
    pub status: Status,
    pub stock: StockTrack,
    pub payment: PaymentTrack,
    /// One per SKU, sorted by SKU.
    pub reservations: Vec<Reservation>,
    /// How it will end (or has ended), once it goes no further.
    pub ending: Option<Ending>,
    /// Why it needs attention.
    pub attention: Option<String>,
    pub updated_at_ms: u64,
    /// When its reservations run out, if the order keeps that time itself; none while it waits.
    pub due_ms: Option<u64>,
    /// What was sent to the customer, and what came back.
    pub shipping: Shipping,
}

/// What was ordered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Details {
    pub customer_id: String,
    /// As ordered; the same SKU may be on several lines.
    pub items: Vec<Item>,
    pub total: Money,
    pub payment_method: String,
    pub backorder: bool,
    pub metadata: BTreeMap<String, String>,
    pub created_at_ms: u64,
    /// When its reservations run out; an order that may wait has as long once it is reserved.
    pub reserved_until_ms: u64,
}

/// Where the order's stock is.
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
    /// A leg waits for stock to come in; those before it are held.
    Waiting,
}

/// Where the order's money is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaymentTrack {
    /// Not asked for yet.
    #[default]
    Pending,
    Authorizing,
    Authorized,
    Capturing,
    Captured,
    Reversing,
    /// The payment cannot say, or cannot give it back.
    Unknown,
    Declined,
    Voided,
    Refunded,
    AuthorizationExpired,
    /// A part is being given back.
    Refunding,
    PartiallyRefunded,
}

/// One SKU of the order. `Requested` is not yet granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    pub sku: String,
    pub quantity: u32,
    pub status: ReservationStatus,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReservationStatus {
    Requested,
    Held,
    Committed,
    Released,
    Expired,
    /// Waits for stock to come in.
    Backordered,
}

impl PaymentTrack {
    /// No money is held or taken, and none will be.
    pub fn is_clear(self) -> bool {
        use PaymentTrack::{AuthorizationExpired, Declined, Pending, Refunded, Voided};
        matches!(self, Pending | Declined | Voided | Refunded | AuthorizationExpired)
    }
}

impl State {
    pub(super) fn apply(&mut self, event: &Event) {
        self.updated_at_ms = event.at_ms;
        match &event.fact {
            Fact::Placed(details) => self.place(details),
            Fact::StockReserved => self.reserved(event.at_ms),
            Fact::StockRefused { done, ending } => {
                self.reservations.truncate(usize::from(*done));
                self.mark_all(ReservationStatus::Held);
                self.stock = if *done == 0 { StockTrack::Clear } else { StockTrack::Held };
                // A cancel that came first stays the reason.
                self.ending.get_or_insert_with(|| ending.clone());
            }
            Fact::PaymentAuthorized => {
                self.status = Status::Authorized;
                self.payment = PaymentTrack::Authorized;
                self.stock = StockTrack::Committing;
            }
            Fact::StockCommitted => {
                self.stock = StockTrack::Committed;
                self.mark_all(ReservationStatus::Committed);
                if self.status == Status::Authorized {
                    self.payment = PaymentTrack::Capturing;
                }
            }
            Fact::CommitRefused { done } => {
                self.stock = StockTrack::Held;
                self.mark_commit_refused(usize::from(*done));
            }
            Fact::PaymentCaptured => {
                self.status = Status::Confirmed;
                self.payment = PaymentTrack::Captured;
            }
            Fact::PaymentDeclined { .. } => self.payment = PaymentTrack::Declined,
            Fact::CaptureDeclined { .. } => self.payment = PaymentTrack::Authorized,
            Fact::ReservationExpired { sku } => {
                let expired = self.reservations.iter_mut().filter(|reservation| reservation.sku == *sku);
                expired.for_each(|reservation| reservation.status = ReservationStatus::Expired);
            }
            Fact::CompensationStarted { ending } => {
                self.status = Status::Compensating;
                self.ending = Some(ending.clone());
            }
            Fact::UndoStarted => self.stock = StockTrack::Undoing,
            Fact::StockUndone => self.undone(),
            Fact::ReversalStarted => self.payment = PaymentTrack::Reversing,
            Fact::PaymentReversed { outcome } => {
                self.payment = match outcome {
                    Reversal::Voided => PaymentTrack::Voided,
                    Reversal::Refunded => PaymentTrack::Refunded,
                    Reversal::Declined => PaymentTrack::Declined,
                    Reversal::AuthorizationExpired => PaymentTrack::AuthorizationExpired,
                }
            }
            Fact::AttentionNeeded { reason } => {
                self.status = Status::NeedsAttention;
                self.payment = PaymentTrack::Unknown;
                self.attention = Some(reason.clone());
            }
            Fact::CompensationResumed => {
                self.status = Status::Compensating;
                self.attention = None;
            }
            Fact::Ended => self.status = self.ending.as_ref().map_or(Status::Cancelled, |e| e.status),
            Fact::StockBackordered { done, .. } => self.leg_waits(usize::from(*done)),
            Fact::BackorderServed { done, .. } => self.leg_served(usize::from(*done), event.at_ms),
            Fact::Fulfilled { items, tracking } => self.fulfilled(items, tracking.as_deref(), event.at_ms),
            Fact::Returned { items, refund, .. } => self.returned(items, refund.amount(), event.at_ms),
            Fact::ReturnRestocked { return_id } => self.change_return(return_id, |back| back.restocked = true),
            Fact::ReturnRefunded { return_id } => self.refund_becomes(return_id, Refund::Succeeded),
            Fact::RefundDeclined { return_id, reason } => {
                self.refund_becomes(return_id, Refund::Declined);
                self.attention = Some(reason.clone());
            }
            Fact::RefundUnresolved { return_id, reason } => {
                self.refund_becomes(return_id, Refund::Unresolved);
                self.attention = Some(reason.clone());
            }
            Fact::RefundRetried { return_id } => self.retry_refund(return_id),
        }
    }

    /// Where this order may go from here: its status's row of the table, without what is not open
    /// to this order. What has shipped is never compensated; what has not cannot come back.
    pub fn next(&self) -> Vec<Status> {
        let shipped = self.shipping.has_begun();
        let open = |next: &Status| self.status != Status::NeedsAttention || shipped != (*next == Status::Compensating);
        self.status.allowed().iter().copied().filter(open).collect()
    }

    /// The chain over every SKU, from its first.
    pub(super) fn route(&self, order_id: &str) -> Option<(String, Route)> {
        self.route_from(order_id, 0)
    }

    /// The chain over the SKUs after the first `done`; `None` if there are no more.
    pub(super) fn route_from(&self, order_id: &str, done: u16) -> Option<(String, Route)> {
        let leg = |r: &Reservation| Leg { sku: r.sku.clone(), quantity: r.quantity };
        let legs: Vec<_> = self.reservations.iter().skip(usize::from(done)).map(leg).collect();
        let first = legs.first()?.sku.clone();
        Some((first, Route { owner: Owner::order(order_id), done, legs }))
    }

    /// The chain over every SKU that is held, waited for or committed; `None` if none is.
    pub(super) fn undo(&self, order_id: &str) -> Option<(String, Undo)> {
        let leg = |r: &Reservation| {
            let restock = match r.status {
                ReservationStatus::Held | ReservationStatus::Backordered => false,
                ReservationStatus::Committed => true,
                _ => return None,
            };
            Some(UndoLeg { sku: r.sku.clone(), quantity: r.quantity, restock })
        };
        let legs: Vec<_> = self.reservations.iter().filter_map(leg).collect();
        let first = legs.first()?.sku.clone();
        Some((first, Undo { owner: Owner::order(order_id), legs }))
    }

    fn place(&mut self, details: &Arc<Details>) {
        self.details = Some(Arc::clone(details));
        // Merged and sorted: every order takes SKUs in the same order.
        let mut merged: BTreeMap<&str, u32> = BTreeMap::new();
        for item in &details.items {
            let quantity = merged.entry(&item.sku).or_default();
            *quantity = quantity.saturating_add(item.quantity);
        }
        let status = ReservationStatus::Requested;
        let reservation = |(sku, quantity): (&str, u32)| Reservation { sku: sku.to_owned(), quantity, status };
        self.reservations = merged.into_iter().map(reservation).collect();
    }

    pub(super) fn mark_all(&mut self, status: ReservationStatus) {
        self.reservations.iter_mut().for_each(|reservation| reservation.status = status);
    }

    fn mark_commit_refused(&mut self, done: usize) {
        for (leg, reservation) in self.reservations.iter_mut().enumerate() {
            if leg < done {
                reservation.status = ReservationStatus::Committed;
            } else if leg == done {
                reservation.status = ReservationStatus::Expired;
            }
        }
    }

    fn undone(&mut self) {
        self.stock = StockTrack::Clear;
        for reservation in &mut self.reservations {
            use ReservationStatus::{Backordered, Committed, Held};
            if matches!(reservation.status, Held | Backordered | Committed) {
                reservation.status = ReservationStatus::Released;
            }
        }
    }
}
