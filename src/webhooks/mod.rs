//! Webhooks: what happens in the shop, told to endpoints outside, signed as Standard Webhooks
//! prescribes.
//!
//! ```text
//! owner of an order: decide ─▶ events ┐ one log entry
//!   tap (node's copy of the endpoints)└▶ tell ─▶ delivery of (endpoint, order) ─▶ task ─▶ sender ─▶ POST
//!         ▲                                              ▲                                │
//!   endpoints ── changed ── watch on every node          └────── how far it has come ◀────┘
//! ```
//!
//! - [`endpoints`] is the one entity that holds all endpoints; every node keeps a [`copy`] of it.
//! - [`tap`] adds, to the entry that holds the events, a word for each endpoint that wants one of
//!   them. Without endpoints it adds nothing.
//! - [`delivery`], one per endpoint and subject, sees to it that the subject's events are sent one
//!   after the other, in their order; [`sender`] reads them from the subject's history.
//! - [`announcement`] is for an owner whose copy is not there yet, or too old: it looks later.
//!
//! What holds: an event is sent at least once, always under the same id; of one subject, and to one
//! endpoint, none is sent before the one ahead of it was taken or discarded. Endpoints have queues
//! of their own: a slow one holds up no other. docs/decisions/0025-webhooks.md has the reasons.

pub mod announcement;
pub mod copy;
pub mod delivery;
pub mod endpoints;
pub mod events;
pub mod request;
pub mod secret;
pub mod sender;
pub mod tap;
pub mod view;

pub use endpoints::{ALL, ENDPOINTS_MAX, Endpoint, Endpoints};
pub use request::{CreateEndpoint, RotateSecret, UpdateEndpoint};
pub use view::EndpointView;

use crate::{
    cluster::{Builder, Extension, TaskQueue},
    commerce::{Order, Payment, Reservation},
    entity::Retry,
    outbound::Trust,
};
use announcement::Announcement;
use copy::{Copies, Copy};
use delivery::Delivery;
use sender::Sender;
use std::{sync::Arc, time::Duration};
use tap::Announcer;

/// Requests under way to one endpoint from one node.
pub const CONCURRENCY: usize = 32;
/// About three days of attempts: 5 s after the first, doubling up to 4 h.
const RETRY: Retry =
    Retry { attempts_max: 29, backoff_min_ms: 5_000, backoff_max_ms: 4 * 3_600_000, attempt_timeout_ms: 30_000 };
/// Asking the cluster itself: until it answers.
const ANNOUNCE_RETRY: Retry =
    Retry { attempts_max: 10_000, backoff_min_ms: 100, backoff_max_ms: 30_000, attempt_timeout_ms: 30_000 };

/// Registers what webhooks need. After the shop's entities, of which they tell; the queues may be
/// changed after it, under [`delivery::handler`]. Receivers with https must be certified by one of `trust`.
pub fn register(mut builder: Builder, trust: Trust) -> Builder {
    let queue = TaskQueue { concurrency: Some(CONCURRENCY), retry: RETRY, ..TaskQueue::default() };
    for slot in 0..ENDPOINTS_MAX {
        builder = builder.task_queue(&delivery::handler(slot), queue.clone());
    }
    let patient = TaskQueue { concurrency: Some(CONCURRENCY), retry: ANNOUNCE_RETRY, ..TaskQueue::default() };
    builder
        .entity::<Endpoints>()
        .entity::<Copies>()
        .entity::<Delivery>()
        .entity::<Announcement>()
        .task_queue(announcement::HANDLER, patient)
        .extend(move |node| on_node(node, &trust))
}

fn on_node(node: &mut Extension<'_>, trust: &Trust) {
    let copy = Arc::new(Copy::default());
    let announcer = Arc::new(Announcer::new(copy.clone()));
    node.tap::<Order>(announcer.clone());
    node.tap::<Payment>(announcer.clone());
    node.tap::<Reservation>(announcer);
    let sender = Arc::new(Sender::new(node.node(), copy.clone(), trust.clone()));
    for slot in 0..ENDPOINTS_MAX {
        let sender = sender.clone();
        node.task_handler(&delivery::handler(slot), move |_, round| {
            let sender = sender.clone();
            async move { sender.send(round).await }
        });
    }
    let (handle, known) = (node.node(), copy.clone());
    node.task_handler(announcement::HANDLER, move |_, notice| {
        announcement::deliver(handle.clone(), known.clone(), notice)
    });
    node.service(move |cluster| copy::watch(cluster, copy));
}

/// How long a node may act on what it last heard of the endpoints. Whatever it decides later goes
/// the way of [`announcement`], so it is also how long a change may take to hold everywhere.
pub const COPY_VALID: Duration = Duration::from_secs(10);
