//! `/v1/reservations`.
//!
//! A reservation is made, committed and released by chains over its SKUs. Each answer waits for
//! its chain, so that whoever was answered finds the stocks as the answer says.

use super::{
    invalid,
    shown::{self, OWNER_PAUSE, add_location, no_answer},
};
use crate::{
    cluster::{Answer, Consistency, EntityRef, Snapshot},
    commerce::{
        Reservation, ReservationView,
        order::Refusal,
        reservation::{self, Command, ExtendReservation, MakeReservation, Refused, Rejection, Reply, Status},
    },
    entity::Entity,
    ingress::{
        Api,
        conditions::Conditions,
        extract::{Json, Nothing, OptionalJson, Params, entity_id},
        identity,
        openapi::{self, ConsistencyParam, ProblemResponse, WriteHeaders},
        problem::{Code, Problem},
        reply,
    },
};
use axum::{
    extract::{Path, State},
    http::{HeaderMap, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use serde_json::json;
use tokio::time::Instant;

const ROUTE: &str = "/v1/reservations";
/// A reservation is held or rejected by one of its first events.
const FIRST_EVENTS: usize = 8;

/// Hold units of several SKUs for a time: all of them, or none.
///
/// Answers 201 once every unit is held, 409 `out-of-stock` if one is not to be had.
#[utoipa::path(
    post, operation_id = "make_reservation", path = "/v1/reservations", tag = "reservations",
    params(WriteHeaders),
    request_body = openapi::MakeReservation,
    responses(
        (status = 201, description = "The reservation, held", body = openapi::OwnReservation, headers(
            ("location" = String, description = "Path of the reservation"),
            ("etag" = String, description = "Its version"),
            ("idempotent-replayed" = Option<String>, description = "`true` when this is the first answer again"),
        )),
        (status = 409, response = ProblemResponse),
    )
)]
pub async fn make(
    State(api): State<Api>,
    uri: Uri,
    conditions: Conditions,
    body: Json<MakeReservation>,
) -> Result<Response, Problem> {
    Params::none(&uri)?;
    let command = body.value.validate().map_err(invalid)?;
    // The key names the reservation, so that a retry meets the first try wherever it is sent.
    let id = match &conditions.key {
        Some(key) => identity::derived_id("res_", ROUTE, key),
        None => identity::random_id("res_"),
    };
    let answer = write(&api, &id, command, &conditions, &body.bytes).await?;
    let entity = api.cluster.entity::<Reservation>(id.as_str());
    let mut response = match first_outcome(&api, &entity, answer.version).await? {
        Snapshot { state: reservation::State { refused: Some(refused), .. }, .. } => {
            let mut response = out_of_stock(&refused).into_response();
            if answer.replayed {
                reply::mark_replayed(&mut response);
            }
            return Ok(response);
        }
        held => {
            let view = view(&id, &held.state, held.version)?;
            let written = reply::written(StatusCode::CREATED, &view, held.version, answer.replayed);
            reply::with_receipt(written, answer.receipt)
        }
    };
    add_location(&mut response, ROUTE, &id);
    Ok(response)
}

/// A reservation.
#[utoipa::path(
    get, operation_id = "read_reservation", path = "/v1/reservations/{id}", tag = "reservations",
    params(("id" = String, Path), ConsistencyParam),
    responses(
        (status = 200, description = "The reservation", body = openapi::OwnReservation),
        (status = 304, description = "The client has this version"),
    )
)]
pub async fn read(
    State(api): State<Api>,
    Path(id): Path<String>,
    uri: Uri,
    request: HeaderMap,
) -> Result<Response, Problem> {
    shown::read::<Reservation>(&api, id, &uri, &request).await
}

/// Take what is held: the units leave the stock.
#[utoipa::path(
    post, operation_id = "commit_reservation", path = "/v1/reservations/{id}/commit", tag = "reservations",
    params(("id" = String, Path), WriteHeaders),
    request_body(content = Option<openapi::Nothing>, example = json!({})),
    responses(
        (status = 200, description = "The reservation, committed", body = openapi::OwnReservation),
        (status = 409, response = ProblemResponse),
    )
)]
pub async fn commit(
    State(api): State<Api>,
    Path(id): Path<String>,
    uri: Uri,
    conditions: Conditions,
    OptionalJson(body): OptionalJson<Nothing>,
) -> Result<Response, Problem> {
    change(&api, id, &uri, Command::Commit, &conditions, &body.bytes).await
}

/// Give back what is held.
#[utoipa::path(
    post, operation_id = "release_reservation", path = "/v1/reservations/{id}/release", tag = "reservations",
    params(("id" = String, Path), WriteHeaders),
    request_body(content = Option<openapi::Nothing>, example = json!({})),
    responses(
        (status = 200, description = "The reservation, released", body = openapi::OwnReservation),
        (status = 409, response = ProblemResponse),
    )
)]
pub async fn release(
    State(api): State<Api>,
    Path(id): Path<String>,
    uri: Uri,
    conditions: Conditions,
    OptionalJson(body): OptionalJson<Nothing>,
) -> Result<Response, Problem> {
    change(&api, id, &uri, Command::Release, &conditions, &body.bytes).await
}

/// Hold it for so long from now; never shortens.
#[utoipa::path(
    post, operation_id = "extend_reservation", path = "/v1/reservations/{id}/extend", tag = "reservations",
    params(("id" = String, Path), WriteHeaders),
    request_body = openapi::ExtendReservation,
    responses(
        (status = 200, description = "The reservation, held for longer", body = openapi::OwnReservation),
        (status = 409, response = ProblemResponse),
    )
)]
pub async fn extend(
    State(api): State<Api>,
    Path(id): Path<String>,
    uri: Uri,
    conditions: Conditions,
    body: Json<ExtendReservation>,
) -> Result<Response, Problem> {
    let command = body.value.validate().map_err(invalid)?;
    change(&api, id, &uri, command, &conditions, &body.bytes).await
}

async fn change(
    api: &Api,
    id: String,
    uri: &Uri,
    command: Command,
    conditions: &Conditions,
    body: &[u8],
) -> Result<Response, Problem> {
    Params::none(uri)?;
    let id = entity_id("reservation", id)?;
    let Answer { reply, version, replayed, receipt } = write(api, &id, command, conditions, body).await?;
    let Reply::Reservation(state) = reply else { return Err(no_answer::<Reservation>(&id)) };
    let entity = api.cluster.entity::<Reservation>(id.as_str());
    // What is under way ends by itself, and then stays as it is: each retry is answered the same.
    let (state, version) = match state.is_settled() {
        true => (*state, version),
        false => {
            let ended = follow(api, &entity, version, reservation::State::is_settled).await;
            let ended = ended.ok_or_else(|| not_yet(&id))?;
            (ended.state, ended.version)
        }
    };
    let written = reply::written(StatusCode::OK, &view(&id, &state, version)?, version, replayed);
    Ok(reply::with_receipt(written, receipt))
}

async fn write(
    api: &Api,
    id: &str,
    command: Command,
    conditions: &Conditions,
    body: &[u8],
) -> Result<Answer<Reply>, Problem> {
    let options = conditions.ask_options(body, &api.options);
    let asked = api.cluster.entity::<Reservation>(id).ask_with(command, options).await;
    asked.map_err(|error| Problem::of_ask(error, |reason| rejected(id, &reason)))
}

/// The reservation as it was when it was first held or rejected: the same for every retry,
/// whatever has become of it since.
async fn first_outcome(
    api: &Api,
    entity: &EntityRef<Reservation>,
    version: u64,
) -> Result<Snapshot<reservation::State>, Problem> {
    let decided = |state: &reservation::State| state.status != Status::Pending;
    let found = follow(api, entity, version, decided).await.ok_or_else(|| not_yet(entity.id()))?;
    if found.version == version + 1 {
        return Ok(found);
    }
    // It has moved on since: fold its history as far as it went then.
    let mut state = reservation::State::default();
    for recorded in entity.history(0, FIRST_EVENTS, Consistency::Linearizable).await? {
        Reservation::evolve(&mut state, &recorded.event);
        if decided(&state) {
            return Ok(Snapshot { state, version: recorded.sequence, ..found });
        }
    }
    Err(no_answer::<Reservation>(entity.id()))
}

/// Follows a reservation from a version at which it is not `done` until it is, at most for the time
/// that a write may take.
async fn follow(
    api: &Api,
    entity: &EntityRef<Reservation>,
    mut version: u64,
    done: impl Fn(&reservation::State) -> bool,
) -> Option<Snapshot<reservation::State>> {
    let deadline = Instant::now() + api.options.write_timeout;
    while Instant::now() < deadline {
        match entity.changed(version, deadline - Instant::now()).await {
            Ok(found) if done(&found.state) => return Some(found),
            Ok(found) => version = found.version,
            Err(error) => {
                tracing::debug!(reservation = entity.id(), %error, "cannot follow the reservation just now");
                tokio::time::sleep(OWNER_PAUSE).await;
            }
        }
    }
    None
}

/// 504: the time that a write may take is over.
fn not_yet(id: &str) -> Problem {
    let detail = "the stocks have not all answered yet; retry with the same Idempotency-Key";
    Problem::new(Code::OutcomeUnknown, detail).with("reservation_id", json!(id)).retry_after(1)
}

fn view(id: &str, state: &reservation::State, version: u64) -> Result<ReservationView, Problem> {
    ReservationView::of(id, state, version).ok_or_else(|| no_answer::<Reservation>(id))
}

fn out_of_stock(Refused { sku, refusal }: &Refused) -> Problem {
    let reason = refusal.reason(sku);
    let code = match refusal {
        Refusal::InsufficientStock { .. } | Refusal::UnknownSku => Code::OutOfStock,
        _ => Code::Conflict,
    };
    let problem = Problem::new(code, reason.detail).with("sku", json!(sku)).with("reason", json!(reason.code));
    match refusal {
        Refusal::InsufficientStock { available } => problem.with("available", json!(available)),
        _ => problem,
    }
}

fn rejected(id: &str, reason: &Rejection) -> Problem {
    match reason {
        Rejection::NotFound => Problem::not_found("reservation", id),
        // Only when the key's record has run out: until then a replay answers.
        Rejection::AlreadyExists => {
            let detail = "a reservation was made with this Idempotency-Key before, too long ago to answer it again";
            Problem::new(Code::Conflict, detail).with("reservation_id", json!(id))
        }
        Rejection::IllegalTransition { from, to } => {
            let allowed: Vec<_> = from.allowed().iter().map(|status| status.name()).collect();
            let action = if *to == Status::Held { "be extended".to_owned() } else { format!("become {to}") };
            Problem::illegal_transition(&action, from.name(), &allowed)
        }
        Rejection::Invalid { detail } => Problem::new(Code::ValidationFailed, detail.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_sku_and_what_there_is() {
        let refused = |refusal| out_of_stock(&Refused { sku: "mug".into(), refusal }).render("t");
        let body = refused(Refusal::InsufficientStock { available: 3 });
        assert_eq!((&body["status"], &body["code"]), (&json!(409), &json!("out-of-stock")));
        assert_eq!((&body["sku"], &body["available"]), (&json!("mug"), &json!(3)));
        assert_eq!(refused(Refusal::UnknownSku)["reason"], "unknown-sku");
        assert_eq!(refused(Refusal::TooManyReservations)["code"], "conflict");
    }

    #[test]
    fn a_refused_transition_names_the_state() {
        let late = Rejection::IllegalTransition { from: Status::Expired, to: Status::Committed };
        let body = rejected("res_1", &late).render("t");
        assert_eq!((&body["code"], &body["state"]), (&json!("illegal-transition"), &json!("expired")));
        let late = Rejection::IllegalTransition { from: Status::Released, to: Status::Held };
        let body = rejected("res_1", &late).render("t");
        assert!(body["detail"].as_str().is_some_and(|detail| detail.contains("be extended")), "{body}");
    }
}
