//! A replica whose hash is disturbed behind everyone's back is found by all.

use super::*;
use crate::{
    cluster::{Answer, AskOptions, Cluster, Fault},
    entity::{Context, Decision, Entity},
};

struct Tally;

impl Entity for Tally {
    const TYPE: &'static str = "tally";
    type State = u64;
    type Command = ();
    type Event = ();
    type Reply = ();
    type Rejection = String;

    fn decide(_: &u64, (): (), _: &Context<'_>) -> Decision<Self> {
        Decision::accept(vec![()], ())
    }

    fn evolve(state: &mut u64, (): &()) {
        *state += 1;
    }
}

const PATIENCE: Duration = Duration::from_secs(20);

async fn count(cluster: &Cluster) -> ShardId {
    let answer = cluster.entity::<Tally>("t").ask_with((), AskOptions::default()).await.expect("acknowledged");
    let Answer { receipt: Some(receipt), .. } = answer else { panic!("a write has a receipt") };
    receipt.shard
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_differs_is_found_by_itself_and_by_its_peers_and_counted_once() {
    let fast = |config: &mut crate::Config| config.shard.audit_interval = Duration::from_millis(5);
    let cluster = Cluster::in_memory(3).entity::<Tally>().configure(fast).start().await.expect("starts");
    let shard = count(&cluster).await;
    let odd = cluster.on_node(1);
    odd.node().router(PATIENCE).await.expect("a member").host(GroupId(shard.0)).expect("a replica").machine().disturb();
    let me = odd.status().node.expect("a member");
    let began = std::time::Instant::now();
    let found = |cluster: &Cluster| {
        let peers = cluster.findings().into_iter().filter_map(|finding| match finding.violation {
            Violation::StateHash { peer, .. } if finding.shard == shard => Some(peer),
            _ => None,
        });
        peers.collect::<Vec<_>>()
    };
    while found(&odd).len() < 2 || [0, 2].iter().any(|node| found(&cluster.on_node(*node)) != [me]) {
        assert!(began.elapsed() < PATIENCE, "{:?}", (0..3).map(|n| cluster.on_node(n).findings()).collect::<Vec<_>>());
        // Entries go on, so that there are places in common.
        count(&cluster).await;
    }
    assert_eq!(odd.status().violations, 2);
    let told = || odd.feed().snapshot().faults.iter().filter(|fault| matches!(fault, Fault::Violation(_))).count();
    while told() < 2 {
        assert!(began.elapsed() < PATIENCE, "what is found is told");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    cluster.shutdown().await;
}

#[test]
fn a_difference_stands_until_a_comparison_shows_none() {
    let differences = Differences::default();
    let at = |differences: &Differences| differences.0.lock().values().map(|(index, _)| *index).collect::<Vec<_>>();
    differences.note(ShardId(1), NodeId(2), Compared::DifferAt(64));
    differences.note(ShardId(1), NodeId(2), Compared::DifferAt(128));
    assert_eq!(at(&differences), [64], "once, with the first place");
    differences.note(ShardId(1), NodeId(2), Compared::Incomparable);
    assert_eq!(at(&differences), [64]);
    // It was filled again from a snapshot of another replica.
    differences.note(ShardId(1), NodeId(2), Compared::Same);
    assert!(at(&differences).is_empty());
}
