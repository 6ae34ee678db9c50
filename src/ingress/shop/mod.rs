//! The shop over HTTP: orders, payments, inventory.
//!
//! Each handler does the same four things: read the request, ask the entity, translate its
//! rejection, show its view. What an order, a payment or a stock is, [`crate::commerce`] decides.

mod history;
pub mod inventory;
pub mod lists;
pub mod orders;
pub mod parcels;
pub mod payments;
pub mod reservations;
pub mod sagas;
mod shown;
mod stream;
pub mod webhooks;

use super::{
    Api,
    problem::{FieldError, Problem},
};
use crate::{
    cluster::Builder,
    commerce::{self, Order, Payment, Reservation, Stock},
    gateway::{self, HttpGateway, PaymentGateway, Sandbox},
    outbound::{self, Trust},
    webhooks as hooks,
};
use axum::{
    Router,
    routing::{get, post, put},
};

/// Registers the shop's entities, webhooks and the sandbox payment gateway.
pub fn register(builder: Builder) -> Builder {
    register_with(builder, Sandbox)
}

/// Registers the shop's entities and webhooks with a payment gateway of one's own. The same on every node.
pub fn register_with(builder: Builder, gateway: impl PaymentGateway) -> Builder {
    register_trusting(builder, gateway, Trust::system())
}

/// The same, for webhook receivers that are certified by one of `trust`.
pub fn register_trusting(builder: Builder, gateway: impl PaymentGateway, trust: Trust) -> Builder {
    let builder = builder
        .entity::<Order>()
        .entity::<Payment>()
        .entity::<Stock>()
        .entity::<Reservation>()
        .task_handler(commerce::gateway::HANDLER, gateway::handler(gateway));
    hooks::register(builder, trust)
}

/// Registers the shop's entities and webhooks as the sections `[gateway]` and `[outbound]` of a configuration say.
///
/// # Errors
/// The first contradiction in `gateway`, or a file of `outbound` that cannot be used.
pub fn register_configured(
    builder: Builder,
    gateway: &gateway::Options,
    outbound: &outbound::Options,
) -> Result<Builder, gateway::Invalid> {
    let trust = Trust::of(outbound).map_err(|what| gateway::Invalid {
        keys: &["outbound.ca_file"],
        what,
        fix: "name a PEM file that this user can read",
    })?;
    Ok(match gateway.kind {
        gateway::Kind::Sandbox => register_trusting(builder, Sandbox, trust),
        gateway::Kind::Http => register_trusting(builder, HttpGateway::new(gateway, trust.clone())?, trust),
    })
}

pub fn routes() -> Router<Api> {
    Router::new()
        .route("/v1/orders", post(orders::place).get(lists::orders))
        .route("/v1/orders/{id}", get(orders::read))
        .route("/v1/orders/{id}/cancel", post(orders::cancel))
        .route("/v1/orders/{id}/events", get(orders::events))
        .route("/v1/orders/{id}/fulfillments", post(parcels::fulfill))
        .route("/v1/orders/{id}/returns", post(parcels::take_back))
        .route("/v1/payments", post(payments::create))
        .route("/v1/payments/{id}", get(payments::read))
        .route("/v1/payments/{id}/capture", post(payments::capture))
        .route("/v1/payments/{id}/void", post(payments::void))
        .route("/v1/payments/{id}/refunds", post(payments::refund))
        .route("/v1/inventory", get(lists::inventory))
        .route("/v1/inventory/{sku}", put(inventory::put).get(inventory::read))
        .route("/v1/inventory/{sku}/adjustments", post(inventory::adjust).get(inventory::adjustments))
        .route("/v1/reservations", post(reservations::make))
        .route("/v1/reservations/{id}", get(reservations::read))
        .route("/v1/reservations/{id}/commit", post(reservations::commit))
        .route("/v1/reservations/{id}/release", post(reservations::release))
        .route("/v1/reservations/{id}/extend", post(reservations::extend))
        .route("/admin/v1/sagas", get(sagas::sagas))
        .merge(webhooks::routes())
}

/// 422 with the fields that the entities found wrong.
fn invalid(errors: Vec<commerce::FieldError>) -> Problem {
    let errors = errors.into_iter().map(|e| FieldError { field: e.field, detail: e.detail });
    Problem::validation(errors.collect())
}
