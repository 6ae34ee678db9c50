//! Holds and pins of one shard, as its owner sees them.

use super::BackupId;
use crate::{
    cluster::{Cluster, tests::Tally},
    entity::{Entity, EntityKey},
    shard::{
        Answer, Ask, Router, ShardRequest,
        backup::{CutAnswer, CutAsk, decode_chunk},
    },
    storage::GroupId,
    transport::memory::Network,
};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

/// A shard of a cluster of three, and the backup in which it takes part.
struct Part {
    cluster: Cluster,
    router: Router,
    group: GroupId,
    backup: BackupId,
}

impl Part {
    async fn start(network: &Network) -> Self {
        let cluster = Cluster::in_memory_over(network.clone(), 3).entity::<Tally>().start().await.expect("starts");
        let (router, _) = cluster.way().await.expect("it has joined");
        let group = router.group_of(&EntityKey::new(Tally::TYPE, "t").expect("a name"));
        let part = Self { cluster, router, group, backup: BackupId(1) };
        part.add(1).await;
        part
    }

    async fn add(&self, amount: u64) -> u64 {
        let began = Instant::now();
        loop {
            match self.cluster.entity::<Tally>("t").ask(amount).await {
                Ok(total) => return total,
                Err(error) => assert!(began.elapsed() < PATIENCE, "{error}"),
            }
        }
    }

    /// The node that holds it.
    async fn hold(&self) -> crate::catalog::NodeId {
        let ask = Ask::Cut { backup: self.backup, ask: CutAsk::Hold };
        match self.router.ask_shard(ShardRequest { group: self.group, ask }, PATIENCE).await.expect("it has an owner") {
            Answer::Cut(CutAnswer::Held { by }) => by,
            other => panic!("{other:?}"),
        }
    }

    async fn ask(&self, node: crate::catalog::NodeId, ask: CutAsk) -> CutAnswer {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        self.router.ask_cut(node, (self.group, self.backup), ask, deadline).await.expect("it answers")
    }

    /// Events in the pinned shard.
    async fn events(&self, node: crate::catalog::NodeId) -> usize {
        let CutAnswer::Part(part) = self.ask(node, CutAsk::Read { after: None }).await else { panic!("no part") };
        let pairs = decode_chunk(&part.chunk).expect("a chunk");
        pairs.iter().filter(|(key, _)| key[0] == b'h').count()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_wait_while_their_shard_is_held_and_go_on_once_it_is_pinned() {
    let part = Part::start(&Network::new()).await;
    let node = part.hold().await;
    let mut write = Box::pin(part.add(2));
    assert!(tokio::time::timeout(Duration::from_millis(200), &mut write).await.is_err(), "it was written");
    let CutAnswer::Pinned(head) = part.ask(node, CutAsk::Pin).await else { panic!("not pinned") };
    assert_eq!((head.shard.0, head.effects), (part.group.0, 0));
    assert_eq!(write.await, 3, "it waited, and was done");
    assert_eq!(part.add(3).await, 6);
    assert_eq!(part.events(node).await, 1, "what came later is not in it");
    assert_eq!(part.ask(node, CutAsk::Pin).await, CutAnswer::Spoiled, "a hold is good for one pin");
    assert_eq!(part.ask(node, CutAsk::Keep).await, CutAnswer::Done);
    assert_eq!(part.ask(node, CutAsk::End).await, CutAnswer::Done);
    assert_eq!(part.ask(node, CutAsk::Keep).await, CutAnswer::Spoiled);
    assert_eq!(part.ask(node, CutAsk::Read { after: None }).await, CutAnswer::Spoiled);
    part.cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_is_held_for_one_backup_at_a_time() {
    let part = Part::start(&Network::new()).await;
    let node = part.hold().await;
    let another = Part { backup: BackupId(2), cluster: part.cluster.clone(), router: part.router.clone(), ..part };
    assert_eq!(another.ask(node, CutAsk::Hold).await, CutAnswer::Busy);
    assert_eq!(another.ask(node, CutAsk::End).await, CutAnswer::Done);
    assert_eq!(another.ask(node, CutAsk::Hold).await, CutAnswer::Busy, "it was another's to release");
    assert!(matches!(part.ask(node, CutAsk::Pin).await, CutAnswer::Pinned(_)));
    assert_eq!(another.hold().await, node);
    part.cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_ends_by_itself_or_when_it_is_told_to_and_pins_nothing_then() {
    let part = Part::start(&Network::new()).await;
    let node = part.hold().await;
    assert_eq!(part.ask(node, CutAsk::End).await, CutAnswer::Done);
    assert_eq!(part.add(1).await, 2);
    assert_eq!(part.ask(node, CutAsk::Pin).await, CutAnswer::Spoiled);
    let node = part.hold().await;
    assert_eq!(part.add(1).await, 3, "written when the hold has run out");
    assert_eq!(part.ask(node, CutAsk::Pin).await, CutAnswer::Spoiled);
    part.cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_another_one_has_followed_pins_nothing() {
    let network = Network::new();
    let part = Part::start(&network).await;
    let owner = part.hold().await;
    let owned_by = |node| move |cluster: &&Cluster| cluster.status().node == Some(node);
    let nodes: Vec<Cluster> = (0..3).map(|node| part.cluster.on_node(node)).collect();
    let first = nodes.iter().find(owned_by(owner)).expect("a node");
    let other = nodes.iter().find(|node| node.status().node != Some(owner)).expect("another node");
    let to = other.status().node.expect("it has joined");
    let group = |cluster: &Cluster| cluster.node().group(part.group).expect("a replica");
    let began = Instant::now();
    while !group(other).leadership().borrow().is_me {
        group(first).transfer(to).await;
        assert!(began.elapsed() < PATIENCE, "{to} does not follow");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(part.ask(owner, CutAsk::Pin).await, CutAnswer::Spoiled);
    assert_eq!(part.add(1).await, 2);
    part.cluster.shutdown().await;
}
