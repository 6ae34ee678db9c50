//! Holds and pins of one shard, as its owner sees them.

use super::{BackupHeader, BackupId, BackupWriter, RestoreError, STATE_FORMAT, ShardHead};
use crate::{
    catalog::NodeId,
    cluster::{AskOptions, Cluster, Idempotency, tests::Tally},
    entity::{Entity, EntityKey, ShardId},
    shard::{
        Answer, Ask, Router, ShardRequest,
        backup::{CutAnswer, CutAsk, HOLD_MAX, Restore, RestoreAnswer, decode_chunk},
    },
    storage::GroupId,
};
use futures::stream;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(30);

/// A shard of a cluster of three, and the backup in which it takes part.
struct Part {
    cluster: Cluster,
    router: Router,
    group: GroupId,
    backup: BackupId,
}

impl Part {
    async fn start() -> Self {
        let cluster = Cluster::in_memory(3).entity::<Tally>().start().await.expect("starts");
        let (router, _) = cluster.way().await.expect("it has joined");
        let group = router.group_of(&EntityKey::new(Tally::TYPE, "t").expect("a name"));
        Self { cluster, router, group, backup: BackupId::random() }
    }

    /// The same shard in another backup.
    fn another(&self) -> Self {
        let (cluster, router) = (self.cluster.clone(), self.router.clone());
        Self { cluster, router, group: self.group, backup: BackupId::random() }
    }

    /// Adds one, once, and waits for it.
    async fn add(&self) -> u64 {
        let (began, key) = (Instant::now(), BackupId::random().to_string());
        loop {
            let idempotency = Some(Idempotency { key: key.clone(), fingerprint: [0; 16] });
            let options = AskOptions { idempotency, ..AskOptions::default() };
            match self.cluster.entity::<Tally>("t").ask_with(1_u64, options).await {
                Ok(answer) => return answer.reply,
                Err(error) => assert!(began.elapsed() < PATIENCE, "{error}"),
            }
        }
    }

    /// The node that holds it, if it could be held.
    async fn hold(&self) -> Option<NodeId> {
        let ask = Ask::Cut { backup: self.backup, ask: CutAsk::Hold };
        match self.router.ask_shard(ShardRequest { group: self.group, ask }, PATIENCE).await.expect("it has an owner") {
            Answer::Cut(CutAnswer::Held { by }) => Some(by),
            _ => None,
        }
    }

    async fn ask(&self, node: NodeId, ask: CutAsk) -> CutAnswer {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        self.router.ask_cut(node, (self.group, self.backup), ask, deadline).await.expect("it answers")
    }

    /// Events in the pinned shard.
    async fn events(&self, node: NodeId) -> u64 {
        let CutAnswer::Part(part) = self.ask(node, CutAsk::Read { after: None }).await else { panic!("no part") };
        let pairs = decode_chunk(&part.chunk).expect("a chunk");
        pairs.iter().filter(|(key, _)| key[0] == b'h').count() as u64
    }
}

/// What happens while a shard is held, tried again where this machine took longer than a hold lasts.
async fn while_held<T>(part: &Part, then: impl AsyncFn(Part, NodeId) -> T) -> T {
    let began = Instant::now();
    loop {
        let (part, held_at) = (part.another(), Instant::now());
        if let Some(node) = part.hold().await {
            let found = then(part, node).await;
            if held_at.elapsed() < HOLD_MAX {
                return found;
            }
        }
        assert!(began.elapsed() < PATIENCE, "no hold lasts as long as it should");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_wait_while_their_shard_is_held_and_go_on_once_it_is_pinned() {
    let part = Part::start().await;
    part.add().await;
    let (held, node, before, pinned) = while_held(&part, async |held, node| {
        let mut write = Box::pin(held.add());
        let waits = tokio::time::timeout(Duration::from_millis(200), &mut write).await.is_err();
        let pinned = held.ask(node, CutAsk::Pin).await;
        let total = write.await;
        (held, node, waits.then_some(total - 1), pinned)
    })
    .await;
    let before = before.expect("the write waited");
    let CutAnswer::Pinned(head) = pinned else { panic!("not pinned") };
    assert_eq!((head.shard.0, head.effects), (part.group.0, 0));
    assert_eq!(part.add().await, before + 2, "it was done then");
    assert_eq!(held.events(node).await, before, "what came later is not in it");
    assert_eq!(held.ask(node, CutAsk::Pin).await, CutAnswer::Spoiled, "a hold is good for one pin");
    assert_eq!(held.ask(node, CutAsk::Keep).await, CutAnswer::Done);
    assert_eq!(held.ask(node, CutAsk::End).await, CutAnswer::Done);
    assert_eq!(held.ask(node, CutAsk::Keep).await, CutAnswer::Spoiled);
    assert_eq!(held.ask(node, CutAsk::Read { after: None }).await, CutAnswer::Spoiled);
    assert_eq!(held.hold().await, None, "it has ended: what is on its way for it comes too late");
    part.cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_is_held_for_one_backup_at_a_time() {
    let part = Part::start().await;
    let answers = while_held(&part, async |held, node| {
        let another = held.another();
        let mut answers = Vec::new();
        for ask in [CutAsk::Hold, CutAsk::End] {
            answers.push(another.ask(node, ask).await);
        }
        answers.push(held.another().ask(node, CutAsk::Hold).await);
        answers.push(held.ask(node, CutAsk::Pin).await);
        held.ask(node, CutAsk::End).await;
        answers
    })
    .await;
    let [CutAnswer::Busy, CutAnswer::Done, CutAnswer::Busy, CutAnswer::Pinned(_)] = answers.as_slice() else {
        panic!("it was not another's to end: {answers:?}");
    };
    while_held(&part, async |held, node| held.ask(node, CutAsk::End).await).await;
    part.cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_ends_by_itself_or_when_it_is_told_to_and_pins_nothing_then() {
    let part = Part::start().await;
    let pinned = while_held(&part, async |held, node| {
        held.ask(node, CutAsk::End).await;
        held.add().await;
        held.ask(node, CutAsk::Pin).await
    })
    .await;
    assert_eq!(pinned, CutAnswer::Spoiled);
    let before = part.add().await;
    let node = loop {
        if let Some(node) = part.hold().await {
            break node;
        }
    };
    assert_eq!(part.add().await, before + 1, "written when the hold has run out");
    assert_eq!(part.ask(node, CutAsk::Pin).await, CutAnswer::Spoiled);
    part.cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_another_one_has_followed_pins_nothing() {
    let part = Part::start().await;
    let nodes: Vec<Cluster> = (0..3).map(|node| part.cluster.on_node(node)).collect();
    let id = |cluster: &Cluster| cluster.status().node.expect("it has joined");
    let group = |cluster: &Cluster| cluster.node().group(part.group).expect("a replica");
    let pinned = while_held(&part, async |held, owner| {
        let first = nodes.iter().find(|node| id(node) == owner).expect("a node");
        let other = nodes.iter().find(|node| id(node) != owner).expect("another node");
        let began = Instant::now();
        while !group(other).leadership().borrow().is_me {
            group(first).transfer(id(other)).await;
            assert!(began.elapsed() < PATIENCE, "nobody follows");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        held.ask(owner, CutAsk::Pin).await
    })
    .await;
    assert_eq!(pinned, CutAnswer::Spoiled);
    part.add().await;
    part.cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_has_begun_and_meets_data_is_given_up_on_all_shards() {
    let part = Part::start().await;
    part.add().await;
    let shards = (0..part.router.shards()).map(ShardId);
    let head = |shard| ShardHead { shard, term: 1, index: 1, effects: 0, timers: 0, origins: Vec::new() };
    let header = BackupHeader {
        backup: part.backup,
        cluster: part.router.cluster(),
        taken_at_ms: 0,
        version: String::new(),
        state_format: STATE_FORMAT,
        entity_types: BTreeMap::new(),
        shards: shards.map(head).collect(),
    };
    // Whoever began died before it came to the shard that has something by now.
    let begun = header.shards.iter().find(|head| head.shard.0 != part.group.0).expect("another shard").clone();
    let group = GroupId(begun.shard.0);
    let begin = Restore::Begin { cluster: header.cluster, head: begun };
    let ask = Ask::Restore { backup: part.backup, step: begin };
    let answer = part.router.ask_shard(ShardRequest { group, ask }, PATIENCE).await.expect("it has an owner");
    assert_eq!(answer, Answer::Restore(RestoreAnswer::Done));
    let host = part.router.host(group).expect("a replica of each shard");
    host.machine().restoring().wait_for(|restoring| *restoring).await.expect("it runs");

    let (_, first) = BackupWriter::begin(&header).expect("encodes");
    let refused = part.cluster.restore(stream::iter([Ok::<_, String>(first)])).await;
    assert_eq!(refused, Err(RestoreError::NotEmpty { shard: ShardId(part.group.0) }));
    host.machine().restoring().wait_for(|restoring| !restoring).await.expect("it serves again");
    part.add().await;
    part.cluster.shutdown().await;
}
