//! Members come and go for good: shards move to who joins, and away from who leaves.

use crate::{
    audit::audit_on,
    harness::{Cluster, Node, PATIENCE, run, turn, wait_until},
    shop::{self, Load},
};
use serde_json::{Value, json};
use std::fs;

/// Checkpoints so often, and so little of the log kept behind them, that who starts from nothing needs
/// a snapshot.
const SHORT_LOG: [&str; 4] = ["--set", "shard.checkpoint_interval=500ms", "--set", "replication.entries_kept=1"];

async fn names(node: &Node) -> Vec<String> {
    let members = node.http_get("/admin/v1/members").await.json();
    let name = |member: &Value| member["name"].as_str().expect("a name").to_owned();
    members["data"].as_array().expect("members").iter().map(name).collect()
}

fn ids(value: &Value) -> Vec<u64> {
    value.as_array().map(|ids| ids.iter().filter_map(Value::as_u64).collect()).unwrap_or_default()
}

/// A shard that is where it is wanted.
pub struct Settled {
    pub replicas: Vec<u64>,
    pub owner: u64,
}

/// All shards, as the node sees them; `None` while one of them is owned by none of its replicas, or the node holds
/// one of it and knows of other voters.
pub async fn settled(node: &Node) -> Option<Vec<Settled>> {
    let shards = node.get("/admin/v1/shards").await.ok()?.json()["data"].as_array()?.clone();
    let settled = |shard: &Value| {
        let (replicas, voters, owner) = (ids(&shard["replicas"]), ids(&shard["voters"]), shard["owner"].as_u64()?);
        let is_settled = (voters.is_empty() || voters == replicas) && replicas.contains(&owner);
        is_settled.then_some(Settled { replicas, owner })
    };
    shards.iter().map(settled).collect::<Option<Vec<_>>>().filter(|shards| !shards.is_empty())
}

/// Waits until every shard is on so many of these nodes and on no others, its owner is one of them, each of
/// them owns something, and whoever holds a replica knows that they vote.
async fn wait_settled(node: &Node, on: &[u64], replicas: usize) {
    let reason = format!("all shards are on {replicas} of the nodes {on:?}, as {} sees it", node.name);
    wait_until(&reason, PATIENCE, || async {
        let Some(shards) = settled(node).await else { return false };
        let is_wanted = |shard: &Settled| {
            shard.replicas.len() == replicas && shard.replicas.iter().all(|replica| on.contains(replica))
        };
        let owns = |node: &u64| shards.iter().any(|shard| shard.owner == *node);
        shards.iter().all(is_wanted) && on.iter().all(owns)
    })
    .await;
}

#[tokio::test]
async fn a_node_that_joins_takes_its_share_and_one_that_leaves_gives_its_own_away_under_load() {
    let _turn = turn().await;
    let cluster = Cluster::plan(4, &SHORT_LOG);
    cluster.nodes()[..3].iter().for_each(Node::restart);
    cluster.wait_ready("before the fourth").await;
    shop::stock_up(cluster.node(1)).await;
    let load = Load::start(&cluster, "members", 8);
    load.wait_more(50, "with three nodes").await;

    cluster.node(3).restart();
    cluster.node(3).wait_ready("with replicas that vote").await;
    for node in cluster.nodes() {
        wait_settled(node, &[1, 2, 3, 4], 3).await;
    }
    load.wait_more(50, "with four nodes").await;

    // Through another node, as often as one likes.
    let leave =
        async || cluster.node(2).post("/admin/v1/members/n1/leave", &json!({}), &[("idempotency-key", "go")]).await;
    let answer = leave().await;
    assert_eq!((answer.status, answer.json()), (202, json!({"name": "n1", "leaving": true})), "{}", answer.text());
    assert_eq!(leave().await.header("idempotent-replayed"), Some("true"));
    let status = cluster.node(0).wait_exit("once its shards are elsewhere").await;
    assert!(status.success(), "{status}: {}", cluster.node(0).log_tail());
    for node in &cluster.nodes()[1..] {
        wait_settled(node, &[2, 3, 4], 3).await;
        let is_struck_off = || async { names(node).await == ["n2", "n3", "n4"] };
        wait_until(&format!("{} knows that n1 has left", node.name), PATIENCE, is_struck_off).await;
    }
    load.wait_more(50, "without the first").await;
    cluster.node(0).restart();
    assert_eq!(cluster.node(0).wait_exit("as it is no member").await.code(), Some(1));
    assert!(cluster.node(0).log_tail().contains("not a member of the cluster any more"));

    // They are three that count: one of them may die.
    cluster.node(1).kill9();
    load.wait_more(50, "with two of the three that are left").await;
    cluster.node(1).restart();
    cluster.node(1).wait_ready("again").await;
    let placed = load.finish().await;
    audit_on(&cluster.nodes()[1..], &placed).await;

    // All of them, from what they have on disk.
    cluster.nodes()[1..].iter().for_each(Node::kill9);
    cluster.nodes()[1..].iter().for_each(Node::restart);
    for node in &cluster.nodes()[1..] {
        node.wait_ready("after all had died").await;
    }
    audit_on(&cluster.nodes()[1..], &placed).await;
}

#[tokio::test]
async fn owners_that_die_while_shards_move_lose_nothing_and_hold_nothing_up() {
    let _turn = turn().await;
    let cluster = Cluster::plan(4, &SHORT_LOG);
    cluster.nodes()[..3].iter().for_each(Node::restart);
    cluster.wait_ready("before the fourth").await;
    shop::stock_up(cluster.node(0)).await;
    let load = Load::start(&cluster, "moving", 8);
    load.wait_more(50, "with three nodes").await;

    cluster.node(3).restart();
    wait_until("the fourth is a member", PATIENCE, || async { names(cluster.node(0)).await.len() == 4 }).await;
    cluster.node(1).kill9();
    load.wait_more(50, "with a node dead and shards on the move").await;
    cluster.node(1).restart();
    for node in cluster.nodes() {
        wait_settled(node, &[1, 2, 3, 4], 3).await;
    }

    let answer = cluster.node(2).post("/admin/v1/members/n1/leave", &json!({}), &[]).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    cluster.node(2).kill9();
    load.wait_more(50, "with another one dead, and one on its way out").await;
    cluster.node(2).restart();
    assert!(cluster.node(0).wait_exit("once its shards are elsewhere").await.success());
    for node in &cluster.nodes()[1..] {
        node.wait_ready("in the end").await;
        wait_settled(node, &[2, 3, 4], 3).await;
    }
    let placed = load.finish().await;
    audit_on(&cluster.nodes()[1..], &placed).await;
}

#[tokio::test]
async fn a_member_that_leaves_while_another_is_down_waits_for_it_and_holds_nobody_up() {
    let _turn = turn().await;
    let cluster = Cluster::start(3).await;
    shop::stock_up(cluster.node(1)).await;
    let load = Load::start(&cluster, "waiting", 4);
    load.wait_more(20, "with three nodes").await;
    cluster.node(0).kill9();
    let answer = cluster.node(1).post("/admin/v1/members/n3/leave", &json!({}), &[]).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    // The two that would be left need each other, and one of them is down.
    load.wait_more(50, "with one dead and one that would like to leave").await;
    assert_eq!(names(cluster.node(1)).await, ["n1", "n2", "n3"]);
    cluster.node(0).restart();
    assert!(cluster.node(2).wait_exit("now that the first is back").await.success());
    for node in &cluster.nodes()[..2] {
        wait_settled(node, &[1, 2], 2).await;
    }
    let placed = load.finish().await;
    audit_on(&cluster.nodes()[..2], &placed).await;
}

#[tokio::test]
async fn a_dead_member_is_removed_and_told_so_when_it_comes_back() {
    let _turn = turn().await;
    let cluster = Cluster::start(3).await;
    shop::stock_up(cluster.node(0)).await;
    let (dead, url) = (cluster.node(2), cluster.node(0).url.as_str());
    dead.kill9();
    let output = run(&["remove", "n3", "--url", url]).await;
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("n3 has left"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for node in &cluster.nodes()[..2] {
        wait_settled(node, &[1, 2], 2).await;
    }
    let output = run(&["remove", "n3", "--url", url]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("not-found"));

    dead.restart();
    assert_eq!(dead.wait_exit("as it is no member").await.code(), Some(1));
    assert!(dead.log_tail().contains("n3 is not a member of the cluster any more"), "{}", dead.log_tail());
    fs::remove_dir_all(dead.data_dir()).expect("emptied");
    dead.restart();
    dead.wait_ready("as a new member").await;
    for node in cluster.nodes() {
        wait_settled(node, &[1, 2, 4], 3).await;
    }

    // `leave` is of the node that is asked; the last two cannot both go.
    let output = run(&["leave", "--url", &cluster.node(1).url, "--json"]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).expect("JSON"), json!({"name": "n2", "left": true}));
    assert!(cluster.node(1).wait_exit("by itself").await.success());
    let output = run(&["leave", "--url", url]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(cluster.node(0).wait_exit("by itself").await.success());
    wait_settled(dead, &[4], 1).await;
    let output = run(&["leave", "--url", &dead.url]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("last member"));
    let mug = dead.http_get("/v1/inventory/mug").await;
    assert_eq!(mug.json()["on_hand"], 100_000, "nothing is lost on the way: {}", mug.text());
}
