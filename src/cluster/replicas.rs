//! Keeps replicas where the catalog wants them: each node opens and closes its own, and the leader of a
//! group changes who votes in it.
//!
//! ```text
//! catalog: wanted on a b d, moving c
//!   d opens a blank replica ─▶ the leader adds it, Raft fills it, it votes and c does not ─▶ leader: settled
//!   catalog: moving nobody ─▶ c closes its replica
//! ```

use super::{
    events,
    node::{InCluster, Node},
};
use crate::{
    catalog::{Command, Placement, View},
    entity::ShardId,
    replication::{Group, Machine, tidy_closed},
    shard::{Parts, SEGMENTS_HELD_MAX, ShardHost, ShardMachine},
    storage::GroupId,
    transport::{LinkView, is_up},
};
use rand::seq::SliceRandom;
use std::{sync::Arc, time::Duration};
use tokio::{sync::watch, time::MissedTickBehavior};

const TICK: Duration = Duration::from_millis(500);
/// A change of voters that takes longer is looked at anew: its quorum may be gone.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);
/// A group is created once its replicas are linked, or when this time is over: the creator's first
/// election then finds its voters, and need not wait for the timeout of a second one.
const LINK_PATIENCE: Duration = Duration::from_secs(1);
/// A group that its preferred owner has not created by then is created by another replica.
const INITIALIZE_PATIENCE: Duration = Duration::from_secs(3);

impl Node {
    /// Opens the replicas that are to be here, and closes those that nobody counts on any more.
    pub(super) async fn fit_replicas(self: &Arc<Self>, member: &InCluster, view: &View) -> Result<(), String> {
        for group in view.placements.iter().map(|placement| placement.group) {
            match (view.may_hold(member.node, group), member.router.host(group)) {
                (true, None) => self.open_replica(member, group, view.founding(group)).await?,
                (false, Some(host)) => self.close_replica(member, &host).await?,
                (false, None) => self.tidy_closed(group).await?,
                (true, Some(_)) => {}
            }
        }
        Ok(())
    }

    async fn open_replica(
        self: &Arc<Self>,
        member: &InCluster,
        id: GroupId,
        founding: Option<&Placement>,
    ) -> Result<(), String> {
        let machine = self.open_machine(id)?;
        machine.keep_receipts(self.config().shard.receipts_kept);
        machine.drop_old_generation().await.map_err(|e| e.to_string())?;
        let (options, peers) = (&self.config().replication, member.peers.clone());
        let replica = Arc::new(machine.clone());
        let (storage, alive) = (self.storage.clone(), self.tasks.token());
        let group = Group::open(id, member.node, options, peers, storage, replica, alive).await?;
        let group = Arc::new(group);
        self.groups.write().insert(id, group.clone());
        let options = Arc::new(self.config().shard.clone());
        let (clock, queues, tasks) = (self.clock.clone(), self.queues.clone(), self.tasks.clone());
        let parts = Parts { group: group.clone(), machine, options, clock, queues, tasks };
        member.router.add_host(ShardHost::start(parts, member.router.clone()));
        if let Some(founding) = founding.filter(|founding| founding.is_on(member.node)) {
            self.spawn(initialize(group.clone(), founding.clone(), self.transport.links()));
        }
        if id != GroupId::CATALOG {
            self.spawn(events::follow_leader(self.clone(), group.clone()));
        }
        self.spawn(self.clone().follow_group(group));
        Ok(())
    }

    fn open_machine(&self, id: GroupId) -> Result<ShardMachine, String> {
        let (storage, registry) = (self.storage.clone(), self.registry.clone());
        let opened = ShardMachine::open(id, storage, registry, self.config().shard.entities_cached);
        opened.map_err(|e| e.to_string())
    }

    /// What it had stays on disk: there it goes on if the group comes back to this node.
    async fn close_replica(&self, member: &InCluster, host: &ShardHost) -> Result<(), String> {
        let id = host.group().id();
        member.router.remove_host(id);
        self.groups.write().remove(&id);
        host.stop().await;
        host.machine().checkpoint().await.map_err(|e| e.to_string())?;
        self.feed().replica_closed(ShardId(id.0));
        tracing::info!(group = id.0, "this node holds no replica of the group any more");
        Ok(())
    }

    /// The journal must not be held back by a replica that was closed.
    async fn tidy_closed(&self, id: GroupId) -> Result<(), String> {
        if self.storage.segments_held(id) <= SEGMENTS_HELD_MAX {
            return Ok(());
        }
        let durable = self.open_machine(id)?.applied();
        tidy_closed(&self.storage, id, &durable).await
    }
}

/// Creates a group: its preferred owner at once, the other replicas if that one does not.
async fn initialize(group: Arc<Group>, founding: Placement, mut links: watch::Receiver<LinkView>) {
    if founding.preferred == group.me() {
        let others = || founding.replicas.iter().filter(|replica| **replica != group.me());
        let all_up = |links: &LinkView| others().all(|replica| is_up(links, *replica));
        // Without them the election is tried again until there is a majority.
        let _ = tokio::time::timeout(LINK_PATIENCE, links.wait_for(all_up)).await;
    } else {
        tokio::time::sleep(INITIALIZE_PATIENCE).await;
    }
    while !group.is_initialized().await {
        if let Err(error) = group.initialize(&founding.replicas).await {
            tracing::warn!(group = group.id().0, error, "a group cannot be created");
            return;
        }
    }
}

/// Brings the groups that this node leads to the replicas that the catalog names, one group after the
/// other: a new replica is filled first, then it votes and the one that it replaces does not.
pub(super) async fn keep_in_place(node: Arc<Node>) {
    let Some(member) = node.membership_of_cluster() else { return };
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let view = node.view();
        for host in member.router.hosts().into_iter().filter(|host| host.is_serving()) {
            if !is_in_place(host.group(), &view) {
                step(&node, &host).await;
            }
        }
    }
}

fn is_in_place(group: &Group, view: &View) -> bool {
    let is_settled = |wanted: &Placement| wanted.is_on(group.me()) && group.is_settled_on(&wanted.replicas);
    view.placement(group.id()).is_none_or(is_settled) && !view.moving.contains_key(&group.id())
}

/// Goes by what the catalog says now, and not by what this node remembers of it: voters that another leader
/// has reported as settled must not be changed back towards an older placement. What was read is
/// acted upon in the term in which it was read, or not at all.
async fn step(node: &Node, host: &ShardHost) {
    let group = host.group();
    let (id, term) = (group.id().0, host.leadership().term);
    let Some(view) = node.read_catalog().await else { return };
    let Some(wanted) = view.placement(group.id()) else { return };
    // A leader does not vote itself out: it stays until another can take over, and that one goes on.
    let mut replicas = wanted.replicas.clone();
    if !wanted.is_on(group.me()) {
        replicas.push(group.me());
    }
    let links = node.links();
    let is_there = |replica| replica == group.me() || is_up(&links, replica);
    match tokio::time::timeout(STEP_TIMEOUT, group.change_replicas(&replicas, term, is_there)).await {
        Ok(Ok(None)) if !group.is_settled_on(&replicas) => {}
        Ok(Ok(None)) if !wanted.is_on(group.me()) => hand_over(node, host, wanted).await,
        Ok(Ok(None)) if view.moving.contains_key(&group.id()) => {
            // Only who still leads knows that nobody else has changed it since.
            if group.read_barrier().await.is_ok() && host.leadership().term == term {
                report(node, wanted).await;
            }
        }
        Ok(Ok(None)) => {}
        Ok(Ok(Some(change))) => tracing::info!(group = id, "{change}"),
        Ok(Err(error)) => tracing::warn!(group = id, error, "the group's replicas cannot be changed yet"),
        Err(_) => tracing::warn!(group = id, "a change of the group's replicas is not committed yet"),
    }
}

async fn report(node: &Node, settled: &Placement) {
    let (group, epoch) = (settled.group, settled.epoch);
    if let Err(error) = node.ask_catalog(&Command::Settled { group, epoch }).await {
        tracing::warn!(group = group.0, error, "the catalog cannot be told that the group has settled");
    }
}

/// To the preferred one, or to another: who does not take over must not be asked first for ever.
async fn hand_over(node: &Node, host: &ShardHost, wanted: &Placement) {
    let links = node.links();
    let mut others = wanted.replicas.clone();
    others.shuffle(&mut rand::rng());
    let preferred = rand::random::<bool>().then_some(wanted.preferred);
    for replica in preferred.iter().chain(&others).filter(|replica| is_up(&links, **replica)) {
        if host.hand_over(*replica).await {
            return;
        }
    }
}
