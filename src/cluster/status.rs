//! What a node tells of itself.

use super::{
    node::Node,
    types::{MemberStatus, NodeStatus, ShardStatus},
};
use crate::{
    catalog::{NodeId, Placement},
    entity::ShardId,
    shard::ShardHost,
    storage::GroupId,
    transport::is_up,
};
use std::sync::Arc;

impl Node {
    pub fn status(&self) -> NodeStatus {
        let member = self.membership_of_cluster();
        let shards = self.shards();
        let without_owner = shards.iter().filter(|s| s.owner.is_none()).map(|s| s.shard);
        let me = member.as_ref().map(|m| m.node);
        NodeStatus {
            cluster: member.as_ref().map(|m| m.peers.cluster),
            node: me,
            name: self.config().node.name.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_ms: u64::try_from(self.uptime().as_millis()).unwrap_or(u64::MAX),
            phase: *self.phase().borrow(),
            shards_without_owner: without_owner.collect(),
            violations: self.violations(),
            shards_owned: shards.iter().filter(|s| s.owner.is_some() && s.owner == me).count(),
        }
    }

    pub fn members(&self) -> Vec<MemberStatus> {
        let me = self.membership_of_cluster().map(|m| m.node);
        let (links, gossip, view) = (self.links(), self.gossip(), self.view());
        let status = |member: crate::catalog::Member| {
            let is_self = Some(member.node) == me;
            let seen = gossip.get(&member.node).map_or("down", |m| m.state.as_str());
            let linked = is_self || is_up(&links, member.node);
            // Without gossip (in one process) the link is all there is to see.
            let gossip = match (is_self, gossip.is_empty()) {
                (true, _) => "alive",
                (false, true) if linked => "alive",
                _ => seen,
            };
            MemberStatus {
                node: member.node,
                name: member.name,
                address: member.address,
                http: member.http,
                zone: member.zone,
                gossip: gossip.into(),
                linked,
                is_self,
                leaving: view.leaving.contains(&member.node),
            }
        };
        view.members.iter().cloned().map(status).collect()
    }

    pub fn shards(&self) -> Vec<ShardStatus> {
        let Some(member) = self.membership_of_cluster() else { return Vec::new() };
        let routes = member.router.routes();
        let mut placements: Vec<&Placement> =
            routes.placements.values().filter(|p| p.group != GroupId::CATALOG).collect();
        placements.sort_unstable_by_key(|p| p.group);
        let status = |p: &Placement| shard_status(p, member.router.owner(p.group), member.router.host(p.group));
        placements.into_iter().map(status).collect()
    }
}

fn shard_status(placement: &Placement, owner: Option<NodeId>, host: Option<Arc<ShardHost>>) -> ShardStatus {
    let lag = host.as_ref().map(|h| h.lag());
    ShardStatus {
        shard: ShardId(placement.group.0),
        replicas: placement.replicas.clone(),
        voters: host.as_ref().map_or_else(Vec::new, |h| h.group().voters()),
        owner,
        term: host.as_ref().map_or(0, |h| h.leadership().term),
        applied_index: lag.as_ref().map(|l| l.applied_index),
        last_log_index: lag.as_ref().map(|l| l.last_log_index),
        outbox: host.as_ref().map_or(0, |h| h.machine().outbox_len()),
        active_entities: host.as_ref().map_or(0, |h| h.active_entities()),
    }
}
