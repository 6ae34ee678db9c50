//! The whole of `bench` against a pretended cluster.

use super::*;
use axum::{
    Json, Router,
    extract::Path as Segment,
    http::{HeaderMap, StatusCode},
    routing,
};
use clap::Parser;
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Mutex};

/// What the pretended node was asked.
#[derive(Default)]
struct Seen {
    stocked: Mutex<BTreeSet<String>>,
    ordered: Mutex<BTreeSet<String>>,
    keys: Mutex<Vec<String>>,
}

/// A node that confirms everything, except that every fifth order is refused.
async fn pretend() -> (String, Arc<Seen>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let seen = Arc::new(Seen::default());
    let members =
        json!({ "data": [{ "http": address, "gossip": "alive" }, { "http": "127.0.0.1:1", "gossip": "down" }] });
    let (put, post) = (seen.clone(), seen.clone());
    let router = Router::new()
        .route("/admin/v1/members", routing::get(|| async { Json(members) }))
        .route(
            "/v1/inventory/{sku}",
            routing::put(|Segment(sku): Segment<String>| async move {
                put.stocked.lock().expect("lock").insert(sku);
                Json(json!({}))
            }),
        )
        .route("/v1/orders/{id}", routing::get(|Segment(id): Segment<String>| async move { Json(json!({ "id": id })) }))
        .route(
            "/v1/orders",
            routing::post(|headers: HeaderMap, Json(order): Json<Value>| async move {
                let mut keys = post.keys.lock().expect("lock");
                keys.push(headers["idempotency-key"].to_str().expect("text").to_owned());
                post.ordered.lock().expect("lock").insert(order["items"][0]["sku"].as_str().expect("a sku").to_owned());
                if keys.len().is_multiple_of(5) && headers.contains_key("prefer") {
                    return (StatusCode::TOO_MANY_REQUESTS, Json(json!({ "code": "overloaded" })));
                }
                (StatusCode::CREATED, Json(json!({ "id": format!("ord_{}", keys.len()), "status": "confirmed" })))
            })
            .layer(axum::middleware::map_response(|mut answer: axum::response::Response| async move {
                answer.headers_mut().insert("x-receipt", "3-2-1047-9c0b7e11".parse().expect("visible"));
                answer
            })),
        );
    tokio::spawn(async move { axum::serve(listener, router).await });
    (format!("http://{address}"), seen)
}

async fn bench(url: &str, arguments: &[&str]) -> (Result<(), Failure>, Value) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("result.json");
    let fixed =
        ["quorate", "bench", "--duration", "300ms", "--warmup", "50ms", "--concurrency", "4", "--url", url, "--json"];
    let all = fixed.iter().copied().chain([file.to_str().expect("a path")]).chain(arguments.iter().copied());
    let args = args::Args::try_parse_from(all).expect("valid arguments");
    let args::Command::Bench(args) = args.command else { panic!("not a bench") };
    let result = run(&args).await;
    let report = std::fs::read(&file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    (result, report)
}

#[tokio::test]
async fn checkout_counts_what_was_confirmed_and_errors_by_code() {
    let (url, seen) = pretend().await;
    let (result, report) = bench(&url, &["--skus", "7"]).await;
    assert_eq!(result, Ok(()));
    assert!(report["succeeded"].as_u64() > Some(0), "{report}");
    assert!(report["errors"]["overloaded"].as_u64() > Some(0), "{report}");
    assert_eq!(report["nodes"].as_array().map(Vec::len), Some(1), "the node that is down is left out: {report}");
    assert_eq!(report["concurrency"], 4);
    let keys = seen.keys.lock().expect("lock");
    assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len(), "no idempotency key twice");
    assert_eq!(seen.stocked.lock().expect("lock").len(), 7);
    assert!(seen.ordered.lock().expect("lock").is_subset(&seen.stocked.lock().expect("lock")));
}

#[tokio::test]
async fn receipts_of_what_was_acknowledged_are_kept_in_a_file() {
    let (url, seen) = pretend().await;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("receipts.jsonl");
    let (result, _) = bench(&url, &["--workload", "place", "--receipts", file.to_str().expect("a path")]).await;
    assert_eq!(result, Ok(()));
    let kept = std::fs::read_to_string(&file).expect("the file");
    let lines: Vec<Value> = kept.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(lines.iter().all(|line| line["receipt"] == "3-2-1047-9c0b7e11"), "{kept}");
    let ids: BTreeSet<&str> = lines.iter().filter_map(|line| line["id"].as_str()).collect();
    assert!(!ids.is_empty() && ids.len() <= seen.keys.lock().expect("lock").len());
    let (result, _) = bench(&url, &["--receipts", "/nonexistent/r.jsonl"]).await;
    assert!(matches!(&result, Err(Failure::Usage(text)) if text.contains("/nonexistent/r.jsonl")), "{result:?}");
}

#[tokio::test]
async fn a_hot_sku_is_one_sku() {
    let (url, seen) = pretend().await;
    let (result, _) = bench(&url, &["--workload", "hot-sku"]).await;
    assert_eq!(result, Ok(()));
    assert_eq!(seen.ordered.lock().expect("lock").len(), 1);
}

#[tokio::test]
async fn reads_place_their_orders_first() {
    let (url, seen) = pretend().await;
    let (result, report) = bench(&url, &["--workload", "read", "--skus", "3"]).await;
    assert_eq!(result, Ok(()));
    assert_eq!(seen.keys.lock().expect("lock").len(), 512);
    assert_eq!(report["failed"], 0, "{report}");
}

#[tokio::test]
async fn nobody_there_is_unavailable() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let (result, _) = bench(&url, &[]).await;
    assert!(matches!(result, Err(Failure::Unavailable(_))), "{result:?}");
}

#[tokio::test]
async fn no_success_at_all_is_a_failure() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let broken = || async { (StatusCode::INTERNAL_SERVER_ERROR, Json(json!({ "code": "internal" }))) };
    let router = Router::new()
        .route("/v1/inventory/{sku}", routing::put(|| async { Json(json!({})) }))
        .route("/admin/v1/members", routing::get(|| async { Json(json!([])) }))
        .route("/v1/orders", routing::post(broken));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let (result, report) = bench(&url, &["--skus", "1"]).await;
    assert!(matches!(&result, Err(Failure::Operation(text)) if text.contains("internal")), "{result:?}");
    assert_eq!(report["succeeded"], 0);
}
