//! `quorate verify` against real nodes: what was acknowledged is proven after all of them were
//! killed, and what was not is refuted.

use crate::{
    harness::{Cluster, Node, PATIENCE, free_ports, run, turn, wait_until},
    shop,
};
use serde_json::{Value, json};
use std::{fs, path::Path, process::Output};

const ORDERS: usize = 60;

async fn verify(file: &Path, urls: &str, arguments: &[&str]) -> Output {
    let fixed = ["verify", file.to_str().expect("a path"), "--urls", urls, "--json"];
    run(&fixed.iter().chain(arguments).copied().collect::<Vec<_>>()).await
}

fn report(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)))
}

/// Orders through all nodes; a line for each, as a client would keep it.
async fn order(nodes: &[Node], count: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for number in 0..count {
        let key = format!("verify-{number}");
        let headers = [("idempotency-key", key.as_str())];
        let answer = nodes[number % nodes.len()].post("/v1/orders", &shop::order(number), &headers).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        let receipt = answer.header("x-receipt").expect("an acknowledged write carries a receipt");
        lines.push(json!({"path": "/v1/orders", "id": answer.json()["id"], "receipt": receipt}).to_string());
    }
    lines
}

#[tokio::test]
async fn every_receipt_is_proven_after_all_nodes_were_killed_and_a_forged_one_is_refuted() {
    let _turn = turn().await;
    let cluster = Cluster::start(3).await;
    shop::stock_up(cluster.node(0)).await;
    let lines = order(cluster.nodes(), ORDERS).await;
    cluster.nodes().iter().for_each(Node::kill9);
    cluster.nodes().iter().for_each(Node::restart);
    cluster.wait_ready("after all were killed").await;

    let file = cluster.dir().join("receipts.jsonl");
    fs::write(&file, lines.join("\n")).expect("writing");
    // One URL is enough: it knows the others.
    let url = cluster.node(1).url.clone();
    let output = verify(&file, &url, &[]).await;
    let proven = report(&output);
    assert_eq!(output.status.code(), Some(0), "{proven}");
    assert_eq!((&proven["lines"], &proven["proven"]), (&ORDERS.into(), &ORDERS.into()), "{proven}");
    assert_eq!(proven["nodes"].as_array().map(Vec::len), Some(3), "{proven}");

    let real = serde_json::from_str::<Value>(&lines[0]).expect("JSON")["receipt"].as_str().expect("text").to_owned();
    let (place, hash) = real.rsplit_once('-').expect("a hash");
    let other_hash = format!("{place}-{:08x}", u32::from_str_radix(hash, 16).expect("hexadecimal") ^ 1);
    let mut parts: Vec<&str> = real.split('-').collect();
    parts[2] = "987654321";
    for (forged, outcome) in [(other_hash, "contradicted"), (parts.join("-"), "lost")] {
        fs::write(&file, format!("{}\n{forged}\n", lines.join("\n"))).expect("writing");
        let output = verify(&file, &url, &[]).await;
        let refuted = report(&output);
        assert_eq!(output.status.code(), Some(1), "{refuted}");
        assert_eq!((&refuted[outcome], &refuted["proven"]), (&1.into(), &ORDERS.into()), "{refuted}");
        assert_eq!(refuted["problems"][0]["line"], ORDERS + 1, "{refuted}");
    }

    // A majority is enough to prove it, and one node is not.
    fs::write(&file, lines.join("\n")).expect("writing");
    let urls: Vec<&str> = cluster.nodes().iter().map(|node| node.url.as_str()).collect();
    cluster.node(2).kill9();
    let output = verify(&file, &urls.join(","), &[]).await;
    assert_eq!((output.status.code(), &report(&output)["proven"]), (Some(0), &ORDERS.into()));
    cluster.node(1).kill9();
    let output = verify(&file, &urls.join(","), &["--wait", "1s"]).await;
    assert_eq!((output.status.code(), &report(&output)["undecided"]), (Some(3), &ORDERS.into()));
}

#[tokio::test]
async fn a_replica_that_was_away_learns_what_was_acknowledged_meanwhile() {
    let _turn = turn().await;
    let cluster = Cluster::start(3).await;
    shop::stock_up(cluster.node(0)).await;
    cluster.node(2).kill9();
    let lines = order(&cluster.nodes()[..2], 20).await;
    cluster.node(2).restart();
    for line in &lines {
        let receipt = serde_json::from_str::<Value>(line).expect("JSON")["receipt"].as_str().expect("text").to_owned();
        wait_until(&format!("the node that was away confirms {receipt}"), PATIENCE, || async {
            let answer = cluster.node(2).get(&format!("/admin/v1/receipts/{receipt}")).await;
            answer.is_ok_and(|answer| answer.json()["verdict"] == "confirmed")
        })
        .await;
    }
}

#[tokio::test]
async fn a_file_that_holds_no_receipts_is_exit_code_2_and_a_cluster_that_is_not_there_3() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("receipts.jsonl");
    let url = format!("http://127.0.0.1:{}", free_ports(1)[0]);
    for (text, why) in [("", "no receipt"), ("{\"id\":\"ord_1\"}\n", ":1: "), ("3-2-7-0000000a\n7\n", ":2: ")] {
        fs::write(&file, text).expect("writing");
        let output = verify(&file, &url, &[]).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("receipts.jsonl") && said.contains(why) && said.lines().count() == 1, "{said}");
    }
    fs::write(&file, "3-2-7-0000000a\n").expect("writing");
    let output = verify(&file, &url, &["--wait", "0s"]).await;
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
}
