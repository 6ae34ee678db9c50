//! `GET /admin/v1/events`: what happens in the cluster as one node sees it.

use super::{
    PATIENCE, Shop,
    streams::{Events, Served, get},
};
use axum::{
    body::Body,
    http::{HeaderMap, Request},
};
use futures::StreamExt;
use quorate::{
    Cluster,
    cluster::{EVENTS_KEPT, FaultKind},
    ingress,
    transport::memory::Network,
};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::timeout;
use tower::ServiceExt;

const ROUTE: &str = "/admin/v1/events";
/// Nothing that a test would notice.
const NEXT_TO_NOTHING: FaultKind = FaultKind::ClockJump { offset_ms: 1 };
const LONG: Duration = Duration::from_secs(60);

async fn served(shop: &Shop, node: usize) -> Served {
    Served::start(shop, node, ingress::Options::default()).await
}

/// One node that can be broken on purpose.
async fn breakable() -> Shop {
    Shop::start_on(ingress::shop::register(Cluster::in_memory(1)).allow_faults(), 1).await
}

fn break_and_mend(shop: &Shop, times: usize) {
    let faults = shop.cluster.faults().expect("allowed");
    for _ in 0..times {
        let (fault, _) = faults.inject(NEXT_TO_NOTHING, LONG, None).expect("room for one");
        faults.end(fault.id).expect("in force");
    }
}

/// The snapshot that a fresh stream begins with, and its id.
async fn snapshot(events: &mut Events) -> (String, Value) {
    let (id, name, event) = events.event("a fresh stream begins with what stands").await;
    assert_eq!((name.as_str(), &event["type"], event["id"].as_str()), ("snapshot", &json!("snapshot"), Some(&*id)));
    (id, event["data"].clone())
}

/// Reads up to an event of this name whose data is as wanted.
async fn until(events: &mut Events, name: &str, wanted: impl Fn(&Value) -> bool) -> (String, Value) {
    loop {
        let (id, found, event) = events.event(&format!("waiting for {name}")).await;
        assert_eq!((event["id"].as_str(), event["type"].as_str()), (Some(&*id), Some(&*found)));
        if found == name && wanted(&event["data"]) {
            return (id, event["data"].clone());
        }
    }
}

fn number(id: &str) -> u64 {
    id.rsplit_once('-').and_then(|(_, number)| number.parse().ok()).expect("an event id")
}

/// The next block's name and data, of an event without an id.
async fn reset(events: &mut Events) -> Value {
    loop {
        let block = events.block("a reset").await.expect("it goes on");
        if block.contains("event: reset") {
            assert!(!block.contains("id: "), "who comes back names what it named before: {block}");
            let data = block.lines().find_map(|line| line.strip_prefix("data: ")).expect("data");
            return serde_json::from_str::<Value>(data).expect("JSON")["data"].clone();
        }
        assert!(block.starts_with("retry:"), "a reset comes first: {block}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_an_owner_is_lost_the_others_tell_who_is_gone_and_who_took_over() {
    let network = Network::new();
    let builder = ingress::shop::register(Cluster::in_memory_over(network.clone(), 3));
    let shop = Shop::start_on(builder, 3).await;
    let shards = shop.cluster.shards();
    let lost = &shards.iter().find(|shard| shard.owner.is_some()).expect("every shard has an owner");
    let (shard, owner) = (lost.shard, lost.owner.expect("it has one"));
    let members = shop.cluster.members();
    let at = members.iter().position(|member| member.node == owner).expect("the owner is a member");
    let name = members[at].name.clone();
    let index: usize = name.trim_start_matches("node-").parse::<usize>().expect("a node is called node-N") - 1;
    let witness = served(&shop, (index + 1) % 3).await;
    let mut events = witness.stream(ROUTE, &[]).await;
    let (first, stands) = snapshot(&mut events).await;
    let find = |list: &str, member: &str, value: Value| {
        let list = stands[list].as_array().expect("a list").clone();
        list.into_iter().find(|entry| entry[member] == value).expect("it is in the snapshot")
    };
    let before = find("members", "name", json!(name));
    assert_eq!((&before["gossip"], &before["linked"]), (&json!("alive"), &json!(true)));
    assert_eq!(find("shards", "shard", json!(shard))["owner_name"], json!(name));

    network.isolate(&name);
    let (mut is_gone, mut next_owner, mut last) = (false, Value::Null, number(&first));
    while !is_gone || next_owner.is_null() {
        let (id, kind, event) = events.event("the owner is cut off").await;
        assert_eq!(number(&id), last + 1, "without gaps");
        last = number(&id);
        let data = &event["data"];
        is_gone |= kind == "membership" && data["name"] == json!(name) && data["change"] == "down";
        if kind == "leadership" && data["shard"] == json!(shard) && data["change"] == "elected" {
            assert!(data["term"].as_u64() > find("shards", "shard", json!(shard))["term"].as_u64(), "{data}");
            next_owner = data["owner_name"].clone();
        }
    }
    assert_ne!(next_owner, json!(name));
    network.heal_all();
    until(&mut events, "membership", |data| data["name"] == json!(name) && data["change"] == "alive").await;
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_is_told_when_it_begins_and_when_it_ends_and_a_stream_resumes_between() {
    let shop = breakable().await;
    let served = served(&shop, 0).await;
    let mut events = served.stream(ROUTE, &[]).await;
    snapshot(&mut events).await;
    let slow = json!({"fault": "slow-disk", "delay_ms": 5, "duration_ms": 60_000});
    let injected = shop.send("POST", "/admin/v1/faults").json(&slow).await_answer().await.is(201).body;
    let (began, data) = until(&mut events, "fault", |data| data["change"] == "began").await;
    assert_eq!(data, json!({"change": "began", "kind": "injected", "injected": injected}));
    drop(events);

    let mut fresh = served.stream(ROUTE, &[]).await;
    let (_, stands) = snapshot(&mut fresh).await;
    assert_eq!(stands["faults"], json!([{"kind": "injected", "injected": injected}]));
    let path = format!("/admin/v1/faults/{}", injected["id"]);
    shop.send("DELETE", &path).await_answer().await.is(200);
    let mut resumed = served.stream(ROUTE, &[("last-event-id", &began)]).await;
    let (_, name, event) = resumed.event("what came behind it").await;
    assert_eq!((name.as_str(), &event["data"]["change"]), ("fault", &json!("ended")), "and no snapshot");
    assert_eq!(number(event["id"].as_str().expect("an id")), number(&began) + 1);
    // The header goes before the parameter of the address that the client began with.
    let address = format!("{ROUTE}?starting_after={}", event["id"].as_str().expect("an id"));
    let mut resumed = served.stream(&address, &[("last-event-id", &began)]).await;
    assert_eq!(resumed.event("the same").await.2, event);
    // The same entries in a page.
    let page = shop.get(&format!("{ROUTE}?starting_after={began}")).await_answer().await.is(200);
    assert_eq!((&page.body, page.header("vary")), (&json!({"data": [event], "has_more": false}), "accept"));
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_cannot_fill_is_told_by_a_reset_and_what_stands_now() {
    let shop = breakable().await;
    let served = served(&shop, 0).await;
    let mut foreign = served.stream(ROUTE, &[("last-event-id", "00000000000000ab-5")]).await;
    let expected = json!({"reason": "another_process", "last_event_id": "00000000000000ab-5"});
    assert_eq!(reset(&mut foreign).await, expected);
    let (seen, _) = snapshot(&mut foreign).await;
    drop(foreign);

    break_and_mend(&shop, EVENTS_KEPT / 2 + 1);
    let mut late = served.stream(ROUTE, &[("last-event-id", &seen)]).await;
    assert_eq!(reset(&mut late).await, json!({"reason": "too_old", "last_event_id": seen}));
    let (now, _) = snapshot(&mut late).await;
    break_and_mend(&shop, 1);
    assert_eq!(number(&late.event("it goes on behind the snapshot").await.0), number(&now) + 1);
    let refused = shop.get(&format!("{ROUTE}?starting_after={seen}")).problem().await;
    assert_eq!(refused, (400, "invalid-parameter".into(), "starting_after".into()));
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_falls_behind_is_told_so_and_cut_and_holds_up_nobody() {
    let shop = breakable().await;
    let request = Request::get(ROUTE).header("accept", "text/event-stream").body(Body::empty()).expect("a request");
    let response = shop.routers[0].clone().oneshot(request).await.expect("infallible");
    assert_eq!(response.status(), 200);
    // Nothing is read from the stream but what this asks for.
    let mut body = response.into_body().into_data_stream();
    let mut text = String::new();
    while !text.contains("event: snapshot") {
        let part = timeout(PATIENCE, body.next()).await.expect("in time").expect("it goes on").expect("no error");
        text.push_str(std::str::from_utf8(&part).expect("UTF-8"));
    }
    // The node takes no notice of the reader: this returns.
    break_and_mend(&shop, EVENTS_KEPT);
    let mut rest = String::new();
    while let Some(part) = timeout(PATIENCE, body.next()).await.expect("the end in time") {
        rest.push_str(std::str::from_utf8(&part.expect("no error")).expect("UTF-8"));
        assert!(rest.len() < 1 << 20, "it is cut");
    }
    assert!(rest.contains("event: reset") && rest.contains("too_slow"), "{rest}");
    assert_eq!(rest.matches("event: ").count(), 1, "told, and cut: {rest}");
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_cannot_go_on_says_so_to_who_is_left_to_hear_it() {
    let shop = breakable().await;
    let served = served(&shop, 0).await;
    let mut events = served.stream(ROUTE, &[]).await;
    snapshot(&mut events).await;
    shop.cluster.faults().expect("allowed").inject(FaultKind::FullDisk, LONG, None).expect("room for one");
    // It notices when it next writes.
    let written = shop.send("PUT", "/v1/inventory/mug").json(&json!({"on_hand": 1})).await_answer();
    let told = until(&mut events, "fault", |data| data["kind"] == "node_failed");
    let (answer, (_, data)) = tokio::join!(written, told);
    assert!(answer.status.as_u16() >= 500, "{}", answer.text);
    assert!(data["reason"].as_str().is_some_and(|why| !why.is_empty()), "{data}");
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_events_has_comments_and_ends_when_the_server_drains() {
    let shop = Shop::start(1).await;
    let options = ingress::Options { event_silence_max: Duration::from_millis(20), ..ingress::Options::default() };
    let served = Served::start(&shop, 0, options).await;
    let mut events = served.stream(ROUTE, &[]).await;
    snapshot(&mut events).await;
    while !events.block("a heartbeat").await.expect("it goes on").starts_with(':') {}
    served.stop.send(()).expect("still serving");
    while events.block("the end").await.is_some() {}
    timeout(PATIENCE, served.server).await.expect("the end in time").expect("no panic").expect("drained");
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_events_come_in_pages_and_what_cannot_be_meant_is_refused_by_name() {
    let shop = breakable().await;
    break_and_mend(&shop, 3);
    let (mut after, mut seen) = (String::new(), Vec::new());
    loop {
        let page = shop.get(&format!("{ROUTE}?limit=2{after}")).await_answer().await.is(200);
        let data = page.body["data"].as_array().expect("a list").clone();
        seen.extend(data.iter().map(|event| number(event["id"].as_str().expect("an id"))));
        if page.body["has_more"] == false {
            break;
        }
        after = format!("&starting_after={}", data[1]["id"].as_str().expect("an id"));
    }
    assert!(seen.len() >= 6 && seen.iter().zip(1..).all(|(number, expected)| *number == expected), "{seen:?}");
    let head: HeaderMap = shop.get(ROUTE).await_answer().await.is(200).headers;
    assert_eq!(head["vary"], "accept");

    for (query, field) in [("limit=101", "limit"), ("starting_after=x", "starting_after"), ("since=1", "since")] {
        let refused = shop.get(&format!("{ROUTE}?{query}")).problem().await;
        assert_eq!(refused, (400, "invalid-parameter".into(), field.into()));
    }
    let stream = || shop.get(ROUTE).header("accept", "text/event-stream");
    let last = shop.get(ROUTE).await_answer().await.body["data"][0]["id"].as_str().expect("an id").to_owned();
    let unheard_of = format!("{}-999999", last.split_once('-').expect("an event id").0);
    for bad in ["evt_a_7", unheard_of.as_str()] {
        let refused = stream().header("last-event-id", bad).problem().await;
        assert_eq!(refused, (400, "invalid-header".into(), "last-event-id".into()), "{bad}");
    }
    let limited = shop.get(&format!("{ROUTE}?limit=5")).header("accept", "text/event-stream").problem().await;
    assert_eq!(limited.2, "limit");
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_events_count_among_all_streams_of_the_node() {
    let shop = Shop::start(1).await;
    let options = ingress::Options { event_streams_max: 1, ..ingress::Options::default() };
    let served = Served::start(&shop, 0, options).await;
    let first = served.stream(ROUTE, &[]).await;
    assert_eq!(get(served.address, ROUTE, &[]).await.status(), 429);
    drop(first);
    let freed = async { while get(served.address, ROUTE, &[]).await.status() != 200 {} };
    timeout(PATIENCE, freed).await.expect("a stream that ended makes room");
    shop.stop().await;
}
