//! The links of one node over any [`Wire`]: who the peers are, which links are up, who dials.
//!
//! ```text
//! request ─▶ slot of the peer ─▶ link ─▶ line (wire)
//! wire ─▶ greet · link_up · received · link_down ─▶ link ─▶ handler
//! ```
//!
//! Invariants: at most one link per peer is current, and a newer one replaces it; the node with
//! the smaller id dials; no lock is held while a line or a handler is called.

use super::{
    Class, Counterpart, Error, Handler, INTRODUCTION_BYTES_MAX, Introduced, LinkState, LinkView, Options, Peer,
    Transport, dialer,
    frame::Header,
    impaired::{self, Gate},
    link::{Arrived, Link},
    slot::Slot,
    wire::{DialError, Hello, Line, LinkId, Wire},
};
use crate::{
    catalog::NodeId,
    impairment::{Direction, Impairments},
};
use bytes::Bytes;
use futures::future::{BoxFuture, join_all};
use parking_lot::RwLock;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior},
};

/// See the module. Made together with its wire by `transport::start` or a memory network.
pub(super) struct Links {
    pub name: String,
    pub boot_id: u64,
    pub options: Options,
    handler: Arc<dyn Handler>,
    impairments: Impairments,
    wire: OnceLock<Arc<dyn Wire>>,
    runtime: tokio::runtime::Handle,
    peers: RwLock<Peers>,
    open: RwLock<HashMap<LinkId, Arc<Link>>>,
    view: watch::Sender<LinkView>,
    closing: AtomicBool,
}

#[derive(Default)]
struct Peers {
    me: Option<NodeId>,
    slots: BTreeMap<NodeId, Arc<Slot>>,
}

/// Why a hello is turned away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unwelcome {
    /// This node does not know the caller (yet); it may try again soon.
    Unknown(String),
    /// The caller meant someone else, or is not to call.
    Refused(String),
}

impl Links {
    /// Links without a wire; [`attach`](Self::attach) must follow.
    pub fn new(
        name: String,
        boot_id: u64,
        options: Options,
        handler: Arc<dyn Handler>,
        impairments: Impairments,
    ) -> Arc<Self> {
        Arc::new(Self {
            name,
            boot_id,
            options,
            handler,
            impairments,
            wire: OnceLock::new(),
            runtime: tokio::runtime::Handle::current(),
            peers: RwLock::default(),
            open: RwLock::default(),
            view: watch::Sender::new(LinkView::new()),
            closing: AtomicBool::new(false),
        })
    }

    /// Gives the links their wire and starts the heartbeat.
    pub fn attach(self: &Arc<Self>, wire: Arc<dyn Wire>) {
        let attached = self.wire.set(wire).is_ok();
        assert!(attached, "links have one wire");
        self.runtime.spawn(beat(Arc::downgrade(self), self.options.heartbeat_interval));
    }

    /// Whether a caller is the peer it says it is, and wants this node.
    pub fn greet(&self, hello: &Hello) -> Result<(), Unwelcome> {
        if self.closing.load(Ordering::Acquire) {
            return Err(Unwelcome::Refused(format!("node {} is shutting down", self.name)));
        }
        let peers = self.peers.read();
        let Some(me) = peers.me else {
            return Err(Unwelcome::Unknown(format!("node {} belongs to no cluster yet", self.name)));
        };
        if hello.to != me || hello.to_name != self.name {
            let detail = format!("this is node {me} ({}), not node {} ({})", self.name, hello.to, hello.to_name);
            return Err(Unwelcome::Refused(detail));
        }
        let Some(slot) = peers.slots.get(&hello.from) else {
            let detail = format!("node {} ({}) is not in the roster of {}", hello.from, hello.from_name, self.name);
            return Err(Unwelcome::Unknown(detail));
        };
        let known = slot.peer.read().name.clone();
        if known != hello.from_name {
            return Err(Unwelcome::Refused(format!("node {} is {known}, not {}", hello.from, hello.from_name)));
        }
        if hello.from >= me {
            return Err(Unwelcome::Refused(format!("node {me} dials node {}, not the other way", hello.from)));
        }
        Ok(())
    }

    /// A connection with `peer` is open. It replaces an earlier one. False if it is not wanted.
    pub fn link_up(self: &Arc<Self>, id: LinkId, peer: NodeId, boot_id: u64, line: Arc<dyn Line>) -> bool {
        let Some(slot) = self.slot(peer) else { return false };
        let name = slot.peer.read().name.clone();
        let line = impaired::outgoing(&self.impairments, &name, line);
        let inlet = self.inlet(id, &name);
        let link = Link::new(id, boot_id, slot.clone(), line, inlet, self.handler.clone(), &self.options);
        let former = {
            let mut open = self.open.write();
            // under the lock that `close` takes, so that no link slips in behind it
            if self.closing.load(Ordering::Acquire) || open.contains_key(&id) {
                return false;
            }
            open.insert(id, link.clone());
            let former = slot.link.write().replace(link.clone());
            if let Some(former) = &former {
                open.remove(&former.id);
            }
            self.show(peer, true, boot_id);
            former
        };
        if let Some(former) = former {
            tracing::debug!(node = %peer, "a new connection replaces the former one");
            former.close();
            former.hang_up();
        }
        tracing::info!(node = %peer, boot_id = format_args!("{boot_id:016x}"), "link is up");
        self.runtime.spawn(link.clone().send_loop());
        let wanted = self.slot(peer).is_some_and(|slot| Arc::ptr_eq(&slot, &link.slot));
        if !wanted {
            self.link_down(id, "the peer was removed");
        }
        wanted
    }

    /// The connection is gone. Whoever waits for a reply over it is told. Unknown ids are ignored.
    pub fn link_down(&self, id: LinkId, reason: &str) {
        let link = {
            let mut open = self.open.write();
            let Some(link) = open.remove(&id) else { return };
            let mut current = link.slot.link.write();
            if current.as_ref().is_some_and(|current| current.id == id) {
                *current = None;
                self.show(link.slot.node, false, link.boot_id);
            }
            drop(current);
            link
        };
        tracing::warn!(node = %link.slot.node, reason, "link is down");
        metrics::counter!("quorate_link_down_total").increment(1);
        link.close();
        link.slot.poke.notify_one();
    }

    /// A batch came in over some connection. Batches of connections that are not open any more
    /// are dropped.
    pub fn received(&self, mut batch: Bytes) {
        let len = batch.len() as u64;
        let header = match Header::take(&mut batch) {
            Ok(header) => header,
            Err(malformed) => return tracing::warn!(%malformed, "dropped a batch of no known link"),
        };
        let link = self.open.read().get(&LinkId(header.link)).cloned();
        let Some(link) = link else {
            return tracing::debug!(link = header.link, "dropped a batch of a connection that is not open");
        };
        let arrived = (header, batch, len);
        let passed = match &link.inlet {
            Some(inlet) => inlet.pass(arrived),
            None => Some(arrived),
        };
        if let Some(arrived) = passed {
            self.take_in(&link, arrived);
        }
    }

    fn take_in(&self, link: &Arc<Link>, arrived: Arrived) {
        if let Err(malformed) = link.receive(arrived) {
            self.drop_link(link, &malformed.to_string());
        }
    }

    /// What comes in over a link from `peer` passes this, if anything can happen to it.
    fn inlet(self: &Arc<Self>, id: LinkId, peer: &str) -> Option<Gate<Arrived>> {
        let path = self.impairments.path(peer, Direction::Incoming)?;
        let links = Arc::downgrade(self);
        Some(Gate::new(path, move |arrived| {
            let Some(links) = links.upgrade() else { return false };
            // The link may have ended while this was on its way.
            let Some(link) = links.open.read().get(&id).cloned() else { return false };
            links.take_in(&link, arrived);
            true
        }))
    }

    /// Opens a link by `wire`; across a cut it fails as if nobody had answered.
    pub fn dial(&self, wire: &Arc<dyn Wire>, me: NodeId, peer: Peer) -> BoxFuture<'static, Result<(), DialError>> {
        let (within, name, address) = (self.options.connect_timeout, peer.name.clone(), peer.address.clone());
        let reachable = self.impairments.clone().reachable(name, within);
        let dial = wire.dial(me, peer);
        Box::pin(async move {
            match reachable.await {
                true => dial.await,
                false => Err(DialError::Failed(format!("cannot connect to {address} within {within:?}"))),
            }
        })
    }

    /// Whether a caller can be heard and answered, which is waited for at most so long.
    pub async fn hears(&self, hello: &Hello, within: Duration) -> bool {
        self.impairments.clone().reachable(hello.from_name.clone(), within).await
    }

    /// The name of the peer at an address.
    fn name_at(&self, address: &str) -> Option<String> {
        let peers = self.peers.read();
        let mut all = peers.slots.values().map(|slot| slot.peer.read());
        all.find(|peer| peer.address == address).map(|peer| peer.name.clone())
    }

    /// Answers an introduction that came over the wire.
    pub async fn introduced(&self, caller: Counterpart, request: Bytes) -> Result<Bytes, String> {
        let reply = self.handler.introduce(caller, request).await?;
        if reply.len() > INTRODUCTION_BYTES_MAX {
            return Err(format!(
                "the reply of {} bytes exceeds the limit of {INTRODUCTION_BYTES_MAX} bytes",
                reply.len()
            ));
        }
        Ok(reply)
    }

    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    pub fn wire(&self) -> Option<Arc<dyn Wire>> {
        self.wire.get().cloned()
    }

    fn slot(&self, node: NodeId) -> Option<Arc<Slot>> {
        self.peers.read().slots.get(&node).cloned()
    }

    fn current(&self, node: NodeId) -> Option<Arc<Link>> {
        self.peers.read().slots.get(&node)?.link.read().clone()
    }

    /// Publishes a link's state, if the node is still a peer.
    fn show(&self, node: NodeId, up: bool, boot_id: u64) {
        self.view.send_if_modified(|view| match view.get_mut(&node) {
            Some(state) => {
                *state = LinkState { up, boot_id };
                true
            }
            None => false,
        });
    }

    fn drop_link(&self, link: &Arc<Link>, reason: &str) {
        self.link_down(link.id, reason);
        link.hang_up();
    }

    fn replace_peers(self: &Arc<Self>, me: NodeId, wanted: Vec<Peer>) {
        let wanted: BTreeMap<NodeId, Peer> =
            wanted.into_iter().filter(|peer| peer.node != me).map(|peer| (peer.node, peer)).collect();
        let mut removed = Vec::new();
        {
            let mut peers = self.peers.write();
            peers.me = Some(me);
            peers.slots.retain(|node, slot| {
                let keep = wanted.contains_key(node);
                if !keep {
                    removed.push(slot.clone());
                }
                keep
            });
            for (node, peer) in wanted {
                self.want(&mut peers, me, node, peer);
            }
        }
        for slot in removed {
            if let Some(dialer) = slot.dialer.lock().take() {
                dialer.abort();
            }
            let link = slot.link.read().clone();
            if let Some(link) = link {
                self.drop_link(&link, "the peer was removed");
            }
            self.view.send_modify(|view| {
                view.remove(&slot.node);
            });
        }
    }

    fn want(self: &Arc<Self>, peers: &mut Peers, me: NodeId, node: NodeId, peer: Peer) {
        if let Some(slot) = peers.slots.get(&node) {
            let changed = std::mem::replace(&mut *slot.peer.write(), peer.clone()) != peer;
            if changed {
                slot.poke.notify_one();
            }
            return;
        }
        let slot = Slot::new(peer, &self.options);
        self.view.send_modify(|view| {
            view.insert(node, LinkState { up: false, boot_id: 0 });
        });
        if me < node {
            let task = dialer::run(Arc::downgrade(self), me, Arc::downgrade(&slot));
            *slot.dialer.lock() = Some(self.runtime.spawn(task).abort_handle());
        }
        peers.slots.insert(node, slot);
    }

    async fn shut(self: Arc<Self>, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        let open: Vec<Arc<Link>> = {
            let open = self.open.write();
            self.closing.store(true, Ordering::Release);
            open.values().cloned().collect()
        };
        for slot in self.peers.read().slots.values() {
            if let Some(dialer) = slot.dialer.lock().take() {
                dialer.abort();
            }
        }
        if tokio::time::timeout_at(deadline, join_all(open.iter().map(|link| link.drained()))).await.is_err() {
            tracing::warn!("closing links before peers acknowledged everything");
        }
        for link in open {
            self.drop_link(&link, "this node is closing");
        }
        if let Some(wire) = self.wire.get() {
            wire.close().await;
        }
    }
}

impl Transport for Arc<Links> {
    fn request(
        &self,
        to: NodeId,
        class: Class,
        request: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, Error>> {
        match self.current(to) {
            Some(link) => Box::pin(link.request(class, request, timeout)),
            None => Box::pin(async move { Err(Error::NotConnected(to)) }),
        }
    }

    fn introduce(&self, address: String, request: Bytes, timeout: Duration) -> BoxFuture<'static, Introduced> {
        let wire = self.wire.get().cloned();
        let (impairments, peer) = (self.impairments.clone(), self.name_at(&address));
        Box::pin(async move {
            if request.len() > INTRODUCTION_BYTES_MAX {
                return Err(format!(
                    "an introduction of {} bytes exceeds the limit of {INTRODUCTION_BYTES_MAX} bytes",
                    request.len()
                ));
            }
            let Some(wire) = wire else { return Err("the links are not started".to_owned()) };
            let asked = async {
                if let Some(peer) = peer
                    && !impairments.reachable(peer, timeout).await
                {
                    std::future::pending::<()>().await;
                }
                wire.introduce(address.clone(), request, timeout).await
            };
            match tokio::time::timeout(timeout, asked).await {
                Ok(answer) => answer,
                Err(_) => Err(format!("{address} did not answer within {timeout:?}")),
            }
        })
    }

    fn set_peers(&self, me: NodeId, peers: Vec<Peer>) {
        self.replace_peers(me, peers);
    }

    fn links(&self) -> watch::Receiver<LinkView> {
        self.view.subscribe()
    }

    fn close(&self, timeout: Duration) -> BoxFuture<'static, ()> {
        Box::pin(self.clone().shut(timeout))
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        for link in std::mem::take(self.open.get_mut()).into_values() {
            link.close();
            link.hang_up();
        }
        for slot in self.peers.get_mut().slots.values() {
            if let Some(dialer) = slot.dialer.lock().take() {
                dialer.abort();
            }
        }
        if let Some(wire) = self.wire.get() {
            wire.abandon();
        }
    }
}

/// Lets every peer hear from this node, and closes the links of those that are not heard.
async fn beat(links: Weak<Links>, interval: Duration) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut former = Instant::now();
    loop {
        ticks.tick().await;
        let Some(links) = links.upgrade() else { return };
        // a late tick says that this node stood still, not its peers: hear them out first
        let late = former.elapsed() > interval * 2;
        former = Instant::now();
        let open: Vec<Arc<Link>> = links.open.read().values().cloned().collect();
        for link in open {
            let silence = link.silence();
            if silence > links.options.dead_after && !late {
                links.drop_link(&link, &format!("silent for {silence:?}"));
            } else {
                link.heartbeat();
            }
        }
    }
}
