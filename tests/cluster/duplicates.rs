//! Duplicates of one request through every node, while the node that decides them dies.

use crate::harness::{Cluster, Node, PATIENCE, turn};
use futures::future::join_all;
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

const KEYS: usize = 12;
/// Senders of one request; each asks one node after the other.
const SENDERS: usize = 8;

#[tokio::test]
async fn duplicates_have_one_effect_and_one_answer_although_their_owner_is_killed() {
    let _turn = turn().await;
    let cluster = Cluster::start(3).await;
    cluster.node(0).put("/v1/inventory/mug", &json!({"on_hand": 100})).await;
    let owner = owner(cluster.node(0)).await;
    let answered = AtomicUsize::new(0);
    let sending = async {
        let mut all = Vec::new();
        for key in 0..KEYS {
            let send = |sender: usize| insist(cluster.nodes(), sender, format!("key-{key}"), &answered);
            all.push(join_all((0..SENDERS).map(send)).await);
        }
        all
    };
    let killing = async {
        while answered.load(Ordering::Relaxed) < SENDERS * 3 {
            tokio::task::yield_now().await;
        }
        cluster.node(owner).kill9();
        answered.load(Ordering::Relaxed)
    };
    let (answers, answered_before) = tokio::join!(sending, killing);
    assert!(answered_before < SENDERS * KEYS, "it died while they were being sent");
    for (key, answers) in answers.into_iter().enumerate() {
        let different: BTreeSet<_> = answers.into_iter().collect();
        assert_eq!(different.len(), 1, "key-{key}: {different:?}");
        let body: Value = serde_json::from_str(&different.first().expect("one").1).expect("JSON");
        assert_eq!(body["on_hand"], 99 - key, "each key took one");
    }
    let stock = cluster.node((owner + 1) % 3).http_get("/v1/inventory/mug").await.json();
    assert_eq!((&stock["on_hand"], &stock["version"]), (&json!(100 - KEYS), &json!(1 + KEYS)), "{stock}");
}

/// The index of the node that decides about mugs.
async fn owner(node: &Node) -> usize {
    let owner = node.http_get("/admin/v1/entities/stock/mug").await.json()["owner"].clone();
    let members = node.http_get("/admin/v1/members").await.json();
    let members = members["data"].as_array().expect("members");
    let name = &members.iter().find(|member| member["node"] == owner).expect("the owner is a member")["name"];
    let number: usize = name.as_str().expect("a name").trim_start_matches('n').parse().expect("n1, n2, n3");
    number - 1
}

/// Takes one mug under a key, asking node after node until one says what happened: etag and body.
async fn insist(nodes: &[Node], sender: usize, key: String, answered: &AtomicUsize) -> (String, String) {
    let (body, began) = (json!({"delta": -1, "reason": "broken"}), Instant::now());
    let headers = [("idempotency-key", key.as_str())];
    for turn in sender.. {
        let client = nodes[turn % nodes.len()].client().with_timeout(Duration::from_secs(5));
        match client.post("/v1/inventory/mug/adjustments", &body, &headers).await {
            Ok(answer) if answer.status == 200 => {
                answered.fetch_add(1, Ordering::Relaxed);
                return (answer.header("etag").unwrap_or_default().to_owned(), answer.text().into_owned());
            }
            Ok(answer) => assert!(matches!(answer.status, 503 | 504), "{key}: {}", answer.text()),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
        assert!(began.elapsed() < PATIENCE, "{key} is not answered");
    }
    unreachable!("there is always another turn")
}
