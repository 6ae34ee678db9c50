//! Requests under the fuzzer: see `crate::fuzzing`.
//!
//! An input is text: up to [`REQUESTS_MAX`] requests, with [`BETWEEN`] between them, each as it goes
//! over a connection (but for the version and the carriage returns). They go straight into the router
//! of a cluster of one node in memory, with the whole shop on it.
//!
//! What must hold: each is answered in time; with no 5xx but 503 and 504; with a complete problem if
//! it is an error, and with JSON where it says so; and a POST with an idempotency key, sent again, is
//! answered the same.

use crate::{
    Cluster,
    commerce::{self, Order, Payment, Reservation, Stock},
    gateway::{self, Sandbox},
    ingress::{
        self,
        problem::{Code, MEDIA_TYPE},
    },
    webhooks::{
        ALL, Endpoints,
        copy::{Copies, Seen},
    },
};
use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    http::{HeaderMap, Method, Request, StatusCode, header, request::Parts},
};
use parking_lot::Mutex;
use serde_json::Value;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tower::ServiceExt;

const REQUESTS_MAX: usize = 4;
/// No text has this byte.
const BETWEEN: u8 = 0xff;
const PATIENCE: Duration = Duration::from_secs(20);
/// Inputs that one cluster serves: it remembers what it is told, in memory.
const INPUTS_PER_CLUSTER: u32 = 2_000;

pub fn http(data: &[u8]) {
    static SHOP: Mutex<Option<Shop>> = Mutex::new(None);
    let requests: Vec<Sent> = data.split(|byte| *byte == BETWEEN).take(REQUESTS_MAX).filter_map(Sent::read).collect();
    if requests.is_empty() {
        return;
    }
    let mut shop = SHOP.lock();
    let mut open = shop.take().filter(|shop| shop.inputs_left > 0).unwrap_or_else(Shop::open);
    open.inputs_left -= 1;
    requests.iter().for_each(|request| open.serve(request));
    *shop = Some(open);
}

/// The first bytes to try.
pub fn seeds() -> Vec<Vec<u8>> {
    let order = r#"{"customer_id":"cus_1","currency":"USD","payment_method":"pm_card_ok","items":[{"sku":"mug","quantity":1,"unit_price":1999}],"backorder":true,"metadata":{"a":"b"}}"#;
    let payment = r#"{"amount":{"amount":1000,"currency":"USD"},"payment_method":"pm_card_ok"}"#;
    let hold = r#"{"items":[{"sku":"mug","quantity":1}],"ttl":"15m"}"#;
    let endpoint = r#"{"url":"http://127.0.0.1:9/x","enabled_events":["order.*"],"description":"d"}"#;
    let stock = ("PUT", "/v1/inventory/mug", r#"{"on_hand":10,"backorder_limit":5}"#);
    let part = r#"{"amount":{"amount":500,"currency":"USD"}}"#;
    let parcel = r#"{"items":[{"sku":"mug","quantity":1}]}"#;
    let adjust = r#"{"delta":-1,"reason":"broken"}"#;
    let scripts: Vec<Vec<(&str, &str, &str)>> = vec![
        vec![stock, ("POST", "/v1/orders", order), ("GET", "/v1/orders?limit=5&status=pending&customer_id=cus_1", "")],
        vec![("POST", "/v1/payments", payment), ("GET", "/v1/payments/pay_1", "")],
        vec![stock, ("POST", "/v1/reservations", hold), ("GET", "/v1/inventory/mug?consistency=local", "")],
        vec![stock, ("POST", "/v1/inventory/mug/adjustments", adjust), ("GET", "/v1/inventory/mug/adjustments", "")],
        vec![("POST", "/v1/webhook_endpoints", endpoint), ("GET", "/v1/webhook_endpoints", "")],
        vec![("POST", "/v1/orders/ord_1/cancel", r#"{"reason":"r"}"#), ("GET", "/v1/orders/ord_1/events?after=1", "")],
        vec![("POST", "/v1/orders/ord_1/fulfillments", parcel), ("POST", "/v1/orders/ord_1/returns", parcel)],
        vec![("POST", "/v1/payments/pay_1/capture", part), ("POST", "/v1/payments/pay_1/refunds", part)],
        vec![("POST", "/v1/reservations/res_1/extend", r#"{"ttl":"1h"}"#), ("POST", "/v1/payments/pay_1/void", "{}")],
        vec![("GET", "/admin/v1/entities/order/ord_1", ""), ("GET", "/admin/v1/receipts/1-1-1-00", "")],
        vec![("GET", "/admin/v1/dead-letters?limit=3", ""), ("POST", "/admin/v1/dead-letters/1-1/retry", "{}")],
        vec![("POST", "/admin/v1/faults", r#"{"fault":"slow-disk","delay_ms":50,"duration_ms":100}"#)],
        vec![("GET", "/readyz?verbose=true", ""), ("GET", "/openapi.json", ""), ("GET", "/metrics", "")],
        vec![("GET", "/problems/no-quorum", ""), ("DELETE", "/v1/orders", ""), ("GET", "/nowhere", "")],
    ];
    scripts.iter().map(|script| written(script)).collect()
}

fn written(script: &[(&str, &str, &str)]) -> Vec<u8> {
    let requests = script.iter().map(|(method, path, body)| {
        let headers = match *method {
            "POST" => "content-type: application/json\nidempotency-key: k1\n",
            "PUT" => "content-type: application/json\nif-match: *\n",
            _ => "accept: application/json\n",
        };
        format!("{method} {path}\n{headers}\n{body}").into_bytes()
    });
    requests.collect::<Vec<_>>().join(&BETWEEN)
}

/// A request that can be sent more than once.
struct Sent {
    head: Parts,
    body: Bytes,
}

impl Sent {
    /// `None` for what no HTTP server would hand to a router.
    fn read(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(2).position(|pair| pair == b"\n\n").unwrap_or(bytes.len());
        let mut lines = bytes[..end].split(|byte| *byte == b'\n');
        let start = lines.next()?;
        let space = start.iter().position(|byte| *byte == b' ')?;
        let mut request = Request::builder().method(&start[..space]).uri(&start[space + 1..]);
        for line in lines {
            let colon = line.iter().position(|byte| *byte == b':')?;
            request = request.header(&line[..colon], line[colon + 1..].trim_ascii());
        }
        let (head, ()) = request.body(()).ok()?.into_parts();
        let is_absolute = head.uri.path().starts_with('/');
        is_absolute.then(|| Self { head, body: Bytes::copy_from_slice(bytes.get(end + 2..).unwrap_or_default()) })
    }

    fn again(&self) -> Request<Body> {
        Request::from_parts(self.head.clone(), Body::from(self.body.clone()))
    }

    fn has_key(&self) -> bool {
        self.head.method == Method::POST && self.head.headers.contains_key("idempotency-key")
    }
}

struct Shop {
    runtime: Runtime,
    cluster: Cluster,
    router: Router,
    inputs_left: u32,
}

impl Shop {
    fn open() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        // The shop without the senders of its webhooks: whatever URL an input names, nobody is called.
        let builder = Cluster::in_memory(1)
            .entity::<Order>()
            .entity::<Payment>()
            .entity::<Stock>()
            .entity::<Reservation>()
            .entity::<Endpoints>()
            .entity::<Copies>()
            .task_handler(commerce::gateway::HANDLER, gateway::handler(Sandbox));
        let options = ingress::Options { prefer_wait_max: Duration::from_millis(20), ..Default::default() };
        let (cluster, router) = runtime.block_on(async {
            let cluster = builder.start().await.expect("a cluster in memory starts");
            cluster.ready(PATIENCE).await.expect("it gets ready");
            // So that no change of an endpoint waits until this node knows of it.
            let seen = Seen { node: "node-1".into(), version: u64::MAX };
            cluster.entity::<Copies>(ALL).ask(seen).await.expect("the first command");
            let router = ingress::router(cluster.clone(), &options);
            (cluster, router)
        });
        Self { runtime, cluster, router, inputs_left: INPUTS_PER_CLUSTER }
    }

    fn serve(&self, sent: &Sent) {
        let first = self.answer(sent);
        if sent.has_key() && first.is_final() {
            let again = self.answer(sent);
            assert_eq!(first.what_is_kept(), again.what_is_kept(), "{} {}", sent.head.method, sent.head.uri);
            let is_replay = again.headers.get("idempotent-replayed").is_some_and(|value| value == "true");
            assert!(is_replay || !again.status.is_success(), "{} {}", sent.head.method, sent.head.uri);
        }
    }

    fn answer(&self, sent: &Sent) -> Answer {
        let (method, uri) = (&sent.head.method, &sent.head.uri);
        let answer =
            self.runtime.block_on(async { tokio::time::timeout(PATIENCE, ask(&self.router, sent.again())).await });
        let answer = answer.unwrap_or_else(|_| panic!("{method} {uri}: no answer"));
        answer.check(method).unwrap_or_else(|wrong| {
            let text = String::from_utf8_lossy(&answer.body);
            panic!("{method} {uri}: {wrong}: {} {:?} {text}", answer.status, answer.headers)
        });
        answer
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        self.runtime.block_on(self.cluster.shutdown());
    }
}

async fn ask(router: &Router, request: Request<Body>) -> Answer {
    let response = router.clone().oneshot(request).await.expect("infallible");
    let (parts, body) = response.into_parts();
    let is_stream = parts.headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == "text/event-stream");
    let body = if is_stream { Bytes::new() } else { to_bytes(body, 16 << 20).await.expect("a body in memory") };
    Answer { status: parts.status, headers: parts.headers, body }
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn check(&self, method: &Method) -> Result<(), &'static str> {
        let is_error = self.status.is_client_error() || self.status.is_server_error();
        let text = |name: &str| self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if self.status.is_server_error() && !matches!(self.status.as_u16(), 503 | 504) {
            return Err("a failure of the server");
        }
        if !self.headers.contains_key("x-request-id") || text("x-trace-id").len() != 32 {
            return Err("no ids");
        }
        if is_error != (text("content-type") == MEDIA_TYPE) {
            return Err("an error is a problem, and nothing else is");
        }
        if *method == Method::HEAD || !text("content-type").ends_with("json") {
            return Ok(());
        }
        let body = serde_json::from_slice::<Value>(&self.body).map_err(|_| "not the JSON that it says it is")?;
        let member = |name: &str| body[name].as_str().unwrap_or_default();
        let is_complete = || {
            let code = Code::parse(member("code")).filter(|code| code.status() == self.status)?;
            let is_whole = body["status"] == self.status.as_u16()
                && member("type") == code.uri()
                && member("trace_id") == text("x-trace-id")
                && !member("title").is_empty()
                && !member("detail").is_empty();
            is_whole.then_some(())
        };
        if is_error { is_complete().ok_or("not a complete problem") } else { Ok(()) }
    }

    /// Not one that asks to try again.
    fn is_final(&self) -> bool {
        !matches!(self.status.as_u16(), 408 | 429 | 503 | 504)
    }

    /// What the same request is answered again. What waits for others (a commit, say) may show more
    /// of it the second time, so of a success only the resource counts.
    fn what_is_kept(&self) -> (StatusCode, String, Option<String>) {
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let what = if self.status.is_success() { &body["id"] } else { &body["code"] };
        let receipt = self.headers.get("x-receipt").filter(|_| self.status.is_success());
        (self.status, what.to_string(), receipt.and_then(|value| value.to_str().ok()).map(str::to_owned))
    }
}
