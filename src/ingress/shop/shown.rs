//! How the shop's entities are shown: read by their id, answered after a change, followed for a
//! client that prefers to wait.

use crate::{
    cluster::{Consistency, EntityRef, Receipt, Unavailable},
    commerce::{Order, OrderView, Payment, PaymentView, Reservation, ReservationView, Stock, StockView},
    entity::Entity,
    ingress::{
        Api,
        extract::{Params, entity_id},
        headers::{PREFERENCE_APPLIED, prefer_wait},
        problem::{Code, Problem},
        reply::{self, Read},
    },
};
use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    response::Response,
};
use serde::Serialize;
use std::time::Duration;
use tokio::time::Instant;

/// Between two tries to hear of an entity whose owner cannot be reached just now.
pub(super) const OWNER_PAUSE: Duration = Duration::from_millis(50);
/// Events read at a time where an entity has gone on since it was changed.
const EVENTS_READ: usize = 100;

/// An entity that clients see.
pub(super) trait Shown: Entity {
    type View: Serialize + Send;
    /// What people call it.
    const NAMED: &'static str;

    /// What is shown of a state; nothing if there is no such entity.
    fn view(id: &str, state: &Self::State, version: u64) -> Option<Self::View>;
}

/// An entity that goes on by itself, so that clients may wait for where it gets.
pub(super) trait Awaited: Shown {
    /// Nothing happens to it any more by itself.
    fn is_settled(view: &Self::View) -> bool;
}

macro_rules! shown {
    ($entity:ty, $view:ty, $named:literal) => {
        impl Shown for $entity {
            type View = $view;
            const NAMED: &'static str = $named;

            fn view(id: &str, state: &Self::State, version: u64) -> Option<$view> {
                <$view>::of(id, state, version)
            }
        }
    };
}

shown!(Order, OrderView, "order");
shown!(Payment, PaymentView, "payment");
shown!(Reservation, ReservationView, "reservation");
shown!(Stock, StockView, "stock item");

impl Awaited for Order {
    fn is_settled(view: &OrderView) -> bool {
        view.is_settled()
    }
}

impl Awaited for Payment {
    fn is_settled(view: &PaymentView) -> bool {
        view.is_settled()
    }
}

/// Answers a GET of one entity.
pub(super) async fn read<E: Shown>(api: &Api, id: String, uri: &Uri, request: &HeaderMap) -> Result<Response, Problem> {
    let mut params = Params::of(uri)?;
    let consistency = reply::consistency(&mut params)?;
    params.finish()?;
    let id = entity_id(E::NAMED, id)?;
    let found = api.cluster.entity::<E>(id.as_str()).state(consistency).await?;
    let view = E::view(&id, &found.state, found.version).ok_or_else(|| Problem::not_found(E::NAMED, &id))?;
    let read = Read { request, consistency, version: found.version, applied_index: found.applied_index };
    Ok(read.respond(&view))
}

/// 500: an entity answered a change without showing itself.
pub(super) fn no_answer<E: Shown>(id: &str) -> Problem {
    tracing::error!(entity = E::NAMED, %id, "an entity answered a change without itself");
    Problem::new(Code::Internal, format!("the {} gave no answer", E::NAMED))
}

/// Tells where what was made is found.
pub(super) fn add_location(response: &mut Response, route: &str, id: &str) {
    if let Ok(location) = HeaderValue::from_str(&format!("{route}/{id}")) {
        response.headers_mut().insert(header::LOCATION, location);
    }
}

/// An entity after a write, before it is shown.
pub(super) struct Written<E: Awaited> {
    id: String,
    state: E::State,
    view: E::View,
    version: u64,
    replayed: bool,
    receipt: Option<Receipt>,
}

impl<E: Awaited> Written<E> {
    /// `state` is what the entity answered; it must have.
    pub fn new(id: &str, state: Option<E::State>, version: u64, replayed: bool) -> Result<Self, Problem> {
        let shown = state.and_then(|state| Some((E::view(id, &state, version)?, state)));
        let (view, state) = shown.ok_or_else(|| no_answer::<E>(id))?;
        Ok(Self { id: id.to_owned(), state, view, version, replayed, receipt: None })
    }

    /// With what proves the write.
    pub fn with_receipt(self, receipt: Option<Receipt>) -> Self {
        Self { receipt, ..self }
    }

    /// Waits, if the client prefers to, and answers.
    pub async fn respond(mut self, api: &Api, status: StatusCode, request: &HeaderMap) -> Response {
        let wait = prefer_wait(request, api.options.prefer_wait_max);
        if let Some(wait) = wait {
            self.settle(api, wait).await;
        }
        let written = reply::written(status, &self.view, self.version, self.replayed);
        let mut response = reply::with_receipt(written, self.receipt);
        if let Some(wait) = wait
            && let Ok(applied) = HeaderValue::from_str(&format!("wait={}", wait.as_secs()))
        {
            response.headers_mut().insert(PREFERENCE_APPLIED, applied);
        }
        response
    }

    /// Follows the entity from the write until it is first settled, at most for `wait`: the same for
    /// every retry, whatever has become of the entity since. The write is accepted whatever happens
    /// here, so trouble on the way is no error: it is then shown as it was last seen.
    async fn settle(&mut self, api: &Api, wait: Duration) {
        let entity = api.cluster.entity::<E>(self.id.as_str());
        let deadline = Instant::now() + wait;
        while !E::is_settled(&self.view) && Instant::now() < deadline {
            let followed = match entity.changed(self.version, deadline - Instant::now()).await {
                Ok(found) if found.version == self.version + 1 => {
                    self.show(found.state, found.version);
                    Ok(())
                }
                // It may have been settled in between.
                Ok(found) if found.version > self.version => self.catch_up(&entity).await,
                // The time is up.
                Ok(_) => return,
                Err(error) => Err(error),
            };
            if let Err(error) = followed {
                tracing::debug!(entity = E::NAMED, id = %self.id, %error, "cannot be followed just now");
                tokio::time::sleep(OWNER_PAUSE).await;
            }
        }
    }

    /// Goes through what happened since, change by change, up to where it is settled. Events of one
    /// change have one time; between them the entity was never seen.
    async fn catch_up(&mut self, entity: &EntityRef<E>) -> Result<(), Unavailable> {
        let events = entity.history(self.version, EVENTS_READ, Consistency::Linearizable).await?;
        let changes: Vec<_> = events.chunk_by(|one, next| one.at_ms == next.at_ms).collect();
        // More of the last one may come with the next page.
        let whole = if events.len() < EVENTS_READ { changes.len() } else { changes.len().saturating_sub(1).max(1) };
        for change in changes.into_iter().take(whole) {
            let (mut state, mut version) = (self.state.clone(), self.version);
            for recorded in change {
                E::evolve(&mut state, &recorded.event);
                version = recorded.sequence;
            }
            self.show(state, version);
            if E::is_settled(&self.view) {
                break;
            }
        }
        Ok(())
    }

    fn show(&mut self, state: E::State, version: u64) {
        if let Some(view) = E::view(&self.id, &state, version) {
            (self.state, self.view, self.version) = (state, view, version);
        }
    }
}
