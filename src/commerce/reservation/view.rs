//! A reservation as the API shows it.

use super::{State, Status};
use crate::commerce::{order::Reason, stock::Leg, time::rfc3339};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReservationView {
    pub id: String,
    pub status: Status,
    /// One per SKU, sorted by SKU.
    pub items: Vec<Leg>,
    /// Absent until it is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// Why it was rejected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    pub version: u64,
    pub created_at: String,
    pub updated_at: String,
}

impl ReservationView {
    /// `None` for a reservation that was never asked for.
    pub fn of(id: &str, state: &State, version: u64) -> Option<Self> {
        state.exists().then(|| Self {
            id: id.to_owned(),
            status: state.status,
            items: state.items.clone(),
            expires_at: state.until_ms.map(rfc3339),
            reason: state.reason(),
            version,
            created_at: rfc3339(state.created_at_ms),
            updated_at: rfc3339(state.updated_at_ms),
        })
    }
}
