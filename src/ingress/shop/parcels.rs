//! `/v1/orders/{id}/fulfillments` and `/returns`: what was sent to a customer, and what came back.

use super::{invalid, orders::write};
use crate::{
    commerce::{FulfillOrder, ReturnOrder},
    ingress::{
        Api,
        conditions::Conditions,
        extract::{OptionalJson, Params, entity_id},
        openapi::{self, ProblemResponse, SettleHeaders},
        problem::Problem,
    },
};
use axum::{
    extract::{Path, State},
    http::{HeaderMap, StatusCode, Uri},
    response::Response,
};

/// Say what was sent to the customer: a part of what was ordered, or all that is left.
///
/// Only of a confirmed order. Units of one SKU on several lines are one.
#[utoipa::path(
    post, operation_id = "fulfill_order", path = "/v1/orders/{id}/fulfillments", tag = "orders",
    params(("id" = String, Path), SettleHeaders),
    request_body(
        content = Option<openapi::FulfillOrder>,
        example = json!({"items": [{"sku": "mug-blue", "quantity": 1}], "tracking": "1Z999AA10123456784"}),
    ),
    responses(
        (status = 200, description = "The order, `partially_fulfilled` or `fulfilled`", body = openapi::Order, headers(
            ("etag" = String, description = "Its version"),
            ("idempotent-replayed" = Option<String>, description = "`true` when this is the first answer again"),
        )),
        (status = 409, response = ProblemResponse),
    )
)]
pub async fn fulfill(
    State(api): State<Api>,
    Path(id): Path<String>,
    uri: Uri,
    request: HeaderMap,
    conditions: Conditions,
    OptionalJson(body): OptionalJson<FulfillOrder>,
) -> Result<Response, Problem> {
    Params::none(&uri)?;
    let id = entity_id("order", id)?;
    let command = body.value.validate().map_err(invalid)?;
    let written = write(&api, &id, command, &conditions, &body.bytes).await?;
    Ok(written.respond(&api, StatusCode::OK, &request).await)
}

/// Say what came back: it is restocked, and its price refunded.
///
/// Only of an order that was fulfilled. With `Prefer: wait=5`, answers once the refund is made, or
/// after 5 s as it is then. A refund that the gateway refuses leaves the order `needs_attention`;
/// cancelling it tries again.
#[utoipa::path(
    post, operation_id = "return_order", path = "/v1/orders/{id}/returns", tag = "orders",
    params(("id" = String, Path), SettleHeaders),
    request_body(
        content = Option<openapi::ReturnOrder>,
        example = json!({"items": [{"sku": "mug-blue", "quantity": 1}], "reason": "chipped"}),
    ),
    responses(
        (status = 200, description = "The order, `partially_returned` or `returned`", body = openapi::Order, headers(
            ("etag" = String, description = "Its version"),
            ("idempotent-replayed" = Option<String>, description = "`true` when this is the first answer again"),
            ("preference-applied" = Option<String>, description = "The wait that was applied"),
        )),
        (status = 409, response = ProblemResponse),
    )
)]
pub async fn take_back(
    State(api): State<Api>,
    Path(id): Path<String>,
    uri: Uri,
    request: HeaderMap,
    conditions: Conditions,
    OptionalJson(body): OptionalJson<ReturnOrder>,
) -> Result<Response, Problem> {
    Params::none(&uri)?;
    let id = entity_id("order", id)?;
    let command = body.value.validate().map_err(invalid)?;
    let written = write(&api, &id, command, &conditions, &body.bytes).await?;
    Ok(written.respond(&api, StatusCode::OK, &request).await)
}
