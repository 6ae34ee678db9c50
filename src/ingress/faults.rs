//! Faults on purpose, for nodes that were started with `--allow-faults`; all others answer 403.

use super::{
    Api,
    conditions::Conditions,
    extract::{self, Params},
    openapi::{self, ProblemResponse, ResolveHeaders},
    problem::{Code, FieldError, Problem},
    reply,
};
use crate::cluster::{AskError, FAULT_DURATION_MAX, FaultError, FaultKind, FaultStatus};
use axum::{
    Json, Router,
    extract::{Path, State},
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::{delete, get},
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{convert::Infallible, time::Duration};

/// The longest that a sync may be held up.
const DELAY_MS_MAX: u64 = 10_000;
/// The farthest that a clock may be off.
const OFFSET_MS_MAX: i64 = 600_000;

pub fn routes() -> Router<Api> {
    Router::new().route("/admin/v1/faults", get(list).post(inject)).route("/admin/v1/faults/{id}", delete(end))
}

#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"fault": "slow-disk", "delay_ms": 50, "duration_ms": 10_000}))]
pub struct NewFault {
    /// `slow-disk` (with `delay_ms`), `full-disk`, `failed-fsync`, `clock-jump` (with `offset_ms`).
    fault: String,
    /// It ends by itself after so long: 1 to 600000.
    duration_ms: u64,
    /// How much longer every sync takes: 1 to 10000.
    delay_ms: Option<u64>,
    /// How far the clock is off: up to 600000 either way, not 0.
    offset_ms: Option<i64>,
}

impl NewFault {
    fn read(&self) -> Result<(FaultKind, Duration), Problem> {
        let mut errors = Vec::new();
        let mut wrong = |field: &str, detail: String| errors.push(FieldError { field: field.into(), detail });
        let duration = Duration::from_millis(self.duration_ms);
        if duration.is_zero() || duration > FAULT_DURATION_MAX {
            wrong(
                "duration_ms",
                format!("must be from 1 to {}, is {}", FAULT_DURATION_MAX.as_millis(), self.duration_ms),
            );
        }
        let kind = match self.fault.as_str() {
            "slow-disk" => Some(FaultKind::SlowDisk { delay_ms: self.delay_ms.unwrap_or_default() }),
            "full-disk" => Some(FaultKind::FullDisk),
            "failed-fsync" => Some(FaultKind::FailedFsync),
            "clock-jump" => Some(FaultKind::ClockJump { offset_ms: self.offset_ms.unwrap_or_default() }),
            other => {
                let known = "slow-disk, full-disk, failed-fsync, clock-jump";
                wrong("fault", format!("must be one of {known}, is `{other}`"));
                None
            }
        };
        match (kind, self.delay_ms) {
            (Some(FaultKind::SlowDisk { .. }), Some(1..=DELAY_MS_MAX)) => {}
            (Some(FaultKind::SlowDisk { .. }), _) => {
                wrong("delay_ms", format!("slow-disk needs it, from 1 to {DELAY_MS_MAX}"));
            }
            (Some(_), Some(_)) => wrong("delay_ms", "only slow-disk takes it".into()),
            _ => {}
        }
        match (kind, self.offset_ms) {
            (Some(FaultKind::ClockJump { .. }), Some(ms)) if ms != 0 && ms.unsigned_abs() <= OFFSET_MS_MAX as u64 => {}
            (Some(FaultKind::ClockJump { .. }), _) => {
                wrong("offset_ms", format!("clock-jump needs it, from -{OFFSET_MS_MAX} to {OFFSET_MS_MAX}, and not 0"));
            }
            (Some(_), Some(_)) => wrong("offset_ms", "only clock-jump takes it".into()),
            _ => {}
        }
        match kind {
            Some(kind) if errors.is_empty() => Ok((kind, duration)),
            _ => Err(Problem::validation(errors)),
        }
    }
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
    if conditions.if_version.is_some() {
        let detail = "there is no fault yet that could have a version; send the request without a condition";
        return Err(Problem::new(Code::VersionMismatch, detail));
    }
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
            FaultError::IdempotencyKeyReused => {
                Self::of_ask(AskError::IdempotencyKeyReused, |never: Infallible| match never {})
            }
            FaultError::NotFound(id) => Self::not_found("fault", &id.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_fault_shows_is_what_is_described() {
        let kind = FaultKind::SlowDisk { delay_ms: 5 };
        openapi::describes("Fault", FaultStatus { id: 1, kind, duration_ms: 7 });
        let kind = FaultKind::ClockJump { offset_ms: -5 };
        openapi::describes("Fault", FaultStatus { id: 1, kind, duration_ms: 7 });
    }

    #[test]
    fn a_fault_says_all_that_is_wrong_with_it() {
        let read = |text: &str| serde_json::from_str::<NewFault>(text).expect("well-formed").read();
        let wrong = |text: &str| {
            let fields = read(text).expect_err(text).errors.into_iter().map(|error| error.field);
            fields.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            read(r#"{"fault":"slow-disk","delay_ms":5,"duration_ms":7}"#),
            Ok((FaultKind::SlowDisk { delay_ms: 5 }, Duration::from_millis(7)))
        );
        assert_eq!(wrong(r#"{"fault":"slow-disk","duration_ms":0}"#), "duration_ms delay_ms");
        assert_eq!(wrong(r#"{"fault":"full-disk","duration_ms":1,"delay_ms":1}"#), "delay_ms");
        assert_eq!(wrong(r#"{"fault":"clock-jump","duration_ms":1,"offset_ms":0}"#), "offset_ms");
        assert_eq!(wrong(r#"{"fault":"murder","duration_ms":1}"#), "fault");
    }
}
