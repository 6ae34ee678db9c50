//! `GET /admin/v1/sagas`: what is under way, of orders and of payments and reservations of their own.
//!
//! ```text
//! orders by status, one after the other ─┐
//! orders that take something back ───────┤
//! payments, reservations under way ──────┴─▶ merged, newest first ─▶ page
//! ```
//!
//! Nothing is scanned: each is a list that the shards keep. An order moves from list to list while they
//! are read, so they are read in the order in which orders go through them, and `needs_attention`, from
//! where they go back, before and after: what is under way all the time is in the page, and once.

use super::lists::{Asked, PageView, no_place, place_by, unavailable};
use crate::{
    cluster::{Listed, Listing, Page, Place},
    commerce::{
        Order, Payment, Reservation, SagaView,
        order::{self, Status, lists},
        payment, reservation,
        saga::{STATUSES, UNDER_WAY, UNDER_WAY_AS},
    },
    entity::{Entity, EntityKey},
    ingress::{
        Api,
        extract::Params,
        openapi::{self, ConsistencyParam, PageParams, ProblemResponse, SagaFilters},
        problem::Problem,
    },
};
use axum::{Json, extract::State, http::Uri};
use std::collections::BTreeMap;

/// Where an order is under way by its status alone, in the order in which it gets there.
const OPEN: [Status; 7] = [
    Status::NeedsAttention,
    Status::Pending,
    Status::Backordered,
    Status::Reserved,
    Status::Authorized,
    Status::Compensating,
    Status::NeedsAttention,
];

/// What is under way: orders that have not ended, returns whose goods or money are not back yet, payments
/// and reservations of their own that wait for the gateway or the stocks.
///
/// Newest first. `needs_attention` does not go on by itself. Every shard is asked; if one cannot answer
/// there is no page. `starting_after` goes on behind any order, payment or reservation, whatever has
/// become of it since.
#[utoipa::path(
    get, operation_id = "list_sagas", path = "/admin/v1/sagas", tag = "administration",
    params(SagaFilters, PageParams, ConsistencyParam),
    responses(
        (status = 200, description = "A page of what is under way", body = openapi::List<openapi::Saga>),
        (status = 429, response = ProblemResponse),
    )
)]
pub async fn sagas(State(api): State<Api>, uri: Uri) -> Result<Json<PageView<SagaView>>, Problem> {
    let mut params = Params::of(&uri)?;
    let asked = Asked::of(&mut params)?;
    let status = params.choice("status", &STATUSES.map(|status| (status, status)))?;
    params.finish()?;
    let after = match asked.starting_after {
        Some(ref id) => Some(place_of(&api, id, &asked).await?),
        None => None,
    };
    let of_the_rest = match status {
        Some(status) => Listing::of(UNDER_WAY_AS, status),
        None => Listing::of(UNDER_WAY, ""),
    };
    let ask = Ask { api: &api, asked: &asked, after };
    let (orders, payments, reservations) = tokio::join!(
        ask.orders(status, &of_the_rest),
        ask.list::<Payment>(&of_the_rest, SagaView::of_payment),
        ask.list::<Reservation>(&of_the_rest, SagaView::of_reservation),
    );
    let mut parts = orders?;
    parts.extend([payments?, reservations?]);
    Ok(Json(merge(parts, asked.limit)))
}

/// Where something stands among what is under way, be it there or not: that never changes.
async fn place_of(api: &Api, id: &str, asked: &Asked) -> Result<Place, Problem> {
    let nothing = || no_place(id, "order, payment or reservation");
    if EntityKey::new("", id).is_err() {
        return Err(nothing());
    }
    let order = |state: &order::State| state.details.as_ref().map(|details| details.created_at_ms);
    let payment = |state: &payment::State| state.exists().then_some(state.created_at_ms);
    let reservation = |state: &reservation::State| state.exists().then_some(state.created_at_ms);
    let found = match id.split_once('_') {
        Some(("ord", _)) => place_by::<Order>(api, id, asked.consistency, order).await?,
        Some(("pay", _)) => place_by::<Payment>(api, id, asked.consistency, payment).await?,
        Some(("res", _)) => place_by::<Reservation>(api, id, asked.consistency, reservation).await?,
        _ => None,
    };
    found.ok_or_else(nothing)
}

/// What every list is asked with.
struct Ask<'a> {
    api: &'a Api,
    asked: &'a Asked,
    after: Option<Place>,
}

/// What was read of one list.
struct Part {
    found: Vec<(Place, SagaView)>,
    has_more: bool,
}

impl Ask<'_> {
    async fn orders(&self, status: Option<&str>, taking_back: &Listing) -> Result<Vec<Part>, Problem> {
        let (before, last) = OPEN.split_at(OPEN.len() - 1);
        let mut parts = self.orders_in(before, status).await?;
        parts.push(self.list::<Order>(taking_back, SagaView::of_order).await?);
        // Asked for one status alone there is nothing to miss.
        if status.is_none() {
            parts.extend(self.orders_in(last, status).await?);
        }
        Ok(parts)
    }

    async fn orders_in(&self, open: &[Status], only: Option<&str>) -> Result<Vec<Part>, Problem> {
        let mut parts = Vec::new();
        for status in open.iter().filter(|status| only.is_none_or(|only| only == status.name())) {
            let listing = Listing::of(lists::STATUS, status.name());
            parts.push(self.list::<Order>(&listing, SagaView::of_order).await?);
        }
        Ok(parts)
    }

    async fn list<E: Entity>(
        &self,
        listing: &Listing,
        view: fn(&str, &E::State, u64) -> Option<SagaView>,
    ) -> Result<Part, Problem> {
        let Asked { limit, consistency, .. } = *self.asked;
        let listing = listing.clone().after(self.after.clone()).limit(limit).consistency(consistency);
        let found = self.api.cluster.list::<E>(&listing).await;
        let Page { data, has_more } = found.map_err(|error| unavailable(error, consistency))?;
        let shown = data.into_iter().filter_map(|Listed { place, state, version }| {
            let saga = view(&place.id, &state, version)?;
            Some((place, saga))
        });
        Ok(Part { found: shown.collect(), has_more })
    }
}

/// One page of all lists. Behind the last entry that was read of a list that goes on, nothing is known of
/// that list: there the page ends. What is in two lists has moved meanwhile, and is shown as it was seen
/// last.
fn merge(parts: Vec<Part>, limit: usize) -> PageView<SagaView> {
    let goes_on = parts.iter().filter(|part| part.has_more);
    let known_up_to = goes_on.filter_map(|part| part.found.last()).map(|(place, _)| place).min().cloned();
    let mut all: BTreeMap<Place, SagaView> = BTreeMap::new();
    for (place, saga) in parts.into_iter().flat_map(|part| part.found) {
        let seen_later = all.get(&place).is_none_or(|known| known.version <= saga.version);
        if seen_later && known_up_to.as_ref().is_none_or(|last| place <= *last) {
            all.insert(place, saga);
        }
    }
    let has_more = known_up_to.is_some() || all.len() > limit;
    PageView { data: all.into_values().take(limit).collect(), has_more }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingress::openapi::describes;
    use proptest::{collection::vec, prelude::*};

    fn saga(id: &str, version: u64) -> SagaView {
        SagaView {
            id: id.into(),
            kind: "order".into(),
            status: "pending".into(),
            needs_attention: false,
            waits_for: Vec::new(),
            since: String::new(),
            attempts: None,
            reason: None,
            version,
            created_at: String::new(),
        }
    }

    fn entry(order: u64, version: u64) -> (Place, SagaView) {
        let id = format!("ord_{order}");
        (Place { order, id: id.clone() }, saga(&id, version))
    }

    fn shown(page: &PageView<SagaView>) -> Vec<(&str, u64)> {
        page.data.iter().map(|saga| (saga.id.as_str(), saga.version)).collect()
    }

    #[test]
    fn a_page_ends_where_a_list_is_not_known_any_further() {
        let goes_on = Part { found: vec![entry(1, 1), entry(4, 1)], has_more: true };
        let whole = Part { found: vec![entry(2, 1), entry(5, 1)], has_more: false };
        let page = merge(vec![goes_on, whole], 9);
        assert_eq!((shown(&page), page.has_more), (vec![("ord_1", 1), ("ord_2", 1), ("ord_4", 1)], true));
    }

    #[test]
    fn what_moved_from_list_to_list_is_shown_once_as_it_was_seen_last() {
        let part = |version| Part { found: vec![entry(1, version)], has_more: false };
        for order in [[3, 4], [4, 3]] {
            let page = merge(order.map(part).into(), 9);
            assert_eq!((shown(&page), page.has_more), (vec![("ord_1", 4)], false));
        }
    }

    #[test]
    fn what_is_under_way_is_shown_as_it_is_described() {
        describes("Saga", saga("ord_1", 1));
        let document: serde_json::Value = serde_json::from_str(openapi::document()).expect("JSON");
        let saga = &document["components"]["schemas"]["Saga"]["properties"];
        assert_eq!(saga["status"]["enum"], serde_json::json!(STATUSES));
    }

    proptest! {
        /// Lists of any length, read so many at a time, page by page.
        #[test]
        fn pages_show_everything_once_and_in_order(
            lists in vec(vec(0..60_u64, 0..20), 1..5), limit in 1..7_usize, read in 1..7_usize,
        ) {
            let sorted = |mut list: Vec<u64>| {
                list.sort_unstable();
                list.dedup();
                list
            };
            let lists: Vec<Vec<u64>> = lists.into_iter().map(sorted).collect();
            let (mut found, mut after) = (Vec::new(), None);
            loop {
                let part = |list: &Vec<u64>| {
                    let rest: Vec<u64> = list.iter().copied().filter(|at| after.is_none_or(|after| *at > after)).collect();
                    let found = rest.iter().take(read).map(|at| entry(*at, 1)).collect();
                    Part { found, has_more: rest.len() > read }
                };
                let page = merge(lists.iter().map(part).collect(), limit);
                let ids = page.data.iter().map(|saga| saga.id.trim_start_matches("ord_").parse::<u64>().expect("a number"));
                found.extend(ids);
                if !page.has_more {
                    break;
                }
                prop_assert!(!page.data.is_empty(), "a page that goes on has something to go on from");
                after = found.last().copied();
            }
            prop_assert_eq!(found, sorted(lists.concat()));
        }
    }
}
