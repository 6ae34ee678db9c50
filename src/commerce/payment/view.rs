//! A payment as the API shows it.

use super::{State, Status};
use crate::commerce::{Money, time::rfc3339};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentView {
    pub id: String,
    pub status: Status,
    pub order_id: String,
    /// Absent when the payment was voided before it began.
    pub amount: Option<Money>,
    pub captured: Option<Money>,
    pub refunded: Option<Money>,
    pub payment_method: String,
    /// Why it was declined, or what is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub version: u64,
    pub created_at: String,
    pub updated_at: String,
}

impl PaymentView {
    /// `None` for a payment that does not exist.
    pub fn of(id: &str, state: &State, version: u64) -> Option<Self> {
        let order_id = state.order_id.clone()?;
        let part = |units| state.amount.and_then(|amount| Money::new(units, amount.currency()).ok());
        Some(Self {
            id: id.to_owned(),
            status: state.status,
            order_id,
            amount: state.amount,
            captured: part(state.captured),
            refunded: part(state.refunded),
            payment_method: state.payment_method.clone(),
            reason: state.reason.clone(),
            version,
            created_at: rfc3339(state.created_at_ms),
            updated_at: rfc3339(state.updated_at_ms),
        })
    }
}
