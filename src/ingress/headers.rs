//! What request headers mean: idempotency keys, conditions, preferences, request and trace ids.
//!
//! Pure functions of a header map. Each answers a [`Problem`] that names the header, except where
//! a standard says that a bad value is ignored (`Prefer`, `traceparent`).

use super::problem::{Code, Problem};
use crate::telemetry::{TraceId, Traceparent};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use std::{sync::Arc, time::Duration};

pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
pub const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
pub const PREFER: HeaderName = HeaderName::from_static("prefer");
pub const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub const TRACE_ID: HeaderName = HeaderName::from_static("x-trace-id");
pub const RECEIPT: HeaderName = HeaderName::from_static("x-receipt");
pub const APPLIED_INDEX: HeaderName = HeaderName::from_static("x-applied-index");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The longest idempotency key, in bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
/// The longest request id that is taken over from the client, in bytes.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// The idempotency key: quoted (a structured-field string) and bare mean the same key.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let invalid = |why: &str| Problem::field(Code::IdempotencyKeyInvalid, IDEMPOTENCY_KEY.as_str(), why);
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(invalid("was sent more than once"));
    }
    let text = value.to_str().map_err(|_| invalid("has characters that are not visible ASCII"))?.trim();
    let key = match text.strip_prefix('"') {
        Some(rest) => unquote(rest).ok_or_else(|| invalid("is not a well-formed quoted string"))?,
        None => text.to_owned(),
    };
    if key.is_empty() {
        return Err(invalid("is empty"));
    }
    if key.len() > IDEMPOTENCY_KEY_BYTES_MAX {
        return Err(invalid("is longer than 255 characters"));
    }
    if !key.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(invalid("has characters that are not visible ASCII"));
    }
    Ok(Some(key))
}

/// The inside of a quoted string whose opening quote is gone; nothing may follow it.
fn unquote(rest: &str) -> Option<String> {
    let mut inside = String::with_capacity(rest.len());
    let mut chars = rest.chars();
    loop {
        match chars.next()? {
            '"' => return chars.as_str().is_empty().then_some(inside),
            '\\' => match chars.next()? {
                escaped @ ('"' | '\\') => inside.push(escaped),
                _ => return None,
            },
            plain => inside.push(plain),
        }
    }
}

/// The version that `If-Match` asks for, or 0 for `If-None-Match: *` (only if it does not exist).
pub fn expected_version(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    if let Some(value) = headers.get(header::IF_MATCH) {
        return if_match(value).map(Some);
    }
    match headers.get(header::IF_NONE_MATCH) {
        None => Ok(None),
        Some(value) if value.as_bytes().trim_ascii() == b"*" => Ok(Some(0)),
        Some(_) => Err(Problem::field(Code::InvalidHeader, "if-none-match", "a change takes only `*` here")),
    }
}

fn if_match(value: &HeaderValue) -> Result<u64, Problem> {
    let invalid = || Problem::field(Code::InvalidHeader, "if-match", "takes one quoted version, for instance \"3\"");
    let text = value.to_str().map_err(|_| invalid())?.trim();
    // A weak tag is well-formed but never matches (RFC 9110, strong comparison).
    let (tag, weak) = match text.strip_prefix("W/") {
        Some(tag) => (tag, true),
        None => (text, false),
    };
    let inside = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).ok_or_else(invalid)?;
    if inside.contains('"') {
        return Err(invalid());
    }
    match canonical_version(inside) {
        Some(version) if !weak => Ok(version),
        _ => Err(Problem::new(Code::VersionMismatch, format!("no version of the resource has the tag {text}"))),
    }
}

/// Digits without sign or leading zeros, as [`etag`] writes them.
fn canonical_version(text: &str) -> Option<u64> {
    text.parse().ok().filter(|version: &u64| version.to_string() == text)
}

/// Whether `If-None-Match` of a read names this version, so that 304 answers it.
pub fn not_modified(headers: &HeaderMap, version: u64) -> bool {
    let Some(value) = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok()) else { return false };
    value.split(',').map(str::trim).any(|tag| {
        let tag = tag.strip_prefix("W/").unwrap_or(tag);
        tag == "*" || tag.trim_matches('"').parse() == Ok(version)
    })
}

/// `"<version>"`.
pub fn etag(version: u64) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{version}\"")).unwrap_or_else(|_| HeaderValue::from_static("\"0\""))
}

/// How long `Prefer: wait=N` asks to wait, at most `longest`. RFC 7240: what is not understood is
/// ignored.
pub fn prefer_wait(headers: &HeaderMap, longest: Duration) -> Option<Duration> {
    let preferences = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
    let seconds = preferences.flat_map(|value| value.split(',')).find_map(|preference| {
        let (name, value) = preference.split(';').next()?.split_once('=')?;
        if !name.trim().eq_ignore_ascii_case("wait") {
            return None;
        }
        value.trim().trim_matches('"').parse::<u32>().ok()
    })?;
    Some(Duration::from_secs(u64::from(seconds)).min(longest))
}

/// Who asked, for logs and for the answer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Trace {
    /// 32 lower-case hexadecimal digits.
    pub trace_id: Arc<str>,
    pub request_id: HeaderValue,
}

impl Trace {
    /// Takes over a sane `x-request-id` and `traceparent`, and makes up what is missing.
    pub fn of(headers: &HeaderMap) -> Self {
        let request_id = headers.get(REQUEST_ID).filter(|id| is_sane_request_id(id)).cloned();
        let request_id = request_id.unwrap_or_else(|| {
            let fresh = format!("req_{:032x}", rand::random::<u128>());
            HeaderValue::from_str(&fresh).unwrap_or_else(|_| HeaderValue::from_static("req_0"))
        });
        let parent = headers.get(TRACEPARENT).and_then(|value| Traceparent::parse(value.to_str().ok()?).ok());
        let trace_id = parent.map_or_else(TraceId::random, |parent| parent.trace_id);
        Self { trace_id: trace_id.to_string().into(), request_id }
    }
}

fn is_sane_request_id(id: &HeaderValue) -> bool {
    let id = id.as_bytes();
    !id.is_empty() && id.len() <= REQUEST_ID_BYTES_MAX && id.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let value = |text: &str| HeaderValue::from_bytes(text.as_bytes()).expect("a header value");
        pairs.iter().map(|(name, text)| (HeaderName::from_static(name), value(text))).collect()
    }

    fn key(text: &str) -> Result<Option<String>, Code> {
        idempotency_key(&headers(&[("idempotency-key", text)])).map_err(|problem| problem.code)
    }

    #[test]
    fn a_quoted_and_a_bare_key_are_the_same_key() {
        assert_eq!(key("abc-1"), Ok(Some("abc-1".into())));
        assert_eq!(key("\"abc-1\""), Ok(Some("abc-1".into())));
        assert_eq!(key("\"a\\\"b\\\\c\""), Ok(Some("a\"b\\c".into())));
        assert_eq!(idempotency_key(&HeaderMap::new()).expect("absent is fine"), None);
    }

    #[test]
    fn a_key_that_cannot_be_kept_is_refused() {
        for bad in ["", "\"\"", "a b", "\"a b\"", "\"abc", "\"abc\"x", "é", &"k".repeat(256), "\"a\\x\""] {
            assert_eq!(key(bad), Err(Code::IdempotencyKeyInvalid), "{bad:?}");
        }
        assert_eq!(key(&"k".repeat(255)), Ok(Some("k".repeat(255))));
        let mut twice = headers(&[("idempotency-key", "a")]);
        twice.append(IDEMPOTENCY_KEY, HeaderValue::from_static("a"));
        assert!(idempotency_key(&twice).is_err());
    }

    #[test]
    fn if_match_takes_one_version() {
        let version = |text: &str| expected_version(&headers(&[("if-match", text)])).map_err(|problem| problem.code);
        assert_eq!(version("\"3\""), Ok(Some(3)));
        for never in ["W/\"3\"", "\"03\"", "\"abc\"", "\"-1\"", "\"\""] {
            assert_eq!(version(never), Err(Code::VersionMismatch), "{never}");
        }
        for bad in ["3", "*", "\"3\", \"4\"", "\"3"] {
            assert_eq!(version(bad), Err(Code::InvalidHeader), "{bad}");
        }
        assert_eq!(expected_version(&HeaderMap::new()).expect("absent is fine"), None);
    }

    #[test]
    fn if_none_match_of_anything_means_create_only() {
        assert_eq!(expected_version(&headers(&[("if-none-match", "*")])).expect("valid"), Some(0));
        assert!(expected_version(&headers(&[("if-none-match", "\"3\"")])).is_err());
    }

    #[test]
    fn if_none_match_recognises_its_version_among_others() {
        let tags = headers(&[("if-none-match", "\"1\", W/\"7\"")]);
        assert!(not_modified(&tags, 7) && not_modified(&tags, 1) && !not_modified(&tags, 2));
        assert!(!not_modified(&HeaderMap::new(), 0));
    }

    #[test]
    fn a_wait_is_capped_and_nonsense_is_ignored() {
        let wait = |text: &str| prefer_wait(&headers(&[("prefer", text)]), Duration::from_secs(30));
        assert_eq!(wait("wait=5"), Some(Duration::from_secs(5)));
        assert_eq!(wait("respond-async, Wait=\"7\"; foo"), Some(Duration::from_secs(7)));
        assert_eq!(wait("wait=4000000000"), Some(Duration::from_secs(30)));
        for ignored in ["wait", "wait=-1", "wait=soon", "return=minimal", "wait=99999999999"] {
            assert_eq!(wait(ignored), None, "{ignored}");
        }
    }

    #[test]
    fn ids_of_the_caller_are_taken_over_when_they_are_sane() {
        let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let trace = Trace::of(&headers(&[("x-request-id", "abc"), ("traceparent", traceparent)]));
        assert_eq!((&*trace.trace_id, trace.request_id.as_bytes()), ("4bf92f3577b34da6a3ce929d0e0e4736", &b"abc"[..]));
    }

    #[test]
    fn ids_that_are_not_sane_are_replaced() {
        let long = "x".repeat(129);
        for bad in ["", "a b", "é", &long] {
            let trace = Trace::of(&headers(&[("x-request-id", bad)]));
            assert!(trace.request_id.as_bytes().starts_with(b"req_"), "{bad:?}");
        }
        let bad = "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01";
        let trace = Trace::of(&headers(&[("traceparent", bad)]));
        assert_ne!(&*trace.trace_id, "4bf92f3577b34da6a3ce929d0e0e4736");
        let (a, b) = (Trace::of(&HeaderMap::new()), Trace::of(&HeaderMap::new()));
        assert_eq!(a.trace_id.len(), 32);
        assert!(a.trace_id != b.trace_id && a.request_id != b.request_id);
    }
}
