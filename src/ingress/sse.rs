//! What every stream of server-sent events has in common: who wants one, how many there may be, how a
//! quiet one is kept alive, and when it ends.
//!
//! ```text
//! Source: the next event ─▶ client
//!            │ none for a while ─▶ comment
//!            │ the node stops ───▶ end; clients of `EventSource` come back by themselves
//! ```
//!
//! Bounds: `http.event_streams_max` streams per node. Nothing is read from a source before the client
//! has taken what came before.

use super::{
    Api, Draining,
    problem::{Code, Problem},
};
use axum::{
    http::{HeaderMap, HeaderName, header},
    response::{
        IntoResponse, Response,
        sse::{Event, Sse},
    },
};
use futures::{
    FutureExt, StreamExt,
    future::BoxFuture,
    stream::{self, Stream},
};
use std::{convert::Infallible, time::Duration};
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

/// What a client names that comes back.
pub const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// How long a client waits before it comes back, unless it knows better.
const RETRY: Duration = Duration::from_secs(1);
const EVENT_STREAM: &str = "text/event-stream";
/// Tells nginx, and those that learned from it, to pass events on as they come.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Where the events of one stream come from.
pub trait Source: Send + 'static {
    /// The next event, once there is one; `None` ends the stream. What it waits for may be dropped and
    /// asked for again: nothing is lost by that.
    fn next(&mut self) -> impl Future<Output = Option<Event>> + Send;
}

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

/// What `Last-Event-ID` says. An empty one is none, as the standard says.
pub fn last_event_id(request: &HeaderMap) -> Option<&str> {
    let value = request.get(LAST_EVENT_ID).filter(|value| !value.is_empty())?;
    Some(value.to_str().unwrap_or("?"))
}

/// `Last-Event-ID` is no event of what was asked for.
pub fn no_such_event(event: &str, of: &str) -> Problem {
    let event: String = event.chars().take(64).collect();
    let detail = format!("`{event}` is no event of {of}; send the `id` of the last event as it came");
    Problem::field(Code::InvalidHeader, LAST_EVENT_ID.as_str(), detail)
}

/// A place among the streams of this node, which is taken until it is dropped.
pub fn admit(api: &Api) -> Result<OwnedSemaphorePermit, Problem> {
    api.streams.clone().try_acquire_owned().map_err(|_| {
        let limit = api.options.event_streams_max;
        Problem::new(Code::Overloaded, format!("this node has {limit} event streams open, as many as it takes"))
            .retry_after(1)
    })
}

/// The answer that a stream is.
pub fn respond(api: &Api, place: OwnedSemaphorePermit, draining: Option<Draining>, source: impl Source) -> Response {
    let silence_max = api.options.event_silence_max;
    let comment_at = Instant::now() + silence_max;
    let stream = Live { source, silence_max, comment_at, end: end(api, draining), _place: place };
    let hello = Event::default().retry(RETRY);
    let events = stream::iter([Ok(hello)]).chain(stream.into_stream());
    ([(ACCEL_BUFFERING, "no")], Sse::new(events)).into_response()
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

/// A stream that is open.
struct Live<S> {
    source: S,
    silence_max: Duration,
    comment_at: Instant,
    end: BoxFuture<'static, ()>,
    _place: OwnedSemaphorePermit,
}

impl<S: Source> Live<S> {
    fn into_stream(self) -> impl Stream<Item = Result<Event, Infallible>> {
        stream::unfold(self, |mut live| async move {
            let event = live.next().await?;
            live.comment_at = Instant::now() + live.silence_max;
            Some((Ok(event), live))
        })
    }

    async fn next(&mut self) -> Option<Event> {
        tokio::select! {
            biased;
            () = &mut self.end => None,
            event = self.source.next() => event,
            () = tokio::time::sleep_until(self.comment_at) => Some(Event::default().comment("")),
        }
    }
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
    fn an_empty_last_event_id_is_none() {
        assert_eq!(last_event_id(&headers("last-event-id", "evt_a_7")), Some("evt_a_7"));
        assert_eq!(last_event_id(&headers("last-event-id", "")), None);
        assert_eq!(last_event_id(&HeaderMap::new()), None);
    }
}
