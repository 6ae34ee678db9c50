//! Successful answers: an entity's JSON with its version as `ETag`.

use super::{
    extract::Params,
    headers::{self, APPLIED_INDEX, IDEMPOTENT_REPLAYED, RECEIPT},
    problem::Problem,
};
use crate::cluster::{Consistency, Receipt};
use axum::{
    Json,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

/// The `consistency` parameter.
pub fn consistency(params: &mut Params) -> Result<Consistency, Problem> {
    let words = [("linearizable", Consistency::Linearizable), ("local", Consistency::Local)];
    Ok(params.choice("consistency", &words)?.unwrap_or_default())
}

/// The answer to a write. A replay is the first answer again, and says so.
pub fn written<T: Serialize>(status: StatusCode, body: &T, version: u64, replayed: bool) -> Response {
    let mut response = (status, Json(body)).into_response();
    response.headers_mut().insert(header::ETAG, headers::etag(version));
    if replayed {
        mark_replayed(&mut response);
    }
    response
}

/// Says that this is the first answer again.
pub fn mark_replayed(response: &mut Response) {
    response.headers_mut().insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
}

/// Adds what proves the write; nothing was changed where there is none.
#[must_use]
pub fn with_receipt(mut response: Response, receipt: Option<Receipt>) -> Response {
    if let Some(receipt) = receipt
        && let Ok(value) = HeaderValue::from_str(&receipt.to_string())
    {
        response.headers_mut().insert(RECEIPT, value);
    }
    response
}

/// How a read was made, and what it found.
pub struct Read<'a> {
    pub request: &'a HeaderMap,
    pub consistency: Consistency,
    pub version: u64,
    pub applied_index: u64,
}

impl Read<'_> {
    /// 200 with the entity, or 304 if the client has this version.
    pub fn respond<T: Serialize>(&self, body: &T) -> Response {
        let mut response = if headers::not_modified(self.request, self.version) {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            Json(body).into_response()
        };
        let headers = response.headers_mut();
        headers.insert(header::ETAG, headers::etag(self.version));
        // A cache may keep it but must ask again: the next write is seen at once.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        if self.consistency == Consistency::Local {
            headers.insert(APPLIED_INDEX, HeaderValue::from(self.applied_index));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(request: &HeaderMap, consistency: Consistency) -> Response {
        Read { request, consistency, version: 7, applied_index: 42 }.respond(&json!({}))
    }

    #[test]
    fn a_local_read_says_how_far_the_replica_was() {
        let local = read(&HeaderMap::new(), Consistency::Local);
        assert_eq!(local.headers()["x-applied-index"], "42");
        assert_eq!(local.headers()["etag"], "\"7\"");
        let linearizable = read(&HeaderMap::new(), Consistency::Linearizable);
        assert!(!linearizable.headers().contains_key("x-applied-index"));
    }

    #[test]
    fn a_version_that_the_client_has_is_not_sent_again() {
        let known = HeaderMap::from_iter([(header::IF_NONE_MATCH, HeaderValue::from_static("\"7\""))]);
        let response = read(&known, Consistency::Linearizable);
        assert_eq!(response.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(response.headers()["etag"], "\"7\"");
    }

    #[test]
    fn a_write_carries_its_receipt_if_it_has_one() {
        let receipt = "3-2-1047-9c0b7e11".parse().expect("a receipt");
        let answer = |receipt| with_receipt(written(StatusCode::OK, &json!({}), 1, false), receipt);
        assert_eq!(answer(Some(receipt)).headers()["x-receipt"], "3-2-1047-9c0b7e11");
        assert!(!answer(None).headers().contains_key("x-receipt"));
    }

    #[test]
    fn only_a_replay_says_that_it_is_one() {
        let replay = written(StatusCode::CREATED, &json!({}), 1, true);
        assert_eq!(
            (replay.status(), &replay.headers()["idempotent-replayed"]),
            (StatusCode::CREATED, &HeaderValue::from_static("true"))
        );
        assert!(!written(StatusCode::OK, &json!({}), 1, false).headers().contains_key("idempotent-replayed"));
    }
}
