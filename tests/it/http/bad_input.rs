//! Bad requests: each is answered with the status, the code and the field that tell what is wrong.

use super::{Shop, order};
use serde_json::{Value, json};

type Refusal = (u16, String, String);

fn refusal(status: u16, code: &str, field: &str) -> Refusal {
    (status, code.into(), field.into())
}

/// Places the usual order after `change`.
async fn place(change: impl FnOnce(&mut Value)) -> Refusal {
    let shop = Shop::start(1).await;
    let mut body = order("mug", 1);
    change(&mut body);
    let refused = shop.send("POST", "/v1/orders").key("k1").json(&body).problem().await;
    shop.stop().await;
    refused
}

async fn place_text(text: &str) -> (Refusal, String) {
    let shop = Shop::start(1).await;
    let answer = shop.send("POST", "/v1/orders").key("k1").text(text).await_answer().await;
    let refused = shop.send("POST", "/v1/orders").key("k1").text(text).problem().await;
    shop.stop().await;
    (refused, answer.text("detail").to_owned())
}

fn wrong(field: &str) -> Refusal {
    refusal(422, "validation-failed", field)
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_json_is_400_with_line_and_column() {
    let (refused, detail) = place_text("{\n \"customer_id\": }").await;
    assert_eq!(refused, refusal(400, "malformed-json", ""));
    assert!(detail.starts_with("line 2, column "), "{detail}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_body_is_malformed() {
    assert_eq!(place_text("").await.0, refusal(400, "malformed-json", ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_no_object_is_refused() {
    assert_eq!(place_text("[1]").await.0, wrong("body"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_type_is_named_by_its_path() {
    assert_eq!(place(|body| body["items"][0]["sku"] = json!(7)).await, wrong("items[0].sku"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_field_is_named_by_its_path() {
    let change = |body: &mut Value| _ = body["items"][0].as_object_mut().expect("an item").remove("quantity");
    assert_eq!(place(change).await, wrong("items[0].quantity"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_field_is_named_by_its_path() {
    assert_eq!(place(|body| body["items"][0]["colour"] = json!("blue")).await, wrong("items[0].colour"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_total_from_the_client_is_unknown() {
    assert_eq!(place(|body| body["total"] = json!(1)).await, wrong("total"));
}

#[tokio::test(flavor = "multi_thread")]
async fn negative_money_is_refused() {
    assert_eq!(place(|body| body["items"][0]["unit_price"] = json!(-1)).await, wrong("items[0].unit_price"));
}

#[tokio::test(flavor = "multi_thread")]
async fn money_as_a_float_is_refused() {
    assert_eq!(place(|body| body["items"][0]["unit_price"] = json!(19.99)).await, wrong("items[0].unit_price"));
}

#[tokio::test(flavor = "multi_thread")]
async fn money_beyond_its_range_is_refused() {
    for too_much in [json!(i64::MAX), json!(u64::MAX), json!(1e30)] {
        let refused = place(|body| body["items"][0]["unit_price"] = too_much.clone()).await;
        assert_eq!(refused, wrong("items[0].unit_price"), "{too_much}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_total_that_overflows_is_refused() {
    let change = |body: &mut Value| {
        body["items"][0]["quantity"] = json!(1_000_000);
        body["items"][0]["unit_price"] = json!(999_999_999_999_999_u64);
    };
    assert_eq!(place(change).await, wrong("items"));
}

#[tokio::test(flavor = "multi_thread")]
async fn quantity_zero_or_less_is_refused() {
    for quantity in [0, -1] {
        let refused = place(|body| body["items"][0]["quantity"] = json!(quantity)).await;
        assert_eq!(refused, wrong("items[0].quantity"), "{quantity}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_without_items_is_refused() {
    assert_eq!(place(|body| body["items"] = json!([])).await, wrong("items"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_currency_is_refused() {
    for currency in ["XXQ", "usd", ""] {
        assert_eq!(place(|body| body["currency"] = json!(currency)).await, wrong("currency"), "{currency:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wrong_field_is_listed_at_once() {
    let shop = Shop::start(1).await;
    let mut body = order("mug", 0);
    body["currency"] = json!("???");
    let answer = shop.send("POST", "/v1/orders").key("k1").json(&body).await_answer().await.is(422);
    let fields: Vec<_> = answer.body["errors"].as_array().expect("errors").iter().map(|e| e["field"].clone()).collect();
    assert!(fields.contains(&json!("currency")) && fields.contains(&json!("items[0].quantity")), "{fields:?}");
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_a_mebibyte_is_413() {
    let shop = Shop::start(1).await;
    let text = format!("{{\"customer_id\":\"{}\"}}", "x".repeat(1 << 20));
    let refused = shop.send("POST", "/v1/orders").key("k1").text(&text).problem().await;
    assert_eq!(refused, refusal(413, "payload-too-large", ""));
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_content_type_is_415() {
    let shop = Shop::start(1).await;
    let body = order("mug", 1).to_string();
    let send = || shop.send("POST", "/v1/orders").key("k1").raw(&body);
    assert_eq!(send().header("content-type", "text/plain").problem().await, refusal(415, "unsupported-media-type", ""));
    assert_eq!(send().problem().await, refusal(415, "unsupported-media-type", ""));
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_route_is_404() {
    let shop = Shop::start(1).await;
    for path in ["/v1/order", "/v1/orders/ord_1/", "/", "/v2/orders"] {
        assert_eq!(shop.get(path).problem().await, refusal(404, "route-not-found", ""), "{path}");
    }
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_method_is_405_with_the_right_ones() {
    let shop = Shop::start(1).await;
    assert_eq!(shop.send("DELETE", "/v1/orders/ord_1").problem().await, refusal(405, "method-not-allowed", ""));
    let answer = shop.send("PATCH", "/v1/inventory/mug").await_answer().await.is(405);
    let mut allowed: Vec<_> = answer.header("allow").split(',').map(str::trim).collect();
    allowed.sort_unstable();
    assert_eq!(allowed, ["GET", "HEAD", "PUT"]);
    assert_eq!(shop.get("/v1/reservations").problem().await, refusal(405, "method-not-allowed", ""));
    assert_eq!(shop.get("/v1/reservations").await_answer().await.header("allow"), "POST");
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_can_name_nothing_is_404() {
    let shop = Shop::start(1).await;
    let long = format!("/v1/orders/{}", "x".repeat(300));
    for path in ["/v1/orders/a%20b", "/v1/orders/%C3%A9", "/v1/orders/a%2Fb", "/v1/payments/%00", &long] {
        assert_eq!(shop.get(path).problem().await, refusal(404, "not-found", ""), "{path}");
    }
    // Not even text.
    assert_eq!(shop.get("/v1/orders/%FF").problem().await, refusal(400, "bad-request", ""));
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sku_that_cannot_be_a_name_is_422() {
    let shop = Shop::start(1).await;
    for sku in ["a%20b", "%C3%A9", &"x".repeat(65)] {
        let put = shop.send("PUT", &format!("/v1/inventory/{sku}")).json(&json!({"on_hand": 1}));
        assert_eq!(put.problem().await, wrong("sku"), "{sku}");
    }
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_below_zero_or_without_end_is_refused() {
    let shop = Shop::start(1).await;
    for on_hand in [json!(-1), json!(1e18), json!(1.5), json!("7"), json!(null)] {
        let put = shop.send("PUT", "/v1/inventory/mug").json(&json!({"on_hand": on_hand}));
        assert_eq!(put.problem().await, wrong("on_hand"), "{on_hand}");
    }
    let adjust = shop.send("POST", "/v1/inventory/mug/adjustments").json(&json!({"delta": 0, "reason": "none"}));
    assert_eq!(adjust.problem().await, wrong("delta"));
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_parameter_is_400_on_every_route_of_the_shop() {
    let shop = Shop::start(1).await;
    for path in ["/v1/orders/ord_1", "/v1/orders/ord_1/events", "/v1/payments/pay_1", "/v1/inventory/mug"] {
        let refused = shop.get(&format!("{path}?consistensy=local")).problem().await;
        assert_eq!(refused, refusal(400, "invalid-parameter", "consistensy"), "{path}");
    }
    let place = shop.send("POST", "/v1/orders?dry_run=true").key("k1").json(&order("mug", 1));
    assert_eq!(place.problem().await, refusal(400, "invalid-parameter", "dry_run"));
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_value_of_a_parameter_is_400_and_named() {
    let shop = Shop::start(1).await;
    let refused = shop.get("/v1/orders/ord_1?consistency=eventual").problem().await;
    assert_eq!(refused, refusal(400, "invalid-parameter", "consistency"));
    for limit in ["0", "101", "-1", "ten", ""] {
        let refused = shop.get(&format!("/v1/orders/ord_1/events?limit={limit}")).problem().await;
        assert_eq!(refused, refusal(400, "invalid-parameter", "limit"), "{limit:?}");
    }
    for path in ["/v1/reservations/res_1?consistency=eventual", "/v1/inventory/mug/adjustments?consistency=eventual"] {
        assert_eq!(shop.get(path).problem().await, refusal(400, "invalid-parameter", "consistency"), "{path}");
    }
    let refused = shop.get("/v1/orders/ord_1/events?starting_after=evt_other_1").problem().await;
    assert_eq!(refused, refusal(400, "invalid-parameter", "starting_after"));
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reason_without_text_is_refused() {
    let shop = Shop::start(1).await;
    let cancel = shop.send("POST", "/v1/orders/ord_1/cancel").json(&json!({"reason": ""}));
    assert_eq!(cancel.problem().await, wrong("reason"));
    let cancel = shop.send("POST", "/v1/orders/ord_1/cancel").json(&json!({"why": "x"}));
    assert_eq!(cancel.problem().await, wrong("why"));
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_nonsense_is_the_servers_fault() {
    let shop = Shop::start(1).await;
    let deep = "[".repeat(50_000);
    let nonsense = ["\u{0}", "{\"a\":", "\"\\ud800\"", "1e999999", "{}", "null", "{\"items\":{}}", &deep, "\u{feff}{}"];
    for body in nonsense {
        for (method, path) in [
            ("POST", "/v1/orders"),
            ("PUT", "/v1/inventory/m"),
            ("POST", "/v1/inventory/m/adjustments"),
            ("POST", "/v1/orders/ord_1/fulfillments"),
            ("POST", "/v1/orders/ord_1/returns"),
            ("POST", "/v1/payments"),
            ("POST", "/v1/payments/pay_1/refunds"),
            ("POST", "/v1/reservations"),
            ("POST", "/v1/reservations/res_1/extend"),
        ] {
            let (status, ..) = shop.send(method, path).key("k").text(body).problem().await;
            assert!((400..500).contains(&status), "{method} {path} {body:.20}: {status}");
        }
    }
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reservation_names_every_wrong_field() {
    let shop = Shop::start(1).await;
    let make = |body: Value| shop.send("POST", "/v1/reservations").json(&body).problem();
    let item = json!({"sku": "mug", "quantity": 1});
    assert_eq!(make(json!({"items": [item], "ttl": "forever"})).await, wrong("ttl"));
    assert_eq!(make(json!({"items": [item], "ttl": 900})).await, wrong("ttl"));
    assert_eq!(make(json!({"items": [item], "ttl": "25h"})).await, wrong("ttl"));
    assert_eq!(make(json!({"items": [item]})).await, wrong("ttl"));
    assert_eq!(make(json!({"items": [], "ttl": "15m"})).await, wrong("items"));
    assert_eq!(make(json!({"items": [{"sku": "mug", "quantity": 0}], "ttl": "15m"})).await, wrong("items[0].quantity"));
    assert_eq!(make(json!({"items": [{"sku": "a b", "quantity": 1}], "ttl": "15m"})).await, wrong("items[0].sku"));
    assert_eq!(make(json!({"items": [item], "ttl": "15m", "until": 1})).await, wrong("until"));
    let commit = shop.send("POST", "/v1/reservations/res_1/commit").json(&json!({"quantity": 1}));
    assert_eq!(commit.problem().await, wrong("quantity"));
    assert_eq!(shop.send("DELETE", "/v1/reservations/res_1").problem().await.0, 405);
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_is_not_sent_here_by_another_site() {
    let shop = Shop::start(1).await;
    let leave = || shop.send("POST", "/admin/v1/members/node-1/leave").header("host", "127.0.0.1:8080");
    let (status, code, _) = leave().header("sec-fetch-site", "cross-site").problem().await;
    assert_eq!((status, code.as_str()), (403, "cross-site"));
    let (status, code, _) = leave().header("origin", "https://evil.example").problem().await;
    assert_eq!((status, code.as_str()), (403, "cross-site"));
    let (status, code, _) = leave().header("origin", "http://127.0.0.1:8080").problem().await;
    assert_eq!((status, code.as_str()), (409, "conflict"), "from the console, it is looked at");
    shop.get("/livez").header("sec-fetch-site", "cross-site").await_answer().await.is(200);
    shop.stop().await;
}
