//! Idempotency keys: one effect per key, on every node.

use super::{Shop, order};
use futures::future::join_all;
use serde_json::json;
use std::collections::BTreeSet;

#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_again_gets_the_first_answer_again_on_any_node() {
    let shop = Shop::start(3).await;
    shop.stock("mug", 10).await;
    let first = shop.send("POST", "/v1/orders").key("k1").json(&order("mug", 2)).await_answer().await.is(201);
    assert_eq!(first.header("idempotent-replayed"), "");
    // By now the order has moved on; the first answer has not.
    let path = format!("/v1/orders/{}", first.text("id"));
    shop.wait_until(&path, "the order is confirmed", |order| order["status"] == "confirmed").await;
    for node in 0..3 {
        let again = shop.send_to(node, "POST", "/v1/orders").key("k1").json(&order("mug", 2)).await_answer();
        let again = again.await.is(201);
        assert_eq!(again.header("idempotent-replayed"), "true", "on node {node}");
        assert_eq!(again.text, first.text, "on node {node}");
        assert_eq!(again.header("location"), first.header("location"));
        assert_eq!(again.header("etag"), first.header("etag"));
    }
    let stock = shop.get("/v1/inventory/mug").await_answer().await.is(200);
    assert_eq!(stock.body["committed"], 2);
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn white_space_order_of_members_and_quotes_around_the_key_do_not_count() {
    let shop = Shop::start(1).await;
    shop.stock("mug", 10).await;
    let first = shop.send("POST", "/v1/orders").key("k1").json(&order("mug", 2)).await_answer().await.is(201);
    let reordered = r#"{ "items": [ {"unit_price":1999, "quantity":2, "sku":"mug"} ],
        "payment_method":"pm_card_ok", "currency":"USD", "customer_id":"cus_1" }"#;
    let again = shop.send("POST", "/v1/orders").key("\"k1\"").text(reordered).await_answer().await.is(201);
    assert_eq!((again.header("idempotent-replayed"), &again.text), ("true", &first.text));
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_used_for_another_request_is_refused_on_any_node() {
    let shop = Shop::start(3).await;
    shop.stock("mug", 10).await;
    shop.send("POST", "/v1/orders").key("k1").json(&order("mug", 2)).await_answer().await.is(201);
    for node in 0..3 {
        let reused = shop.send_to(node, "POST", "/v1/orders").key("k1").json(&order("mug", 3)).problem().await;
        assert_eq!(reused, (422, "idempotency-key-reused".into(), String::new()));
    }
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_duplicates_through_all_nodes_place_one_order() {
    let shop = Shop::start(3).await;
    shop.stock("mug", 100).await;
    let body = order("mug", 1);
    let duplicates = (0..24).map(|n| shop.send_to(n % 3, "POST", "/v1/orders").key("same").json(&body).await_answer());
    let answers = join_all(duplicates).await;
    let bodies: BTreeSet<_> = answers.iter().map(|answer| answer.text.clone()).collect();
    assert_eq!(bodies.len(), 1, "{bodies:?}");
    assert!(answers.iter().all(|answer| answer.status == 201));
    assert_eq!(answers.iter().filter(|answer| answer.header("idempotent-replayed") != "true").count(), 1);
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adjustment_takes_effect_once_per_key() {
    let shop = Shop::start(1).await;
    shop.stock("mug", 10).await;
    let body = json!({"delta": -3, "reason": "broken"});
    let adjust = |key: &str| shop.send("POST", "/v1/inventory/mug/adjustments").key(key).json(&body).await_answer();
    let first = adjust("a").await.is(200);
    let again = adjust("a").await.is(200);
    assert_eq!((first.text.as_str(), again.header("idempotent-replayed")), (again.text.as_str(), "true"));
    assert_eq!(adjust("b").await.is(200).body["on_hand"], 4);
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_the_answer_of_its_key_although_the_change_has_become_possible() {
    let shop = Shop::start(3).await;
    shop.stock("mug", 1).await;
    let body = json!({"delta": -3, "reason": "broken"});
    let adjust = |node, key: &str| {
        shop.send_to(node, "POST", "/v1/inventory/mug/adjustments").key(key).json(&body).await_answer()
    };
    let first = adjust(0, "a").await.is(409);
    assert_eq!((first.text("reason"), first.header("idempotent-replayed")), ("insufficient-stock", ""));
    shop.stock("mug", 10).await;
    for node in 0..3 {
        let again = adjust(node, "a").await.is(409);
        assert_eq!(again.header("idempotent-replayed"), "true", "on node {node}");
        assert_eq!((again.text("detail"), again.text("reason")), (first.text("detail"), first.text("reason")));
    }
    assert_eq!(shop.get("/v1/inventory/mug").await_answer().await.is(200).body["on_hand"], 10, "nothing happened");
    let other = json!({"delta": -2, "reason": "broken"});
    let reused = shop.send("POST", "/v1/inventory/mug/adjustments").key("a").json(&other).problem().await;
    assert_eq!(reused.1, "idempotency-key-reused");
    assert_eq!(adjust(1, "b").await.is(200).body["on_hand"], 7, "a new key is a new request");
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_prefers_to_wait_shows_where_it_got_first_and_not_where_it_is_now() {
    let shop = Shop::start(3).await;
    shop.stock("mug", 10).await;
    let place = |node| {
        let send = shop.send_to(node, "POST", "/v1/orders").key("k1").header("prefer", "wait=20");
        send.json(&order("mug", 2)).await_answer()
    };
    let first = place(0).await.is(201);
    assert_eq!(first.text("status"), "confirmed");
    let fulfill = format!("/v1/orders/{}/fulfillments", first.text("id"));
    shop.send("POST", &fulfill).await_answer().await.is(200);
    for node in 0..3 {
        let again = place(node).await.is(201);
        assert_eq!((again.header("etag"), &again.text), (first.header("etag"), &first.text), "on node {node}");
        assert_eq!(again.header("idempotent-replayed"), "true");
    }
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_one_sku_is_free_for_another() {
    let shop = Shop::start(1).await;
    for sku in ["mug", "cup"] {
        shop.stock(sku, 10).await;
        let body = json!({"delta": 1, "reason": "found"});
        let adjust = shop.send("POST", &format!("/v1/inventory/{sku}/adjustments")).key("k1").json(&body);
        assert_eq!(adjust.await_answer().await.is(200).body["on_hand"], 11, "{sku}");
    }
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn placing_an_order_without_a_key_is_refused() {
    let shop = Shop::start(1).await;
    let refused = shop.send("POST", "/v1/orders").json(&order("mug", 1)).problem().await;
    assert_eq!(refused, (400, "idempotency-key-missing".into(), String::new()));
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_cannot_be_kept_is_refused() {
    let shop = Shop::start(1).await;
    for bad in ["", "two words", "\"open", &"k".repeat(256)] {
        let refused = shop.send("POST", "/v1/orders").key(bad).json(&order("mug", 1)).problem().await;
        assert_eq!(refused, (400, "idempotency-key-invalid".into(), "idempotency-key".into()), "{bad:?}");
    }
    shop.stop().await;
}
