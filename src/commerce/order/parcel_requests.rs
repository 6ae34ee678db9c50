//! The bodies of `POST /v1/orders/{id}/fulfillments` and `/returns`.

use super::{Command, request::LINES_MAX, request::QUANTITY_MAX};
use crate::commerce::{
    fields::{Checks, FieldError},
    stock::{Leg, SKU_BYTES_MAX},
};
use serde::{Deserialize, Serialize};

const TRACKING_CHARS_MAX: usize = 64;
const REASON_CHARS_MAX: usize = 500;

/// Body of `POST /v1/orders/{id}/fulfillments`; it may be empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FulfillOrder {
    /// What was sent; absent: everything that is left.
    #[serde(default)]
    pub items: Option<Vec<ParcelItem>>,
    /// The carrier's name for the parcel.
    #[serde(default)]
    pub tracking: Option<String>,
}

/// Body of `POST /v1/orders/{id}/returns`; it may be empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReturnOrder {
    /// What came back; absent: everything that was sent and has not.
    #[serde(default)]
    pub items: Option<Vec<ParcelItem>>,
    #[serde(default)]
    pub reason: Option<String>,
}

/// So many units of one SKU. Numbers are signed so that a negative one is a named error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParcelItem {
    pub sku: String,
    pub quantity: i64,
}

impl FulfillOrder {
    pub fn validate(self) -> Result<Command, Vec<FieldError>> {
        let mut checks = Checks::default();
        let items = check_items(&mut checks, self.items);
        check_text(&mut checks, "tracking", self.tracking.as_deref(), TRACKING_CHARS_MAX);
        checks.finish(Command::Fulfill { items, tracking: self.tracking })
    }
}

impl ReturnOrder {
    pub fn validate(self) -> Result<Command, Vec<FieldError>> {
        let mut checks = Checks::default();
        let items = check_items(&mut checks, self.items);
        check_text(&mut checks, "reason", self.reason.as_deref(), REASON_CHARS_MAX);
        checks.finish(Command::Return { items, reason: self.reason })
    }
}

fn check_items(checks: &mut Checks, items: Option<Vec<ParcelItem>>) -> Vec<Leg> {
    let Some(items) = items else { return Vec::new() };
    if items.is_empty() || items.len() > LINES_MAX {
        let detail =
            format!("must have 1 to {LINES_MAX} lines, has {}; leave it out for all that is left", items.len());
        checks.wrong("items", detail);
    }
    let leg = |(at, item): (usize, ParcelItem)| {
        checks.id(format!("items[{at}].sku"), &item.sku, SKU_BYTES_MAX);
        let quantity = checks.range(format!("items[{at}].quantity"), item.quantity, 1, QUANTITY_MAX);
        Leg { sku: item.sku, quantity: quantity as u32 }
    };
    items.into_iter().take(LINES_MAX).enumerate().map(leg).collect()
}

fn check_text(checks: &mut Checks, field: &str, text: Option<&str>, chars_max: usize) {
    if let Some(text) = text {
        checks.text(field, text, chars_max);
    }
}
