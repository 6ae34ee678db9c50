//! Idempotency keys over a day, on replicas that can be looked into; and commands that come too late.

use super::{
    Answer, AskError, AskOptions, Clock, Cluster, Consistency, Idempotency,
    builder::{in_memory_configs, in_memory_links},
    node::{Engines, Node},
};
use crate::{
    catalog::Catalog,
    entity::{Context, Decision, Entity, EntityKey, encode_command},
    shard::{Cause, CommandReply, CommandRequest, Registry},
    storage::MemoryStorage,
    transport::memory::Network,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(30);

/// Counts; takes no zero.
pub(super) struct Tally;

impl Entity for Tally {
    const TYPE: &'static str = "tally";
    type State = u64;
    type Command = u64;
    type Event = u64;
    type Reply = u64;
    type Rejection = String;

    fn decide(total: &u64, add: u64, _: &Context<'_>) -> Decision<Self> {
        match add {
            0 => Decision::reject("nothing to add"),
            _ => Decision::accept(vec![add], total + add),
        }
    }

    fn evolve(total: &mut u64, add: &u64) {
        *total += add;
    }
}

async fn start(network: &Network, storages: &[Arc<MemoryStorage>], clock: &Clock) -> Cluster {
    let mut registry = Registry::default();
    registry.add_entity::<Catalog>();
    registry.add_entity::<Tally>();
    let registry = Arc::new(registry);
    let mut nodes = Vec::new();
    for (config, storage) in in_memory_configs(storages.len()).into_iter().zip(storages) {
        let (links, clock) = (in_memory_links(network, &config, crate::impairment::Impairments::none()), clock.clone());
        let engines = Engines { storage: storage.clone(), links, gossip: None, clock, faults: None, boot_id: 1 };
        nodes.push(Node::start(config, registry.clone(), engines).await.expect("a node starts"));
    }
    let cluster = Cluster::of(nodes);
    for node in 0..storages.len() {
        cluster.on_node(node).ready(PATIENCE).await.expect("every node gets ready");
    }
    cluster
}

/// Adds under a key of that amount, until there is an answer that says what happened.
async fn add(cluster: &Cluster, amount: u64) -> Result<Answer<u64>, AskError<String>> {
    let began = Instant::now();
    loop {
        let idempotency = Some(Idempotency { key: format!("add-{amount}"), fingerprint: [0; 16] });
        let options = AskOptions { idempotency, ..AskOptions::default() };
        match cluster.entity::<Tally>("t").ask_with(amount, options).await {
            Err(AskError::Unavailable(error)) => assert!(began.elapsed() < PATIENCE, "{error}"),
            answer => return answer,
        }
    }
}

/// Answers, and entries of their index, that the replicas of each node hold.
fn kept(cluster: &Cluster, nodes: usize) -> Vec<usize> {
    let rows = |node: usize| {
        let rows = |first: &[u8], end: &[u8]| {
            let hosts = cluster.on_node(node).node().hosts();
            let count = hosts.iter().map(|host| host.machine().look(|s| s.overlay.scan(first, end, 1000)));
            count.map(|rows| rows.expect("readable").len()).sum::<usize>()
        };
        rows(b"i", b"j") + rows(b"x", b"y")
    };
    (0..nodes).map(rows).collect()
}

async fn wait_kept(cluster: &Cluster, expected: &[usize], reason: &str) {
    let began = Instant::now();
    while kept(cluster, expected.len()) != expected {
        assert!(began.elapsed() < PATIENCE, "{reason}: {:?}", kept(cluster, expected.len()));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn assert_replays(cluster: &Cluster, when: &str) {
    let again = add(cluster, 5).await.expect("it was taken");
    assert_eq!((again.replayed, again.reply, again.version), (true, 5, 1), "{when}");
    assert_eq!(add(cluster, 0).await, Err(AskError::RejectedBefore("nothing to add".into())), "{when}");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_kept_for_a_day_over_owners_and_restarts_and_then_dropped_on_every_replica() {
    let (network, (clock, hand)) = (Network::new(), Clock::movable());
    let mut storages: Vec<_> = (0..3).map(|_| Arc::new(MemoryStorage::new())).collect();
    let cluster = start(&network, &storages, &clock).await;
    assert!(!add(&cluster, 5).await.expect("it is taken").replayed);
    assert_eq!(add(&cluster, 0).await, Err(AskError::Rejected("nothing to add".into())));
    wait_kept(&cluster, &[4; 3], "every replica keeps both answers").await;

    hand.advance(Duration::from_secs(24 * 3600 - 1));
    assert_replays(&cluster, "at 23:59:59").await;
    let (status, _) = cluster.inspect(Tally::TYPE, "t", Consistency::Linearizable).await.expect("it is there");
    let owner = status.owner.expect("someone owns it");
    let name = cluster.members().into_iter().find(|member| member.node == owner).expect("a member").name;
    let other = (0..3).find(|node| cluster.on_node(*node).name() != name).expect("another node");
    network.isolate(&name);
    assert_replays(&cluster.on_node(other), "at the next owner").await;
    network.heal_all();

    cluster.shutdown().await;
    storages = storages.iter().map(|storage| Arc::new(storage.crash())).collect();
    let cluster = start(&network, &storages, &clock).await;
    assert_replays(&cluster, "after every node was restarted").await;
    assert_eq!(kept(&cluster, 3).iter().max(), Some(&4));

    hand.advance(Duration::from_secs(120));
    wait_kept(&cluster, &[0; 3], "every replica forgets both answers").await;
    let anew = add(&cluster, 5).await.expect("it is taken");
    assert_eq!((anew.replayed, anew.reply), (false, 10), "a forgotten key is a new one");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_whose_time_ran_out_while_nobody_ran_are_dropped_by_the_next_owner() {
    let (network, (clock, hand)) = (Network::new(), Clock::movable());
    let storages = [Arc::new(MemoryStorage::new())];
    let cluster = start(&network, &storages, &clock).await;
    add(&cluster, 5).await.expect("it is taken");
    cluster.shutdown().await;
    hand.advance(Duration::from_secs(25 * 3600));
    let cluster = start(&network, &[Arc::new(storages[0].crash())], &clock).await;
    wait_kept(&cluster, &[0], "the answer is forgotten").await;
    cluster.shutdown().await;
}

/// It was said that the entity had failed, or nothing at all, though only its owner had changed.
#[tokio::test]
async fn a_command_that_comes_as_its_owner_goes_is_tried_again() {
    let storage = [Arc::new(MemoryStorage::new())];
    let cluster = start(&Network::new(), &storage, &Clock::default()).await;
    let router = cluster.node().router(PATIENCE).await.expect("a member");
    for number in 0..20 {
        let key = EntityKey::new(Tally::TYPE, format!("late-{number}")).expect("a good id");
        let host = router.host(router.group_of(&key)).expect("the only node");
        let command = encode_command::<Tally>(&1).expect("encodes");
        let (cause, idempotency, if_version, trace_id) = (Cause::Client, None, None, None);
        let request = CommandRequest { key, command, cause, idempotency, if_version, trace_id };
        let reply = tokio::time::timeout(PATIENCE, host.command_too_late(request)).await.expect("an answer");
        assert!(matches!(reply, CommandReply::TryAgain), "{reply:?}");
    }
    cluster.shutdown().await;
}
