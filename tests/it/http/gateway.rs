//! Payments and orders over a card gateway that speaks HTTP, loses answers, repeats, delays and
//! fails. However it goes: every payment ends, and the gateway's own books say the same to the
//! unit.

use super::{
    Answer, Shop,
    https::Https,
    order, paid_with,
    till::{API_KEY, Fault, Intent, Till, assert_agrees},
};
use futures::future::join_all;
use quorate::{
    Cluster,
    commerce::gateway::{GatewayRequest, GatewayResponse, Operation},
    config::Secret,
    gateway::{Error, HttpGateway, Kind, Options, PaymentGateway as _},
    ingress,
    outbound::{self, Trust},
    transport::memory::Network,
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Eight attempts and a query or two: longer than any one payment may take.
const PATIENCE: Duration = Duration::from_secs(60);
const REQUEST_TIMEOUT: Duration = Duration::from_millis(300);

fn options(till: &Till) -> Options {
    Options {
        kind: Kind::Http,
        base_url: Some(till.url.clone()),
        api_key: Some(Secret::new(API_KEY)),
        connect_timeout: REQUEST_TIMEOUT,
        request_timeout: REQUEST_TIMEOUT,
        ..Options::default()
    }
}

/// As a node that is configured so makes it.
async fn shop_at(till: &Till, nodes: usize) -> Shop {
    let builder =
        ingress::shop::register_configured(Cluster::in_memory(nodes), &options(till), &outbound::Options::default());
    Shop::start_on(builder.expect("valid options"), nodes).await
}

/// Sends until it is known what came of it; a key makes that safe.
async fn surely(shop: &Shop, node: usize, path: &str, key: &str, body: &Value) -> Answer {
    let began = Instant::now();
    loop {
        let sent = shop.send_to(node, "POST", path).key(key).json(body).await_answer().await;
        if ![429, 503, 504].contains(&sent.status.as_u16()) {
            return sent;
        }
        assert!(began.elapsed() < PATIENCE, "{path} is answered: {}", sent.text);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Reads until the gateway owes no answer.
async fn settled(shop: &Shop, id: &str, why: &str) -> Value {
    let began = Instant::now();
    loop {
        let read = shop.get(&format!("/v1/payments/{id}")).await_answer().await;
        let refunds = read.body["refunds"].as_array().cloned().unwrap_or_default();
        let pending = |refund: &Value| ["pending", "unknown"].contains(&refund["status"].as_str().unwrap_or_default());
        if read.status == 200 && read.body.get("in_progress").is_none() && !refunds.iter().any(pending) {
            return read.body;
        }
        assert!(began.elapsed() < PATIENCE, "{why}: {}", read.text);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn usd(amount: i64) -> Value {
    json!({"amount": amount, "currency": "USD"})
}

fn payment(amount: i64, method: &str, capture: bool) -> Value {
    json!({"amount": usd(amount), "payment_method": method, "capture": capture})
}

/// The gateway's account of one payment, which must be one intent at most.
fn account(till: &Till, payment_id: &str) -> Option<Intent> {
    let ledger = till.ledger();
    let mut own = ledger.intents.values().filter(|intent| intent.payment_id == payment_id);
    let first = own.next().cloned();
    assert!(own.next().is_none(), "{payment_id} was authorized twice");
    first
}

/// The payment says what the gateway's books say, to the unit.
fn agrees(till: &Till, payment: &Value) {
    assert_agrees(account(till, payment["id"].as_str().expect("an id")).as_ref(), payment);
}

/// SplitMix64 over the key and the number of the request: the same fault whoever comes first.
fn dice(key: &str, seen: u32) -> u64 {
    let mut z = key.bytes().fold(u64::from(seen), |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Loses, repeats, delays and fails about every second request.
fn bad_day(key: &str, seen: u32) -> Fault {
    match dice(key, seen) % 40 {
        0..=2 => Fault::LostBefore,
        3..=6 => Fault::LostAfter,
        7 => Fault::Late(REQUEST_TIMEOUT * 2),
        8..=9 => Fault::Repeated,
        10 => Fault::Garbled,
        11..=12 => Fault::Instead(500),
        13 => Fault::Instead(409),
        14 => Fault::Instead(429),
        15..=16 => Fault::After(503),
        // Refused by something on the way, after it was done: unknown at once, and queried.
        17 => Fault::After(403),
        18 => Fault::Slow(REQUEST_TIMEOUT / 3),
        _ => Fault::None,
    }
}

/// One payment's life, by its number. Answers what it came to.
async fn live(shop: &Shop, number: usize) -> Value {
    let amount = 1000 + number as i64;
    let method = if number % 6 == 3 { "pm_declined" } else { "pm_any" };
    let at_once = matches!(number % 6, 1 | 4);
    let key = format!("pay-{number}");
    let created = surely(shop, number % 2, "/v1/payments", &key, &payment(amount, method, at_once)).await.is(201);
    let id = created.text("id").to_owned();
    let then = |action: &'static str, body: Value| {
        let (path, key) = (format!("/v1/payments/{id}/{action}"), format!("{action}-{body}"));
        async move { surely(shop, number % 2, &path, &key, &body).await.is(200) }
    };
    settled(shop, &id, "it is created").await;
    match number % 6 {
        0 => _ = then("capture", json!({"amount": usd(amount / 3)})).await,
        1 => {
            // Side by side: each with a key of its own.
            let refunds = [300, 200, 100].map(|part| then("refunds", json!({"amount": usd(part)})));
            join_all(refunds).await;
        }
        2 => _ = then("void", json!({})).await,
        4 => _ = then("refunds", json!({})).await,
        _ => {}
    }
    settled(shop, &id, "it comes to an end").await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_payment_ends_and_the_gateways_books_agree_to_the_unit() {
    let till = Till::open(bad_day).await;
    let shop = shop_at(&till, 3).await;
    let payments = join_all((0..48).map(|number| live(&shop, number))).await;
    for (number, payment) in payments.iter().enumerate() {
        let expected = ["captured", "captured", "voided", "declined", "captured", "authorized"][number % 6];
        assert_eq!(payment["status"], expected, "{payment}");
        agrees(&till, payment);
    }
    shop.stop().await;
    let ledger = till.ledger();
    assert_eq!(ledger.offences, Vec::<String>::new());
    let ours = |member: &str| payments.iter().filter_map(|payment| payment[member]["amount"].as_i64()).sum::<i64>();
    let captured: i64 = ledger.intents.values().filter_map(|intent| intent.captured).sum();
    let refunded: i64 = ledger.intents.values().map(|intent| intent.refunded).sum();
    assert_eq!((ours("captured"), ours("refunded")), (captured, refunded));
    let repeated = ledger.seen.values().filter(|seen| **seen > 1).count();
    assert!(repeated > 20, "the day was bad: only {repeated} keys came more than once");
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_charged_once_while_a_node_is_cut_off_and_the_gateway_has_a_bad_day() {
    let till = Till::open(bad_day).await;
    let network = Network::new();
    let gateway = HttpGateway::new(&options(&till), Trust::system()).expect("valid options");
    let builder = ingress::shop::register_with(Cluster::in_memory_over(network.clone(), 3), gateway);
    let shop = Shop::start_on(builder, 3).await;
    shop.stock("mug", 100).await;
    let place = |number: usize| {
        let shop = &shop;
        async move {
            let method = if number % 4 == 3 { "pm_declined" } else { "pm_any" };
            let body = paid_with(method, order("mug", 1));
            let placed = surely(shop, number % 2, "/v1/orders", &format!("ord-{number}"), &body).await.is(201);
            placed.text("id").to_owned()
        }
    };
    let before = join_all((0..8).map(place)).await;
    // Whatever that node owns, others take over; what it has begun at the gateway, both try.
    network.isolate("node-3");
    let ids: Vec<_> = before.into_iter().chain(join_all((8..16).map(place)).await).collect();
    network.heal_all();
    let ended =
        |order: &Value| ["confirmed", "cancelled", "expired"].contains(&order["status"].as_str().unwrap_or_default());
    let began = Instant::now();
    let mut confirmed = 0;
    for id in &ids {
        let order = loop {
            let read = shop.get(&format!("/v1/orders/{id}")).await_answer().await;
            if read.status == 200 && ended(&read.body) {
                break read.body;
            }
            assert!(began.elapsed() < PATIENCE, "the order ends: {}", read.text);
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        confirmed += i64::from(order["status"] == "confirmed");
        let payment = settled(&shop, order["payment_id"].as_str().expect("an id"), "its payment ends").await;
        agrees(&till, &payment);
        if let Some(intent) = account(&till, payment["id"].as_str().expect("an id")) {
            assert_eq!(intent.metadata.get("order_id"), Some(id), "the books can be compared");
        }
    }
    assert_eq!(confirmed, 12, "a quarter of the cards were declined");
    shop.stop().await;
    let ledger = till.ledger();
    assert_eq!(ledger.offences, Vec::<String>::new());
    let kept: i64 = ledger.intents.values().map(|intent| intent.captured.unwrap_or(0) - intent.refunded).sum();
    assert_eq!(kept, confirmed * 1999);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_refuses_the_request_leaves_the_payment_unknown_until_it_is_mended() {
    let till = Till::open(|_, _| Fault::Instead(400)).await;
    let shop = shop_at(&till, 1).await;
    let body = payment(500, "pm_any", true);
    let id = surely(&shop, 0, "/v1/payments", "k1", &body).await.is(201).text("id").to_owned();
    let path = format!("/v1/payments/{id}");
    let unknown = shop.wait_until(&path, "it is not declined", |payment| payment["status"] == "unknown").await;
    assert!(unknown["reason"].as_str().is_some_and(|reason| reason.contains("400")), "{unknown}");
    // On a slow machine the first query may have come already; eight attempts would be a task's all.
    assert!(till.ledger().seen.values().sum::<u32>() <= 2, "trying again at once is of no use");
    let refused = shop.send("POST", &format!("{path}/void")).await_answer().await.is(409);
    assert_eq!((refused.text("code"), refused.text("state")), ("illegal-transition", "unknown"));
    // Mended: the query finds nothing, so it is sent under its first key.
    till.change_temper(|_, _| Fault::None);
    let paid = settled(&shop, &id, "it is asked for again").await;
    assert_eq!(paid["status"], "captured");
    agrees(&till, &paid);
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_charge_whose_answers_are_all_refused_on_the_way_is_found_by_its_key() {
    // Done at once, but nothing but 403 comes back until somebody asks.
    let till =
        Till::open(|key, seen| if seen == 1 && key.ends_with("authorize") { Fault::After(403) } else { Fault::None })
            .await;
    let shop = shop_at(&till, 1).await;
    let created = surely(&shop, 0, "/v1/payments", "k1", &payment(500, "pm_any", false)).await.is(201);
    let paid = settled(&shop, created.text("id"), "it is queried").await;
    assert_eq!(paid["status"], "authorized");
    let id = created.text("id");
    assert_eq!(till.ledger().seen[&format!("{id}:authorize")], 2, "once to charge, once to ask");
    agrees(&till, &paid);
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_is_told_what_the_payment_is_for_and_who_asks() {
    let till = Till::open(|_, _| Fault::None).await;
    let shop = shop_at(&till, 1).await;
    let mut body = payment(7, "pm card/ö+&=", false);
    body["amount"]["currency"] = "KWD".into();
    body["metadata"] = json!({"cart [7]": "a&b=c d"});
    let created = surely(&shop, 0, "/v1/payments", "k1", &body).await.is(201);
    settled(&shop, created.text("id"), "it is authorized").await;
    let intent = account(&till, created.text("id")).expect("authorized");
    assert_eq!((intent.authorized, intent.currency.as_str(), intent.method.as_str()), (7, "kwd", "pm card/ö+&="));
    assert_eq!(intent.metadata.get("cart [7]").map(String::as_str), Some("a&b=c d"));
    shop.stop().await;

    let keyless = Options { api_key: None, ..options(&till) };
    assert!(
        ingress::shop::register_configured(Cluster::in_memory(1), &keyless, &outbound::Options::default()).is_err()
    );
    let stranger = Options { api_key: Some(Secret::new("sk_wrong")), ..options(&till) };
    let gateway = HttpGateway::new(&stranger, Trust::system()).expect("valid options");
    let shop = Shop::start_on(ingress::shop::register_with(Cluster::in_memory(1), gateway), 1).await;
    let created = surely(&shop, 0, "/v1/payments", "k1", &payment(7, "pm_any", false)).await.is(201);
    let path = format!("/v1/payments/{}", created.text("id"));
    let unknown = shop.wait_until(&path, "nobody guesses", |payment| payment["status"] == "unknown").await;
    assert!(unknown["reason"].as_str().is_some_and(|reason| reason.contains("401 (invalid_api_key)")), "{unknown}");
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_that_the_gateway_declines_leaves_the_authorization_standing() {
    let till = Till::open(|_, _| Fault::None).await;
    let shop = shop_at(&till, 1).await;
    let created = surely(&shop, 0, "/v1/payments", "k1", &payment(500, "pm_capture_declined", true)).await.is(201);
    let paid = settled(&shop, created.text("id"), "its capture is declined").await;
    assert_eq!((&paid["status"], &paid["reason"]), (&json!("authorized"), &json!("do_not_honor")));
    let void = format!("/v1/payments/{}/void", created.text("id"));
    surely(&shop, 0, &void, "k2", &json!({})).await.is(200);
    agrees(&till, &settled(&shop, created.text("id"), "it is voided").await);
    shop.stop().await;
}

fn request() -> GatewayRequest {
    GatewayRequest {
        operation: Operation::Authorize,
        key: "pay_1:authorize".into(),
        payment_method: "pm_any".into(),
        amount: serde_json::from_value(usd(500)).expect("money"),
        authorization: None,
        metadata: std::collections::BTreeMap::new(),
    }
}

/// An attempt to authorize, on its own.
async fn attempt(till: &Till, trust: Trust) -> Result<GatewayResponse, Error> {
    HttpGateway::new(&options(till), trust).expect("valid options").attempt(&request(), 1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_with_https_is_paid_through_a_bad_day() {
    let https = Https::new();
    let till = Till::open_at(https.listen().await, bad_day);
    let builder =
        ingress::shop::register_configured(Cluster::in_memory(3), &options(&till), &https.outbound()).expect("valid");
    let shop = Shop::start_on(builder, 3).await;
    let pay = async |number: usize| {
        let body = payment(500 + number as i64, "pm_any", true);
        surely(&shop, number % 3, "/v1/payments", &format!("p-{number}"), &body).await.is(201).text("id").to_owned()
    };
    for id in join_all((0..30).map(pay)).await {
        let paid = settled(&shop, &id, "it ends").await;
        assert_eq!(paid["status"], "captured", "{paid}");
        agrees(&till, &paid);
    }
    shop.stop().await;
    let ledger = till.ledger();
    assert_eq!(ledger.offences, Vec::<String>::new());
    assert!(ledger.seen.values().any(|seen| *seen > 1), "the day was bad");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_whose_certificate_is_not_good_is_sent_nothing() {
    let https = Https::new();
    let trust = || Trust::of(&https.outbound()).expect("an authority");
    let sound = Till::open_at(https.listen().await, |_, _| Fault::None);
    assert!(matches!(attempt(&sound, trust()).await, Ok(GatewayResponse::Approved { .. })));
    let others = Https::new();
    let elsewhere = Till::open_at(https.listen_as("pay.example").await, |_, _| Fault::None);
    let foreign = Till::open_at(others.listen().await, |_, _| Fault::None);
    let mut plain = Till::open(|_, _| Fault::None).await;
    plain.url = plain.url.replace("http://", "https://");
    for (till, trust, why) in [
        (&elsewhere, trust(), "its certificate is for another name"),
        (&foreign, trust(), "its certificate is of an authority that is not trusted here"),
        (&sound, Trust::of(&others.outbound()).expect("an authority"), "of an authority that is not trusted here"),
        (&plain, trust(), "it does not speak TLS"),
    ] {
        let error = attempt(till, trust).await.expect_err(why);
        let Error::Unanswered(text) = &error else { panic!("it may be mended: {error:?}") };
        assert!(text.starts_with("the gateway: cannot be reached: ") && text.contains(why), "{text}");
    }
    // One who takes the connection and says nothing.
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("https://localhost:{}", mute.local_addr().expect("an address").port());
    let silent = Options { base_url: Some(url), connect_timeout: REQUEST_TIMEOUT / 3, ..options(&sound) };
    let error = HttpGateway::new(&silent, trust()).expect("valid options").attempt(&request(), 1).await;
    let late = format!("the gateway: cannot be reached: not within {:?}", REQUEST_TIMEOUT / 3);
    assert_eq!(error, Err(Error::Unanswered(late)));
    for till in [&elsewhere, &foreign, &plain] {
        assert!(till.ledger().seen.is_empty(), "not even the key of an operation");
    }
}

#[test]
fn an_authority_that_cannot_be_read_is_refused_at_the_start() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("ca.crt");
    for (text, why) in [
        (None, "No such file"),
        (Some(""), "holds no certificate in PEM form"),
        (Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "outbound.ca_file"),
    ] {
        if let Some(text) = text {
            std::fs::write(&file, text).expect("written");
        }
        let outbound = outbound::Options { ca_file: Some(file.clone()) };
        let refused = ingress::shop::register_configured(Cluster::in_memory(1), &Options::default(), &outbound);
        let error = refused.map(drop).expect_err("no authority").to_string();
        assert!(error.contains("`outbound.ca_file` = ") && error.contains(why), "{error}");
    }
}
