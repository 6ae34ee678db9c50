//! A node that holds its ports and connections and does nothing: harder to notice than a dead one,
//! and when it wakes up, it still thinks it owns its shards.

use crate::{
    audit::{audit, read_until},
    harness::{Cluster, Node, PATIENCE, Response, turn, wait_until},
    shop::{self, Load},
};
use futures::future::join_all;
use quorate::cli::http::Client;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

const SHARDS: usize = 8;
/// Within which every shard takes writes again.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(15);
const ON_HAND_BEFORE: u64 = 10;
const ON_HAND_MEANWHILE: u64 = 77;

#[tokio::test]
async fn a_frozen_owner_is_replaced_and_shows_nothing_old_when_it_thaws() {
    let _turn = turn().await;
    let cluster = Cluster::start_with(3, &["--set", &format!("cluster.shards={SHARDS}")]).await;
    shop::stock_up(cluster.node(0)).await;
    let one_each = one_sku_per_shard(cluster.node(0)).await;
    let load = Load::start(&cluster, "frozen", 16);
    for (victim, witness) in [(0, 1), (1, 2)] {
        let (victim, witness) = (cluster.node(victim), cluster.node(witness));
        load.wait_more(16, &format!("before {} freezes", victim.name)).await;
        freeze_and_thaw(victim, witness, &one_each).await;
        load.wait_more(16, &format!("when {} is awake", victim.name)).await;
        reset(witness, &one_each).await;
    }
    audit(&cluster, &load.finish().await).await;
}

async fn freeze_and_thaw(victim: &Node, witness: &Node, one_each: &BTreeMap<u64, String>) {
    let name = &victim.name;
    let me = victim.http_get("/admin/v1/status").await.json()["node"].take();
    let reason = format!("{name} owns shards before it freezes");
    wait_until(&reason, PATIENCE, || async { !shards_of(victim, &me).await.is_empty() }).await;
    let old_readers: Vec<Client> = one_each.iter().map(|_| victim.client()).collect();
    // The connections are there before the freeze, the requests come after it.
    join_all(old_readers.iter().map(|client| client.get("/livez"))).await;
    victim.pause();
    join_all(one_each.values().map(|sku| write_until_accepted(witness, sku))).await;
    let reason = format!("{} sees no shard at {name} any more", witness.name);
    wait_until(&reason, TAKEN_OVER_WITHIN, || async { shards_of(witness, &me).await.is_empty() }).await;
    // These wait in its sockets, to be the first thing that it does when it wakes up.
    let paths: Vec<String> = one_each.values().map(|sku| format!("/v1/inventory/{sku}")).collect();
    let waiting = join_all(old_readers.iter().zip(&paths).map(|(client, path)| client.get(path)));
    let thaw = async {
        // The requests are on their way once the others have been polled.
        tokio::task::yield_now().await;
        victim.resume();
    };
    let (answers, ()) = tokio::join!(waiting, thaw);
    for (answer, path) in answers.iter().zip(&paths) {
        // It may well say that it cannot tell.
        if let Ok(answer) = answer {
            assert_new_or_refused(answer, path);
        }
    }
    victim.wait_ready("when it is awake again").await;
    for (path, client) in paths.iter().zip(&old_readers) {
        let fresh = |stock: &Value| {
            assert_eq!(stock["on_hand"], ON_HAND_MEANWHILE, "{name} shows what is past");
            true
        };
        read_until(client, path, &format!("{name} reads for others again"), fresh).await;
        let caught_up = |stock: &Value| stock["on_hand"] == ON_HAND_MEANWHILE;
        let reason = format!("the replica on {name} has caught up");
        read_until(client, &format!("{path}?consistency=local"), &reason, caught_up).await;
    }
}

fn assert_new_or_refused(answer: &Response, path: &str) {
    match answer.status {
        200 => assert_eq!(answer.json()["on_hand"], ON_HAND_MEANWHILE, "a stale {path}: {}", answer.text()),
        status => assert!(matches!(status, 429 | 503 | 504), "{path}: {}", answer.text()),
    }
}

/// A SKU in each shard, all with [`ON_HAND_BEFORE`].
async fn one_sku_per_shard(node: &Node) -> BTreeMap<u64, String> {
    let mut found = BTreeMap::new();
    for number in 0..1000 {
        let sku = format!("frozen-{number}");
        put(node, &sku, ON_HAND_BEFORE).await;
        let entity = node.http_get(&format!("/admin/v1/entities/stock/{sku}")).await.json();
        let shard = entity["shard"].as_u64().unwrap_or_else(|| panic!("the shard of {entity}"));
        found.entry(shard).or_insert(sku);
        if found.len() == SHARDS {
            return found;
        }
    }
    panic!("a thousand names and not one in each shard: {found:?}");
}

async fn reset(node: &Node, one_each: &BTreeMap<u64, String>) {
    for sku in one_each.values() {
        put(node, sku, ON_HAND_BEFORE).await;
    }
}

async fn put(node: &Node, sku: &str, on_hand: u64) {
    let path = format!("/v1/inventory/{sku}");
    let accepted = || async {
        let answer = node.put(&path, &json!({"on_hand": on_hand})).await;
        assert!(matches!(answer.status, 200 | 503 | 504), "{}", answer.text());
        answer.status == 200
    };
    wait_until(&format!("{} takes a write of {sku}", node.name), PATIENCE, accepted).await;
}

async fn write_until_accepted(node: &Node, sku: &str) {
    let (path, body) = (format!("/v1/inventory/{sku}"), json!({"on_hand": ON_HAND_MEANWHILE}));
    let client = node.client();
    let accepted = || async {
        let answer = client.put(&path, &body, &[]).await.expect("a living node answers");
        assert!(matches!(answer.status, 200 | 429 | 503 | 504), "{}", answer.text());
        answer.status == 200
    };
    wait_until(&format!("the shard of {sku} takes writes again"), TAKEN_OVER_WITHIN, accepted).await;
}

/// The shards that `owner` owns, as `node` sees it.
async fn shards_of(node: &Node, owner: &Value) -> BTreeSet<u64> {
    let shards = node.http_get("/admin/v1/shards").await.json();
    let shards = shards["data"].as_array().cloned().unwrap_or_default();
    let owned = shards.iter().filter(|shard| shard["owner"] == *owner);
    owned.filter_map(|shard| shard["shard"].as_u64()).collect()
}
