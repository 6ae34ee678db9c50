//! Customers: they order, insist, repeat themselves, change their minds, and send things back.

use super::{Workload, client::Client, skus};
use crate::chaos::history::Outcome;
use serde_json::{Value, json};
use std::time::Duration;

/// Between two orders of one customer: what bounds the number of orders that must be checked.
const ORDER_PAUSE: Duration = Duration::from_millis(150);
/// Between two looks at an order that has not ended.
const LOOK_PAUSE: Duration = Duration::from_millis(100);
/// Looks at an order before its customer loses interest.
const LOOKS_MAX: usize = 30;
/// Cards by how often they are used. The last two of the sandbox lose their first answers.
const CARDS: [&str; 10] = [
    "pm_card_ok",
    "pm_card_ok",
    "pm_card_ok",
    "pm_card_ok",
    "pm_card_ok",
    "pm_card_ok",
    "pm_card_declined",
    "pm_card_declined",
    "pm_card_timeout",
    "pm_card_flaky",
];
/// Units that a delivery of the scarce SKU brings.
const DELIVERY: i64 = 20;

/// Orders that are never confirmed, whatever there is on the shelves.
#[must_use]
pub fn is_cancelled_by_card(order: &Value) -> bool {
    order["payment_method"] == "pm_card_declined"
}

pub(super) async fn run(mut client: Client) {
    while client.pause(ORDER_PAUSE).await {
        let key = client.key("order");
        let order = draw_order(&mut client);
        let placed = client.post("/v1/orders".into(), key.clone(), &order).await;
        // As one does whose answer was lost; most likely on another node.
        if client.one_in(4) {
            client.post("/v1/orders".into(), key, &order).await;
        }
        if let Some((201, placed)) = placed
            && let Some(id) = placed["id"].as_str()
        {
            go_on(&mut client, id).await;
        }
        match client.workload() {
            Workload::HotSku if client.one_in(40) => deliver(&mut client).await,
            Workload::Checkout if client.one_in(8) => pay(&mut client).await,
            _ => {}
        }
    }
}

fn draw_order(client: &mut Client) -> Value {
    let all = skus(client.workload());
    let first = client.draw(all.len());
    let lines = if all.len() == 1 { 1 } else { 1 + client.draw(3) };
    let item = |line: usize| {
        let at = (first + line) % all.len();
        // One price per SKU, so that an order's total tells what is in it.
        json!({"sku": all[at], "quantity": 1 + (first + 2 * line) % 3, "unit_price": 1000 + 11 * at})
    };
    let items: Vec<Value> = (0..lines).map(item).collect();
    let customer = format!("customer-{}", client.draw(7));
    json!({"customer_id": customer, "currency": "USD", "payment_method": client.pick(&CARDS), "items": items})
}

/// What comes after an order was placed: mostly nothing.
async fn go_on(client: &mut Client, id: &str) {
    match client.draw(8) {
        0 => cancel(client, id).await,
        1 => send_and_take_back(client, id).await,
        2 => {
            client.get(format!("/v1/orders/{id}")).await;
        }
        _ => {}
    }
}

async fn cancel(client: &mut Client, id: &str) {
    let (key, path) = (client.key("cancel"), format!("/v1/orders/{id}/cancel"));
    client.post(path.clone(), key.clone(), &json!({"reason": "changed my mind"})).await;
    if client.one_in(2) {
        client.post(path, key, &json!({"reason": "changed my mind"})).await;
    }
}

/// Waits until the order is confirmed, says that all of it was sent, and that something came back.
async fn send_and_take_back(client: &mut Client, id: &str) {
    let Some(order) = confirmed(client, id).await else { return };
    let key = client.key("fulfill");
    let sent = client.post(format!("/v1/orders/{id}/fulfillments"), key, &json!({})).await;
    if !matches!(sent, Some((200, _))) || client.one_in(3) {
        return;
    }
    let (key, path) = (client.key("return"), format!("/v1/orders/{id}/returns"));
    let body = json!({"items": [{"sku": order["items"][0]["sku"], "quantity": 1}], "reason": "chipped"});
    client.post(path.clone(), key.clone(), &body).await;
    // A refund must not be made twice.
    if client.one_in(2) {
        client.post(path, key, &body).await;
    }
}

async fn confirmed(client: &mut Client, id: &str) -> Option<Value> {
    for _ in 0..LOOKS_MAX {
        if let Outcome::Answered { status: 200, body, .. } = client.get(format!("/v1/orders/{id}")).await {
            let order = body.value();
            match order["status"].as_str() {
                Some("confirmed") => return Some(order),
                Some("pending" | "reserved" | "authorized") => {}
                _ => return None,
            }
        }
        if !client.pause(LOOK_PAUSE).await {
            return None;
        }
    }
    None
}

/// More of the scarce SKU comes in. The reason names the delivery, so that a reader of the stock's
/// history sees whether it came once.
async fn deliver(client: &mut Client) {
    let key = client.key("delivery");
    let path = format!("/v1/inventory/{}/adjustments", skus(Workload::HotSku)[0]);
    client.post(path, key.clone(), &json!({"delta": DELIVERY, "reason": key})).await;
}

/// A payment of its own, and perhaps a part of it back.
async fn pay(client: &mut Client) {
    let (key, units) = (client.key("pay"), 100 + client.draw(900));
    let body =
        json!({"amount": {"amount": units, "currency": "USD"}, "payment_method": client.pick(&CARDS), "capture": true});
    let Some((201, payment)) = client.post("/v1/payments".into(), key.clone(), &body).await else { return };
    if client.one_in(3) {
        client.post("/v1/payments".into(), key, &body).await;
    }
    let Some(id) = payment["id"].as_str() else { return };
    if client.pause(LOOK_PAUSE).await && client.one_in(2) {
        let (key, path) = (client.key("refund"), format!("/v1/payments/{id}/refunds"));
        let body = json!({"amount": {"amount": 1 + client.draw(99), "currency": "USD"}});
        client.post(path.clone(), key.clone(), &body).await;
        // It must not be given back twice.
        if client.one_in(2) {
            client.post(path, key, &body).await;
        }
    }
}
