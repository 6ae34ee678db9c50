//! What a cut-off owner may and may not do, on links that the test cuts.

use crate::entities::{Command, Counter};
use quorate::{
    Cluster,
    cluster::{AskError, AskOptions, Consistency, Idempotency, Unavailable},
    transport::memory::Network,
};
use std::time::Duration;
use tokio::time::Instant;

const DEADLINE: Duration = Duration::from_secs(20);

struct Fixture {
    cluster: Cluster,
    network: Network,
}

impl Fixture {
    async fn start() -> Self {
        let network = Network::new();
        let cluster =
            Cluster::in_memory_over(network.clone(), 3).entity::<Counter>().start().await.expect("three nodes start");
        Self { cluster, network }
    }

    /// 0-based index of the node that owns a counter, as every node sees it.
    async fn owner(&self, id: &str) -> usize {
        let (status, _) =
            self.cluster.inspect("counter", id, Consistency::Linearizable).await.expect("a healthy cluster answers");
        let owner = status.owner.expect("a linearizable read has an owner");
        let members = self.cluster.members();
        let name = &members.iter().find(|m| m.node == owner).expect("the owner is a member").name;
        name.trim_start_matches("node-").parse::<usize>().expect("a node is called node-N") - 1
    }

    fn isolate(&self, node: usize) {
        self.network.isolate(&format!("node-{}", node + 1));
    }
}

/// Adds through a node, again and again with one key, until it is acknowledged.
async fn add(cluster: &Cluster, node: usize, id: &str, key: &str, why: &str) -> i64 {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let options = AskOptions {
            idempotency: Some(Idempotency { key: key.into(), fingerprint: [0; 16] }),
            ..AskOptions::default()
        };
        match cluster.on_node(node).entity::<Counter>(id).ask_with(Command::Add(1), options).await {
            Ok(answer) => return answer.reply,
            Err(AskError::Unavailable(error)) => assert!(Instant::now() < deadline, "{why}: {error}"),
            Err(other) => panic!("{why}: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_off_owner_acknowledges_nothing_and_reads_nothing_stale() {
    let fixture = Fixture::start().await;
    let cluster = &fixture.cluster;
    add(cluster, 0, "c", "before", "a healthy cluster").await;
    let old = fixture.owner("c").await;
    let other = (old + 1) % 3;
    fixture.isolate(old);

    // Through the others the counter goes on; they elect a new owner.
    assert_eq!(add(cluster, other, "c", "during", "the majority goes on").await, 2);

    // The old owner must neither acknowledge a write nor serve a linearizable read.
    let stranded = cluster.on_node(old).entity::<Counter>("c");
    let write = stranded.ask(Command::Add(100)).await;
    let refused =
        matches!(write, Err(AskError::Unavailable(Unavailable::NoQuorum { .. } | Unavailable::OutcomeUnknown { .. })));
    assert!(refused, "{write:?}");
    let read = stranded.state(Consistency::Linearizable).await;
    assert!(matches!(read, Err(Unavailable::NoQuorum { .. })), "{:?}", read.map(|s| s.state.value()));
    // Its own replica still answers who asks for no more than that.
    assert_eq!(stranded.state(Consistency::Local).await.unwrap().state.value(), 1);

    fixture.network.heal_all();
    assert_eq!(add(cluster, old, "c", "after", "the healed node routes to the new owner").await, 3);
    let healed = cluster
        .on_node(old)
        .entity::<Counter>("c")
        .state(Consistency::Linearizable)
        .await
        .expect("a healthy cluster answers");
    assert_eq!(healed.state.value(), 3, "the stranded write never took effect");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_counts_once_however_often_the_owner_changes() {
    let fixture = Fixture::start().await;
    let cluster = &fixture.cluster;
    for round in 0..3 {
        let owner = fixture.owner("k").await;
        let asking = tokio::spawn({
            let cluster = cluster.clone();
            async move {
                for i in 0..20 {
                    let key = format!("{round}-{i}");
                    add(&cluster, (owner + 1) % 3, "k", &key, "the majority goes on").await;
                    add(&cluster, (owner + 2) % 3, "k", &key, "a retry through another node").await;
                }
            }
        });
        fixture.isolate(owner);
        asking.await.unwrap();
        fixture.network.heal_all();
        add(cluster, owner, "k", &format!("healed-{round}"), "the healed node is back").await;
    }
    let value = cluster.entity::<Counter>("k").state(Consistency::Linearizable).await.unwrap().state.value();
    assert_eq!(value, 3 * 21);
    let history = cluster
        .entity::<Counter>("k")
        .history(0, 1000, Consistency::Linearizable)
        .await
        .expect("a healthy cluster answers");
    let gapless: Vec<u64> = (1..=63).collect();
    assert_eq!(history.iter().map(|e| e.sequence).collect::<Vec<_>>(), gapless, "GAPLESS");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn effects_cross_a_partition_once() {
    let fixture = Fixture::start().await;
    let cluster = &fixture.cluster;
    // Twenty senders and receivers, so that some pair is on either side of the cut.
    fixture.isolate(2);
    for i in 0..20 {
        let id = format!("to-{i}");
        let from = cluster.on_node(i % 2).entity::<Counter>(format!("from-{i}"));
        let deadline = Instant::now() + DEADLINE;
        let options = || AskOptions {
            idempotency: Some(Idempotency { key: "send".into(), fingerprint: [0; 16] }),
            ..AskOptions::default()
        };
        while let Err(error) = from.ask_with(Command::AddTo { id: id.clone(), amount: 1 }, options()).await {
            assert!(Instant::now() < deadline, "sending through the majority: {error:?}");
        }
    }
    fixture.network.heal_all();
    for i in 0..20 {
        crate::entities::wait_value(cluster, &format!("to-{i}"), 1, "an effect arrives, once").await;
    }
    cluster.shutdown().await;
}
