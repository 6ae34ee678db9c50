//! Keeps every group's replicas where the catalog wants them.

use super::node::Node;
use crate::shard::{Router, ShardHost};
use std::{sync::Arc, time::Duration};
use tokio::time::MissedTickBehavior;

const TICK: Duration = Duration::from_millis(500);
/// A change of voters that takes longer is looked at anew: its quorum may be gone.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);

/// Brings the groups that this node leads to the replicas that the catalog names, one group after the
/// other: a new replica is filled first, then it votes and the one that it replaces does not.
pub(super) async fn keep_in_place(node: Arc<Node>) {
    let Some(member) = node.membership_of_cluster() else { return };
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        for host in member.router.hosts().into_iter().filter(|host| host.is_serving()) {
            step(&member.router, &host).await;
        }
    }
}

async fn step(router: &Router, host: &ShardHost) {
    let group = host.group();
    let id = group.id().0;
    let Some(wanted) = router.placement(group.id()) else { return };
    match tokio::time::timeout(STEP_TIMEOUT, group.change_replicas(&wanted.replicas)).await {
        Ok(Ok(None)) => {}
        Ok(Ok(Some(change))) => tracing::info!(group = id, "{change}"),
        Ok(Err(error)) => tracing::warn!(group = id, error, "the group's replicas cannot be changed yet"),
        Err(_) => tracing::warn!(group = id, "a change of the group's replicas is not committed yet"),
    }
}
