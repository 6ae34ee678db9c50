//! A node whose directory is damaged or lost comes back on an empty one, in its own place, and is
//! filled from the others.

use crate::{
    audit::audit,
    harness::{Cluster, Node, PATIENCE, run, turn, wait_until},
    shop::{self, Load},
};
use serde_json::Value;
use std::{fs, path::Path};

/// Checkpoints so often, and so little of the log kept behind them, that who starts from nothing needs
/// a snapshot.
const SHORT_LOG: [&str; 4] = ["--set", "shard.checkpoint_interval=500ms", "--set", "replication.entries_kept=1"];

async fn members(node: &Node) -> Vec<(u64, String)> {
    let members = node.http_get("/admin/v1/members").await.json();
    let member = |m: &Value| (m["node"].as_u64().expect("an id"), m["name"].as_str().expect("a name").to_owned());
    members["data"].as_array().expect("members").iter().map(member).collect()
}

/// Waits until every shard's voters are those that the catalog wants, node 4 among them.
async fn wait_filled(node: &Node, newcomer: u64) {
    let reason = format!("node {newcomer} votes in every shard, as {} knows it", node.name);
    wait_until(&reason, PATIENCE, || async {
        let Ok(shards) = node.get("/admin/v1/shards").await else { return false };
        let shards = shards.json();
        let shards = shards["data"].as_array().cloned().unwrap_or_default();
        let votes = |shard: &Value| shard["voters"].as_array().is_some_and(|v| v.contains(&newcomer.into()));
        !shards.is_empty() && shards.iter().all(|shard| votes(shard) && shard["voters"] == shard["replicas"])
    })
    .await;
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        match entry.file_type().expect("a type").is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).expect("copied")),
        }
    }
}

#[tokio::test]
async fn a_node_that_lost_its_directory_is_filled_again_under_load_and_then_counts() {
    let _turn = turn().await;
    let cluster = Cluster::start_with(3, &SHORT_LOG).await;
    shop::stock_up(cluster.node(0)).await;
    let load = Load::start(&cluster, "replace", 8);
    load.wait_more(100, "before the disk is lost").await;
    let (lost, aside) = (cluster.node(2), cluster.dir().join("aside"));
    lost.kill9();
    copy(&lost.data_dir(), &aside);
    fs::remove_dir_all(lost.data_dir()).expect("wiped");

    lost.restart();
    assert_eq!(lost.wait_exit("without its directory").await.code(), Some(1));
    assert!(lost.log_tail().contains("--replace"), "the way out is named: {}", lost.log_tail());
    fs::remove_dir_all(lost.data_dir()).expect("emptied");
    lost.restart_with(&["--replace"]);
    lost.wait_ready("in its own place").await;
    for node in cluster.nodes() {
        wait_filled(node, 4).await;
    }
    load.wait_more(50, "with the new one").await;
    assert_eq!(members(cluster.node(0)).await, [(1, "n1".into()), (2, "n2".into()), (4, "n3".into())]);

    // It votes: with one of the others down, nothing is committed without it.
    cluster.node(0).kill9();
    load.wait_more(50, "with the new one as one of two").await;
    cluster.node(0).restart();
    cluster.node(0).wait_ready("again").await;
    let placed = load.finish().await;
    audit(&cluster, &placed).await;

    // The flag is of no effect on a directory that is in use.
    lost.kill9();
    lost.restart_with(&["--replace"]);
    lost.wait_ready("with the flag left on").await;
    assert_eq!(members(lost).await.last(), Some(&(4, "n3".into())));

    // Who was replaced is not let in again.
    lost.kill9();
    fs::rename(lost.data_dir(), cluster.dir().join("new")).expect("moved");
    fs::rename(&aside, lost.data_dir()).expect("moved");
    lost.restart();
    assert_eq!(lost.wait_exit("as it is not a member any more").await.code(), Some(1));
    assert!(lost.log_tail().contains("another data directory"), "{}", lost.log_tail());
}

#[tokio::test]
async fn a_node_that_runs_is_not_replaced() {
    let _turn = turn().await;
    let cluster = Cluster::start(3).await;
    let mut twin: Vec<String> = cluster.node(2).arguments().to_vec();
    let ports = crate::harness::free_ports(2);
    for (flag, value) in [
        ("--listen", format!("127.0.0.1:{}", ports[0])),
        ("--http", format!("127.0.0.1:{}", ports[1])),
        ("--data-dir", cluster.dir().join("twin").display().to_string()),
    ] {
        let at = twin.iter().position(|argument| argument == flag).expect("a flag");
        twin[at + 1] = value;
    }
    twin.push("--replace".into());
    let twin = Node::other(&cluster, "twin", &format!("http://127.0.0.1:{}", ports[1]), twin);
    twin.restart();
    wait_until("the twin is told why it has to wait", PATIENCE, || async { twin.log_text().contains("is up: stop") })
        .await;
    assert_eq!(members(cluster.node(0)).await.len(), 3);
    assert_eq!(twin.http_get("/readyz").await.status, 503);
    cluster.node(2).kill9();
    twin.wait_ready("now that the other is gone").await;
    assert_eq!(members(cluster.node(0)).await, [(1, "n1".into()), (2, "n2".into()), (4, "n3".into())]);
    let arguments = cluster.node(2).arguments().iter().map(String::as_str).collect::<Vec<_>>();
    let output = run(&arguments).await;
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
}
