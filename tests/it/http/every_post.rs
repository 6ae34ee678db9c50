//! Every POST of the API's description, sent again and again: one effect and one answer, on any
//! node, at once, and while the owner is cut off.

use super::{PATIENCE, Shop, order, tasks};
use axum::http::HeaderValue;
use futures::future::join_all;
use quorate::{Cluster, transport::memory::Network};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

/// A request that can be sent, and another one that must not have the same key.
struct Ready {
    path: String,
    body: Value,
    other: (String, Value),
}

impl Ready {
    fn new(path: &str, body: Value, other: Value) -> Self {
        Self { path: path.to_owned(), body, other: (path.to_owned(), other) }
    }

    /// For routes that take no body: another path then.
    fn of_paths(path: &str, action: &str, other: &str) -> Self {
        let (path, other) = (format!("{path}/{action}"), format!("{path}/{other}"));
        Self { path, body: json!({}), other: (other, json!({})) }
    }
}

/// The paths of all POSTs, as they are described.
async fn posts(shop: &Shop) -> Vec<String> {
    let described = shop.get("/openapi.json").await_answer().await.is(200).body;
    let paths = described["paths"].as_object().expect("paths").iter();
    let posts: Vec<String> =
        paths.filter(|(_, methods)| methods.get("post").is_some()).map(|(path, _)| path.clone()).collect();
    // A fault is its node's own, and so are its keys. Members that leave have tests of their own. A backup changes
    // nothing, and a restore is known by its file.
    let elsewhere = ["/admin/v1/faults", "/admin/v1/members/{name}/leave", "/admin/v1/backup", "/admin/v1/restore"];
    let posts: Vec<String> = posts.into_iter().filter(|post| !elsewhere.contains(&post.as_str())).collect();
    assert!(posts.len() >= 15, "{posts:?}");
    posts
}

/// Brings about what a POST needs; `tag` makes it this request's own.
async fn ready(shop: &Shop, post: &str, tag: &str) -> Ready {
    let part = |amount: u64| json!({"amount": {"amount": amount, "currency": "USD"}});
    let parcel = |quantity: u64| json!({"items": [{"sku": tag, "quantity": quantity}]});
    match post {
        "/v1/orders" => {
            put(shop, tag).await;
            Ready::new(post, order(tag, 1), order(tag, 2))
        }
        "/v1/orders/{id}/cancel" => {
            Ready::new(&(confirmed(shop, tag).await + "/cancel"), json!({"reason": "a"}), json!({"reason": "b"}))
        }
        "/v1/orders/{id}/fulfillments" => {
            Ready::new(&(confirmed(shop, tag).await + "/fulfillments"), parcel(1), parcel(2))
        }
        "/v1/orders/{id}/returns" => {
            let order = confirmed(shop, tag).await;
            insist(shop, &format!("{order}/fulfillments"), "all", &json!({})).await;
            Ready::new(&(order + "/returns"), parcel(1), parcel(2))
        }
        "/v1/payments" => Ready::new(post, payment(1000), payment(999)),
        "/v1/payments/{id}/capture" => Ready::new(&(authorized(shop, tag).await + "/capture"), part(500), part(499)),
        "/v1/payments/{id}/void" => Ready::of_paths(&authorized(shop, tag).await, "void", "capture"),
        "/v1/payments/{id}/refunds" => {
            let payment = authorized(shop, tag).await;
            insist(shop, &format!("{payment}/capture"), "all", &json!({})).await;
            Ready::new(&(payment + "/refunds"), part(300), part(299))
        }
        "/v1/inventory/{sku}/adjustments" => {
            put(shop, tag).await;
            let adjust = |delta: i64| json!({"delta": delta, "reason": "broken"});
            Ready::new(&format!("/v1/inventory/{tag}/adjustments"), adjust(-1), adjust(-2))
        }
        "/v1/reservations" => {
            put(shop, tag).await;
            Ready::new(post, hold(tag, 1), hold(tag, 2))
        }
        "/v1/reservations/{id}/commit" => Ready::of_paths(&held(shop, tag).await, "commit", "release"),
        "/v1/reservations/{id}/release" => Ready::of_paths(&held(shop, tag).await, "release", "commit"),
        "/v1/reservations/{id}/extend" => {
            Ready::new(&(held(shop, tag).await + "/extend"), json!({"ttl": "1h"}), json!({"ttl": "2h"}))
        }
        "/v1/webhook_endpoints" => Ready::new(post, endpoint(tag), endpoint("another")),
        "/v1/webhook_endpoints/{id}" => {
            let endpoint = insist(shop, "/v1/webhook_endpoints", tag, &endpoint(tag)).await;
            let path = format!("/v1/webhook_endpoints/{}", endpoint["id"].as_str().expect("an id"));
            Ready::new(&path, json!({"description": "a"}), json!({"description": "b"}))
        }
        "/v1/webhook_endpoints/{id}/rotate-secret" => {
            let endpoint = insist(shop, "/v1/webhook_endpoints", tag, &endpoint(tag)).await;
            let path = format!("/v1/webhook_endpoints/{}/rotate-secret", endpoint["id"].as_str().expect("an id"));
            Ready::new(&path, json!({"grace": "1h"}), json!({"grace": "2h"}))
        }
        "/admin/v1/dead-letters/{id}/retry" => Ready::of_paths(&letter(shop, tag).await, "retry", "discard"),
        "/admin/v1/dead-letters/{id}/discard" => Ready::of_paths(&letter(shop, tag).await, "discard", "retry"),
        _ => panic!("POST {post} is not in this table: say here how it is sent, so that its keys are tested"),
    }
}

fn payment(amount: u64) -> Value {
    json!({"amount": {"amount": amount, "currency": "USD"}, "payment_method": "pm_card_ok"})
}

/// Nobody listens there, and nothing is asked for that happens here.
fn endpoint(tag: &str) -> Value {
    json!({"url": format!("http://127.0.0.1:9/{tag}"), "enabled_events": ["order.needs_attention"]})
}

fn hold(sku: &str, quantity: u64) -> Value {
    json!({"items": [{"sku": sku, "quantity": quantity}], "ttl": "15m"})
}

async fn put(shop: &Shop, sku: &str) {
    let began = Instant::now();
    let path = format!("/v1/inventory/{sku}");
    while shop.send("PUT", &path).json(&json!({"on_hand": 10})).await_answer().await.status != 200 {
        assert!(began.elapsed() < PATIENCE, "{sku} cannot be put");
    }
}

/// Sends until it is answered, and waits until what it began has ended.
async fn insist(shop: &Shop, path: &str, key: &str, body: &Value) -> Value {
    let began = Instant::now();
    loop {
        let answer = shop.send("POST", path).key(key).header("prefer", "wait=20").json(body).await_answer().await;
        match answer.status.as_u16() {
            200 | 201 => return answer.body,
            503 | 504 if began.elapsed() < PATIENCE => {}
            _ => panic!("{path}: {}", answer.text),
        }
    }
}

async fn made(shop: &Shop, route: &str, tag: &str, body: &Value, status: &str) -> String {
    let made = insist(shop, route, tag, body).await;
    assert_eq!(made["status"], status, "{made}");
    format!("{route}/{}", made["id"].as_str().expect("an id"))
}

async fn confirmed(shop: &Shop, tag: &str) -> String {
    put(shop, tag).await;
    made(shop, "/v1/orders", tag, &order(tag, 2), "confirmed").await
}

async fn authorized(shop: &Shop, tag: &str) -> String {
    made(shop, "/v1/payments", tag, &payment(1000), "authorized").await
}

async fn held(shop: &Shop, tag: &str) -> String {
    put(shop, tag).await;
    made(shop, "/v1/reservations", tag, &hold(tag, 1), "held").await
}

async fn letter(shop: &Shop, tag: &str) -> String {
    const LETTERS: &str = "/admin/v1/dead-letters?limit=100";
    tasks::ask(shop, tag, false).await;
    let mine = |list: &Value| {
        let of_tag = |letter: &&Value| letter["entity"]["id"] == tag;
        list["data"].as_array().and_then(|data| data.iter().find(of_tag).cloned())
    };
    let list = shop.wait_until(LETTERS, "the task is given up", |list| mine(list).is_some()).await;
    let id = mine(&list).expect("it is there")["id"].clone();
    format!("/admin/v1/dead-letters/{}", id.as_str().expect("an id"))
}

fn tag(post: &str, phase: &str) -> String {
    let words: Vec<&str> = post.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    format!("{phase}-{}", words.join("-"))
}

/// What is promised to be the same, of an answer of any status.
fn promised(answer: &super::Answer) -> (u16, String, String, String) {
    let header = |name: &str| answer.header(name).to_owned();
    (answer.status.as_u16(), answer.text.clone(), header("etag"), header("location"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_post_keeps_the_rules_of_keys() {
    let (shop, _) = tasks::start().await;
    join_all(posts(&shop).await.iter().map(|post| keeps_the_rules(&shop, post))).await;
    shop.stop().await;
}

async fn keeps_the_rules(shop: &Shop, post: &str) {
    let Ready { path, body, other } = ready(shop, post, &tag(post, "rules")).await;
    malformed_keys_are_refused(shop, post, &path, &body).await;
    // Endpoints share an entity, and so their keys.
    let key = &tag(post, "send-rules");
    let quoted = format!("\"{key}\"");
    let first = shop.send("POST", &path).key(key).json(&body).await_answer().await;
    assert!(first.status.is_success(), "{post}: {}", first.text);
    assert_eq!(first.header("idempotent-replayed"), "", "{post}");
    for (node, key) in [(0, key), (1, key), (2, &quoted)] {
        let again = shop.send_to(node, "POST", &path).key(key).json(&body).await_answer().await;
        assert_eq!(promised(&again), promised(&first), "{post} on node {node}");
        assert_eq!(again.header("idempotent-replayed"), "true", "{post} on node {node}");
    }
    let reused = shop.send_to(1, "POST", &other.0).key(key).json(&other.1).problem().await;
    assert_eq!((reused.0, reused.1.as_str()), (422, "idempotency-key-reused"), "{post}");

    let Ready { path, body, .. } = ready(shop, post, &tag(post, "bare")).await;
    let bare = shop.send("POST", &path).json(&body).await_answer().await;
    if ["/v1/orders", "/v1/payments"].contains(&post) {
        assert_eq!((bare.status.as_u16(), bare.text("code")), (400, "idempotency-key-missing"), "{post}");
    } else {
        assert!(bare.status.is_success(), "{post} without a key: {}", bare.text);
    }
}

async fn malformed_keys_are_refused(shop: &Shop, post: &str, path: &str, body: &Value) {
    let long = "k".repeat(256);
    for bad in [b"".as_slice(), long.as_bytes(), "é".as_bytes(), b"\"open", b"open\"x\" y"] {
        let mut send = shop.send("POST", path);
        send.request = send.request.header("idempotency-key", HeaderValue::from_bytes(bad).expect("a header"));
        let refused = send.json(body).problem().await;
        assert_eq!(refused, (400, "idempotency-key-invalid".into(), "idempotency-key".into()), "{post}: {bad:?}");
    }
}

/// Where the version of what an answer is about can be read.
fn resource(path: &str, answer: &super::Answer) -> Option<String> {
    match answer.header("location") {
        "" if path.rsplit_once('/').is_some_and(|(_, last)| last.starts_with("we_")) => Some(path.to_owned()),
        "" => path.starts_with("/v1/").then(|| path.rsplit_once('/').expect("an action").0.to_owned()),
        location => Some(location.to_owned()),
    }
}

/// Waits until no effect is under way anywhere.
async fn quiet(shop: &Shop) {
    let look = || {
        let shards: Vec<_> = (0..3).flat_map(|node| shop.cluster.on_node(node).shards()).collect();
        let waiting: usize = shards.iter().map(|shard| shard.outbox).sum();
        (waiting, shards.iter().map(|shard| shard.applied_index).collect::<Vec<_>>())
    };
    let (began, mut before) = (Instant::now(), look());
    loop {
        // Between two looks: long enough for what is on its way from one shard to another.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = look();
        if now.0 == 0 && now == before {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "still under way: {now:?}");
        before = now;
    }
}

async fn version(shop: &Shop, path: &str) -> u64 {
    shop.get(path).await_answer().await.is(200).body["version"].as_u64().expect("a version")
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_duplicates_of_every_post_have_one_effect_and_one_answer() {
    let (shop, _) = tasks::start().await;
    let posts = posts(&shop).await;
    let send_both = |post: &String| {
        let (shop, post) = (&shop, post.clone());
        async move {
            let once = ready(shop, &post, &tag(&post, "once")).await;
            let (key_of_once, key_of_many) = (tag(&post, "send-once"), tag(&post, "send-many"));
            let answer = shop.send("POST", &once.path).key(&key_of_once).json(&once.body).await_answer().await;
            let twin = resource(&once.path, &answer);
            let many = ready(shop, &post, &tag(&post, "many")).await;
            let send =
                |n: usize| shop.send_to(n % 3, "POST", &many.path).key(&key_of_many).json(&many.body).await_answer();
            let answers = join_all((0..24).map(send)).await;
            assert!(answers[0].status.is_success(), "{post}: {}", answers[0].text);
            let different: BTreeSet<_> = answers.iter().map(promised).collect();
            assert_eq!(different.len(), 1, "{post}: {different:?}");
            let replays = answers.iter().filter(|answer| answer.header("idempotent-replayed") == "true").count();
            assert_eq!(replays, 23, "{post}");
            (post, twin, resource(&many.path, &answers[0]))
        }
    };
    let sent = join_all(posts.iter().map(send_both)).await;
    quiet(&shop).await;
    for (post, once, many) in sent {
        if let (Some(once), Some(many)) = (once, many) {
            // As long a history as if it had been sent once.
            assert_eq!(version(&shop, &many).await, version(&shop, &once).await, "{post}");
        }
    }
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicates_of_every_post_have_one_answer_while_each_node_is_cut_off_in_turn() {
    let network = Network::new();
    let (shop, _) = tasks::start_on(Cluster::in_memory_over(network.clone(), 3)).await;
    let posts = posts(&shop).await;
    for cut in 0..3 {
        let phase = format!("cut{cut}");
        let prepare = posts
            .iter()
            .map(async |post| (tag(post, &format!("send-{phase}")), ready(&shop, post, &tag(post, &phase)).await));
        let requests = join_all(prepare).await;
        let sending = requests.iter().map(|(key, request)| async {
            let send = |n: usize| until_answered(&shop, n % 3, &request.path, key, &request.body);
            (&request.path, join_all((0..6).map(send)).await)
        });
        let healing = async {
            // The first elections are over by then, or still going on: both must do.
            network.isolate(&format!("node-{}", cut + 1));
            tokio::time::sleep(Duration::from_secs(2)).await;
            network.heal_all();
        };
        let (answered, ()) = tokio::join!(join_all(sending), healing);
        for (path, answers) in answered {
            assert!(answers[0].0 < 300, "{path}: {answers:?}");
            let different: BTreeSet<_> = answers.iter().collect();
            assert_eq!(different.len(), 1, "{path}, node {cut} cut off: {different:?}");
        }
    }
    shop.stop().await;
}

/// Sends until there is an answer that says what happened.
async fn until_answered(
    shop: &Shop,
    node: usize,
    path: &str,
    key: &str,
    body: &Value,
) -> (u16, String, String, String) {
    let began = Instant::now();
    loop {
        let answer = shop.send_to(node, "POST", path).key(key).json(body).await_answer().await;
        if !matches!(answer.status.as_u16(), 503 | 504) {
            return promised(&answer);
        }
        assert!(began.elapsed() < PATIENCE * 2, "{path} on node {node}: {}", answer.text);
    }
}
