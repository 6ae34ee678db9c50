//! The feed by itself: what is an event, what stands, what is kept.

use super::*;
use crate::cluster::{FaultKind, audit::Violation};
use proptest::{collection::vec, prelude::*};
use std::collections::BTreeMap;

fn member(node: u64, gossip: &str, linked: bool, boot_id: Option<u64>) -> MemberSeen {
    let status = MemberStatus {
        node: NodeId(node),
        name: format!("node-{node}"),
        address: String::new(),
        http: String::new(),
        zone: None,
        gossip: gossip.into(),
        linked,
        is_self: false,
        leaving: false,
    };
    MemberSeen { status, boot_id }
}

fn owner(node: u64) -> Option<(NodeId, String)> {
    Some((NodeId(node), format!("node-{node}")))
}

fn injected(id: u64) -> FaultStatus {
    FaultStatus { id, kind: FaultKind::FullDisk, duration_ms: 1 }
}

fn violation(peer: u64) -> Finding {
    Finding { shard: ShardId(1), violation: Violation::StateHash { peer: NodeId(peer), index: 64 }, found_at_ms: 1 }
}

/// What changed, in a word each, behind number `after`.
fn words(feed: &Feed, after: u64) -> Vec<&'static str> {
    let events = feed.after(after, usize::MAX).expect("nothing is gone");
    let word = |event: &ClusterEvent| match &event.news {
        News::Membership { change, .. } => change.as_str(),
        News::Leadership { change, .. } => change.as_str(),
        News::Fault { change, .. } => change.as_str(),
    };
    events.iter().map(|event| word(event)).collect()
}

#[test]
fn a_member_is_news_when_something_of_it_changes() {
    let feed = Feed::new(7);
    feed.note_members(vec![member(1, "alive", true, Some(1)), member(2, "down", false, None)]);
    assert_eq!(words(&feed, 0), ["joined", "joined"], "who opened a stream before anybody looked is told");
    let looks = [
        (member(2, "alive", false, None), "alive"),
        (member(2, "alive", true, Some(5)), "linked"),
        (member(2, "suspect", true, Some(5)), "suspect"),
        // What is not known just now has not changed.
        (member(2, "down", false, None), "down"),
        (member(2, "alive", true, Some(6)), "restarted"),
        (member(2, "alive", false, Some(6)), "unlinked"),
    ];
    for (seen, word) in looks {
        let (_, before) = feed.span();
        for _ in 0..2 {
            feed.note_members(vec![member(1, "alive", true, Some(1)), seen.clone()]);
        }
        assert_eq!(words(&feed, before), [word], "once");
    }
    let (_, before) = feed.span();
    feed.note_members(vec![member(1, "alive", true, Some(1)), member(3, "alive", true, None)]);
    assert_eq!(words(&feed, before), ["removed", "joined"], "it may have the same name");
    feed.note_members(vec![member(1, "alive", true, Some(1)), member(3, "alive", true, Some(9))]);
    assert_eq!(words(&feed, before + 2), ["updated"], "its process became known");
}

#[test]
fn a_shard_is_news_when_it_has_an_owner_or_has_lost_it() {
    let feed = Feed::new(7);
    feed.note_leader(ShardId(3), None, 0);
    feed.note_leader(ShardId(3), owner(1), 1);
    feed.note_leader(ShardId(3), owner(1), 1);
    // Elections that nobody wins.
    for term in 2..5 {
        feed.note_leader(ShardId(3), None, term);
    }
    feed.note_leader(ShardId(3), owner(1), 5);
    feed.note_leader(ShardId(3), owner(2), 6);
    assert_eq!(words(&feed, 0), ["elected", "lost", "elected", "elected"]);
    assert_eq!(feed.snapshot().shards, [ShardSeen { shard: ShardId(3), owner: owner(2), term: 6 }]);
    feed.replica_closed(ShardId(3));
    feed.replica_closed(ShardId(3));
    assert_eq!((words(&feed, 4), feed.snapshot().shards), (vec!["closed"], vec![]));
}

#[test]
fn a_fault_stands_until_it_ends_and_violations_are_told_as_far_as_there_is_room() {
    let feed = Feed::new(7);
    feed.fault_began(Fault::Injected(injected(1)));
    feed.fault_ended(&injected(1));
    feed.fault_ended(&injected(1));
    assert_eq!(words(&feed, 0), ["began", "ended"]);
    let peers = u64::try_from(STANDING_MAX).expect("a small number") + 1;
    let all = || (0..peers).map(violation);
    feed.note_violations(all().collect());
    feed.note_violations(all().collect());
    assert_eq!(words(&feed, 2), vec!["began"; STANDING_MAX]);
    assert!(feed.has_violations());
    feed.note_violations(all().skip(1).collect());
    assert_eq!(words(&feed, 2 + STANDING_MAX as u64), ["ended", "began"], "room for the last one");
    feed.note_violations(Vec::new());
    assert!(!feed.has_violations() && feed.snapshot().faults.is_empty());
}

#[test]
fn a_long_text_is_cut() {
    let feed = Feed::new(7);
    feed.fault_began(Fault::NodeFailed("é".repeat(5000)));
    let Fault::NodeFailed(why) = &feed.snapshot().faults[0] else { panic!("another fault") };
    assert!(why.len() < 2100 && why.ends_with('…'));
}

#[test]
fn the_last_events_are_kept_and_who_comes_too_late_is_told() {
    let feed = Feed::new(7);
    let kept = EVENTS_KEPT as u64;
    for term in 1..=kept + 5 {
        feed.note_leader(ShardId(0), owner(1), term);
    }
    assert_eq!(feed.span(), (5, kept + 5));
    assert_eq!(feed.after(4, 1), None, "number 5 is gone");
    let first = feed.after(5, 2).expect("kept");
    assert_eq!(
        first.iter().map(|event| event.id.to_string()).collect::<Vec<_>>(),
        ["0000000000000007-6", "0000000000000007-7"]
    );
    assert_eq!(feed.after(kept + 5, 9).map(|events| events.len()), Some(0));
    assert_eq!(feed.after(kept + 9, 9).map(|events| events.len()), Some(0));
}

#[tokio::test]
async fn who_waits_is_woken_by_the_next_event() {
    let feed = std::sync::Arc::new(Feed::new(7));
    feed.fault_began(Fault::Injected(injected(1)));
    feed.later_than(0).await;
    let waiting = tokio::spawn({
        let feed = feed.clone();
        async move { feed.later_than(1).await }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    feed.fault_ended(&injected(1));
    tokio::time::timeout(std::time::Duration::from_secs(20), waiting).await.expect("in time").expect("no panic");
}

#[test]
fn an_event_id_is_written_in_one_way() {
    let id = EventId { boot: 0xab, number: 17 };
    assert_eq!("00000000000000ab-17".parse(), Ok(id));
    for bad in ["", "ab-17", "00000000000000AB-17", "00000000000000ab-017", "00000000000000ab-", "+0000000000000ab-1"] {
        assert_eq!(bad.parse::<EventId>(), Err(InvalidEventId), "{bad}");
    }
}

#[derive(Debug, Clone)]
enum Look {
    Members(Vec<(u64, usize, bool, u64)>),
    Leader(u16, Option<u64>, u64),
    Closed(u16),
    Injected(u64, bool),
    Violations(Vec<u64>),
}

fn look() -> impl Strategy<Value = Look> {
    prop_oneof![
        vec((0..4_u64, 0..3_usize, any::<bool>(), 0..3_u64), 0..5).prop_map(Look::Members),
        (0..3_u16, proptest::option::of(0..3_u64), 0..4_u64).prop_map(|(s, o, t)| Look::Leader(s, o, t)),
        (0..3_u16).prop_map(Look::Closed),
        (0..3_u64, any::<bool>()).prop_map(|(id, began)| Look::Injected(id, began)),
        vec(0..4_u64, 0..4).prop_map(Look::Violations),
    ]
}

fn apply(feed: &Feed, look: Look) {
    match look {
        Look::Members(seen) => {
            let states = ["alive", "suspect", "down"];
            let seen: BTreeMap<u64, MemberSeen> = seen
                .into_iter()
                .map(|(node, state, linked, boot)| (node, member(node, states[state], linked, boot.checked_sub(1))))
                .collect();
            feed.note_members(seen.into_values().collect());
        }
        Look::Leader(shard, node, term) => feed.note_leader(ShardId(shard), node.and_then(owner), term),
        Look::Closed(shard) => feed.replica_closed(ShardId(shard)),
        Look::Injected(id, true) => feed.fault_began(Fault::Injected(injected(id))),
        Look::Injected(id, false) => feed.fault_ended(&injected(id)),
        Look::Violations(peers) => feed.note_violations(peers.into_iter().map(violation).collect()),
    }
}

/// What a client makes of an event.
fn fold(stands: &mut Snapshot, event: &ClusterEvent) {
    stands.id = event.id;
    match event.news.clone() {
        News::Membership { change, member } => {
            stands.members.retain(|known| known.status.node != member.status.node);
            if change != MemberChange::Removed {
                stands.members.push(member);
            }
        }
        News::Leadership { change, shard } => {
            stands.shards.retain(|known| known.shard != shard.shard);
            if change != LeaderChange::Closed {
                stands.shards.push(shard);
            }
        }
        News::Fault { change, fault } => {
            stands.faults.retain(|known| *known != fault);
            if change == FaultChange::Began {
                stands.faults.push(fault);
            }
        }
    }
}

/// In one order, without the time, and without what is not worth an event.
fn plain(mut stands: Snapshot) -> String {
    stands.members.sort_by_key(|member| member.status.node);
    stands.shards.retain(|shard| shard.owner.is_some());
    stands.shards.sort_by_key(|shard| shard.shard);
    let mut faults: Vec<String> = stands.faults.iter().map(|fault| format!("{fault:?}")).collect();
    faults.sort();
    format!("{} {:?} {:?} {faults:?}", stands.id, stands.members, stands.shards)
}

proptest! {
    /// Whoever takes a snapshot at any moment, and what happens behind it, is never wrong.
    #[test]
    fn a_snapshot_and_the_events_behind_it_are_what_stands(before in vec(look(), 0..20), later in vec(look(), 0..20)) {
        let feed = Feed::new(7);
        before.into_iter().for_each(|look| apply(&feed, look));
        let mut stands = feed.snapshot();
        for look in later {
            apply(&feed, look);
            for event in feed.after(stands.id.number, usize::MAX).expect("kept") {
                prop_assert_eq!(event.id.number, stands.id.number + 1);
                fold(&mut stands, &event);
            }
            prop_assert_eq!(plain(stands.clone()), plain(feed.snapshot()));
        }
    }
}
