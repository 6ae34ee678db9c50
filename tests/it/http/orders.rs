//! `/v1/orders` and `/v1/payments`.

use super::{Shop, order, paid_with};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn an_order_accepted_by_one_node_is_read_on_every_node() {
    let shop = Shop::start(3).await;
    shop.stock("mug", 10).await;
    let placed = shop.send_to(1, "POST", "/v1/orders").key("k1").json(&order("mug", 2)).await_answer().await.is(201);
    let id = placed.text("id").to_owned();
    assert!(id.starts_with("ord_"), "{id}");
    assert_eq!(placed.header("location"), format!("/v1/orders/{id}"));
    assert_eq!(placed.header("etag"), format!("\"{}\"", placed.body["version"]));
    assert_eq!(placed.body["status"], "pending");
    assert_eq!(placed.body["total"], json!({"amount": 3998, "currency": "USD"}));
    for node in 0..3 {
        let read = shop.send_to(node, "GET", &format!("/v1/orders/{id}")).await_answer().await.is(200);
        assert_eq!(read.text("id"), id, "on node {node}");
    }
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_confirmed_within_the_wait_that_the_client_prefers() {
    let shop = Shop::start(3).await;
    shop.stock("mug", 10).await;
    let place = shop.send("POST", "/v1/orders").key("k1").header("prefer", "wait=15").json(&order("mug", 3));
    let placed = place.await_answer().await.is(201);
    assert_eq!(placed.text("status"), "confirmed", "{}", placed.text);
    assert_eq!(placed.header("preference-applied"), "wait=15");
    assert_eq!(placed.text("payment_status"), "captured");
    let payment = shop.get(&format!("/v1/payments/{}", placed.text("payment_id"))).await_answer().await.is(200);
    assert_eq!(payment.body["status"], "captured");
    assert_eq!(payment.body["captured"], json!({"amount": 5997, "currency": "USD"}));
    let stock = shop.get("/v1/inventory/mug").await_answer().await.is(200);
    let figures = ["on_hand", "reserved", "committed", "available"].map(|figure| stock.body[figure].as_u64());
    assert_eq!(figures, [Some(7), Some(0), Some(3), Some(7)]);
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_is_cut_to_what_the_server_allows() {
    let shop = Shop::start(1).await;
    shop.stock("mug", 1).await;
    let place = shop.send("POST", "/v1/orders").key("k1").header("prefer", "wait=3600").json(&order("mug", 1));
    assert_eq!(place.await_answer().await.is(201).header("preference-applied"), "wait=30");
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_whose_card_is_declined_ends_cancelled_and_gives_its_stock_back() {
    let shop = Shop::start(1).await;
    shop.stock("mug", 5).await;
    let body = paid_with("pm_card_declined", order("mug", 5));
    let place = shop.send("POST", "/v1/orders").key("k1").header("prefer", "wait=15").json(&body);
    let placed = place.await_answer().await.is(201);
    assert_eq!((placed.text("status"), placed.text("payment_status")), ("cancelled", "declined"), "{}", placed.text);
    assert_eq!(placed.body["reason"]["code"], "payment-declined");
    let stock = shop.get("/v1/inventory/mug").await_answer().await.is(200);
    assert_eq!((&stock.body["available"], &stock.body["committed"]), (&json!(5), &json!(0)));
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_loses_answers_or_is_down_at_first_charges_once() {
    let shop = Shop::start(1).await;
    shop.stock("mug", 10).await;
    for method in ["pm_card_timeout", "pm_card_flaky"] {
        let body = paid_with(method, order("mug", 1));
        let place = shop.send("POST", "/v1/orders").key(method).header("prefer", "wait=20").json(&body);
        let placed = place.await_answer().await.is(201);
        assert_eq!(placed.text("status"), "confirmed", "{method}: {}", placed.text);
        let payment = shop.get(&format!("/v1/payments/{}", placed.text("payment_id"))).await_answer().await.is(200);
        assert_eq!(payment.body["captured"], payment.body["amount"], "{method}");
    }
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_for_more_than_there_is_ends_rejected() {
    let shop = Shop::start(1).await;
    shop.stock("mug", 1).await;
    let place = shop.send("POST", "/v1/orders").key("k1").header("prefer", "wait=15").json(&order("mug", 2));
    let placed = place.await_answer().await.is(201);
    assert_eq!(placed.text("status"), "rejected", "{}", placed.text);
    assert_eq!(placed.body["reason"]["code"], "insufficient-stock");
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_confirmed_order_can_be_cancelled_and_everything_comes_back() {
    let shop = Shop::start(1).await;
    shop.stock("mug", 4).await;
    let place = shop.send("POST", "/v1/orders").key("k1").header("prefer", "wait=15").json(&order("mug", 4));
    let placed = place.await_answer().await.is(201);
    let id = placed.text("id").to_owned();
    let cancel = shop.send("POST", &format!("/v1/orders/{id}/cancel")).key("k2").json(&json!({"reason": "too late"}));
    let cancelled = cancel.header("prefer", "wait=15").await_answer().await.is(200);
    assert_eq!((cancelled.text("status"), cancelled.text("payment_status")), ("cancelled", "refunded"));
    assert_eq!(cancelled.body["reason"], json!({"code": "requested", "detail": "too late"}));
    let stock = shop.get("/v1/inventory/mug").await_answer().await.is(200);
    assert_eq!(stock.body["available"], 4);
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_has_ended_cannot_be_cancelled_and_the_answer_names_its_state() {
    let shop = Shop::start(1).await;
    shop.stock("mug", 0).await;
    let place = shop.send("POST", "/v1/orders").key("k1").header("prefer", "wait=15").json(&order("mug", 1));
    let id = place.await_answer().await.is(201).text("id").to_owned();
    let refused = shop.send("POST", &format!("/v1/orders/{id}/cancel")).await_answer().await.is(409);
    assert_eq!((refused.text("code"), refused.text("state")), ("illegal-transition", "rejected"));
    assert_eq!(refused.body["allowed"], json!([]));
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_at_another_version_is_refused() {
    let shop = Shop::start(1).await;
    shop.stock("mug", 1).await;
    let place = shop.send("POST", "/v1/orders").key("k1").header("prefer", "wait=15").json(&order("mug", 1));
    let placed = place.await_answer().await.is(201);
    let path = format!("/v1/orders/{}/cancel", placed.text("id"));
    let stale = shop.send("POST", &path).header("if-match", "\"1\"").await_answer().await.is(412);
    assert_eq!((stale.text("code"), &stale.body["version"]), ("version-mismatch", &placed.body["version"]));
    shop.send("POST", &path).header("if-match", placed.header("etag")).await_answer().await.is(200);
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_of_an_order_comes_in_pages_without_gaps() {
    let shop = Shop::start(1).await;
    shop.stock("mug", 1).await;
    let place = shop.send("POST", "/v1/orders").key("k1").header("prefer", "wait=15").json(&order("mug", 1));
    let placed = place.await_answer().await.is(201);
    let path = format!("/v1/orders/{}/events", placed.text("id"));
    let all = shop.get(&format!("{path}?limit=100")).await_answer().await.is(200);
    let all = all.body["data"].as_array().expect("events").clone();
    assert_eq!((&all[0]["type"], &all[0]["sequence"]), (&json!("placed"), &json!(1)));
    assert_eq!(all.len() as u64, placed.body["version"].as_u64().expect("a version"));
    assert!(all[0]["at"].as_str().is_some_and(|at| at.ends_with('Z')), "{}", all[0]);

    let mut seen = Vec::new();
    let mut after = String::new();
    loop {
        let page = shop.get(&format!("{path}?limit=2{after}")).await_answer().await.is(200);
        seen.extend(page.body["data"].as_array().expect("events").clone());
        if page.body["has_more"] == false {
            break;
        }
        after = format!("&starting_after={}", seen[seen.len() - 1]["id"].as_str().expect("an id"));
    }
    assert_eq!(seen, all);
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_exist_is_404() {
    let shop = Shop::start(1).await;
    let not_found = (404, "not-found".to_owned(), String::new());
    for path in ["/v1/orders/ord_none", "/v1/orders/ord_none/events", "/v1/payments/pay_none", "/v1/inventory/none"] {
        assert_eq!(shop.get(path).problem().await, not_found, "{path}");
    }
    assert_eq!(shop.send("POST", "/v1/orders/ord_none/cancel").problem().await, not_found);
    let past_the_end = shop.get("/v1/orders/ord_none/events?starting_after=evt_none_7").problem().await;
    assert_eq!(past_the_end, not_found);
    shop.stop().await;
}
