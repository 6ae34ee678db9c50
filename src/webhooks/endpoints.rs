//! All endpoints, in one entity: few, seldom changed, and every node follows them.

use super::{events::matches, secret::Secret};
use crate::entity::{Context, Decision, Entity};
use serde::{Deserialize, Serialize};

/// The entity's id.
pub const ALL: &str = "all";
/// Each has a queue of its own on every node.
pub const ENDPOINTS_MAX: u8 = 16;
/// Secrets before the present one that still sign.
pub const OLD_SECRETS_MAX: usize = 3;

/// The entity that holds the endpoints.
pub struct Endpoints;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// In the order in which they were made.
    pub endpoints: Vec<Endpoint>,
}

/// Somebody outside who is told what happens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    pub id: String,
    /// Which of the queues is its own.
    pub slot: u8,
    pub url: String,
    pub enabled_events: Vec<String>,
    pub description: Option<String>,
    pub enabled: bool,
    pub secret: Secret,
    pub old_secrets: Vec<OldSecret>,
    /// Changes so far, from 1.
    pub version: u64,
    pub created_at_ms: u64,
    pub updated_at_ms: u64,
    /// Since when it is to hear of what happens.
    pub since_ms: u64,
}

/// A secret that was replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OldSecret {
    pub secret: Secret,
    pub until_ms: u64,
}

/// What an endpoint is told to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    pub url: String,
    pub enabled_events: Vec<String>,
    pub description: Option<String>,
    pub enabled: bool,
}

/// What is to change of an endpoint; `None` stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    pub url: Option<String>,
    pub enabled_events: Option<Vec<String>>,
    /// Empty: none any more.
    pub description: Option<String>,
    pub enabled: Option<bool>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    pub id: String,
    /// Refuse unless the endpoint is at this version; 0: unless it is not there.
    pub if_version: Option<u64>,
    pub what: What,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    Create {
        settings: Settings,
        secret: Secret,
    },
    Update(Changes),
    /// The old secret signs beside the new one for so long.
    RotateSecret {
        secret: Secret,
        grace_ms: u64,
    },
    Delete,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    Created(Box<Endpoint>),
    /// As it is now.
    Updated(Box<Endpoint>),
    SecretRotated(Box<Endpoint>),
    Deleted {
        id: String,
        at_ms: u64,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    Endpoint(Box<Endpoint>),
    Deleted,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Rejection {
    #[error("there is no such endpoint")]
    NotFound,
    #[error("the endpoint is at version {actual}")]
    VersionMismatch { actual: u64 },
    #[error("there are {ENDPOINTS_MAX} endpoints, as many as there may be; delete one first")]
    TooManyEndpoints,
    #[error(
        "{OLD_SECRETS_MAX} replaced secrets still sign; rotate again when one has run out, or with a grace of 0s, which ends them all"
    )]
    TooManySecrets,
}

impl Entity for Endpoints {
    const TYPE: &'static str = "webhook_endpoints";

    type State = State;
    type Command = Command;
    type Event = Event;
    type Reply = Reply;
    type Rejection = Rejection;

    fn decide(state: &State, command: Command, context: &Context<'_>) -> Decision<Self> {
        let Command { id, if_version, what } = command;
        let known = state.find(&id);
        let actual = known.map_or(0, |endpoint| endpoint.version);
        if if_version.is_some_and(|expected| expected != actual) && (known.is_some() || creates(&what)) {
            return Decision::reject(Rejection::VersionMismatch { actual });
        }
        let now_ms = context.now_ms;
        let decided = match (what, known) {
            (What::Create { settings, secret }, None) => state.create(id, settings, secret, now_ms),
            // Ids are random: the same one comes again only by mistake.
            (What::Create { .. }, Some(_)) => Err(Rejection::VersionMismatch { actual }),
            (_, None) => Err(Rejection::NotFound),
            (What::Update(changes), Some(known)) => Ok(known.update(changes, now_ms)),
            (What::RotateSecret { secret, grace_ms }, Some(known)) => known.rotate(secret, grace_ms, now_ms),
            (What::Delete, Some(_)) => {
                return Decision::accept(vec![Event::Deleted { id, at_ms: now_ms }], Reply::Deleted);
            }
        };
        match decided {
            Err(rejection) => Decision::Reject(rejection),
            Ok((event, endpoint)) => Decision::accept(event.into_iter().collect(), Reply::Endpoint(Box::new(endpoint))),
        }
    }

    fn evolve(state: &mut State, event: &Event) {
        match event {
            Event::Created(endpoint) => state.endpoints.push((**endpoint).clone()),
            Event::Updated(endpoint) | Event::SecretRotated(endpoint) => {
                if let Some(known) = state.endpoints.iter_mut().find(|known| known.id == endpoint.id) {
                    *known = (**endpoint).clone();
                }
            }
            Event::Deleted { id, .. } => state.endpoints.retain(|known| known.id != *id),
        }
    }
}

fn creates(what: &What) -> bool {
    matches!(what, What::Create { .. })
}

/// What happens, if anything, and the endpoint after it.
type Decided = (Option<Event>, Endpoint);

impl State {
    pub fn find(&self, id: &str) -> Option<&Endpoint> {
        self.endpoints.iter().find(|endpoint| endpoint.id == id)
    }

    fn create(&self, id: String, settings: Settings, secret: Secret, now_ms: u64) -> Result<Decided, Rejection> {
        let is_free = |slot: &u8| self.endpoints.iter().all(|endpoint| endpoint.slot != *slot);
        let slot = (0..ENDPOINTS_MAX).find(is_free).ok_or(Rejection::TooManyEndpoints)?;
        let Settings { url, enabled_events, description, enabled } = settings;
        let endpoint = Endpoint {
            id,
            slot,
            url,
            enabled_events,
            description,
            enabled,
            secret,
            old_secrets: Vec::new(),
            version: 1,
            created_at_ms: now_ms,
            updated_at_ms: now_ms,
            since_ms: now_ms,
        };
        Ok((Some(Event::Created(Box::new(endpoint.clone()))), endpoint))
    }
}

impl Endpoint {
    /// Whether it is to be told of events of this type.
    pub fn wants(&self, event_type: &str) -> bool {
        self.enabled && self.enabled_events.iter().any(|pattern| matches(pattern, event_type))
    }

    /// The secrets that sign at this time, the present one first.
    pub fn secrets_at(&self, now_ms: u64) -> impl Iterator<Item = &Secret> {
        let old = self.old_secrets.iter().filter(move |old| old.until_ms > now_ms);
        [&self.secret].into_iter().chain(old.map(|old| &old.secret))
    }

    fn update(&self, changes: Changes, now_ms: u64) -> Decided {
        let mut next = self.clone();
        if let Some(url) = changes.url {
            next.url = url;
        }
        if let Some(events) = changes.enabled_events {
            next.enabled_events = events;
        }
        if let Some(description) = changes.description {
            next.description = Some(description).filter(|text| !text.is_empty());
        }
        if let Some(enabled) = changes.enabled {
            next.enabled = enabled;
        }
        if next == *self {
            return (None, next);
        }
        if next.enabled && !self.enabled {
            // What happened meanwhile is not told.
            next.since_ms = now_ms;
        }
        next.touch(now_ms);
        (Some(Event::Updated(Box::new(next.clone()))), next)
    }

    fn rotate(&self, secret: Secret, grace_ms: u64, now_ms: u64) -> Result<Decided, Rejection> {
        let mut next = self.clone();
        let replaced = std::mem::replace(&mut next.secret, secret);
        next.old_secrets.retain(|old| old.until_ms > now_ms);
        if grace_ms == 0 {
            // Somebody else may know it, and perhaps those before it.
            next.old_secrets.clear();
        } else if next.old_secrets.len() >= OLD_SECRETS_MAX {
            return Err(Rejection::TooManySecrets);
        } else {
            let until_ms = now_ms.saturating_add(grace_ms);
            next.old_secrets.insert(0, OldSecret { secret: replaced, until_ms });
        }
        next.touch(now_ms);
        Ok((Some(Event::SecretRotated(Box::new(next.clone()))), next))
    }

    fn touch(&mut self, now_ms: u64) {
        self.version += 1;
        self.updated_at_ms = now_ms;
    }
}

#[cfg(test)]
mod tests;
