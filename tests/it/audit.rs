//! The live auditor: an entity that breaks its own laws is frozen, wherever its shard goes, and
//! nothing else is; replicas that are alike raise no alarm.

use crate::entities::{Command as Count, Counter};
use axum::{body::Body, http::Request};
use quorate::{
    Cluster, Context, Decision, Entity,
    cluster::{AskError, AskOptions, Consistency, Idempotency, Unavailable, Violation},
    ingress,
    transport::memory::Network,
};
use serde_json::Value;
use std::time::Duration;
use tokio::time::Instant;
use tower::ServiceExt;

const PATIENCE: Duration = Duration::from_secs(30);

/// A box of coins whose lid says how many there are. Shaken, it loses one and does not say so.
struct Coins;

#[derive(Default, Clone, serde::Serialize, serde::Deserialize)]
struct Kept {
    coins: u64,
    lid: u64,
}

#[derive(Clone, serde::Serialize, serde::Deserialize)]
enum Act {
    Add,
    Shake,
}

impl Entity for Coins {
    const TYPE: &'static str = "coins";
    type State = Kept;
    type Command = Act;
    type Event = Act;
    type Reply = u64;
    type Rejection = String;

    fn decide(state: &Kept, act: Act, _: &Context<'_>) -> Decision<Self> {
        Decision::accept(vec![act], state.lid)
    }

    fn evolve(state: &mut Kept, act: &Act) {
        match act {
            Act::Add => (state.coins, state.lid) = (state.coins + 1, state.lid + 1),
            Act::Shake => state.coins = state.coins.saturating_sub(1),
        }
    }

    fn check(state: &Kept) -> Result<(), String> {
        let Kept { coins, lid } = state;
        if coins == lid { Ok(()) } else { Err(format!("the lid says {lid}, there are {coins}")) }
    }
}

async fn start(network: &Network) -> Cluster {
    crate::logs();
    let builder = Cluster::in_memory_over(network.clone(), 3).entity::<Coins>().entity::<Counter>();
    let builder = builder.configure(|config| config.shard.audit_interval = Duration::from_millis(20));
    builder.start().await.expect("three nodes start")
}

fn keyed(key: &str) -> AskOptions {
    AskOptions { idempotency: Some(Idempotency { key: key.into(), fingerprint: [0; 16] }), ..AskOptions::default() }
}

/// Asks through a node until the answer is something else than that nobody can be reached.
async fn ask(cluster: &Cluster, node: usize, id: &str, act: Act, key: &str) -> Result<u64, Unavailable> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match cluster.on_node(node).entity::<Coins>(id).ask_with(act.clone(), keyed(key)).await {
            Ok(answer) => return Ok(answer.reply),
            Err(AskError::Unavailable(frozen @ Unavailable::Frozen { .. })) => return Err(frozen),
            Err(AskError::Unavailable(error)) => assert!(Instant::now() < deadline, "{id} through {node}: {error}"),
            Err(other) => panic!("{other:?}"),
        }
    }
}

async fn get(cluster: &Cluster, path: &str) -> String {
    let router = ingress::router(cluster.clone(), &ingress::Options::default());
    let request = Request::builder().uri(path).body(Body::empty()).expect("a request");
    let response = router.oneshot(request).await.expect("infallible");
    let bytes = axum::body::to_bytes(response.into_body(), 16 << 20).await.expect("a body in memory");
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn owner(cluster: &Cluster, id: &str) -> usize {
    let (status, _) = cluster.inspect("coins", id, Consistency::Linearizable).await.expect("a healthy cluster answers");
    let members = cluster.members();
    let owner = members.iter().find(|m| Some(m.node) == status.owner).expect("an owner");
    owner.name.trim_start_matches("node-").parse::<usize>().expect("node-N") - 1
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entity_that_breaks_its_own_laws_is_frozen_wherever_its_shard_goes_and_its_neighbours_go_on() {
    let network = Network::new();
    let cluster = start(&network).await;
    ask(&cluster, 0, "bad", Act::Add, "first").await.expect("fine so far");
    ask(&cluster, 0, "bad", Act::Shake, "shake").await.expect("nobody has looked yet");
    // Every replica finds it by itself.
    let deadline = Instant::now() + PATIENCE;
    let found =
        |node: usize| {
            cluster.on_node(node).findings().into_iter().any(
                |finding| matches!(&finding.violation, Violation::Conservation { entity, .. } if &*entity.id == "bad"),
            )
        };
    while !(0..3).all(found) {
        assert!(Instant::now() < deadline, "{:?}", cluster.findings());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let is_frozen =
        |answer: Result<u64, Unavailable>| matches!(answer, Err(Unavailable::Frozen { key }) if key == "coins/bad");
    assert!(is_frozen(ask(&cluster, 1, "bad", Act::Add, "second").await));
    assert_eq!(ask(&cluster, 1, "bad", Act::Add, "first").await, Ok(0), "a retry gets its first answer");
    for i in 0..20 {
        ask(&cluster, i, &format!("good-{i}"), Act::Add, "k").await.expect("a neighbour goes on");
    }
    let read = cluster.entity::<Coins>("bad").state(Consistency::Linearizable).await.expect("it can be read");
    assert_eq!((read.state.coins, read.state.lid, read.version), (0, 1, 2));

    let violations: Value = serde_json::from_str(&get(&cluster, "/admin/v1/violations").await).expect("JSON");
    let shown = &violations["data"][0];
    assert_eq!((&shown["invariant"], &shown["frozen"]), (&"conservation".into(), &true.into()), "{violations}");
    assert_eq!((&shown["entity"]["id"], &shown["detail"]), (&"bad".into(), &"the lid says 1, there are 0".into()));
    assert_eq!(cluster.status().violations, 1);
    let metrics = get(&cluster, "/metrics").await;
    let counted =
        metrics.lines().find(|line| line.starts_with("quorate_invariant_violations_total{invariant=\"conservation\"}"));
    assert!(counted.is_some_and(|line| !line.ends_with(" 0")), "{metrics}");

    // Another node owns the shard: it has come to the same by itself.
    let old = owner(&cluster, "bad").await;
    network.isolate(&format!("node-{}", old + 1));
    assert!(is_frozen(ask(&cluster, (old + 1) % 3, "bad", Act::Add, "third").await));
    network.heal_all();
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_are_alike_raise_no_alarm_under_load_and_changes_of_owner() {
    let network = Network::new();
    let cluster = start(&network).await;
    for round in 0..3 {
        network.isolate(&format!("node-{}", round + 1));
        for i in 0..60 {
            let through = (round + 1 + i % 2) % 3;
            let deadline = Instant::now() + PATIENCE;
            let counter = cluster.on_node(through).entity::<Counter>(format!("c{}", i % 12));
            while let Err(error) = counter.ask_with(Count::Add(1), keyed(&format!("{round}-{i}"))).await {
                assert!(Instant::now() < deadline, "the majority goes on: {error:?}");
            }
        }
        network.heal_all();
    }
    // Once all have applied the same, all have the same hash of it.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let hashes: Vec<_> = (0..3).map(|node| cluster.on_node(node).state_hashes()).collect();
        let now = |node: usize| hashes[node].iter().map(|shard| (shard.shard, shard.hash.now)).collect::<Vec<_>>();
        if now(0) == now(1) && now(1) == now(2) {
            assert!(hashes[0].iter().all(|shard| shard.hash.since == 0) && hashes[0].len() == 4, "{hashes:?}");
            break;
        }
        assert!(Instant::now() < deadline, "{hashes:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for node in 0..3 {
        assert_eq!(cluster.on_node(node).findings(), [], "node {node}");
    }
    let shown: Value = serde_json::from_str(&get(&cluster, "/admin/v1/state-hashes").await).expect("JSON");
    assert_eq!(shown["data"].as_array().map(Vec::len), Some(4), "{shown}");
    cluster.shutdown().await;
}
