//! Webhooks: endpoints over HTTP, and what really arrives at a receiver.

use super::{
    Answer, Shop,
    https::Https,
    order,
    receiver::{Fault, Receiver},
};
use futures::future::join_all;
use quorate::{
    Cluster,
    cluster::TaskQueue,
    entity::Retry,
    gateway::Sandbox,
    ingress,
    outbound::Trust,
    transport::memory::Network,
    webhooks::announcement::{Announcement, Notice},
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const ROUTE: &str = "/v1/webhook_endpoints";
const LETTERS: &str = "/admin/v1/dead-letters";
/// What happens to an order that is paid with a sound card.
const ORDER: [&str; 4] = ["order.created", "order.reserved", "order.authorized", "order.confirmed"];
const PAYMENT: [&str; 4] = ["payment.created", "payment.authorized", "payment.capturing", "payment.captured"];

/// A shop whose endpoints are tried again soon, and so often.
async fn shop(nodes: usize, attempts_max: u32) -> Shop {
    shop_over(Network::new(), nodes, attempts_max).await
}

async fn shop_over(network: Network, nodes: usize, attempts_max: u32) -> Shop {
    shop_trusting(Trust::system(), network, nodes, attempts_max).await
}

async fn shop_trusting(trust: Trust, network: Network, nodes: usize, attempts_max: u32) -> Shop {
    let retry = Retry { attempts_max, backoff_min_ms: 10, backoff_max_ms: 100, attempt_timeout_ms: 30_000 };
    let mut builder = ingress::shop::register_trusting(Cluster::in_memory_over(network, nodes), Sandbox, trust);
    for slot in 0..4 {
        let queue = TaskQueue { retry, concurrency: Some(quorate::webhooks::CONCURRENCY), ..TaskQueue::default() };
        builder = builder.task_queue(&format!("webhook-{slot}"), queue);
    }
    let shop = Shop::start_on(builder, nodes).await;
    shop.stock("mug", 1000).await;
    shop
}

async fn register(shop: &Shop, receiver: &Receiver, events: &[&str]) -> Value {
    let body = json!({"url": receiver.url, "enabled_events": events});
    shop.send("POST", ROUTE).json(&body).await_answer().await.is(201).body
}

async fn change(shop: &Shop, endpoint: &Value, body: Value) -> Answer {
    shop.send("POST", &path(endpoint)).json(&body).await_answer().await
}

fn path(endpoint: &Value) -> String {
    format!("{ROUTE}/{}", endpoint["id"].as_str().expect("an id"))
}

/// Places an order, and answers its id.
async fn place(shop: &Shop, node: usize, key: &str) -> String {
    let began = Instant::now();
    loop {
        let placed = shop.send_to(node, "POST", "/v1/orders").key(key).json(&order("mug", 1)).await_answer().await;
        if placed.status == 201 {
            return placed.text("id").to_owned();
        }
        assert!([503, 504].contains(&placed.status.as_u16()), "{}", placed.text);
        assert!(began.elapsed() < super::PATIENCE, "{}", placed.text);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn payment_of(order: &str) -> String {
    order.replace("ord_", "pay_")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_to_an_order_arrives_in_order_and_signed() {
    let shop = shop(3, 100).await;
    let receiver = Receiver::willing().await;
    let endpoint = register(&shop, &receiver, &["*"]).await;
    // Through another node: it knows the endpoint when the answer has come.
    let id = place(&shop, 1, "o-1").await;
    let payment = payment_of(&id);
    receiver
        .wait_until("the order and its payment are told to the end", |it| {
            it.types_of(&id).len() >= ORDER.len() && it.types_of(&payment).len() >= PAYMENT.len()
        })
        .await;
    assert_eq!(receiver.types_of(&id), ORDER);
    assert_eq!(receiver.types_of(&payment), PAYMENT);
    let history = shop.get(&format!("/v1/orders/{id}/events?limit=100")).await_answer().await.is(200).body;
    for taken in receiver.taken() {
        assert_eq!(taken.signed_with(endpoint["secret"].as_str().expect("a secret")), Some(0));
        assert_eq!(taken.signatures.len(), 1);
        let (event, object) = (&taken.event, &taken.event["data"]["object"]);
        assert_eq!(object["version"], event["sequence"]);
        if object["id"] == id.as_str() {
            let of_history = history["data"].as_array().expect("a list").iter().find(|it| it["id"] == event["id"]);
            assert_eq!(of_history.expect("an event of the order")["at"], event["created"]);
            let status = if event["type"] == "order.created" { "order.pending".into() } else { event["type"].clone() };
            assert_eq!(status, format!("order.{}", object["status"].as_str().expect("a status")));
        }
    }
    let repeated: Vec<_> = receiver.seen().into_iter().filter(|(_, seen)| *seen != 1).collect();
    assert_eq!(repeated, [], "nothing went wrong, so nothing came twice");
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_hears_what_it_asked_for_and_from_then_on() {
    let shop = shop(2, 100).await;
    let (narrow, late) = (Receiver::willing().await, Receiver::willing().await);
    register(&shop, &narrow, &["order.confirmed", "reservation.*"]).await;
    let id = place(&shop, 0, "o-1").await;
    narrow.wait_until("the order is confirmed", |it| it.types_of(&id) == ["order.confirmed"]).await;
    register(&shop, &late, &["*"]).await;
    let sent = shop.send("POST", &format!("/v1/orders/{id}/fulfillments")).text("{}").await_answer().await.is(200);
    assert_eq!(sent.text("status"), "fulfilled");
    let body = json!({"items": [{"sku": "mug", "quantity": 1}], "ttl": "1m"});
    let held = shop.send("POST", "/v1/reservations").key("r-1").json(&body).await_answer().await.is(201);
    let reservation = held.text("id").to_owned();
    shop.send("POST", &format!("/v1/reservations/{reservation}/extend"))
        .json(&json!({"ttl": "2m"}))
        .await_answer()
        .await
        .is(200);
    shop.send("POST", &format!("/v1/reservations/{reservation}/release")).text("{}").await_answer().await.is(200);
    let whole = ["reservation.created", "reservation.held", "reservation.extended", "reservation.released"];
    for receiver in [&narrow, &late] {
        receiver.wait_until("the reservation is told", |it| it.types_of(&reservation).len() == whole.len()).await;
        assert_eq!(receiver.types_of(&reservation), whole);
    }
    late.wait_until("the parcel is told", |it| !it.types_of(&id).is_empty()).await;
    assert_eq!(late.types_of(&id), ["order.fulfilled"], "what was before it is not told");
    assert_eq!(narrow.types_of(&id), ["order.confirmed"]);
    shop.stop().await;
}

/// SplitMix64 over the id and the number of the request: the same fault whoever comes first.
fn bad_day(event: &Value, seen: u32) -> Fault {
    let id = event["id"].as_str().unwrap_or_default();
    let mut z = id.bytes().fold(u64::from(seen), |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    match (z ^ (z >> 31)) % 12 {
        0 => Fault::LostBefore,
        1 | 2 => Fault::LostAfter,
        3 => Fault::Refused(500),
        4 => Fault::Refused(429),
        5 => Fault::Refused(302),
        6 => Fault::Late(Duration::from_millis(30)),
        _ => Fault::None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_arrives_in_order_though_the_receiver_has_a_bad_day_and_a_node_is_cut_off() {
    let network = Network::new();
    let shop = shop_over(network.clone(), 3, 10_000).await;
    let receiver = Receiver::open(bad_day).await;
    let endpoint = register(&shop, &receiver, &["*"]).await;
    let place = |number: usize| {
        let shop = &shop;
        async move { place(shop, number % 2, &format!("o-{number}")).await }
    };
    let before = join_all((0..8).map(place)).await;
    receiver.wait_until("some have begun", |it| it.taken().len() > 8).await;
    // Whatever that node owns, orders and deliveries, others take over.
    network.isolate("node-3");
    let ids: Vec<_> = before.into_iter().chain(join_all((8..16).map(place)).await).collect();
    network.heal_all();
    receiver
        .wait_until("every order is told to the end", |it| {
            ids.iter().all(|id| it.types_of(id).len() >= 4 && it.types_of(&payment_of(id)).len() >= 4)
        })
        .await;
    for id in &ids {
        assert_eq!(receiver.types_of(id), ORDER, "{id}");
        assert_eq!(receiver.types_of(&payment_of(id)), PAYMENT, "{id}");
    }
    let secret = endpoint["secret"].as_str().expect("a secret");
    assert!(receiver.taken().iter().all(|taken| taken.signed_with(secret) == Some(0)));
    assert!(receiver.seen().values().any(|seen| *seen > 1), "the day was bad");
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_never_answers_holds_up_no_other() {
    let shop = shop(1, 100).await;
    let (stuck, willing) =
        (Receiver::open(|_, _| Fault::Late(Duration::from_secs(600))).await, Receiver::willing().await);
    register(&shop, &stuck, &["order.created"]).await;
    register(&shop, &willing, &["order.created"]).await;
    // More than one endpoint may have under way at a time.
    let orders = quorate::webhooks::CONCURRENCY + 8;
    let one = |number: usize| {
        let shop = &shop;
        async move { place(shop, 0, &format!("o-{number}")).await }
    };
    join_all((0..orders).map(one)).await;
    willing.wait_until("the other has all of them", |it| it.taken().len() == orders).await;
    assert!(stuck.taken().len() <= quorate::webhooks::CONCURRENCY, "a bound per endpoint");
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_secret_signs_beside_the_new_one_for_its_grace() {
    let shop = shop(2, 100).await;
    let receiver = Receiver::willing().await;
    let endpoint = register(&shop, &receiver, &["order.created"]).await;
    let rotate = async |key: &str, body: Value| {
        let route = format!("{}/rotate-secret", path(&endpoint));
        shop.send("POST", &route).key(key).json(&body).await_answer().await.is(200)
    };
    let signed = async |key: &'static str, secrets: &[&Value]| {
        let id = place(&shop, 0, key).await;
        receiver.wait_until("the order is told", |it| !it.types_of(&id).is_empty()).await;
        let taken = receiver.taken().pop().expect("just taken");
        let by: Vec<_> = secrets.iter().map(|secret| taken.signed_with(secret.as_str().expect("a secret"))).collect();
        (taken.signatures.len(), by)
    };
    let first = &endpoint["secret"];
    let rotated = rotate("r-1", json!({"grace": "1h"})).await;
    let second = &rotated.body["secret"];
    assert_ne!(first, second);
    assert_eq!(rotated.body["old_secrets_expire_at"].as_array().map(Vec::len), Some(1));
    assert_eq!(signed("o-1", &[second, first]).await, (2, vec![Some(0), Some(1)]));
    let replayed = rotate("r-1", json!({"grace": "1h"})).await;
    assert_eq!((replayed.header("idempotent-replayed"), &replayed.body), ("true", &rotated.body));
    let third = &rotate("r-2", json!({"grace": "0s"})).await.body["secret"];
    assert_eq!(signed("o-2", &[third, second, first]).await, (1, vec![Some(0), None, None]));
    shop.stop().await;
}

/// The dead letter of the delivery to an endpoint, once it is there.
async fn letter(shop: &Shop, reason: &str, not: Option<&Value>) -> Value {
    let is_new = |body: &Value| body["data"].get(0).is_some_and(|letter| Some(&letter["id"]) != not);
    shop.wait_until(LETTERS, reason, is_new).await["data"][0].clone()
}

async fn resolve(shop: &Shop, letter: &Value, how: &str) {
    let id = letter["id"].as_str().expect("an id");
    shop.send("POST", &format!("{LETTERS}/{id}/{how}")).await_answer().await.is(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_up_is_a_dead_letter_and_what_follows_it_waits() {
    let shop = shop(2, 2).await;
    let receiver = Receiver::open(|_, _| Fault::Refused(500)).await;
    let endpoint = register(&shop, &receiver, &["order.*"]).await;
    let id = place(&shop, 0, "o-1").await;
    let first = letter(&shop, "it is given up", None).await;
    assert_eq!((&first["handler"], &first["attempts"]), (&json!("webhook-0"), &json!(2)));
    let delivery = format!("{}:order:{id}", endpoint["id"].as_str().expect("an id"));
    assert_eq!(
        (&first["entity"]["entity_type"], &first["entity"]["id"]),
        (&json!("webhook_delivery"), &json!(delivery))
    );
    assert!(first["error"].as_str().is_some_and(|error| error.contains("answered 500")), "{first}");
    let confirmed = |body: &Value| body["status"] == "confirmed";
    shop.wait_until(&format!("/v1/orders/{id}"), "the order does not wait", confirmed).await;
    assert_eq!(receiver.seen().len(), 1, "nothing overtakes it");

    // Retried in vain: given up anew. Discarded: left out, and the next one is tried.
    resolve(&shop, &first, "retry").await;
    let second = letter(&shop, "it is given up again", Some(&first["id"])).await;
    receiver.change_temper(|event, _| match event["type"] == "order.reserved" {
        true => Fault::Refused(503),
        false => Fault::None,
    });
    resolve(&shop, &second, "discard").await;
    let third = letter(&shop, "the one after it is given up, too", Some(&second["id"])).await;
    assert_eq!(receiver.types_of(&id), Vec::<String>::new());
    receiver.change_temper(|_, _| Fault::None);
    resolve(&shop, &third, "retry").await;
    receiver.wait_until("the rest arrives", |it| it.types_of(&id).len() == 3).await;
    assert_eq!(receiver.types_of(&id), ORDER[1..]);
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_endpoint_hears_nothing_and_not_later_either() {
    let shop = shop(2, 10_000).await;
    let receiver = Receiver::open(|_, _| Fault::Refused(500)).await;
    let endpoint = register(&shop, &receiver, &["order.created", "order.fulfilled"]).await;
    let waiting = place(&shop, 0, "o-1").await;
    receiver.wait_until("it is tried", |it| it.seen().values().any(|seen| *seen > 1)).await;
    assert_eq!(change(&shop, &endpoint, json!({"disabled": true})).await.is(200).body["status"], "disabled");
    let nothing_waits = |body: &Value| body["data"].as_array().is_some_and(Vec::is_empty);
    shop.wait_until("/admin/v1/tasks", "what waited is dropped", nothing_waits).await;
    receiver.change_temper(|_, _| Fault::None);
    let unheard = place(&shop, 1, "o-2").await;
    let confirmed = |body: &Value| body["status"] == "confirmed";
    shop.wait_until(&format!("/v1/orders/{unheard}"), "it is confirmed", confirmed).await;
    change(&shop, &endpoint, json!({"disabled": false})).await.is(200);
    shop.send("POST", &format!("/v1/orders/{unheard}/fulfillments")).text("{}").await_answer().await.is(200);
    receiver.wait_until("it hears again", |it| !it.types_of(&unheard).is_empty()).await;
    assert_eq!(receiver.types_of(&unheard), ["order.fulfilled"]);
    assert_eq!(receiver.types_of(&waiting), Vec::<String>::new());

    shop.send("DELETE", &path(&endpoint)).await_answer().await.is(200);
    let before = receiver.taken().len();
    let third = place(&shop, 0, "o-3").await;
    shop.wait_until(&format!("/v1/orders/{third}"), "it is confirmed", confirmed).await;
    shop.wait_until("/admin/v1/tasks", "nothing is asked for", nothing_waits).await;
    assert_eq!(receiver.taken().len(), before);
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_did_not_know_the_endpoints_has_it_told_later() {
    let shop = shop(1, 100).await;
    let id = place(&shop, 0, "o-1").await;
    let confirmed = |body: &Value| body["status"] == "confirmed";
    shop.wait_until(&format!("/v1/orders/{id}"), "it is confirmed", confirmed).await;
    let receiver = Receiver::willing().await;
    register(&shop, &receiver, &["order.confirmed"]).await;
    let history = shop.get(&format!("/v1/orders/{id}/events?limit=100")).await_answer().await.is(200).body;
    let last = history["data"].as_array().expect("a list").len() as u64;
    let events = vec![(1, "order.created".to_owned()), (last, "order.confirmed".to_owned())];
    let notice = Notice { subject_type: "order".into(), subject_id: id.clone(), events };
    shop.cluster.entity::<Announcement>(format!("order:{id}")).ask(notice).await.expect("taken");
    receiver.wait_until("it is told", |it| !it.types_of(&id).is_empty()).await;
    assert_eq!(receiver.types_of(&id), ["order.confirmed"]);
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_are_made_read_changed_and_deleted_through_any_node() {
    let shop = shop(2, 100).await;
    let body = json!({"url": "http://127.0.0.1:9/in", "description": "mine"});
    let made = shop.send_to(1, "POST", ROUTE).key("e-1").json(&body).await_answer().await.is(201);
    let id = made.text("id").to_owned();
    assert!(id.starts_with("we_") && made.text("secret").starts_with("whsec_"), "{}", made.text);
    assert_eq!((made.header("location"), made.header("etag")), (format!("{ROUTE}/{id}").as_str(), "\"1\""));
    assert_eq!((&made.body["enabled_events"], made.text("status")), (&json!(["*"]), "enabled"));
    let replayed = shop.send("POST", ROUTE).key("e-1").json(&body).await_answer().await.is(201);
    assert_eq!((replayed.header("idempotent-replayed"), &replayed.body), ("true", &made.body));
    let other = json!({"url": "http://127.0.0.1:9/other"});
    let reused = shop.send("POST", ROUTE).key("e-1").json(&other).problem().await;
    assert_eq!((reused.0, reused.1.as_str()), (422, "idempotency-key-reused"));

    let route = format!("{ROUTE}/{id}");
    let read = shop.get(&route).await_answer().await.is(200);
    assert_eq!((read.header("etag"), read.body.get("secret")), ("\"1\"", None));
    shop.get(&route).header("if-none-match", "\"1\"").await_answer().await.is(304);
    let stale = shop.send("POST", &route).header("if-match", "\"7\"").json(&json!({"disabled": true})).problem().await;
    assert_eq!((stale.0, stale.1.as_str()), (412, "version-mismatch"));
    let changed = shop.send("POST", &route).header("if-match", "\"1\"").json(&json!({"disabled": true})).await_answer();
    let changed = changed.await.is(200);
    assert_eq!(
        (changed.text("status"), changed.header("etag"), changed.body.get("secret")),
        ("disabled", "\"2\"", None)
    );
    let listed = shop.send_to(1, "GET", ROUTE).await_answer().await.is(200).body;
    assert_eq!(listed, json!({"data": [changed.body], "has_more": false}));

    // Operators see how it is kept, and no secret.
    let inside = shop.get("/admin/v1/entities/webhook_endpoints/all").await_answer().await.is(200);
    assert!(inside.text.contains("<redacted>") && !inside.text.contains(made.text("secret")), "{}", inside.text);

    let stale = shop.send("DELETE", &route).header("if-match", "\"1\"").problem().await;
    assert_eq!((stale.0, stale.1.as_str()), (412, "version-mismatch"));
    for _ in 0..2 {
        let gone = shop.send("DELETE", &route).key("d-1").await_answer().await.is(200);
        assert_eq!(gone.body, json!({"id": id, "deleted": true}));
    }
    for (method, path) in [("GET", &route), ("DELETE", &route)] {
        assert_eq!(shop.send(method, path).problem().await.0, 404);
    }
    assert_eq!(shop.send("POST", &route).text("{}").problem().await.0, 404);
    assert_eq!(shop.send("POST", &format!("{route}/rotate-secret")).problem().await.0, 404);
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_with_https_hears_all_and_one_that_is_not_trusted_hears_nothing_until_it_is() {
    let (known, unknown) = (Https::new(), Https::new());
    let shop = shop_trusting(Trust::of(&known.outbound()).expect("an authority"), Network::new(), 3, 10_000).await;
    let trusted = Receiver::open_at(known.listen().await, |_, _| Fault::None);
    let stranger = Receiver::open_at(unknown.listen().await, |_, _| Fault::None);
    let endpoint = register(&shop, &trusted, &["order.*"]).await;
    let other = register(&shop, &stranger, &["order.*"]).await;
    let id = place(&shop, 1, "o-1").await;
    trusted.wait_until("all of the order's events", |receiver| receiver.types_of(&id) == ORDER).await;
    let secret = endpoint["secret"].as_str().expect("shown once");
    assert!(trusted.taken().iter().all(|taken| taken.signed_with(secret).is_some()));
    let why = "its certificate is of an authority that is not trusted here";
    let waits = |tasks: &Value| {
        let of = |task: &&Value| task["last_error"].as_str().is_some_and(|error| error.contains(why));
        tasks["data"].as_array().is_some_and(|tasks| tasks.iter().find(of).is_some())
    };
    shop.wait_until("/admin/v1/tasks", "what waits says why", waits).await;
    assert!(stranger.seen().is_empty(), "not a word went there");
    // It moves to where it is trusted, and hears what waited.
    change(&shop, &other, json!({"url": trusted.url})).await.is(200);
    let both = |receiver: &Receiver| receiver.seen().values().filter(|seen| **seen >= 2).count() == ORDER.len();
    trusted.wait_until("the other endpoint's events come here, too", both).await;
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_an_endpoint_is_refused_by_name() {
    let shop = shop(1, 100).await;
    let url = "http://127.0.0.1:9/";
    for (body, status, code, field) in [
        (json!({"url": "ftp://shop.example/"}), 422, "validation-failed", "url"),
        (json!({"url": "shop"}), 422, "validation-failed", "url"),
        (json!({}), 422, "validation-failed", "url"),
        (json!({"url": url, "enabled_events": ["order.comfirmed"]}), 422, "validation-failed", "enabled_events[0]"),
        (json!({"url": url, "enabled_events": "*"}), 422, "validation-failed", "enabled_events"),
        (json!({"url": url, "secret": "mine"}), 422, "validation-failed", "secret"),
    ] {
        let found = shop.send("POST", ROUTE).json(&body).problem().await;
        assert_eq!((found.0, found.1.as_str(), found.2.as_str()), (status, code, field), "{body}");
    }
    assert_eq!(shop.send("POST", &format!("{ROUTE}?x=1")).json(&json!({"url": url})).problem().await.0, 400);
    assert_eq!(shop.send("PUT", ROUTE).json(&json!({"url": url})).problem().await.0, 405);
    for _ in 0..quorate::webhooks::ENDPOINTS_MAX {
        shop.send("POST", ROUTE).json(&json!({"url": url})).await_answer().await.is(201);
    }
    let one_more = shop.send("POST", ROUTE).json(&json!({"url": url})).await_answer().await.is(409);
    assert_eq!((one_more.text("code"), one_more.text("reason")), ("conflict", "too-many-endpoints"));
    shop.stop().await;
}
