//! Tests of the shop as a whole: a little world that delivers effects in random order, the saga's
//! behaviours by name, random command sequences per entity, and the golden fixtures.

mod backorders;
mod entities;
mod gateway;
mod golden;
mod parcels;
mod payments;
mod random_orders;
mod random_payments;
mod random_worlds;
mod regressions;
mod requests;
mod reservations;
mod saga;
mod sagas;
mod stock;
mod world;

use super::order::{NewOrder, PlaceItem, PlaceOrder};

/// A valid order of these lines at 100 minor units a piece, paid by `pm_card_ok`.
fn order_of(lines: &[(&str, i64)]) -> PlaceOrder {
    let item = |&(sku, quantity): &(&str, i64)| PlaceItem { sku: sku.into(), quantity, unit_price: 100 };
    PlaceOrder {
        customer_id: "cus_1".into(),
        items: lines.iter().map(item).collect(),
        currency: "USD".into(),
        payment_method: "pm_card_ok".into(),
        backorder: false,
        metadata: Default::default(),
    }
}

fn new_order(lines: &[(&str, i64)]) -> NewOrder {
    order_of(lines).validate().expect("a valid order")
}
