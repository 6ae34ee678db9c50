//! Members that leave for good, over HTTP.

use super::{PATIENCE, Shop, order};
use serde_json::{Value, json};

const LEAVE: &str = "/admin/v1/members/node-2/leave";

#[tokio::test(flavor = "multi_thread")]
async fn a_member_leaves_when_its_shards_are_elsewhere_and_nothing_is_lost() {
    let shop = Shop::start(4).await;
    shop.stock("mug", 10).await;
    let placed = shop.send("POST", "/v1/orders").key("k").header("prefer", "wait=20").json(&order("mug", 2));
    let placed = placed.await_answer().await.is(201).body;
    let (status, code, _) = shop.send("POST", "/admin/v1/members/nobody/leave").problem().await;
    assert_eq!((status, code.as_str()), (404, "not-found"));
    let (status, code, _) = shop.send("POST", LEAVE).header("if-match", "\"1\"").problem().await;
    assert_eq!((status, code.as_str()), (412, "version-mismatch"));

    let leave = |node, path| shop.send_to(node, "POST", path).key("go");
    let answer = leave(0, LEAVE).await_answer().await.is(202);
    assert_eq!(answer.body, json!({"name": "node-2", "leaving": true}));
    assert_eq!(leave(2, LEAVE).await_answer().await.is(202).header("idempotent-replayed"), "true");
    let (status, code, _) = leave(0, "/admin/v1/members/node-3/leave").problem().await;
    assert_eq!((status, code.as_str()), (422, "idempotency-key-reused"));

    tokio::time::timeout(PATIENCE, shop.cluster.on_node(1).left()).await.expect("it has left");
    let is_gone = |members: &Value| members["data"].as_array().is_some_and(|all| all.len() == 3);
    shop.wait_until("/admin/v1/members", "it is struck off", is_gone).await;
    let settled = |shards: &Value| {
        let replicas = |shard: &Value| shard["replicas"].as_array().cloned().unwrap_or_default();
        let fine = |shard: &Value| {
            let (voters, owner) = (&shard["voters"], &shard["owner"]);
            let known = voters.as_array().is_some_and(Vec::is_empty) || voters == &shard["replicas"];
            replicas(shard).len() == 3 && known && replicas(shard).contains(owner)
        };
        shards["data"].as_array().is_some_and(|all| all.len() == 4 && all.iter().all(fine))
    };
    shop.wait_until("/admin/v1/shards", "three replicas of each shard", settled).await;
    shop.cluster.on_node(1).status();
    for node in [0, 2, 3] {
        let path = format!("/v1/orders/{}", placed["id"].as_str().expect("an id"));
        let read = shop.send_to(node, "GET", &path).await_answer().await.is(200);
        assert_eq!(read.text("status"), "confirmed", "node {node}");
    }
    let again = shop.send("POST", "/v1/orders").key("k").json(&order("mug", 2)).await_answer().await.is(201);
    assert_eq!((again.header("idempotent-replayed"), &again.body["id"]), ("true", &placed["id"]));
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_member_cannot_leave() {
    let shop = Shop::start(1).await;
    let (status, code, _) = shop.send("POST", "/admin/v1/members/node-1/leave").problem().await;
    assert_eq!((status, code.as_str()), (409, "conflict"));
    shop.stop().await;
}
