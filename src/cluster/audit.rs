//! The auditor of a node: looks without end at what its replicas have applied, a little at a time,
//! and compares their running hashes with those of its peers.
//!
//! ```text
//! tick ─▶ every shard: entities that changed ─▶ obey their laws? ── no ─▶ frozen
//!     └─▶ one shard in turn: the next stored entities, and its hash ─▶ peers: the same? ── no ─▶ reported
//! ```
//!
//! A difference between replicas is nobody's in particular, so nothing is frozen for it. Nothing
//! here changes what is stored.

use super::{handle::Cluster, node::Node};
use crate::{
    catalog::NodeId,
    entity::{EntityKey, ShardId},
    shard::{Broken, Compared, ShardHost, StateHash, now_ms},
    storage::GroupId,
};
use parking_lot::Mutex;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// Changed entities looked at per shard and tick.
const CHANGED_STEP: usize = 256;
/// Stored entities looked at per tick.
const STORED_STEP: usize = 128;
const PEER_TIMEOUT: Duration = Duration::from_secs(2);

/// Which law was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// CONSERVATION: the state of an entity does not add up. It is frozen.
    Conservation { entity: EntityKey, version: u64, detail: String },
    /// DETERMINISTIC-APPLY: another node's replica differs from this one's.
    StateHash { peer: NodeId, index: u64 },
}

/// A broken invariant as this node found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub shard: ShardId,
    pub violation: Violation,
    /// In milliseconds since the epoch.
    pub found_at_ms: u64,
}

/// A replica's running hash as this node has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardHash {
    pub shard: ShardId,
    pub hash: StateHash,
}

/// Differences that stand: the first entry after which they were seen, and when.
#[derive(Default)]
pub(super) struct Differences(Mutex<BTreeMap<(ShardId, NodeId), (u64, u64)>>);

impl Differences {
    /// What a comparison with a peer has shown.
    fn note(&self, shard: ShardId, peer: NodeId, compared: Compared) {
        let mut known = self.0.lock();
        match compared {
            Compared::Incomparable => {}
            Compared::Same => drop(known.remove(&(shard, peer))),
            Compared::DifferAt(index) => {
                known.entry((shard, peer)).or_insert_with(|| {
                    metrics::counter!("quorate_invariant_violations_total", "invariant" => "state_hash").increment(1);
                    tracing::error!(%shard, %peer, index, "this node's replica and its peer's differ");
                    (index, now_ms())
                });
            }
        }
    }
}

/// Of replicas that are gone, here or there, nothing can be said any more.
fn forget_the_gone(node: &Node) {
    let Some(member) = node.membership_of_cluster() else { return };
    let is_there = |shard: &ShardId, peer: &NodeId| {
        let placement = member.router.placement(GroupId(shard.0));
        member.router.host(GroupId(shard.0)).is_some() && placement.is_some_and(|placement| placement.is_on(*peer))
    };
    node.differences().0.lock().retain(|(shard, peer), _| is_there(shard, peer));
}

/// Runs until the node stops.
pub(super) async fn run(node: Arc<Node>) {
    let period = node.config().shard.audit_interval;
    if period.is_zero() {
        return;
    }
    let mut tick = tokio::time::interval(period);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for turn in 0.. {
        tick.tick().await;
        let hosts = shards(&node);
        for host in &hosts {
            if let Err(error) = host.machine().audit_changed(CHANGED_STEP) {
                tracing::error!(shard = %shard_of(host), %error, "what has changed cannot be audited");
            }
            tokio::task::yield_now().await;
        }
        let frozen: usize = hosts.iter().map(|host| host.machine().frozen_count()).sum();
        metrics::gauge!("quorate_entities_frozen").set(frozen as f64);
        if let Some(host) = hosts.get(turn % hosts.len().max(1)) {
            if let Err(error) = host.machine().audit_stored(STORED_STEP) {
                tracing::error!(shard = %shard_of(host), %error, "what is stored cannot be audited");
            }
            compare(&node, host).await;
        }
        forget_the_gone(&node);
        if node.violations() > 0 || node.feed().has_violations() {
            node.feed().note_violations(node.findings());
        }
    }
}

async fn compare(node: &Node, host: &ShardHost) {
    let Some(member) = node.membership_of_cluster() else { return };
    let Some(placement) = member.router.placement(host.group().id()) else { return };
    for peer in placement.replicas.into_iter().filter(|peer| *peer != member.node) {
        let theirs = member.router.state_hash_at(peer, host.group().id(), PEER_TIMEOUT).await;
        // Whoever cannot tell just now is asked again in the next turn.
        if let Some(theirs) = theirs {
            node.differences().note(shard_of(host), peer, host.machine().state_hash().compare(&theirs));
        }
    }
}

/// This node's replicas of shards, in their order.
fn shards(node: &Node) -> Vec<Arc<ShardHost>> {
    let mut hosts = node.hosts();
    hosts.retain(|host| host.group().id() != GroupId::CATALOG);
    hosts.sort_unstable_by_key(|host| host.group().id());
    hosts
}

fn shard_of(host: &ShardHost) -> ShardId {
    ShardId(host.group().id().0)
}

impl Node {
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for host in shards(self) {
            let shard = shard_of(&host);
            findings.extend(host.machine().frozen().into_iter().map(|broken| finding(shard, broken)));
        }
        let differences = self.differences().0.lock();
        findings.extend(differences.iter().map(|((shard, peer), (index, found_at_ms))| Finding {
            shard: *shard,
            violation: Violation::StateHash { peer: *peer, index: *index },
            found_at_ms: *found_at_ms,
        }));
        findings
    }

    pub fn violations(&self) -> usize {
        let frozen: usize = shards(self).iter().map(|host| host.machine().frozen_count()).sum();
        frozen + self.differences().0.lock().len()
    }
}

fn finding(shard: ShardId, broken: Broken) -> Finding {
    let Broken { entity, version, detail, found_at_ms } = broken;
    Finding { shard, violation: Violation::Conservation { entity, version, detail }, found_at_ms }
}

impl Cluster {
    /// Broken invariants that this node has found and that still stand.
    pub fn findings(&self) -> Vec<Finding> {
        self.node().findings()
    }

    /// The running hashes of this node's replicas, by shard.
    pub fn state_hashes(&self) -> Vec<ShardHash> {
        let hash = |host: &Arc<ShardHost>| ShardHash { shard: shard_of(host), hash: host.machine().state_hash() };
        shards(self.node()).iter().map(hash).collect()
    }
}

#[cfg(test)]
mod tests;
