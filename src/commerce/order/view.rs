//! An order as the API shows it.

use super::{
    Fulfillment, Item, Line, ParcelItem, PaymentTrack, Reason, Refund, ReservationStatus, Return, State, Status,
    payment_id,
    shipping::{fulfillment_id, return_id},
    suffix,
};
use crate::commerce::{Currency, Money, time::rfc3339};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderView {
    pub id: String,
    pub status: Status,
    pub payment_status: PaymentTrack,
    pub fulfillment_status: FulfillmentStatus,
    pub customer_id: String,
    pub items: Vec<Item>,
    pub currency: Currency,
    pub total: Money,
    pub reservations: Vec<ReservationView>,
    /// What was sent, oldest first.
    #[serde(default)]
    pub fulfillments: Vec<FulfillmentView>,
    /// What came back, oldest first.
    #[serde(default)]
    pub returns: Vec<ReturnView>,
    pub payment_id: String,
    pub backorder: bool,
    pub metadata: BTreeMap<String, String>,
    /// Why it was (or is about to be) rejected, cancelled or expired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Why it needs attention.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attention: Option<String>,
    pub version: u64,
    pub created_at: String,
    pub updated_at: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FulfillmentStatus {
    Unfulfilled,
    PartiallyFulfilled,
    Fulfilled,
    PartiallyReturned,
    Returned,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReservationView {
    pub id: String,
    pub sku: String,
    pub quantity: u32,
    /// `held`, `committed`, `released`, `expired` or `backordered`.
    pub status: ReservationStatus,
    /// Absent while the order waits for stock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FulfillmentView {
    pub id: String,
    pub items: Vec<ParcelItem>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracking: Option<String>,
    pub created_at: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReturnView {
    pub id: String,
    pub items: Vec<ParcelItem>,
    /// The price of its items: what is given back for them.
    pub refund: Option<Money>,
    pub refund_status: Refund,
    /// Its items are on hand again.
    pub restocked: bool,
    pub created_at: String,
}

impl OrderView {
    /// `None` for an order that was never placed.
    pub fn of(id: &str, state: &State, version: u64) -> Option<Self> {
        let details = state.details.as_deref()?;
        Some(Self {
            id: id.to_owned(),
            status: state.status,
            payment_status: state.payment,
            fulfillment_status: FulfillmentStatus::of(state),
            customer_id: details.customer_id.clone(),
            items: details.items.clone(),
            currency: details.total.currency(),
            total: details.total,
            reservations: reservations(id, state, state.held_until_ms()),
            fulfillments: numbered(&state.shipping.fulfillments, |at, parcel| {
                FulfillmentView::of(id, at, parcel, state)
            }),
            returns: numbered(&state.shipping.returns, |at, back| ReturnView::of(id, at, back, state)),
            payment_id: payment_id(id),
            backorder: details.backorder,
            metadata: details.metadata.clone(),
            reason: state.ending.as_ref().map(|ending| ending.reason.clone()),
            attention: state.attention.clone(),
            version,
            created_at: rfc3339(details.created_at_ms),
            updated_at: rfc3339(state.updated_at_ms),
        })
    }

    /// Nothing happens to it any more by itself: `Prefer: wait` may stop waiting.
    pub fn is_settled(&self) -> bool {
        self.status.is_settled() && self.payment_status != PaymentTrack::Refunding
    }
}

impl FulfillmentStatus {
    /// By what was sent and came back, whatever else needs attention.
    fn of(state: &State) -> Self {
        let any = |left: Vec<u32>| left.iter().any(|left| *left > 0);
        match (state.shipping.has_begun(), state.shipping.returns.is_empty()) {
            (false, _) => Self::Unfulfilled,
            (true, _) if any(state.left_to_fulfill()) => Self::PartiallyFulfilled,
            (true, true) => Self::Fulfilled,
            (true, false) if any(state.left_to_return()) => Self::PartiallyReturned,
            (true, false) => Self::Returned,
        }
    }
}

impl FulfillmentView {
    fn of(order_id: &str, at: usize, parcel: &Fulfillment, state: &State) -> Self {
        Self {
            id: fulfillment_id(order_id, at),
            items: items(&parcel.lines, state),
            tracking: parcel.tracking.clone(),
            created_at: rfc3339(parcel.at_ms),
        }
    }
}

impl ReturnView {
    fn of(order_id: &str, at: usize, back: &Return, state: &State) -> Self {
        let currency = state.details.as_ref().map(|details| details.total.currency());
        Self {
            id: return_id(order_id, at),
            items: items(&back.lines, state),
            refund: currency.and_then(|currency| Money::new(back.amount, currency).ok()),
            refund_status: back.refund,
            restocked: back.restocked,
            created_at: rfc3339(back.at_ms),
        }
    }
}

fn numbered<T, V>(all: &[T], view: impl Fn(usize, &T) -> V) -> Vec<V> {
    all.iter().enumerate().map(|(at, one)| view(at, one)).collect()
}

fn items(lines: &[Line], state: &State) -> Vec<ParcelItem> {
    let item = |line: &Line| {
        let sku = state.reservations.get(usize::from(line.leg))?.sku.clone();
        Some(ParcelItem { sku, quantity: i64::from(line.quantity) })
    };
    lines.iter().filter_map(item).collect()
}

/// Those that were granted; a reservation that is only asked for does not exist yet.
fn reservations(order_id: &str, state: &State, until_ms: Option<u64>) -> Vec<ReservationView> {
    let granted = state.reservations.iter().enumerate();
    let granted = granted.filter(|(_, reservation)| reservation.status != ReservationStatus::Requested);
    let view = |(at, reservation): (usize, &super::Reservation)| ReservationView {
        id: format!("res_{}_{}", suffix(order_id), at + 1),
        sku: reservation.sku.clone(),
        quantity: reservation.quantity,
        status: reservation.status,
        expires_at: until_ms.map(rfc3339),
    };
    granted.map(view).collect()
}
