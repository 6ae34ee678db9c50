//! An order's history as server-sent events: what has happened, then what happens.
//!
//! ```text
//! history after the last event seen ─▶ client … none left ─▶ wait at the owner for a change ─▶ history
//!                                                 └ nothing for a while ─▶ comment
//! ```
//!
//! A stream reads the history like any other client and keeps nothing but the number of the last
//! event it sent. So it goes on by itself when the owner changes, and a client that comes back
//! with `Last-Event-ID`, through whichever node, misses nothing and sees nothing twice. It ends
//! when the node stops; clients of `EventSource` then come back by themselves.
//!
//! Bounds: `http.event_streams_max` streams per node, of each at most [`PAGE`] events in memory;
//! a slow client is waited for.

use super::history::{self, Event};
use crate::{
    cluster::{Consistency, EntityRef, Recorded, Unavailable},
    commerce::{Order, order},
    ingress::{
        Api, Draining,
        extract::{Params, entity_id},
        problem::{Code, Problem},
    },
};
use axum::{
    http::{HeaderMap, HeaderName, Uri, header},
    response::{
        IntoResponse, Response,
        sse::{self, Sse},
    },
};
use futures::{
    FutureExt, StreamExt,
    future::BoxFuture,
    stream::{self, Stream},
};
use std::{collections::VecDeque, convert::Infallible, time::Duration};
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

/// Events read at a time.
const PAGE: usize = 100;
/// How long a client waits before it comes back, unless it knows better.
const RETRY: Duration = Duration::from_secs(1);
/// How long one question for a change may wait; then it is asked again.
const CHANGE_WAIT: Duration = Duration::from_secs(60);
/// Between two tries to reach an owner that cannot be reached just now.
const OWNER_PAUSE: Duration = Duration::from_millis(50);
const EVENT_STREAM: &str = "text/event-stream";
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Tells nginx, and those that learned from it, to pass events on as they come.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Whether the client names `text/event-stream` and does not name JSON as the better choice.
pub fn is_wanted(request: &HeaderMap) -> bool {
    let accepted = || {
        let values = request.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).map(quality)
    };
    let best = |media: &str| accepted().filter(|(name, _)| name == media).map(|(_, q)| q).max().unwrap_or(0);
    let events = best(EVENT_STREAM);
    events > 0 && events >= best("application/json")
}

/// A media range and how much it is wanted, in thousandths. A malformed weight counts as none.
fn quality(range: &str) -> (String, u32) {
    let mut parts = range.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default().to_ascii_lowercase();
    let weight = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
    let weight = weight.map_or(1.0, |weight| weight.parse::<f32>().unwrap_or(0.0));
    (name, (weight.clamp(0.0, 1.0) * 1000.0) as u32)
}

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
    let permit = api.streams.clone().try_acquire_owned().map_err(|_| {
        let limit = api.options.event_streams_max;
        Problem::new(Code::Overloaded, format!("this node has {limit} event streams open, as many as it takes"))
            .retry_after(1)
    })?;
    let order = api.cluster.entity::<Order>(id.as_str());
    if order.state(Consistency::Linearizable).await?.version == 0 {
        return Err(Problem::not_found("order", &id));
    }
    let silence_max = api.options.event_silence_max;
    let follower = Follower {
        order,
        after,
        ready: VecDeque::new(),
        silence_max,
        comment_at: Instant::now() + silence_max,
        end: end(api, draining),
        _permit: permit,
    };
    let hello = sse::Event::default().retry(RETRY);
    let events = stream::iter([Ok(hello)]).chain(follower.into_stream());
    Ok(([(ACCEL_BUFFERING, "no")], Sse::new(events)).into_response())
}

/// The number of the event that `Last-Event-ID` names. An empty one is none, as the standard says.
fn last_event_id(request: &HeaderMap, id: &str) -> Result<Option<u64>, Problem> {
    let Some(value) = request.get(LAST_EVENT_ID).filter(|value| !value.is_empty()) else { return Ok(None) };
    let event = value.to_str().unwrap_or_default();
    let sequence = history::sequence_of(id, event);
    let detail = || format!("`{event}` is no event of {id}; send the `id` of the last event as it came");
    sequence.map(Some).ok_or_else(|| Problem::field(Code::InvalidHeader, LAST_EVENT_ID.as_str(), detail()))
}

/// Completes when streams have to end: the server drains, or the node stops under it.
fn end(api: &Api, draining: Option<Draining>) -> BoxFuture<'static, ()> {
    let cluster = api.cluster.clone();
    async move {
        match draining {
            Some(draining) => tokio::select! {
                () = draining.begun() => {}
                () = cluster.draining() => {}
            },
            None => cluster.draining().await,
        }
    }
    .boxed()
}

/// One client's place in the history.
struct Follower {
    order: EntityRef<Order>,
    /// The number of the last event that was read.
    after: u64,
    /// Read, and not sent yet.
    ready: VecDeque<sse::Event>,
    silence_max: Duration,
    comment_at: Instant,
    end: BoxFuture<'static, ()>,
    _permit: OwnedSemaphorePermit,
}

impl Follower {
    fn into_stream(self) -> impl Stream<Item = Result<sse::Event, Infallible>> {
        stream::unfold(self, |mut follower| async move {
            let event = follower.next().await?;
            follower.comment_at = Instant::now() + follower.silence_max;
            Some((Ok(event), follower))
        })
    }

    async fn next(&mut self) -> Option<sse::Event> {
        if self.ready.is_empty() {
            tokio::select! {
                biased;
                () = &mut self.end => return None,
                read = read(&self.order, self.after) => {
                    let events = read?;
                    self.after = events.last().map_or(self.after, |event| event.sequence);
                    self.ready = events.iter().map(shown).collect();
                }
                () = tokio::time::sleep_until(self.comment_at) => return Some(sse::Event::default().comment("")),
            }
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

fn shown(event: &Event) -> sse::Event {
    let data = serde_json::to_string(event).unwrap_or_default();
    sse::Event::default().id(&event.id).event(&event.kind).data(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(HeaderName::from_static(name), value.parse().expect("a header value"))])
    }

    #[test]
    fn a_stream_is_for_who_names_it() {
        for wanted in [
            "text/event-stream",
            "Text/Event-Stream; q=0.1",
            "text/event-stream, */*",
            "application/json;q=0.5, text/event-stream",
        ] {
            assert!(is_wanted(&headers("accept", wanted)), "{wanted}");
        }
        for unwanted in [
            "*/*",
            "text/*",
            "application/json",
            "application/json, text/event-stream;q=0.5",
            "text/event-stream;q=0",
            "text/event-stream;q=x",
            "",
        ] {
            assert!(!is_wanted(&headers("accept", unwanted)), "{unwanted}");
        }
        assert!(!is_wanted(&HeaderMap::new()));
    }

    #[test]
    fn the_last_event_id_is_one_of_this_order_or_an_error_that_names_the_header() {
        let last = |value: &str| last_event_id(&headers("last-event-id", value), "ord_a");
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
