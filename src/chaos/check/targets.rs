//! What a history is about: the entities that it made, may have made, or wrote to.

use crate::{
    chaos::{
        history::{History, Method, Operation},
        load::{Workload, skus},
    },
    ingress::identity,
};
use std::collections::{BTreeMap, BTreeSet};

const ORDERS: &str = "/v1/orders";
const PAYMENTS: &str = "/v1/payments";
const RESERVATIONS: &str = "/v1/reservations";

/// Paths, each with the attempts to make it.
#[derive(Debug, Default)]
pub struct Targets<'a> {
    pub orders: BTreeMap<String, Vec<&'a Operation>>,
    /// Payments of their own.
    pub payments: BTreeMap<String, Vec<&'a Operation>>,
    pub reservations: BTreeMap<String, Vec<&'a Operation>>,
    /// Paths of stock items that are bought and moved, not of registers.
    pub stocks: BTreeSet<String>,
    pub registers: BTreeSet<String>,
}

impl<'a> Targets<'a> {
    /// The id follows from the key, so that also what was never answered has a path.
    pub fn of(history: &'a History) -> Self {
        let mut targets = Self::default();
        for ((method, route, key), attempts) in history.by_key() {
            let path = |prefix| format!("{route}/{}", identity::derived_id(prefix, route, key));
            match (method, route) {
                (Method::Post, ORDERS) => targets.orders.insert(path("ord_"), attempts),
                (Method::Post, PAYMENTS) => targets.payments.insert(path("pay_"), attempts),
                (Method::Post, RESERVATIONS) => targets.reservations.insert(path("res_"), attempts),
                _ => None,
            };
        }
        let workloads: BTreeSet<Workload> = history.operations.iter().map(|operation| operation.workload).collect();
        for workload in workloads {
            let stocks = skus(workload).iter().map(|sku| stock(sku));
            match workload {
                Workload::Register => targets.registers.extend(stocks),
                _ => targets.stocks.extend(stocks),
            }
        }
        targets
    }
}

pub fn stock(sku: &str) -> String {
    format!("/v1/inventory/{sku}")
}

/// The payment of an order, by the order's path.
pub fn payment_of(order: &str) -> String {
    order.replace("/v1/orders/ord_", "/v1/payments/pay_")
}

/// `/v1/orders/ord_1/cancel` is about `/v1/orders/ord_1`, and asks to `cancel`.
pub fn parts(path: &str) -> (&str, &str) {
    match path.match_indices('/').nth(3) {
        Some((at, _)) => (&path[..at], &path[at + 1..]),
        None => (path, ""),
    }
}

/// Ids of these attempts.
pub fn ids(attempts: &[&Operation]) -> Vec<u64> {
    attempts.iter().map(|attempt| attempt.id).collect()
}

/// Attempts by the entity and by what they ask of it, as [`parts`] has them.
pub fn by_entity(history: &History) -> BTreeMap<(&str, &str), Vec<&Operation>> {
    let mut all: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for operation in history.operations.iter().filter(|operation| operation.is_write()) {
        all.entry(parts(&operation.request.path)).or_default().push(operation);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::check::testing::{history, posted, posted_in_vain};
    use serde_json::json;

    #[test]
    fn what_was_never_answered_has_a_path_too() {
        let id = identity::derived_id("ord_", ORDERS, "k");
        let operations = vec![
            posted_in_vain(0, ORDERS, "k", json!({})),
            posted(1, ORDERS, "k", json!({}), 201, json!({"id": id})),
            posted_in_vain(2, RESERVATIONS, "r", json!({})),
        ];
        let history = history(operations);
        let targets = Targets::of(&history);
        assert_eq!(ids(&targets.orders[&format!("{ORDERS}/{id}")]), [0, 1]);
        assert_eq!((targets.reservations.len(), targets.payments.len()), (1, 0));
        assert!(targets.stocks.contains("/v1/inventory/chaos-mug"));
    }

    #[test]
    fn paths_are_taken_apart() {
        assert_eq!(parts("/v1/orders/ord_1/cancel"), ("/v1/orders/ord_1", "cancel"));
        assert_eq!(parts("/v1/orders/ord_1"), ("/v1/orders/ord_1", ""));
        assert_eq!(parts("/v1/orders"), ("/v1/orders", ""));
        assert_eq!(payment_of("/v1/orders/ord_1"), "/v1/payments/pay_1");
    }
}
