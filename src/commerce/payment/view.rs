//! A payment as the API shows it.

use super::{Refund, RefundStatus, State, Status};
use crate::commerce::{Money, gateway::Operation, time::rfc3339};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentView {
    pub id: String,
    pub status: Status,
    /// Absent for a payment of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order_id: Option<String>,
    /// Absent when the payment was voided before it began.
    pub amount: Option<Money>,
    pub captured: Option<Money>,
    pub refunded: Option<Money>,
    pub refunds: Vec<RefundView>,
    pub payment_method: String,
    pub metadata: BTreeMap<String, String>,
    /// What the gateway has been asked for and not answered yet, refunds of the list aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_progress: Option<Operation>,
    /// Until when it may be captured, while it is authorized.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// Why it was declined, or what is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub version: u64,
    pub created_at: String,
    pub updated_at: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefundView {
    pub id: String,
    pub amount: Option<Money>,
    pub status: RefundStatus,
    /// Why it failed, or what is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub created_at: String,
}

impl PaymentView {
    /// `None` for a payment that does not exist.
    pub fn of(id: &str, state: &State, version: u64) -> Option<Self> {
        if !state.exists() {
            return None;
        }
        let part = |units| state.amount.and_then(|amount| Money::new(units, amount.currency()).ok());
        Some(Self {
            id: id.to_owned(),
            status: state.status,
            order_id: state.order_id.clone(),
            amount: state.amount,
            captured: part(state.captured),
            refunded: part(state.refunded),
            refunds: state.refunds.iter().map(|refund| RefundView::of(refund, part(refund.amount))).collect(),
            payment_method: state.payment_method.clone(),
            metadata: state.metadata.clone(),
            in_progress: state.in_flight.map(|in_flight| in_flight.operation),
            expires_at: state.expires_at_ms.filter(|_| state.status == Status::Authorized).map(rfc3339),
            reason: state.reason.clone(),
            version,
            created_at: rfc3339(state.created_at_ms),
            updated_at: rfc3339(state.updated_at_ms),
        })
    }

    /// The gateway owes no answer: `Prefer: wait` may stop waiting.
    pub fn is_settled(&self) -> bool {
        let pending = |refund: &RefundView| matches!(refund.status, RefundStatus::Pending | RefundStatus::Unknown);
        self.in_progress.is_none() && !self.refunds.iter().any(pending)
    }
}

impl RefundView {
    fn of(refund: &Refund, amount: Option<Money>) -> Self {
        Self {
            id: refund.id.clone(),
            amount,
            status: refund.status,
            reason: refund.reason.clone(),
            created_at: rfc3339(refund.created_at_ms),
        }
    }
}
