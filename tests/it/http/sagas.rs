//! `GET /admin/v1/sagas`: what is under way anywhere in the cluster, through any node.

use super::{PATIENCE, Shop, order, paid_with};
use quorate::{
    Cluster,
    commerce::gateway::{GatewayRequest, GatewayResponse, Operation},
    gateway::{Error, PaymentGateway},
    ingress,
    transport::memory::Network,
};
use serde_json::{Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

const ROUTE: &str = "/admin/v1/sagas";

/// Approves; but cards of `pm_stuck` it never answers, and while it is shut it refuses refunds, or does not
/// answer them.
#[derive(Clone, Default)]
struct Moody {
    refuses_refunds: Arc<AtomicBool>,
    holds_refunds: Arc<AtomicBool>,
}

impl PaymentGateway for Moody {
    async fn attempt(&self, request: &GatewayRequest, _: u32) -> Result<GatewayResponse, Error> {
        let is_refund = request.operation == Operation::Refund;
        if request.payment_method == "pm_stuck" || (is_refund && self.holds_refunds.load(Ordering::SeqCst)) {
            std::future::pending::<()>().await;
        }
        if is_refund && self.refuses_refunds.load(Ordering::SeqCst) {
            return Ok(GatewayResponse::Declined { reason: "account_closed".into() });
        }
        Ok(GatewayResponse::Approved { reference: format!("moody_{}", request.key) })
    }
}

async fn start(nodes: usize, gateway: Moody) -> Shop {
    Shop::start_on(ingress::shop::register_with(Cluster::in_memory(nodes), gateway), nodes).await
}

async fn place(shop: &Shop, key: &str, order: &Value) -> String {
    shop.send("POST", "/v1/orders").key(key).json(order).await_answer().await.is(201).text("id").to_owned()
}

/// An order that is confirmed.
async fn confirmed(shop: &Shop, key: &str) -> String {
    let placed = shop.send("POST", "/v1/orders").key(key).header("prefer", "wait=15").json(&order("mug", 1));
    let placed = placed.await_answer().await.is(201);
    assert_eq!(placed.text("status"), "confirmed", "{}", placed.text);
    placed.text("id").to_owned()
}

fn ids(page: &Value) -> Vec<&str> {
    page["data"].as_array().expect("a list").iter().map(|saga| saga["id"].as_str().expect("an id")).collect()
}

/// What is under way of one id.
async fn wait_saga(shop: &Shop, id: &str, reason: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let of = |page: &Value| page["data"].as_array().expect("a list").iter().find(|saga| saga["id"] == id).cloned();
    let page = shop.wait_until(ROUTE, reason, |page| of(page).is_some_and(|saga| wanted(&saga))).await;
    of(&page).expect("it is in there")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_under_way_is_listed_newest_first_by_every_node_with_what_it_waits_for() {
    let shop = start(3, Moody::default()).await;
    assert_eq!(shop.get(ROUTE).await_answer().await.is(200).body, json!({"data": [], "has_more": false}));
    shop.stock("mug", 50).await;
    let put = json!({"on_hand": 0, "backorder_limit": 50});
    shop.send("PUT", "/v1/inventory/rare").json(&put).await_answer().await.is(200);
    confirmed(&shop, "rests").await;
    let mut backorder = order("rare", 1);
    backorder["backorder"] = true.into();
    let mut made = Vec::new();
    for round in 0..3 {
        made.push(place(&shop, &format!("waits-{round}"), &backorder).await);
        made.push(place(&shop, &format!("stuck-{round}"), &paid_with("pm_stuck", order("mug", 1))).await);
        let payment = json!({"amount": {"amount": 700, "currency": "USD"}, "payment_method": "pm_stuck"});
        let key = format!("own-{round}");
        let payment = shop.send("POST", "/v1/payments").key(&key).json(&payment).await_answer().await.is(201);
        made.push(payment.text("id").to_owned());
    }
    let settled = |saga: &Value| saga["status"] != "pending";
    let waits = wait_saga(&shop, &made[0], "it waits for stock", settled).await;
    assert_eq!((&waits["type"], &waits["status"]), (&json!("order"), &json!("backordered")));
    assert_eq!((&waits["waits_for"], &waits["needs_attention"]), (&json!(["supply"]), &json!(false)));
    let stuck = wait_saga(&shop, &made[1], "it waits for its payment", settled).await;
    assert_eq!((&stuck["status"], &stuck["waits_for"]), (&json!("reserved"), &json!(["authorization"])));
    let own = wait_saga(&shop, &made[2], "it waits for the gateway", |_| true).await;
    assert_eq!((&own["type"], &own["status"]), (&json!("payment"), &json!("authorizing")));
    assert_eq!((&own["waits_for"], &own["attempts"]), (&json!(["authorization"]), &json!(0)));
    for (id, entity) in [(&made[0], "orders"), (&made[2], "payments")] {
        let read = shop.get(&format!("/v1/{entity}/{id}")).await_answer().await.is(200).body;
        let saga = wait_saga(&shop, id, "as it is read", |_| true).await;
        assert_eq!((&saga["since"], &saga["created_at"]), (&read["updated_at"], &read["created_at"]));
        assert_eq!(saga["version"], read["version"]);
    }
    for made in &made {
        wait_saga(&shop, made, "all have come to where they wait", settled).await;
    }

    let newest_first = |page: &Value| {
        let times = page["data"].as_array().expect("a list").iter().map(|saga| saga["created_at"].to_string());
        times.collect::<Vec<_>>().iter().rev().is_sorted()
    };
    made.sort();
    for limit in [1, 2, 4, 9, 100] {
        let (mut found, mut after) = (Vec::new(), String::new());
        for turn in 0.. {
            let path = format!("{ROUTE}?limit={limit}{after}");
            let page = shop.send_to(turn % 3, "GET", &path).await_answer().await.is(200).body;
            assert!(newest_first(&page), "{page}");
            found.extend(ids(&page).iter().map(|id| (*id).to_owned()));
            if page["has_more"] == false {
                break;
            }
            after = format!("&starting_after={}", found.last().expect("a page that goes on is not empty"));
        }
        found.sort();
        assert_eq!(found, made, "each once, {limit} at a time");
    }
    for (status, number) in [("backordered", 3), ("reserved", 3), ("authorizing", 3), ("needs_attention", 0)] {
        let page = shop.get(&format!("{ROUTE}?status={status}")).await_answer().await.is(200).body;
        assert_eq!(ids(&page).len(), number, "{status}: {page}");
        assert!(page["data"].as_array().expect("a list").iter().all(|saga| saga["status"] == status));
    }
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_attention_is_listed_until_somebody_has_helped() {
    let gateway = Moody::default();
    let shop = start(3, gateway.clone()).await;
    shop.stock("mug", 5).await;
    let id = confirmed(&shop, "k1").await;
    gateway.refuses_refunds.store(true, Ordering::SeqCst);
    let cancel = || shop.send("POST", &format!("/v1/orders/{id}/cancel")).await_answer();
    cancel().await.is(200);
    let route = format!("{ROUTE}?status=needs_attention");
    for node in 0..3 {
        let began = Instant::now();
        let page = loop {
            let page = shop.send_to(node, "GET", &route).await_answer().await.is(200).body;
            if ids(&page) == [id.as_str()] {
                break page;
            }
            assert!(began.elapsed() < PATIENCE, "node {node} shows it: {page}");
        };
        let saga = &page["data"][0];
        assert_eq!((&saga["needs_attention"], &saga["waits_for"]), (&json!(true), &json!(["operator"])));
        assert!(saga["reason"].as_str().is_some_and(|why| why.contains("account_closed")), "{saga}");
    }
    // As docs/operations.md says: mend it, and cancel it again.
    gateway.refuses_refunds.store(false, Ordering::SeqCst);
    cancel().await.is(200);
    shop.wait_until(&format!("/v1/orders/{id}"), "it ends", |order| order["status"] == "cancelled").await;
    assert_eq!(shop.get(ROUTE).await_answer().await.is(200).body, json!({"data": [], "has_more": false}));
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_that_is_under_way_is_listed_behind_its_orders_status() {
    let gateway = Moody::default();
    let shop = start(1, gateway.clone()).await;
    shop.stock("mug", 5).await;
    let id = confirmed(&shop, "k1").await;
    shop.send("POST", &format!("/v1/orders/{id}/fulfillments")).await_answer().await.is(200);
    assert_eq!(shop.get(ROUTE).await_answer().await.is(200).body["data"], json!([]), "what was sent rests");
    gateway.holds_refunds.store(true, Ordering::SeqCst);
    shop.send("POST", &format!("/v1/orders/{id}/returns")).await_answer().await.is(200);
    let saga = wait_saga(&shop, &id, "the goods are back", |saga| saga["waits_for"] == json!(["refund"])).await;
    assert_eq!((&saga["status"], &saga["needs_attention"]), (&json!("returned"), &json!(false)));
    let page = shop.get(&format!("{ROUTE}?status=returned")).await_answer().await.is(200).body;
    assert_eq!(ids(&page), [id.as_str()]);
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_what_is_under_way_is_seen_in_replicas_only() {
    let network = Network::new();
    let builder = ingress::shop::register_with(Cluster::in_memory_over(network.clone(), 3), Moody::default());
    let shop = Shop::start_on(builder, 3).await;
    shop.stock("mug", 5).await;
    let id = place(&shop, "k1", &paid_with("pm_stuck", order("mug", 1))).await;
    let local = format!("{ROUTE}?consistency=local");
    shop.wait_until(&local, "the replica of the first node has it", |page| ids(page) == [id.as_str()]).await;
    network.isolate("node-1");
    let problem = shop.get(ROUTE).await_answer().await.is(503);
    assert_eq!(problem.text("code"), "no-quorum");
    assert!(problem.text("detail").contains("consistency=local"), "{}", problem.text);
    let stale = shop.get(&format!("{local}&starting_after={id}")).await_answer().await.is(200);
    assert_eq!(stale.body, json!({"data": [], "has_more": false}), "a place is found in a replica, too");
    assert_eq!(ids(&shop.get(&local).await_answer().await.is(200).body), [id.as_str()]);
    network.heal_all();
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_about_sagas_that_cannot_be_meant_are_refused_by_name() {
    let shop = start(1, Moody::default()).await;
    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("status=confirmed", "status"),
        ("status=", "status"),
        ("starting_after=ord_00000000000000000000000000", "starting_after"),
        ("starting_after=pay_none", "starting_after"),
        ("starting_after=task_3_17", "starting_after"),
        ("starting_after=a%20b", "starting_after"),
        ("consistency=eventual", "consistency"),
        ("type=order", "type"),
    ] {
        let refused = shop.get(&format!("{ROUTE}?{query}")).problem().await;
        assert_eq!(refused, (400, "invalid-parameter".into(), field.into()), "{query}");
    }
    let answer = shop.get(&format!("{ROUTE}?status=confirmed")).await_answer().await.is(400);
    assert!(answer.text("detail").contains("needs_attention"), "{}", answer.text);
    shop.stop().await;
}
