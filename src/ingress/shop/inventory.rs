//! `/v1/inventory`.

use super::{history, invalid, shown};
use crate::{
    cluster::{Consistency, Recorded},
    commerce::{
        AdjustStock, PutStock, Stock, StockView,
        stock::{Command, Event, Rejection, Reply, SKU_BYTES_MAX},
    },
    entity::EntityKey,
    ingress::{
        Api,
        conditions::Conditions,
        extract::{Json, Params, entity_id, invalid as invalid_parameter},
        openapi::{self, ConsistencyParam, PageParams, ProblemResponse, WriteHeaders},
        problem::{Code, FieldError, Problem},
        reply,
    },
};
use axum::{
    extract::{Path, State},
    http::{HeaderMap, StatusCode, Uri},
    response::Response,
};
use serde::Serialize;

/// How many events are read at a time while people's changes are looked for.
const WINDOW: u64 = 100;

/// Set what is on hand of a SKU; makes the SKU if it is new.
///
/// `If-None-Match: *` makes it only if it is new.
#[utoipa::path(
    put, operation_id = "put_stock", path = "/v1/inventory/{sku}", tag = "inventory",
    params(("sku" = String, Path, description = "1 to 64 visible ASCII characters", example = "mug-blue"), WriteHeaders),
    request_body = openapi::PutStock,
    responses(
        (status = 200, description = "The stock after it", body = openapi::Stock),
        (status = 409, response = ProblemResponse),
    )
)]
pub async fn put(
    State(api): State<Api>,
    Path(sku): Path<String>,
    uri: Uri,
    conditions: Conditions,
    body: Json<PutStock>,
) -> Result<Response, Problem> {
    Params::none(&uri)?;
    let sku = new_sku(sku)?;
    let command = body.value.validate().map_err(invalid)?;
    change(&api, sku, command, &conditions, &body.bytes).await
}

/// Add to or take from what is on hand.
#[utoipa::path(
    post, operation_id = "adjust_stock", path = "/v1/inventory/{sku}/adjustments", tag = "inventory",
    params(("sku" = String, Path, example = "mug-blue"), WriteHeaders),
    request_body = openapi::AdjustStock,
    responses(
        (status = 200, description = "The stock after it", body = openapi::Stock),
        (status = 409, response = ProblemResponse),
    )
)]
pub async fn adjust(
    State(api): State<Api>,
    Path(sku): Path<String>,
    uri: Uri,
    conditions: Conditions,
    body: Json<AdjustStock>,
) -> Result<Response, Problem> {
    Params::none(&uri)?;
    let sku = entity_id("stock item", sku)?;
    let command = body.value.validate().map_err(invalid)?;
    change(&api, sku, command, &conditions, &body.bytes).await
}

async fn change(
    api: &Api,
    sku: String,
    command: Command,
    conditions: &Conditions,
    body: &[u8],
) -> Result<Response, Problem> {
    let options = conditions.ask_options(body, &api.options);
    let stock = api.cluster.entity::<Stock>(sku.as_str());
    let answer = stock
        .ask_with(command, options)
        .await
        .map_err(|error| Problem::of_ask(error, |reason| rejected(&sku, &reason)))?;
    let view = match answer.reply {
        Reply::Levels(levels) => StockView::of_levels(&sku, &levels, answer.version),
        Reply::Ack => None,
    };
    let view = view.ok_or_else(|| {
        tracing::error!(%sku, "a stock answered a change without its levels");
        Problem::new(Code::Internal, "the stock item gave no answer")
    })?;
    let written = reply::written(StatusCode::OK, &view, answer.version, answer.replayed);
    Ok(reply::with_receipt(written, answer.receipt))
}

/// What people changed of a SKU, newest first: the audit trail.
#[utoipa::path(
    get, operation_id = "list_adjustments", path = "/v1/inventory/{sku}/adjustments", tag = "inventory",
    params(("sku" = String, Path, example = "mug-blue"), PageParams, ConsistencyParam),
    responses(
        (status = 200, description = "A page of `put` and `adjusted` events", body = openapi::List<openapi::Event>),
    )
)]
pub async fn adjustments(
    State(api): State<Api>,
    Path(sku): Path<String>,
    uri: Uri,
) -> Result<axum::Json<history::Page>, Problem> {
    let mut params = Params::of(&uri)?;
    let consistency = reply::consistency(&mut params)?;
    let sku = entity_id("stock item", sku)?;
    // A SKU has no prefix of its own that an event's id would leave out.
    let prefixed = format!("sku_{sku}");
    let asked = history::Asked::of(&mut params, &prefixed)?;
    params.finish()?;
    let trail = Trail { api: &api, sku: &sku, consistency };
    let changes = trail.before(asked.after, asked.limit + 1).await?;
    asked.page(&prefixed, changes.into_iter()).map(axum::Json)
}

/// The way back through a stock's history from one change by people to the one before it.
struct Trail<'a> {
    api: &'a Api,
    sku: &'a str,
    consistency: Consistency,
}

/// A change by people as it is shown.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
enum Change {
    Put { on_hand: u64, backorder_limit: u64 },
    Adjusted { delta: i64, reason: String },
}

impl Trail<'_> {
    /// Up to `limit` changes before the one of this number, or the last ones if it is 0.
    async fn before(&self, after: u64, limit: usize) -> Result<Vec<(u64, u64, Change)>, Problem> {
        let mut next = self.start(after).await?;
        let mut changes = Vec::new();
        while next > 0 && changes.len() < limit {
            let looked_for = next;
            for Recorded { sequence, at_ms, event } in self.window(next).await?.into_iter().rev() {
                if let (true, Some(previous)) = (sequence == next, event.supply()) {
                    changes.extend(Change::of(event).map(|change| (sequence, at_ms, change)));
                    next = previous;
                }
            }
            if next == looked_for {
                // A replica that is behind does not have it yet.
                break;
            }
        }
        changes.truncate(limit);
        Ok(changes)
    }

    async fn start(&self, after: u64) -> Result<u64, Problem> {
        if after > 0 {
            let seen = self.window(after).await?.pop().filter(|seen| seen.sequence == after);
            let previous = seen.and_then(|seen| seen.event.supply());
            return previous.ok_or_else(|| invalid_parameter("starting_after", "is no adjustment of this stock item"));
        }
        let stock = self.api.cluster.entity::<Stock>(self.sku).state(self.consistency).await?.state;
        let listed = stock.levels.listed.then_some(stock.last_supply);
        listed.ok_or_else(|| Problem::not_found("stock item", self.sku))
    }

    /// The events up to this number.
    async fn window(&self, last: u64) -> Result<Vec<Recorded<Event>>, Problem> {
        let after = last.saturating_sub(WINDOW);
        let stock = self.api.cluster.entity::<Stock>(self.sku);
        Ok(stock.history(after, (last - after) as usize, self.consistency).await?)
    }
}

impl Change {
    fn of(event: Event) -> Option<Self> {
        match event {
            Event::Put { on_hand, backorder_limit, .. } => Some(Self::Put { on_hand, backorder_limit }),
            Event::Adjusted { delta, reason, .. } => Some(Self::Adjusted { delta, reason }),
            _ => None,
        }
    }
}

/// What there is of a SKU.
#[utoipa::path(
    get, operation_id = "read_stock", path = "/v1/inventory/{sku}", tag = "inventory",
    params(("sku" = String, Path, example = "mug-blue"), ConsistencyParam),
    responses(
        (status = 200, description = "The stock", body = openapi::Stock),
        (status = 304, description = "The client has this version"),
    )
)]
pub async fn read(
    State(api): State<Api>,
    Path(sku): Path<String>,
    uri: Uri,
    request: HeaderMap,
) -> Result<Response, Problem> {
    shown::read::<Stock>(&api, sku, &uri, &request).await
}

/// A name for a SKU that may be new: here a bad one is a mistake in the request, not a miss.
fn new_sku(sku: String) -> Result<String, Problem> {
    if sku.len() <= SKU_BYTES_MAX && EntityKey::new("", sku.as_str()).is_ok() {
        return Ok(sku);
    }
    let detail = format!("must have 1 to {SKU_BYTES_MAX} visible ASCII characters, none of them '/'");
    Err(Problem::validation(vec![FieldError { field: "sku".into(), detail }]))
}

fn rejected(sku: &str, reason: &Rejection) -> Problem {
    match reason {
        Rejection::NotFound => Problem::not_found("stock item", sku),
        Rejection::BelowReserved { .. }
        | Rejection::InsufficientStock { .. }
        | Rejection::TooMany { .. }
        | Rejection::BelowBackorderLimit { .. } => {
            Problem::new(Code::Conflict, reason.to_string()).with("reason", reason.code().into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sku_that_cannot_be_a_name_is_a_field_error() {
        for bad in ["", "a b", "é", &"x".repeat(SKU_BYTES_MAX + 1)] {
            let problem = new_sku(bad.to_owned()).expect_err("refused");
            assert_eq!((problem.code, problem.errors[0].field.as_str()), (Code::ValidationFailed, "sku"), "{bad:?}");
        }
        assert!(new_sku("mug-blue".into()).is_ok());
    }

    #[test]
    fn a_refused_change_says_why() {
        let problem = rejected("mug", &Rejection::BelowReserved { on_hand: 1, reserved: 2 });
        assert_eq!((problem.code, &problem.extra[0]), (Code::Conflict, &("reason", "below-reserved".into())));
        assert!(problem.detail.contains('2'), "{}", problem.detail);
        assert_eq!(rejected("mug", &Rejection::NotFound).code, Code::NotFound);
    }
}
