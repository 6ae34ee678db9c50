//! `/v1/payments`.

use crate::{
    commerce::{Payment, PaymentView},
    ingress::{
        Api,
        extract::{Params, entity_id},
        openapi::{self, ConsistencyParam, ProblemResponse},
        problem::Problem,
        reply::{self, Read},
    },
};
use axum::{
    extract::{Path, State},
    http::{HeaderMap, Uri},
    response::Response,
};

/// A payment.
#[utoipa::path(
    get, operation_id = "read_payment", path = "/v1/payments/{id}", tag = "payments",
    params(("id" = String, Path), ConsistencyParam),
    responses(
        (status = 200, description = "The payment", body = openapi::Payment),
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
    let mut params = Params::of(&uri)?;
    let consistency = reply::consistency(&mut params)?;
    params.finish()?;
    let id = entity_id("payment", id)?;
    let found = api.cluster.entity::<Payment>(id.as_str()).state(consistency).await?;
    let view = PaymentView::of(&id, &found.state, found.version);
    let view = view.ok_or_else(|| Problem::not_found("payment", &id))?;
    let read = Read { request: &request, consistency, version: found.version, applied_index: found.applied_index };
    Ok(read.respond(&view))
}
