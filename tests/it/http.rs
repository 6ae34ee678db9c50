//! The HTTP contract (API.md) over clusters in memory: requests go straight into the router.

mod backorders;
mod backup;
mod bad_input;
mod console;
mod events;
mod every_post;
mod evidence;
mod faults;
mod gateway;
mod https;
mod idempotency;
mod inventory;
mod lists;
mod members;
mod operations;
mod orders;
mod parcels;
mod payments;
mod receiver;
mod reservations;
mod routes_table;
mod sagas;
mod session;
mod streams;
mod tasks;
mod till;
mod tokens;
mod webhooks;

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{HeaderMap, Request, StatusCode},
};
use quorate::{Cluster, cluster::Builder, ingress};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tower::ServiceExt;

const PATIENCE: Duration = Duration::from_secs(20);

/// A cluster with the shop on it, and the router of each of its nodes.
struct Shop {
    cluster: Cluster,
    routers: Vec<Router>,
}

impl Shop {
    async fn start(nodes: usize) -> Self {
        Self::start_on(ingress::shop::register(Cluster::in_memory(nodes)), nodes).await
    }

    /// On a builder that knows the shop.
    async fn start_on(builder: Builder, nodes: usize) -> Self {
        crate::logs();
        let cluster = builder.start().await.expect("a cluster in memory starts");
        let mut routers = Vec::new();
        for node in 0..nodes {
            let node = cluster.on_node(node);
            node.ready(PATIENCE).await.expect("every node gets ready");
            routers.push(ingress::router(node, &ingress::Options::default()));
        }
        Self { cluster, routers }
    }

    fn send(&self, method: &str, path: &str) -> Send<'_> {
        self.send_to(0, method, path)
    }

    fn send_to(&self, node: usize, method: &str, path: &str) -> Send<'_> {
        let request = Request::builder().method(method).uri(path);
        Send { router: &self.routers[node], request, body: Body::empty() }
    }

    fn get(&self, path: &str) -> Send<'_> {
        self.send("GET", path)
    }

    async fn stock(&self, sku: &str, on_hand: u64) {
        let put = self.send("PUT", &format!("/v1/inventory/{sku}")).json(&json!({"on_hand": on_hand})).await_answer();
        put.await.is(200);
    }

    /// Reads until `done`, and says what was awaited when it does not come.
    async fn wait_until(&self, path: &str, reason: &str, done: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let answer = self.get(path).await_answer().await;
            if answer.status == StatusCode::OK && done(&answer.body) {
                return answer.body;
            }
            assert!(began.elapsed() < PATIENCE, "{reason}: {path} is still {}", answer.body);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn stop(self) {
        self.cluster.shutdown().await;
    }
}

struct Send<'a> {
    router: &'a Router,
    request: axum::http::request::Builder,
    body: Body,
}

impl Send<'_> {
    fn header(mut self, name: &str, value: &str) -> Self {
        self.request = self.request.header(name, value);
        self
    }

    fn key(self, key: &str) -> Self {
        self.header("idempotency-key", key)
    }

    fn json(self, body: &Value) -> Self {
        self.text(&body.to_string())
    }

    /// A body that claims to be JSON.
    fn text(self, body: &str) -> Self {
        self.header("content-type", "application/json").raw(body)
    }

    fn raw(mut self, body: &str) -> Self {
        self.body = Body::from(body.to_owned());
        self
    }

    async fn await_answer(self) -> Answer {
        let request = self.request.body(self.body).expect("a request");
        let response = self.router.clone().oneshot(request).await.expect("infallible");
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, 16 << 20).await.expect("a body in memory");
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        assert!(parts.headers.contains_key("x-request-id"), "every response carries a request id");
        Answer { status: parts.status, headers: parts.headers, body, text }
    }

    /// The answer, which must be a complete problem: (status, code, first field).
    async fn problem(self) -> (u16, String, String) {
        let answer = self.await_answer().await;
        let text = |member: &str| answer.body[member].as_str().unwrap_or_default().to_owned();
        assert_eq!(answer.header("content-type"), "application/problem+json", "{}", answer.text);
        assert_eq!(answer.body["status"], answer.status.as_u16());
        assert_eq!(text("type"), format!("/problems/{}", text("code")));
        assert!(
            !text("title").is_empty() && !text("detail").is_empty() && text("trace_id").len() == 32,
            "{}",
            answer.text
        );
        let field = answer.body["errors"][0]["field"].as_str().unwrap_or_default().to_owned();
        (answer.status.as_u16(), text("code"), field)
    }
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
    text: String,
}

impl Answer {
    #[track_caller]
    fn is(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    fn text(&self, member: &str) -> &str {
        self.body[member].as_str().unwrap_or_default()
    }
}

/// An order of `quantity` of `sku`, each for 19.99.
fn order(sku: &str, quantity: u32) -> Value {
    json!({
        "customer_id": "cus_1", "currency": "USD", "payment_method": "pm_card_ok",
        "items": [{"sku": sku, "quantity": quantity, "unit_price": 1999}],
    })
}

fn paid_with(method: &str, mut order: Value) -> Value {
    order["payment_method"] = method.into();
    order
}
