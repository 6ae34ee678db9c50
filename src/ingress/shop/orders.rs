//! `/v1/orders`.

use super::{
    history, invalid,
    shown::{self, Written, add_location},
    stream,
};
use crate::{
    commerce::{
        CancelOrder, Order, PlaceOrder,
        order::{Command, Rejection, Reply},
    },
    ingress::{
        Api, Draining,
        conditions::Conditions,
        extract::{Json, OptionalJson, Params, entity_id},
        identity,
        openapi::{self, ConsistencyParam, PageParams, PlaceHeaders, ProblemResponse, StreamHeaders, WriteHeaders},
        problem::{Code, Problem},
        reply, sse,
    },
};
use axum::{
    Extension,
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use serde_json::json;

const ROUTE: &str = "/v1/orders";
/// Place an order.
///
/// Answers once the order is durable on a quorum; with `Prefer: wait=5`, once it is settled, or
/// after 5 s as it is then.
#[utoipa::path(
    post, operation_id = "place_order", path = "/v1/orders", tag = "orders",
    params(PlaceHeaders),
    request_body = openapi::PlaceOrder,
    responses(
        (status = 201, description = "The order", body = openapi::Order, headers(
            ("location" = String, description = "Path of the order"),
            ("etag" = String, description = "Its version"),
            ("idempotent-replayed" = Option<String>, description = "`true` when this is the first answer again"),
            ("preference-applied" = Option<String>, description = "The wait that was applied"),
        )),
        (status = 409, response = ProblemResponse),
    )
)]
pub async fn place(
    State(api): State<Api>,
    uri: Uri,
    request: HeaderMap,
    conditions: Conditions,
    body: Json<PlaceOrder>,
) -> Result<Response, Problem> {
    Params::none(&uri)?;
    // The key names the order, so that a retry meets the first try wherever it is sent.
    let id = identity::derived_id("ord_", ROUTE, conditions.required_key()?);
    let order = body.value.validate().map_err(invalid)?;
    let written = write(&api, &id, Command::Place(Box::new(order)), &conditions, &body.bytes).await?;
    let mut response = written.respond(&api, StatusCode::CREATED, &request).await;
    add_location(&mut response, ROUTE, &id);
    Ok(response)
}

/// Cancel an order that has not been shipped: stock and money are given back.
///
/// Of an order that needs attention: try again what could not be finished.
#[utoipa::path(
    post, operation_id = "cancel_order", path = "/v1/orders/{id}/cancel", tag = "orders",
    params(("id" = String, Path), WriteHeaders),
    request_body(content = Option<openapi::CancelOrder>, example = json!({"reason": "changed my mind"})),
    responses(
        (status = 200, description = "The order, on its way back", body = openapi::Order),
        (status = 409, response = ProblemResponse),
    )
)]
pub async fn cancel(
    State(api): State<Api>,
    Path(id): Path<String>,
    uri: Uri,
    request: HeaderMap,
    conditions: Conditions,
    OptionalJson(body): OptionalJson<CancelOrder>,
) -> Result<Response, Problem> {
    Params::none(&uri)?;
    let id = entity_id("order", id)?;
    let command = body.value.validate().map_err(invalid)?;
    let written = write(&api, &id, command, &conditions, &body.bytes).await?;
    Ok(written.respond(&api, StatusCode::OK, &request).await)
}

/// An order.
#[utoipa::path(
    get, operation_id = "read_order", path = "/v1/orders/{id}", tag = "orders",
    params(("id" = String, Path), ConsistencyParam),
    responses(
        (status = 200, description = "The order", body = openapi::Order),
        (status = 304, description = "The client has this version"),
    )
)]
pub async fn read(
    State(api): State<Api>,
    Path(id): Path<String>,
    uri: Uri,
    request: HeaderMap,
) -> Result<Response, Problem> {
    shown::read::<Order>(&api, id, &uri, &request).await
}

/// What happened to an order, oldest first.
///
/// With `Accept: text/event-stream` as server-sent events, live: what has happened, then what
/// happens, each with its id, its type and the JSON of a page's entry. `Last-Event-ID` (or
/// `starting_after`) resumes after an event, through any node. A stream has no `limit` and no
/// `consistency`: it misses nothing and shows only what is durable on a quorum.
#[utoipa::path(
    get, operation_id = "list_order_events", path = "/v1/orders/{id}/events", tag = "orders",
    params(("id" = String, Path), PageParams, ConsistencyParam, StreamHeaders),
    responses(
        (status = 200, description = "A page of its history, or all of it as it happens", content(
            (openapi::List<openapi::Event> = "application/json"),
            (openapi::StreamedEvent = "text/event-stream", example = json!("id: evt_6h303vaz912sekgbtnhkqjstc6_2\nevent: stock_reserved\ndata: {}\n\n")),
        )),
    )
)]
pub async fn events(
    State(api): State<Api>,
    Path(id): Path<String>,
    uri: Uri,
    request: HeaderMap,
    draining: Option<Extension<Draining>>,
) -> Result<Response, Problem> {
    let vary = [(header::VARY, HeaderValue::from_static("accept"))];
    if sse::is_wanted(&request) {
        let opened = stream::open(&api, id, &uri, &request, draining.map(|Extension(draining)| draining)).await?;
        return Ok((vary, opened).into_response());
    }
    let page = page_of_events(&api, id, &uri).await?;
    Ok((vary, axum::Json(page)).into_response())
}

async fn page_of_events(api: &Api, id: String, uri: &Uri) -> Result<history::Page, Problem> {
    let mut params = Params::of(uri)?;
    let consistency = reply::consistency(&mut params)?;
    let asked = history::Asked::of(&mut params, &id)?;
    params.finish()?;
    let id = entity_id("order", id)?;
    let order = api.cluster.entity::<Order>(id.as_str());
    let found = order.history(asked.after, asked.limit + 1, consistency).await?;
    // An empty page of an order is not the same as no order.
    if found.is_empty() && (asked.after == 0 || order.state(consistency).await?.version == 0) {
        return Err(Problem::not_found("order", &id));
    }
    let events = found.into_iter().map(|recorded| (recorded.sequence, recorded.at_ms, recorded.event.fact));
    asked.page(&id, events)
}

pub(super) async fn write(
    api: &Api,
    id: &str,
    command: Command,
    conditions: &Conditions,
    body: &[u8],
) -> Result<Written<Order>, Problem> {
    let options = conditions.ask_options(body, &api.options);
    let asked = api.cluster.entity::<Order>(id).ask_with(command, options).await;
    let answer = asked.map_err(|error| Problem::of_ask(error, |reason| rejected(id, &reason)))?;
    let state = match answer.reply {
        Reply::Order(state) => Some(*state),
        Reply::Ack => None,
    };
    Ok(Written::new(id, state, answer.version, answer.replayed)?.with_receipt(answer.receipt))
}

fn rejected(id: &str, reason: &Rejection) -> Problem {
    match reason {
        Rejection::NotFound => Problem::not_found("order", id),
        // Only when the key's record has run out: until then a replay answers.
        Rejection::AlreadyExists => {
            let detail = "an order was placed with this Idempotency-Key before, too long ago to answer it again";
            Problem::new(Code::Conflict, detail).with("order_id", json!(id))
        }
        Rejection::IllegalTransition { from, to, allowed } => {
            let allowed: Vec<_> = allowed.iter().map(|status| status.name()).collect();
            Problem::illegal_transition(&format!("become {to}"), from.name(), &allowed)
        }
        Rejection::Invalid { detail } => Problem::new(Code::ValidationFailed, detail.as_str()),
        Rejection::NotInOrder { .. } => Problem::field(Code::ValidationFailed, "items", reason.to_string()),
        Rejection::MoreThanLeft { sku, left, .. } => conflict(reason).with("sku", json!(sku)).with("left", json!(left)),
        Rejection::TooManyFulfillments { .. } | Rejection::TooManyReturns { .. } => conflict(reason),
    }
}

fn conflict(reason: &Rejection) -> Problem {
    Problem::new(Code::Conflict, reason.to_string()).with("reason", json!(reason.code()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commerce::order::Status;

    #[test]
    fn a_refused_transition_names_the_state_and_where_it_can_go() {
        let allowed = Status::Fulfilled.allowed().to_vec();
        let reason = Rejection::IllegalTransition { from: Status::Fulfilled, to: Status::Cancelled, allowed };
        let body = rejected("ord_1", &reason).render("t");
        assert_eq!((&body["status"], &body["code"]), (&json!(409), &json!("illegal-transition")));
        assert_eq!(
            (&body["state"], &body["allowed"]),
            (&json!("fulfilled"), &json!(["partially_returned", "returned"]))
        );
        assert!(body["detail"].as_str().is_some_and(|detail| detail.contains("fulfilled")));
    }
}
