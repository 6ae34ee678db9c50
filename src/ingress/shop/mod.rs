//! The shop over HTTP: orders, payments, inventory.
//!
//! Each handler does the same four things: read the request, ask the entity, translate its
//! rejection, show its view. What an order, a payment or a stock is, [`crate::commerce`] decides.

mod gateway;
mod history;
pub mod inventory;
pub mod orders;
pub mod payments;
pub mod reservations;

use super::{
    Api,
    problem::{FieldError, Problem},
};
use crate::{
    cluster::Builder,
    commerce::{self, Order, Payment, Reservation, Stock},
};
use axum::{
    Router,
    routing::{get, post, put},
};

/// Registers the shop's entities and the sandbox payment gateway.
pub fn register(builder: Builder) -> Builder {
    builder
        .entity::<Order>()
        .entity::<Payment>()
        .entity::<Stock>()
        .entity::<Reservation>()
        .task_handler(commerce::gateway::HANDLER, gateway::sandbox)
}

pub fn routes() -> Router<Api> {
    Router::new()
        .route("/v1/orders", post(orders::place))
        .route("/v1/orders/{id}", get(orders::read))
        .route("/v1/orders/{id}/cancel", post(orders::cancel))
        .route("/v1/orders/{id}/events", get(orders::events))
        .route("/v1/payments/{id}", get(payments::read))
        .route("/v1/inventory/{sku}", put(inventory::put).get(inventory::read))
        .route("/v1/inventory/{sku}/adjustments", post(inventory::adjust).get(inventory::adjustments))
        .route("/v1/reservations", post(reservations::make))
        .route("/v1/reservations/{id}", get(reservations::read))
        .route("/v1/reservations/{id}/commit", post(reservations::commit))
        .route("/v1/reservations/{id}/release", post(reservations::release))
        .route("/v1/reservations/{id}/extend", post(reservations::extend))
}

/// 422 with the fields that the entities found wrong.
fn invalid(errors: Vec<commerce::FieldError>) -> Problem {
    let errors = errors.into_iter().map(|e| FieldError { field: e.field, detail: e.detail });
    Problem::validation(errors.collect())
}
