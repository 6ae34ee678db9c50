//! Nodes that stop in order, start in any order, come back, join, or must not.

use crate::{
    audit::audit,
    harness::{Cluster, Node, PATIENCE, free_ports, run, turn, wait_until},
    shop::{self, Load},
};
use serde_json::Value;
use std::{path::Path, process::Output};

#[tokio::test]
async fn a_cluster_that_was_stopped_starts_again_from_its_disks() {
    let _turn = turn().await;
    let cluster = Cluster::start(3).await;
    shop::stock_up(cluster.node(0)).await;
    let load = Load::start(&cluster, "stopped", 16);
    load.wait_more(48, "before the stop").await;
    let placed = load.finish().await;
    audit(&cluster, &placed).await;
    let id = cluster_id(cluster.node(0)).await;
    for node in cluster.nodes() {
        let status = node.terminate().await;
        assert!(status.success(), "{}: {status}", node.name);
    }
    cluster.nodes().iter().rev().for_each(Node::restart);
    cluster.wait_ready("from its disk").await;
    for node in cluster.nodes() {
        assert_eq!(cluster_id(node).await, id, "{}", node.name);
    }
    audit(&cluster, &placed).await;
    confirm(cluster.node(2), "after the restart").await;
}

#[tokio::test]
async fn nodes_of_a_new_cluster_may_start_in_any_order() {
    let _turn = turn().await;
    let cluster = Cluster::plan(3, &[]);
    for index in [2, 1] {
        cluster.node(index).restart();
        let node = cluster.node(index);
        let answers = || async { node.get("/livez").await.is_ok_and(|answer| answer.status == 200) };
        wait_until(&format!("{} lives without its seeds", node.name), PATIENCE, answers).await;
        for early in cluster.nodes().iter().filter(|node| node.pid().is_some()) {
            assert_eq!(early.http_get("/readyz").await.status, 503, "{} cannot be ready yet", early.name);
        }
    }
    cluster.node(0).restart();
    cluster.wait_ready("when all three are there").await;
    let id = cluster_id(cluster.node(0)).await;
    assert!(id.is_string(), "{id}");
    for node in cluster.nodes() {
        assert_eq!(cluster_id(node).await, id, "{}", node.name);
    }
    shop::stock_up(cluster.node(1)).await;
    confirm(cluster.node(2), "late").await;
}

#[tokio::test]
async fn a_fourth_node_joins_through_the_seeds_that_are_left_and_serves() {
    let _turn = turn().await;
    let cluster = Cluster::plan(4, &[]);
    cluster.nodes()[..3].iter().for_each(Node::restart);
    cluster.wait_ready("before the fourth").await;
    shop::stock_up(cluster.node(0)).await;
    cluster.node(0).kill9();
    cluster.node(3).restart();
    cluster.node(3).wait_ready("although one seed is down").await;
    confirm(cluster.node(3), "fourth").await;
    cluster.node(0).restart();
    cluster.node(0).wait_ready("again").await;
    for node in cluster.nodes() {
        let all = || async { node.get("/admin/v1/members").await.is_ok_and(|answer| sees_four(&answer.json())) };
        wait_until(&format!("{} sees four living members", node.name), PATIENCE, all).await;
        assert_eq!(cluster_id(node).await, cluster_id(cluster.node(3)).await);
    }
    let status = cluster.node(3).terminate().await;
    assert!(status.success(), "{status}");
    cluster.node(3).restart();
    cluster.node(3).wait_ready("after its own restart").await;
    confirm(cluster.node(3), "fourth-again").await;
}

fn sees_four(members: &Value) -> bool {
    let members = members["data"].as_array().cloned().unwrap_or_default();
    members.len() == 4 && members.iter().all(|member| member["gossip"] == "alive")
}

#[tokio::test]
async fn a_data_directory_of_another_cluster_is_refused_in_one_line() {
    let _turn = turn().await;
    let (theirs, ours) = (Cluster::start(1).await, Cluster::start(1).await);
    let stranger = theirs.node(0);
    assert!(stranger.terminate().await.success());
    let output = start(&ours, &stranger.name, &stranger.data_dir()).await;
    assert_refused(&output, &["data directory", "belongs to cluster", &ours.node(0).listen, "node.data_dir"]);
    confirm_alive(&ours).await;
}

#[tokio::test]
async fn a_name_that_is_taken_is_refused_in_one_line() {
    let _turn = turn().await;
    let cluster = Cluster::start(3).await;
    let output = start(&cluster, "n2", &cluster.dir().join("impostor")).await;
    assert_refused(&output, &["n2", "another data directory", "choose another name"]);
    confirm_alive(&cluster).await;
}

/// Runs a node that must not come to be a member, to its end.
async fn start(cluster: &Cluster, name: &str, data_dir: &Path) -> Output {
    let ports = free_ports(2);
    let [listen, http] = [ports[0], ports[1]].map(|port| format!("127.0.0.1:{port}"));
    let (data, seed) = (data_dir.display().to_string(), &cluster.node(0).listen);
    let secret = cluster.dir().join("secret").display().to_string();
    let mut arguments = vec!["node", "--name", name, "--listen", &listen, "--http", &http, "--data-dir", &data];
    arguments.extend(["--seeds", seed, "--secret-file", &secret]);
    run(&arguments).await
}

/// Exit code 1 or 2, and beside the log one line that says why.
fn assert_refused(output: &Output, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(matches!(output.status.code(), Some(1 | 2)), "{}: {said}", output.status);
    // A line of the log begins with its time.
    let (log, last): (Vec<&str>, Vec<&str>) = said.lines().partition(|line| line.starts_with("20"));
    assert!(last.len() == 1 && last[0].starts_with("error: "), "one line: {said}");
    assert!(!log.iter().any(|line| line.contains("panicked")), "{said}");
    for word in words {
        assert!(last[0].contains(word), "{word:?} is missing: {said}");
    }
}

async fn confirm_alive(cluster: &Cluster) {
    shop::stock_up(cluster.node(0)).await;
    confirm(cluster.node(0), "still-alive").await;
}

#[tokio::test]
async fn a_node_that_is_told_to_stop_under_load_loses_nothing() {
    let _turn = turn().await;
    let cluster = Cluster::start(3).await;
    shop::stock_up(cluster.node(0)).await;
    let load = Load::start(&cluster, "drain", 32);
    for node in cluster.nodes() {
        load.wait_more(48, &format!("before {} is told to stop", node.name)).await;
        let status = node.terminate().await;
        assert!(status.success(), "{}: {status}", node.name);
        load.wait_more(16, &format!("without {}", node.name)).await;
        node.restart();
        node.wait_ready("after its drain").await;
    }
    audit(&cluster, &load.finish().await).await;
}

async fn confirm(node: &Node, name: &str) {
    let key = name.replace(' ', "-");
    let headers = [("idempotency-key", key.as_str()), ("prefer", "wait=20")];
    let answer = node.post("/v1/orders", &shop::order(0), &headers).await;
    assert_eq!((answer.status, &answer.json()["status"]), (201, &"confirmed".into()), "{name}: {}", answer.text());
}

async fn cluster_id(node: &Node) -> Value {
    node.http_get("/admin/v1/status").await.json()["cluster"].take()
}
