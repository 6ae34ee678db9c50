//! The lists in which an order is found, newest first in each: all orders, those of its customer,
//! those of its status, and while goods or money come back after a return, what is under way. Only the
//! last two ever change.

use super::{Refund, State, Status};
use crate::commerce::saga::{UNDER_WAY, UNDER_WAY_AS};
use crate::entity::{Row, newest_first};

pub const ALL: &str = "all";
pub const CUSTOMER: &str = "customer";
pub const STATUS: &str = "status";

impl State {
    pub(super) fn rows(&self) -> Vec<Row> {
        let Some(details) = self.details.as_deref() else { return Vec::new() };
        let order = newest_first(details.created_at_ms);
        let mut rows = vec![
            Row::new(ALL, "", order),
            Row::new(CUSTOMER, details.customer_id.clone(), order),
            Row::new(STATUS, self.status.name(), order),
        ];
        if self.is_taking_back() {
            rows.extend([Row::new(UNDER_WAY, "", order), Row::new(UNDER_WAY_AS, self.status.name(), order)]);
        }
        rows
    }

    /// Whether a return is under way although the status does not say so.
    fn is_taking_back(&self) -> bool {
        let pending = self.shipping.returns.iter().any(|back| !back.restocked || back.refund == Refund::Pending);
        pending && self.status != Status::NeedsAttention
    }
}
