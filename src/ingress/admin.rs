//! What this node knows about itself and its cluster, for operators.

use super::{
    Api,
    conditions::Conditions,
    extract::{Nothing, OptionalJson, Params, entity_id},
    openapi::{self, ProblemResponse, ResolveHeaders},
    problem::{Code, Problem},
    reply::{self, consistency},
};
use crate::{
    cluster::{EntityStatus, NodeStatus, RemoveError},
    config::Sources,
};
use axum::{
    Json, Router,
    extract::{Path, State},
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Serialize;
use serde_json::{Value, json};

pub fn routes() -> Router<Api> {
    Router::new()
        .route("/admin/v1/status", get(status))
        .route("/admin/v1/members", get(members))
        .route("/admin/v1/members/{name}/leave", post(leave))
        .route("/admin/v1/shards", get(shards))
        .route("/admin/v1/entities/{type}/{id}", get(entity))
        .route("/admin/v1/config", get(config))
}

/// This node's summary.
#[utoipa::path(
    get, path = "/admin/v1/status", tag = "administration",
    responses((status = 200, description = "This node", body = openapi::NodeStatus))
)]
pub async fn status(State(api): State<Api>, uri: Uri) -> Result<Json<NodeStatus>, Problem> {
    Params::none(&uri)?;
    Ok(Json(api.cluster.status()))
}

/// Every node of the cluster, as this one sees it.
#[utoipa::path(
    get, path = "/admin/v1/members", tag = "administration",
    responses((status = 200, description = "The members", body = openapi::List<openapi::Member>))
)]
pub async fn members(State(api): State<Api>, uri: Uri) -> Result<Json<Value>, Problem> {
    list(&uri, api.cluster.members())
}

/// Have a member leave for good.
///
/// Its shards are filled on other nodes first, as far as there are any; then it is struck off the roster and, if
/// it runs, stops by itself. It may be down. Answered once that is decided: `GET /admin/v1/members` lists it as
/// `leaving` until it has left. Asked again while it leaves, nothing changes.
#[utoipa::path(
    post, operation_id = "leave", path = "/admin/v1/members/{name}/leave", tag = "administration",
    params(("name" = String, Path, description = "As in `node.name`", example = "berlin-4"), ResolveHeaders),
    request_body(content = Option<openapi::Nothing>, example = json!({})),
    responses(
        (status = 202, description = "It is on its way out", body = openapi::LeavingMember),
        (status = 409, response = ProblemResponse),
    )
)]
pub async fn leave(
    State(api): State<Api>,
    Path(name): Path<String>,
    uri: Uri,
    conditions: Conditions,
    OptionalJson(body): OptionalJson<Nothing>,
) -> Result<Response, Problem> {
    Params::none(&uri)?;
    conditions.refuse_version("a member has no version")?;
    let idempotency = conditions.ask_options(&body.bytes, &api.options).idempotency;
    let removal = api.cluster.remove(&name, idempotency).await?;
    let mut response = (StatusCode::ACCEPTED, Json(json!({"name": name, "leaving": true}))).into_response();
    if removal.replayed {
        reply::mark_replayed(&mut response);
    }
    Ok(response)
}

impl From<RemoveError> for Problem {
    fn from(error: RemoveError) -> Self {
        match error {
            RemoveError::NotFound(name) => Self::not_found("member", &name.chars().take(64).collect::<String>()),
            RemoveError::LastMember(_) => Self::new(Code::Conflict, error.to_string()),
            RemoveError::IdempotencyKeyReused => Self::key_reused(),
            RemoveError::Unavailable(unavailable) => unavailable.into(),
        }
    }
}

/// Every shard, as this node sees it.
#[utoipa::path(
    get, path = "/admin/v1/shards", tag = "administration",
    responses((status = 200, description = "The shards", body = openapi::List<openapi::Shard>))
)]
pub async fn shards(State(api): State<Api>, uri: Uri) -> Result<Json<Value>, Problem> {
    list(&uri, api.cluster.shards())
}

fn list<T: Serialize>(uri: &Uri, data: Vec<T>) -> Result<Json<Value>, Problem> {
    Params::none(uri)?;
    Ok(Json(json!({"data": data, "has_more": false})))
}

#[derive(Serialize)]
pub struct Inspected {
    #[serde(flatten)]
    status: EntityStatus,
    state: Value,
}

/// Any entity, of any registered type, with its state as JSON.
#[utoipa::path(
    get, path = "/admin/v1/entities/{type}/{id}", tag = "administration",
    params(
        ("type" = String, Path, description = "Entity type", example = "order"),
        ("id" = String, Path, description = "Entity id"),
        openapi::ConsistencyParam,
    ),
    responses(
        (status = 200, description = "The entity", body = openapi::Entity),
        (status = 429, response = ProblemResponse),
    )
)]
pub async fn entity(
    State(api): State<Api>,
    Path((entity_type, id)): Path<(String, String)>,
    uri: Uri,
) -> Result<Json<Inspected>, Problem> {
    let mut params = Params::of(&uri)?;
    let consistency = consistency(&mut params)?;
    params.finish()?;
    let id = entity_id(&entity_type, id)?;
    let (status, state) = api.cluster.inspect(&entity_type, &id, consistency).await?;
    if status.version == 0 {
        return Err(Problem::not_found(&entity_type, &id));
    }
    Ok(Json(Inspected { status, state }))
}

/// The configuration in effect on this node, by `section.key`. Secrets are never shown.
#[utoipa::path(
    get, path = "/admin/v1/config", tag = "administration",
    responses((status = 200, description = "The configuration", body = Object))
)]
pub async fn config(State(api): State<Api>, uri: Uri) -> Result<Json<Value>, Problem> {
    Params::none(&uri)?;
    // Where each value came from is known to the command line only: `quorate config show`.
    let shown = api.cluster.config().show_json(&Sources::default());
    let entries = shown.as_object().into_iter().flatten();
    Ok(Json(entries.map(|(key, entry)| (key.clone(), entry["value"].clone())).collect()))
}
