//! Nodes die without a word, one after the other and all at once, while customers order.

use crate::{
    audit::audit,
    harness::{Cluster, Node, PATIENCE, turn, wait_until},
    shop::{self, Load},
};

const ROUNDS: usize = 5;
const CUSTOMERS: usize = 32;
/// Acknowledged orders while a node is down, and again when it is back, before the next one dies.
const ORDERS_BETWEEN: usize = 16;

#[tokio::test]
async fn an_order_reaches_confirmed_through_each_node() {
    let _turn = turn().await;
    let cluster = Cluster::start(3).await;
    shop::stock_up(cluster.node(0)).await;
    for (number, node) in cluster.nodes().iter().enumerate() {
        let key = format!("through-{}", node.name);
        let headers = [("idempotency-key", key.as_str()), ("prefer", "wait=20")];
        let answer = node.post("/v1/orders", &shop::order(0), &headers).await;
        assert_eq!((answer.status, &answer.json()["status"]), (201, &"confirmed".into()), "{}", answer.text());
        let stock = node.http_get("/v1/inventory/mug").await.json();
        assert_eq!(stock["committed"], number + 1, "{stock}");
    }
}

#[tokio::test]
async fn no_acknowledged_order_is_lost_when_each_node_is_killed_in_turn() {
    let _turn = turn().await;
    let cluster = Cluster::start(3).await;
    shop::stock_up(cluster.node(0)).await;
    let load = Load::start(&cluster, "turns", CUSTOMERS);
    load.wait_more(CUSTOMERS, "before anyone dies").await;
    for round in 1..=ROUNDS {
        for node in cluster.nodes() {
            kill_an_owner(node, &load, round).await;
        }
    }
    audit(&cluster, &load.finish().await).await;
}

async fn kill_an_owner(node: &Node, load: &Load, round: usize) {
    let name = &node.name;
    let reason = format!("{name} owns shards before it dies in round {round}");
    wait_until(&reason, PATIENCE, || async { shards_owned(node).await > 0 }).await;
    node.kill9();
    load.wait_more(ORDERS_BETWEEN, &format!("without {name} in round {round}")).await;
    node.restart();
    node.wait_ready(&format!("again in round {round}")).await;
    load.wait_more(ORDERS_BETWEEN, &format!("with {name} back in round {round}")).await;
}

/// As the node itself sees it.
async fn shards_owned(node: &Node) -> u64 {
    let status = node.get("/admin/v1/status").await.map(|answer| answer.json());
    status.ok().and_then(|status| status["shards_owned"].as_u64()).unwrap_or(0)
}

#[tokio::test]
async fn no_acknowledged_order_is_lost_when_all_nodes_are_killed_at_once() {
    let _turn = turn().await;
    let cluster = Cluster::start(3).await;
    shop::stock_up(cluster.node(0)).await;
    let load = Load::start(&cluster, "at-once", CUSTOMERS);
    for round in 1..=2 {
        load.wait_more(CUSTOMERS * 2, &format!("before everyone dies for the {round}. time")).await;
        cluster.nodes().iter().for_each(Node::kill9);
        cluster.nodes().iter().for_each(Node::restart);
        cluster.wait_ready("after all were killed").await;
    }
    load.wait_more(CUSTOMERS, "when all are back").await;
    audit(&cluster, &load.finish().await).await;
}
