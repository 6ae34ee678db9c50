//! Every error this API answers: RFC 9457 problems, their codes, and the one place where an error
//! of the runtime becomes an HTTP status.
//!
//! A handler returns a [`Problem`]; it travels as a response extension to [`super::envelope`],
//! which knows the trace id and renders it. Internal detail never gets into a problem: it is
//! logged where it happened.

use super::reply;
use crate::cluster::{AskError, Unavailable};
use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::{Value, json};

/// The media type of a problem.
pub const MEDIA_TYPE: &str = "application/problem+json";

macro_rules! codes {
    ($($variant:ident $code:literal $status:ident $title:literal $fix:literal;)*) => {
        /// A stable error code. Each has a section in docs/errors.md and answers at
        /// `/problems/<code>`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code { $($variant),* }

        impl Code {
            pub const ALL: &'static [Code] = &[$(Code::$variant),*];

            fn entry(self) -> (&'static str, StatusCode, &'static str, &'static str) {
                match self {
                    $(Code::$variant => ($code, StatusCode::$status, $title, $fix),)*
                }
            }
        }
    };
}

codes! {
    BadRequest "bad-request" BAD_REQUEST "The request could not be read"
        "Correct the request as the detail says; it will not succeed as it is.";
    MalformedJson "malformed-json" BAD_REQUEST "The body is not valid JSON"
        "Correct the syntax at the line and column in the detail.";
    InvalidParameter "invalid-parameter" BAD_REQUEST "A query parameter is unknown or has a bad value"
        "Remove or correct the parameter named in `errors`.";
    InvalidHeader "invalid-header" BAD_REQUEST "A request header has a bad value"
        "Correct the header named in `errors`.";
    IdempotencyKeyMissing "idempotency-key-missing" BAD_REQUEST "This route requires an Idempotency-Key"
        "Send an `Idempotency-Key` header, a fresh one (a UUID, say) for each operation and the same one for each retry of it.";
    IdempotencyKeyInvalid "idempotency-key-invalid" BAD_REQUEST "The Idempotency-Key cannot be used"
        "Send one key of 1 to 255 visible ASCII characters, quoted or bare.";
    NotFound "not-found" NOT_FOUND "There is no such resource"
        "Check the id in the path.";
    RouteNotFound "route-not-found" NOT_FOUND "There is no such route"
        "Check the path against /openapi.json.";
    UnknownEntityType "unknown-entity-type" NOT_FOUND "No such entity type is registered"
        "Check the type's name, or register the type on every node with `Builder::entity`.";
    MethodNotAllowed "method-not-allowed" METHOD_NOT_ALLOWED "The route does not take this method"
        "Use one of the methods in the `allow` header.";
    RequestTimeout "request-timeout" REQUEST_TIMEOUT "The request body arrived too slowly"
        "Send the request again; send its body without pauses.";
    Unauthorized "unauthorized" UNAUTHORIZED "A token is needed"
        "Send `Authorization: Bearer …` with a token that this node knows; operators list them in `http.tokens`.";
    CrossSite "cross-site" FORBIDDEN "Another web site had a browser send this"
        "Send it from a page of the node's own address, or from a program.";
    Forbidden "forbidden" FORBIDDEN "The token's role does not allow this"
        "Send a token with the role in `needs`: `write` includes `read`, `admin` includes both.";
    FaultsNotAllowed "faults-not-allowed" FORBIDDEN "This node takes no faults"
        "Start the node with `--allow-faults`, which no node of production should have.";
    IllegalTransition "illegal-transition" CONFLICT "The resource's state does not allow this"
        "Read the resource: `state` says where it is, `allowed` where it can go from there.";
    OutOfStock "out-of-stock" CONFLICT "There is not enough stock"
        "Ask for less of the SKU in `sku`, or wait until more comes in; send the new request with a new key.";
    Conflict "conflict" CONFLICT "The request contradicts the resource as it is"
        "Read the resource, correct the request as the detail says, and send it with a new key.";
    PaymentBelongsToOrder "payment-belongs-to-order" CONFLICT "The payment is driven by its order"
        "Cancel the order before it ships, or return what was shipped: the order voids or refunds its payment.";
    Frozen "frozen" CONFLICT "The resource breaks its own laws and is frozen"
        "Nothing happened; it can be read, but not changed. Tell the operators: `/admin/v1/violations` and the nodes' logs say what does not add up.";
    NotEmpty "not-empty" CONFLICT "The cluster holds data"
        "Restore into a new cluster, which has taken no writes yet.";
    IncompatibleBackup "incompatible-backup" CONFLICT "This cluster cannot take the backup"
        "Start a cluster as the detail says, and restore into that.";
    VersionMismatch "version-mismatch" PRECONDITION_FAILED "The resource has changed"
        "Read the resource again and send its `ETag` as `If-Match`.";
    PayloadTooLarge "payload-too-large" PAYLOAD_TOO_LARGE "The body is too large"
        "Send a smaller body; the limit is in the detail.";
    UnsupportedMediaType "unsupported-media-type" UNSUPPORTED_MEDIA_TYPE "The body is not declared as what the route takes"
        "Send the `Content-Type` that the detail names: `application/json` everywhere but at `/admin/v1/restore`.";
    ValidationFailed "validation-failed" UNPROCESSABLE_ENTITY "The request is well-formed but not acceptable"
        "Correct the fields named in `errors`.";
    DamagedBackup "damaged-backup" UNPROCESSABLE_ENTITY "This is no backup, or not a whole one"
        "Nothing is open that was not before. Restore another copy of it, from its beginning.";
    IdempotencyKeyReused "idempotency-key-reused" UNPROCESSABLE_ENTITY "The Idempotency-Key belongs to another request"
        "Use a fresh key for a new operation; send a retry exactly as it was sent first.";
    Overloaded "overloaded" TOO_MANY_REQUESTS "A limit of the cluster is reached"
        "Nothing happened. Wait as long as `retry-after` says and send the request again.";
    Internal "internal" INTERNAL_SERVER_ERROR "The server failed"
        "Look the trace id up in the node's log; it is a defect of the server.";
    EntityFailed "entity-failed" INTERNAL_SERVER_ERROR "The entity failed while deciding"
        "Nothing happened and the entity was restarted. Look the trace id up in the node's log; it is a defect of the entity's code.";
    NoQuorum "no-quorum" SERVICE_UNAVAILABLE "No majority of the data's replicas can be reached"
        "Nothing happened. Retry after `retry-after`; if it stays, bring back enough nodes for a majority (`quorate shards`).";
    Restoring "restoring" SERVICE_UNAVAILABLE "A backup is being restored"
        "Nothing happened. Wait until `quorate restore` has ended; if it broke off, run it again with the same file.";
    ShuttingDown "shutting-down" SERVICE_UNAVAILABLE "This node is stopping"
        "Nothing happened. Send the request to another node.";
    NotReady "not-ready" SERVICE_UNAVAILABLE "This node is not ready"
        "Wait until /readyz answers 200, or use another node; `/readyz?verbose` names the failing check.";
    TooManyConnections "too-many-connections" SERVICE_UNAVAILABLE "This node has as many connections as it takes"
        "Reuse connections, use another node, or raise `http.connections_max`.";
    OutcomeUnknown "outcome-unknown" GATEWAY_TIMEOUT "It is not known whether the change was made"
        "Send the request again with the same Idempotency-Key: the change is made once, however often it is sent.";
}

impl Code {
    pub fn as_str(self) -> &'static str {
        self.entry().0
    }

    pub fn status(self) -> StatusCode {
        self.entry().1
    }

    pub fn title(self) -> &'static str {
        self.entry().2
    }

    /// What to do about it, in a sentence or two.
    pub fn fix(self) -> &'static str {
        self.entry().3
    }

    /// The URI path that identifies the kind of problem.
    pub fn uri(self) -> String {
        format!("/problems/{}", self.as_str())
    }

    pub fn parse(code: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|known| known.as_str() == code)
    }

    /// For an error response that something below us made (a framework's rejection, say).
    pub fn of_status(status: StatusCode) -> Self {
        match status {
            StatusCode::NOT_FOUND => Self::RouteNotFound,
            StatusCode::METHOD_NOT_ALLOWED => Self::MethodNotAllowed,
            StatusCode::PAYLOAD_TOO_LARGE => Self::PayloadTooLarge,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Self::UnsupportedMediaType,
            status if status.is_server_error() => Self::Internal,
            _ => Self::BadRequest,
        }
    }
}

/// One field of the request that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// Path of the field in the body (`items[0].quantity`), or the parameter's or header's name.
    pub field: String,
    pub detail: String,
}

/// An error answer before it is rendered.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    pub code: Code,
    pub detail: String,
    pub errors: Vec<FieldError>,
    pub retry_after_s: Option<u32>,
    /// Members beside the standard ones.
    pub extra: Vec<(&'static str, Value)>,
    /// It is the first answer to its idempotency key again.
    pub replayed: bool,
}

impl Problem {
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            errors: Vec::new(),
            retry_after_s: None,
            extra: Vec::new(),
            replayed: false,
        }
    }

    /// A problem with exactly one field, which the detail names too.
    pub fn field(code: Code, field: impl Into<String>, detail: impl Into<String>) -> Self {
        let error = FieldError { field: field.into(), detail: detail.into() };
        let sentence = format!("{}: {}", error.field, error.detail);
        Self { errors: vec![error], ..Self::new(code, sentence) }
    }

    /// 422 with every wrong field.
    pub fn validation(errors: Vec<FieldError>) -> Self {
        let detail = match &errors[..] {
            [only] => format!("{}: {}", only.field, only.detail),
            [first, ..] => format!("{} fields are wrong; first {}: {}", errors.len(), first.field, first.detail),
            [] => Code::ValidationFailed.title().to_owned(),
        };
        Self { errors, ..Self::new(Code::ValidationFailed, detail) }
    }

    /// 422: the key came with another request before.
    pub fn key_reused() -> Self {
        Self::new(Code::IdempotencyKeyReused, "this Idempotency-Key was first used with another method, path or body")
    }

    /// 404 for an entity, by what people call it and its id.
    pub fn not_found(what: &str, id: &str) -> Self {
        Self::new(Code::NotFound, format!("there is no {what} `{id}`"))
    }

    /// 409 that names the state and where it can go from there.
    pub fn illegal_transition(action: &str, state: &str, allowed: &[&str]) -> Self {
        let detail = match allowed {
            [] => format!("cannot {action}: the state is {state}, which is final"),
            _ => format!("cannot {action}: the state is {state}; from there it can become {}", allowed.join(", ")),
        };
        Self::new(Code::IllegalTransition, detail).with("state", json!(state)).with("allowed", json!(allowed))
    }

    #[must_use]
    pub fn with(mut self, member: &'static str, value: Value) -> Self {
        self.extra.push((member, value));
        self
    }

    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// The one mapping from what the runtime answers to what the client sees; `rejected` says
    /// what the entity's own rejection means.
    pub fn of_ask<R>(error: AskError<R>, rejected: impl FnOnce(R) -> Problem) -> Self {
        use Unavailable as U;
        match error {
            AskError::Rejected(reason) => rejected(reason),
            AskError::RejectedBefore(reason) => Self { replayed: true, ..rejected(reason) },
            AskError::IdempotencyKeyReused => Self::key_reused(),
            AskError::VersionMismatch { actual } => {
                Self::new(Code::VersionMismatch, format!("the resource is at version {actual}"))
                    .with("version", json!(actual))
            }
            AskError::Unavailable(unavailable) => match unavailable {
                U::NoQuorum { shard } => Self::new(
                    Code::NoQuorum,
                    format!("shard {shard} has no quorum or no owner just now; nothing happened"),
                )
                .retry_after(1),
                U::OutcomeUnknown { shard } => Self::new(
                    Code::OutcomeUnknown,
                    format!("the owner of shard {shard} was lost or too slow; retry with the same Idempotency-Key"),
                )
                .retry_after(1),
                U::Overloaded { limit } => {
                    Self::new(Code::Overloaded, format!("{limit} is at its limit; nothing happened")).retry_after(1)
                }
                U::EntityFailed { .. } => Self::new(Code::EntityFailed, "nothing happened; the entity was restarted"),
                U::UnknownType { entity_type } => {
                    Self::new(Code::UnknownEntityType, format!("no entity type `{entity_type}` is registered"))
                }
                U::Invalid { detail } => Self::new(Code::ValidationFailed, detail),
                U::Frozen { .. } => {
                    Self::new(Code::Frozen, "what is stored of the resource does not add up; nothing happened")
                }
                U::Restoring { shard } => Self::new(
                    Code::Restoring,
                    format!("a backup is being restored into shard {shard}; nothing happened"),
                )
                .retry_after(5),
                U::ShuttingDown => {
                    Self::new(Code::ShuttingDown, "this node is stopping; nothing happened").retry_after(1)
                }
            },
        }
    }

    /// The JSON of the answer.
    pub fn render(&self, trace_id: &str) -> Value {
        let mut body = json!({
            "type": self.code.uri(),
            "title": self.code.title(),
            "status": self.code.status().as_u16(),
            "detail": self.detail,
            "code": self.code.as_str(),
            "trace_id": trace_id,
        });
        if !self.errors.is_empty() {
            body["errors"] = json!(self.errors);
        }
        for (member, value) in &self.extra {
            body[*member] = value.clone();
        }
        body
    }
}

impl From<Unavailable> for Problem {
    fn from(unavailable: Unavailable) -> Self {
        let never = |reason: std::convert::Infallible| match reason {};
        Self::of_ask(AskError::Unavailable(unavailable), never)
    }
}

impl IntoResponse for Problem {
    /// Status and headers; the body is [`Problem::render`]ed by the envelope, which knows the
    /// trace id.
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.code.status();
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.replayed {
            reply::mark_replayed(&mut response);
        }
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entity::ShardId;

    fn status_of(unavailable: Unavailable) -> (u16, &'static str, Option<u32>) {
        let problem = Problem::from(unavailable);
        (problem.code.status().as_u16(), problem.code.as_str(), problem.retry_after_s)
    }

    #[test]
    fn what_the_runtime_answers_has_one_status_each() {
        let shard = ShardId(3);
        assert_eq!(status_of(Unavailable::NoQuorum { shard }), (503, "no-quorum", Some(1)));
        assert_eq!(status_of(Unavailable::OutcomeUnknown { shard }), (504, "outcome-unknown", Some(1)));
        assert_eq!(status_of(Unavailable::Overloaded { limit: "x".into() }), (429, "overloaded", Some(1)));
        assert_eq!(status_of(Unavailable::EntityFailed { key: "k".into() }), (500, "entity-failed", None));
        assert_eq!(status_of(Unavailable::UnknownType { entity_type: "x".into() }).0, 404);
        assert_eq!(status_of(Unavailable::Invalid { detail: "x".into() }).0, 422);
        assert_eq!(status_of(Unavailable::Frozen { key: "k".into() }), (409, "frozen", None));
        assert_eq!(status_of(Unavailable::Restoring { shard }), (503, "restoring", Some(5)));
        assert_eq!(status_of(Unavailable::ShuttingDown), (503, "shutting-down", Some(1)));
    }

    #[test]
    fn what_the_entity_and_the_key_answer_has_one_status_each() {
        let rejected = |_: &str| Problem::illegal_transition("cancel", "fulfilled", &["returned"]);
        let of = |error| Problem::of_ask(error, rejected).code.status().as_u16();
        assert_eq!(of(AskError::Rejected("x")), 409);
        assert_eq!(of(AskError::RejectedBefore("x")), 409);
        assert_eq!(of(AskError::IdempotencyKeyReused), 422);
        assert_eq!(of(AskError::VersionMismatch { actual: 4 }), 412);
    }

    #[test]
    fn a_rejection_that_is_the_first_answer_again_says_so() {
        let rejected = |_: &str| Problem::illegal_transition("cancel", "fulfilled", &["returned"]);
        let response = |error| Problem::of_ask(error, rejected).into_response();
        assert_eq!(response(AskError::RejectedBefore("x")).headers()["idempotent-replayed"], "true");
        assert!(!response(AskError::Rejected("x")).headers().contains_key("idempotent-replayed"));
    }

    #[test]
    fn a_failed_entity_shows_nothing_of_its_inside() {
        let problem = Problem::from(Unavailable::EntityFailed { key: "order/secret at src/x.rs:3".into() });
        assert!(!problem.render("t").to_string().contains("secret"));
    }

    #[test]
    fn a_problem_has_the_members_of_rfc_9457_and_ours() {
        let body = Problem::illegal_transition("cancel", "fulfilled", &["returned"]).render("abc");
        assert_eq!(body["type"], "/problems/illegal-transition");
        assert_eq!(body["status"], 409);
        assert_eq!(body["trace_id"], "abc");
        assert_eq!(body["state"], "fulfilled");
        assert_eq!(body["allowed"][0], "returned");
        assert!(body.get("errors").is_none());
    }

    #[test]
    fn every_code_has_a_section_with_its_status_in_the_errors_document() {
        let document = include_str!("../../docs/errors.md");
        for code in Code::ALL {
            let heading = format!("\n## {}\n", code.as_str());
            let (_, section) = document.split_once(&heading).unwrap_or_else(|| panic!("no section{heading}"));
            let section = section.split("\n## ").next().unwrap_or_default();
            let status = code.status().as_u16().to_string();
            assert!(section.contains(&status), "{}: the status is missing", code.as_str());
            assert!(section.contains("**Fix**"), "{}: no fix", code.as_str());
        }
    }

    #[test]
    fn the_errors_document_has_no_section_without_a_code() {
        let document = include_str!("../../docs/errors.md");
        for heading in document.lines().filter_map(|line| line.strip_prefix("## ")) {
            assert!(Code::parse(heading).is_some(), "{heading} is not a code");
        }
    }
}
