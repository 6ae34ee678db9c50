//! Backups over HTTP: a shop that is taken while it sells, and put into a new cluster.

use super::{PATIENCE, Shop, order};
use axum::body::{Body, Bytes, to_bytes};
use futures::{StreamExt, future::join_all, stream};

use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};
use tower::ServiceExt;

const BACKUP: &str = "/admin/v1/backup";
const RESTORE: &str = "/admin/v1/restore";
const SKUS: usize = 6;
const ON_HAND: u64 = 1000;

/// The bytes of a backup, from this node.
async fn take(shop: &Shop, node: usize) -> Vec<u8> {
    let began = Instant::now();
    loop {
        let request = shop.send_to(node, "POST", BACKUP).request.body(Body::empty()).expect("a request");
        let response = shop.routers[node].clone().oneshot(request).await.expect("infallible");
        if response.status() == 200 {
            assert_eq!(response.headers()["content-type"], "application/octet-stream");
            return to_bytes(response.into_body(), usize::MAX).await.expect("whole").to_vec();
        }
        assert!(began.elapsed() < PATIENCE, "{}", response.status());
    }
}

async fn put(shop: &Shop, node: usize, file: &[u8]) -> super::Answer {
    let parts: Vec<_> = file.chunks(700).map(|part| Ok::<_, String>(Bytes::copy_from_slice(part))).collect();
    let mut send = shop.send_to(node, "POST", RESTORE).header("content-type", "application/octet-stream");
    send.body = Body::from_stream(stream::iter(parts));
    send.await_answer().await
}

/// Places orders until it is told to stop; what it was told of each.
async fn sell(shop: &Shop, clerk: usize, stop: &AtomicBool) -> BTreeMap<String, String> {
    let mut placed = BTreeMap::new();
    for number in 0.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let key = format!("{clerk}-{number}");
        let mut order =
            order(&format!("sku{}", (clerk + number) % SKUS), 1 + u32::try_from(number % 3).expect("small"));
        if number % 5 == 4 {
            order["payment_method"] = "pm_card_declined".into();
        }
        let answer = shop.send_to(number % 3, "POST", "/v1/orders").key(&key).json(&order).await_answer().await;
        if answer.status == 201 {
            placed.insert(key, answer.text("id").to_owned());
        }
    }
    placed
}

/// Every page of a list.
async fn list(shop: &Shop, path: &str, id: &str) -> Vec<Value> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let page = shop.get(&format!("{path}?limit=100{after}")).await_answer().await.is(200).body;
        all.extend(page["data"].as_array().expect("a list").clone());
        if page["has_more"] == false {
            return all;
        }
        after = format!("&starting_after={}", all.last().expect("more than none")[id].as_str().expect("an id"));
    }
}

/// Waits until every order has ended, then compares what was sold with what is gone, and what was paid.
async fn check_books(shop: &Shop) -> BTreeMap<String, Value> {
    let began = Instant::now();
    let orders = loop {
        let orders = list(shop, "/v1/orders", "id").await;
        let ended =
            |order: &Value| ["confirmed", "rejected", "cancelled"].contains(&order["status"].as_str().unwrap_or(""));
        if orders.iter().all(ended) {
            break orders;
        }
        assert!(began.elapsed() < PATIENCE, "some orders do not end");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    let mut sold: BTreeMap<String, u64> = BTreeMap::new();
    for order in orders.iter().filter(|order| order["status"] == "confirmed") {
        let item = &order["items"][0];
        *sold.entry(item["sku"].as_str().expect("a sku").to_owned()).or_default() +=
            item["quantity"].as_u64().expect("units");
        let payment = shop.get(&format!("/v1/payments/{}", order["payment_id"].as_str().expect("paid")));
        let payment = payment.await_answer().await.is(200).body;
        assert_eq!((&payment["status"], &payment["amount"]), (&"captured".into(), &order["total"]), "{order}");
    }
    for stock in list(shop, "/v1/inventory", "sku").await {
        let units = |member: &str| stock[member].as_u64().expect("units");
        let sold = sold.get(stock["sku"].as_str().expect("a sku")).copied().unwrap_or(0);
        assert_eq!((units("on_hand"), units("reserved"), units("committed")), (ON_HAND - sold, 0, sold), "{stock}");
    }
    orders.into_iter().map(|order| (order["id"].as_str().expect("an id").to_owned(), order)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shop_that_is_taken_while_it_sells_goes_on_elsewhere_and_its_books_agree() {
    let shop = Shop::start(3).await;
    for sku in 0..SKUS {
        shop.stock(&format!("sku{sku}"), ON_HAND).await;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let selling = join_all((0..6).map(|clerk| sell(&shop, clerk, &stop)));
    let taking = async {
        let began = Instant::now();
        while list(&shop, "/v1/orders", "id").await.len() < 60 {
            assert!(began.elapsed() < PATIENCE, "nobody buys");
        }
        let before = list(&shop, "/v1/orders", "id").await.len();
        let files = [take(&shop, 0).await, take(&shop, 1).await, take(&shop, 2).await];
        stop.store(true, Ordering::SeqCst);
        (before, files)
    };
    let (placed, (before, files)) = tokio::join!(selling, taking);
    let placed: BTreeMap<String, String> = placed.into_iter().flatten().collect();
    check_books(&shop).await;
    for (node, file) in files.iter().enumerate() {
        let into = Shop::start(3).await;
        let restored = put(&into, node, file).await.is(200);
        assert_eq!((&restored.body["shards"], &restored.body["bytes"]), (&4.into(), &file.len().into()));
        let orders = check_books(&into).await;
        assert!((before..=placed.len() + 6).contains(&orders.len()), "{before} to {}: {}", placed.len(), orders.len());
        let mut there = restored.body.clone();
        there["was_before"] = true.into();
        assert_eq!(put(&into, 2, file).await.is(200).body, there);
        // Who asks again under a key from before the cut gets the answer from before the cut.
        let known = placed.iter().find(|(_, id)| orders.contains_key(*id)).expect("one from before");
        let (clerk, number) = known.0.split_once('-').expect("a key");
        let (clerk, number): (usize, usize) = (clerk.parse().expect("one"), number.parse().expect("one"));
        let again = order(&format!("sku{}", (clerk + number) % SKUS), 1 + u32::try_from(number % 3).expect("small"));
        if number % 5 != 4 {
            let again = into.send("POST", "/v1/orders").key(known.0).json(&again).await_answer().await.is(201);
            assert_eq!((again.text("id"), again.header("idempotent-replayed")), (known.1.as_str(), "true"));
        }
        into.stop().await;
    }
    shop.stop().await;
}

async fn example(nodes: usize) -> (Shop, Vec<u8>) {
    let shop = Shop::start(nodes).await;
    shop.stock("mug", 10).await;
    let placed = shop.send("POST", "/v1/orders").key("k").header("prefer", "wait=20").json(&order("mug", 2));
    assert_eq!(placed.await_answer().await.is(201).text("status"), "confirmed");
    let file = take(&shop, nodes - 1).await;
    (shop, file)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_restored_is_refused_with_its_reason() {
    let (shop, file) = example(1).await;
    let refused = |answer: super::Answer| (answer.status.as_u16(), answer.text("code").to_owned());
    let is = |status: u16, code: &str| (status, code.to_owned());
    assert_eq!(refused(put(&shop, 0, &file).await), is(409, "not-empty"));
    let into = Shop::start(1).await;
    let mut flipped = file.clone();
    flipped[40] ^= 1;
    for damaged in [b"".as_slice(), b"{}", &flipped] {
        let answer = put(&into, 0, damaged).await;
        assert!(answer.text("detail").contains("at byte"), "{}", answer.text);
        assert_eq!(refused(answer), is(422, "damaged-backup"));
    }
    into.stock("jug", 1).await;
    let json = into.send("POST", RESTORE).json(&json!({})).problem().await;
    assert_eq!((json.0, json.1.as_str()), (415, "unsupported-media-type"));
    for path in [BACKUP, RESTORE] {
        let versioned =
            into.send("POST", path).header("if-match", "\"1\"").header("content-type", "application/octet-stream");
        assert_eq!(versioned.problem().await.0, 412, "{path}");
        assert_eq!(into.get(path).problem().await.0, 405, "{path}");
        assert_eq!(into.send("POST", &format!("{path}?all=1")).problem().await.1, "invalid-parameter", "{path}");
        assert_eq!(into.send("POST", path).key("").problem().await.1, "idempotency-key-invalid", "{path}");
    }
    for shop in [shop, into] {
        shop.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_is_restored_everything_says_so_and_afterwards_all_is_there() {
    let (shop, file) = example(3).await;
    let into = Shop::start(3).await;
    let broken = put(&into, 0, &file[..file.len() - 40]).await;
    assert_eq!((broken.status.as_u16(), broken.text("code")), (422, "damaged-backup"));
    for (method, path) in
        [("GET", "/v1/orders"), ("GET", "/v1/inventory/mug"), ("GET", "/v1/inventory/mug?consistency=local")]
    {
        let answer = into.send(method, path).await_answer().await.is(503);
        assert_eq!((answer.text("code"), answer.header("retry-after")), ("restoring", "5"), "{path}");
    }
    let write = into.send_to(1, "POST", "/v1/orders").key("new").json(&order("mug", 1)).await_answer().await.is(503);
    assert_eq!(write.text("code"), "restoring");
    assert_eq!(into.send_to(2, "POST", BACKUP).await_answer().await.status, 503, "half a shop is not taken");
    put(&into, 1, &file).await.is(200);
    let orders = check_books_of(&into, 8, 2).await;
    let again = into.send("POST", "/v1/orders").key("k").json(&order("mug", 2)).await_answer().await.is(201);
    assert_eq!(
        (again.header("idempotent-replayed"), again.header("x-receipt"), again.text("id")),
        ("true", "", orders.as_str())
    );
    into.send_to(1, "POST", "/v1/orders").key("new").json(&order("mug", 1)).await_answer().await.is(201);
    for shop in [shop, into] {
        shop.stop().await;
    }
}

/// The id of the one order there is, of so many of so many.
async fn check_books_of(shop: &Shop, on_hand: u64, sold: u64) -> String {
    let orders = list(shop, "/v1/orders", "id").await;
    let [order] = orders.as_slice() else { panic!("{orders:?}") };
    let stock = shop.get("/v1/inventory/mug").await_answer().await.is(200).body;
    assert_eq!(
        (&order["status"], &stock["on_hand"], &stock["committed"]),
        (&"confirmed".into(), &on_hand.into(), &sold.into())
    );
    order["id"].as_str().expect("an id").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_of_the_cluster_that_was_backed_up_are_neither_proven_nor_contradicted() {
    let shop = Shop::start(1).await;
    let mut receipts = Vec::new();
    for sku in 0..20 {
        let put = shop.send("PUT", &format!("/v1/inventory/sku{sku}")).json(&json!({"on_hand": 1}));
        receipts.push(put.await_answer().await.is(200).header("x-receipt").to_owned());
    }
    let file = take(&shop, 0).await;
    let into = Shop::start(1).await;
    put(&into, 0, &file).await.is(200);
    let verdict = |shop, receipt: String| async move {
        let shop: &Shop = shop;
        shop.get(&format!("/admin/v1/receipts/{receipt}")).await_answer().await.is(200).text("verdict").to_owned()
    };
    for receipt in receipts {
        assert_eq!(verdict(&shop, receipt.clone()).await, "confirmed");
        assert_eq!(verdict(&into, receipt).await, "forgotten");
    }
    let own = into.send("PUT", "/v1/inventory/sku1").json(&json!({"on_hand": 5})).await_answer().await.is(200);
    assert_eq!(verdict(&into, own.header("x-receipt").to_owned()).await, "confirmed");
    for shop in [shop, into] {
        shop.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_nobody_reads_to_its_end_lets_go_of_what_it_held() {
    let (shop, file) = example(3).await;
    for node in 0..20 {
        let request = shop.send_to(node % 3, "POST", BACKUP).request.body(Body::empty()).expect("a request");
        let response = shop.routers[node % 3].clone().oneshot(request).await.expect("infallible");
        assert_eq!(response.status(), 200, "the {node}th");
        let first = response.into_body().into_data_stream().next().await.expect("a part").expect("of a backup");
        assert!(first.starts_with(b"QUORATE BACKUP 1\n"));
        // More at one time are more than are kept, unless those that were dropped are let go.
        let all = |status: &Value| status["data"].is_array();
        shop.wait_until("/admin/v1/shards", "the shards", all).await;
    }
    assert!(!file.is_empty());
    shop.stop().await;
}
