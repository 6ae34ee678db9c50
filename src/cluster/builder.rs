//! [`Builder`]: entity types and task handlers first, then a node (or several) on them.

use super::{
    extension::{Extend, Extended, Extension},
    faults::FaultSwitch,
    handle::Cluster,
    node::{Engines, Node},
};
use crate::{
    Config,
    catalog::{Catalog, NodeId},
    config,
    entity::Entity,
    impairment::Impairments,
    membership,
    shard::{Clock, Registry, TaskContext, TaskError, TaskQueue, typed_handler},
    storage::{self, MemoryStorage, SledStorage, Storage},
    telemetry,
    transport::{self, tls::Tls},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    net::{TcpListener, UdpSocket},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

/// Shards of a cluster in memory: enough to spread over its nodes, and a quarter of the usual
/// number to elect owners for.
const SHARDS_IN_MEMORY: u16 = 4;
/// How long [`Builder::start`] waits for an in-process cluster to be ready.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// Collects entity types and task handlers before a node starts.
#[must_use = "a builder does nothing until it is started"]
pub struct Builder {
    registry: Registry,
    kind: Kind,
    changes: Vec<Change>,
    clock: Clock,
    extensions: Vec<Extend>,
    allows_faults: bool,
}

/// What of a node can be broken on purpose, and by what.
struct Fallible {
    disk: storage::Faults,
    network: Impairments,
    clock: Clock,
    switch: Option<FaultSwitch>,
}

impl Fallible {
    fn armed() -> Self {
        let (disk, network, (clock, hand)) = (storage::Faults::armed(), Impairments::armed(), Clock::movable());
        let switch = FaultSwitch::new(disk.clone(), hand, network.clone());
        Self { disk, network, clock, switch: Some(switch) }
    }

    fn never(clock: Clock) -> Self {
        Self { disk: storage::Faults::none(), network: Impairments::none(), clock, switch: None }
    }
}

/// A change of a node's configuration.
type Change = Box<dyn Fn(&mut Config) + Send>;

enum Kind {
    /// Own ports, own directory.
    Networked(Box<Config>),
    /// Own directory, no ports.
    SingleNode(Box<Config>),
    InMemory {
        nodes: usize,
        network: transport::memory::Network,
    },
    /// One node in this process, in surroundings of the caller's.
    Surrounded(Box<Config>, Surroundings),
}

/// What a node in this process stands on, where the caller owns the world around it: a simulation
/// that cuts links, loses unflushed writes, and starts the node again on what is left.
pub struct Surroundings {
    pub storage: Arc<dyn Storage>,
    /// Carries the node's links; its address there is `node.listen`.
    pub network: transport::memory::Network,
    /// Carries its gossip; without one it does not gossip.
    pub gossip: Option<membership::memory::Network>,
}

/// Why a node could not start. One line for whoever started it.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration must change.
    #[error("{0}")]
    Config(String),
    /// The surroundings must: a port, a directory, another cluster's data.
    #[error("{0}")]
    Failed(String),
}

impl Builder {
    fn of(kind: Kind) -> Self {
        let mut registry = Registry::default();
        registry.add_entity::<Catalog>();
        Self {
            registry,
            kind,
            changes: Vec::new(),
            clock: Clock::default(),
            extensions: Vec::new(),
            allows_faults: false,
        }
    }

    pub(super) fn for_node(config: Config) -> Self {
        Self::of(Kind::Networked(Box::new(config)))
    }

    pub(super) fn single_node(data_dir: PathBuf) -> Self {
        Self::of(Kind::SingleNode(Box::new(Config::for_node("node-1", data_dir))))
    }

    pub(super) fn in_memory(nodes: usize, network: transport::memory::Network) -> Self {
        Self::of(Kind::InMemory { nodes: nodes.max(1), network })
    }

    pub(super) fn surrounded(config: Config, by: Surroundings) -> Self {
        Self::of(Kind::Surrounded(Box::new(config), by))
    }

    /// Registers an entity type. Register the same ones on every node.
    pub fn entity<E: Entity>(mut self) -> Self {
        self.registry.add_entity::<E>();
        self
    }

    /// Registers the handler of tasks called `name`, which runs at least once for each: any input
    /// that can be decoded, any output that can be encoded, `Vec<u8>` as it is. How many run at
    /// once, how fast and how often is its queue's to say: [`Builder::task_queue`].
    pub fn task_handler<P, R, F, Fut>(mut self, name: &str, handler: F) -> Self
    where
        P: DeserializeOwned + Send + 'static,
        R: Serialize + Send + 'static,
        F: Fn(TaskContext, P) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, TaskError>> + Send + 'static,
    {
        self.registry.add_handler(name, typed_handler(handler));
        self
    }

    /// Sets how the tasks of the handler `name` are run. Set the same on every node.
    pub fn task_queue(mut self, name: &str, queue: TaskQueue) -> Self {
        self.registry.add_queue(name, queue);
        self
    }

    /// Changes the configuration of the node, or of every node in memory, before it starts.
    pub fn configure(mut self, change: impl Fn(&mut Config) + Send + 'static) -> Self {
        self.changes.push(Box::new(change));
        self
    }

    /// Sets the clock that owners go by, for tests of what takes a day: see [`Clock::movable`].
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Adds to each node, before it starts, what needs a handle of that node: taps, task handlers
    /// that ask entities, background work. Do the same on every node.
    pub fn extend(mut self, extension: impl Fn(&mut Extension<'_>) + Send + 'static) -> Self {
        self.extensions.push(Box::new(extension));
        self
    }

    /// Lets disk, clock and network be broken on purpose, for tests of what a cluster withstands. Never in
    /// production: whoever reaches the HTTP interface can end the node. Its clock is then one that the
    /// faults move, whatever [`Builder::clock`] says.
    pub fn allow_faults(mut self) -> Self {
        self.allows_faults = true;
        self
    }

    /// Starts. A networked node returns as soon as it runs, which may be before it has joined:
    /// see [`Cluster::ready`]. An in-process cluster returns when it is ready.
    pub async fn start(self) -> Result<Cluster, StartError> {
        telemetry::metrics();
        for (name, queue) in self.registry.queues() {
            queue.validate(name).map_err(|e| StartError::Config(e.to_string()))?;
        }
        let (registry, extensions) = (self.registry, self.extensions);
        let (changes, clock, allows_faults) = (self.changes, self.clock, self.allows_faults);
        let start = async |config: Config, engines: Engines| {
            config.http.check_tokens().map_err(StartError::Config)?;
            let extended = Extended::of(registry.clone(), &extensions);
            let node = Node::start(config, extended.registry.clone(), engines).await?;
            extended.begin(&node);
            Ok::<_, StartError>(node)
        };
        let faults = || match allows_faults {
            true => Fallible::armed(),
            false => Fallible::never(clock.clone()),
        };
        let change = |config: &mut Config| changes.iter().for_each(|change| change(config));
        match self.kind {
            Kind::Networked(mut config) => {
                change(&mut config);
                let engines = networked(&config, faults())?;
                Ok(Cluster::of(vec![start(*config, engines).await?]))
            }
            Kind::SingleNode(mut config) => {
                change(&mut config);
                let Fallible { disk, network: impairments, clock, switch: faults } = faults();
                let storage = open_sled(&config, disk)?;
                let network = transport::memory::Network::new();
                let links = in_memory_links(&network, &config, impairments);
                let boot_id = rand::random();
                let engines = Engines { storage, links, gossip: None, clock, faults, boot_id };
                ready(Cluster::of(vec![start(*config, engines).await?])).await
            }
            Kind::Surrounded(mut config, Surroundings { storage, network, gossip }) => {
                change(&mut config);
                let links = in_memory_links(&network, &config, Impairments::none());
                let boot_id = rand::random();
                let gossip = gossip.map(|network| in_memory_gossip(network, &config, boot_id)).transpose()?;
                let engines = Engines { storage, links, gossip, clock: clock.clone(), faults: None, boot_id };
                Ok(Cluster::of(vec![start(*config, engines).await?]))
            }
            Kind::InMemory { nodes: count, network } => {
                let mut nodes = Vec::with_capacity(count);
                for mut config in in_memory_configs(count) {
                    change(&mut config);
                    let Fallible { disk, network: impairments, clock, switch: faults } = faults();
                    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::with_faults(&config.storage, disk));
                    let links = in_memory_links(&network, &config, impairments);
                    let boot_id = rand::random();
                    let engines = Engines { storage, links, gossip: None, clock, faults, boot_id };
                    nodes.push(start(config, engines).await?);
                }
                ready(Cluster::of(nodes)).await
            }
        }
    }
}

async fn ready(cluster: Cluster) -> Result<Cluster, StartError> {
    let nodes = cluster.members_in_process();
    for node in 0..nodes {
        let waited = cluster.on_node(node).ready(READY_TIMEOUT).await;
        waited.map_err(|_| StartError::Failed(format!("not ready within {READY_TIMEOUT:?}")))?;
    }
    Ok(cluster)
}

pub(super) fn in_memory_configs(count: usize) -> Vec<Config> {
    let address = |i: usize| format!("node-{}", i + 1);
    let seeds: Vec<String> = (0..count).map(address).collect();
    let config = |i: usize| {
        let mut config = Config::for_node(address(i), "");
        config.node.listen = address(i);
        config.node.http = String::new();
        config.node.seeds = seeds.clone();
        config.cluster.shards = SHARDS_IN_MEMORY;
        config
    };
    (0..count).map(config).collect()
}

pub(super) fn in_memory_links(
    network: &transport::memory::Network,
    config: &Config,
    impairments: Impairments,
) -> super::node::OpenLinks {
    let (network, name, address) = (network.clone(), config.node.name.clone(), config.node.listen.clone());
    Box::new(move |handler| Box::pin(async move { Ok(network.join_impaired(name, address, handler, impairments)) }))
}

fn open_sled(config: &Config, faults: storage::Faults) -> Result<Arc<dyn Storage>, StartError> {
    let opened = SledStorage::open_with_faults(&config.node.data_dir, &config.storage, faults);
    opened.map(|s| Arc::new(s) as Arc<dyn Storage>).map_err(|e| StartError::Failed(e.to_string()))
}

/// Binds the ports, opens the data directory.
fn networked(config: &Config, fallible: Fallible) -> Result<Engines, StartError> {
    config.validate().map_err(|e| StartError::Config(e.to_string()))?;
    let listen = &config.node.listen;
    let failed = |e: std::io::Error| StartError::Failed(format!("`node.listen` = {listen}: {e}"));
    let tcp = TcpListener::bind(listen.as_str()).map_err(failed)?;
    tcp.set_nonblocking(true).map_err(failed)?;
    let udp = UdpSocket::bind(listen.as_str()).map_err(failed)?;
    udp.set_nonblocking(true).map_err(failed)?;
    let secret = secret(config)?;
    let tls = Tls::open(&config.transport.tls, &config.node.name).map_err(StartError::Config)?;
    let Fallible { disk, network, clock, switch: faults } = fallible;
    let storage = open_sled(config, disk)?;
    let boot_id: u64 = rand::random();
    let identity = transport::Identity { name: config.node.name.clone(), boot_id, secret: secret.clone(), tls };
    let (options, impairments) = (config.transport.clone(), network.clone());
    let links: super::node::OpenLinks = Box::new(move |handler| {
        Box::pin(async move {
            let tcp = tokio::net::TcpListener::from_std(tcp).map_err(|e| e.to_string())?;
            let started = transport::start(&options, identity, tcp, handler, impairments).await;
            started.map_err(|e| e.to_string())
        })
    });
    let (options, node, seeds) = (config.membership.clone(), config.node.clone(), config.node.seeds.clone());
    let gossip: super::node::OpenGossip = Box::new(move |id: NodeId, cluster| {
        let me = local_record(&node, id, boot_id);
        let started = membership::start(&options, me, cluster, &secret, udp, seeds, network);
        started.map_err(|e| e.to_string())
    });
    Ok(Engines { storage, links, gossip: Some(gossip), clock, faults, boot_id })
}

fn in_memory_gossip(
    network: membership::memory::Network,
    config: &Config,
    boot_id: u64,
) -> Result<super::node::OpenGossip, StartError> {
    let secret = secret(config)?;
    let (options, node) = (config.membership.clone(), config.node.clone());
    Ok(Box::new(move |id: NodeId, cluster| {
        let (me, seeds) = (local_record(&node, id, boot_id), node.seeds.clone());
        let datagrams = network.join(&node.listen);
        membership::start_with(&options, me, cluster, &secret, datagrams, seeds).map_err(|e| e.to_string())
    }))
}

fn local_record(node: &config::Node, id: NodeId, boot_id: u64) -> membership::LocalRecord {
    let (address, http) = (node.advertised().to_owned(), node.advertised_http());
    membership::LocalRecord { node: id, name: node.name.clone(), address, http, boot_id }
}

/// The cluster's secret. Without one (allowed on loopback only) a fixed text stands in, so that
/// nodes of one machine find each other.
fn secret(config: &Config) -> Result<Vec<u8>, StartError> {
    const LOOPBACK: &str = "quorate on loopback, without a secret";
    let secret = config.cluster.resolve_secret().map_err(StartError::Config)?;
    Ok(secret.map_or_else(|| LOOPBACK.as_bytes().to_vec(), |s| s.expose().as_bytes().to_vec()))
}
