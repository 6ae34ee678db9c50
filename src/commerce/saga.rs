//! What is under way: an order, a payment of its own or a reservation of its own that waits for
//! somebody else's step.
//!
//! An order is found by its status; what may be under way behind a status that looks settled (goods
//! that come back, a refund) has a list of its own, [`UNDER_WAY`], as payments and reservations have.
//! The payment of an order is a step of that order, and not listed itself.

use super::{
    gateway::Operation,
    order::{self, PaymentTrack, Refund},
    payment, reservation,
    time::rfc3339,
};
use serde::{Deserialize, Serialize};

/// The list of what is under way, where the status does not tell.
pub const UNDER_WAY: &str = "under_way";
/// Those of a status, among them.
pub const UNDER_WAY_AS: &str = "under_way_as";

/// The statuses in which something can be under way.
pub const STATUSES: [&str; 16] = [
    "pending",
    "backordered",
    "reserved",
    "authorized",
    "compensating",
    "needs_attention",
    "partially_returned",
    "returned",
    "authorizing",
    "capturing",
    "captured",
    "unknown",
    "committed",
    "released",
    "expired",
    "rejected",
];

/// The step that is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
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

/// Something under way, as operators see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SagaView {
    pub id: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
    pub needs_attention: bool,
    pub waits_for: Vec<Step>,
    /// When its last step was made.
    pub since: String,
    /// Of a payment: how often the gateway was asked, for as long as that takes, and did not say.
    pub attempts: Option<u32>,
    /// Why it needs attention, is on its way back, or is unknown.
    pub reason: Option<String>,
    pub version: u64,
    pub created_at: String,
}

impl SagaView {
    /// `None` for an order that was never placed.
    pub fn of_order(id: &str, state: &order::State, version: u64) -> Option<Self> {
        let details = state.details.as_deref()?;
        let ending = || state.ending.as_ref().map(|ending| ending.reason.detail.clone());
        Some(Self {
            id: id.to_owned(),
            kind: "order".into(),
            status: state.status.name().into(),
            needs_attention: state.status == order::Status::NeedsAttention,
            waits_for: steps_of_order(state),
            since: rfc3339(state.updated_at_ms),
            attempts: None,
            reason: state.attention.clone().or_else(ending),
            version,
            created_at: rfc3339(details.created_at_ms),
        })
    }

    /// `None` for a payment that nobody asked for.
    pub fn of_payment(id: &str, state: &payment::State, version: u64) -> Option<Self> {
        let pending = || state.refunds.iter().filter(|refund| refund.is_pending());
        let rounds =
            state.in_flight.iter().map(|in_flight| in_flight.round).chain(pending().map(|refund| refund.round));
        state.exists().then(|| Self {
            id: id.to_owned(),
            kind: "payment".into(),
            status: state.status.name().into(),
            needs_attention: false,
            waits_for: steps_of_payment(state),
            since: rfc3339(state.updated_at_ms),
            attempts: rounds.max(),
            reason: state.reason.clone().or_else(|| pending().find_map(|refund| refund.reason.clone())),
            version,
            created_at: rfc3339(state.created_at_ms),
        })
    }

    /// `None` for a reservation that nobody asked for.
    pub fn of_reservation(id: &str, state: &reservation::State, version: u64) -> Option<Self> {
        state.exists().then(|| Self {
            id: id.to_owned(),
            kind: "reservation".into(),
            status: state.status.name().into(),
            needs_attention: false,
            waits_for: step_of_reservation(state).into_iter().collect(),
            since: rfc3339(state.updated_at_ms),
            attempts: None,
            reason: state.reason().map(|reason| reason.detail),
            version,
            created_at: rfc3339(state.created_at_ms),
        })
    }
}

fn steps_of_order(state: &order::State) -> Vec<Step> {
    let stock = match state.stock {
        order::StockTrack::Reserving => Some(Step::StockReservation),
        order::StockTrack::Waiting => Some(Step::Supply),
        order::StockTrack::Committing => Some(Step::StockCommit),
        order::StockTrack::Undoing => Some(Step::StockReturn),
        order::StockTrack::Held | order::StockTrack::Committed | order::StockTrack::Clear => None,
    };
    let payment = match state.payment {
        PaymentTrack::Authorizing => Some(Step::Authorization),
        PaymentTrack::Capturing => Some(Step::Capture),
        PaymentTrack::Reversing => Some(Step::Reversal),
        _ => None,
    };
    let returns = &state.shipping.returns;
    let restock = returns.iter().any(|back| !back.restocked).then_some(Step::Restock);
    let refund = returns.iter().any(|back| back.refund == Refund::Pending).then_some(Step::Refund);
    let operator = (state.status == order::Status::NeedsAttention).then_some(Step::Operator);
    [operator, stock, payment, restock, refund].into_iter().flatten().collect()
}

fn steps_of_payment(state: &payment::State) -> Vec<Step> {
    let in_flight = state.in_flight.map(|in_flight| match in_flight.operation {
        Operation::Authorize | Operation::Query => Step::Authorization,
        Operation::Capture => Step::Capture,
        Operation::Void => Step::Void,
        Operation::Refund => Step::Refund,
    });
    let refund = state.refunds.iter().any(payment::Refund::is_pending).then_some(Step::Refund);
    let mut steps: Vec<Step> = in_flight.into_iter().chain(refund).collect();
    steps.dedup();
    steps
}

fn step_of_reservation(state: &reservation::State) -> Option<Step> {
    match state.stock {
        reservation::StockTrack::Reserving => Some(Step::StockReservation),
        reservation::StockTrack::Committing => Some(Step::StockCommit),
        reservation::StockTrack::Undoing => Some(Step::StockReturn),
        reservation::StockTrack::Held | reservation::StockTrack::Committed | reservation::StockTrack::Clear => None,
    }
}
