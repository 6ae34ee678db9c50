//! Schemas of what is under way. As in `schemas`, nothing here is ever made: the real types are in
//! `commerce::saga`.
#![allow(dead_code)]

use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct SagaFilters {
    /// Only what is this now.
    #[param(inline)]
    status: Option<SagaStatus>,
}

/// An order, or a payment or reservation of its own, that waits for a step of somebody else.
#[derive(Serialize, ToSchema)]
pub struct Saga {
    #[schema(example = "ord_6h303vaz912sekgbtnhkqjstc6")]
    id: String,
    #[schema(inline)]
    r#type: SagaType,
    #[schema(inline)]
    status: SagaStatus,
    /// It does not go on by itself.
    needs_attention: bool,
    #[schema(inline)]
    waits_for: Vec<SagaStep>,
    /// When its last step was made.
    #[schema(format = DateTime)]
    since: String,
    /// Of a payment: how often the gateway was asked, for as long as that takes, and did not say.
    attempts: Option<u32>,
    /// Why it needs attention, is on its way back, or is unknown.
    reason: Option<String>,
    version: u64,
    #[schema(format = DateTime)]
    created_at: String,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SagaType {
    Order,
    Payment,
    Reservation,
}

/// Of orders the first eight; of payments and reservations as they have it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SagaStatus {
    Pending,
    Backordered,
    Reserved,
    Authorized,
    Compensating,
    NeedsAttention,
    PartiallyReturned,
    Returned,
    Authorizing,
    Capturing,
    Captured,
    Unknown,
    Committed,
    Released,
    Expired,
    Rejected,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SagaStep {
    /// Every SKU is to be held.
    StockReservation,
    /// Stock is to come in.
    Supply,
    /// What is held is to be taken.
    StockCommit,
    /// What is held or taken is to be given back.
    StockReturn,
    /// What came back is to be on the shelf again.
    Restock,
    Authorization,
    Capture,
    Void,
    Refund,
    /// The payment is to keep no money: by a void or a refund, as it finds itself.
    Reversal,
    /// Somebody is to look at it.
    Operator,
}
