//! HTTP: the shop's API, probes, administration and documentation, over a [`Cluster`].
//!
//! ```text
//! connection ── serve ── envelope ─── (auth) ─── extract ── route ──▶ Cluster ──▶ reply or error
//!               bounds    ids, panics  401, 403   400…422               │
//!                         problems ◀── problem::of_ask ◀────────────────┘
//! ```
//!
//! - [`serve`] owns connections: their number, slow clients, the ordered end.
//! - [`envelope`] is the one middleware: request and trace ids, problems, panics, metrics.
//! - [`auth`] lets in who has a token, where tokens are configured; else it is not there.
//! - [`problem`] knows every error code, and alone chooses the status of a runtime error.
//! - [`identity`] derives ids and fingerprints, so that replays are decided by the entity itself.
//! - [`shop`] maps the commerce entities to routes; [`ops`] and [`admin`] the node, [`tasks`] what
//!   waits and what was given up; [`events`] what happens; [`evidence`] what proves that nothing is lost,
//!   [`faults`] what is broken on purpose, [`backup`] what is taken out whole and put in again. [`sse`] is what streams of events have in common. [`console`] is the
//!   page that shows all that.
//!
//! This module never keeps state of its own beside counters: any node answers any request.

pub mod admin;
pub mod auth;
pub mod backup;
pub mod conditions;
pub mod console;
mod cross_site;
pub mod envelope;
pub mod events;
pub mod evidence;
pub mod extract;
pub mod fallback;
pub mod faults;
pub mod headers;
pub mod identity;
pub mod openapi;
pub mod ops;
pub mod problem;
pub mod reply;
mod serve;
pub mod shop;
pub mod sse;
pub mod tasks;

pub use serve::{Draining, serve};

use crate::Cluster;
use axum::{Router, extract::FromRef, routing::get};
use bytesize::ByteSize;
use std::{sync::Arc, time::Duration};
use tokio::sync::Semaphore;

/// Bounds of the HTTP side of a node.
#[derive(Debug, Clone, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// The largest request body.
    pub body_bytes_max: ByteSize,
    /// A body must be complete this long after its head.
    #[serde(with = "humantime_serde")]
    pub body_read_timeout: Duration,
    /// A request's head must be complete this long after the connection or the previous response;
    /// so it is also how long an idle connection is kept.
    #[serde(with = "humantime_serde")]
    pub header_read_timeout: Duration,
    /// The longest that a client may take nothing of an answer that is ready for it: then its connection is
    /// closed.
    #[serde(with = "humantime_serde")]
    pub send_timeout: Duration,
    /// Connections at one time; one more is answered 503 `too-many-connections` and closed.
    pub connections_max: usize,
    /// The longest `Prefer: wait`; a longer one is cut to this.
    #[serde(with = "humantime_serde")]
    pub prefer_wait_max: Duration,
    /// How long a write is tried before the client is told that there is no quorum, or that the
    /// outcome is unknown. `Prefer: wait` begins after it: once the write is acknowledged.
    #[serde(with = "humantime_serde")]
    pub write_timeout: Duration,
    /// How long requests in flight may take when the node stops.
    #[serde(with = "humantime_serde")]
    pub drain_timeout: Duration,
    /// Event streams open at one time; one more is answered 429 `overloaded`.
    pub event_streams_max: usize,
    /// The longest silence of an event stream: then it gets a comment, so that nobody between here
    /// and the client takes it for dead.
    #[serde(with = "humantime_serde")]
    pub event_silence_max: Duration,
    /// Who may use this interface, and for what: a name, a role (`read`, `write`, `admin`) and a
    /// token, `token_file` or `sha256` each. None: everybody, for everything.
    #[serde(deserialize_with = "auth::read_list")]
    pub tokens: Vec<auth::TokenOptions>,
    /// Web sites beside the node's own whose pages may have browsers send changes: `https://shop.example` each.
    pub trusted_origins: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            body_bytes_max: ByteSize::mib(1),
            body_read_timeout: Duration::from_secs(30),
            header_read_timeout: Duration::from_secs(30),
            send_timeout: Duration::from_secs(30),
            connections_max: 10_000,
            prefer_wait_max: Duration::from_secs(30),
            write_timeout: Duration::from_millis(2500),
            drain_timeout: Duration::from_secs(30),
            event_streams_max: 1000,
            event_silence_max: Duration::from_secs(15),
            tokens: Vec::new(),
            trusted_origins: Vec::new(),
        }
    }
}

impl Options {
    /// Everything that is wrong with the tokens, as far as can be seen without opening a file.
    #[must_use]
    pub fn token_problems(&self) -> Vec<auth::Invalid> {
        auth::problems(&self.tokens)
    }

    /// Trusted origins that no browser would send.
    pub fn wrong_origins(&self) -> impl Iterator<Item = &String> {
        cross_site::wrong_origins(&self.trusted_origins)
    }

    /// Whether the tokens can be used, those in files included. A router whose tokens cannot be
    /// used lets nobody in.
    ///
    /// # Errors
    /// One sentence for the operator.
    pub fn check_tokens(&self) -> Result<(), String> {
        auth::Tokens::resolve(&self.tokens).map(drop).map_err(|invalid| invalid.to_string())
    }
}

/// What every handler has at hand. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    pub cluster: Cluster,
    pub options: Arc<Options>,
    /// One permit per event stream that may still be opened.
    pub streams: Arc<Semaphore>,
}

impl FromRef<Api> for extract::Limits {
    fn from_ref(api: &Api) -> Self {
        Self {
            body_bytes_max: usize::try_from(api.options.body_bytes_max.as_u64()).unwrap_or(usize::MAX),
            body_read_timeout: api.options.body_read_timeout,
        }
    }
}

/// Everything under one roof, unknown routes included: what a node serves.
pub fn router(cluster: Cluster, options: &Options) -> Router {
    finish(all_routes().fallback(fallback::route_not_found), cluster, options)
}

/// The same routes without a fallback, for mounting in an app that has routes of its own: what
/// this router does not know stays that app's to answer.
pub fn routes(cluster: Cluster, options: &Options) -> Router {
    finish(all_routes(), cluster, options)
}

fn all_routes() -> Router<Api> {
    Router::new()
        .merge(shop::routes())
        .merge(ops::routes())
        .merge(console::routes())
        .merge(admin::routes())
        .merge(backup::routes())
        .merge(tasks::routes())
        .merge(events::routes())
        .merge(evidence::routes())
        .merge(faults::routes())
        .merge(openapi::routes())
        .route("/problems/{code}", get(fallback::explain))
        .method_not_allowed_fallback(fallback::method_not_allowed)
}

fn finish(mut router: Router<Api>, cluster: Cluster, options: &Options) -> Router {
    // Before the first request is counted.
    crate::telemetry::metrics();
    let streams = Arc::new(Semaphore::new(options.event_streams_max.min(Semaphore::MAX_PERMITS)));
    let api = Api { cluster, options: Arc::new(options.clone()), streams };
    let trusted = cross_site::Trusted::of(&options.trusted_origins);
    router = router.layer(axum::middleware::from_fn_with_state(trusted, cross_site::check));
    if let Some(guard) = auth::Guard::of(&options.tokens) {
        router = router.layer(axum::middleware::from_fn_with_state(guard, auth::check));
    }
    router.layer(axum::middleware::from_fn(envelope::wrap)).with_state(api)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_written_by_people() {
        let written = "body_bytes_max = \"2MiB\"\nheader_read_timeout = \"500ms\"\n";
        let options: Options = toml::from_str(written).expect("valid options");
        assert_eq!(options.body_bytes_max, ByteSize::mib(2));
        assert_eq!(options.header_read_timeout, Duration::from_millis(500));
        assert_eq!(options.connections_max, Options::default().connections_max);
        assert!(toml::from_str::<Options>("conections_max = 1").is_err());
    }
}
