//! The body of `POST /v1/orders`, and what is left of it once it is checked.

use super::{Command, Details};
use crate::commerce::{
    Currency, Money,
    fields::{Checks, FieldError, PAYMENT_METHOD_CHARS_MAX},
    money::AMOUNT_MAX,
    stock::SKU_BYTES_MAX,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub const LINES_MAX: usize = 100;
/// The most units on one line.
pub const QUANTITY_MAX: i64 = 1_000_000;
const CANCEL_REASON_CHARS_MAX: usize = 500;
/// The longest customer id, in characters.
pub const CUSTOMER_ID_CHARS_MAX: usize = 128;
/// How long stock is held for an order that is not paid, in milliseconds.
pub const RESERVATION_TTL_MS: u64 = 15 * 60 * 1000;

/// Body of `POST /v1/orders`. Numbers are signed so that a negative one is a named error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlaceOrder {
    pub customer_id: String,
    pub items: Vec<PlaceItem>,
    /// ISO 4217.
    pub currency: String,
    pub payment_method: String,
    #[serde(default)]
    pub backorder: bool,
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlaceItem {
    pub sku: String,
    pub quantity: i64,
    /// Minor units of the order's currency.
    pub unit_price: i64,
}

/// Body of `POST /v1/orders/{id}/cancel`; it may be empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CancelOrder {
    #[serde(default)]
    pub reason: Option<String>,
}

/// A checked order, ready to be placed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewOrder {
    pub customer_id: String,
    pub items: Vec<Item>,
    pub currency: Currency,
    pub payment_method: String,
    pub backorder: bool,
    pub metadata: BTreeMap<String, String>,
    /// How long its stock is held, in milliseconds; [`RESERVATION_TTL_MS`] unless changed.
    pub reservation_ttl_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    pub sku: String,
    pub quantity: u32,
    /// Minor units of the order's currency.
    pub unit_price: i64,
}

impl PlaceOrder {
    /// Names every wrong field at once.
    pub fn validate(self) -> Result<NewOrder, Vec<FieldError>> {
        let mut checks = Checks::default();
        checks.text("customer_id", &self.customer_id, CUSTOMER_ID_CHARS_MAX);
        checks.text("payment_method", &self.payment_method, PAYMENT_METHOD_CHARS_MAX);
        let currency = self.currency.parse::<Currency>();
        if let Err(unknown) = &currency {
            checks.wrong("currency", unknown.to_string());
        }
        let items = check_items(&mut checks, self.items);
        if let Err(too_much) = total_units(&items) {
            checks.wrong("items", too_much);
        }
        checks.metadata(&self.metadata);
        let Ok(currency) = currency else {
            return checks.finish(()).and(Err(Vec::new()));
        };
        checks.finish(NewOrder {
            customer_id: self.customer_id,
            items,
            currency,
            payment_method: self.payment_method,
            backorder: self.backorder,
            metadata: self.metadata,
            reservation_ttl_ms: RESERVATION_TTL_MS,
        })
    }
}

impl CancelOrder {
    pub fn validate(self) -> Result<Command, Vec<FieldError>> {
        let mut checks = Checks::default();
        let reason = self.reason.unwrap_or_else(|| "requested".to_owned());
        checks.text("reason", &reason, CANCEL_REASON_CHARS_MAX);
        checks.finish(Command::Cancel { reason })
    }
}

impl NewOrder {
    /// The order's details if placed now. Checks again what the entity relies on, because a
    /// command need not come from [`PlaceOrder::validate`].
    pub(super) fn into_details(self, now_ms: u64) -> Result<Details, String> {
        if self.items.is_empty() || self.items.len() > LINES_MAX {
            return Err(format!("an order has 1 to {LINES_MAX} lines"));
        }
        let sound = |item: &Item| item.quantity > 0 && i64::from(item.quantity) <= QUANTITY_MAX;
        if !self.items.iter().all(|item| sound(item) && item.unit_price >= 0) {
            return Err("a quantity or price is out of range".to_owned());
        }
        let total = Money::new(total_units(&self.items)?, self.currency).map_err(|e| e.to_string())?;
        Ok(Details {
            customer_id: self.customer_id,
            items: self.items,
            total,
            payment_method: self.payment_method,
            backorder: self.backorder,
            metadata: self.metadata,
            created_at_ms: now_ms,
            reserved_until_ms: now_ms.saturating_add(self.reservation_ttl_ms),
        })
    }
}

fn check_items(checks: &mut Checks, items: Vec<PlaceItem>) -> Vec<Item> {
    if items.is_empty() || items.len() > LINES_MAX {
        checks.wrong("items", format!("must have 1 to {LINES_MAX} lines, has {}", items.len()));
    }
    let item = |(at, item): (usize, PlaceItem)| {
        checks.id(format!("items[{at}].sku"), &item.sku, SKU_BYTES_MAX);
        let quantity = checks.range(format!("items[{at}].quantity"), item.quantity, 1, QUANTITY_MAX);
        let unit_price = checks.range(format!("items[{at}].unit_price"), item.unit_price, 0, AMOUNT_MAX);
        Item { sku: item.sku, quantity: quantity as u32, unit_price }
    };
    // A body with far too many lines is not worth an error for each of them.
    items.into_iter().take(LINES_MAX).enumerate().map(item).collect()
}

/// The total in minor units.
fn total_units(items: &[Item]) -> Result<i64, String> {
    let add = |sum: i64, item: &Item| {
        let line = item.unit_price.checked_mul(i64::from(item.quantity))?;
        sum.checked_add(line).filter(|sum| *sum <= AMOUNT_MAX)
    };
    items.iter().try_fold(0, add).ok_or_else(|| format!("the total must be at most {AMOUNT_MAX} minor units"))
}
