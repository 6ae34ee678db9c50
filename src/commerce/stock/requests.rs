//! Request and response bodies of /v1/inventory.

use super::{Command, Levels, ON_HAND_MAX, State};
use crate::commerce::fields::{Checks, FieldError};
use serde::{Deserialize, Serialize};

/// The longest SKU, in bytes.
pub const SKU_BYTES_MAX: usize = 64;
/// The longest reason of an adjustment, in characters.
const REASON_CHARS_MAX: usize = 500;

/// Body of `PUT /v1/inventory/{sku}`. Numbers are signed so that a negative one is a named error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PutStock {
    pub on_hand: i64,
    #[serde(default)]
    pub backorder_limit: Option<i64>,
}

/// Body of `POST /v1/inventory/{sku}/adjustments`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdjustStock {
    pub delta: i64,
    pub reason: String,
}

/// A stock item as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockView {
    pub sku: String,
    pub on_hand: u64,
    pub reserved: u64,
    /// `on_hand - reserved - backordered`.
    pub available: i64,
    pub committed: u64,
    pub backordered: u64,
    pub backorder_limit: u64,
    /// Came back from customers; shown once there are any.
    #[serde(default, skip_serializing_if = "is_none")]
    pub returned: u64,
    pub version: u64,
}

impl PutStock {
    pub fn validate(self) -> Result<Command, Vec<FieldError>> {
        let mut checks = Checks::default();
        let on_hand = checks.range("on_hand", self.on_hand, 0, ON_HAND_MAX as i64);
        let limit = self.backorder_limit.unwrap_or(0);
        let limit = checks.range("backorder_limit", limit, 0, ON_HAND_MAX as i64);
        checks.finish(Command::Put { on_hand: on_hand as u64, backorder_limit: limit as u64 })
    }
}

impl AdjustStock {
    pub fn validate(self) -> Result<Command, Vec<FieldError>> {
        let mut checks = Checks::default();
        let most = ON_HAND_MAX as i64;
        if checks.range("delta", self.delta, -most, most) == 0 {
            checks.wrong("delta", "must not be 0");
        }
        checks.text("reason", &self.reason, REASON_CHARS_MAX);
        checks.finish(Command::Adjust { delta: self.delta, reason: self.reason })
    }
}

impl StockView {
    /// `None` for a SKU that was never put.
    pub fn of(sku: &str, state: &State, version: u64) -> Option<Self> {
        Self::of_levels(sku, &state.levels, version)
    }

    /// From the reply to `Put` or `Adjust`.
    pub fn of_levels(sku: &str, levels: &Levels, version: u64) -> Option<Self> {
        levels.listed.then(|| Self {
            sku: sku.to_owned(),
            on_hand: levels.on_hand,
            reserved: levels.reserved,
            available: levels.available(),
            committed: levels.committed,
            backordered: levels.backordered,
            backorder_limit: levels.backorder_limit,
            returned: levels.returned,
            version,
        })
    }
}

fn is_none(units: &u64) -> bool {
    *units == 0
}
