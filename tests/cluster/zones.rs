//! A zone that dies takes no shard with it.

use crate::{
    audit::audit_on,
    harness::{Cluster, Node, PATIENCE, turn, wait_until},
    members::{Settled, settled},
    shop::{self, Load},
};

/// Two zones of two nodes, one of one.
const ZONES: [&str; 5] = ["a", "b", "c", "a", "b"];

/// Whether two of its replicas are in one zone: the ids of nodes are their numbers.
fn shares_a_zone(shard: &Settled) -> bool {
    let mut zones: Vec<&str> = shard.replicas.iter().map(|id| ZONES[*id as usize - 1]).collect();
    zones.sort_unstable();
    zones.windows(2).any(|two| two[0] == two[1])
}

#[tokio::test]
async fn a_cluster_that_is_told_its_zones_spreads_over_them_and_outlives_one() {
    let _turn = turn().await;
    let cluster = Cluster::plan(5, &[]);
    cluster.nodes()[..3].iter().for_each(Node::restart);
    for index in 0..3 {
        cluster.node(index).wait_ready("as a founder").await;
    }
    for index in [3, 4] {
        cluster.node(index).restart();
        cluster.node(index).wait_ready("with its share").await;
    }
    let would_be_lost =
        || async { settled(cluster.node(0)).await.is_some_and(|shards| shards.iter().any(shares_a_zone)) };
    wait_until("all have settled on five nodes, some on two of one zone", PATIENCE, would_be_lost).await;

    shop::stock_up(cluster.node(0)).await;
    let load = Load::start(&cluster, "zones", 8);
    load.wait_more(50, "without zones").await;
    // One after the other, as one would.
    for (node, zone) in cluster.nodes().iter().zip(ZONES) {
        assert!(node.terminate().await.success(), "{}", node.log_tail());
        node.restart_with(&["--zone", zone]);
        node.wait_ready("in its zone").await;
    }
    for node in cluster.nodes() {
        let is_spread = || async {
            let is_spread = |shard: &Settled| shard.replicas.len() == 3 && !shares_a_zone(shard);
            settled(node).await.is_some_and(|shards| shards.iter().all(is_spread))
        };
        wait_until(&format!("all shards are in three zones, as {} sees it", node.name), PATIENCE, is_spread).await;
    }
    load.wait_more(50, "in three zones").await;

    let (zone_a, others): (Vec<_>, Vec<_>) =
        cluster.nodes().iter().zip(ZONES).partition::<Vec<_>, _>(|(_, zone)| *zone == "a");
    zone_a.iter().for_each(|(node, _)| node.kill9());
    load.wait_more(100, "without a zone").await;
    for (node, _) in &others {
        let owners = || async {
            settled(node).await.is_some_and(|shards| shards.iter().all(|shard| [2, 3, 5].contains(&shard.owner)))
        };
        wait_until(&format!("every shard has an owner that lives, as {} sees it", node.name), PATIENCE, owners).await;
    }
    zone_a.iter().for_each(|(node, zone)| node.restart_with(&["--zone", zone]));
    for (node, _) in &zone_a {
        node.wait_ready("again").await;
    }
    let placed = load.finish().await;
    audit_on(cluster.nodes(), &placed).await;
}
