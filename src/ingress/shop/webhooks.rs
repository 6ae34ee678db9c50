//! `/v1/webhook_endpoints`.
//!
//! A change is answered once the nodes know it, so that what happens after the answer is told as
//! it says. All endpoints are one entity: conditions on one of them go with the command.

use super::invalid;
use crate::{
    cluster::{Answer, Receipt},
    ingress::{
        Api,
        conditions::Conditions,
        extract::{Json, Nothing, OptionalJson, Params, entity_id},
        headers::APPLIED_INDEX,
        identity::random_id,
        openapi::{self, ConsistencyParam, ProblemResponse, WriteHeaders},
        problem::{Code, Problem},
        reply::{self, Read},
        shop::shown::add_location,
    },
    webhooks::{
        ALL, CreateEndpoint, Endpoint, EndpointView, Endpoints, RotateSecret, UpdateEndpoint, copy,
        endpoints::{Command, Rejection, Reply, What},
        secret::Secret,
    },
};
use axum::{
    Router,
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::json;

const NAMED: &str = "webhook endpoint";
const ROUTE: &str = "/v1/webhook_endpoints";

pub fn routes() -> Router<Api> {
    Router::new()
        .route(ROUTE, post(create).get(list))
        .route("/v1/webhook_endpoints/{id}", get(read).post(update).delete(delete))
        .route("/v1/webhook_endpoints/{id}/rotate-secret", post(rotate_secret))
}

/// Register an endpoint, which is told what happens from now on.
///
/// The answer has its secret, and no later one has.
#[utoipa::path(
    post, operation_id = "create_webhook_endpoint", path = "/v1/webhook_endpoints", tag = "webhooks",
    params(WriteHeaders), request_body = openapi::CreateWebhookEndpoint,
    responses(
        (status = 201, description = "The endpoint, with its secret", body = openapi::WebhookEndpoint),
        (status = 400, response = ProblemResponse), (status = 409, response = ProblemResponse),
        (status = 412, response = ProblemResponse), (status = 413, response = ProblemResponse),
        (status = 415, response = ProblemResponse), (status = 422, response = ProblemResponse),
        (status = 429, response = ProblemResponse), (status = 503, response = ProblemResponse),
        (status = 504, response = ProblemResponse),
    )
)]
pub async fn create(
    State(api): State<Api>,
    uri: Uri,
    conditions: Conditions,
    body: Json<CreateEndpoint>,
) -> Result<Response, Problem> {
    let settings = body.value.validate().map_err(invalid)?;
    let what = What::Create { settings, secret: Secret::random() };
    let changed = change(&api, random_id("we_"), &uri, what, &conditions, &body.bytes).await?;
    let mut response = changed.written(StatusCode::CREATED, EndpointView::with_secret);
    add_location(&mut response, ROUTE, &changed.endpoint.id);
    Ok(response)
}

/// Change an endpoint, disable or enable it.
///
/// What is left out stays. A disabled endpoint is told nothing, and what happens meanwhile is not
/// told later.
#[utoipa::path(
    post, operation_id = "update_webhook_endpoint", path = "/v1/webhook_endpoints/{id}", tag = "webhooks",
    params(("id" = String, Path), WriteHeaders), request_body = openapi::UpdateWebhookEndpoint,
    responses(
        (status = 200, description = "The endpoint after it", body = openapi::WebhookEndpoint),
        (status = 400, response = ProblemResponse), (status = 404, response = ProblemResponse),
        (status = 412, response = ProblemResponse), (status = 413, response = ProblemResponse),
        (status = 415, response = ProblemResponse), (status = 422, response = ProblemResponse),
        (status = 429, response = ProblemResponse), (status = 503, response = ProblemResponse),
        (status = 504, response = ProblemResponse),
    )
)]
pub async fn update(
    State(api): State<Api>,
    Path(id): Path<String>,
    uri: Uri,
    conditions: Conditions,
    body: Json<UpdateEndpoint>,
) -> Result<Response, Problem> {
    let what = What::Update(body.value.validate().map_err(invalid)?);
    let changed = change(&api, entity_id(NAMED, id)?, &uri, what, &conditions, &body.bytes).await?;
    Ok(changed.written(StatusCode::OK, EndpointView::of))
}

/// Give an endpoint a new secret.
///
/// The old one signs beside it for the time of grace, so that receivers can change over.
#[utoipa::path(
    post, operation_id = "rotate_webhook_secret", path = "/v1/webhook_endpoints/{id}/rotate-secret", tag = "webhooks",
    params(("id" = String, Path), WriteHeaders), request_body = openapi::RotateWebhookSecret,
    responses(
        (status = 200, description = "The endpoint, with its new secret", body = openapi::WebhookEndpoint),
        (status = 400, response = ProblemResponse), (status = 404, response = ProblemResponse),
        (status = 409, response = ProblemResponse), (status = 412, response = ProblemResponse),
        (status = 413, response = ProblemResponse), (status = 415, response = ProblemResponse),
        (status = 422, response = ProblemResponse), (status = 429, response = ProblemResponse),
        (status = 503, response = ProblemResponse), (status = 504, response = ProblemResponse),
    )
)]
pub async fn rotate_secret(
    State(api): State<Api>,
    Path(id): Path<String>,
    uri: Uri,
    conditions: Conditions,
    OptionalJson(body): OptionalJson<RotateSecret>,
) -> Result<Response, Problem> {
    let grace_ms = body.value.validate().map_err(invalid)?;
    let what = What::RotateSecret { secret: Secret::random(), grace_ms };
    let changed = change(&api, entity_id(NAMED, id)?, &uri, what, &conditions, &body.bytes).await?;
    Ok(changed.written(StatusCode::OK, EndpointView::with_secret))
}

/// Delete an endpoint. It is told nothing more.
#[utoipa::path(
    delete, operation_id = "delete_webhook_endpoint", path = "/v1/webhook_endpoints/{id}", tag = "webhooks",
    params(("id" = String, Path), WriteHeaders),
    responses(
        (status = 200, description = "It is gone", body = openapi::DeletedWebhookEndpoint),
        (status = 400, response = ProblemResponse), (status = 404, response = ProblemResponse),
        (status = 412, response = ProblemResponse), (status = 413, response = ProblemResponse),
        (status = 415, response = ProblemResponse), (status = 422, response = ProblemResponse),
        (status = 429, response = ProblemResponse), (status = 503, response = ProblemResponse),
        (status = 504, response = ProblemResponse),
    )
)]
pub async fn delete(
    State(api): State<Api>,
    Path(id): Path<String>,
    uri: Uri,
    conditions: Conditions,
    OptionalJson(body): OptionalJson<Nothing>,
) -> Result<Response, Problem> {
    let id = entity_id(NAMED, id)?;
    let answer = write(&api, &id, &uri, What::Delete, &conditions, &body.bytes).await?;
    let mut response = axum::Json(json!({"id": id, "deleted": true})).into_response();
    if answer.replayed {
        reply::mark_replayed(&mut response);
    }
    Ok(reply::with_receipt(response, answer.receipt))
}

/// An endpoint, without its secret.
#[utoipa::path(
    get, operation_id = "read_webhook_endpoint", path = "/v1/webhook_endpoints/{id}", tag = "webhooks",
    params(("id" = String, Path), ConsistencyParam),
    responses(
        (status = 200, description = "The endpoint", body = openapi::WebhookEndpoint),
        (status = 304, description = "The client has this version"),
        (status = 400, response = ProblemResponse), (status = 404, response = ProblemResponse),
        (status = 429, response = ProblemResponse), (status = 503, response = ProblemResponse),
    )
)]
pub async fn read(
    State(api): State<Api>,
    Path(id): Path<String>,
    uri: Uri,
    request: HeaderMap,
) -> Result<Response, Problem> {
    let consistency = only_consistency(&uri)?;
    let id = entity_id(NAMED, id)?;
    let found = api.cluster.entity::<Endpoints>(ALL).state(consistency).await?;
    let endpoint = found.state.find(&id).ok_or_else(|| Problem::not_found(NAMED, &id))?;
    let (version, applied_index) = (endpoint.version, found.applied_index);
    Ok(Read { request: &request, consistency, version, applied_index }.respond(&EndpointView::of(endpoint)))
}

/// All endpoints, oldest first. There are few: one page holds them.
#[utoipa::path(
    get, operation_id = "list_webhook_endpoints", path = "/v1/webhook_endpoints", tag = "webhooks",
    params(ConsistencyParam),
    responses(
        (status = 200, description = "The endpoints", body = openapi::List<openapi::WebhookEndpoint>),
        (status = 400, response = ProblemResponse), (status = 429, response = ProblemResponse),
        (status = 503, response = ProblemResponse),
    )
)]
pub async fn list(State(api): State<Api>, uri: Uri) -> Result<Response, Problem> {
    let consistency = only_consistency(&uri)?;
    let found = api.cluster.entity::<Endpoints>(ALL).state(consistency).await?;
    let data: Vec<EndpointView> = found.state.endpoints.iter().map(EndpointView::of).collect();
    let mut response = axum::Json(json!({"data": data, "has_more": false})).into_response();
    if consistency == crate::cluster::Consistency::Local {
        response.headers_mut().insert(APPLIED_INDEX, HeaderValue::from(found.applied_index));
    }
    Ok(response)
}

fn only_consistency(uri: &Uri) -> Result<crate::cluster::Consistency, Problem> {
    let mut params = Params::of(uri)?;
    let consistency = reply::consistency(&mut params)?;
    params.finish()?;
    Ok(consistency)
}

/// What a change leaves.
struct Changed {
    endpoint: Endpoint,
    /// It was made before.
    replayed: bool,
    receipt: Option<Receipt>,
}

impl Changed {
    fn written(&self, status: StatusCode, view: impl Fn(&Endpoint) -> EndpointView) -> Response {
        let written = reply::written(status, &view(&self.endpoint), self.endpoint.version, self.replayed);
        reply::with_receipt(written, self.receipt)
    }
}

/// A change that leaves an endpoint.
async fn change(
    api: &Api,
    id: String,
    uri: &Uri,
    what: What,
    conditions: &Conditions,
    body: &[u8],
) -> Result<Changed, Problem> {
    let Answer { reply, replayed, receipt, .. } = write(api, &id, uri, what, conditions, body).await?;
    match reply {
        Reply::Endpoint(endpoint) => Ok(Changed { endpoint: *endpoint, replayed, receipt }),
        Reply::Deleted => {
            tracing::error!(%id, "the endpoints answered a change without the endpoint");
            Err(Problem::new(Code::Internal, "the webhook endpoint gave no answer"))
        }
    }
}

async fn write(
    api: &Api,
    id: &str,
    uri: &Uri,
    what: What,
    conditions: &Conditions,
    body: &[u8],
) -> Result<Answer<Reply>, Problem> {
    Params::none(uri)?;
    let mut options = conditions.ask_options(body, &api.options);
    // The version is the endpoint's own.
    let command = Command { id: id.to_owned(), if_version: options.if_version.take(), what };
    let asked = api.cluster.entity::<Endpoints>(ALL).ask_with(command, options).await;
    let answer = asked.map_err(|error| Problem::of_ask(error, |reason| rejected(id, &reason)))?;
    copy::spread(&api.cluster, answer.version).await;
    Ok(answer)
}

fn rejected(id: &str, reason: &Rejection) -> Problem {
    let conflict = |word: &str| Problem::new(Code::Conflict, reason.to_string()).with("reason", json!(word));
    match reason {
        Rejection::NotFound => Problem::not_found(NAMED, id),
        Rejection::VersionMismatch { actual } => {
            let detail = format!("the resource is at version {actual}");
            Problem::new(Code::VersionMismatch, detail).with("version", json!(actual))
        }
        Rejection::TooManyEndpoints => conflict("too-many-endpoints"),
        Rejection::TooManySecrets => conflict("too-many-secrets"),
    }
}
