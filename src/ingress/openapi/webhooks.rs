//! Schemas of webhook endpoints. As in `schemas`, nothing here is ever made: the real types are in
//! `webhooks`.
#![allow(dead_code)]

use serde::Serialize;
use utoipa::ToSchema;

#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"url": "http://127.0.0.1:8000/hooks", "enabled_events": ["order.confirmed", "payment.*"]}))]
pub struct CreateWebhookEndpoint {
    /// `https://` or `http://`. At most 2048 bytes.
    #[schema(max_length = 2048, pattern = "^https?://")]
    url: String,
    /// Types, families (`order.*`) or `*`. All if it is left out.
    #[schema(min_items = 1, max_items = 64)]
    enabled_events: Option<Vec<String>>,
    #[schema(min_length = 1, max_length = 500, pattern = r"^[^\u0000-\u001f\u007f-\u009f]+$")]
    description: Option<String>,
    /// Register it, and tell it nothing yet.
    #[schema(default = false)]
    disabled: bool,
}

/// What is left out, or `null`, stays.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"disabled": true}))]
pub struct UpdateWebhookEndpoint {
    #[schema(max_length = 2048, pattern = "^https?://")]
    url: Option<String>,
    #[schema(min_items = 1, max_items = 64)]
    enabled_events: Option<Vec<String>>,
    /// `""` takes it away.
    #[schema(max_length = 500, pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$")]
    description: Option<String>,
    disabled: Option<bool>,
}

#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"grace": "24h"}))]
pub struct RotateWebhookSecret {
    /// How long the old secret signs beside the new one, up to `"7d"`. `"0s"` ends every earlier one.
    #[schema(default = "24h")]
    grace: Option<String>,
}

/// Who is told what happens.
#[derive(Serialize, ToSchema)]
pub struct WebhookEndpoint {
    #[schema(example = "we_6h303vaz912sekgbtnhkqjstc6")]
    id: String,
    url: String,
    enabled_events: Vec<String>,
    description: Option<String>,
    #[schema(inline)]
    status: WebhookEndpointStatus,
    /// Only in the answers that made it.
    #[schema(example = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")]
    secret: Option<String>,
    /// When earlier secrets sign for the last time, the latest first.
    old_secrets_expire_at: Vec<String>,
    version: u64,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    updated_at: String,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WebhookEndpointStatus {
    Enabled,
    Disabled,
}

#[derive(Serialize, ToSchema)]
pub struct DeletedWebhookEndpoint {
    id: String,
    deleted: bool,
}

#[cfg(test)]
mod tests {
    use crate::{
        entity::{Context, Decision, Entity},
        ingress::openapi::{describes, example},
        webhooks::{
            CreateEndpoint, EndpointView, Endpoints, RotateSecret, UpdateEndpoint,
            endpoints::{Command, Reply, State, What},
            secret::Secret,
        },
    };

    #[test]
    fn examples_are_bodies_that_the_routes_take_and_what_is_shown_is_described() {
        let settings = example::<CreateEndpoint>("CreateWebhookEndpoint").validate().expect("a valid example");
        assert!(example::<UpdateEndpoint>("UpdateWebhookEndpoint").validate().is_ok());
        assert!(example::<RotateSecret>("RotateWebhookSecret").validate().is_ok());
        let settings = crate::webhooks::endpoints::Settings { description: Some("x".into()), ..settings };
        let what = What::Create { settings, secret: Secret::random() };
        let command = Command { id: "we_1".into(), if_version: None, what };
        let context = Context { id: "all", version: 0, now_ms: 1, random: 1 };
        let Decision::Accept { reply: Reply::Endpoint(endpoint), .. } =
            Endpoints::decide(&State::default(), command, &context)
        else {
            panic!("not made")
        };
        describes("WebhookEndpoint", EndpointView::of(&endpoint));
        describes("WebhookEndpoint", EndpointView::with_secret(&endpoint));
    }
}
