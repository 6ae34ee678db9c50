//! What each route needs: the one place where that is decided.

use super::Role;
use axum::http::Method;

/// What a request needs to be let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing: not even a token.
    Open,
    /// A token with this role, or one that includes it.
    Needs(Role),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Methods {
    /// GET and HEAD.
    Reading,
    Any,
}

use Access::{Needs, Open};
use Methods::{Any, Reading};
use Role::{Admin, Read, Write};

/// The first line that fits a request decides. A path that ends in `*` stands for all that begin so.
const TABLE: &[(Methods, &str, Access)] = &[
    // Probes: those who ask have no tokens, and hear no more than whether the node works.
    (Any, "/livez", Open),
    (Any, "/readyz", Open),
    (Any, "/startupz", Open),
    (Any, "/healthz", Open),
    // The console's page holds no data, and asks for the token with which it gets some.
    (Reading, "/console", Open),
    // The shop.
    (Reading, "/v1/*", Needs(Read)),
    (Any, "/v1/*", Needs(Write)),
    // Administration. A route that needs something else than these two say gets a line before them.
    (Reading, "/admin/v1/*", Needs(Read)),
    (Any, "/admin/v1/*", Needs(Admin)),
    // Metrics and documents: API.md excepts nothing but the probes.
    (Reading, "/metrics", Needs(Read)),
    (Reading, "/openapi.json", Needs(Read)),
    (Reading, "/docs", Needs(Read)),
    (Reading, "/docs/*", Needs(Read)),
    (Reading, "/problems/*", Needs(Read)),
];

/// What a request needs. Paths are compared as they are sent, which is how they are routed, too.
pub fn of(method: &Method, path: &str) -> Access {
    // No route: whoever has a token learns that there is none. A change that nobody has decided on
    // is not for everybody.
    let otherwise = if is_reading(method) { Needs(Read) } else { Needs(Admin) };
    line(method, path).map_or(otherwise, |at| TABLE[at].2)
}

/// Which line decides.
fn line(method: &Method, path: &str) -> Option<usize> {
    TABLE.iter().position(|(methods, pattern, _)| {
        let is_of = match pattern.strip_suffix('*') {
            Some(beginning) => path.starts_with(beginning),
            None => path == *pattern,
        };
        is_of && (*methods == Any || is_reading(method))
    })
}

fn is_reading(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingress::openapi;
    use serde_json::Value;
    use std::collections::BTreeSet;

    /// Every route of the description.
    fn routes() -> Vec<(Method, String)> {
        let document: Value = serde_json::from_str(openapi::document()).expect("JSON");
        let paths = document["paths"].as_object().expect("paths").clone();
        let methods = |(path, methods): (String, Value)| {
            let methods: Vec<String> = methods.as_object().expect("methods").keys().cloned().collect();
            methods.into_iter().map(move |method| (method.to_uppercase().parse().expect("a method"), path.clone()))
        };
        let all: Vec<(Method, String)> = paths.into_iter().flat_map(methods).collect();
        assert!(all.len() > 50, "{all:?}");
        all
    }

    #[test]
    fn every_route_is_decided_on_and_every_line_decides_on_a_route() {
        let mut lines = BTreeSet::new();
        for (method, path) in routes() {
            let decided = line(&method, &path);
            lines.insert(decided.unwrap_or_else(|| panic!("{method} {path} needs a line in TABLE")));
        }
        assert_eq!(lines.len(), TABLE.len(), "a line of TABLE is of no route: {lines:?}");
    }

    #[test]
    fn nothing_is_open_but_the_probes_and_the_consoles_page() {
        let open: BTreeSet<String> =
            routes().into_iter().filter(|(method, path)| of(method, path) == Open).map(|(_, path)| path).collect();
        let expected = ["/console", "/healthz", "/livez", "/readyz", "/startupz"].map(str::to_owned);
        assert_eq!(open, BTreeSet::from(expected));
        assert_eq!(of(&Method::POST, "/console"), Needs(Admin));
    }

    #[test]
    fn what_changes_the_shop_needs_write_and_what_changes_the_cluster_needs_admin() {
        for (method, path) in routes() {
            let needs = of(&method, &path);
            let expected = match (method == Method::GET, path.starts_with("/v1/")) {
                (true, _) => Read,
                (false, true) => Write,
                (false, false) => Admin,
            };
            assert!(needs == Open || needs == Needs(expected), "{method} {path}: {needs:?}");
        }
    }

    #[test]
    fn what_is_no_route_is_told_to_nobody_without_a_token() {
        for path in ["/", "/nowhere", "/v2/orders", "/livez/", "//livez", "/Livez", "/%6civez", "/livez/x", "*", ""] {
            for method in [Method::GET, Method::HEAD, Method::POST, Method::OPTIONS, Method::DELETE] {
                assert_ne!(of(&method, path), Open, "{method} {path}");
            }
        }
        assert_eq!(of(&Method::HEAD, "/v1/orders/ord_1"), Needs(Read));
        assert_eq!(of(&Method::OPTIONS, "/v1/orders"), Needs(Write), "another method than GET and HEAD is a change");
    }
}
