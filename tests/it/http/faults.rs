//! Faults on purpose: refused by every node that was not started for them.

use super::Shop;
use quorate::{Cluster, ingress};
use serde_json::{Value, json};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_not_started_for_faults_takes_none() {
    let shop = Shop::start(1).await;
    let slow = json!({"fault": "slow-disk", "delay_ms": 5, "duration_ms": 1000});
    let refused = shop.send("POST", "/admin/v1/faults").json(&slow).problem().await;
    assert_eq!((refused.0, refused.1.as_str()), (403, "faults-not-allowed"));
    assert_eq!(shop.get("/admin/v1/faults").problem().await.1, "faults-not-allowed");
    assert_eq!(shop.send("DELETE", "/admin/v1/faults/1").problem().await.1, "faults-not-allowed");
    shop.stock("mug", 1).await;
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_is_listed_until_it_is_ended() {
    let shop = Shop::start_on(ingress::shop::register(Cluster::in_memory(1)).allow_faults(), 1).await;
    let slow = json!({"fault": "slow-disk", "delay_ms": 5, "duration_ms": 60_000});
    let first = shop.send("POST", "/admin/v1/faults").key("k").json(&slow).await_answer().await.is(201);
    let again = shop.send("POST", "/admin/v1/faults").key("k").json(&slow).await_answer().await.is(201);
    assert_eq!((again.header("idempotent-replayed"), &again.body), ("true", &first.body));
    let other = json!({"fault": "slow-disk", "delay_ms": 6, "duration_ms": 60_000});
    let reused = shop.send("POST", "/admin/v1/faults").key("k").json(&other).problem().await;
    assert_eq!(reused.1, "idempotency-key-reused");
    // Slow is not broken.
    shop.stock("mug", 1).await;
    let listed = shop.get("/admin/v1/faults").await_answer().await.is(200);
    assert_eq!(listed.body["data"], json!([first.body]));
    let path = format!("/admin/v1/faults/{}", first.body["id"]);
    shop.send("DELETE", &path).await_answer().await.is(200);
    assert_eq!(shop.send("DELETE", &path).problem().await.0, 404);
    assert_eq!(shop.get("/admin/v1/faults").await_answer().await.is(200).body["data"], json!([]));
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_that_cannot_be_is_told_by_its_fields() {
    let shop = Shop::start_on(ingress::shop::register(Cluster::in_memory(1)).allow_faults(), 1).await;
    let bad = json!({"fault": "slow-disk", "duration_ms": 0});
    let answer = shop.send("POST", "/admin/v1/faults").json(&bad).await_answer().await.is(422);
    let fields: Vec<&str> =
        answer.body["errors"].as_array().expect("errors").iter().filter_map(|error| error["field"].as_str()).collect();
    assert_eq!(fields, ["duration_ms", "delay_ms"]);
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_of_the_network_names_members_and_says_what_it_does() {
    let shop = Shop::start_on(ingress::shop::register(Cluster::in_memory(3)).allow_faults(), 3).await;
    let post = |fault: Value| shop.send("POST", "/admin/v1/faults").json(&fault);
    let delay =
        json!({"fault": "delay", "delay_ms": 5, "peers": ["node-2"], "direction": "outgoing", "duration_ms": 60_000});
    let created = post(delay.clone()).await_answer().await.is(201);
    let mut expected = delay;
    expected["id"] = created.body["id"].clone();
    assert_eq!(created.body, expected);
    let all = json!({"fault": "loss", "probability": 0.01, "duration_ms": 60_000});
    let all = post(all).await_answer().await.is(201);
    assert_eq!((&all.body["direction"], all.body.get("peers")), (&json!("both"), None));
    // Slow and lossy is not broken.
    shop.stock("mug", 1).await;
    let nobody = json!({"fault": "cut", "peers": ["node-2", "node-9"], "duration_ms": 1000});
    let refused = post(nobody).await_answer().await.is(422);
    let detail = "`node-9` is not another member of this cluster; there are node-2, node-3";
    assert_eq!(refused.body["errors"], json!([{"field": "peers", "detail": detail}]));
    let myself = post(json!({"fault": "cut", "peers": ["node-1"], "duration_ms": 1000})).problem().await;
    assert_eq!((myself.0, myself.1.as_str()), (422, "validation-failed"));
    let listed = shop.get("/admin/v1/faults").await_answer().await.is(200);
    assert_eq!(listed.body["data"], json!([expected, all.body]));
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_cut_off_by_its_own_fault_has_no_quorum_until_the_fault_ends_by_itself() {
    let shop = Shop::start_on(ingress::shop::register(Cluster::in_memory(3)).allow_faults(), 3).await;
    shop.stock("mug", 1).await;
    let cut = json!({"fault": "cut", "duration_ms": 8_000});
    shop.send("POST", "/admin/v1/faults").json(&cut).await_answer().await.is(201);
    let write = || shop.send("PUT", "/v1/inventory/mug").json(&json!({"on_hand": 2}));
    let refused = write().await_answer().await;
    assert!([503, 504].contains(&refused.status.as_u16()), "{}", refused.text);
    assert_eq!(shop.get("/v1/inventory/mug?consistency=local").await_answer().await.is(200).body["on_hand"], 1);
    let ended = async {
        while shop.get("/admin/v1/faults").await_answer().await.is(200).body["data"] != json!([]) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        while write().await_answer().await.status != 200 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.expect("it ends by itself, and writes go on");
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_disk_fails_says_that_it_cannot_go_on() {
    for fault in ["full-disk", "failed-fsync"] {
        let shop = Shop::start_on(ingress::shop::register(Cluster::in_memory(1)).allow_faults(), 1).await;
        let fault = json!({"fault": fault, "duration_ms": 60_000});
        shop.send("POST", "/admin/v1/faults").json(&fault).await_answer().await.is(201);
        let put = shop.send("PUT", "/v1/inventory/mug").json(&json!({"on_hand": 1})).await_answer();
        let (answer, why) = tokio::join!(put, shop.cluster.failed());
        assert!([503, 504].contains(&answer.status.as_u16()), "{}", answer.text);
        assert!(why.contains("on purpose"), "{why}");
        shop.stop().await;
    }
}
