//! A node of a running cluster is cut off by its own admin interface: an owner, both ways and one way.
//! Another takes over, writes go on, and the fault ends by itself.

use crate::harness::{Cluster, Node, PATIENCE, turn, wait_until};
use serde_json::{Value, json};
use std::time::Duration;

/// The longest that others may take to own what the one that is cut off owned.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(20);
const SHARDS: usize = 3;

#[tokio::test]
async fn an_owner_cut_off_by_its_admin_interface_is_replaced_and_comes_back_by_itself() {
    let _turn = turn().await;
    let shards = format!("cluster.shards={SHARDS}");
    let cluster = Cluster::start_with(3, &["--set", &shards, "--allow-faults"]).await;
    let (victim, witness) = (cluster.node(0), cluster.node(1));
    let me = victim.http_get("/admin/v1/status").await.json()["node"].take();
    let mut on_hand = 0;
    for direction in ["both", "outgoing", "incoming"] {
        let reason = format!("{} owns a shard before it is cut off ({direction})", victim.name);
        wait_until(&reason, PATIENCE, || async { !owned(victim, &me).await.is_empty() }).await;
        let sku = sku_of(witness, owned(victim, &me).await[0]).await;
        on_hand += 1;
        write(witness, &sku, on_hand).await;
        // Longer than the election takes, and short enough to be waited for.
        let cut = json!({"fault": "cut", "direction": direction, "duration_ms": 12_000});
        let taken = victim.post("/admin/v1/faults", &cut, &[]).await;
        assert_eq!(taken.status, 201, "{}", taken.text());
        let reason = format!("{} sees no shard at {} any more ({direction})", witness.name, victim.name);
        wait_until(&reason, TAKEN_OVER_WITHIN, || async { owned(witness, &me).await.is_empty() }).await;
        on_hand += 1;
        write(witness, &sku, on_hand).await;
        let path = format!("/v1/inventory/{sku}");
        if in_force(victim).await {
            let behind = victim.client().get(&path).await.expect("it answers whom it hears");
            assert!(behind.status == 503 || behind.json()["on_hand"] == on_hand, "stale: {}", behind.text());
        }
        wait_until("the fault has ended by itself", PATIENCE, || async { !in_force(victim).await }).await;
        wait_until(&format!("{} reads what was written meanwhile", victim.name), PATIENCE, || async {
            let read = victim.http_get(&path).await;
            read.status == 200 && read.json()["on_hand"] == on_hand
        })
        .await;
        let gossip = || async {
            let members = witness.http_get("/admin/v1/members").await.json();
            let members = members["data"].as_array().cloned().unwrap_or_default();
            members.iter().all(|member| member["gossip"] == "alive" && member["linked"] == true)
        };
        wait_until("everyone is linked and alive again", PATIENCE, gossip).await;
    }
}

#[tokio::test]
async fn gossip_and_links_between_two_named_nodes_are_cut_and_no_others() {
    let _turn = turn().await;
    let cluster = Cluster::start_with(3, &["--allow-faults"]).await;
    let (a, b, c) = (cluster.node(0), cluster.node(1), cluster.node(2));
    let cut = json!({"fault": "cut", "peers": ["n2"], "duration_ms": 120_000});
    let taken = a.post("/admin/v1/faults", &cut, &[]).await;
    assert_eq!(taken.status, 201, "{}", taken.text());
    for (seen_by, other) in [(a, "n2"), (b, "n1")] {
        let reason = format!("{} has no link with {other}", seen_by.name);
        wait_until(&reason, PATIENCE, || async { member(seen_by, other).await["linked"] == false }).await;
    }
    for (seen_by, other) in [(a, "n3"), (c, "n1"), (c, "n2"), (b, "n3")] {
        assert_eq!(member(seen_by, other).await["linked"], true, "{} and {other}", seen_by.name);
    }
    // Who cannot be probed is asked after by way of others: gossip does not call it dead.
    assert_ne!(member(a, "n2").await["gossip"], "down");
    for node in cluster.nodes() {
        write(node, "mug", 7).await;
    }
    let path = format!("/admin/v1/faults/{}", taken.json()["id"]);
    let ended = a.client().send(hyper::Method::DELETE, &path, &[], None).await.expect("an answer");
    assert_eq!(ended.status, 200, "{}", ended.text());
    for (seen_by, other) in [(a, "n2"), (b, "n1")] {
        let reason = format!("{} is linked with {other} again", seen_by.name);
        wait_until(&reason, PATIENCE, || async { member(seen_by, other).await["linked"] == true }).await;
    }
}

#[tokio::test]
async fn gossip_alone_tells_of_a_node_that_nobody_hears() {
    let _turn = turn().await;
    let cluster = Cluster::start_with(3, &["--allow-faults"]).await;
    let (victim, witness) = (cluster.node(2), cluster.node(0));
    let mute = json!({"fault": "cut", "direction": "outgoing", "duration_ms": 120_000});
    assert_eq!(victim.post("/admin/v1/faults", &mute, &[]).await.status, 201);
    let reason = "gossip gives up the node that is not heard";
    wait_until(reason, PATIENCE, || async { member(witness, "n3").await["gossip"] == "down" }).await;
    assert_eq!(victim.terminate().await.code(), Some(0), "a node drains, however cut off it is");
}

/// A member as another one sees it.
async fn member(node: &Node, name: &str) -> Value {
    let members = node.http_get("/admin/v1/members").await.json();
    let members = members["data"].as_array().cloned().unwrap_or_default();
    members.into_iter().find(|member| member["name"] == name).unwrap_or_else(|| panic!("{name} is no member"))
}

async fn in_force(node: &Node) -> bool {
    node.http_get("/admin/v1/faults").await.json()["data"] != json!([])
}

/// The shards that `owner` owns, as `node` sees it.
async fn owned(node: &Node, owner: &Value) -> Vec<u64> {
    let shards = node.http_get("/admin/v1/shards").await.json();
    let shards = shards["data"].as_array().cloned().unwrap_or_default();
    let owned = shards.iter().filter(|shard| shard["owner"] == *owner);
    owned.filter_map(|shard| shard["shard"].as_u64()).collect()
}

/// A SKU that is in this shard.
async fn sku_of(node: &Node, shard: u64) -> String {
    for number in 0..1000 {
        let sku = format!("cut-{number}");
        // What does not exist is in no shard that could be asked for.
        write(node, &sku, 0).await;
        let entity = node.http_get(&format!("/admin/v1/entities/stock/{sku}")).await.json();
        if entity["shard"] == shard {
            return sku;
        }
    }
    panic!("a thousand names and none in shard {shard}")
}

async fn write(node: &Node, sku: &str, on_hand: u64) {
    let (path, body) = (format!("/v1/inventory/{sku}"), json!({"on_hand": on_hand}));
    let accepted = || async {
        let answer = node.put(&path, &body).await;
        assert!(matches!(answer.status, 200 | 429 | 503 | 504), "{}", answer.text());
        answer.status == 200
    };
    wait_until(&format!("{} takes a write of {sku}", node.name), PATIENCE, accepted).await;
}
