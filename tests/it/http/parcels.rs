//! `/v1/orders/{id}/fulfillments` and `/returns`.

use super::{Answer, Shop, order};
use serde_json::{Value, json};

/// A confirmed order over 3 mugs and 1 cup, of which there are ten each.
async fn confirmed(shop: &Shop) -> Answer {
    shop.stock("mug", 10).await;
    shop.stock("cup", 10).await;
    let mut body = order("mug", 3);
    body["items"].as_array_mut().expect("items").push(json!({"sku": "cup", "quantity": 1, "unit_price": 500}));
    let place = shop.send("POST", "/v1/orders").key("k1").header("prefer", "wait=15").json(&body);
    let placed = place.await_answer().await.is(201);
    assert_eq!(placed.text("status"), "confirmed", "{}", placed.text);
    placed
}

fn parcel(sku: &str, quantity: i64) -> Value {
    json!({"items": [{"sku": sku, "quantity": quantity}]})
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_sent_in_parts_and_returned_in_parts_through_any_node() {
    let shop = Shop::start(3).await;
    let placed = confirmed(&shop).await;
    let path = format!("/v1/orders/{}", placed.text("id"));
    let (fulfillments, returns) = (format!("{path}/fulfillments"), format!("{path}/returns"));
    assert_eq!((&placed.body["fulfillments"], &placed.body["returns"]), (&json!([]), &json!([])));

    let body = json!({"items": [{"sku": "mug", "quantity": 2}], "tracking": "1Z999"});
    let sent = shop.send_to(1, "POST", &fulfillments).key("f1").json(&body).await_answer().await.is(200);
    assert_eq!((sent.text("status"), sent.text("fulfillment_status")), ("partially_fulfilled", "partially_fulfilled"));
    assert_eq!(sent.text("payment_status"), "captured");
    let parcel_of = &sent.body["fulfillments"][0];
    assert_eq!((&parcel_of["items"], &parcel_of["tracking"]), (&body["items"], &json!("1Z999")));
    assert!(parcel_of["id"].as_str().is_some_and(|id| id.starts_with("ful_")), "{parcel_of}");
    let sent = shop.send_to(2, "POST", &fulfillments).key("f2").await_answer().await.is(200);
    assert_eq!(sent.text("status"), "fulfilled", "without a body: all that is left");
    let rest = json!([{"sku": "cup", "quantity": 1}, {"sku": "mug", "quantity": 1}]);
    assert_eq!(sent.body["fulfillments"][1]["items"], rest);

    let body = json!({"items": [{"sku": "mug", "quantity": 1}], "reason": "chipped"});
    let back = shop.send("POST", &returns).key("r1").header("prefer", "wait=15").json(&body).await_answer();
    let back = back.await.is(200);
    assert_eq!((back.text("status"), back.text("payment_status")), ("partially_returned", "partially_refunded"));
    assert_eq!(back.header("preference-applied"), "wait=15");
    let returned = &back.body["returns"][0];
    assert_eq!(returned["refund"], json!({"amount": 1999, "currency": "USD"}));
    assert_eq!(returned["refund_status"], "succeeded");
    let back = shop.send_to(1, "POST", &returns).key("r2").header("prefer", "wait=15").await_answer().await.is(200);
    assert_eq!((back.text("status"), back.text("payment_status")), ("returned", "refunded"));

    let payment = shop.get(&format!("/v1/payments/{}", placed.text("payment_id"))).await_answer().await.is(200);
    assert_eq!(payment.body["refunded"], payment.body["captured"]);
    let refunds: Vec<_> = payment.body["refunds"].as_array().expect("refunds").iter().collect();
    assert_eq!(
        refunds.iter().map(|refund| &refund["amount"]["amount"]).collect::<Vec<_>>(),
        [&json!(1999), &json!(4498)]
    );
    let settled = |order: &Value| order["returns"].as_array().is_some_and(|r| r.iter().all(|r| r["restocked"] == true));
    shop.wait_until(&path, "every return is restocked", settled).await;
    for (sku, sold) in [("mug", 3), ("cup", 1)] {
        let stock = shop.get(&format!("/v1/inventory/{sku}")).await_answer().await.is(200);
        let figures = ["on_hand", "committed", "returned"].map(|figure| stock.body[figure].as_u64());
        assert_eq!(figures, [Some(10), Some(sold), Some(sold)], "{sku}");
    }
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_order_is_not_ready_for_is_409_and_names_its_state() {
    let shop = Shop::start(1).await;
    let placed = confirmed(&shop).await;
    let path = format!("/v1/orders/{}", placed.text("id"));
    let post = |action: &str| shop.send("POST", &format!("{path}/{action}")).await_answer();
    let early = post("returns").await.is(409);
    assert_eq!((early.text("code"), early.text("state")), ("illegal-transition", "confirmed"));
    assert_eq!(early.body["allowed"], json!(["partially_fulfilled", "fulfilled", "compensating"]));
    post("fulfillments").await.is(200);
    for late in ["fulfillments", "cancel"] {
        let refused = post(late).await.is(409);
        assert_eq!((refused.text("code"), refused.text("state")), ("illegal-transition", "fulfilled"), "{late}");
        assert_eq!(refused.body["allowed"], json!(["partially_returned", "returned"]));
    }
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_is_left_is_409_and_what_was_never_ordered_422() {
    let shop = Shop::start(1).await;
    let path = format!("/v1/orders/{}/fulfillments", confirmed(&shop).await.text("id"));
    let send = |body: Value| shop.send("POST", &path).json(&body).await_answer();
    let refused = send(parcel("mug", 4)).await.is(409);
    assert_eq!((refused.text("code"), refused.text("reason")), ("conflict", "more-than-left"));
    assert_eq!((refused.text("sku"), &refused.body["left"]), ("mug", &json!(3)));
    assert_eq!(send(parcel("bowl", 1)).await.is(422).body["errors"][0]["field"], "items");
    assert_eq!(send(parcel("mug", 0)).await.is(422).body["errors"][0]["field"], "items[0].quantity");
    assert_eq!(send(json!({"items": []})).await.is(422).body["errors"][0]["field"], "items");
    assert_eq!(send(json!({"item": []})).await.is(422).body["errors"][0]["field"], "item");
    assert_eq!(send(json!({"tracking": ""})).await.is(422).body["errors"][0]["field"], "tracking");
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parcel_is_sent_and_returned_once_per_key_and_only_at_the_version_asked_for() {
    let shop = Shop::start(3).await;
    let placed = confirmed(&shop).await;
    let path = format!("/v1/orders/{}", placed.text("id"));
    let (fulfillments, returns) = (format!("{path}/fulfillments"), format!("{path}/returns"));
    let body = parcel("mug", 1);
    let stale = shop.send("POST", &fulfillments).header("if-match", "\"1\"").json(&body).await_answer().await.is(412);
    assert_eq!((stale.text("code"), &stale.body["version"]), ("version-mismatch", &placed.body["version"]));
    let first = shop.send("POST", &fulfillments).key("f1").header("if-match", placed.header("etag")).json(&body);
    let first = first.await_answer().await.is(200);
    let again = shop.send_to(1, "POST", &fulfillments).key("f1").json(&body).await_answer().await.is(200);
    assert_eq!((again.header("idempotent-replayed"), &again.text), ("true", &first.text));
    let other = shop.send_to(2, "POST", &fulfillments).key("f1").json(&parcel("mug", 2)).problem().await;
    assert_eq!((other.0, other.1.as_str()), (422, "idempotency-key-reused"));
    // The key of a fulfillment is not one for a return, either.
    assert_eq!(shop.send("POST", &returns).key("f1").json(&body).problem().await.1, "idempotency-key-reused");

    shop.send("POST", &fulfillments).key("f2").await_answer().await.is(200);
    let duplicates = (0..6).map(|n| shop.send_to(n % 3, "POST", &returns).key("r1").json(&body).await_answer());
    let answers = futures::future::join_all(duplicates).await;
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.text == answers[0].text));
    let refunded = |order: &Value| order["payment_status"] == "partially_refunded";
    let order = shop.wait_until(&path, "the refund is made", refunded).await;
    assert_eq!(order["returns"].as_array().map(Vec::len), Some(1));
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parcels_of_an_order_that_does_not_exist_are_404() {
    let shop = Shop::start(1).await;
    for action in ["fulfillments", "returns"] {
        let refused = shop.send("POST", &format!("/v1/orders/ord_none/{action}")).problem().await;
        assert_eq!(refused, (404, "not-found".to_owned(), String::new()));
        let wrong = shop.get(&format!("/v1/orders/ord_none/{action}")).await_answer().await.is(405);
        assert_eq!(wrong.header("allow"), "POST");
    }
    shop.stop().await;
}
