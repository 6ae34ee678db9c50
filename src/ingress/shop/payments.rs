//! `/v1/payments`.
//!
//! A payment of its own is created here and captured, voided and refunded by its clients. One that
//! belongs to an order can be read, and everything else is the order's to do.

use super::{
    invalid,
    shown::{self, Written, add_location},
};
use crate::{
    commerce::{
        CreatePayment, Payment,
        payment::{Action, Ask, Command, PartOfPayment, Rejection, Reply, VoidPayment},
    },
    ingress::{
        Api,
        conditions::Conditions,
        extract::{Json, OptionalJson, Params, entity_id},
        identity,
        openapi::{self, ConsistencyParam, CreatePaymentHeaders, PaymentHeaders, ProblemResponse},
        problem::{Code, Problem},
    },
};
use axum::{
    extract::{Path, State},
    http::{HeaderMap, StatusCode, Uri},
    response::Response,
};
use serde_json::json;

const ROUTE: &str = "/v1/payments";

/// Create a payment: its amount is held on the card, and taken at once if `capture` says so.
///
/// Answers once the payment is durable on a quorum; with `Prefer: wait=5`, once the gateway has
/// answered, or after 5 s as it is then.
#[utoipa::path(
    post, operation_id = "create_payment", path = "/v1/payments", tag = "payments",
    params(CreatePaymentHeaders),
    request_body = openapi::CreatePayment,
    responses(
        (status = 201, description = "The payment", body = openapi::Payment, headers(
            ("location" = String, description = "Path of the payment"),
            ("etag" = String, description = "Its version"),
            ("idempotent-replayed" = Option<String>, description = "`true` when this is the first answer again"),
            ("preference-applied" = Option<String>, description = "The wait that was applied"),
        )),
        (status = 409, response = ProblemResponse),
    )
)]
pub async fn create(
    State(api): State<Api>,
    uri: Uri,
    request: HeaderMap,
    conditions: Conditions,
    body: Json<CreatePayment>,
) -> Result<Response, Problem> {
    Params::none(&uri)?;
    // The key names the payment, so that a retry meets the first try wherever it is sent.
    let id = identity::derived_id("pay_", ROUTE, conditions.required_key()?);
    let valid = api.cluster.config().gateway.authorization_validity;
    let valid_ms = u64::try_from(valid.as_millis()).unwrap_or(u64::MAX);
    let payment = body.value.validate(valid_ms).map_err(invalid)?;
    let written = write(&api, &id, payment, &conditions, &body.bytes).await?;
    let mut response = written.respond(&api, StatusCode::CREATED, &request).await;
    add_location(&mut response, ROUTE, &id);
    Ok(response)
}

/// A payment.
#[utoipa::path(
    get, operation_id = "read_payment", path = "/v1/payments/{id}", tag = "payments",
    params(("id" = String, Path), ConsistencyParam),
    responses(
        (status = 200, description = "The payment", body = openapi::Payment),
        (status = 304, description = "The client has this version"),
    )
)]
pub async fn read(
    State(api): State<Api>,
    Path(id): Path<String>,
    uri: Uri,
    request: HeaderMap,
) -> Result<Response, Problem> {
    shown::read::<Payment>(&api, id, &uri, &request).await
}

/// Take what was authorized, or a part of it: the rest is let go.
#[utoipa::path(
    post, operation_id = "capture_payment", path = "/v1/payments/{id}/capture", tag = "payments",
    params(("id" = String, Path), PaymentHeaders),
    request_body(content = Option<openapi::PartOfPayment>, example = json!({"amount": {"amount": 500, "currency": "USD"}})),
    responses(
        (status = 200, description = "The payment", body = openapi::Payment),
        (status = 409, response = ProblemResponse),
    )
)]
pub async fn capture(
    State(api): State<Api>,
    Path(id): Path<String>,
    uri: Uri,
    request: HeaderMap,
    conditions: Conditions,
    OptionalJson(body): OptionalJson<PartOfPayment>,
) -> Result<Response, Problem> {
    let amount = body.value.validate().map_err(invalid)?;
    change(&api, id, &uri, &request, &conditions, Ask::Capture { amount }, &body.bytes).await
}

/// Let go of what was authorized; only before it is captured.
#[utoipa::path(
    post, operation_id = "void_payment", path = "/v1/payments/{id}/void", tag = "payments",
    params(("id" = String, Path), PaymentHeaders),
    request_body(content = Option<openapi::VoidPayment>, example = json!({})),
    responses(
        (status = 200, description = "The payment", body = openapi::Payment),
        (status = 409, response = ProblemResponse),
    )
)]
pub async fn void(
    State(api): State<Api>,
    Path(id): Path<String>,
    uri: Uri,
    request: HeaderMap,
    conditions: Conditions,
    OptionalJson(body): OptionalJson<VoidPayment>,
) -> Result<Response, Problem> {
    change(&api, id, &uri, &request, &conditions, Ask::Void, &body.bytes).await
}

/// Give back what was captured, or a part of it; several times, up to what was captured.
#[utoipa::path(
    post, operation_id = "refund_payment", path = "/v1/payments/{id}/refunds", tag = "payments",
    params(("id" = String, Path), PaymentHeaders),
    request_body(content = Option<openapi::PartOfPayment>, example = json!({"amount": {"amount": 500, "currency": "USD"}})),
    responses(
        (status = 200, description = "The payment, with the refund as the last of its list", body = openapi::Payment),
        (status = 409, response = ProblemResponse),
    )
)]
pub async fn refund(
    State(api): State<Api>,
    Path(id): Path<String>,
    uri: Uri,
    request: HeaderMap,
    conditions: Conditions,
    OptionalJson(body): OptionalJson<PartOfPayment>,
) -> Result<Response, Problem> {
    let amount = body.value.validate().map_err(invalid)?;
    change(&api, id, &uri, &request, &conditions, Ask::Refund { amount }, &body.bytes).await
}

async fn change(
    api: &Api,
    id: String,
    uri: &Uri,
    request: &HeaderMap,
    conditions: &Conditions,
    ask: Ask,
    body: &[u8],
) -> Result<Response, Problem> {
    Params::none(uri)?;
    let id = entity_id("payment", id)?;
    let written = write(api, &id, ask, conditions, body).await?;
    Ok(written.respond(api, StatusCode::OK, request).await)
}

async fn write(
    api: &Api,
    id: &str,
    ask: Ask,
    conditions: &Conditions,
    body: &[u8],
) -> Result<Written<Payment>, Problem> {
    let options = conditions.ask_options(body, &api.options);
    let asked = api.cluster.entity::<Payment>(id).ask_with(Command::Ask(ask), options).await;
    let answer = asked.map_err(|error| Problem::of_ask(error, |reason| rejected(id, &reason)))?;
    let state = match answer.reply {
        Reply::Payment(state) => Some(*state),
        Reply::Ack => None,
    };
    Ok(Written::new(id, state, answer.version, answer.replayed)?.with_receipt(answer.receipt))
}

fn rejected(id: &str, reason: &Rejection) -> Problem {
    match reason {
        Rejection::NotFound => Problem::not_found("payment", id),
        Rejection::BelongsToOrder { order_id } => {
            Problem::new(Code::PaymentBelongsToOrder, reason.to_string()).with("order_id", json!(order_id))
        }
        Rejection::IllegalTransition { action, from, allowed } => {
            let allowed: Vec<_> = allowed.iter().map(|status| status.name()).collect();
            let late = *action == Action::Capture && *from == action.needs();
            let action = if late { "capture what has run out".to_owned() } else { format!("{action} the payment") };
            Problem::illegal_transition(&action, from.name(), &allowed)
        }
        // Only when the key's record has run out: until then a replay answers.
        Rejection::AlreadyExists => {
            let detail = "a payment was created with this Idempotency-Key before, too long ago to answer it again";
            Problem::new(Code::Conflict, detail).with("reason", json!(reason.code()))
        }
        Rejection::OtherCurrency { .. } => {
            Problem::field(Code::ValidationFailed, "amount.currency", reason.to_string())
        }
        Rejection::Invalid { detail } => Problem::new(Code::ValidationFailed, detail.as_str()),
        Rejection::OtherOrder
        | Rejection::OperationInProgress { .. }
        | Rejection::ExceedsAuthorized { .. }
        | Rejection::ExceedsCaptured { .. }
        | Rejection::TooManyRefunds { .. } => {
            Problem::new(Code::Conflict, reason.to_string()).with("reason", json!(reason.code()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commerce::{Money, gateway::Operation, payment::Status};

    fn refused(reason: &Rejection) -> serde_json::Value {
        rejected("pay_1", reason).render("t")
    }

    #[test]
    fn a_refused_action_names_the_state_and_where_it_can_go() {
        let allowed = Status::Captured.allowed().to_vec();
        let body = refused(&Rejection::IllegalTransition { action: Action::Void, from: Status::Captured, allowed });
        assert_eq!((&body["status"], &body["code"]), (&json!(409), &json!("illegal-transition")));
        assert_eq!((&body["state"], &body["allowed"]), (&json!("captured"), &json!(["unknown"])));
        assert!(body["detail"].as_str().is_some_and(|detail| detail.starts_with("cannot void the payment")), "{body}");
    }

    #[test]
    fn an_orders_payment_names_its_order() {
        let body = refused(&Rejection::BelongsToOrder { order_id: "ord_1".into() });
        assert_eq!((&body["status"], &body["code"]), (&json!(409), &json!("payment-belongs-to-order")));
        assert_eq!(body["order_id"], "ord_1");
    }

    #[test]
    fn what_contradicts_the_payment_says_why() {
        let usd = |amount| Money::new(amount, "USD".parse().expect("known")).expect("in range");
        for (reason, code) in [
            (Rejection::ExceedsAuthorized { amount: usd(2), authorized: usd(1) }, "exceeds-authorized"),
            (Rejection::ExceedsCaptured { amount: usd(2), left: usd(1) }, "exceeds-captured"),
            (Rejection::TooManyRefunds { max: 100 }, "too-many-refunds"),
            (Rejection::OperationInProgress { operation: Operation::Void }, "operation-in-progress"),
        ] {
            let body = refused(&reason);
            assert_eq!((&body["code"], &body["reason"]), (&json!("conflict"), &json!(code)), "{body}");
        }
        let body = refused(&Rejection::OtherCurrency { currency: usd(1).currency() });
        assert_eq!((&body["status"], &body["errors"][0]["field"]), (&json!(422), &json!("amount.currency")));
    }
}
