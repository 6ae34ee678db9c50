//! Lists: `GET /v1/orders` and `GET /v1/inventory`. An entry is what a GET of the one shows.

use super::shown;
use crate::{
    cluster::{Consistency, Listing, Page, Place, Unavailable},
    commerce::{
        Order, OrderView, Stock, StockView,
        order::{self, CUSTOMER_ID_CHARS_MAX, Status, lists},
        stock,
        time::parse_rfc3339,
    },
    entity::{Entity, EntityKey, newest_first},
    ingress::{
        Api,
        extract::{Params, invalid},
        openapi::{self, ConsistencyParam, OrderFilters, PageParams, ProblemResponse},
        problem::{Code, Problem},
        reply,
    },
};
use axum::{Json, extract::State, http::Uri};
use serde::Serialize;
use std::ops::RangeInclusive;

const LIMIT_DEFAULT: u64 = 20;

/// Orders, newest first.
///
/// `customer_id` and `status` may be combined, also with a time. `starting_after` goes on behind
/// any order, whatever has become of it since: no order is shown twice or left out because others
/// came or changed meanwhile. Every shard is asked; if one cannot answer there is no page.
#[utoipa::path(
    get, operation_id = "list_orders", path = "/v1/orders", tag = "orders",
    params(OrderFilters, PageParams, ConsistencyParam),
    responses(
        (status = 200, description = "A page of orders", body = openapi::List<openapi::Order>),
        (status = 400, response = ProblemResponse), (status = 429, response = ProblemResponse),
        (status = 503, response = ProblemResponse),
    )
)]
pub async fn orders(State(api): State<Api>, uri: Uri) -> Result<Json<PageView<OrderView>>, Problem> {
    let mut params = Params::of(&uri)?;
    let asked = Asked::of(&mut params)?;
    let customer = customer(&mut params)?;
    let words = Status::ALL.map(|status| (status.name(), status));
    let status = params.choice("status", &words)?;
    let orders = created(&mut params)?;
    params.finish()?;
    let after = match asked.starting_after {
        Some(ref id) => Some(place_of(&api, id, asked.consistency).await?),
        None => None,
    };
    // A customer has fewer orders than a status.
    let listing = match (customer, status) {
        (Some(customer), Some(status)) => Listing::of(lists::CUSTOMER, customer).and(lists::STATUS, status.name()),
        (Some(customer), None) => Listing::of(lists::CUSTOMER, customer),
        (None, Some(status)) => Listing::of(lists::STATUS, status.name()),
        (None, None) => Listing::of(lists::ALL, ""),
    };
    page::<Order>(&api, &asked, listing.orders(orders).after(after)).await
}

/// What there is of every SKU, by SKU.
#[utoipa::path(
    get, operation_id = "list_stock", path = "/v1/inventory", tag = "inventory",
    params(PageParams, ConsistencyParam),
    responses(
        (status = 200, description = "A page of stock items; `starting_after` is a SKU", body = openapi::List<openapi::Stock>),
        (status = 400, response = ProblemResponse), (status = 429, response = ProblemResponse),
        (status = 503, response = ProblemResponse),
    )
)]
pub async fn inventory(State(api): State<Api>, uri: Uri) -> Result<Json<PageView<StockView>>, Problem> {
    let mut params = Params::of(&uri)?;
    let asked = Asked::of(&mut params)?;
    params.finish()?;
    let after = match asked.starting_after {
        // Any name is a place in the order of names, whether there is such a SKU or not.
        Some(ref sku) if EntityKey::new("", sku.as_str()).is_ok() => Some(Place { order: 0, id: sku.clone() }),
        Some(ref sku) => return Err(no_place(sku, "SKU")),
        None => None,
    };
    page::<Stock>(&api, &asked, Listing::of(stock::LIST, "").after(after)).await
}

/// A page as it is sent.
#[derive(Serialize)]
pub struct PageView<V> {
    pub(super) data: Vec<V>,
    pub(super) has_more: bool,
}

/// What every list is asked with.
pub(super) struct Asked {
    pub limit: usize,
    pub starting_after: Option<String>,
    pub consistency: Consistency,
}

impl Asked {
    pub fn of(params: &mut Params) -> Result<Self, Problem> {
        let limit = params.number("limit", 1..=100)?.unwrap_or(LIMIT_DEFAULT);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Ok(Self { limit, starting_after: params.take("starting_after")?, consistency: reply::consistency(params)? })
    }
}

fn customer(params: &mut Params) -> Result<Option<String>, Problem> {
    let customer = params.take("customer_id")?;
    match customer.as_ref().map(|id| id.chars().count()) {
        None | Some(1..=CUSTOMER_ID_CHARS_MAX) => Ok(customer),
        Some(_) => Err(invalid("customer_id", format!("must have 1 to {CUSTOMER_ID_CHARS_MAX} characters"))),
    }
}

/// The part of a list that was made from one time up to, and without, another.
fn created(params: &mut Params) -> Result<RangeInclusive<u64>, Problem> {
    let from = time(params, "created_after")?.unwrap_or(0);
    let before = time(params, "created_before")?;
    Ok(match before {
        // Nothing is older than the epoch.
        Some(0) => empty(),
        Some(before) => newest_first(before - 1)..=newest_first(from),
        None => 0..=newest_first(from),
    })
}

#[allow(clippy::reversed_empty_ranges)]
fn empty() -> RangeInclusive<u64> {
    1..=0
}

fn time(params: &mut Params, name: &'static str) -> Result<Option<u64>, Problem> {
    let Some(text) = params.take(name)? else { return Ok(None) };
    let bad = || {
        let shown: String = text.chars().take(64).collect();
        invalid(
            name,
            format!("`{shown}` is no RFC 3339 time; send one like 2026-11-23T21:20:24Z (in a URL `+` is %2B)"),
        )
    };
    parse_rfc3339(&text).map(Some).ok_or_else(bad)
}

/// Where an order stands in the lists: that never changes.
async fn place_of(api: &Api, id: &str, consistency: Consistency) -> Result<Place, Problem> {
    if !id.starts_with("ord_") || EntityKey::new("", id).is_err() {
        return Err(no_place(id, "order"));
    }
    let created = |state: &order::State| state.details.as_ref().map(|details| details.created_at_ms);
    place_by::<Order>(api, id, consistency, created).await?.ok_or_else(|| no_place(id, "order"))
}

/// Where an entity stands in lists that are sorted by its creation; `None` if there is no such entity.
pub(super) async fn place_by<E: Entity>(
    api: &Api,
    id: &str,
    consistency: Consistency,
    created_at_ms: impl Fn(&E::State) -> Option<u64>,
) -> Result<Option<Place>, Problem> {
    let entity = api.cluster.entity::<E>(id);
    let mut found = entity.state(consistency).await?;
    if found.version == 0 && consistency == Consistency::Local {
        // Perhaps this replica is behind the one that showed it.
        found = entity.state(Consistency::Linearizable).await?;
    }
    let created = created_at_ms(&found.state);
    Ok(created.map(|at_ms| Place { order: newest_first(at_ms), id: id.to_owned() }))
}

pub(super) fn no_place(id: &str, named: &str) -> Problem {
    let shown: String = id.chars().take(64).collect();
    invalid("starting_after", format!("`{shown}` is no {named} of this list; send the last one seen"))
}

async fn page<E: shown::Shown>(api: &Api, asked: &Asked, listing: Listing) -> Result<Json<PageView<E::View>>, Problem> {
    let listing = listing.limit(asked.limit).consistency(asked.consistency);
    let found = api.cluster.list::<E>(&listing).await.map_err(|error| unavailable(error, asked.consistency))?;
    let Page { data, has_more } = found;
    let views = data.into_iter().map(|item| {
        let id = item.place.id;
        E::view(&id, &item.state, item.version).ok_or_else(|| {
            tracing::error!(entity = E::NAMED, %id, "what is in a list cannot be shown");
            Problem::new(Code::Internal, format!("the list holds a {} that cannot be shown", E::NAMED))
        })
    });
    Ok(Json(PageView { data: views.collect::<Result<_, _>>()?, has_more }))
}

/// A list needs every shard; who may do with an older one is told how to get it.
pub(super) fn unavailable(error: Unavailable, consistency: Consistency) -> Problem {
    let mut problem = Problem::from(error);
    if problem.code == Code::NoQuorum && consistency == Consistency::Linearizable {
        problem
            .detail
            .push_str(". A list needs every shard; consistency=local answers from replicas, which may be stale");
    }
    problem
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entity::ShardId;

    fn params(query: &str) -> Params {
        Params::of(&format!("/x?{query}").parse().expect("a URI")).expect("well-formed")
    }

    #[test]
    fn a_span_of_time_has_its_beginning_and_not_its_end() {
        let (day, next) = (86_400_000, 2 * 86_400_000);
        let span = |query: &str| created(&mut params(query)).expect("times");
        let orders = span("created_after=1970-01-02T00:00:00Z&created_before=1970-01-03T00:00:00Z");
        let holds = [day - 1, day, next - 1, next].map(|at_ms| orders.contains(&newest_first(at_ms)));
        assert_eq!(holds, [false, true, true, false]);
        assert!(span("").contains(&newest_first(0)) && span("").contains(&newest_first(next)));
        for nothing in [
            "created_before=1970-01-01T00:00:00Z",
            "created_after=1970-01-03T00:00:00Z&created_before=1970-01-02T00:00:00Z",
            "created_after=1970-01-02T00:00:00Z&created_before=1970-01-02T00:00:00Z",
        ] {
            assert!(span(nothing).is_empty(), "{nothing}");
        }
    }

    #[test]
    fn a_time_that_is_none_is_named() {
        for name in ["created_after", "created_before"] {
            let problem = created(&mut params(&format!("{name}=2026-11-23"))).expect_err("refused");
            assert_eq!((problem.code, problem.errors[0].field.as_str()), (Code::InvalidParameter, name));
        }
    }

    #[test]
    fn who_gets_no_page_is_told_where_to_get_one() {
        let error = || Unavailable::NoQuorum { shard: ShardId(3) };
        assert!(unavailable(error(), Consistency::Linearizable).detail.contains("consistency=local"));
        assert!(!unavailable(error(), Consistency::Local).detail.contains("consistency=local"));
    }
}
