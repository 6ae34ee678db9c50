//! An order's history as server-sent events: what has happened, then what happens.
//!
//! ```text
//! history after the last event seen ─▶ client … none left ─▶ wait at the owner for a change ─▶ history
//! ```
//!
//! A stream reads the history like any other client and keeps nothing but the number of the last
//! event it sent. So it goes on by itself when the owner changes, and a client that comes back
//! with `Last-Event-ID`, through whichever node, misses nothing and sees nothing twice.
//!
//! Bounds: those of [`sse`], and of each stream at most [`PAGE`] events in memory; a slow client is
//! waited for.

use super::history::{self, Event};
use crate::{
    cluster::{Consistency, EntityRef, Recorded, Unavailable},
    commerce::{Order, order},
    ingress::{
        Api, Draining,
        extract::{Params, entity_id},
        problem::Problem,
        sse,
    },
};
use axum::{
    http::{HeaderMap, Uri},
    response::{Response, sse::Event as Sent},
};
use std::{collections::VecDeque, time::Duration};

/// Events read at a time.
const PAGE: usize = 100;
/// How long one question for a change may wait; then it is asked again.
const CHANGE_WAIT: Duration = Duration::from_secs(60);
/// Between two tries to reach an owner that cannot be reached just now.
const OWNER_PAUSE: Duration = Duration::from_millis(50);

/// Opens the stream of the order `id`.
pub async fn open(
    api: &Api,
    id: String,
    uri: &Uri,
    request: &HeaderMap,
    draining: Option<Draining>,
) -> Result<Response, Problem> {
    let mut params = Params::of(uri)?;
    let starting_after = history::starting_after(&mut params, &id)?;
    params.finish()?;
    let id = entity_id("order", id)?;
    // The header is what a client adds when it comes back to the address it started with.
    let after = last_event_id(request, &id)?.unwrap_or(starting_after);
    let place = sse::admit(api)?;
    let order = api.cluster.entity::<Order>(id.as_str());
    if order.state(Consistency::Linearizable).await?.version == 0 {
        return Err(Problem::not_found("order", &id));
    }
    Ok(sse::respond(api, place, draining, Follower { order, after, ready: VecDeque::new() }))
}

/// The number of the event that `Last-Event-ID` names.
fn last_event_id(request: &HeaderMap, id: &str) -> Result<Option<u64>, Problem> {
    let Some(event) = sse::last_event_id(request) else { return Ok(None) };
    history::sequence_of(id, event).map(Some).ok_or_else(|| sse::no_such_event(event, id))
}

/// One client's place in the history.
struct Follower {
    order: EntityRef<Order>,
    /// The number of the last event that was read.
    after: u64,
    /// Read, and not sent yet.
    ready: VecDeque<Sent>,
}

impl sse::Source for Follower {
    async fn next(&mut self) -> Option<Sent> {
        if self.ready.is_empty() {
            let events = read(&self.order, self.after).await?;
            self.after = events.last().map_or(self.after, |event| event.sequence);
            self.ready = events.iter().map(shown).collect();
        }
        self.ready.pop_front()
    }
}

/// The events after number `after`, once there are any; `None` when they cannot be had here.
async fn read(of: &EntityRef<Order>, after: u64) -> Option<Vec<Event>> {
    loop {
        let found = match of.history(after, PAGE, Consistency::Linearizable).await {
            Ok(found) if found.is_empty() => of.changed(after, CHANGE_WAIT).await.map(|_| found),
            other => other,
        };
        match found {
            Ok(found) if found.is_empty() => {}
            Ok(found) => {
                let show = |Recorded { sequence, at_ms, event }: Recorded<order::Event>| {
                    Event::of(of.id(), sequence, at_ms, &event.fact)
                };
                // Why it cannot be shown has been logged.
                return found.into_iter().map(show).collect::<Result<_, _>>().ok();
            }
            Err(error) if passes(&error) => {
                tracing::debug!(order = of.id(), %error, "cannot follow the order just now");
                tokio::time::sleep(OWNER_PAUSE).await;
            }
            Err(error) => {
                tracing::warn!(order = of.id(), %error, "an event stream ends");
                return None;
            }
        }
    }
}

/// Whether it is worth trying again: the owner is changing, or busy.
fn passes(error: &Unavailable) -> bool {
    use Unavailable::{NoQuorum, OutcomeUnknown, Overloaded};
    matches!(error, NoQuorum { .. } | OutcomeUnknown { .. } | Overloaded { .. })
}

fn shown(event: &Event) -> Sent {
    let data = serde_json::to_string(event).unwrap_or_default();
    Sent::default().id(&event.id).event(&event.kind).data(data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingress::problem::Code;

    #[test]
    fn the_last_event_id_is_one_of_this_order_or_an_error_that_names_the_header() {
        let last = |value: &str| {
            let value = value.parse().expect("a header value");
            last_event_id(&HeaderMap::from_iter([(sse::LAST_EVENT_ID, value)]), "ord_a")
        };
        assert_eq!(last("evt_a_7").expect("valid"), Some(7));
        assert_eq!(last("").expect("none"), None);
        assert_eq!(last_event_id(&HeaderMap::new(), "ord_a").expect("none"), None);
        for bad in ["7", "evt_b_7", "evt_a_07", "evt_a_"] {
            let problem = last(bad).expect_err("refused");
            let field = problem.errors[0].field.as_str();
            assert_eq!((problem.code, field), (Code::InvalidHeader, "last-event-id"), "{bad}");
        }
    }
}
