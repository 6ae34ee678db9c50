//! Keeps leadership where the shard map wants it, and moves it away when a node stops.

use super::node::Node;
use crate::{
    catalog::{NodeId, Placement},
    shard::{Router, ShardHost},
    transport::{LinkView, is_up},
};
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior},
};

const TICK: Duration = Duration::from_secs(1);
/// A preferred owner must have been linked for this long before it is handed a shard back.
const SETTLED_AFTER: Duration = Duration::from_secs(3);
const DRAIN_MAX: Duration = Duration::from_secs(5);
const HAND_OVER_PATIENCE: Duration = Duration::from_millis(500);
const DRAIN_TICK: Duration = Duration::from_millis(20);

/// Hands shards to their preferred owners, once those are up and close behind.
pub(super) async fn balance(node: Arc<Node>) {
    let Some(member) = node.membership_of_cluster() else { return };
    let mut linked_since: HashMap<NodeId, Instant> = HashMap::new();
    let mut tick = tokio::time::interval(TICK);
    loop {
        tick.tick().await;
        note_links(&mut linked_since, &node.links());
        for host in member.router.hosts() {
            let Some(Placement { preferred, .. }) = member.router.placement(host.group().id()) else { continue };
            let settled = linked_since.get(&preferred).is_some_and(|since| since.elapsed() >= SETTLED_AFTER);
            if host.is_serving() && preferred != host.group().me() && settled && host.hand_over(preferred).await {
                tracing::debug!(shard = host.group().id().0, %preferred, "handing leadership to the preferred owner");
            }
        }
    }
}

/// Keeps up with who owns the shards that have no replica here: requests learn it by themselves, but
/// operators ask before there are any. One other node is asked at a time, and then the next.
pub(super) async fn learn_owners(node: Arc<Node>) {
    let Some(member) = node.membership_of_cluster() else { return };
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = NodeId::default();
    loop {
        tick.tick().await;
        if member.router.has_all() {
            continue;
        }
        let links = node.links();
        let mut up: Vec<NodeId> = links.iter().filter(|(_, link)| link.up).map(|(peer, _)| *peer).collect();
        up.sort_unstable();
        if let Some(next) = up.iter().find(|peer| **peer > last).or(up.first()) {
            last = *next;
            member.router.ask_owners(last, TICK).await;
        }
    }
}

fn note_links(linked_since: &mut HashMap<NodeId, Instant>, links: &LinkView) {
    linked_since.retain(|node, _| is_up(links, *node));
    for (node, _) in links.iter().filter(|(_, link)| link.up) {
        linked_since.entry(*node).or_insert_with(Instant::now);
    }
}

/// How often, and for how long, a replica stands for election after the link with its leader
/// broke. Nobody votes before the leader's lease has run out, so the first attempts are in vain.
const ELECT_TICK: Duration = Duration::from_millis(50);
const ELECT_TICKS: u32 = 40;

/// Stands for election in every group whose leader's link just broke, as soon as the lease has
/// run out, instead of waiting for a random time after it. The pre-vote keeps this from
/// disturbing a leader that others still hear.
pub(super) async fn react_to_broken_links(node: Arc<Node>, mut links: watch::Receiver<LinkView>) {
    let Some(member) = node.membership_of_cluster() else { return };
    let mut before = links.borrow_and_update().clone();
    while links.changed().await.is_ok() {
        let now = links.borrow_and_update().clone();
        let broke = |id: &NodeId| is_up(&before, *id) && !is_up(&now, *id);
        for host in member.router.hosts() {
            if let Some(lost) = host.leadership().leader.filter(broke) {
                node.spawn(replace_leader(member.router.clone(), host, lost));
            }
        }
        before = now;
    }
}

async fn replace_leader(router: Router, host: Arc<ShardHost>, lost: NodeId) {
    // The replicas take turns, so that they do not split the vote.
    let replicas = router.placement(host.group().id()).map(|placement| placement.replicas).unwrap_or_default();
    let turn = replicas.iter().filter(|n| **n != lost).position(|n| *n == host.group().me());
    let turn = u32::try_from(turn.unwrap_or(0)).unwrap_or(0);
    tokio::time::sleep(ELECT_TICK * turn / 2).await;
    for _ in 0..ELECT_TICKS {
        if host.leadership().leader != Some(lost) {
            return;
        }
        host.group().elect().await;
        tokio::time::sleep(ELECT_TICK).await;
    }
}

/// Moves every shard this node leads to another replica, as far as that can be done in a bounded
/// time. Peers that go away meanwhile are no candidates any more: several nodes may be stopping.
pub(super) async fn drain(router: &Router, links: &watch::Receiver<LinkView>) {
    let (hosts, started) = (router.hosts(), Instant::now());
    loop {
        let led: Vec<_> = hosts.iter().filter(|h| h.leadership().is_me).collect();
        if led.is_empty() || started.elapsed() >= DRAIN_MAX {
            if !led.is_empty() {
                tracing::warn!(shards = led.len(), "stopping although some shards could not be handed over");
            }
            return;
        }
        let up: Vec<NodeId> = links.borrow().iter().filter(|(_, link)| link.up).map(|(node, _)| *node).collect();
        // One who does not take over is given a while, then the next one is asked.
        let turn = (started.elapsed().as_millis() / HAND_OVER_PATIENCE.as_millis()) as usize;
        let mut possible = false;
        for host in led {
            let placement = router.placement(host.group().id());
            let mut others = placement.map(|placement| placement.replicas).unwrap_or_default();
            others.retain(|replica| up.contains(replica));
            possible |= !others.is_empty();
            for i in 0..others.len() {
                if host.hand_over(others[(turn + i) % others.len()]).await {
                    break;
                }
            }
        }
        if !possible {
            return;
        }
        tokio::time::sleep(DRAIN_TICK).await;
    }
}
