//! The nodes of a simulated cluster: the product's own code on memory links, memory gossip and
//! memory disks, each of them started, crashed and started again.

use crate::{disk::Disk, gateway::Gateway};
use axum::Router;
use bytesize::ByteSize;
use quorate::{
    Cluster, Config,
    cluster::{Clock, ClockHand, Surroundings},
    ingress, membership, transport,
};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// Few, so that a seed takes seconds, and more than one, so that commands and effects cross shards.
const SHARDS: u16 = 2;
/// Short, so that a simulated minute sees checkpoints, purges and snapshots.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(3);
const ENTRIES_KEPT: u64 = 64;

pub struct World {
    pub network: transport::memory::Network,
    pub gateway: Gateway,
    gossip: membership::memory::Network,
    slots: Vec<Mutex<Slot>>,
}

struct Slot {
    disk: Disk,
    clock: Clock,
    hand: ClockHand,
    up: Option<Up>,
}

/// A running node.
#[derive(Clone)]
pub struct Up {
    pub cluster: Cluster,
    pub router: Router,
    /// Cancelled when it crashes: whoever waits for it waits in vain.
    pub gone: CancellationToken,
}

impl World {
    /// `nodes` empty disks, nothing started.
    pub fn new(nodes: usize, seed: u64) -> Arc<Self> {
        Self::with(nodes, seed, Gateway::new(seed))
    }

    /// Another one that has nothing in common with this one but the card gateway.
    pub fn beside(&self, nodes: usize, seed: u64) -> Arc<Self> {
        Self::with(nodes, seed, self.gateway.clone())
    }

    fn with(nodes: usize, seed: u64, gateway: Gateway) -> Arc<Self> {
        let number = |i: usize| seed.wrapping_mul(31).wrapping_add(i as u64);
        let slot = |i: usize| {
            let (clock, hand) = Clock::movable();
            Mutex::new(Slot { disk: Disk::new(number(i)), clock, hand, up: None })
        };
        Arc::new(Self {
            network: transport::memory::Network::with(transport::Options::default(), seed),
            gateway,
            gossip: membership::memory::Network::new(seed),
            slots: (0..nodes).map(slot).collect(),
        })
    }

    pub fn size(&self) -> usize {
        self.slots.len()
    }

    /// Starts node `i` on what its disk holds. It must be down.
    pub async fn start(&self, i: usize) {
        let (storage, clock) = {
            let slot = self.slot(i);
            (slot.disk.store(), slot.clock.clone())
        };
        let (network, gossip) = (self.network.clone(), Some(self.gossip.clone()));
        let builder = Cluster::surrounded(self.config(i), Surroundings { storage, network, gossip });
        let builder = ingress::shop::register_with(builder.clock(clock), self.gateway.clone());
        match builder.start().await {
            Ok(cluster) => {
                let router = ingress::router(cluster.clone(), &ingress::Options::default());
                tracing::info!(node = i, "up");
                self.slot(i).up = Some(Up { cluster, router, gone: CancellationToken::new() });
            }
            Err(error) => tracing::error!(node = i, %error, "cannot start"),
        }
    }

    /// The power goes: no farewell, nothing unflushed, no answer to anyone.
    pub fn crash(&self, i: usize) {
        let mut slot = self.slot(i);
        let Some(up) = slot.up.take() else { return };
        tracing::info!(node = i, "down");
        up.gone.cancel();
        self.network.crash(&address(i));
        self.gossip.crash(&address(i));
        slot.disk.cut_power();
        // What is left of it reaches neither peers nor its disk; it only has to be cleared away.
        tokio::spawn(async move { up.cluster.shutdown().await });
    }

    pub fn node(&self, i: usize) -> Option<Up> {
        self.slot(i).up.clone()
    }

    pub fn set_disk_speed(&self, i: usize, speed: crate::disk::Speed) {
        self.slot(i).disk.set_speed(speed);
    }

    /// Sets how far a node's clock is off.
    pub fn set_clock_off_ms(&self, i: usize, off_ms: i64) {
        self.slot(i).hand.set_offset_ms(off_ms);
    }

    /// Loses this share of gossip packets.
    pub fn set_gossip_loss(&self, share: f64) {
        self.gossip.set_loss(share);
    }

    pub fn cut_gossip(&self, i: usize) {
        self.gossip.cut_off(&address(i));
    }

    pub fn reconnect_gossip(&self, i: usize) {
        self.gossip.reconnect(&address(i));
    }

    fn config(&self, i: usize) -> Config {
        let mut config = Config::for_node(format!("node-{}", i + 1), "");
        config.node.listen = address(i);
        config.node.http = String::new();
        config.node.seeds = (0..self.size().min(3)).map(address).collect();
        config.cluster.shards = SHARDS;
        config.shard.checkpoint_interval = CHECKPOINT_INTERVAL;
        config.shard.checkpoint_bytes = ByteSize::kib(32);
        config.replication.entries_kept = ENTRIES_KEPT;
        config
    }

    fn slot(&self, i: usize) -> MutexGuard<'_, Slot> {
        self.slots[i].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Of node `i`, on links and in gossip.
pub fn address(i: usize) -> String {
    format!("node-{}:7101", i + 1)
}
