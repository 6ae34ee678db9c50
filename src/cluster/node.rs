//! One node: wires its parts together, brings it into its cluster, takes it apart in order.
//!
//! ```text
//! start: storage ─▶ links (introductions) ─▶ [bootstrap or rejoin] ─▶ groups ─▶ gossip ─▶ ready
//! stop:  draining ─▶ leadership away ─▶ gossip says goodbye ─▶ groups ─▶ links ─▶ storage
//! ```

use super::{
    audit::{self, Differences},
    builder::StartError,
    events::{self, Fault, Feed},
    faults::FaultSwitch,
    gateway::{Gateway, decode_view},
    leadership, replicas,
    types::{Phase, Unavailable},
};
use crate::{
    Config,
    catalog::{
        CATALOG_ID, Catalog, ClusterId, Command, Founding, Identity, InstanceId, Member, NodeId, Rejection, View,
        bootstrap::{self, Bootstrap, Hello, Welcome},
        load_instance,
    },
    cluster::Consistency,
    entity::{Entity, EntityKey, ShardId, encode_command},
    membership::Membership,
    replication::{Group, PeerClient},
    shard::{
        Cause, Clock, CommandReply, CommandRequest, Query, QueryReply, QueryRequest, Queues, Registry, Router, Routes,
        ShardHost,
    },
    storage::{self, GroupId, Storage},
    telemetry::Limited,
    transport::{Handler, LinkView, Peer, Transport},
};
use futures::future::{BoxFuture, join_all};
use parking_lot::{Mutex, RwLock};
use rand::seq::SliceRandom;
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

const CATALOG_TICK: Duration = Duration::from_secs(1);
/// At each so manieth tick the catalog's owner is asked, and not any replica.
const OWNER_ASKED: u64 = 5;
const READY_TICK: Duration = Duration::from_millis(20);
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);
const CHECK_INTERVAL: Duration = Duration::from_secs(10);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Word from those who are no members.
static NOT_BELIEVED: Limited = Limited::new();

/// Opens the node links, given whoever answers requests.
pub(super) type OpenLinks =
    Box<dyn FnOnce(Arc<dyn Handler>) -> BoxFuture<'static, Result<Arc<dyn Transport>, String>> + Send>;
/// Opens gossip, once the node knows who it is.
pub(super) type OpenGossip = Box<dyn FnOnce(NodeId, ClusterId) -> Result<Membership, String> + Send>;

/// What a node stands on.
pub(super) struct Engines {
    pub storage: Arc<dyn Storage>,
    pub links: OpenLinks,
    pub gossip: Option<OpenGossip>,
    pub clock: Clock,
    pub faults: Option<FaultSwitch>,
    /// Random number of this process.
    pub boot_id: u64,
}

/// A node that belongs to a cluster.
#[derive(Clone)]
pub(super) struct InCluster {
    pub node: NodeId,
    pub peers: PeerClient,
    pub router: Router,
}

pub struct Node {
    config: Config,
    pub(super) registry: Arc<Registry>,
    pub(super) clock: Clock,
    pub(super) queues: Queues,
    pub(super) storage: Arc<dyn Storage>,
    pub(super) transport: Arc<dyn Transport>,
    instance: InstanceId,
    started: Instant,
    phase: watch::Sender<Phase>,
    failure: watch::Sender<Option<String>>,
    left: watch::Sender<bool>,
    member: OnceLock<InCluster>,
    view: RwLock<Option<View>>,
    /// The newest view that another node has sent, until it is looked at.
    heard: Mutex<Option<View>>,
    pub(super) groups: RwLock<HashMap<GroupId, Arc<Group>>>,
    gossip: Mutex<Option<Arc<Membership>>>,
    differences: Differences,
    feed: Feed,
    faults: Option<FaultSwitch>,
    stop: CancellationToken,
    /// What runs until then.
    pub(super) tasks: TaskTracker,
}

impl Node {
    pub async fn start(config: Config, registry: Arc<Registry>, engines: Engines) -> Result<Arc<Self>, StartError> {
        let Engines { storage, links, gossip, clock, faults, boot_id } = engines;
        let failed = |e: String| StartError::Failed(e);
        let instance = load_instance(&storage).await.map_err(|e| failed(e.to_string()))?;
        let identity = Identity::load(&*storage).map_err(|e| failed(e.to_string()))?;
        check_name(&config, identity.as_ref())?;
        let gateway = Arc::new(Gateway::default());
        let transport = links(gateway.clone()).await.map_err(failed)?;
        let queues = Queues::new(registry.clone(), config.shard.tasks_in_flight);
        let node = Arc::new(Self {
            config,
            registry,
            clock,
            queues,
            storage,
            transport,
            instance,
            started: Instant::now(),
            phase: watch::Sender::new(Phase::Joining),
            failure: watch::Sender::new(None),
            left: watch::Sender::new(false),
            member: OnceLock::new(),
            view: RwLock::default(),
            heard: Mutex::default(),
            groups: RwLock::default(),
            gossip: Mutex::default(),
            differences: Differences::default(),
            feed: Feed::new(boot_id),
            faults,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        gateway.attach(&node);
        if let Some(faults) = &node.faults {
            faults.attach(&node);
        }
        if let Some(identity) = &identity {
            let mine = identity.view.cluster;
            let hello = node.hello();
            let check = bootstrap::check_cluster(&node.transport, &hello, mine, None);
            if let Ok(Err(refused)) = tokio::time::timeout(CHECK_TIMEOUT, check).await {
                node.transport.close(Duration::ZERO).await;
                return Err(StartError::Failed(refused.to_string()));
            }
        }
        node.spawn(node.clone().live(identity, gossip));
        Ok(node)
    }

    /// Runs a task until the node stops.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// Joins, then serves.
    async fn live(self: Arc<Self>, identity: Option<Identity>, gossip: Option<OpenGossip>) {
        let outcome = match identity {
            Some(identity) => self.clone().enter(identity, gossip).await,
            None => match self.settle().await {
                Ok(identity) => self.clone().enter(identity, gossip).await,
                Err(why) => Err(why),
            },
        };
        if let Err(why) = outcome {
            self.fail(why);
        }
    }

    fn fail(&self, why: String) {
        tracing::error!(node = self.config.node.name, why, "this node cannot go on");
        if self.failure.send_if_modified(|first| first.is_none() && first.replace(why.clone()).is_none()) {
            self.feed.fault_began(Fault::NodeFailed(why));
        }
    }

    pub async fn failed(&self) -> String {
        let mut failure = self.failure.subscribe();
        let why = failure.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
        match why {
            Some(why) => why,
            None => std::future::pending().await,
        }
    }

    /// This node is not a member any more. If it was one until now, that is how it was to be: it has left.
    async fn struck_off(&self, why: String) {
        let is_leaving = self.member.get().is_some_and(|me| self.view().leaving.contains(&me.node));
        if !is_leaving && *self.phase.borrow() != Phase::Ready {
            return self.fail(why);
        }
        // Told once: whoever starts on this directory again is refused.
        match self.forget_membership().await {
            Ok(()) => drop(self.left.send_replace(true)),
            Err(error) => self.fail(error.to_string()),
        }
    }

    async fn forget_membership(&self) -> Result<(), storage::Error> {
        let Some(mut identity) = Identity::load(&*self.storage)? else { return Ok(()) };
        identity.view.members.retain(|member| member.node != identity.node);
        identity.save(&self.storage).await
    }

    /// Resolves once this node has left its cluster.
    pub async fn left(&self) {
        // An error means that the node is gone.
        _ = self.left.subscribe().wait_for(|left| *left).await;
    }

    async fn settle(&self) -> Result<Identity, String> {
        let bootstrap = Bootstrap {
            hello: self.hello(),
            shards: self.config.cluster.shards,
            replication_factor: self.config.cluster.replication_factor,
            replace: self.config.node.replace,
            transport: self.transport.clone(),
        };
        let identity = bootstrap.settle().await.map_err(|refused| refused.to_string())?;
        identity.save(&self.storage).await.map_err(|e| e.to_string())?;
        Ok(identity)
    }

    /// Takes part in the cluster that `identity` names.
    async fn enter(self: Arc<Self>, identity: Identity, gossip: Option<OpenGossip>) -> Result<(), String> {
        let (me, cluster) = (identity.node, identity.view.cluster);
        if !identity.view.is_member(me) {
            return Err(not_a_member(&identity.name));
        }
        let peers = PeerClient { transport: self.transport.clone(), cluster };
        let router = Router::new(me, peers.clone(), Catalog::TYPE);
        router.set_routes(Routes::from(&identity.view));
        *self.view.write() = Some(identity.view.clone());
        let in_cluster = InCluster { node: me, peers, router };
        if self.member.set(in_cluster.clone()).is_err() {
            return Err("this node entered a cluster twice".into());
        }
        self.phase.send_replace(Phase::Recovering);
        self.fit_replicas(&in_cluster, &identity.view).await?;
        // After the replicas: whoever has a link with this node finds them.
        self.link_with(me, &identity.view.members);
        if let Some(open) = gossip {
            *self.gossip.lock() = Some(Arc::new(open(me, cluster)?));
        }
        let gossip = self.gossip.lock().as_ref().map(|gossip| gossip.view());
        self.spawn(events::follow_members(self.clone(), self.transport.links(), gossip));
        let links = self.transport.links();
        self.spawn(leadership::react_to_broken_links(self.clone(), links));
        self.spawn(leadership::balance(self.clone()));
        self.spawn(leadership::learn_owners(self.clone()));
        self.spawn(replicas::keep_in_place(self.clone()));
        self.spawn(self.clone().follow_catalog(identity.clone()));
        self.spawn(self.clone().keep_checking(me, cluster));
        self.spawn(self.clone().announce(me, cluster));
        self.spawn(audit::run(self.clone()));
        self.spawn(self.clone().become_ready());
        tracing::info!(node = %me, %cluster, name = self.config.node.name, "member of the cluster");
        Ok(())
    }

    /// A replica that has stopped for good takes the node with it: its journal is everyone's.
    pub(super) async fn follow_group(self: Arc<Self>, group: Arc<Group>) {
        let why = group.stopped().await;
        if self.is_open(&group) && !self.stop.is_cancelled() {
            self.fail(format!("the replica of group {} stopped: {why}", group.id().0));
        }
    }

    /// Whether it was not closed on purpose.
    pub(super) fn is_open(&self, group: &Arc<Group>) -> bool {
        self.group(group.id()).is_some_and(|open| Arc::ptr_eq(&open, group))
    }

    fn link_with(&self, me: NodeId, members: &[Member]) {
        let peer = |m: &Member| Peer { node: m.node, name: m.name.clone(), address: m.address.clone() };
        self.transport.set_peers(me, members.iter().filter(|m| m.node != me).map(peer).collect());
    }

    /// Founds the catalog if need be, and follows its changes.
    async fn follow_catalog(self: Arc<Self>, mut identity: Identity) {
        let mut tick = tokio::time::interval(CATALOG_TICK);
        for turn in 0_u64.. {
            tick.tick().await;
            if identity.view.leaving.contains(&identity.node) {
                // The others have no link any more with one that has left, so it has to ask.
                self.rejoin(&self.hello().member(identity.node), identity.view.cluster).await;
            }
            // A replica of the catalog that is being filled, or has been taken out, shows it as it was once.
            let consistency = if turn % OWNER_ASKED == 0 { Consistency::Linearizable } else { Consistency::Local };
            let read = self.read_catalog_from(consistency).await;
            let heard = self.heard.lock().take();
            match read.into_iter().chain(heard).max_by_key(|view| view.version) {
                Some(view) if view.version > identity.view.version => {
                    identity.view = view.clone();
                    if let Err(error) = identity.save(&self.storage).await {
                        tracing::error!(%error, "the catalog's new state cannot be written down");
                        continue;
                    }
                    self.adopt(&identity, view).await;
                }
                Some(_) => {}
                None => self.found(&identity.view).await,
            }
            if let Some(member) = self.member.get()
                && let Err(why) = self.fit_replicas(member, &identity.view).await
            {
                self.fail(why);
            }
        }
    }

    async fn adopt(&self, identity: &Identity, view: View) {
        if !view.is_member(identity.node) {
            let (node, name) = (identity.node, &identity.name);
            return match view.member_named(name) {
                Some(_) => self.fail(format!(
                    "node {node} ({name}) was replaced by another with its name: this data directory is of no use any more"
                )),
                None => self.struck_off(not_a_member(name)).await,
            };
        }
        self.link_with(identity.node, &view.members);
        if let Some(gossip) = self.gossip.lock().as_ref() {
            gossip.remember(view.members.iter().map(|m| m.address.clone()));
        }
        if let Some(member) = self.member.get() {
            member.router.set_routes(Routes::from(&view));
        }
        *self.view.write() = Some(view);
        self.feed.roster_changed();
    }

    /// Writes into the catalog what the founders agreed on. Whoever owns it does.
    async fn found(&self, view: &View) {
        let Some(host) = self.member.get().and_then(|m| m.router.host(GroupId::CATALOG)) else { return };
        if !host.is_serving() {
            return;
        }
        let founding = Founding {
            cluster: view.cluster,
            shards: view.shards,
            replication_factor: view.replication_factor,
            members: view.members.clone(),
            placements: view.founding.clone(),
        };
        if let Err(error) = self.ask_catalog(&Command::Found(founding)).await {
            tracing::warn!(error, "the cluster cannot be founded yet");
        }
    }

    /// Watches for seeds of another cluster, which an operator must have mixed up, and for having been
    /// replaced while this node was away: its own replica of the catalog would never tell.
    async fn keep_checking(self: Arc<Self>, me: NodeId, cluster: ClusterId) {
        let mut tick = tokio::time::interval(CHECK_INTERVAL);
        let mine = self.hello().member(me);
        loop {
            tick.tick().await;
            if let Err(refused) =
                bootstrap::check_cluster(&self.transport, &self.hello(), cluster, Some(&self.view())).await
            {
                self.fail(refused.to_string());
            }
            self.rejoin(&mine, cluster).await;
        }
    }

    /// Asks the seeds and the other members, until one has an answer, whether this node is still a member, and tells them
    /// its present addresses. False if none has one; a refusal by a member, as this node knows them, ends the node.
    async fn rejoin(&self, mine: &Member, cluster: ClusterId) -> bool {
        let known = self.known_members().into_iter().map(|member| member.address);
        let others: BTreeSet<String> = self.config.node.seeds.iter().cloned().chain(known).collect();
        let mut others: Vec<String> = others.into_iter().filter(|other| *other != mine.address).collect();
        // One that answers may know as little as this node.
        others.shuffle(&mut rand::rng());
        for other in others {
            let answer = bootstrap::rejoin(&self.transport, &other, mine.clone(), cluster).await;
            let welcome = match answer {
                Ok((welcome, by)) if bootstrap::is_of(&self.view(), &by) => welcome,
                // All that this node knew may have been replaced while it was away.
                Ok((Welcome::Joined { node, view }, by)) if view.cluster == cluster && bootstrap::is_of(&view, &by) => {
                    Welcome::Joined { node, view }
                }
                Ok((Welcome::Refused(why) | Welcome::NotAMember(why), by)) => {
                    if let Some(left_out) = NOT_BELIEVED.admit() {
                        tracing::warn!(
                            left_out,
                            "{other} ({by}), which is no member that this node knows, says: {why}"
                        );
                    }
                    continue;
                }
                Ok(_) | Err(_) => continue,
            };
            match welcome {
                Welcome::Joined { view, .. } => {
                    let mut heard = self.heard.lock();
                    if heard.as_ref().is_none_or(|known| known.version < view.version) {
                        *heard = Some(view);
                    }
                    return true;
                }
                Welcome::Refused(why) => {
                    self.fail(why);
                    return true;
                }
                Welcome::NotAMember(why) => {
                    self.struck_off(why).await;
                    return true;
                }
                Welcome::Hello(_) | Welcome::NotYet(_) => {}
            }
        }
        false
    }

    /// Tells the cluster this node's present addresses, if they are not those in the roster.
    async fn announce(self: Arc<Self>, me: NodeId, cluster: ClusterId) {
        let mine = self.hello().member(me);
        loop {
            let view = self.view();
            if view.member_named(&mine.name).is_some_and(|known| *known == mine) {
                return;
            }
            if self.rejoin(&mine, cluster).await {
                return;
            }
            tokio::time::sleep(CATALOG_TICK).await;
        }
    }

    async fn become_ready(self: Arc<Self>) {
        while !self.is_caught_up() {
            tokio::time::sleep(READY_TICK).await;
        }
        self.phase.send_if_modified(|phase| {
            let recovered = *phase == Phase::Recovering;
            if recovered {
                *phase = Phase::Ready;
            }
            recovered
        });
    }

    /// Every shard has an owner, and this node's replicas have applied an entry of its term and vote: where
    /// the next node is only touched once this one is ready, no disk is missed twice.
    fn is_caught_up(&self) -> bool {
        let Some(member) = self.member.get() else { return false };
        let is_wanted = |host: &Arc<ShardHost>| {
            member.router.placement(host.group().id()).is_some_and(|placement| placement.is_on(member.node))
        };
        let replicas_fine = member.router.hosts().iter().filter(|host| is_wanted(host)).all(|host| {
            let leadership = host.leadership();
            let applied_term = host.machine().progress().borrow().0;
            let served = !leadership.is_me || host.is_serving() || host.machine().is_restoring();
            leadership.leader.is_some() && applied_term >= leadership.term && served && host.group().is_voter()
        });
        let routes = member.router.routes();
        // Who holds nothing is of use if it reaches somebody.
        let has_use = !member.router.hosts().is_empty() || self.links().values().any(|link| link.up);
        replicas_fine && has_use && !routes.placements.is_empty()
    }

    pub async fn ask_catalog(&self, command: &Command) -> Result<CommandReply, String> {
        let member = self.member.get().ok_or("not a member yet")?;
        let request = CommandRequest {
            key: catalog_key().ok_or("no catalog key")?,
            command: encode_command::<Catalog>(command).map_err(|e| e.to_string())?,
            cause: Cause::Client,
            idempotency: None,
            if_version: None,
            trace_id: None,
        };
        Ok(member.router.command(request, self.config.shard.command_timeout).await)
    }

    /// The catalog as its owner has it.
    pub async fn read_catalog(&self) -> Option<View> {
        self.read_catalog_from(Consistency::Linearizable).await
    }

    async fn read_catalog_from(&self, consistency: Consistency) -> Option<View> {
        let member = self.member.get()?;
        let request = QueryRequest { key: catalog_key()?, query: Query::State, consistency };
        match member.router.query(request, self.config.shard.command_timeout).await {
            Ok(QueryReply::State(stored)) => decode_view(&stored.state?.bytes, stored.version),
            _ => None,
        }
    }

    /// The way to the entities; waits until the node has joined, at most `timeout`.
    pub async fn router(&self, timeout: Duration) -> Result<Router, Unavailable> {
        if let Some(member) = self.member.get() {
            return match self.stop.is_cancelled() {
                true => Err(Unavailable::ShuttingDown),
                false => Ok(member.router.clone()),
            };
        }
        let mut phase = self.phase.subscribe();
        // Whether it was in time shows below.
        let _ = tokio::time::timeout(timeout, phase.wait_for(|p| *p != Phase::Joining)).await;
        let member = self.member.get().ok_or(Unavailable::NoQuorum { shard: ShardId(0) })?;
        Ok(member.router.clone())
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn faults(&self) -> Option<&FaultSwitch> {
        self.faults.as_ref()
    }

    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    pub(super) fn membership_of_cluster(&self) -> Option<InCluster> {
        self.member.get().cloned()
    }

    pub(super) fn feed(&self) -> &Feed {
        &self.feed
    }

    pub(super) fn differences(&self) -> &Differences {
        &self.differences
    }

    pub fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    pub fn links(&self) -> LinkView {
        self.transport.links().borrow().clone()
    }

    pub fn gossip(&self) -> crate::membership::View {
        self.gossip.lock().as_ref().map(|g| g.view().borrow().clone()).unwrap_or_default()
    }

    /// The catalog as this node last saw it.
    pub fn view(&self) -> View {
        self.view.read().clone().unwrap_or_else(View::empty)
    }

    pub fn known_members(&self) -> Vec<Member> {
        self.view().members
    }

    pub fn hosts(&self) -> Vec<Arc<ShardHost>> {
        self.member.get().map(|m| m.router.hosts()).unwrap_or_default()
    }

    pub fn group(&self, group: GroupId) -> Option<Arc<Group>> {
        self.groups.read().get(&group).cloned()
    }

    pub fn hello(&self) -> Hello {
        let node = &self.config.node;
        let seeds: BTreeSet<String> = match node.seeds.is_empty() {
            true => [node.advertised().to_owned()].into(),
            false => node.seeds.iter().cloned().collect(),
        };
        Hello {
            name: node.name.clone(),
            instance: self.instance,
            seeds,
            cluster: self.member.get().map(|m| m.peers.cluster),
            address: node.advertised().to_owned(),
            http: node.advertised_http(),
            zone: node.zone.clone(),
        }
    }

    pub async fn shutdown(&self) {
        if self.phase.send_replace(Phase::Draining) == Phase::Draining {
            return;
        }
        let hosts = self.hosts();
        if let Some(member) = self.member.get() {
            leadership::drain(&member.router, &self.transport.links()).await;
        }
        self.stop.cancel();
        let gossip = self.gossip.lock().take();
        if let Some(gossip) = gossip {
            gossip.leave().await;
        }
        join_all(hosts.iter().map(|host| host.stop())).await;
        self.transport.close(CLOSE_TIMEOUT).await;
        // Each holds the node, and so its storage: whoever stops a node may start it again at once.
        self.tasks.close();
        if tokio::time::timeout(CLOSE_TIMEOUT, self.tasks.wait()).await.is_err() {
            tracing::warn!(tasks = self.tasks.len(), "some tasks do not end: the storage is still open");
        }
    }
}

fn not_a_member(name: &str) -> String {
    Rejection::NotAMember { name: name.to_owned() }.to_string()
}

fn catalog_key() -> Option<EntityKey> {
    EntityKey::new(Catalog::TYPE, CATALOG_ID).ok()
}

fn check_name(config: &Config, identity: Option<&Identity>) -> Result<(), StartError> {
    match identity {
        Some(identity) if identity.name != config.node.name => Err(StartError::Failed(format!(
            "the data directory {} belongs to node {}; start it with `node.name` = \"{}\", or give this node a \
             directory of its own",
            config.node.data_dir.display(),
            identity.name,
            identity.name
        ))),
        _ => Ok(()),
    }
}
