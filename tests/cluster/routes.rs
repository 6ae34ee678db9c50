//! Every route of /openapi.json on three real nodes: it answers as described through any node, also
//! while owners are killed and come back.
//!
//! A client here does what the contract tells clients to do: no answer, 429, 503 or 504 means the
//! same request again, with the same key, to the next node. Every answer on the way is compared
//! with the description; anything else than what is described for that route fails the test.

use crate::{
    harness::{Cluster, Node, PATIENCE, Response, turn},
    till::{API_KEY, Fault, Till},
};
use futures::StreamExt;
use quorate::ingress::openapi;
use serde_json::Value;
use std::{
    collections::BTreeSet,
    future::Future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::OnceCell,
};

/// Routes that are asked at the same time.
const CLIENTS: usize = 8;
/// Longest wait for one answer before the next node is asked.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two tries of one request.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// Answers after which a node is killed: in the middle of it all.
const ANSWERS_BEFORE_A_KILL: usize = 20;
/// Each round resolves two of them, and one is left to be read.
const LETTERS: usize = 2 * (3 * 2 + 3) + 1;

const ORDER: &str = r#"{"customer_id": "cus_1", "currency": "USD", "payment_method": "pm_card_ok", "items": [{"sku": "mug", "quantity": 1, "unit_price": 1999}]}"#;
const PAYMENT: &str = r#"{"amount": {"amount": 2000, "currency": "USD"}, "payment_method": "pm_card_ok"}"#;
const RESERVATION: &str = r#"{"items": [{"sku": "mug", "quantity": 1}], "ttl": "15m"}"#;
/// Where nobody listens, for events that do not happen here.
const ENDPOINT: &str = r#"{"url": "http://127.0.0.1:9/hooks", "enabled_events": ["order.needs_attention"]}"#;

/// What the path of a route names, in a state in which the route succeeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Nothing,
    Confirmed,
    Fulfilled,
    Authorized,
    Captured,
    Held,
    /// One for all: there are few.
    Endpoint,
    TakenEndpoint,
    Fault,
    /// A dead letter that stays.
    Letter,
    /// One that is taken.
    TakenLetter,
}

/// A route, what it is asked for, with which body, and the status that is success.
type Line = (&'static str, Of, &'static str, u16);

/// One line a route. A test fails if one is missing.
const TABLE: &[Line] = &[
    ("POST /v1/orders", Of::Nothing, ORDER, 201),
    ("GET /v1/orders", Of::Nothing, "", 200),
    ("GET /v1/orders/{id}", Of::Confirmed, "", 200),
    ("GET /v1/orders/{id}/events", Of::Confirmed, "", 200),
    ("POST /v1/orders/{id}/cancel", Of::Confirmed, r#"{"reason": "changed my mind"}"#, 200),
    ("POST /v1/orders/{id}/fulfillments", Of::Confirmed, "{}", 200),
    ("POST /v1/orders/{id}/returns", Of::Fulfilled, "{}", 200),
    ("POST /v1/payments", Of::Nothing, PAYMENT, 201),
    ("GET /v1/payments/{id}", Of::Authorized, "", 200),
    ("POST /v1/payments/{id}/capture", Of::Authorized, "{}", 200),
    ("POST /v1/payments/{id}/void", Of::Authorized, "{}", 200),
    ("POST /v1/payments/{id}/refunds", Of::Captured, "{}", 200),
    ("GET /v1/inventory", Of::Nothing, "", 200),
    ("PUT /v1/inventory/{sku}", Of::Nothing, r#"{"on_hand": 1000000}"#, 200),
    ("GET /v1/inventory/{sku}", Of::Nothing, "", 200),
    ("POST /v1/inventory/{sku}/adjustments", Of::Nothing, r#"{"delta": 1, "reason": "found"}"#, 200),
    ("GET /v1/inventory/{sku}/adjustments", Of::Nothing, "", 200),
    ("POST /v1/reservations", Of::Nothing, RESERVATION, 201),
    ("GET /v1/reservations/{id}", Of::Held, "", 200),
    ("POST /v1/reservations/{id}/commit", Of::Held, "{}", 200),
    ("POST /v1/reservations/{id}/release", Of::Held, "{}", 200),
    ("POST /v1/reservations/{id}/extend", Of::Held, r#"{"ttl": "1h"}"#, 200),
    ("POST /v1/webhook_endpoints", Of::Nothing, ENDPOINT, 201),
    ("GET /v1/webhook_endpoints", Of::Nothing, "", 200),
    ("GET /v1/webhook_endpoints/{id}", Of::Endpoint, "", 200),
    ("POST /v1/webhook_endpoints/{id}", Of::Endpoint, r#"{"disabled": true}"#, 200),
    ("DELETE /v1/webhook_endpoints/{id}", Of::TakenEndpoint, "", 200),
    ("POST /v1/webhook_endpoints/{id}/rotate-secret", Of::Endpoint, r#"{"grace": "0s"}"#, 200),
    ("GET /livez", Of::Nothing, "", 200),
    ("GET /healthz", Of::Nothing, "", 200),
    ("GET /readyz", Of::Nothing, "", 200),
    ("GET /startupz", Of::Nothing, "", 200),
    ("GET /metrics", Of::Nothing, "", 200),
    ("GET /console", Of::Nothing, "", 200),
    ("GET /openapi.json", Of::Nothing, "", 200),
    ("GET /docs", Of::Nothing, "", 308),
    ("GET /docs/", Of::Nothing, "", 200),
    ("GET /docs/{file}", Of::Nothing, "", 200),
    ("GET /problems/{code}", Of::Nothing, "", 200),
    ("GET /admin/v1/status", Of::Nothing, "", 200),
    ("GET /admin/v1/members", Of::Nothing, "", 200),
    // The nodes are needed: nobody of that name leaves. `members.rs` has some who do.
    ("POST /admin/v1/members/{name}/leave", Of::Nothing, "{}", 404),
    ("POST /admin/v1/backup", Of::Nothing, "{}", 200),
    // They hold data, and this is no backup. `backup.rs` has nodes that take one.
    ("POST /admin/v1/restore", Of::Nothing, "{}", 415),
    ("GET /admin/v1/shards", Of::Nothing, "", 200),
    ("GET /admin/v1/entities/{type}/{id}", Of::Confirmed, "", 200),
    ("GET /admin/v1/receipts/{receipt}", Of::Nothing, "", 200),
    ("GET /admin/v1/state-hashes", Of::Nothing, "", 200),
    ("GET /admin/v1/violations", Of::Nothing, "", 200),
    // Refused where a node was not started for it.
    ("GET /admin/v1/faults", Of::Nothing, "", 403),
    ("POST /admin/v1/faults", Of::Nothing, r#"{"fault": "full-disk", "duration_ms": 10000}"#, 403),
    ("DELETE /admin/v1/faults/{id}", Of::Fault, "", 403),
    ("GET /admin/v1/config", Of::Nothing, "", 200),
    ("GET /admin/v1/events", Of::Nothing, "", 200),
    ("GET /admin/v1/sagas", Of::Nothing, "", 200),
    ("GET /admin/v1/tasks", Of::Nothing, "", 200),
    ("GET /admin/v1/dead-letters", Of::Nothing, "", 200),
    ("GET /admin/v1/dead-letters/{id}", Of::Letter, "", 200),
    ("POST /admin/v1/dead-letters/{id}/retry", Of::TakenLetter, "{}", 200),
    ("POST /admin/v1/dead-letters/{id}/discard", Of::TakenLetter, "{}", 200),
];

/// Routes that answer as a stream, too, and what names it.
const STREAMS: &[Line] =
    &[("GET /v1/orders/{id}/events", Of::Confirmed, "", 200), ("GET /admin/v1/events", Of::Nothing, "", 200)];

#[test]
fn the_table_has_every_route_of_the_description() {
    let described = Description::read().routes();
    let listed: BTreeSet<String> = TABLE.iter().map(|line| line.0.to_owned()).collect();
    assert_eq!(listed, described, "tests/cluster/routes.rs and /openapi.json");
}

#[tokio::test]
async fn every_route_answers_as_described_through_any_node_while_nodes_are_killed() {
    let _turn = turn().await;
    let shut = Arc::new(AtomicBool::new(true));
    let closed = shut.clone();
    let temper = move |_: &str, _| if closed.load(Ordering::Relaxed) { Fault::Instead(503) } else { Fault::None };
    let till = Till::open(temper).await;
    let (url, key) = (format!("gateway.base_url={}", till.url), format!("gateway.api_key={API_KEY}"));
    let cluster = Cluster::start_with(3, &["--set", "gateway.kind=http", "--set", &url, "--set", &key]).await;
    let clients = Clients::new(cluster.nodes());
    clients.wait_letters().await;
    shut.store(false, Ordering::Relaxed);

    for node in cluster.nodes() {
        let killed_in_the_middle = async {
            clients.wait_answers(ANSWERS_BEFORE_A_KILL).await;
            node.kill9();
        };
        tokio::join!(clients.ask_all(None), killed_in_the_middle);
        node.restart();
        clients.ask_all(None).await;
        node.wait_ready("after it was killed").await;
    }
    for node in 0..cluster.nodes().len() {
        clients.ask_all(Some(node)).await;
    }
}

/// Clients that share what they know.
struct Clients<'a> {
    nodes: &'a [Node],
    description: Description,
    /// Requests so far: the next goes to the next node.
    asked: AtomicUsize,
    answers: AtomicUsize,
    keys: AtomicUsize,
    letters: Mutex<Vec<String>>,
    endpoint: OnceCell<String>,
}

impl<'a> Clients<'a> {
    fn new(nodes: &'a [Node]) -> Self {
        let (asked, answers, keys) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        Self {
            nodes,
            description: Description::read(),
            asked,
            answers,
            keys,
            letters: Mutex::default(),
            endpoint: OnceCell::new(),
        }
    }

    /// Every route once, through any node or through one, until each has succeeded.
    async fn ask_all(&self, through: Option<usize>) {
        let ask = |line: &'static Line| self.ask(line, through);
        futures::stream::iter(TABLE).map(ask).buffer_unordered(CLIENTS).collect::<Vec<()>>().await;
        for line in STREAMS {
            let path = self.path(line).await;
            self.insist(line.0, line.3, through, |node| stream_head(node, path.clone())).await;
        }
    }

    async fn ask(&self, line: &Line, through: Option<usize>) {
        let path = self.path(line).await;
        self.send(line.0, &path, line.2, line.3, through).await;
    }

    /// The path of a route, with something in it that was made for it.
    async fn path(&self, (route, of, ..): &Line) -> String {
        let (_, template) = route.split_once(' ').expect("a method and a path");
        let id = self.made(*of).await;
        let path = template.replace("{id}", &id).replace("{sku}", "mug").replace("{type}", "order");
        let path = path.replace("{code}", "no-quorum").replace("{file}", "swagger-ui.css").replace("{name}", "nobody");
        path.replace("{receipt}", "0-1-1-00000000")
    }

    async fn made(&self, of: Of) -> String {
        let letter = || self.letters.lock().expect("no panic while held");
        match of {
            Of::Nothing => String::new(),
            Of::Letter => letter()[0].clone(),
            Of::TakenLetter => letter().pop().expect("enough letters"),
            Of::Fault => "1".to_owned(),
            Of::TakenEndpoint => self.make("/v1/webhook_endpoints", ENDPOINT).await,
            Of::Endpoint => {
                let make = || self.make("/v1/webhook_endpoints", ENDPOINT);
                self.endpoint.get_or_init(make).await.clone()
            }
            Of::Held => self.make("/v1/reservations", RESERVATION).await,
            Of::Authorized => {
                let id = self.make("/v1/payments", PAYMENT).await;
                self.wait_status("/v1/payments/{id}", &id, "authorized").await;
                id
            }
            Of::Captured => {
                let id = Box::pin(self.made(Of::Authorized)).await;
                let path = format!("/v1/payments/{id}/capture");
                self.send("POST /v1/payments/{id}/capture", &path, "{}", 200, None).await;
                self.wait_status("/v1/payments/{id}", &id, "captured").await;
                id
            }
            Of::Confirmed => {
                self.send("PUT /v1/inventory/{sku}", "/v1/inventory/mug", r#"{"on_hand": 1000000}"#, 200, None).await;
                let id = self.make("/v1/orders", ORDER).await;
                self.wait_status("/v1/orders/{id}", &id, "confirmed").await;
                id
            }
            Of::Fulfilled => {
                let id = Box::pin(self.made(Of::Confirmed)).await;
                let path = format!("/v1/orders/{id}/fulfillments");
                self.send("POST /v1/orders/{id}/fulfillments", &path, "{}", 200, None).await;
                id
            }
        }
    }

    async fn make(&self, path: &str, body: &str) -> String {
        let made = self.send(&format!("POST {path}"), path, body, 201, None).await.json();
        made["id"].as_str().expect("an id").to_owned()
    }

    async fn wait_status(&self, template: &str, id: &str, status: &str) {
        let (started, path) = (Instant::now(), template.replace("{id}", id));
        loop {
            let body = self.send(&format!("GET {template}"), &path, "", 200, None).await.json();
            if body["status"] == status {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "waited in vain until {path} is {status}: {body}");
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// Payments at a gateway that is shut: what the cluster gives up of them.
    async fn wait_letters(&self) {
        for _ in 0..LETTERS {
            self.make("/v1/payments", PAYMENT).await;
        }
        let started = Instant::now();
        loop {
            let path = "/admin/v1/dead-letters?limit=100";
            let listed = self.send("GET /admin/v1/dead-letters", path, "", 200, None).await.json();
            let ids = listed["data"].as_array().into_iter().flatten();
            let ids: Vec<String> = ids.filter_map(|letter| Some(letter["id"].as_str()?.to_owned())).collect();
            if ids.len() >= LETTERS {
                *self.letters.lock().expect("no panic while held") = ids;
                return;
            }
            assert!(started.elapsed() < PATIENCE, "waited in vain for {LETTERS} dead letters: {listed}");
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    async fn wait_answers(&self, more: usize) {
        let enough = self.answers.load(Ordering::Relaxed) + more;
        while self.answers.load(Ordering::Relaxed) < enough {
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// One request with a key of its own, again and again until it succeeds.
    async fn send(&self, route: &str, path: &str, body: &str, success: u16, through: Option<usize>) -> Response {
        let key = format!("routes-{}", self.keys.fetch_add(1, Ordering::Relaxed));
        let method: hyper::Method = route.split(' ').next().unwrap_or_default().parse().expect("a method");
        let body = (!body.is_empty()).then(|| body.to_owned());
        let once = |node: &'a Node| {
            let (key, method, body) = (key.clone(), method.clone(), body.clone());
            async move {
                let client = node.client().with_timeout(ANSWER_TIMEOUT);
                client.send(method, path, &[("idempotency-key", key.as_str())], body).await.ok()
            }
        };
        self.insist(route, success, through, once).await
    }

    async fn insist<F: Future<Output = Option<Response>>>(
        &self,
        route: &str,
        success: u16,
        through: Option<usize>,
        once: impl Fn(&'a Node) -> F,
    ) -> Response {
        let (started, mut said) = (Instant::now(), "nothing".to_owned());
        while started.elapsed() < PATIENCE {
            let next = self.asked.fetch_add(1, Ordering::Relaxed);
            let node = &self.nodes[through.unwrap_or(next % self.nodes.len())];
            if let Some(answer) = once(node).await {
                self.answers.fetch_add(1, Ordering::Relaxed);
                self.description.check(route, &answer);
                match answer.status {
                    status if status == success => return answer,
                    429 | 503 | 504 => said = format!("{}: {}", node.name, answer.text()),
                    other => panic!("{route} through {} was answered {other}: {}", node.name, answer.text()),
                }
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        panic!("{route} did not succeed within {PATIENCE:?}; at last {said}");
    }
}

/// Head and first event of a stream, which has no end.
async fn stream_head(node: &Node, path: String) -> Option<Response> {
    let address = node.url.strip_prefix("http://").expect("an address");
    let reading = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\naccept: text/event-stream\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let (mut got, mut part) = (String::new(), [0; 4096]);
        loop {
            let read = stream.read(&mut part).await.ok().filter(|read| *read > 0)?;
            got.push_str(&String::from_utf8_lossy(&part[..read]));
            let (head, body) = got.split_once("\r\n\r\n").unwrap_or_default();
            let is_problem = head.contains("application/problem+json") && body.ends_with('}');
            let has_begun = ["event: placed\n", "event: snapshot\n"].iter().any(|first| body.contains(first));
            if has_begun || is_problem {
                return Some(response(head, body));
            }
        }
    };
    tokio::time::timeout(ANSWER_TIMEOUT, reading).await.ok().flatten()
}

fn response(head: &str, body: &str) -> Response {
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).expect("a status");
    let header = |line: &str| {
        let (name, value) = line.split_once(": ")?;
        Some((name.parse::<hyper::header::HeaderName>().ok()?, value.parse::<hyper::header::HeaderValue>().ok()?))
    };
    Response { status, headers: lines.filter_map(header).collect(), body: body.to_owned().into() }
}

/// What /openapi.json says about answers.
struct Description(Value);

impl Description {
    fn read() -> Self {
        Self(serde_json::from_str(openapi::document()).expect("JSON"))
    }

    fn routes(&self) -> BTreeSet<String> {
        let paths = self.0["paths"].as_object().expect("paths").iter();
        let of_path = |(path, methods): (&String, &Value)| -> Vec<String> {
            let methods = methods.as_object().expect("methods").keys();
            methods.map(|method| format!("{} {path}", method.to_uppercase())).collect()
        };
        paths.flat_map(of_path).collect()
    }

    /// Panics unless this is an answer that the route is described to give.
    fn check(&self, route: &str, answer: &Response) {
        let (method, path) = route.split_once(' ').expect("a method and a path");
        let operation = &self.0["paths"][path][method.to_lowercase()];
        let said = || format!("{route} was answered {}: {}", answer.status, answer.text());
        let described = operation["responses"].get(answer.status.to_string());
        let mut described = described.unwrap_or_else(|| panic!("the status is not described: {}", said()));
        if let Some(reference) = described["$ref"].as_str() {
            described = self.0.pointer(&reference[1..]).expect("a reference that leads somewhere");
        }
        self.check_headers(described, answer, &said);
        let Some(contents) = described["content"].as_object() else { return };
        let media = answer.header("content-type").unwrap_or_default();
        let content = contents.get(media.split(';').next().unwrap_or_default());
        let content = content.unwrap_or_else(|| panic!("`{media}` is not described: {}", said()));
        if answer.status >= 400 {
            let problem = answer.json();
            assert_eq!(problem["status"], answer.status, "{}", said());
            let codes = content["schema"]["properties"]["code"]["enum"].as_array().expect("codes");
            assert!(codes.contains(&problem["code"]), "the code is not described: {}", said());
        }
    }

    fn check_headers(&self, described: &Value, answer: &Response, said: &dyn Fn() -> String) {
        for (name, reference) in described["headers"].as_object().into_iter().flatten() {
            let pointer = reference["$ref"].as_str().expect("a reference");
            let is_required = self.0.pointer(&pointer[1..]).is_some_and(|header| header["required"] == true);
            assert!(!is_required || answer.headers.contains_key(name), "no header {name}: {}", said());
        }
    }
}
