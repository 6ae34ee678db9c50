//! Faults on purpose, for nodes that were started with `--allow-faults`; all others answer 403.

mod read;

pub use read::NewFault;

use super::{
    Api,
    conditions::Conditions,
    extract::{self, Params},
    openapi::{self, ProblemResponse, ResolveHeaders},
    problem::{Code, FieldError, Problem},
    reply,
};
use crate::cluster::{FaultError, FaultStatus};
use axum::{
    Json, Router,
    extract::{Path, State},
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::{delete, get},
};
use serde_json::{Value, json};

pub fn routes() -> Router<Api> {
    Router::new().route("/admin/v1/faults", get(list).post(inject)).route("/admin/v1/faults/{id}", delete(end))
}

/// Faults in force on this node.
#[utoipa::path(
    get, operation_id = "list_faults", path = "/admin/v1/faults", tag = "administration",
    responses(
        (status = 200, description = "Those that have not ended, oldest first", body = openapi::List<openapi::Fault>),
        (status = 400, response = ProblemResponse), (status = 403, response = ProblemResponse),
    )
)]
pub async fn list(State(api): State<Api>, uri: Uri) -> Result<Json<Value>, Problem> {
    Params::none(&uri)?;
    Ok(Json(json!({"data": api.cluster.faults()?.list(), "has_more": false})))
}

/// Break something of this node.
///
/// A key is remembered by the node, like the fault, until its process ends.
#[utoipa::path(
    post, operation_id = "inject_fault", path = "/admin/v1/faults", tag = "administration", params(ResolveHeaders),
    request_body = NewFault,
    responses(
        (status = 201, description = "It is in force", body = openapi::Fault),
        (status = 400, response = ProblemResponse), (status = 403, response = ProblemResponse),
        (status = 412, response = ProblemResponse), (status = 413, response = ProblemResponse),
        (status = 415, response = ProblemResponse), (status = 422, response = ProblemResponse),
        (status = 429, response = ProblemResponse),
    )
)]
pub async fn inject(
    State(api): State<Api>,
    uri: Uri,
    conditions: Conditions,
    body: extract::Json<NewFault>,
) -> Result<Response, Problem> {
    Params::none(&uri)?;
    let switch = api.cluster.faults()?;
    conditions.refuse_version("there is no fault yet that could have a version")?;
    let (kind, duration) = body.value.read()?;
    let idempotency = conditions.ask_options(&body.bytes, &api.options).idempotency;
    let (fault, replayed) = switch.inject(kind, duration, idempotency)?;
    let mut response = (StatusCode::CREATED, Json(fault)).into_response();
    if replayed {
        reply::mark_replayed(&mut response);
    }
    Ok(response)
}

/// End a fault before its time.
#[utoipa::path(
    delete, operation_id = "end_fault", path = "/admin/v1/faults/{id}", tag = "administration",
    params(("id" = String, Path, example = "1")),
    responses(
        (status = 200, description = "The fault, which has ended", body = openapi::Fault),
        (status = 400, response = ProblemResponse), (status = 403, response = ProblemResponse),
        (status = 404, response = ProblemResponse),
    )
)]
pub async fn end(State(api): State<Api>, Path(id): Path<String>, uri: Uri) -> Result<Json<FaultStatus>, Problem> {
    Params::none(&uri)?;
    let switch = api.cluster.faults()?;
    let number = id.parse().map_err(|_| Problem::not_found("fault", &id))?;
    Ok(Json(switch.end(number)?))
}

impl From<FaultError> for Problem {
    fn from(error: FaultError) -> Self {
        match error {
            FaultError::NotAllowed => Self::new(Code::FaultsNotAllowed, error.to_string()),
            FaultError::TooMany => Self::new(Code::Overloaded, format!("{error}; nothing happened")).retry_after(1),
            FaultError::IdempotencyKeyReused => Self::key_reused(),
            FaultError::UnknownPeer { .. } => {
                Self::validation(vec![FieldError { field: "peers".into(), detail: error.to_string() }])
            }
            FaultError::NotFound(id) => Self::not_found("fault", &id.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{FaultDirection, FaultKind, FaultPath};

    #[test]
    fn what_a_fault_shows_is_what_is_described() {
        let kind = FaultKind::SlowDisk { delay_ms: 5 };
        openapi::describes("Fault", FaultStatus { id: 1, kind, duration_ms: 7 });
        let kind = FaultKind::ClockJump { offset_ms: -5 };
        openapi::describes("Fault", FaultStatus { id: 1, kind, duration_ms: 7 });
        let path = FaultPath { peers: Some(vec!["n2".into()]), direction: FaultDirection::Both };
        let kind = FaultKind::Loss { path, probability: 0.1 };
        openapi::describes("Fault", FaultStatus { id: 1, kind, duration_ms: 7 });
    }
}
