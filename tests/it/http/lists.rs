//! `GET /v1/orders` and `GET /v1/inventory`: pages over all shards, through any node.

use super::{PATIENCE, Shop, Value, json, order};
use quorate::{Cluster, ingress, transport::memory::Network};
use std::{collections::BTreeSet, time::Instant};

/// Places an order for a SKU that there is none of: it is rejected, and stays so.
async fn place(shop: &Shop, customer: &str, key: &str) -> String {
    let mut order = order("nothing", 1);
    order["customer_id"] = customer.into();
    let placed = shop.send("POST", "/v1/orders").key(key).header("prefer", "wait=5").json(&order).await_answer().await;
    placed.is(201).text("id").to_owned()
}

async fn place_many(shop: &Shop, customer: &str, number: usize) -> Vec<String> {
    let mut placed = Vec::new();
    for at in 0..number {
        placed.push(place(shop, customer, &format!("{customer}-{at}")).await);
    }
    placed
}

fn ids(page: &Value) -> Vec<String> {
    let data = page["data"].as_array().expect("a list").iter();
    data.map(|item| item["id"].as_str().or(item["sku"].as_str()).expect("an id").to_owned()).collect()
}

/// Every page of a list, each through another node; `between` is done between pages.
async fn pages(shop: &Shop, path: &str, limit: usize, mut between: impl AsyncFnMut(usize)) -> Vec<Value> {
    let mut found: Vec<Value> = Vec::new();
    let mark = if path.contains('?') { '&' } else { '?' };
    for number in 0.. {
        let last = found.last().map(|last| last["id"].as_str().or(last["sku"].as_str()).expect("an id"));
        let after = last.map(|last| format!("&starting_after={last}")).unwrap_or_default();
        let path = format!("{path}{mark}limit={limit}{after}");
        let page = shop.send_to(number % shop.routers.len(), "GET", &path).await_answer().await.is(200);
        let data = page.body["data"].as_array().expect("a list").clone();
        let more = page.body["has_more"].as_bool().expect("has_more");
        assert!(!more || data.len() == limit, "small states fill their pages");
        found.extend(data);
        if !more {
            break;
        }
        between(number).await;
    }
    found
}

async fn all(shop: &Shop, path: &str, limit: usize) -> Vec<String> {
    ids(&json!({"data": pages(shop, path, limit, async |_| {}).await}))
}

fn sorted(mut ids: Vec<String>) -> Vec<String> {
    ids.sort();
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_listed_newest_first_by_every_node_as_they_are_read() {
    let shop = Shop::start(3).await;
    let empty = shop.get("/v1/orders").await_answer().await.is(200);
    assert_eq!(empty.body, json!({"data": [], "has_more": false}));
    let placed = place_many(&shop, "cus_1", 7).await;
    for node in 0..3 {
        let page = shop.send_to(node, "GET", "/v1/orders?limit=7").await_answer().await.is(200);
        assert_eq!(page.body["has_more"], false, "exactly as many as asked for");
        assert_eq!(sorted(ids(&page.body)), sorted(placed.clone()));
        let times: Vec<_> = page.body["data"].as_array().unwrap().iter().map(|o| o["created_at"].to_string()).collect();
        assert!(times.iter().rev().is_sorted(), "newest first: {times:?}");
        for item in page.body["data"].as_array().unwrap() {
            let read = shop.get(&format!("/v1/orders/{}", item["id"].as_str().unwrap())).await_answer().await.is(200);
            assert_eq!(*item, read.body);
        }
    }
    let six = shop.get("/v1/orders?limit=6").await_answer().await.is(200);
    assert_eq!((ids(&six.body).len(), &six.body["has_more"]), (6, &json!(true)));
    for limit in [1, 2, 3, 7, 100] {
        assert_eq!(sorted(all(&shop, "/v1/orders", limit).await), sorted(placed.clone()), "{limit} at a time");
    }
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_listed_by_customer_status_and_time() {
    let shop = Shop::start(3).await;
    shop.stock("mug", 100).await;
    let (ada, bob) = (place_many(&shop, "ada", 5).await, place_many(&shop, "bob", 3).await);
    let mut bought = order("mug", 1);
    bought["customer_id"] = "ada".into();
    let bought = shop.send("POST", "/v1/orders").key("mug").header("prefer", "wait=10").json(&bought).await_answer();
    let bought = bought.await.is(201);
    assert_eq!(bought.text("status"), "confirmed");
    let of = async |query: &str| sorted(all(&shop, &format!("/v1/orders?{query}"), 2).await);
    let mug = bought.text("id").to_owned();
    assert_eq!(of("customer_id=bob").await, sorted(bob.clone()));
    assert_eq!(of("customer_id=ada").await, sorted([ada.clone(), vec![mug.clone()]].concat()));
    assert_eq!(of("customer_id=ada&status=confirmed").await, std::slice::from_ref(&mug));
    assert_eq!(of("customer_id=ada&status=rejected").await, sorted(ada.clone()));
    assert_eq!(of("status=rejected").await, sorted([ada.clone(), bob.clone()].concat()));
    assert!(of("customer_id=bob&status=confirmed").await.is_empty() && of("customer_id=eve").await.is_empty());
    assert!(of("status=pending").await.is_empty(), "where they were they are no more");

    let at = bought.text("created_at").to_owned();
    assert!(of(&format!("created_after={at}")).await.contains(&mug));
    assert!(!of(&format!("created_before={at}")).await.contains(&mug));
    assert_eq!(of(&format!("created_before={at}&customer_id=bob")).await, sorted(bob.clone()));
    assert!(of("created_after=2999-01-01T00:00:00Z").await.is_empty());

    let fulfil = format!("/v1/orders/{mug}/fulfillments");
    shop.send("POST", &fulfil).await_answer().await.is(200);
    assert_eq!(of("status=fulfilled").await, std::slice::from_ref(&mug), "seen by the next read");
    assert!(of("status=confirmed").await.is_empty());
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_stable_while_orders_come_and_change() {
    let shop = Shop::start(3).await;
    shop.stock("mug", 100).await;
    let mut there = BTreeSet::new();
    for at in 0..12 {
        let placed = shop.send("POST", "/v1/orders").key(&format!("m{at}")).header("prefer", "wait=10");
        there.insert(placed.json(&order("mug", 1)).await_answer().await.is(201).text("id").to_owned());
    }
    let seen = pages(&shop, "/v1/orders", 2, async |number| {
        place(&shop, "late", &format!("late-{number}")).await;
        let other = there.iter().nth(number).expect("one of them");
        shop.send("POST", &format!("/v1/orders/{other}/cancel")).await_answer().await.is(200);
    });
    let seen = ids(&json!({"data": seen.await}));
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), seen.len(), "nothing twice: {seen:?}");
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), there, "nothing skipped; what came later comes before");

    // The one to go on from has left the list meanwhile, and still marks its place.
    shop.wait_until("/v1/orders?status=confirmed&limit=100", "one is left", |page| ids(page).len() == 7).await;
    let confirmed = all(&shop, "/v1/orders?status=confirmed", 100).await;
    shop.send("POST", &format!("/v1/orders/{}/fulfillments", confirmed[2])).await_answer().await.is(200);
    let rest = shop.get(&format!("/v1/orders?status=confirmed&starting_after={}", confirmed[2])).await_answer().await;
    assert_eq!(ids(&rest.is(200).body), confirmed[3..]);
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_is_listed_by_sku() {
    let shop = Shop::start(3).await;
    let skus = ["apple", "bread", "Zebra", "mug", "mug-blue", "~", "0"];
    for (at, sku) in skus.iter().enumerate() {
        shop.stock(sku, at as u64).await;
    }
    // A SKU that was only asked for is none.
    place(&shop, "cus_1", "k").await;
    let mut expected = skus.map(str::to_owned).to_vec();
    expected.sort();
    for limit in [1, 3, 7, 100] {
        assert_eq!(all(&shop, "/v1/inventory", limit).await, expected, "{limit} at a time");
    }
    let page = shop.get("/v1/inventory?limit=1&starting_after=mug").await_answer().await.is(200);
    let read = shop.get("/v1/inventory/mug-blue").await_answer().await.is(200);
    assert_eq!(page.body, json!({"data": [read.body], "has_more": true}));
    let behind = shop.get("/v1/inventory?starting_after=mug-").await_answer().await.is(200);
    assert_eq!(ids(&behind.body), ["mug-blue", "~"], "any name is a place");
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_holds_as_many_as_asked_for_and_more_of_large_orders_follow() {
    let shop = Shop::start(3).await;
    let line = |at: usize| json!({"sku": format!("{at:0>64}"), "quantity": 1, "unit_price": 1});
    let mut large = order("nothing", 1);
    large["items"] = (0..100).map(line).collect();
    large["metadata"] = json!({"a": "x".repeat(500)});
    let mut placed = Vec::new();
    for at in 0..25 {
        let sent = shop.send("POST", "/v1/orders").key(&format!("large-{at}")).json(&large).await_answer();
        placed.push(sent.await.is(201).text("id").to_owned());
    }
    assert_eq!(sorted(all(&shop, "/v1/orders", 25).await), sorted(placed));
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_that_cannot_be_meant_are_refused_by_name() {
    let shop = Shop::start(1).await;
    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=x", "limit"),
        ("starting_after=x", "starting_after"),
        ("starting_after=ord_", "starting_after"),
        ("starting_after=ord_a%20b", "starting_after"),
        ("starting_after=ord_00000000000000000000000000", "starting_after"),
        ("starting_after=", "starting_after"),
        ("status=Confirmed", "status"),
        ("status=", "status"),
        ("customer_id=", "customer_id"),
        ("created_after=yesterday", "created_after"),
        ("created_before=2026-11-23T21:20:24+01:00", "created_before"),
        ("consistency=eventual", "consistency"),
        ("customer=ada", "customer"),
        ("status=pending&status=rejected", "status"),
    ] {
        let problem = shop.get(&format!("/v1/orders?{query}")).problem().await;
        assert_eq!((problem.0, problem.1.as_str(), problem.2.as_str()), (400, "invalid-parameter", field), "{query}");
    }
    for (query, field) in
        [("limit=0", "limit"), ("starting_after=a%20b", "starting_after"), ("status=pending", "status")]
    {
        let problem = shop.get(&format!("/v1/inventory?{query}")).problem().await;
        assert_eq!((problem.0, problem.1.as_str(), problem.2.as_str()), (400, "invalid-parameter", field), "{query}");
    }
    let answer = shop.get("/v1/orders?status=lost").await_answer().await.is(400);
    let detail = answer.text("detail");
    for status in ["pending", "needs_attention", "partially_returned"] {
        assert!(detail.contains(status), "the allowed ones are listed: {detail}");
    }
    let deleted = shop.send("DELETE", "/v1/orders").await_answer().await.is(405);
    assert!(deleted.header("allow").contains("GET") && deleted.header("allow").contains("POST"));
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_there_is_no_page_but_from_replicas() {
    let network = Network::new();
    let builder = ingress::shop::register(Cluster::in_memory_over(network.clone(), 3));
    let shop = Shop::start_on(builder, 3).await;
    let placed = place_many(&shop, "cus_1", 5).await;
    for node in 0..3 {
        let local = "/v1/orders?consistency=local&limit=100";
        let began = Instant::now();
        while ids(&shop.send_to(node, "GET", local).await_answer().await.is(200).body).len() < placed.len() {
            assert!(began.elapsed() < PATIENCE, "the replica of node {node} catches up");
        }
    }
    network.isolate("node-1");
    let problem = shop.get("/v1/orders").await_answer().await.is(503);
    assert_eq!(problem.text("code"), "no-quorum");
    assert!(problem.text("detail").contains("consistency=local"), "{}", problem.text);
    let stale = all_of_node(&shop, 0, "/v1/orders?consistency=local").await;
    assert_eq!(sorted(stale), sorted(placed.clone()));
    network.heal_all();
    shop.wait_until("/v1/orders?limit=100", "the list is back", |page| ids(page).len() == placed.len()).await;
    shop.stop().await;
}

/// Two at a time, from one node.
async fn all_of_node(shop: &Shop, node: usize, path: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    loop {
        let after = found.last().map(|last| format!("&starting_after={last}")).unwrap_or_default();
        let page = shop.send_to(node, "GET", &format!("{path}&limit=2{after}")).await_answer().await.is(200);
        found.extend(ids(&page.body));
        if page.body["has_more"] == false {
            return found;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_there_again_after_a_restart() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let start = async || {
        let builder = ingress::shop::register(Cluster::single_node(dir.path()))
            .configure(|config| config.shard.checkpoint_interval = std::time::Duration::from_millis(1));
        Shop::start_on(builder, 1).await
    };
    let shop = start().await;
    shop.stock("mug", 3).await;
    let mut placed = place_many(&shop, "ada", 4).await;
    shop.stop().await;
    for round in 0..2 {
        let shop = start().await;
        assert_eq!(sorted(all(&shop, "/v1/orders?customer_id=ada&status=rejected", 3).await), sorted(placed.clone()));
        assert_eq!(all(&shop, "/v1/inventory", 10).await, ["mug"]);
        placed.push(place(&shop, "ada", &format!("again-{round}")).await);
        shop.stop().await;
    }
}
