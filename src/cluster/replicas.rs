//! Keeps every group's replicas where the catalog wants them.

use super::node::{InCluster, Node};
use crate::{catalog::View, shard::ShardHost};
use std::{sync::Arc, time::Duration};
use tokio::time::MissedTickBehavior;

const TICK: Duration = Duration::from_millis(500);
/// A change of voters that takes longer is looked at anew: its quorum may be gone.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);

/// Tells this node's replicas what the catalog wants now.
pub(super) fn place(member: &InCluster, view: &View) {
    for placement in &view.placements {
        if let Some(host) = member.router.host(placement.group) {
            host.place(placement.clone());
        }
    }
}

/// Brings the groups that this node leads to the replicas that the catalog names, one group after the
/// other: a new replica is filled first, then it votes and the one that it replaces does not.
pub(super) async fn keep_in_place(node: Arc<Node>) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        for host in node.hosts().into_iter().filter(|host| host.is_serving()) {
            step(&host).await;
        }
    }
}

async fn step(host: &ShardHost) {
    let (group, wanted) = (host.group(), host.placement().replicas);
    let id = group.id().0;
    match tokio::time::timeout(STEP_TIMEOUT, group.change_replicas(&wanted)).await {
        Ok(Ok(None)) => {}
        Ok(Ok(Some(change))) => tracing::info!(group = id, "{change}"),
        Ok(Err(error)) => tracing::warn!(group = id, error, "the group's replicas cannot be changed yet"),
        Err(_) => tracing::warn!(group = id, "a change of the group's replicas is not committed yet"),
    }
}
