//! Refuses changes that another web site has a browser ask for.
//!
//! A page of any site may have a browser send a simple POST to an address that only this machine reaches, or to a
//! proxy that adds what lets it in. The browser says where the request comes from: `Sec-Fetch-Site`, or in
//! older ones `Origin`. Whoever is no browser sends neither. After Filippo Valsorda, *Cross-Site Request
//! Forgery* (2025), as Go's `http.CrossOriginProtection` has it.

use super::problem::{Code, Problem};
use axum::{
    extract::{Request, State},
    http::{HeaderMap, Method, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};
use std::sync::Arc;

const FETCH_SITE: &str = "sec-fetch-site";

/// Other sites whose pages may. Cheap to clone.
#[derive(Clone)]
pub struct Trusted(Arc<[String]>);

impl Trusted {
    pub fn of(origins: &[String]) -> Self {
        Self(origins.into())
    }

    fn includes(&self, headers: &HeaderMap) -> bool {
        headers
            .get(header::ORIGIN)
            .is_some_and(|origin| self.0.iter().any(|trusted| trusted.as_bytes() == origin.as_bytes()))
    }
}

/// Those of a list that no browser would send.
pub fn wrong_origins(origins: &[String]) -> impl Iterator<Item = &String> {
    origins.iter().filter(|origin| {
        let host = origin.strip_prefix("https://").or(origin.strip_prefix("http://")).unwrap_or_default();
        host.is_empty() || host.chars().any(|c| c.is_ascii_uppercase() || c.is_whitespace() || "/?#@*".contains(c))
    })
}

/// The layer around every route.
pub async fn check(State(trusted): State<Trusted>, request: Request, next: Next) -> Response {
    let is_read = [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method());
    let (headers, authority) = (request.headers(), request.uri().authority().map(Authority::as_str));
    match is_read || trusted.includes(headers) || is_from_here(headers, authority) {
        true => next.run(request).await,
        false => {
            let detail =
                "a page of another site had a browser send this; send it from a page of this address, or from no page";
            Problem::new(Code::CrossSite, detail).into_response()
        }
    }
}

fn is_from_here(headers: &HeaderMap, authority: Option<&str>) -> bool {
    if let Some(site) = headers.get(FETCH_SITE) {
        return [&b"same-origin"[..], b"none"].contains(&site.as_bytes());
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let host = authority.map(str::as_bytes).or(headers.get(header::HOST).map(|host| host.as_bytes()));
    let after_scheme = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    after_scheme.zip(host).is_some_and(|((_, from), host)| from.as_bytes().eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderName, HeaderValue};

    fn sent(pairs: &[(&'static str, &'static str)]) -> bool {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        is_from_here(&pairs.iter().map(pair).collect(), None)
    }

    #[test]
    fn a_browser_says_where_a_request_comes_from_and_others_say_nothing() {
        let host = ("host", "shop.example:8080");
        for good in [
            &[host][..],
            &[host, ("sec-fetch-site", "same-origin"), ("origin", "http://127.0.0.1")],
            &[host, ("sec-fetch-site", "none")],
            &[host, ("origin", "http://shop.example:8080")],
            &[host, ("origin", "https://SHOP.example:8080")],
        ] {
            assert!(sent(good), "{good:?}");
        }
        let wrong = ["shop.example", "https://", "https://shop.example/", "https://*.example", "https://Shop.example"];
        let right = ["https://shop.example", "http://127.0.0.1:3000"].map(str::to_owned);
        assert_eq!(wrong_origins(&wrong.map(str::to_owned)).count(), wrong.len());
        assert_eq!(wrong_origins(&right).count(), 0);
        let from = |origin: &'static str| [(header::ORIGIN, HeaderValue::from_static(origin))].into_iter().collect();
        assert!(Trusted::of(&right).includes(&from("https://shop.example")));
        assert!(!Trusted::of(&right).includes(&from("https://shop.example.evil")));
        for bad in [
            &[host, ("sec-fetch-site", "cross-site")][..],
            &[host, ("sec-fetch-site", "same-site")],
            &[host, ("sec-fetch-site", "")],
            &[host, ("origin", "http://evil.example")],
            &[host, ("origin", "http://shop.example")],
            &[host, ("origin", "null")],
            &[("origin", "http://shop.example:8080")],
        ] {
            assert!(!sent(bad), "{bad:?}");
        }
    }
}
