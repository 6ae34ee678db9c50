//! An endpoint as the API shows it.

use super::endpoints::Endpoint;
use crate::commerce::time::rfc3339;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointView {
    pub id: String,
    pub url: String,
    pub enabled_events: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    pub status: Status,
    /// Only in the answer to what made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// When the secrets before it sign for the last time, the latest first.
    pub old_secrets_expire_at: Vec<String>,
    pub version: u64,
    pub created_at: String,
    pub updated_at: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Enabled,
    Disabled,
}

impl EndpointView {
    /// Without its secret.
    pub fn of(endpoint: &Endpoint) -> Self {
        Self {
            id: endpoint.id.clone(),
            url: endpoint.url.clone(),
            enabled_events: endpoint.enabled_events.clone(),
            description: endpoint.description.clone(),
            status: if endpoint.enabled { Status::Enabled } else { Status::Disabled },
            secret: None,
            old_secrets_expire_at: endpoint.old_secrets.iter().map(|old| rfc3339(old.until_ms)).collect(),
            version: endpoint.version,
            created_at: rfc3339(endpoint.created_at_ms),
            updated_at: rfc3339(endpoint.updated_at_ms),
        }
    }

    /// With the secret that it has just been given.
    pub fn with_secret(endpoint: &Endpoint) -> Self {
        Self { secret: Some(endpoint.secret.reveal()), ..Self::of(endpoint) }
    }
}
