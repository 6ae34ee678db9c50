//! An order as the API shows it.

use super::{Item, PaymentTrack, Reason, ReservationStatus, State, Status, payment_id, suffix};
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

impl OrderView {
    /// `None` for an order that was never placed.
    pub fn of(id: &str, state: &State, version: u64) -> Option<Self> {
        let details = state.details.as_deref()?;
        Some(Self {
            id: id.to_owned(),
            status: state.status,
            payment_status: state.payment,
            fulfillment_status: FulfillmentStatus::of(state.status),
            customer_id: details.customer_id.clone(),
            items: details.items.clone(),
            currency: details.total.currency(),
            total: details.total,
            reservations: reservations(id, state, state.held_until_ms()),
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
}

impl FulfillmentStatus {
    fn of(status: Status) -> Self {
        match status {
            Status::PartiallyFulfilled => Self::PartiallyFulfilled,
            Status::Fulfilled => Self::Fulfilled,
            Status::PartiallyReturned => Self::PartiallyReturned,
            Status::Returned => Self::Returned,
            _ => Self::Unfulfilled,
        }
    }
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
