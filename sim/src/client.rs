//! One request to one node, and what came of it.

use crate::world::World;
use axum::{
    body::{Body, to_bytes},
    http::{HeaderMap, Request},
};
use serde_json::Value;
use std::{sync::Arc, time::Duration};
use tower::ServiceExt;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(6);
const BODY_MAX: usize = 4 << 20;

/// An answer of any status.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The entity's version after a write, or as read.
    pub fn version(&self) -> Option<u64> {
        self.header("etag").trim_matches('"').parse().ok()
    }

    /// The server says nothing about the request itself: ask again.
    pub fn is_excuse(&self) -> bool {
        self.status == 429 || self.status >= 500
    }
}

#[derive(Debug, Clone)]
pub struct Ask<'a> {
    pub method: &'a str,
    pub path: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: Option<Value>,
}

impl Ask<'_> {
    pub fn get(path: impl Into<String>) -> Self {
        Self { method: "GET", path: path.into(), headers: Vec::new(), body: None }
    }

    pub fn post(path: impl Into<String>, key: &str, body: Value) -> Self {
        Self { method: "POST", path: path.into(), headers: vec![("idempotency-key", key.to_owned())], body: Some(body) }
    }

    pub fn put(path: impl Into<String>, body: Value) -> Self {
        Self { method: "PUT", path: path.into(), headers: Vec::new(), body: Some(body) }
    }

    /// None: the node was down, crashed meanwhile, or took too long. It may have happened all the same.
    pub async fn send(&self, world: &Arc<World>, node: usize) -> Option<Answer> {
        let up = world.node(node)?;
        let mut request = Request::builder().method(self.method).uri(&self.path);
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        let body = match &self.body {
            Some(body) => {
                request = request.header("content-type", "application/json");
                Body::from(body.to_string())
            }
            None => Body::empty(),
        };
        let request = request.body(body).ok()?;
        let answer = async {
            let response = up.router.oneshot(request).await.ok()?;
            let (parts, body) = response.into_parts();
            let bytes = to_bytes(body, BODY_MAX).await.ok()?;
            let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
            Some(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
        };
        tokio::select! {
            biased;
            () = up.gone.cancelled() => None,
            answer = tokio::time::timeout(ANSWER_TIMEOUT, answer) => answer.ok().flatten(),
        }
    }
}
