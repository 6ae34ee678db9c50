//! Sends a round: the subject's events from its history, one after the other.

use super::{
    copy::{self, Copy},
    delivery::{Progress, Round},
    endpoints::{ENDPOINTS_MAX, Endpoint},
    events::{self, Announced, type_of},
    secret::signatures,
};
use crate::{
    Cluster,
    cluster::{Consistency, NodeHandle, Recorded, TaskError},
    commerce::{Order, Payment, Reservation},
    entity::Entity,
    outbound::{Connections, HttpUrl, Origin, Trust},
};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, header};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::time::Instant;

/// For one whole exchange, connecting included.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A round begins no further request after this, so that it ends before its time is up.
const ROUND_TIME: Duration = Duration::from_secs(15);
/// Events read at a time.
const PAGE: usize = 500;

/// What a node sends with. Holds idle connections and nothing else.
pub struct Sender {
    node: NodeHandle,
    copy: Arc<Copy>,
    trust: Trust,
    connections: Mutex<HashMap<Origin, Arc<Connections>>>,
}

/// An event on its way.
struct Message {
    id: String,
    body: Vec<u8>,
}

impl Sender {
    pub fn new(node: NodeHandle, copy: Arc<Copy>, trust: Trust) -> Self {
        Self { node, copy, trust, connections: Mutex::default() }
    }

    /// # Errors
    /// If the first event that is to be sent was not taken. A later one ends the round: what was
    /// taken before it is noted first, and it has all its attempts before it.
    pub async fn send(&self, round: Round) -> Result<Progress, TaskError> {
        let cluster = self.node.cluster().ok_or_else(|| again("the node has not started"))?;
        match round.subject_type.as_str() {
            Order::TYPE => self.send_of::<Order>(&cluster, &round).await,
            Payment::TYPE => self.send_of::<Payment>(&cluster, &round).await,
            Reservation::TYPE => self.send_of::<Reservation>(&cluster, &round).await,
            other => Err(TaskError::Fatal(format!("events of `{other}` are not sent"))),
        }
    }

    async fn send_of<E: Announced>(&self, cluster: &Cluster, round: &Round) -> Result<Progress, TaskError> {
        let begun = Instant::now();
        let (mut state, mut reached, mut too_old, mut sent_from) = (E::State::default(), round.after, false, None);
        let (mut skip, mut moved) = (round.skip, false);
        for recorded in history::<E>(cluster, &round.subject_id).await? {
            let before = E::mark(&state);
            E::evolve(&mut state, &recorded.event);
            if recorded.sequence <= round.after {
                continue;
            }
            // Each time: it may be disabled meanwhile.
            let Some(endpoint) = self.endpoint(cluster, &round.endpoint).await? else { return Ok(Progress::Stopped) };
            let word = E::word(before, &recorded.event, E::mark(&state));
            if let Some(word) = word.filter(|word| endpoint.wants(&type_of::<E>(word))) {
                if recorded.sequence < round.from && recorded.at_ms < endpoint.since_ms {
                    too_old = true;
                } else {
                    if too_old {
                        sent_from.get_or_insert(recorded.sequence);
                    }
                    if std::mem::take(&mut skip) {
                        tracing::info!(endpoint = endpoint.id, subject = round.subject_id, "an event is left out");
                    } else {
                        if moved && begun.elapsed() > ROUND_TIME {
                            break;
                        }
                        let message = message::<E>(&round.subject_id, word, &recorded, &state)?;
                        match self.post(&endpoint, message).await {
                            Ok(()) => {}
                            Err(_) if moved => break,
                            Err(why) => return Err(again(format!("event {}: {why}", recorded.sequence))),
                        }
                    }
                    moved = true;
                }
            }
            reached = recorded.sequence;
        }
        if too_old {
            sent_from.get_or_insert(reached + 1);
        }
        Ok(Progress::Reached { reached, sent_from })
    }

    /// The endpoint, if it is still to be told anything.
    async fn endpoint(&self, cluster: &Cluster, id: &str) -> Result<Option<Endpoint>, TaskError> {
        let endpoints = copy::current(&self.copy, cluster).await.map_err(again)?;
        Ok(endpoints.iter().find(|endpoint| endpoint.id == id && endpoint.enabled).cloned())
    }

    async fn post(&self, endpoint: &Endpoint, message: Message) -> Result<(), String> {
        let begun = Instant::now();
        let sent = tokio::time::timeout(REQUEST_TIMEOUT, self.exchange(endpoint, message)).await;
        let sent = sent.unwrap_or_else(|_| Err(format!("no answer within {REQUEST_TIMEOUT:?}")));
        let outcome = if sent.is_ok() { "delivered" } else { "failed" };
        metrics::counter!("quorate_webhook_requests_total", "outcome" => outcome).increment(1);
        metrics::histogram!("quorate_webhook_seconds").record(begun.elapsed().as_secs_f64());
        sent
    }

    async fn exchange(&self, endpoint: &Endpoint, Message { id, body }: Message) -> Result<(), String> {
        let url = HttpUrl::parse(&endpoint.url).map_err(|bad| format!("its URL is {bad}"))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let signature = signatures(endpoint.secrets_at(now_ms), &id, now.as_secs(), &body);
        let request = Request::post(url.path_and_query.as_str())
            .header(header::HOST, url.origin.host_header())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("quorate/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", id)
            .header("webhook-timestamp", now.as_secs())
            .header("webhook-signature", signature)
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| format!("cannot be sent: {error}"))?;
        let (status, _) = self.connections(&url.origin).send(request).await.map_err(|error| error.to_string())?;
        match status {
            status if status.is_success() => Ok(()),
            status if status.is_redirection() => {
                Err(format!("the endpoint answered {}; redirects are not followed", status.as_u16()))
            }
            status => Err(format!("the endpoint answered {}", status.as_u16())),
        }
    }

    fn connections(&self, origin: &Origin) -> Arc<Connections> {
        let mut open = self.connections.lock();
        if !open.contains_key(origin) && open.len() >= usize::from(ENDPOINTS_MAX) {
            // Endpoints have moved; those in use are opened again.
            open.clear();
        }
        let new = || Arc::new(Connections::new(origin.clone(), self.trust.clone(), CONNECT_TIMEOUT));
        open.entry(origin.clone()).or_insert_with(new).clone()
    }
}

async fn history<E: Entity>(cluster: &Cluster, id: &str) -> Result<Vec<Recorded<E::Event>>, TaskError> {
    let entity = cluster.entity::<E>(id);
    let mut history = Vec::new();
    loop {
        let after = history.last().map_or(0, |last: &Recorded<E::Event>| last.sequence);
        let page = entity.history(after, PAGE, Consistency::Linearizable).await.map_err(again)?;
        let complete = page.len() < PAGE;
        history.extend(page);
        if complete {
            return Ok(history);
        }
    }
}

fn message<E: Announced>(
    subject: &str,
    word: &str,
    recorded: &Recorded<E::Event>,
    state: &E::State,
) -> Result<Message, TaskError> {
    let sequence = recorded.sequence;
    let object = E::view(subject, state, sequence)
        .ok_or_else(|| TaskError::Fatal(format!("{} {subject} cannot be shown at event {sequence}", E::TYPE)))?;
    Ok(Message { id: E::event_id(subject, sequence), body: events::body::<E>(subject, word, recorded, object) })
}

fn again(why: impl ToString) -> TaskError {
    TaskError::Retry(why.to_string())
}
