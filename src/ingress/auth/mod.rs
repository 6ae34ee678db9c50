//! Access tokens: who may use the HTTP interface, and for what.
//!
//! ```text
//! http.tokens ─▶ options (entries, as written) ─▶ tokens (digests) ─┐
//! request ─▶ access (what the route needs) ─▶ check ◀───────────────┘ ─▶ route, or 401, or 403
//! ```
//!
//! - [`access`] is the one table of what each route needs. The probes and the console's page
//!   need nothing.
//! - [`check`] stands inside of the envelope and before everything else: nothing of a request is
//!   read before it is known who asks, and all paths are answered alike, but for axum's `allow` header.
//!
//! Invariants: requests are compared with digests, in constant time; a token is never shown; tokens
//! that cannot be used let nobody in. Without tokens there is no layer, and no request costs more.

pub mod access;
mod options;
mod tokens;

pub use options::{Invalid, TokenOptions, problems, read_list};
pub use tokens::Tokens;

use super::{
    headers::Trace,
    problem::{Code, Problem},
};
use crate::telemetry::names;
use access::Access;
use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::json;
use std::{fmt, sync::Arc};
use tokens::Known;

/// What a token may do; each includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// See everything.
    Read,
    /// Use the shop.
    Write,
    /// Everything, administration included.
    Admin,
}

impl Role {
    pub const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Admin];

    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Who is let in. Cheap to clone.
#[derive(Clone)]
pub struct Guard(Arc<Tokens>);

impl Guard {
    /// `None` where there are no tokens: then everybody may do everything.
    pub fn of(entries: &[TokenOptions]) -> Option<Self> {
        if entries.is_empty() {
            return None;
        }
        let tokens = Tokens::resolve(entries).unwrap_or_else(|why| {
            tracing::error!("nobody is let in over HTTP: {why}");
            Tokens::none()
        });
        Some(Self(Arc::new(tokens)))
    }

    fn admit(&self, headers: &HeaderMap, needs: Role) -> Result<&Known, Refusal> {
        let known = self.0.find(presented(headers)?).ok_or(Refusal::UnknownToken)?;
        match known.role >= needs {
            true => Ok(known),
            false => Err(Refusal::Role { name: known.name.clone(), has: known.role, needs }),
        }
    }
}

/// The layer around every route.
pub async fn check(State(guard): State<Guard>, mut request: Request, next: Next) -> Response {
    let Access::Needs(needs) = access::of(request.method(), request.uri().path()) else {
        return next.run(request).await;
    };
    match guard.admit(request.headers(), needs) {
        Ok(known) if needs == Role::Admin => log_admin(known, &request),
        Ok(_) => {}
        Err(refusal) => return refusal.answer(&request),
    }
    // Nobody behind this needs it, so nobody can show it.
    request.headers_mut().remove(header::AUTHORIZATION);
    next.run(request).await
}

/// Who changed the cluster by hand is in the log.
fn log_admin(known: &Known, request: &Request) {
    let trace_id = request.extensions().get::<Trace>().map(|trace| &*trace.trace_id);
    tracing::info!(token = known.name, method = %request.method(), path = request.uri().path(), trace_id, "an admin's request");
}

/// The token of a request. Another scheme than `Bearer` is none of ours.
fn presented(headers: &HeaderMap) -> Result<&[u8], Refusal> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().ok_or(Refusal::NoToken)?.as_bytes().trim_ascii();
    let end = value.iter().position(|byte| *byte == b' ').unwrap_or(value.len());
    let (scheme, token) = value.split_at(end);
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return Err(Refusal::NoToken);
    }
    match values.next() {
        None => Ok(token.trim_ascii_start()),
        // Which one is meant?
        Some(_) => Err(Refusal::UnknownToken),
    }
}

/// Why a request is not let in.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    NoToken,
    /// None of ours, or nothing that could be one.
    UnknownToken,
    Role {
        name: String,
        has: Role,
        needs: Role,
    },
}

impl Refusal {
    /// As the metric counts it.
    fn reason(&self) -> &'static str {
        match self {
            Self::NoToken => "no_token",
            Self::UnknownToken => "unknown_token",
            Self::Role { .. } => "role",
        }
    }

    fn answer(&self, request: &Request) -> Response {
        metrics::counter!(names::HTTP_REFUSED, "reason" => self.reason()).increment(1);
        let mut response = self.problem(request).into_response();
        if let Ok(challenge) = HeaderValue::from_str(&self.challenge()) {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }

    fn problem(&self, request: &Request) -> Problem {
        // Without its query, in which somebody may have sent a token.
        let what = format!("{} {}", request.method(), request.uri().path());
        match self {
            Self::NoToken => {
                Problem::new(Code::Unauthorized, format!("{what} needs a token: send `Authorization: Bearer …`"))
            }
            Self::UnknownToken => Problem::new(Code::Unauthorized, "the token is none that this node knows"),
            Self::Role { name, has, needs } => {
                let detail = format!("{what} needs a token with the role `{needs}`; `{name}` has `{has}`");
                Problem::new(Code::Forbidden, detail).with("needs", json!(needs)).with("role", json!(has))
            }
        }
    }

    /// RFC 6750, section 3.
    fn challenge(&self) -> String {
        match self {
            Self::NoToken => "Bearer realm=\"quorate\"".into(),
            Self::UnknownToken => "Bearer realm=\"quorate\", error=\"invalid_token\"".into(),
            Self::Role { needs, .. } => {
                format!("Bearer realm=\"quorate\", error=\"insufficient_scope\", scope=\"{needs}\"")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READER: &str = "a-token-that-may-read";
    const WRITER: &str = "a-token-that-may-write";

    fn guard() -> Guard {
        let entries = [TokenOptions::new("reader", Role::Read, READER), TokenOptions::new("shop", Role::Write, WRITER)];
        Guard::of(&entries).expect("there are tokens")
    }

    fn headers(values: &[&str]) -> HeaderMap {
        let one = |value: &&str| (header::AUTHORIZATION, HeaderValue::from_str(value).expect("a header value"));
        values.iter().map(one).collect()
    }

    fn admitted(values: &[&str], needs: Role) -> Result<String, Refusal> {
        guard().admit(&headers(values), needs).map(|known| known.name.clone())
    }

    #[test]
    fn a_role_includes_those_before_it() {
        assert!(Role::Read < Role::Write && Role::Write < Role::Admin);
        for role in Role::ALL {
            assert_eq!((Role::parse(role.name()), json!(role)), (Some(role), json!(role.name())));
        }
        let writer = format!("Bearer {WRITER}");
        assert_eq!(admitted(&[&writer], Role::Read), Ok("shop".into()));
        assert_eq!(admitted(&[&writer], Role::Write), Ok("shop".into()));
        let refused = Refusal::Role { name: "shop".into(), has: Role::Write, needs: Role::Admin };
        assert_eq!(admitted(&[&writer], Role::Admin), Err(refused));
    }

    #[test]
    fn a_scheme_is_read_in_any_case_and_another_one_is_no_token() {
        for good in [format!("Bearer {READER}"), format!("bearer  {READER}"), format!("BEARER {READER} ")] {
            assert_eq!(admitted(&[&good], Role::Read), Ok("reader".into()), "{good}");
        }
        for none in [&[][..], &["Basic dTpw"], &[READER], &["Bearer2 x"], &[""]] {
            assert_eq!(admitted(none, Role::Read), Err(Refusal::NoToken), "{none:?}");
        }
    }

    #[test]
    fn what_is_no_token_of_ours_is_unknown_however_it_differs() {
        let long = format!("Bearer {READER}{}", "x".repeat(60_000));
        let (cut, more) = (format!("Bearer {}", &READER[1..]), format!("Bearer {READER}x"));
        let (twice, upper) = (format!("Bearer {READER} {READER}"), format!("Bearer {}", READER.to_uppercase()));
        for bad in [&cut, &more, &twice, &upper, &long, "Bearer", "Bearer ", "Bearer é"] {
            assert_eq!(admitted(&[bad], Role::Read), Err(Refusal::UnknownToken), "{bad:.80}");
        }
        let good = format!("Bearer {READER}");
        assert_eq!(admitted(&[&good, &good], Role::Read), Err(Refusal::UnknownToken), "sent twice");
    }

    #[test]
    fn without_tokens_there_is_no_guard_and_with_unusable_ones_nobody_is_let_in() {
        assert!(Guard::of(&[]).is_none());
        let missing =
            TokenOptions { token_file: Some("/nonexistent/token".into()), ..TokenOptions::new("a", Role::Admin, "") };
        let missing = TokenOptions { token: None, ..missing };
        let guard = Guard::of(&[TokenOptions::new("reader", Role::Read, READER), missing]).expect("there are tokens");
        let refused = guard.admit(&headers(&[&format!("Bearer {READER}")]), Role::Read).map(|known| &known.name);
        assert_eq!(refused, Err(Refusal::UnknownToken));
    }

    #[test]
    fn a_refusal_says_what_is_needed_and_shows_no_token_and_no_query() {
        let uri = format!("/v1/orders?access_token={READER}");
        let request = Request::get(uri).body(axum::body::Body::empty()).expect("a request");
        let role = Refusal::Role { name: "reader".into(), has: Role::Read, needs: Role::Write };
        for (refusal, status, challenge) in [
            (Refusal::NoToken, 401, "Bearer realm=\"quorate\""),
            (Refusal::UnknownToken, 401, "Bearer realm=\"quorate\", error=\"invalid_token\""),
            (role, 403, "Bearer realm=\"quorate\", error=\"insufficient_scope\", scope=\"write\""),
        ] {
            let shown = refusal.problem(&request).render("t").to_string();
            assert!(!shown.contains(READER) && !shown.contains("access_token"), "{shown}");
            assert_eq!(shown.contains("role `write`"), status == 403, "{shown}");
            let response = refusal.answer(&request);
            assert_eq!(response.status().as_u16(), status);
            assert_eq!(response.headers()[header::WWW_AUTHENTICATE], challenge);
        }
    }
}
