//! `/v1/payments`: payments of their own, through any node.

use super::{Answer, PATIENCE, Shop, order};
use futures::future::join_all;
use quorate::{
    cluster::Consistency,
    commerce::{
        CreatePayment, Payment,
        payment::{Amount, Command, Status},
    },
};
use serde_json::{Value, json};
use std::time::Instant;

fn usd(amount: i64) -> Value {
    json!({"amount": amount, "currency": "USD"})
}

fn payment(amount: i64) -> Value {
    json!({"amount": usd(amount), "payment_method": "pm_card_ok"})
}

fn at_once(amount: i64) -> Value {
    json!({"amount": usd(amount), "payment_method": "pm_card_ok", "capture": true})
}

impl Shop {
    /// Creates a payment and waits for the gateway.
    async fn pay(&self, key: &str, body: &Value) -> Answer {
        let create = self.send("POST", "/v1/payments").key(key).header("prefer", "wait=15").json(body);
        create.await_answer().await.is(201)
    }

    /// Capture, void or refund, and waits for the gateway.
    async fn act(&self, payment: &str, action: &str, body: &Value) -> Answer {
        let path = format!("/v1/payments/{payment}/{action}");
        self.send("POST", &path).header("prefer", "wait=15").json(body).await_answer().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_created_on_one_node_is_read_and_captured_on_the_others() {
    let shop = Shop::start(3).await;
    let body = json!({"amount": usd(1999), "payment_method": "pm_card_ok", "metadata": {"cart": "7"}});
    let created = shop.send_to(1, "POST", "/v1/payments").key("k1").json(&body).await_answer().await.is(201);
    let id = created.text("id").to_owned();
    assert!(id.starts_with("pay_"), "{id}");
    assert_eq!(created.header("location"), format!("/v1/payments/{id}"));
    assert_eq!(created.header("etag"), format!("\"{}\"", created.body["version"]));
    assert_eq!((created.text("status"), created.text("in_progress")), ("authorizing", "authorize"));
    assert_eq!(created.body["metadata"], json!({"cart": "7"}));
    assert!(created.body.get("order_id").is_none(), "{}", created.text);
    let path = format!("/v1/payments/{id}");
    let authorized = shop.wait_until(&path, "it is authorized", |payment| payment["status"] == "authorized").await;
    assert!(authorized["expires_at"].as_str().is_some_and(|at| at.ends_with('Z')), "{authorized}");
    let capture = shop.send_to(2, "POST", &format!("{path}/capture")).header("prefer", "wait=15");
    let captured = capture.await_answer().await.is(200);
    assert_eq!((captured.text("status"), &captured.body["captured"]), ("captured", &usd(1999)));
    assert_eq!(captured.header("preference-applied"), "wait=15");
    for node in 0..3 {
        let read = shop.send_to(node, "GET", &path).await_answer().await.is(200);
        assert_eq!(read.body, captured.body, "on node {node}");
    }
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_is_captured_and_refunded_in_parts() {
    let shop = Shop::start(1).await;
    let id = shop.pay("k1", &payment(1000)).await.text("id").to_owned();
    let captured = shop.act(&id, "capture", &json!({"amount": usd(700)})).await.is(200);
    assert_eq!((captured.text("status"), &captured.body["captured"]), ("captured", &usd(700)));
    for (amount, refunded) in [(json!({"amount": usd(300)}), 300), (json!({"amount": usd(150)}), 450), (json!({}), 700)]
    {
        let after = shop.act(&id, "refunds", &amount).await.is(200);
        assert_eq!((after.text("status"), &after.body["refunded"]), ("captured", &usd(refunded)));
    }
    let read = shop.get(&format!("/v1/payments/{id}")).await_answer().await.is(200);
    let refunds = read.body["refunds"].as_array().expect("refunds");
    let shown: Vec<_> = refunds.iter().map(|refund| (&refund["amount"]["amount"], &refund["status"])).collect();
    let done = json!("succeeded");
    assert_eq!(shown, [(&json!(300), &done), (&json!(150), &done), (&json!(250), &done)]);
    let refused = shop.act(&id, "refunds", &json!({"amount": usd(1)})).await.is(409);
    assert_eq!((refused.text("code"), refused.text("reason")), ("conflict", "exceeds-captured"));
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_is_captured_at_once_if_that_is_asked_for() {
    let shop = Shop::start(1).await;
    let paid = shop.pay("k1", &at_once(500)).await;
    assert_eq!((paid.text("status"), &paid.body["captured"]), ("captured", &usd(500)), "{}", paid.text);
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_is_voided_before_its_capture_only() {
    let shop = Shop::start(1).await;
    let id = shop.pay("k1", &payment(500)).await.text("id").to_owned();
    assert_eq!(shop.act(&id, "void", &json!({})).await.is(200).text("status"), "voided");
    let paid = shop.pay("k2", &at_once(500)).await.text("id").to_owned();
    let refused = shop.act(&paid, "void", &json!({})).await.is(409);
    assert_eq!((refused.text("code"), refused.text("state")), ("illegal-transition", "captured"));
    assert_eq!(refused.body["allowed"], json!(["unknown"]));
    let refused = shop.act(&id, "capture", &json!({})).await.is(409);
    assert_eq!((refused.text("state"), &refused.body["allowed"]), ("voided", &json!([])));
    let refused = shop.act(&id, "refunds", &json!({})).await.is(409);
    assert_eq!((refused.text("code"), refused.text("state")), ("illegal-transition", "voided"));
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_card_of_the_sandbox_behaves_as_it_is_named() {
    let shop = Shop::start(1).await;
    for (card, status) in [
        ("pm_card_ok", "captured"),
        ("pm_card_declined", "declined"),
        ("pm_card_timeout", "captured"),
        ("pm_card_slow", "captured"),
        ("pm_card_flaky", "captured"),
        ("pm_nobody", "declined"),
    ] {
        let mut body = at_once(500);
        body["payment_method"] = card.into();
        let paid = shop.pay(card, &body).await;
        assert_eq!(paid.text("status"), status, "{card}: {}", paid.text);
        let taken = if status == "captured" { 500 } else { 0 };
        assert_eq!(paid.body["captured"], usd(taken), "{card}");
    }
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_than_the_authorized_is_captured_and_in_its_currency_only() {
    let shop = Shop::start(1).await;
    let id = shop.pay("k1", &payment(500)).await.text("id").to_owned();
    let refused = shop.act(&id, "capture", &json!({"amount": usd(501)})).await.is(409);
    assert_eq!((refused.text("code"), refused.text("reason")), ("conflict", "exceeds-authorized"));
    let euros = json!({"amount": {"amount": 1, "currency": "EUR"}});
    let refused = shop.act(&id, "capture", &euros).await.is(422);
    assert_eq!(refused.body["errors"][0]["field"], "amount.currency");
    assert_eq!(shop.act(&id, "capture", &json!({"amount": usd(500)})).await.is(200).text("status"), "captured");
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn amounts_are_whole_minor_units_whatever_the_currency() {
    let shop = Shop::start(1).await;
    for (amount, currency) in [(500, "JPY"), (1, "KWD"), (999_999_999_999_999_i64, "CLF")] {
        let money = json!({"amount": amount, "currency": currency});
        let body = json!({"amount": money, "payment_method": "pm_card_ok", "capture": true});
        assert_eq!(shop.pay(currency, &body).await.body["captured"], money);
    }
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_refunds_through_all_nodes_never_exceed_the_capture() {
    let shop = Shop::start(3).await;
    let id = shop.pay("k1", &at_once(1000)).await.text("id").to_owned();
    let path = format!("/v1/payments/{id}/refunds");
    let body = json!({"amount": usd(300)});
    let refund = |n: usize| shop.send_to(n % 3, "POST", &path).key(&format!("r{n}")).json(&body).await_answer();
    let answers = join_all((0..9).map(refund)).await;
    let made = answers.iter().filter(|answer| answer.status == 200).count();
    assert!(answers.iter().all(|answer| answer.status == 200 || answer.text("reason") == "exceeds-captured"));
    assert_eq!(made, 3, "three of 300 fit into 1000");
    let settled = |payment: &Value| payment["refunded"] == usd(900);
    shop.wait_until(&format!("/v1/payments/{id}"), "all three are made", settled).await;
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_is_the_same_change_on_any_node() {
    let shop = Shop::start(3).await;
    let body = at_once(1000);
    let create = |node: usize| shop.send_to(node, "POST", "/v1/payments").key("k1").json(&body).await_answer();
    let first = create(0).await.is(201);
    let path = format!("/v1/payments/{}", first.text("id"));
    shop.wait_until(&path, "it is captured", |payment| payment["status"] == "captured").await;
    for node in 0..3 {
        let again = create(node).await.is(201);
        assert_eq!((again.header("idempotent-replayed"), &again.text), ("true", &first.text), "on node {node}");
        assert_eq!(again.header("location"), path);
    }
    let other = shop.send("POST", "/v1/payments").key("k1").json(&at_once(1001)).problem().await;
    assert_eq!(other, (422, "idempotency-key-reused".into(), String::new()));

    let part = json!({"amount": usd(400)});
    let refund =
        |node: usize| shop.send_to(node, "POST", &format!("{path}/refunds")).key("r1").json(&part).await_answer();
    let answers = join_all((0..6).map(|n| refund(n % 3))).await;
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.text == answers[0].text));
    let read = shop.wait_until(&path, "it is refunded", |payment| payment["refunded"] == usd(400)).await;
    assert_eq!(read["refunds"].as_array().map(Vec::len), Some(1));
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_a_payment_at_another_version_is_refused() {
    let shop = Shop::start(1).await;
    let created = shop.pay("k1", &payment(500)).await;
    let capture = format!("/v1/payments/{}/capture", created.text("id"));
    let stale = shop.send("POST", &capture).header("if-match", "\"1\"").await_answer().await.is(412);
    assert_eq!((stale.text("code"), &stale.body["version"]), ("version-mismatch", &created.body["version"]));
    shop.send("POST", &capture).header("if-match", created.header("etag")).await_answer().await.is(200);
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_payment_of_an_order_is_its_orders_to_change() {
    let shop = Shop::start(1).await;
    shop.stock("mug", 1).await;
    let place = shop.send("POST", "/v1/orders").key("k1").header("prefer", "wait=15").json(&order("mug", 1));
    let placed = place.await_answer().await.is(201);
    let id = placed.text("payment_id");
    for action in ["capture", "void", "refunds"] {
        let refused = shop.act(id, action, &json!({})).await.is(409);
        assert_eq!(refused.text("code"), "payment-belongs-to-order", "{action}");
        assert_eq!(refused.text("order_id"), placed.text("id"), "{action}");
    }
    let read = shop.get(&format!("/v1/payments/{id}")).await_answer().await.is(200);
    assert_eq!((read.text("order_id"), read.text("status")), (placed.text("id"), "captured"));
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authorization_that_is_not_captured_in_time_is_let_go() {
    let shop = Shop::start(3).await;
    let body = CreatePayment {
        amount: Amount { amount: 500, currency: "USD".into() },
        payment_method: "pm_card_ok".into(),
        capture: false,
        metadata: Default::default(),
    };
    // As the route does it, with a validity that a test can wait for.
    let create = Command::Ask(body.validate(500).expect("valid"));
    let payment = shop.cluster.entity::<Payment>("pay_short");
    payment.ask(create).await.expect("created");
    let began = Instant::now();
    let mut seen = payment.state(Consistency::Linearizable).await.expect("there");
    while seen.state.status != Status::AuthorizationExpired {
        assert!(began.elapsed() < PATIENCE, "its timer fires: {:?}", seen.state);
        seen = payment.changed(seen.version, PATIENCE).await.expect("there");
    }
    let refused = shop.act("pay_short", "capture", &json!({})).await.is(409);
    assert_eq!(refused.text("state"), "authorization_expired");
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_needs_a_key_and_sound_fields() {
    let shop = Shop::start(1).await;
    let missing = shop.send("POST", "/v1/payments").json(&payment(5)).problem().await;
    assert_eq!(missing, (400, "idempotency-key-missing".into(), String::new()));
    let wrong = |field: &str| (422, "validation-failed".to_owned(), field.to_owned());
    for (change, field) in [
        (json!({"amount": {"amount": 0, "currency": "USD"}}), "amount.amount"),
        (json!({"amount": {"amount": -1, "currency": "USD"}}), "amount.amount"),
        (json!({"amount": {"amount": 19.99, "currency": "USD"}}), "amount.amount"),
        (json!({"amount": {"amount": "5", "currency": "USD"}}), "amount.amount"),
        (json!({"amount": {"amount": 1_000_000_000_000_000_u64, "currency": "USD"}}), "amount.amount"),
        (json!({"amount": {"amount": 5, "currency": "usd"}}), "amount.currency"),
        (json!({"amount": {"amount": 5, "currency": "USD", "cents": 1}}), "amount.cents"),
        (json!({"amount": 5}), "amount"),
        (json!({"payment_method": ""}), "payment_method"),
        (json!({"capture": "yes"}), "capture"),
        (json!({"captured": true}), "captured"),
        (json!({"metadata": {"a": 1}}), "metadata.a"),
        (json!({"metadata": {"": "x"}}), "metadata."),
    ] {
        let mut body = payment(5);
        for (name, value) in change.as_object().expect("members") {
            body[name] = value.clone();
        }
        let refused = shop.send("POST", "/v1/payments").key("k1").json(&body).problem().await;
        assert_eq!(refused, wrong(field), "{body}");
    }
    let id = shop.pay("k2", &payment(5)).await.text("id").to_owned();
    for action in ["capture", "refunds"] {
        let send = |body: &Value| shop.send("POST", &format!("/v1/payments/{id}/{action}")).json(body).problem();
        assert_eq!(send(&json!({"amount": usd(0)})).await, wrong("amount.amount"), "{action}");
        assert_eq!(send(&json!({"amount": 5})).await, wrong("amount"), "{action}");
        assert_eq!(send(&json!({"amounts": usd(5)})).await, wrong("amounts"), "{action}");
    }
    let void = shop.send("POST", &format!("/v1/payments/{id}/void")).json(&json!({"amount": usd(5)})).problem().await;
    assert_eq!(void, wrong("amount"));
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_cannot_be_changed_and_what_is_unknown_is_refused() {
    let shop = Shop::start(1).await;
    for action in ["capture", "void", "refunds"] {
        let path = format!("/v1/payments/pay_none/{action}");
        let missing = shop.send("POST", &path).problem().await;
        assert_eq!(missing, (404, "not-found".into(), String::new()), "{action}");
        let unknown = shop.send("POST", &format!("{path}?dry_run=true")).problem().await;
        assert_eq!(unknown, (400, "invalid-parameter".into(), "dry_run".into()), "{action}");
        let method = shop.get(&path).await_answer().await.is(405);
        assert_eq!(method.header("allow"), "POST", "{action}");
    }
    let unknown = shop.send("POST", "/v1/payments?dry_run=true").key("k1").json(&payment(5)).problem().await;
    assert_eq!(unknown, (400, "invalid-parameter".into(), "dry_run".into()));
    shop.stop().await;
}
