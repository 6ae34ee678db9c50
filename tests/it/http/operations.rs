//! Probes, metrics, administration, documentation, mounting.

use super::Shop;
use axum::{Router, body::Body, http::Request, routing::get};
use quorate::ingress;
use serde_json::{Value, json};
use tower::ServiceExt;

#[tokio::test(flavor = "multi_thread")]
async fn a_ready_node_passes_every_probe() {
    let shop = Shop::start(3).await;
    for node in 0..3 {
        for probe in ["/livez", "/healthz", "/readyz", "/startupz"] {
            let answer = shop.send_to(node, "GET", probe).await_answer().await.is(200);
            assert_eq!(answer.body, json!({"status": "ok"}), "{probe} of node {node}");
        }
    }
    let verbose = shop.get("/readyz?verbose").await_answer().await.is(200);
    assert!(verbose.body["checks"].as_array().is_some_and(|checks| checks.iter().all(|check| check["ok"] == true)));
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_node_is_alive_but_not_ready() {
    let shop = Shop::start(1).await;
    shop.cluster.shutdown().await;
    shop.get("/livez").await_answer().await.is(200);
    let (status, code, _) = shop.get("/readyz").problem().await;
    assert_eq!((status, code.as_str()), (503, "not-ready"));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_counted_by_route_and_status() {
    let shop = Shop::start(1).await;
    shop.get("/v1/orders/ord_none").await_answer().await.is(404);
    let metrics = shop.get("/metrics").await_answer().await.is(200);
    assert!(metrics.header("content-type").starts_with("text/plain"));
    let counted = metrics.text.lines().any(|line| {
        line.starts_with("quorate_http_requests_total{")
            && line.contains("route=\"/v1/orders/{id}\"")
            && line.contains("status=\"404\"")
    });
    assert!(counted, "{}", metrics.text);
    assert!(!metrics.text.contains("ord_none"));
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ids_of_a_request_come_back() {
    let shop = Shop::start(1).await;
    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let ask = shop.get("/v1/orders/ord_none").header("x-request-id", "mine-1").header("traceparent", traceparent);
    let answer = ask.await_answer().await.is(404);
    assert_eq!(answer.header("x-request-id"), "mine-1");
    assert_eq!(answer.text("trace_id"), "4bf92f3577b34da6a3ce929d0e0e4736");
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_see_the_cluster_from_any_node() {
    let shop = Shop::start(3).await;
    shop.stock("mug", 1).await;
    for node in 0..3 {
        let status = shop.send_to(node, "GET", "/admin/v1/status").await_answer().await.is(200);
        assert_eq!(status.text("phase"), "ready", "node {node}");
        let members = shop.send_to(node, "GET", "/admin/v1/members").await_answer().await.is(200);
        let members = members.body["data"].as_array().expect("members").clone();
        assert_eq!(members.len(), 3);
        assert_eq!(members.iter().filter(|member| member["is_self"] == true).count(), 1);
        let shards = shop.send_to(node, "GET", "/admin/v1/shards").await_answer().await.is(200);
        assert!(shards.body["data"].as_array().is_some_and(|shards| !shards.is_empty()));
        let stock = shop.send_to(node, "GET", "/admin/v1/entities/stock/mug").await_answer().await.is(200);
        assert_eq!(stock.body["key"], json!({"entity_type": "stock", "id": "mug"}));
        assert_eq!((&stock.body["version"], &stock.body["state"]["levels"]["on_hand"]), (&json!(1), &json!(1)));
        shop.send_to(node, "GET", "/admin/v1/config").await_answer().await.is(200);
        let hashes = shop.send_to(node, "GET", "/admin/v1/state-hashes").await_answer().await.is(200);
        let hashes = hashes.body["data"].as_array().expect("a hash for each replica").clone();
        assert!(!hashes.is_empty() && hashes.iter().all(|replica| replica["hash"].is_string()), "{hashes:?}");
        let violations = shop.send_to(node, "GET", "/admin/v1/violations").await_answer().await.is(200);
        assert_eq!(violations.body["data"], json!([]), "node {node}");
    }
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entity_that_does_not_exist_is_404_for_operators_too() {
    let shop = Shop::start(1).await;
    let code = |path: &'static str| async { shop.get(path).problem().await.1 };
    assert_eq!(code("/admin/v1/entities/stock/none").await, "not-found");
    assert_eq!(code("/admin/v1/entities/unheard_of/x").await, "unknown-entity-type");
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_documented_route_is_there() {
    let shop = Shop::start(1).await;
    let document = shop.get("/openapi.json").await_answer().await.is(200);
    let paths = document.body["paths"].as_object().expect("paths").clone();
    assert!(paths.len() > 12);
    for (path, methods) in &paths {
        let concrete = path.replace("{id}", "x").replace("{sku}", "x").replace("{type}", "order");
        let concrete = concrete.replace("{code}", "no-quorum").replace("{file}", "swagger-ui.css");
        for method in methods.as_object().expect("methods").keys() {
            let answer = shop.send(&method.to_uppercase(), &concrete).await_answer().await;
            let missing = ["route-not-found", "method-not-allowed"].contains(&answer.text("code"));
            assert!(!missing, "{method} {path}: {}", answer.text);
        }
    }
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn problem_types_lead_to_an_explanation() {
    let shop = Shop::start(1).await;
    for code in ingress::problem::Code::ALL {
        let page = shop.get(&code.uri()).await_answer().await.is(200);
        assert_eq!((page.text("code"), &page.body["status"]), (code.as_str(), &json!(code.status().as_u16())));
        assert!(!page.text("fix").is_empty());
    }
    assert_eq!(shop.get("/problems/none").problem().await.1, "not-found");
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_interactive_page_is_served_from_the_binary() {
    let shop = Shop::start(1).await;
    let redirect = shop.get("/docs").await_answer().await.is(308);
    assert_eq!(redirect.header("location"), "docs/");
    let page = shop.get("/docs/").await_answer().await.is(200);
    assert!(page.header("content-type").starts_with("text/html") && page.text.contains("swagger-ui"));
    shop.get("/docs/swagger-ui-bundle.js").await_answer().await.is(200);
    assert_eq!(shop.get("/docs/none.js").problem().await.1, "not-found");
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_routes_live_beside_those_of_another_app() {
    let shop = Shop::start(1).await;
    let app = Router::new()
        .route("/mine", get(|| async { "mine" }))
        .fallback(|| async { "my own fallback" })
        .merge(ingress::routes(shop.cluster.clone(), &ingress::Options::default()));
    let read = |path: &'static str| {
        let app = app.clone();
        async move {
            let response = app.oneshot(Request::get(path).body(Body::empty()).expect("a request")).await;
            let body = response.expect("infallible").into_body();
            let bytes = axum::body::to_bytes(body, 1 << 20).await.expect("in memory");
            String::from_utf8_lossy(&bytes).into_owned()
        }
    };
    assert_eq!(read("/mine").await, "mine");
    assert_eq!(read("/elsewhere").await, "my own fallback");
    let live: Value = serde_json::from_str(&read("/livez").await).expect("JSON");
    assert_eq!(live["status"], "ok");
    shop.stop().await;
}
