//! [`Cluster`]: a running node, or several in one process.

use super::{
    builder::{Builder, Surroundings},
    entity_ref::EntityRef,
    faults::{FaultError, FaultSwitch},
    node::Node,
    types::{Consistency, EntityStatus, MemberStatus, NodeStatus, Phase, ShardStatus, Unavailable},
};
use crate::{
    Config,
    entity::{Entity, EntityKey, ShardId},
    shard::{Query, QueryReply, QueryRequest},
    transport,
};
use std::{path::PathBuf, sync::Arc, time::Duration};

/// A running node (or, from [`Cluster::in_memory`], several) and the way to its entities. Cheap
/// to clone.
#[derive(Clone)]
pub struct Cluster {
    nodes: Arc<Vec<Arc<Node>>>,
    index: usize,
}

impl Cluster {
    /// A node with this configuration: its own ports, its own data directory, its seeds.
    pub fn builder(config: Config) -> Builder {
        Builder::for_node(config)
    }

    /// One durable node in `data_dir`, no peers, no ports.
    pub fn single_node(data_dir: impl Into<PathBuf>) -> Builder {
        Builder::single_node(data_dir.into())
    }

    /// `nodes` nodes in this process, on memory storage and memory links, with four shards. For
    /// tests and trials.
    pub fn in_memory(nodes: usize) -> Builder {
        Builder::in_memory(nodes, transport::memory::Network::new())
    }

    /// As [`Cluster::in_memory`], on links that the caller can cut, delay and break. The nodes'
    /// addresses are `node-1`, `node-2` and so on.
    pub fn in_memory_over(network: transport::memory::Network, nodes: usize) -> Builder {
        Builder::in_memory(nodes, network)
    }

    /// One node of this process in surroundings of the caller's, who starts it, crashes it and
    /// starts it again. [`Builder::start`] returns before it has joined: see [`Cluster::ready`].
    pub fn surrounded(config: Config, by: Surroundings) -> Builder {
        Builder::surrounded(config, by)
    }

    pub(super) fn of(nodes: Vec<Arc<Node>>) -> Self {
        Self { nodes: Arc::new(nodes), index: 0 }
    }

    /// For a cluster of several nodes in this process: the same handle seen from node `index`
    /// (0-based, modulo their number). [`Builder::start`] leaves you at node 0.
    #[must_use]
    pub fn on_node(&self, index: usize) -> Cluster {
        Self { nodes: self.nodes.clone(), index: index % self.nodes.len() }
    }

    /// How many nodes of the cluster run in this process.
    pub(super) fn members_in_process(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn node(&self) -> &Arc<Node> {
        &self.nodes[self.index]
    }

    /// The entity `id` of type `E`, whether it exists yet or not.
    pub fn entity<E: Entity>(&self, id: impl Into<String>) -> EntityRef<E> {
        EntityRef::new(self.node().clone(), id.into())
    }

    /// The shop, operations and documentation routes, for mounting in your own app. Where `http.tokens`
    /// are configured these routes ask for one; the app's own do not.
    pub fn http_router(&self) -> axum::Router {
        crate::ingress::routes(self.clone(), &self.config().http)
    }

    pub fn name(&self) -> &str {
        &self.node().config().node.name
    }

    pub fn config(&self) -> &Config {
        self.node().config()
    }

    pub fn status(&self) -> NodeStatus {
        self.node().status()
    }

    /// What breaks this node on purpose.
    ///
    /// # Errors
    /// [`FaultError::NotAllowed`]: it was not started with [`Builder::allow_faults`].
    pub fn faults(&self) -> Result<&FaultSwitch, FaultError> {
        self.node().faults().ok_or(FaultError::NotAllowed)
    }

    /// The roster as this node knows it.
    pub fn members(&self) -> Vec<MemberStatus> {
        self.node().members()
    }

    /// Every shard, seen from this node.
    pub fn shards(&self) -> Vec<ShardStatus> {
        self.node().shards()
    }

    /// Any entity by type and id, its state as JSON; `null` for an entity without events.
    pub async fn inspect(
        &self,
        entity_type: &str,
        id: &str,
        consistency: Consistency,
    ) -> Result<(EntityStatus, serde_json::Value), Unavailable> {
        let node = self.node();
        let Some(registered) = node.registry().entity_type(entity_type).cloned() else {
            return Err(Unavailable::UnknownType { entity_type: entity_type.to_owned() });
        };
        let invalid = |detail: String| Unavailable::Invalid { detail };
        let key = EntityKey::new(entity_type, id).map_err(|e| invalid(e.to_string()))?;
        let timeout = node.config().shard.command_timeout;
        let router = node.router(timeout).await?;
        let request = QueryRequest { key: key.clone(), query: Query::State, consistency };
        let QueryReply::State(stored) = router.query(request, timeout).await? else {
            return Err(Unavailable::mixed_up());
        };
        let state = match &stored.state {
            Some(state) => registered.state_json(state).map_err(|e| invalid(e.to_string()))?,
            None => serde_json::Value::Null,
        };
        let group = router.group_of(&key);
        let (version, applied_index) = (stored.version, stored.applied_index);
        let status = EntityStatus { key, shard: ShardId(group.0), owner: router.owner(group), version, applied_index };
        Ok((status, state))
    }

    /// Waits until this node is [`Phase::Ready`].
    pub async fn ready(&self, timeout: Duration) -> Result<(), Unavailable> {
        let mut phase = self.node().phase();
        let ready = tokio::time::timeout(timeout, phase.wait_for(|p| *p == Phase::Ready)).await;
        match ready {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Unavailable::NoQuorum { shard: ShardId(0) }),
        }
    }

    /// Completes when this node begins to stop.
    pub async fn draining(&self) {
        let mut phase = self.node().phase();
        // An error means that the node is gone, which is as good as a stop.
        _ = phase.wait_for(|phase| *phase == Phase::Draining).await;
    }

    /// Why this node had to give up after it had started, once it has: for instance a failed
    /// disk, or a data directory of another cluster.
    pub async fn failed(&self) -> String {
        self.node().failed().await
    }

    /// Hands leadership over, finishes what is in flight, stops. The node stays a member. Stops
    /// every node of an in-process cluster.
    pub async fn shutdown(&self) {
        // One after the other, so that the last ones keep a quorum as long as they can.
        for node in self.nodes.iter() {
            node.shutdown().await;
        }
    }
}
