//! `GET /v1/orders/{id}/events` as server-sent events, read by a client over TCP.

use super::{PATIENCE, Shop, order};
use http_body_util::{BodyExt, Empty};
use hyper::{Response, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use quorate::{Cluster, cluster::Consistency, ingress, transport::memory::Network};
use serde_json::{Value, json};
use std::{io, net::SocketAddr, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};

/// One node's HTTP side on a port of its own.
pub(super) struct Served {
    pub address: SocketAddr,
    pub stop: oneshot::Sender<()>,
    pub server: JoinHandle<io::Result<()>>,
}

impl Served {
    pub async fn start(shop: &Shop, node: usize, options: ingress::Options) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
        let address = listener.local_addr().expect("an address");
        let router = ingress::router(shop.cluster.on_node(node), &options);
        let (stop, stopped) = oneshot::channel::<()>();
        let server =
            tokio::spawn(async move { ingress::serve(listener, router, &options, async { _ = stopped.await }).await });
        Self { address, stop, server }
    }

    async fn events(&self, id: &str, headers: &[(&str, &str)]) -> Events {
        self.stream(&format!("/v1/orders/{id}/events"), headers).await
    }

    pub async fn stream(&self, path: &str, headers: &[(&str, &str)]) -> Events {
        let response = get(self.address, path, headers).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["vary"], "accept");
        Events { body: response.into_body(), text: String::new() }
    }
}

pub(super) async fn get(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Response<Incoming> {
    let stream = TcpStream::connect(address).await.expect("a connection");
    let (mut client, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
    tokio::spawn(connection);
    let mut request = hyper::Request::get(path).header("host", "x").header("accept", "text/event-stream");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Empty::<bytes::Bytes>::new()).expect("a request");
    timeout(PATIENCE, client.send_request(request)).await.expect("an answer in time").expect("an answer")
}

/// A stream as its client reads it.
pub(super) struct Events {
    body: Incoming,
    text: String,
}

impl Events {
    /// The next block (lines up to an empty one); `None` at a clean end.
    pub async fn block(&mut self, why: &str) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let block = block.to_owned();
                self.text = rest.to_owned();
                return Some(block);
            }
            let frame = timeout(PATIENCE, self.body.frame()).await.unwrap_or_else(|_| panic!("{why}: nothing came"));
            match frame {
                Some(frame) => {
                    let data = frame.expect("no broken stream").into_data().expect("data");
                    self.text.push_str(std::str::from_utf8(&data).expect("UTF-8"));
                }
                None => {
                    assert_eq!(self.text, "", "{why}: ended inside of an event");
                    return None;
                }
            }
        }
    }

    /// The next event's id, name and data.
    pub async fn event(&mut self, why: &str) -> (String, String, Value) {
        loop {
            let block = self.block(why).await.unwrap_or_else(|| panic!("{why}: the stream ended"));
            let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
            if let (Some(id), Some(event), Some(data)) = (field("id:"), field("event:"), field("data:")) {
                let data = serde_json::from_str(data).expect("JSON");
                return (id.to_owned(), event.to_owned(), data);
            }
        }
    }

    /// Reads up to and with the event of this name; returns all ids.
    async fn until(&mut self, name: &str) -> Vec<String> {
        let mut ids = Vec::new();
        loop {
            let (id, event, data) = self.event(&format!("waiting for {name}")).await;
            assert_eq!((data["id"].as_str(), data["type"].as_str()), (Some(&*id), Some(&*event)));
            ids.push(id);
            if event == name {
                return ids;
            }
        }
    }
}

async fn place(shop: &Shop, wait: bool) -> (String, u64) {
    let mut place = shop.send("POST", "/v1/orders").key("k1").json(&order("mug", 1));
    if wait {
        place = place.header("prefer", "wait=15");
    }
    let placed = place.await_answer().await.is(201);
    (placed.text("id").to_owned(), placed.body["version"].as_u64().expect("a version"))
}

fn numbered(id: &str, from: u64, to: u64) -> Vec<String> {
    let suffix = id.trim_start_matches("ord_");
    (from..=to).map(|sequence| format!("evt_{suffix}_{sequence}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_shows_what_has_happened_and_then_what_happens() {
    let shop = Shop::start(1).await;
    shop.stock("mug", 5).await;
    let served = Served::start(&shop, 0, ingress::Options::default()).await;
    let (id, version) = place(&shop, true).await;
    let mut events = served.events(&id, &[]).await;
    assert_eq!(events.block("the stream opens").await.as_deref(), Some("retry: 1000"));
    assert_eq!(events.until("payment_captured").await, numbered(&id, 1, version));

    shop.send("POST", &format!("/v1/orders/{id}/fulfillments")).await_answer().await.is(200);
    let (last, name, data) = events.event("a fulfillment is seen live").await;
    assert_eq!((last, name.as_str()), (numbered(&id, version + 1, version + 1)[0].clone(), "fulfilled"));
    assert_eq!(data["data"]["items"], json!([{"sku": "mug", "quantity": 1}]));
    // The same entry as in a page.
    let page = shop.get(&format!("/v1/orders/{id}/events?limit=100")).await_answer().await.is(200);
    assert_eq!(page.body["data"].as_array().and_then(|all| all.last()), Some(&data));
    assert_eq!(page.header("vary"), "accept");
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_resumes_after_the_last_event_seen_through_any_node() {
    let shop = Shop::start(3).await;
    shop.stock("mug", 5).await;
    let (id, version) = place(&shop, true).await;
    let seen = numbered(&id, 3, 3);
    for node in 0..3 {
        let served = Served::start(&shop, node, ingress::Options::default()).await;
        let mut resumed = served.events(&id, &[("last-event-id", &seen[0])]).await;
        assert_eq!(resumed.until("payment_captured").await, numbered(&id, 4, version), "on node {node}");
        // The header goes before the parameter of the address that the client began with.
        let began = format!("/v1/orders/{id}/events?starting_after={}", numbered(&id, 1, 1)[0]);
        let response = get(served.address, &began, &[("last-event-id", &seen[0])]).await;
        let mut resumed = Events { body: response.into_body(), text: String::new() };
        assert_eq!(resumed.event("resumed").await.0, numbered(&id, 4, 4)[0]);
    }
    shop.stop().await;
}

/// The stream is served by a node that does not own the order; the owner is cut off under it.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_when_the_owner_changes() {
    let network = Network::new();
    let builder = ingress::shop::register(Cluster::in_memory_over(network.clone(), 3));
    let shop = Shop::start_on(builder, 3).await;
    shop.stock("mug", 5).await;
    let (id, version) = place(&shop, true).await;
    let owner = owner_of(&shop.cluster, &id).await;
    let (reader, writer) = ((owner + 1) % 3, (owner + 2) % 3);
    let (served, stranded) = (
        Served::start(&shop, reader, ingress::Options::default()).await,
        Served::start(&shop, owner, ingress::Options::default()).await,
    );
    let mut events = served.events(&id, &[]).await;
    let mut left_behind = stranded.events(&id, &[]).await;
    assert_eq!(events.until("payment_captured").await, numbered(&id, 1, version));
    assert_eq!(left_behind.until("payment_captured").await, numbered(&id, 1, version));

    network.isolate(&format!("node-{}", owner + 1));
    let path = format!("/v1/orders/{id}/fulfillments");
    let began = std::time::Instant::now();
    loop {
        let answer = shop.send_to(writer, "POST", &path).key("f1").await_answer().await;
        if answer.status == 200 {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "a new owner takes the order over: {}", answer.text);
    }
    let (next, name, _) = events.event("the new owner's event").await;
    assert_eq!((next, name.as_str()), (numbered(&id, version + 1, version + 1)[0].clone(), "fulfilled"));

    // The one that was served by the cut-off owner catches up once it is back, without a gap.
    network.heal_all();
    let (next, name, _) = left_behind.event("the healed node finds the new owner").await;
    assert_eq!((next, name.as_str()), (numbered(&id, version + 1, version + 1)[0].clone(), "fulfilled"));
    shop.stop().await;
}

/// 0-based index of the node that owns an order.
async fn owner_of(cluster: &Cluster, id: &str) -> usize {
    let (status, _) = cluster.inspect("order", id, Consistency::Linearizable).await.expect("a healthy cluster answers");
    let owner = status.owner.expect("a linearizable read has an owner");
    let members = cluster.members();
    let name = &members.iter().find(|m| m.node == owner).expect("the owner is a member").name;
    name.trim_start_matches("node-").parse::<usize>().expect("a node is called node-N") - 1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_stream_has_comments_and_ends_cleanly_when_the_server_drains() {
    let shop = Shop::start(1).await;
    shop.stock("mug", 5).await;
    let options = ingress::Options { event_silence_max: Duration::from_millis(20), ..ingress::Options::default() };
    let served = Served::start(&shop, 0, options).await;
    let (id, _) = place(&shop, true).await;
    let mut events = served.events(&id, &[]).await;
    events.until("payment_captured").await;
    for _ in 0..2 {
        let quiet = events.block("a heartbeat").await.expect("it goes on");
        assert!(quiet.starts_with(':') && !quiet.contains("data"), "{quiet}");
    }
    served.stop.send(()).expect("still serving");
    while events.block("the end").await.is_some() {}
    // Well before `http.drain_timeout`: nothing is cut off.
    timeout(PATIENCE, served.server).await.expect("the end in time").expect("no panic").expect("drained");
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_when_its_node_stops() {
    let shop = Shop::start(1).await;
    shop.stock("mug", 5).await;
    let served = Served::start(&shop, 0, ingress::Options::default()).await;
    let (id, _) = place(&shop, true).await;
    let mut events = served.events(&id, &[]).await;
    events.until("payment_captured").await;
    shop.stop().await;
    assert_eq!(events.block("the end").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_stream_more_than_the_node_takes_is_refused_until_one_ends() {
    let shop = Shop::start(1).await;
    shop.stock("mug", 5).await;
    let options = ingress::Options { event_streams_max: 1, ..ingress::Options::default() };
    let served = Served::start(&shop, 0, options).await;
    let (id, _) = place(&shop, false).await;
    let first = served.events(&id, &[]).await;
    let path = format!("/v1/orders/{id}/events");
    let refused = get(served.address, &path, &[]).await;
    assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"]), (429, &"1".parse().expect("a value")));
    let body = refused.into_body().collect().await.expect("a body").to_bytes();
    let problem: Value = serde_json::from_slice(&body).expect("a problem");
    assert_eq!(problem["code"], "overloaded");
    drop(first);
    let freed = async { while get(served.address, &path, &[]).await.status() != 200 {} };
    timeout(PATIENCE, freed).await.expect("a stream that ended makes room");
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_nothing_and_a_bad_place_to_resume_are_problems() {
    let shop = Shop::start(1).await;
    shop.stock("mug", 5).await;
    let (id, _) = place(&shop, false).await;
    let stream = |path: String| shop.send("GET", &path).header("accept", "text/event-stream");
    let missing = stream("/v1/orders/ord_none/events".into()).problem().await;
    assert_eq!(missing, (404, "not-found".into(), String::new()));
    let foreign = stream(format!("/v1/orders/{id}/events")).header("last-event-id", "evt_other_3").problem().await;
    assert_eq!(foreign, (400, "invalid-header".into(), "last-event-id".into()));
    for (parameter, name) in [("limit=5", "limit"), ("consistency=local", "consistency")] {
        let refused = stream(format!("/v1/orders/{id}/events?{parameter}")).problem().await;
        assert_eq!(refused, (400, "invalid-parameter".into(), name.into()));
    }
    shop.stop().await;
}
