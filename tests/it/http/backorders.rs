//! Orders that wait for stock.

use super::{Shop, order};
use serde_json::{Value, json};

impl Shop {
    async fn owe(&self, sku: &str, on_hand: u64, backorder_limit: u64) {
        let body = json!({"on_hand": on_hand, "backorder_limit": backorder_limit});
        self.send("PUT", &format!("/v1/inventory/{sku}")).json(&body).await_answer().await.is(200);
    }

    /// Places an order that may wait, and waits until its status is this.
    async fn place_backorder(&self, key: &str, order: Value, status: &str) -> String {
        let mut order = order;
        order["backorder"] = true.into();
        let placed = self.send("POST", "/v1/orders").key(key).json(&order).await_answer().await.is(201);
        let path = placed.header("location").to_owned();
        self.wait_until(&path, "the order gets there", |order| order["status"] == status).await;
        path
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn backorders_are_served_in_the_order_in_which_they_came() {
    let shop = Shop::start(3).await;
    shop.owe("mug", 0, 10).await;
    let mut orders = Vec::new();
    for (key, quantity) in [("first", 4), ("second", 1), ("third", 2)] {
        orders.push(shop.place_backorder(key, order("mug", quantity), "backordered").await);
    }
    let stock = shop.get("/v1/inventory/mug").await_answer().await.is(200).body;
    assert_eq!((&stock["backordered"], &stock["available"]), (&json!(7), &json!(-7)));
    shop.place_backorder("beyond", order("mug", 4), "rejected").await;

    let body = json!({"delta": 5, "reason": "delivery"});
    shop.send_to(1, "POST", "/v1/inventory/mug/adjustments").json(&body).await_answer().await.is(200);
    for path in &orders[..2] {
        shop.wait_until(path, "there are five now", |order| order["status"] == "confirmed").await;
    }
    let third = shop.get(&orders[2]).await_answer().await.is(200);
    assert_eq!(third.text("status"), "backordered");
    shop.owe("mug", 2, 0).await;
    shop.wait_until(&orders[2], "there are two more", |order| order["status"] == "confirmed").await;
    let stock = shop.get("/v1/inventory/mug").await_answer().await.is(200).body;
    assert_eq!((&stock["backordered"], &stock["available"], &stock["committed"]), (&json!(0), &json!(0), &json!(7)));
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_backorder_makes_room_for_those_behind_it() {
    let shop = Shop::start(1).await;
    shop.owe("mug", 1, 10).await;
    let first = shop.place_backorder("first", order("mug", 3), "backordered").await;
    let second = shop.place_backorder("second", order("mug", 1), "backordered").await;
    let cancelled = shop.send("POST", &format!("{first}/cancel")).await_answer().await.is(200);
    assert_eq!(cancelled.text("status"), "compensating");
    shop.wait_until(&first, "nothing is left to give back", |order| order["status"] == "cancelled").await;
    shop.wait_until(&second, "the one there is is free", |order| order["status"] == "confirmed").await;
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_of_several_skus_keeps_what_it_has_while_it_waits_for_the_rest() {
    let shop = Shop::start(3).await;
    shop.owe("cup", 2, 0).await;
    shop.owe("mug", 0, 5).await;
    let mut both = order("mug", 1);
    both["items"].as_array_mut().expect("items").push(json!({"sku": "cup", "quantity": 2, "unit_price": 500}));
    let path = shop.place_backorder("both", both, "backordered").await;
    let waiting = shop.get(&path).await_answer().await.is(200).body;
    assert_eq!(
        (&waiting["reservations"][0]["sku"], &waiting["reservations"][0]["status"]),
        (&json!("cup"), &json!("held"))
    );
    assert_eq!(waiting["reservations"][1]["status"], "backordered");
    assert_eq!(waiting["reservations"][1].get("expires_at"), None);
    shop.place_backorder("other", order("cup", 1), "rejected").await;
    shop.owe("mug", 1, 5).await;
    shop.wait_until(&path, "the mug has come in", |order| order["status"] == "confirmed").await;
    shop.stop().await;
}
