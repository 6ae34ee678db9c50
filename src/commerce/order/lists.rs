//! The lists in which an order is found, newest first in each: all orders, those of its customer,
//! and those of its status. Only the last one ever changes.

use super::State;
use crate::entity::{Row, newest_first};

pub const ALL: &str = "all";
pub const CUSTOMER: &str = "customer";
pub const STATUS: &str = "status";

impl State {
    pub(super) fn rows(&self) -> Vec<Row> {
        let Some(details) = self.details.as_deref() else { return Vec::new() };
        let order = newest_first(details.created_at_ms);
        vec![
            Row::new(ALL, "", order),
            Row::new(CUSTOMER, details.customer_id.clone(), order),
            Row::new(STATUS, self.status.name(), order),
        ]
    }
}
