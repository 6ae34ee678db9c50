//! A card gateway over HTTP/1.1, of the kind Stripe is: forms in, JSON out, an idempotency key
//! with every change.
//!
//! ```text
//! request ─▶ call (path and form) ─▶ outbound (dial, reuse, time limits) ─▶ answer (what it means)
//! ```
//!
//! It sends each request once ([`crate::outbound`]): trying again is the runtime's business, which
//! does it under the same key.

mod answer;
mod call;

use super::{Error, Invalid, Options, PaymentGateway};
use crate::{
    commerce::gateway::{GatewayRequest, GatewayResponse},
    config::Secret,
    outbound::{BadUrl, Connections, HttpUrl, Origin, Outgoing, Trust},
};
use call::Call;
use hyper::{Method, Request, header};
use std::time::Duration;

const IDEMPOTENCY_KEY: &str = "idempotency-key";
const ONLY: &str = "only host, port and path may stand in it";

/// The client for one gateway. Requests run side by side.
pub struct HttpGateway {
    base: BaseUrl,
    bearer: header::HeaderValue,
    connections: Connections,
    request_timeout: Duration,
}

impl HttpGateway {
    /// Connects only when the first request is sent. What is https must be certified by one of `trust`.
    ///
    /// # Errors
    /// The first of [`Options::problems`].
    pub fn new(options: &Options, trust: Trust) -> Result<Self, Invalid> {
        if let Some(problem) = options.problems().into_iter().next() {
            return Err(problem);
        }
        let incomplete = || Invalid {
            keys: &["gateway.kind", "gateway.base_url", "gateway.api_key"],
            what: "not an http gateway".into(),
            fix: "set all three",
        };
        let base = options.base_url.as_deref().and_then(|url| BaseUrl::parse(url).ok()).ok_or_else(incomplete)?;
        let bearer = options.api_key.as_ref().and_then(bearer).ok_or_else(incomplete)?;
        let connections = Connections::new(base.origin.clone(), trust, options.connect_timeout);
        Ok(Self { base, bearer, connections, request_timeout: options.request_timeout })
    }

    fn request(&self, key: &str, call: Call) -> Result<Outgoing, Error> {
        let uri = format!("{}{}", self.base.prefix, call.path);
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(uri)
            .header(header::HOST, self.base.origin.host_header())
            .header(header::ACCEPT, "application/json")
            .header(header::AUTHORIZATION, self.bearer.clone());
        if call.method == Method::POST {
            let form = "application/x-www-form-urlencoded";
            request = request.header(header::CONTENT_TYPE, form).header(IDEMPOTENCY_KEY, key);
        }
        request.body(call.form.into_body()).map_err(|error| Error::Fatal(format!("cannot be sent: {error}")))
    }
}

impl PaymentGateway for HttpGateway {
    async fn attempt(&self, request: &GatewayRequest, _: u32) -> Result<GatewayResponse, Error> {
        let outgoing = self.request(&request.key, Call::of(request)?)?;
        let limit = self.request_timeout;
        let exchange = tokio::time::timeout(limit, self.connections.exchange(outgoing)).await;
        let late = |_| Error::Unanswered(format!("the gateway did not answer within {limit:?}"));
        let lost = |error| Error::Unanswered(format!("the gateway: {error}"));
        let (status, body) = exchange.map_err(late)?.map_err(lost)?;
        let answer = answer::classify(request, status, &body);
        if let Err(Error::Fatal(why)) = &answer {
            // An operator has to look at it: the payment waits until then.
            let body = String::from_utf8_lossy(&body[..body.len().min(500)]);
            tracing::warn!(key = %request.key, operation = %request.operation, %body, "{why}");
        }
        answer
    }
}

/// Where a gateway is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BaseUrl {
    origin: Origin,
    /// What stands before `/v1`; empty or `/…` without a slash at its end.
    prefix: String,
}

impl BaseUrl {
    /// Why it is none, otherwise.
    pub fn parse(url: &str) -> Result<Self, String> {
        let address = HttpUrl::parse(url).map_err(|bad| match bad {
            BadUrl::Credentials => "credentials go into `gateway.api_key`".to_owned(),
            BadUrl::Fragment => ONLY.to_owned(),
            other => other.to_string(),
        })?;
        let HttpUrl { origin, path_and_query } = address;
        match path_and_query.contains('?') {
            true => Err(ONLY.to_owned()),
            false => Ok(Self { origin, prefix: path_and_query.trim_end_matches('/').to_owned() }),
        }
    }
}

/// The `Authorization` header; `None` for a key that cannot stand in one.
pub(super) fn bearer(key: &Secret) -> Option<header::HeaderValue> {
    let key = key.expose();
    if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let mut value = header::HeaderValue::from_str(&format!("Bearer {key}")).ok()?;
    // Not in anybody's debug output.
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_have_a_path_and_no_port() {
        let parsed =
            |url: &str| BaseUrl::parse(url).map(|base| (base.origin.address(), base.prefix)).expect("a base URL");
        assert_eq!(parsed("http://pay.example"), ("pay.example:80".into(), String::new()));
        assert_eq!(parsed("http://127.0.0.1:8443/stripe/"), ("127.0.0.1:8443".into(), "/stripe".into()));
        assert_eq!(parsed("https://[::1]/a/b"), ("[::1]:443".into(), "/a/b".into()));
    }
}
