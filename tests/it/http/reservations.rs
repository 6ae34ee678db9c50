//! `/v1/reservations`.

use super::Shop;
use futures::future::join_all;
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn wanted(items: &[(&str, u32)], ttl: &str) -> Value {
    let items: Vec<_> = items.iter().map(|(sku, quantity)| json!({"sku": sku, "quantity": quantity})).collect();
    json!({"items": items, "ttl": ttl})
}

impl Shop {
    async fn hold(&self, key: &str, items: &[(&str, u32)], ttl: &str) -> String {
        let send = self.send("POST", "/v1/reservations").key(key).json(&wanted(items, ttl));
        send.await_answer().await.is(201).header("location").to_owned()
    }

    async fn levels(&self, sku: &str) -> (u64, u64, u64) {
        let stock = self.get(&format!("/v1/inventory/{sku}")).await_answer().await.is(200).body;
        let level = |name: &str| stock[name].as_u64().expect("a level");
        (level("on_hand"), level("reserved"), level("committed"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reservation_is_held_once_it_is_answered_and_taken_by_a_commit() {
    let shop = Shop::start(3).await;
    shop.stock("mug", 10).await;
    shop.stock("cup", 10).await;
    let body = wanted(&[("mug", 2), ("cup", 1), ("mug", 1)], "15m");
    let made = shop.send_to(1, "POST", "/v1/reservations").key("k1").json(&body).await_answer().await.is(201);
    assert!(made.text("id").starts_with("res_"));
    assert_eq!((made.text("status"), made.header("etag")), ("held", "\"2\""));
    assert_eq!(made.body["items"], json!([{"sku": "cup", "quantity": 1}, {"sku": "mug", "quantity": 3}]));
    assert_eq!((shop.levels("mug").await, shop.levels("cup").await), ((10, 3, 0), (10, 1, 0)));
    let path = made.header("location").to_owned();
    let read = shop.send_to(2, "GET", &path).await_answer().await.is(200);
    assert_eq!((&read.body, read.header("etag")), (&made.body, "\"2\""));
    let committed = shop.send_to(2, "POST", &format!("{path}/commit")).await_answer().await.is(200);
    assert_eq!(committed.text("status"), "committed");
    assert_eq!((shop.levels("mug").await, shop.levels("cup").await), ((7, 0, 3), (9, 0, 1)));
    let read = shop.get(&path).header("if-none-match", committed.header("etag")).await_answer();
    read.await.is(304);
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_to_be_had_is_named_and_nothing_is_held() {
    let shop = Shop::start(3).await;
    shop.stock("cup", 10).await;
    shop.stock("mug", 2).await;
    let make = |key: &'static str, body: Value| shop.send("POST", "/v1/reservations").key(key).json(&body);
    let refused = make("k1", wanted(&[("cup", 1), ("mug", 3)], "15m")).await_answer().await.is(409);
    assert_eq!((refused.text("code"), refused.text("sku")), ("out-of-stock", "mug"));
    assert_eq!((refused.text("reason"), &refused.body["available"]), ("insufficient-stock", &json!(2)));
    shop.wait_until("/v1/inventory/cup", "the cup goes back", |stock| stock["reserved"] == 0).await;
    let unknown = make("k2", wanted(&[("none", 1)], "15m")).await_answer().await.is(409);
    assert_eq!((unknown.text("code"), unknown.text("reason")), ("out-of-stock", "unknown-sku"));
    // The same key is the same answer, even when there would be enough by now.
    shop.stock("mug", 10).await;
    let again = make("k1", wanted(&[("cup", 1), ("mug", 3)], "15m")).await_answer().await.is(409);
    assert_eq!((again.text("code"), again.header("idempotent-replayed")), ("out-of-stock", "true"));
    assert_eq!(shop.levels("mug").await, (10, 0, 0));
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_gives_the_first_answer_whatever_has_happened_since() {
    let shop = Shop::start(3).await;
    shop.stock("mug", 10).await;
    let body = wanted(&[("mug", 2)], "15m");
    let make = |node: usize| shop.send_to(node, "POST", "/v1/reservations").key("same").json(&body).await_answer();
    let answers = join_all((0..12).map(|n| make(n % 3))).await;
    let bodies: BTreeSet<_> = answers.iter().map(|answer| answer.text.clone()).collect();
    assert_eq!(bodies.len(), 1, "{bodies:?}");
    assert_eq!(answers.iter().filter(|answer| answer.header("idempotent-replayed") != "true").count(), 1);
    let path = answers[0].header("location").to_owned();
    let release = |key: &'static str| shop.send("POST", &format!("{path}/release")).key(key).await_answer();
    let released = release("r1").await.is(200);
    assert_eq!((released.text("status"), shop.levels("mug").await), ("released", (10, 0, 0)));
    let again = release("r1").await.is(200);
    assert_eq!((again.header("idempotent-replayed"), &again.text), ("true", &released.text));
    assert_eq!(release("r2").await.is(200).text, released.text, "repeating it without the key is harmless, too");
    let replayed = make(2).await.is(201);
    assert_eq!((replayed.header("idempotent-replayed"), &replayed.text), ("true", &answers[0].text));
    let other = shop.send("POST", "/v1/reservations").key("same").json(&wanted(&[("mug", 3)], "15m")).problem().await;
    assert_eq!(other, (422, "idempotency-key-reused".into(), String::new()));
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reservation_can_be_made_without_a_key() {
    let shop = Shop::start(1).await;
    shop.stock("mug", 10).await;
    let make = || shop.send("POST", "/v1/reservations").json(&wanted(&[("mug", 2)], "15m")).await_answer();
    let (one, other) = (make().await.is(201), make().await.is(201));
    assert_ne!(one.text("id"), other.text("id"));
    assert_eq!(shop.levels("mug").await, (10, 4, 0));
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reservation_expires_by_itself_and_a_late_commit_is_refused() {
    let shop = Shop::start(3).await;
    shop.stock("mug", 10).await;
    let short = shop.hold("short", &[("mug", 2)], "1s").await;
    let extended = shop.hold("long", &[("mug", 3)], "10m").await;
    let extend = |ttl: &str| shop.send("POST", &format!("{extended}/extend")).json(&json!({"ttl": ttl})).await_answer();
    let before = shop.get(&extended).await_answer().await.is(200);
    let after = extend("1h").await.is(200);
    assert!(after.text("expires_at") > before.text("expires_at"), "{}", after.text);
    assert_eq!(extend("1s").await.is(200).text("expires_at"), after.text("expires_at"), "never shortens");
    shop.wait_until(&short, "its second is over", |reservation| reservation["status"] == "expired").await;
    for verb in ["commit", "release"] {
        let late = shop.send("POST", &format!("{short}/{verb}")).await_answer().await.is(409);
        assert_eq!((late.text("code"), late.text("state")), ("illegal-transition", "expired"), "{verb}");
    }
    let late = shop.send("POST", &format!("{short}/extend")).json(&json!({"ttl": "1h"})).await_answer().await.is(409);
    assert_eq!(late.text("state"), "expired");
    shop.wait_until("/v1/inventory/mug", "its units are free", |stock| stock["reserved"] == 3).await;
    let committed = shop.send("POST", &format!("{extended}/commit")).await_answer().await.is(200);
    assert_eq!((committed.text("status"), shop.levels("mug").await), ("committed", (7, 0, 3)));
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_can_be_made_conditional_on_a_version() {
    let shop = Shop::start(1).await;
    shop.stock("mug", 10).await;
    let path = shop.hold("k1", &[("mug", 2)], "15m").await;
    let commit =
        |version: &str| shop.send("POST", &format!("{path}/commit")).header("if-match", version).await_answer();
    assert_eq!(commit("\"1\"").await.is(412).body["version"], 2);
    commit("\"2\"").await.is(200);
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_reservation_is_404() {
    let shop = Shop::start(1).await;
    assert_eq!(shop.get("/v1/reservations/res_none").problem().await.0, 404);
    for verb in ["commit", "release"] {
        assert_eq!(shop.send("POST", &format!("/v1/reservations/res_none/{verb}")).problem().await.0, 404);
    }
    let extend = shop.send("POST", "/v1/reservations/res_none/extend").json(&json!({"ttl": "1m"}));
    assert_eq!(extend.problem().await.0, 404);
    shop.stop().await;
}

/// Many ask for the same SKUs in different orders: no two of them block each other, and what is
/// held is never more than there is.
#[tokio::test(flavor = "multi_thread")]
async fn reservations_over_the_same_skus_neither_deadlock_nor_oversell() {
    let shop = Shop::start(3).await;
    for sku in ["cup", "mug", "pan"] {
        shop.stock(sku, 20).await;
    }
    let make = |n: usize| {
        let items = match n % 3 {
            0 => [("cup", 1), ("mug", 1), ("pan", 1)],
            1 => [("pan", 1), ("mug", 1), ("cup", 1)],
            _ => [("mug", 1), ("pan", 1), ("cup", 1)],
        };
        let send = shop.send_to(n % 3, "POST", "/v1/reservations").key(&format!("k{n}"));
        send.json(&wanted(&items, "15m")).await_answer()
    };
    let answers = join_all((0..60).map(make)).await;
    let held = answers.iter().filter(|answer| answer.status == 201).count();
    let refused = answers.iter().filter(|answer| answer.text("code") == "out-of-stock").count();
    // Everyone takes the cup first: who has one gets the others as well.
    assert_eq!((held, refused), (20, 40));
    for sku in ["cup", "mug", "pan"] {
        assert_eq!(shop.levels(sku).await, (20, 20, 0), "{sku}");
    }
    shop.stop().await;
}
