//! Tasks that wait, and what was given up: for operators.

use super::{
    Api,
    conditions::Conditions,
    extract::{Nothing, OptionalJson, Params, invalid},
    openapi::{self, ProblemResponse, ResolveHeaders},
    problem::Problem,
    reply,
};
use crate::{
    cluster::{DeadEffect, DeadLetterStatus, EffectId, Page, ResolveError, Resolved, TaskState, TaskStatus},
    commerce::time::rfc3339,
    entity::EntityKey,
};
use axum::{
    Json, Router,
    extract::{Path, State},
    http::Uri,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Serialize;
use serde_json::{Value, json};

const TASK: &str = "task_";
const LETTER: &str = "dl_";
const LIMIT_DEFAULT: u64 = 20;

pub fn routes() -> Router<Api> {
    Router::new()
        .route("/admin/v1/tasks", get(tasks))
        .route("/admin/v1/dead-letters", get(dead_letters))
        .route("/admin/v1/dead-letters/{id}", get(dead_letter))
        .route("/admin/v1/dead-letters/{id}/retry", post(retry))
        .route("/admin/v1/dead-letters/{id}/discard", post(discard))
}

#[derive(Serialize)]
pub struct TaskView {
    id: String,
    handler: String,
    tag: String,
    entity: EntityKey,
    state: TaskState,
    attempts: u32,
    attempts_max: u32,
    next_attempt_at: Option<String>,
    deadline_at: Option<String>,
    queued_at: Option<String>,
    last_error: Option<String>,
}

impl From<TaskStatus> for TaskView {
    fn from(task: TaskStatus) -> Self {
        Self {
            id: format!("{TASK}{}", task.id),
            handler: task.handler,
            tag: task.tag,
            entity: task.entity,
            state: task.state,
            attempts: task.attempts,
            attempts_max: task.attempts_max,
            next_attempt_at: task.next_attempt_at_ms.map(rfc3339),
            deadline_at: task.deadline_at_ms.map(rfc3339),
            queued_at: task.queued_at_ms.map(rfc3339),
            last_error: task.last_error,
        }
    }
}

#[derive(Serialize)]
pub struct DeadLetterView {
    id: String,
    kind: &'static str,
    entity: EntityKey,
    handler: Option<String>,
    tag: Option<String>,
    attempts: Option<u32>,
    to: Option<EntityKey>,
    payload_bytes: usize,
    error: String,
    given_up_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_hex: Option<String>,
}

impl From<DeadLetterStatus> for DeadLetterView {
    fn from(letter: DeadLetterStatus) -> Self {
        let (kind, handler, tag, attempts, to, payload_bytes) = match letter.what {
            DeadEffect::Task { handler, tag, attempts, payload_bytes } => {
                ("task", Some(handler), Some(tag), Some(attempts), None, payload_bytes)
            }
            DeadEffect::Tell { to, command_bytes } => ("tell", None, None, None, Some(to), command_bytes),
        };
        let (id, given_up_at) = (format!("{LETTER}{}", letter.id), letter.at_ms.map(rfc3339));
        let (entity, error) = (letter.entity, letter.error);
        Self { id, kind, entity, handler, tag, attempts, to, payload_bytes, error, given_up_at, payload_hex: None }
    }
}

/// Tasks that have not ended: scheduled, queued, running, retrying.
///
/// In the order of their ids, from the owners of all shards.
#[utoipa::path(
    get, operation_id = "list_tasks", path = "/admin/v1/tasks", tag = "administration", params(openapi::PageParams),
    responses(
        (status = 200, description = "A page of tasks", body = openapi::List<openapi::Task>),
        (status = 429, response = ProblemResponse),
    )
)]
pub async fn tasks(State(api): State<Api>, uri: Uri) -> Result<Json<Value>, Problem> {
    let (after, limit) = page_params(&uri, TASK)?;
    Ok(page::<_, TaskView>(api.cluster.tasks(after, limit).await?))
}

/// Tasks and tells that were given up.
///
/// In the order of their ids, from the owners of all shards.
#[utoipa::path(
    get, operation_id = "list_dead_letters", path = "/admin/v1/dead-letters", tag = "administration",
    params(openapi::PageParams),
    responses(
        (status = 200, description = "A page of dead letters", body = openapi::List<openapi::DeadLetter>),
        (status = 429, response = ProblemResponse),
    )
)]
pub async fn dead_letters(State(api): State<Api>, uri: Uri) -> Result<Json<Value>, Problem> {
    let (after, limit) = page_params(&uri, LETTER)?;
    Ok(page::<_, DeadLetterView>(api.cluster.dead_letters(after, limit).await?))
}

/// A dead letter, with its payload.
#[utoipa::path(
    get, operation_id = "read_dead_letter", path = "/admin/v1/dead-letters/{id}", tag = "administration",
    params(("id" = String, Path, example = "dl_3_17")),
    responses(
        (status = 200, description = "The dead letter", body = openapi::DeadLetter),
        (status = 429, response = ProblemResponse),
    )
)]
pub async fn dead_letter(
    State(api): State<Api>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Json<DeadLetterView>, Problem> {
    Params::none(&uri)?;
    let found = api.cluster.dead_letter(letter_id(&id)?).await?;
    let (status, payload) = found.ok_or_else(|| no_letter(&id))?;
    let payload_hex = payload.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Json(DeadLetterView { payload_hex: Some(payload_hex), ..status.into() }))
}

/// Try a dead letter again.
///
/// It leaves the list and gets all its attempts and its time again. A task's handler is given the
/// same idempotency key as before. If it is given up again, that is a new dead letter.
#[utoipa::path(
    post, operation_id = "retry_dead_letter", path = "/admin/v1/dead-letters/{id}/retry", tag = "administration",
    params(("id" = String, Path, example = "dl_3_17"), ResolveHeaders),
    request_body(content = Option<openapi::Nothing>, example = json!({})),
    responses(
        (status = 200, description = "It is on its way again", body = openapi::ResolvedLetter),
    )
)]
pub async fn retry(
    State(api): State<Api>,
    Path(id): Path<String>,
    uri: Uri,
    conditions: Conditions,
    body: OptionalJson<Nothing>,
) -> Result<Response, Problem> {
    let (letter, idempotency) = resolving(&api, &id, &uri, &conditions, &body)?;
    let resolved = api.cluster.retry_dead_letter(letter, idempotency).await;
    answer(&id, "retried", resolved)
}

/// Forget a dead letter for good.
#[utoipa::path(
    post, operation_id = "discard_dead_letter", path = "/admin/v1/dead-letters/{id}/discard", tag = "administration",
    params(("id" = String, Path, example = "dl_3_17"), ResolveHeaders),
    request_body(content = Option<openapi::Nothing>, example = json!({})),
    responses(
        (status = 200, description = "It is gone", body = openapi::ResolvedLetter),
    )
)]
pub async fn discard(
    State(api): State<Api>,
    Path(id): Path<String>,
    uri: Uri,
    conditions: Conditions,
    body: OptionalJson<Nothing>,
) -> Result<Response, Problem> {
    let (letter, idempotency) = resolving(&api, &id, &uri, &conditions, &body)?;
    let resolved = api.cluster.discard_dead_letter(letter, idempotency).await;
    answer(&id, "discarded", resolved)
}

/// What the two changes have in common before they are made.
fn resolving(
    api: &Api,
    id: &str,
    uri: &Uri,
    conditions: &Conditions,
    OptionalJson(body): &OptionalJson<Nothing>,
) -> Result<(EffectId, Option<crate::cluster::Idempotency>), Problem> {
    Params::none(uri)?;
    conditions.refuse_version("a dead letter has no version")?;
    Ok((letter_id(id)?, conditions.ask_options(&body.bytes, &api.options).idempotency))
}

fn answer(id: &str, resolution: &str, resolved: Result<Resolved, ResolveError>) -> Result<Response, Problem> {
    let resolved = resolved.map_err(|error| match error {
        ResolveError::NotFound(_) => no_letter(id),
        ResolveError::IdempotencyKeyReused => Problem::key_reused(),
        ResolveError::Unavailable(unavailable) => unavailable.into(),
    })?;
    let mut response = Json(json!({"id": id, "resolution": resolution})).into_response();
    if resolved.replayed {
        reply::mark_replayed(&mut response);
    }
    Ok(response)
}

fn page<T, V: From<T> + Serialize>(page: Page<T>) -> Json<Value> {
    let data: Vec<V> = page.data.into_iter().map(V::from).collect();
    Json(json!({"data": data, "has_more": page.has_more}))
}

fn page_params(uri: &Uri, prefix: &str) -> Result<(Option<EffectId>, usize), Problem> {
    let mut params = Params::of(uri)?;
    let limit = params.number("limit", 1..=100)?.unwrap_or(LIMIT_DEFAULT);
    let after = params.take("starting_after")?;
    params.finish()?;
    let after = after.map(|id| {
        let bad = || invalid("starting_after", format!("`{id}` is no id of this list; send that of the last one seen"));
        parse(prefix, &id).ok_or_else(bad)
    });
    Ok((after.transpose()?, usize::try_from(limit).unwrap_or(usize::MAX)))
}

fn parse(prefix: &str, id: &str) -> Option<EffectId> {
    id.strip_prefix(prefix)?.parse().ok()
}

fn letter_id(id: &str) -> Result<EffectId, Problem> {
    parse(LETTER, id).ok_or_else(|| no_letter(id))
}

fn no_letter(id: &str) -> Problem {
    Problem::not_found("dead letter", &id.chars().take(64).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        entity::ShardId,
        ingress::{openapi::describes, problem::Code},
    };

    fn entity() -> EntityKey {
        EntityKey::new("guest", "ada").expect("a valid id")
    }

    fn id() -> EffectId {
        EffectId { shard: ShardId(3), number: 17 }
    }

    #[test]
    fn what_is_shown_is_what_is_described() {
        let task = TaskStatus {
            id: id(),
            handler: "send-email".into(),
            tag: "welcome".into(),
            entity: entity(),
            state: TaskState::Retrying,
            attempts: 2,
            attempts_max: 10,
            next_attempt_at_ms: Some(1),
            deadline_at_ms: None,
            queued_at_ms: Some(0),
            last_error: None,
        };
        let shown = serde_json::to_value(TaskView::from(task)).expect("JSON");
        assert_eq!((&shown["id"], &shown["state"]), (&json!("task_3_17"), &json!("retrying")));
        assert_eq!(shown["next_attempt_at"], "1970-01-01T00:00:00.001Z");
        describes("Task", shown);
        let effects = [
            DeadEffect::Task { handler: "send-email".into(), tag: "welcome".into(), attempts: 10, payload_bytes: 4 },
            DeadEffect::Tell { to: entity(), command_bytes: 4 },
        ];
        for what in effects {
            let letter = DeadLetterStatus { id: id(), entity: entity(), what, error: "no".into(), at_ms: Some(1) };
            let shown = DeadLetterView { payload_hex: Some("00".into()), ..letter.into() };
            assert_eq!(shown.id, "dl_3_17");
            describes("DeadLetter", shown);
        }
    }

    #[test]
    fn a_cursor_of_another_list_is_refused_by_name() {
        let params = |uri: &'static str| page_params(&Uri::from_static(uri), LETTER);
        assert_eq!(params("/x?starting_after=dl_3_17&limit=7").expect("valid"), (Some(id()), 7));
        assert_eq!(params("/x").expect("valid"), (None, 20));
        for bad in ["/x?starting_after=task_3_17", "/x?starting_after=3_17", "/x?starting_after=dl_03_17"] {
            let problem = params(bad).expect_err("refused");
            assert_eq!((problem.code, problem.errors[0].field.as_str()), (Code::InvalidParameter, "starting_after"));
        }
    }

    #[test]
    fn an_id_that_names_nothing_is_not_found() {
        assert_eq!(letter_id("dl_3_17").ok(), Some(id()));
        for bad in ["", "x", "dl_", "task_3_17", "dl_3"] {
            assert_eq!(letter_id(bad).expect_err("names nothing").code, Code::NotFound, "{bad}");
        }
    }
}
