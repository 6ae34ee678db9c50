//! Access tokens: each role, each kind of route, and what is not let in.

use super::{Answer, Shop, order, routes_table::routes};
use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Request, StatusCode},
    routing::get,
};
use quorate::{
    Cluster, Config,
    ingress::{
        self, Options,
        auth::{Role, TokenOptions},
    },
};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tower::ServiceExt;

const READ: &str = "token-of-the-one-who-reads";
const WRITE: &str = "token-of-the-one-who-writes";
const WRITE_2: &str = "token-that-follows-the-other";
const ADMIN: &str = "token-of-the-one-who-may-all";
/// The probes, and a page that holds no data and asks for the token.
const OPEN: [&str; 5] = ["/livez", "/healthz", "/readyz", "/startupz", "/console"];

fn tokens() -> Vec<TokenOptions> {
    vec![
        TokenOptions::new("reader", Role::Read, READ),
        TokenOptions::new("shop", Role::Write, WRITE),
        TokenOptions::new("shop-2", Role::Write, WRITE_2),
        TokenOptions::new("ops", Role::Admin, ADMIN),
    ]
}

/// A node whose interface asks for tokens.
async fn guarded() -> Shop {
    let mut shop = Shop::start(1).await;
    let options = Options { tokens: tokens(), ..Options::default() };
    shop.routers[0] = ingress::router(shop.cluster.clone(), &options);
    shop
}

async fn ask(shop: &Shop, method: &str, path: &str, token: &str) -> Answer {
    shop.send(method, path).header("authorization", &format!("Bearer {token}")).await_answer().await
}

/// Whether a request gets past the guard. What is let in is not read to its end: a stream has none.
async fn is_let_in(shop: &Shop, route: &str, token: Option<&str>) -> bool {
    let (method, template) = route.split_once(' ').expect("a method and a path");
    let mut request = Request::builder().method(method).uri(concrete(template));
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let answered = shop.routers[0].clone().oneshot(request.body(Body::empty()).expect("a request")).await;
    let (head, body) = answered.expect("infallible").into_parts();
    if ![StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&head.status) {
        return true;
    }
    let problem = to_bytes(body, 1 << 20).await.expect("a problem in memory");
    let problem: Value = serde_json::from_slice(&problem).expect("JSON");
    // There are others with the same status.
    problem["code"] != "unauthorized" && problem["code"] != "forbidden"
}

/// A path of the template.
fn concrete(template: &str) -> String {
    let path = template.replace("{id}", "x").replace("{sku}", "x").replace("{type}", "order").replace("{name}", "x");
    path.replace("{code}", "no-quorum").replace("{file}", "swagger-ui.css").replace("{receipt}", "0-1-1-00000000")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_lets_in_those_whose_role_its_description_names() {
    let shop = guarded().await;
    let document = ask(&shop, "GET", "/openapi.json", READ).await.is(200).body;
    let mut open = BTreeSet::new();
    for route in routes() {
        let (method, path) = route.split_once(' ').expect("a method and a path");
        let security = &document["paths"][path][method.to_lowercase()]["security"];
        let needed = security[0]["bearer"][0].as_str().map(|name| Role::parse(name).expect("a role"));
        assert_eq!(is_let_in(&shop, &route, None).await, needed.is_none(), "{route} without a token");
        let Some(needed) = needed else {
            open.insert(path.to_owned());
            continue;
        };
        for (role, token) in [(Role::Read, READ), (Role::Write, WRITE), (Role::Write, WRITE_2), (Role::Admin, ADMIN)] {
            assert_eq!(is_let_in(&shop, &route, Some(token)).await, role >= needed, "{route} as {role}");
        }
    }
    assert_eq!(open, OPEN.map(str::to_owned).into());
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_does_what_it_is_for() {
    let shop = guarded().await;
    let put = |token: &'static str| {
        let put = shop.send("PUT", "/v1/inventory/mug").json(&json!({"on_hand": 3}));
        put.header("authorization", &format!("Bearer {token}")).await_answer()
    };
    assert_eq!(put(READ).await.is(403).text("code"), "forbidden");
    put(WRITE).await.is(200);
    let place = shop.send("POST", "/v1/orders").key("one").json(&order("mug", 1));
    place.header("authorization", &format!("Bearer {WRITE_2}")).await_answer().await.is(201);
    assert_eq!(ask(&shop, "GET", "/v1/inventory/mug", READ).await.is(200).body["on_hand"], 3);
    ask(&shop, "GET", "/admin/v1/status", READ).await.is(200);
    assert_eq!(ask(&shop, "HEAD", "/v1/inventory/mug", READ).await.is(200).text, "");
    let retry = "/admin/v1/dead-letters/dl_0_1/retry";
    let refused = ask(&shop, "POST", retry, WRITE).await.is(403);
    assert_eq!((refused.text("needs"), refused.text("role")), ("admin", "write"));
    assert!(refused.text("detail").contains("`shop` has `write`"), "{}", refused.text);
    assert_eq!(ask(&shop, "POST", retry, ADMIN).await.is(404).text("code"), "not-found");
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_known_is_told_so_as_rfc_6750_has_it_and_nothing_else() {
    let shop = guarded().await;
    let basic = ("authorization", "Basic dXNlcjpwYXNz");
    let wrong = ("authorization", "Bearer token-of-nobody-at-all");
    for path in
        ["/v1/orders/ord_1", "/nowhere", "/admin/v1/status", "/metrics", "/docs/", "/openapi.json", "/", "/livez/x"]
    {
        let problem = shop.get(path).problem().await;
        assert_eq!((problem.0, problem.1.as_str()), (401, "unauthorized"), "{path}");
        let answer = shop.get(path).await_answer().await;
        assert_eq!(answer.header("www-authenticate"), "Bearer realm=\"quorate\"", "{path}");
        let answer = shop.get(path).header(basic.0, basic.1).await_answer().await.is(401);
        assert_eq!(answer.header("www-authenticate"), "Bearer realm=\"quorate\"", "{path}: another scheme");
        let answer = shop.get(path).header(wrong.0, wrong.1).await_answer().await.is(401);
        assert!(answer.header("www-authenticate").ends_with("error=\"invalid_token\""), "{path}");
        assert!(!answer.text.contains("nobody"), "{}", answer.text);
    }
    // Neither the method, nor the query, nor the body is looked at before.
    assert_eq!(shop.send("BREW", "/v1/orders").problem().await.1, "unauthorized");
    assert_eq!(shop.send("DELETE", "/v1/orders").problem().await.1, "unauthorized");
    assert_eq!(shop.get(&format!("/v1/orders?access_token={ADMIN}")).problem().await.1, "unauthorized");
    let large = "x".repeat(2 << 20);
    assert_eq!(shop.send("POST", "/v1/orders").raw(&large).problem().await.1, "unauthorized");
    // Who is known is told what is the matter.
    assert_eq!(ask(&shop, "GET", "/nowhere", READ).await.is(404).text("code"), "route-not-found");
    assert_eq!(ask(&shop, "DELETE", "/v1/orders", WRITE).await.is(405).text("code"), "method-not-allowed");
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_counted_by_reason_and_no_token_is_shown() {
    let shop = guarded().await;
    shop.get("/v1/orders").await_answer().await.is(401);
    ask(&shop, "GET", "/v1/orders", "token-of-nobody-at-all").await.is(401);
    ask(&shop, "PUT", "/v1/inventory/mug", READ).await.is(403);
    let metrics = ask(&shop, "GET", "/metrics", READ).await.is(200).text;
    for reason in ["no_token", "unknown_token", "role"] {
        assert!(metrics.contains(&format!("quorate_http_refused_total{{reason=\"{reason}\"}}")), "{reason}: {metrics}");
    }
    let shown = Config { http: Options { tokens: tokens(), ..Options::default() }, ..Config::default() };
    let shown = shown.show(&quorate::config::Sources::default());
    let config = ask(&shop, "GET", "/admin/v1/config", READ).await.is(200).text;
    for text in [metrics, config, shown.clone()] {
        assert!([READ, WRITE, WRITE_2, ADMIN].iter().all(|token| !text.contains(token)), "{text}");
    }
    assert!(shown.contains("\"shop-2\"") && shown.contains("<redacted>"), "{shown}");
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_mounts_the_routes_keeps_its_own_open_and_the_configured_tokens_guard_the_others() {
    let builder = ingress::shop::register(Cluster::in_memory(1)).configure(|config| config.http.tokens = tokens());
    let cluster = builder.start().await.expect("a cluster in memory starts");
    let mine = Router::new().route("/mine", get(|| async { "mine" })).fallback(|| async { "my own fallback" });
    let merged = mine.clone().merge(cluster.http_router());
    let nested = mine.nest("/quorate", cluster.http_router());
    for (app, prefix) in [(merged, ""), (nested, "/quorate")] {
        let status = |method: &'static str, path: String, token: Option<&'static str>| {
            let mut request = Request::builder().method(method).uri(path);
            if let Some(token) = token {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            let answered = app.clone().oneshot(request.body(Body::empty()).expect("a request"));
            async { answered.await.expect("infallible").status().as_u16() }
        };
        assert_eq!(status("GET", "/mine".into(), None).await, 200);
        assert_eq!(status("GET", "/elsewhere".into(), None).await, 200);
        assert_eq!(status("GET", format!("{prefix}/readyz"), None).await, 200);
        assert_eq!(status("GET", format!("{prefix}/admin/v1/status"), None).await, 401);
        assert_eq!(status("GET", format!("{prefix}/admin/v1/status"), Some(READ)).await, 200);
        let discard = format!("{prefix}/admin/v1/dead-letters/dl_0_1/discard");
        assert_eq!(status("POST", discard.clone(), Some(WRITE)).await, 403);
        assert_eq!(status("POST", discard, Some(ADMIN)).await, 404);
    }
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_cluster_whose_tokens_cannot_be_used_does_not_start() {
    let missing = || TokenOptions {
        token: None,
        token_file: Some("/nonexistent/token".into()),
        ..TokenOptions::new("ops", Role::Admin, "")
    };
    let builder = ingress::shop::register(Cluster::in_memory(1));
    let refused = builder.configure(move |config| config.http.tokens = vec![missing()]).start().await;
    let error = refused.err().expect("refused").to_string();
    assert!(error.contains("`ops`") && error.contains("/nonexistent/token"), "{error}");
}
