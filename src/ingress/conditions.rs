//! Under which conditions a write takes effect: once per key, and only at a version.

use super::{
    Options, headers, identity,
    problem::{Code, Problem},
};
use crate::cluster::{AskOptions, Idempotency};
use axum::{extract::FromRequestParts, http::request::Parts};
use serde_json::Value;

/// What the head of a write says about when it counts.
#[derive(Debug, Clone)]
pub struct Conditions {
    pub key: Option<String>,
    /// Refuse unless the entity is at this version; 0 means that it must not exist.
    pub if_version: Option<u64>,
    trace_id: Option<String>,
    method: String,
    path: String,
}

impl<S: Sync> FromRequestParts<S> for Conditions {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(Self {
            key: headers::idempotency_key(&parts.headers)?,
            if_version: headers::expected_version(&parts.headers)?,
            trace_id: parts.extensions.get::<headers::Trace>().map(|trace| trace.trace_id.to_string()),
            method: parts.method.to_string(),
            path: parts.uri.path().to_owned(),
        })
    }
}

impl Conditions {
    /// The key, on routes that cannot do without.
    pub fn required_key(&self) -> Result<&str, Problem> {
        self.key
            .as_deref()
            .ok_or_else(|| Problem::new(Code::IdempotencyKeyMissing, "this route requires an Idempotency-Key header"))
    }

    /// Refuses `If-Match` where there is nothing that it could be about; `why` says what there is.
    pub fn refuse_version(&self, why: &str) -> Result<(), Problem> {
        match self.if_version {
            None => Ok(()),
            Some(_) => {
                let detail = format!("{why}; send the request without a condition");
                Err(Problem::new(Code::VersionMismatch, detail))
            }
        }
    }

    /// How to ask the entity, given the request's body (JSON that has been parsed before).
    pub fn ask_options(&self, body: &[u8], options: &Options) -> AskOptions {
        let idempotency = self.key.as_ref().map(|key| {
            let body: Value = serde_json::from_slice(body).unwrap_or_default();
            Idempotency { key: key.clone(), fingerprint: identity::fingerprint(&self.method, &self.path, &body) }
        });
        AskOptions {
            idempotency,
            if_version: self.if_version,
            timeout: Some(options.write_timeout),
            trace_id: self.trace_id.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Request;

    async fn conditions(headers: &[(&str, &str)]) -> Result<Conditions, Problem> {
        let mut request = Request::post("/v1/orders?x=1");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (mut parts, ()) = request.body(()).expect("a request").into_parts();
        Conditions::from_request_parts(&mut parts, &()).await
    }

    #[tokio::test]
    async fn a_missing_key_has_a_code_of_its_own() {
        let without = conditions(&[]).await.expect("no key is no error yet");
        assert_eq!(without.required_key().expect_err("required").code, Code::IdempotencyKeyMissing);
        assert_eq!(without.ask_options(b"{}", &Options::default()).idempotency, None);
    }

    #[tokio::test]
    async fn quoted_and_bare_key_and_reordered_body_ask_for_the_same() {
        let options = Options::default();
        let bare = conditions(&[("idempotency-key", "k1")]).await.expect("valid");
        let quoted = conditions(&[("idempotency-key", "\"k1\"")]).await.expect("valid");
        let first = bare.ask_options(br#"{"a":1,"b":2}"#, &options).idempotency;
        assert!(first.is_some());
        assert_eq!(first, quoted.ask_options(br#"{ "b":2, "a":1 }"#, &options).idempotency);
        assert_ne!(first, quoted.ask_options(br#"{"a":1,"b":3}"#, &options).idempotency);
    }

    #[tokio::test]
    async fn a_version_condition_reaches_the_runtime() {
        let given = conditions(&[("if-match", "\"4\"")]).await.expect("valid");
        assert_eq!(given.ask_options(b"", &Options::default()).if_version, Some(4));
        assert!(conditions(&[("if-match", "4")]).await.is_err());
    }
}
