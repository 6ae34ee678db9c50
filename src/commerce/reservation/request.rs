//! Bodies of /v1/reservations, and what is left of them once they are checked.

use super::Command;
use crate::commerce::{
    fields::{Checks, FieldError},
    order::{LINES_MAX, QUANTITY_MAX},
    stock::{Leg, SKU_BYTES_MAX},
    time::duration_ms,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The shortest and the longest time that may be asked for at once, in milliseconds.
pub const TTL_MIN_MS: u64 = 1000;
pub const TTL_MAX_MS: u64 = 24 * 60 * 60 * 1000;

/// Body of `POST /v1/reservations`. Numbers are signed so that a negative one is a named error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MakeReservation {
    pub items: Vec<ReserveItem>,
    /// A duration such as `"15m"`.
    pub ttl: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReserveItem {
    pub sku: String,
    pub quantity: i64,
}

/// Body of `POST /v1/reservations/{id}/extend`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExtendReservation {
    /// A duration such as `"15m"`, from now.
    pub ttl: String,
}

/// A checked reservation, ready to be held. The same SKU may be in it several times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewReservation {
    pub items: Vec<Leg>,
    pub ttl_ms: u64,
}

impl MakeReservation {
    /// Names every wrong field at once.
    pub fn validate(self) -> Result<Command, Vec<FieldError>> {
        let mut checks = Checks::default();
        if self.items.is_empty() || self.items.len() > LINES_MAX {
            checks.wrong("items", format!("must have 1 to {LINES_MAX} lines, has {}", self.items.len()));
        }
        let item = |(at, item): (usize, ReserveItem)| {
            checks.id(format!("items[{at}].sku"), &item.sku, SKU_BYTES_MAX);
            let quantity = checks.range(format!("items[{at}].quantity"), item.quantity, 1, QUANTITY_MAX);
            Leg { sku: item.sku, quantity: quantity as u32 }
        };
        let items = self.items.into_iter().take(LINES_MAX).enumerate().map(item).collect();
        let ttl_ms = check_ttl(&mut checks, &self.ttl);
        checks.finish(Command::Hold(NewReservation { items, ttl_ms }))
    }
}

impl ExtendReservation {
    pub fn validate(self) -> Result<Command, Vec<FieldError>> {
        let mut checks = Checks::default();
        let ttl_ms = check_ttl(&mut checks, &self.ttl);
        checks.finish(Command::Extend { ttl_ms })
    }
}

impl NewReservation {
    /// One leg per SKU, sorted: everyone takes SKUs in the same order. Checks again what the
    /// entity relies on, because a command need not come from [`MakeReservation::validate`].
    pub(super) fn into_legs(self) -> Result<Vec<Leg>, String> {
        if self.items.is_empty() || self.items.len() > LINES_MAX {
            return Err(format!("a reservation has 1 to {LINES_MAX} lines"));
        }
        let mut merged: BTreeMap<String, u32> = BTreeMap::new();
        for Leg { sku, quantity } in self.items {
            if quantity == 0 || i64::from(quantity) > QUANTITY_MAX {
                return Err("a quantity is out of range".to_owned());
            }
            // At most LINES_MAX × QUANTITY_MAX.
            *merged.entry(sku).or_default() += quantity;
        }
        Ok(merged.into_iter().map(|(sku, quantity)| Leg { sku, quantity }).collect())
    }
}

fn check_ttl(checks: &mut Checks, ttl: &str) -> u64 {
    let ms = duration_ms(ttl).filter(|ms| (TTL_MIN_MS..=TTL_MAX_MS).contains(ms));
    ms.unwrap_or_else(|| {
        let shown: String = ttl.chars().take(40).collect();
        checks.wrong("ttl", format!("must be a duration from \"1s\" to \"24h\", such as \"15m\", is {shown:?}"));
        TTL_MIN_MS
    })
}
