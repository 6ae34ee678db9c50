//! `/console`: what an operator wants to see of a cluster, on one page.
//!
//! The page is a part of this binary and loads nothing: its style and its script stand in it, and its
//! policy lets it run no others and talk to nobody but this node. It holds no data. What it shows it
//! asks for over the same routes as everybody else, with the operator's token where one is needed;
//! so the page itself, which has to be there to ask for the token, needs none.

use super::{Api, extract::Params, problem::Problem};
use axum::{
    Router,
    http::{Uri, header},
    response::{IntoResponse, Response},
    routing::get,
};

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

pub fn routes() -> Router<Api> {
    Router::new().route("/console", get(console))
}

/// The operator console.
#[utoipa::path(
    get, path = "/console", tag = "operations",
    responses((status = 200, description = "The page", body = String, content_type = "text/html"))
)]
pub async fn console(uri: Uri) -> Result<Response, Problem> {
    Params::none(&uri)?;
    Ok(page(&format!("{:032x}", rand::random::<u128>())))
}

/// The page, whose style and script are the only ones with this `nonce`.
fn page(nonce: &str) -> Response {
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let text = PAGE.replace("{{nonce}}", nonce).replace("{{style}}", STYLE).replace("{{script}}", SCRIPT);
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8".to_owned()),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (header::REFERRER_POLICY, "no-referrer".to_owned()),
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ];
    (headers, text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingress::openapi;
    use regex::Regex;
    use serde_json::Value;
    use std::collections::BTreeSet;

    fn pattern(text: &str) -> Regex {
        Regex::new(text).expect("a pattern")
    }

    async fn text(response: Response) -> String {
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.expect("in memory");
        String::from_utf8(body.to_vec()).expect("UTF-8")
    }

    #[tokio::test]
    async fn nothing_runs_but_the_pages_own_script_and_nobody_is_asked_but_the_node() {
        let response = page("0123");
        let policy = response.headers()[header::CONTENT_SECURITY_POLICY].to_str().expect("text").to_owned();
        let allowed: BTreeSet<&str> = policy.split("; ").collect();
        let expected = [
            "default-src 'none'",
            "script-src 'nonce-0123'",
            "style-src 'nonce-0123'",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ];
        assert_eq!(allowed, BTreeSet::from(expected));
        let text = text(response).await;
        for tag in ["script", "style"] {
            assert_eq!(text.matches(&format!("<{tag}")).count(), 1, "{tag}");
            assert_eq!(text.matches(&format!("<{tag} nonce=\"0123\">")).count(), 1, "{tag}");
            assert_eq!(text.matches(&format!("</{tag}>")).count(), 1, "{tag}");
        }
        assert!(!text.contains("{{"), "everything is filled in");
    }

    #[tokio::test]
    async fn each_page_has_a_nonce_of_its_own() {
        let policy = async || {
            let page = console(Uri::from_static("/console")).await.expect("a page");
            page.headers()[header::CONTENT_SECURITY_POLICY].clone()
        };
        assert_ne!(policy().await, policy().await);
        assert!(console(Uri::from_static("/console?x=1")).await.is_err());
    }

    #[test]
    fn the_page_loads_nothing_and_what_it_shows_is_text() {
        for (name, source) in [("page.html", PAGE), ("style.css", STYLE), ("script.js", SCRIPT)] {
            let foreign = pattern(r#"(?i-u)https?:|wss?:|["'(=]\s*//|@import|url\(|\bsrc=|\bhref=|<link|<iframe|<img"#);
            assert_eq!(foreign.find(source).map(|found| found.as_str()), None, "{name} would load something");
            // What the policy would stop, and what would make markup of data.
            let unsafe_ = pattern(
                r"(?i-u)innerHTML|outerHTML|insertAdjacent|document\.write|\beval\(|Function\(|import\(|\sstyle=|\son\w+=",
            );
            assert_eq!(unsafe_.find(source).map(|found| found.as_str()), None, "{name}");
        }
    }

    #[test]
    fn every_route_that_the_page_asks_is_described() {
        let document: Value = serde_json::from_str(openapi::document()).expect("JSON");
        let mut asked = BTreeSet::new();
        for found in pattern(r#""(GET|PUT|POST|PATCH|DELETE) (/[^"]*)""#).captures_iter(SCRIPT) {
            let (method, path) = (found[1].to_lowercase(), &found[2]);
            assert!(document["paths"][path].get(&method).is_some(), "{method} {path} is no route");
            asked.insert(found[0].to_owned());
        }
        assert!(asked.len() >= 9, "{asked:?}");
        assert_eq!(SCRIPT.matches("fetch(").count(), 1, "there is one place that asks, and it takes one of these");
        assert!(!SCRIPT.contains("XMLHttpRequest") && !SCRIPT.contains("EventSource"));
        // No other text of the script is a path.
        let paths =
            pattern(r#"["'`]\.?/[a-z][a-z0-9]"#).find_iter(SCRIPT).map(|found| found.as_str()).collect::<Vec<_>>();
        assert_eq!(paths, ["\"/v1"], "but the beginning of the shop's routes, in metrics");
    }

    #[test]
    fn every_member_and_metric_that_the_page_shows_is_there() {
        let document: Value = serde_json::from_str(openapi::document()).expect("JSON");
        let shown = [
            ("node", "NodeStatus"),
            ("member", "Member"),
            ("shard", "Shard"),
            ("task", "Task"),
            ("letter", "DeadLetter"),
            ("found", "Violation"),
        ];
        for (variable, schema) in shown {
            let properties = document["components"]["schemas"][schema]["properties"].as_object().expect("a schema");
            let mut members = 0;
            for found in pattern(&format!(r"(?-u:\b){variable}\.([a-z_]+)")).captures_iter(SCRIPT) {
                assert!(properties.contains_key(&found[1]), "{schema} has no {}", &found[1]);
                members += 1;
            }
            assert!(members >= 5, "{variable}: {members}");
        }
        let names = include_str!("../../telemetry/names.rs");
        let metrics = pattern(r#""((?:quorate|process)_[a-z_]+?)(?:_bucket)?""#);
        let metrics: BTreeSet<String> = metrics.captures_iter(SCRIPT).map(|found| found[1].to_owned()).collect();
        assert!(metrics.len() >= 9, "{metrics:?}");
        metrics.iter().for_each(|name| assert!(names.contains(&format!("\"{name}\"")), "{name}"));
    }

    #[test]
    fn every_element_that_the_script_names_is_on_the_page_and_has_a_name_for_those_who_do_not_see_it() {
        let ids: BTreeSet<String> =
            pattern(r#"(?-u:\b)id="([a-z-]+)""#).captures_iter(PAGE).map(|found| found[1].to_owned()).collect();
        let named = pattern(r#"(?-u:\b)(?:of\(|say\(|problem: |none: )"([a-z-]+)""#);
        let named: BTreeSet<String> = named.captures_iter(SCRIPT).map(|found| found[1].to_owned()).collect();
        assert!(named.len() > 10 && named.is_subset(&ids), "{:?} are not there", named.difference(&ids));
        for found in pattern(r#"aria-labelledby="([a-z-]+)"|(?-u:\b)for="([a-z-]+)""#).captures_iter(PAGE) {
            let id = found.get(1).or(found.get(2)).expect("one of them").as_str();
            assert!(ids.contains(id), "{id}");
        }
        for table in pattern(r"(?s)<table.*?</table>").find_iter(PAGE) {
            assert!(table.as_str().contains("<caption"), "{}", table.as_str());
            assert!(!table.as_str().contains("<th>"), "each heading says what it is of: {}", table.as_str());
        }
    }

    /// Where there is a `node` to ask.
    #[test]
    fn the_script_can_be_read() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("script.js");
        std::fs::write(&file, SCRIPT).expect("writing");
        let Ok(checked) = std::process::Command::new("node").arg("--check").arg(&file).output() else { return };
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    }
}
