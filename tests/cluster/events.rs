//! `GET /admin/v1/events` on real nodes, with gossip: a node is killed, comes back, and goes on purpose.

use crate::harness::{Cluster, Node, PATIENCE, turn, wait_until};
use serde_json::{Value, json};
use std::sync::Mutex;

/// What one node has told since it was first asked, without gaps.
struct Told<'a> {
    by: &'a Node,
    events: Mutex<Vec<Value>>,
}

impl<'a> Told<'a> {
    fn by(node: &'a Node) -> Self {
        Self { by: node, events: Mutex::default() }
    }

    /// Waits for an event of this type; answers its data.
    async fn wait(&self, kind: &str, reason: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let find = || {
            let events = self.events.lock().expect("no panic while held");
            events
                .iter()
                .find(|event| event["type"] == kind && wanted(&event["data"]))
                .map(|event| event["data"].clone())
        };
        wait_until(&format!("{} tells that {reason}", self.by.name), PATIENCE, || async {
            self.read().await;
            find().is_some()
        })
        .await;
        find().expect("it was there")
    }

    async fn read(&self) {
        let last = self.events.lock().expect("no panic while held").last().map(|event| event["id"].clone());
        let after = last.and_then(|id| Some(format!("&starting_after={}", id.as_str()?))).unwrap_or_default();
        let page = self.by.http_get(&format!("/admin/v1/events?limit=100{after}")).await;
        assert_eq!(page.status, 200, "{}", page.text());
        let page = page.json()["data"].as_array().expect("a list").clone();
        self.events.lock().expect("no panic while held").extend(page);
    }

    /// What comes from here on.
    async fn forget(&self) {
        self.read().await;
        let mut events = self.events.lock().expect("no panic while held");
        let last = events.pop();
        // The last one is the place to go on from, and nothing that anybody waits for.
        *events = last.into_iter().map(|event| json!({"id": event["id"]})).collect();
    }
}

/// What the ids of a node's events begin with.
async fn boot_id(node: &Node) -> String {
    let page = node.http_get("/admin/v1/events?limit=1").await.json();
    let id = page["data"][0]["id"].as_str().expect("a node that is ready has seen something happen");
    id.split_once('-').expect("an event id").0.to_owned()
}

#[tokio::test]
async fn the_others_tell_when_a_node_dies_comes_back_as_another_process_and_goes_on_purpose() {
    let _turn = turn().await;
    let cluster = Cluster::start_with(3, &["--set", "cluster.shards=4"]).await;
    let (victim, witness) = (cluster.node(0), Told::by(cluster.node(1)));
    let of_victim = |data: &Value| data["name"] == json!(victim.name);
    let owned = |data: &Value| data["change"] == "elected" && data["owner_name"] == json!(victim.name);
    let shard = witness.wait("leadership", "the first node owns a shard", owned).await["shard"].clone();
    let before = boot_id(victim).await;

    witness.forget().await;
    victim.kill9();
    witness.wait("membership", "its link broke", |data| of_victim(data) && data["change"] == "unlinked").await;
    let taken_over = |data: &Value| {
        data["shard"] == shard && data["change"] == "elected" && data["owner_name"] != json!(victim.name)
    };
    witness.wait("leadership", "its shard has another owner", taken_over).await;
    witness.wait("membership", "gossip takes it for gone", |data| of_victim(data) && data["gossip"] == "down").await;

    witness.forget().await;
    victim.restart();
    let restarted = |data: &Value| of_victim(data) && data["change"] == "restarted";
    let after = witness.wait("membership", "it is another process", restarted).await["boot_id"].clone();
    victim.wait_ready("after it was killed").await;
    assert_eq!(after, json!(boot_id(victim).await), "the ids of its events begin with what the others show of it");
    assert_ne!(after, json!(before));

    witness.forget().await;
    assert!(victim.terminate().await.success());
    witness.wait("membership", "it said good-bye", |data| of_victim(data) && data["gossip"] == "down").await;
}
