//! `/v1/inventory`.

use super::{Shop, order};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_put_on_one_node_is_read_on_every_node() {
    let shop = Shop::start(3).await;
    let put = shop.send("PUT", "/v1/inventory/mug").json(&json!({"on_hand": 7})).await_answer().await.is(200);
    let expected = json!({
        "sku": "mug", "on_hand": 7, "reserved": 0, "available": 7, "committed": 0, "backordered": 0, "version": 1,
    });
    assert_eq!(put.body, expected);
    for node in 0..3 {
        let read = shop.send_to(node, "GET", "/v1/inventory/mug").await_answer().await.is(200);
        assert_eq!((read.body.clone(), read.header("etag")), (expected.clone(), "\"1\""), "on node {node}");
        assert_eq!(read.header("x-applied-index"), "");
    }
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_read_says_how_far_the_replica_was() {
    let shop = Shop::start(3).await;
    shop.stock("mug", 7).await;
    for node in 0..3 {
        // A local read may be stale: wait until the write has arrived.
        let began = std::time::Instant::now();
        let read = loop {
            let read = shop.send_to(node, "GET", "/v1/inventory/mug?consistency=local").await_answer().await;
            if read.status == 200 {
                break read;
            }
            assert!(began.elapsed() < super::PATIENCE, "the write arrives on node {node}");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        };
        assert!(read.header("x-applied-index").parse::<u64>().expect("an index") > 0, "on node {node}");
        assert_eq!(read.body["on_hand"], 7);
    }
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adjustment_adds_and_takes() {
    let shop = Shop::start(1).await;
    shop.stock("mug", 7).await;
    for (delta, on_hand) in [(5, 12), (-12, 0)] {
        let body = json!({"delta": delta, "reason": "counted"});
        let adjusted = shop.send("POST", "/v1/inventory/mug/adjustments").json(&body).await_answer().await.is(200);
        assert_eq!(adjusted.body["on_hand"], on_hand);
    }
    let body = json!({"delta": -1, "reason": "counted"});
    let refused = shop.send("POST", "/v1/inventory/mug/adjustments").json(&body).await_answer().await.is(409);
    assert_eq!((refused.text("code"), refused.text("reason")), ("conflict", "insufficient-stock"));
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sku_that_was_never_put_cannot_be_adjusted() {
    let shop = Shop::start(1).await;
    let body = json!({"delta": 1, "reason": "found"});
    let refused = shop.send("POST", "/v1/inventory/none/adjustments").json(&body).problem().await;
    assert_eq!(refused, (404, "not-found".into(), String::new()));
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_can_be_made_conditional_on_a_version() {
    let shop = Shop::start(1).await;
    let put = |name: &'static str, value: &'static str| {
        shop.send("PUT", "/v1/inventory/mug").header(name, value).json(&json!({"on_hand": 7})).await_answer()
    };
    put("if-none-match", "*").await.is(200);
    assert_eq!(put("if-none-match", "*").await.is(412).text("code"), "version-mismatch");
    assert_eq!(put("if-match", "\"9\"").await.is(412).body["version"], 1);
    assert_eq!(put("if-match", "\"abc\"").await.is(412).text("code"), "version-mismatch");
    assert_eq!(put("if-match", "9").await.is(400).text("code"), "invalid-header");
    put("if-match", "\"1\"").await.is(200);
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_the_client_has_is_not_sent_again() {
    let shop = Shop::start(1).await;
    shop.stock("mug", 7).await;
    let unchanged = shop.get("/v1/inventory/mug").header("if-none-match", "\"1\"").await_answer().await.is(304);
    assert_eq!((unchanged.text.as_str(), unchanged.header("etag")), ("", "\"1\""));
    shop.get("/v1/inventory/mug").header("if-none-match", "\"2\"").await_answer().await.is(200);
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_never_take_more_than_there_is() {
    let shop = Shop::start(3).await;
    shop.stock("mug", 5).await;
    let (five, two) = (order("mug", 5), order("mug", 2));
    let place = |node: usize, key: String| {
        let body = if node == 0 { &five } else { &two };
        shop.send_to(node, "POST", "/v1/orders").key(&key).header("prefer", "wait=15").json(body).await_answer()
    };
    let answers = futures::future::join_all((0..6).map(|n| place(n % 3, format!("k{n}")))).await;
    let taken: u64 = answers
        .iter()
        .filter(|answer| answer.text("status") == "confirmed")
        .filter_map(|answer| answer.body["items"][0]["quantity"].as_u64())
        .sum();
    assert!(answers.iter().all(|answer| ["confirmed", "rejected"].contains(&answer.text("status"))));
    let stock = shop.get("/v1/inventory/mug").await_answer().await.is(200);
    assert_eq!(stock.body["committed"], taken);
    assert!(taken > 0 && taken <= 5, "{taken}");
    shop.stop().await;
}
