//! Finds the owner of an entity, here or elsewhere, and keeps asking until there is an answer or
//! the time is up.
//!
//! A request whose fate is not known is sent again only if its cause or its idempotency key makes
//! that safe; otherwise the caller is told that the outcome is unknown.

use super::{
    host::ShardHost,
    request::{Cause, CommandReply, CommandRequest, Query, QueryReply, QueryRequest},
};
use crate::{
    catalog::{ClusterId, NodeId, Placement, View},
    cluster::{Consistency, Unavailable},
    entity::{EntityKey, ShardId, codec},
    replication::{PeerClient, Service},
    sabotage::{self, Sabotage},
    storage::GroupId,
    transport::{self, Class},
};
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use serde::{Serialize, de::DeserializeOwned};
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::time::Instant;

const BACKOFF_MIN: Duration = Duration::from_millis(2);
const BACKOFF_MAX: Duration = Duration::from_millis(50);

/// Where every group lives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routes {
    pub shards: u16,
    pub placements: HashMap<GroupId, Placement>,
}

impl From<&View> for Routes {
    fn from(view: &View) -> Self {
        let placements = view.placements.iter().map(|p| (p.group, p.clone())).collect();
        Self { shards: view.shards, placements }
    }
}

#[derive(Clone)]
pub struct Router(Arc<Inner>);

struct Inner {
    me: NodeId,
    peers: PeerClient,
    routes: RwLock<Routes>,
    hosts: RwLock<HashMap<GroupId, Arc<ShardHost>>>,
    hints: Mutex<HashMap<GroupId, NodeId>>,
    /// Entity type that lives in the catalog's group instead of a shard.
    catalog_type: &'static str,
}

/// Whom to ask.
pub(super) enum Target {
    Here(Arc<ShardHost>),
    Node(NodeId),
    Nobody,
}

impl Router {
    pub fn new(me: NodeId, peers: PeerClient, catalog_type: &'static str) -> Self {
        Self(Arc::new(Inner {
            me,
            peers,
            routes: RwLock::default(),
            hosts: RwLock::default(),
            hints: Mutex::default(),
            catalog_type,
        }))
    }

    pub(super) fn me(&self) -> NodeId {
        self.0.me
    }

    pub fn cluster(&self) -> ClusterId {
        self.0.peers.cluster
    }

    pub fn set_routes(&self, routes: Routes) {
        *self.0.routes.write() = routes;
    }

    pub fn routes(&self) -> Routes {
        self.0.routes.read().clone()
    }

    /// Where the catalog wants the group's replicas, as this node knows it.
    pub fn placement(&self, group: GroupId) -> Option<Placement> {
        self.0.routes.read().placements.get(&group).cloned()
    }

    pub fn add_host(&self, host: Arc<ShardHost>) {
        self.0.hosts.write().insert(host.group().id(), host);
    }

    pub fn remove_host(&self, group: GroupId) -> Option<Arc<ShardHost>> {
        self.0.hosts.write().remove(&group)
    }

    pub fn host(&self, group: GroupId) -> Option<Arc<ShardHost>> {
        self.0.hosts.read().get(&group).cloned()
    }

    pub fn hosts(&self) -> Vec<Arc<ShardHost>> {
        self.0.hosts.read().values().cloned().collect()
    }

    pub fn group_of(&self, key: &EntityKey) -> GroupId {
        if &*key.entity_type == self.0.catalog_type {
            return GroupId::CATALOG;
        }
        GroupId(key.shard(self.0.routes.read().shards).0)
    }

    /// The owner as this node knows it.
    pub fn owner(&self, group: GroupId) -> Option<NodeId> {
        match self.host(group) {
            Some(host) => host.leadership().leader,
            None => self.0.hints.lock().get(&group).copied(),
        }
    }

    /// How many shards this node serves, of how many.
    pub fn share(&self) -> (usize, usize) {
        let hosts = self.0.hosts.read();
        let served = hosts.values().filter(|host| host.group().id() != GroupId::CATALOG && host.is_serving()).count();
        (served, usize::from(self.0.routes.read().shards))
    }

    pub fn shards(&self) -> u16 {
        self.0.routes.read().shards
    }

    /// Sends a command to its owner, for at most `timeout`.
    pub async fn command(&self, request: CommandRequest, timeout: Duration) -> CommandReply {
        let group = self.group_of(&request.key);
        let may_repeat = request.idempotency.is_some() || request.cause != Cause::Client;
        let deadline = Instant::now() + timeout;
        let (mut attempt, mut unknown) = (0, false);
        let mut overloaded = None;
        loop {
            let reply = self.try_command(group, attempt, &request, deadline).await;
            match reply {
                CommandReply::NotOwner { hint } => self.learn(group, hint),
                CommandReply::TryAgain => {}
                // Another attempt with the same key came first: its answer is kept by now.
                CommandReply::Duplicate if request.cause == Cause::Client => unknown = true,
                CommandReply::Unknown if may_repeat => unknown = true,
                // Only a full link is worth another try; a full shard is the caller's to know.
                CommandReply::Unavailable(Unavailable::Overloaded { ref limit }) if limit == LINK_WINDOW => {
                    overloaded = Some(reply);
                }
                other => return other,
            }
            attempt += 1;
            if !pause(attempt, deadline).await {
                let shard = ShardId(group.0);
                let no_quorum = CommandReply::Unavailable(Unavailable::NoQuorum { shard });
                return if unknown { CommandReply::Unknown } else { overloaded.unwrap_or(no_quorum) };
            }
        }
    }

    async fn try_command(
        &self,
        group: GroupId,
        attempt: u32,
        request: &CommandRequest,
        deadline: Instant,
    ) -> CommandReply {
        match self.target(group, attempt) {
            Target::Nobody => CommandReply::NotOwner { hint: None },
            Target::Here(host) => {
                let answer = tokio::time::timeout_at(deadline, host.command(request.clone())).await;
                answer.unwrap_or(CommandReply::Unknown)
            }
            Target::Node(node) => match self.send(node, Service::Command, request, deadline).await {
                Ok(reply) => reply,
                Err(failure) => self.command_failed(group, failure),
            },
        }
    }

    fn command_failed(&self, group: GroupId, failure: SendFailure) -> CommandReply {
        match failure {
            SendFailure::NotSent => {
                self.0.hints.lock().remove(&group);
                CommandReply::NotOwner { hint: None }
            }
            SendFailure::Overloaded => CommandReply::Unavailable(Unavailable::Overloaded { limit: LINK_WINDOW.into() }),
            SendFailure::Lost => {
                self.0.hints.lock().remove(&group);
                CommandReply::Unknown
            }
        }
    }

    /// Answers a question, for at most `timeout`.
    pub async fn query(&self, request: QueryRequest, timeout: Duration) -> Result<QueryReply, Unavailable> {
        let group = self.group_of(&request.key);
        let deadline = Instant::now() + timeout;
        let mut attempt = 0;
        loop {
            let reply = match request.consistency {
                Consistency::Local => self.try_local(group, attempt, &request, deadline).await,
                Consistency::Linearizable => self.try_query(group, attempt, &request, deadline).await,
            };
            match reply {
                QueryReply::NotOwner { hint } => self.learn(group, hint),
                QueryReply::Unavailable(unavailable) => return Err(unavailable),
                answer => return Ok(answer),
            }
            attempt += 1;
            if !pause(attempt, deadline).await {
                return Err(Unavailable::NoQuorum { shard: ShardId(group.0) });
            }
        }
    }

    async fn try_query(&self, group: GroupId, attempt: u32, request: &QueryRequest, deadline: Instant) -> QueryReply {
        let served = |host: &Arc<ShardHost>| sabotage::is(Sabotage::StaleReads) && host.is_serving();
        let target = self.host(group).filter(served).map(Target::Here);
        match target.unwrap_or_else(|| self.target(group, attempt)) {
            Target::Nobody => QueryReply::NotOwner { hint: None },
            Target::Here(host) => {
                let answer = tokio::time::timeout_at(deadline, host.query(request.clone())).await;
                answer.unwrap_or(QueryReply::NotOwner { hint: None })
            }
            Target::Node(node) => self.ask(node, group, request, deadline).await,
        }
    }

    /// This node's replica, or any other if it has none.
    async fn try_local(&self, group: GroupId, attempt: u32, request: &QueryRequest, deadline: Instant) -> QueryReply {
        if let Some(host) = self.showing(group) {
            return host.query(request.clone()).await;
        }
        match self.any_replica(group, attempt) {
            Some(node) => self.ask(node, group, request, deadline).await,
            None => QueryReply::NotOwner { hint: None },
        }
    }

    async fn ask(&self, node: NodeId, group: GroupId, request: &QueryRequest, deadline: Instant) -> QueryReply {
        match self.send(node, Service::Query, request, deadline).await {
            Ok(reply) => reply,
            Err(_) => {
                self.0.hints.lock().remove(&group);
                QueryReply::NotOwner { hint: None }
            }
        }
    }

    pub(super) fn target(&self, group: GroupId, attempt: u32) -> Target {
        if let Some(host) = self.host(group) {
            let leadership = host.leadership();
            return match leadership.leader {
                Some(_) if leadership.is_me => Target::Here(host),
                Some(leader) if leader != self.0.me => Target::Node(leader),
                _ if host.group().is_voter() => Target::Nobody,
                // It is still to be filled, or on its way out: others know better.
                _ => self.remembered(group, attempt),
            };
        }
        self.remembered(group, attempt)
    }

    /// The owner as it was when this node last heard of it, or else any replica.
    fn remembered(&self, group: GroupId, attempt: u32) -> Target {
        if let Some(node) = self.0.hints.lock().get(&group) {
            return Target::Node(*node);
        }
        self.any_replica(group, attempt).map_or(Target::Nobody, Target::Node)
    }

    /// Who may read: the owner, or for a local read this node's replica, or any if it has none.
    pub(super) fn reader(&self, group: GroupId, consistency: Consistency, attempt: u32) -> Target {
        match (consistency, self.showing(group)) {
            (Consistency::Linearizable, _) => self.target(group, attempt),
            (Consistency::Local, Some(host)) => Target::Here(host),
            (Consistency::Local, None) => self.any_replica(group, attempt).map_or(Target::Nobody, Target::Node),
        }
    }

    /// This node's replica, if it has something to show.
    fn showing(&self, group: GroupId) -> Option<Arc<ShardHost>> {
        self.host(group).filter(|host| host.machine().progress().borrow().1 > 0)
    }

    /// Another replica elsewhere at each attempt.
    fn any_replica(&self, group: GroupId, attempt: u32) -> Option<NodeId> {
        let routes = self.0.routes.read();
        let replicas = routes.placements.get(&group)?.replicas.iter().filter(|replica| **replica != self.0.me);
        let replicas: Vec<NodeId> = replicas.copied().collect();
        replicas.get(attempt as usize % replicas.len().max(1)).copied()
    }

    pub(super) fn learn(&self, group: GroupId, hint: Option<NodeId>) {
        if let Some(node) = hint.filter(|node| *node != self.0.me) {
            self.0.hints.lock().insert(group, node);
        } else {
            self.0.hints.lock().remove(&group);
        }
    }

    pub(super) async fn send<A: Serialize, R: DeserializeOwned>(
        &self,
        node: NodeId,
        service: Service,
        request: &A,
        deadline: Instant,
    ) -> Result<R, SendFailure> {
        let body = codec::encode("request", request).map_err(|_| SendFailure::NotSent)?;
        let timeout = deadline.saturating_duration_since(Instant::now());
        let reply = self.0.peers.request(node, Class::Command, service, timeout, |out| out.extend_from_slice(&body));
        match reply.await {
            Ok(reply) => codec::decode("reply", &reply).map_err(|_| SendFailure::Lost),
            Err(transport::Error::NotConnected(_)) => Err(SendFailure::NotSent),
            Err(transport::Error::Overloaded(_)) => Err(SendFailure::Overloaded),
            Err(transport::Error::Refused { detail, .. }) => {
                tracing::debug!(%node, detail, "a request was refused");
                Err(SendFailure::NotSent)
            }
            Err(transport::Error::TimedOut(_) | transport::Error::Broken(_)) => Err(SendFailure::Lost),
        }
    }

    /// Answers a peer's command: here or not at all, so that requests never go in circles.
    pub async fn handle_command(&self, body: Bytes) -> Result<Bytes, String> {
        let request: CommandRequest = codec::decode("request", &body).map_err(|e| e.to_string())?;
        let reply = match self.host(self.group_of(&request.key)) {
            Some(host) => host.command(request).await,
            None => CommandReply::NotOwner { hint: None },
        };
        codec::encode("reply", &reply).map(Bytes::from).map_err(|e| e.to_string())
    }

    /// Answers a peer's query, likewise.
    pub async fn handle_query(&self, body: Bytes) -> Result<Bytes, String> {
        let request: QueryRequest = codec::decode("request", &body).map_err(|e| e.to_string())?;
        let reply = match self.host(self.group_of(&request.key)) {
            Some(host) => host.query(request).await,
            None => QueryReply::NotOwner { hint: None },
        };
        codec::encode("reply", &reply).map(Bytes::from).map_err(|e| e.to_string())
    }

    /// Answers a peer that has no replica of some groups: who owns those that vote here.
    pub fn handle_owners(&self) -> Result<Bytes, String> {
        let hosts = self.hosts().into_iter().filter(|host| host.group().is_voter());
        let owners: Vec<(GroupId, NodeId)> =
            hosts.filter_map(|host| Some((host.group().id(), host.leadership().leader?))).collect();
        codec::encode("owners", &owners).map(Bytes::from).map_err(|e| e.to_string())
    }

    /// Asks another node who owns what, and keeps what it says of groups that have no replica here.
    pub async fn ask_owners(&self, node: NodeId, timeout: Duration) {
        let answer = self.send(node, Service::Owners, &(), Instant::now() + timeout).await;
        let owners: Vec<(GroupId, NodeId)> = answer.unwrap_or_default();
        for (group, owner) in owners.into_iter().filter(|(group, _)| self.host(*group).is_none()) {
            self.learn(group, Some(owner));
        }
    }

    /// Whether every group has a replica here.
    pub fn has_all(&self) -> bool {
        let hosts = self.0.hosts.read();
        self.0.routes.read().placements.keys().all(|group| hosts.contains_key(group))
    }

    /// How long a query may take beyond the wait that it asks for itself.
    pub fn wait_of(query: &Query) -> Duration {
        match query {
            Query::Changed { timeout_ms, .. } => Duration::from_millis(*timeout_ms),
            Query::State | Query::History { .. } => Duration::ZERO,
        }
    }
}

const LINK_WINDOW: &str = "transport.window";

pub(super) enum SendFailure {
    /// The request certainly did not take effect.
    NotSent,
    Overloaded,
    /// The request may have taken effect.
    Lost,
}

/// Waits before another attempt; false if the deadline comes first.
pub(super) async fn pause(attempt: u32, deadline: Instant) -> bool {
    let wait = (BACKOFF_MIN * (1 << attempt.min(5))).min(BACKOFF_MAX);
    let until = Instant::now() + wait;
    if until >= deadline {
        return false;
    }
    tokio::time::sleep_until(until).await;
    true
}
