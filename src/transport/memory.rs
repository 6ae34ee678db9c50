//! The wire in memory: many nodes in one process, and the faults a network has.
//!
//! ```text
//! line ─▶ pump (one per direction) ─ cut? delay, drop ─▶ links of the other node
//! ```
//!
//! A cut behaves as a broken path under TCP: what was sent before is held and arrives when it
//! heals, unless the silence has closed the link by then. A drop is worse than TCP can be: a
//! batch is lost on a link that stays open. Time is tokio's, so paused clocks work.

use super::{
    Counterpart, Handler, Introduced, Options, Peer, Transport,
    links::{Links, Unwelcome},
    wire::{DialError, Hello, Line, LinkId, Wire},
};
use crate::{catalog::NodeId, impairment::Impairments};
use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

/// A network of nodes in this process. Cloning it gives the same network.
#[derive(Clone)]
pub struct Network {
    inner: Arc<Inner>,
}

struct Inner {
    options: Options,
    state: Mutex<State>,
    /// Changes whenever a fault does.
    changed: watch::Sender<()>,
}

struct State {
    nodes: HashMap<String, Node>,
    faults: HashMap<(String, String), Fault>,
    /// Open links, by their ends.
    open: Vec<(String, String, CancellationToken)>,
    rng: StdRng,
    number: u64,
}

struct Node {
    links: Weak<Links>,
    /// Cancelled when the node crashes or closes.
    gone: CancellationToken,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Fault {
    cut: bool,
    delay: Duration,
    drop_probability: f64,
}

impl Default for Network {
    fn default() -> Self {
        Self::new()
    }
}

impl Network {
    /// A network without faults, with the default [`Options`].
    pub fn new() -> Self {
        Self::with(Options::default(), 0)
    }

    /// A network with these options for every node; `seed` decides which batches get dropped.
    pub fn with(options: Options, seed: u64) -> Self {
        let state = State {
            nodes: HashMap::new(),
            faults: HashMap::new(),
            open: Vec::new(),
            rng: StdRng::seed_from_u64(seed),
            number: 0,
        };
        Self { inner: Arc::new(Inner { options, state: Mutex::new(state), changed: watch::Sender::new(()) }) }
    }

    /// Adds a node at `address`, which may be any string. A node that was there before is gone,
    /// as after [`crash`](Self::crash). Every join has a boot id of its own. Must be called
    /// within a tokio runtime.
    pub fn join(
        &self,
        name: impl Into<String>,
        address: impl Into<String>,
        handler: Arc<dyn Handler>,
    ) -> Arc<dyn Transport> {
        self.join_impaired(name, address, handler, Impairments::none())
    }

    /// As [`join`](Self::join), with links that the node itself can impair on purpose.
    pub fn join_impaired(
        &self,
        name: impl Into<String>,
        address: impl Into<String>,
        handler: Arc<dyn Handler>,
        impairments: Impairments,
    ) -> Arc<dyn Transport> {
        let (name, address) = (name.into(), address.into());
        self.crash(&address);
        let boot_id = self.inner.number();
        let links = Links::new(name.clone(), boot_id, self.inner.options.clone(), handler, impairments);
        let gone = CancellationToken::new();
        let node = Node { links: Arc::downgrade(&links), gone: gone.clone() };
        self.inner.state.lock().nodes.insert(address.clone(), node);
        links.attach(Arc::new(MemoryWire {
            network: self.inner.clone(),
            name,
            address,
            boot_id,
            gone,
            links: Arc::downgrade(&links),
        }));
        Arc::new(links)
    }

    /// The node at `address` vanishes: its links break, and nothing of it gets out any more.
    /// Peers see the links go down (past a cut: by silence). Its transport can still be called,
    /// and fails. Unknown addresses are ignored.
    pub fn crash(&self, address: &str) {
        let node = self.inner.state.lock().nodes.remove(address);
        if let Some(node) = node {
            node.gone.cancel();
        }
    }

    /// Nothing gets through from `from` to `to` until it is healed. Links notice by silence.
    pub fn cut(&self, from: &str, to: &str) {
        self.inner.fault(from, to, |fault| fault.cut = true);
    }

    /// [`cut`](Self::cut) both ways.
    pub fn partition(&self, a: &str, b: &str) {
        self.cut(a, b);
        self.cut(b, a);
    }

    /// Cuts a node off from every other one that is there now.
    pub fn isolate(&self, address: &str) {
        let others: Vec<String> =
            self.inner.state.lock().nodes.keys().filter(|other| *other != address).cloned().collect();
        for other in others {
            self.partition(address, &other);
        }
    }

    /// Closes the link between two nodes, as a reset does. They will dial again.
    pub fn disconnect(&self, a: &str, b: &str) {
        let mut state = self.inner.state.lock();
        state.open.retain(|(from, to, closed)| {
            if (from == a && to == b) || (from == b && to == a) {
                closed.cancel();
            }
            !closed.is_cancelled()
        });
    }

    /// Ends every fault between two nodes.
    pub fn heal(&self, a: &str, b: &str) {
        self.inner.fault(a, b, |fault| *fault = Fault::default());
        self.inner.fault(b, a, |fault| *fault = Fault::default());
    }

    /// Ends every fault.
    pub fn heal_all(&self) {
        self.inner.state.lock().faults.clear();
        self.inner.changed.send_replace(());
    }

    /// Everything from `from` to `to` takes this much longer.
    pub fn delay(&self, from: &str, to: &str, delay: Duration) {
        self.inner.fault(from, to, |fault| fault.delay = delay);
    }

    /// Loses each batch from `from` to `to` with this probability (0 to 1).
    pub fn drop_probability(&self, from: &str, to: &str, probability: f64) {
        self.inner.fault(from, to, |fault| fault.drop_probability = probability.clamp(0.0, 1.0));
    }
}

impl Inner {
    fn number(&self) -> u64 {
        let mut state = self.state.lock();
        state.number += 1;
        state.number
    }

    fn fault(&self, from: &str, to: &str, change: impl FnOnce(&mut Fault)) {
        let key = (from.to_owned(), to.to_owned());
        change(self.state.lock().faults.entry(key).or_default());
        self.changed.send_replace(());
    }

    fn faults(&self, from: &str, to: &str) -> Fault {
        self.state.lock().faults.get(&(from.to_owned(), to.to_owned())).copied().unwrap_or_default()
    }

    fn drops(&self, probability: f64) -> bool {
        probability > 0.0 && self.state.lock().rng.random_bool(probability)
    }

    fn opened(&self, from: &str, to: &str, closed: CancellationToken) {
        let mut state = self.state.lock();
        state.open.retain(|(_, _, closed)| !closed.is_cancelled());
        state.open.push((from.to_owned(), to.to_owned(), closed));
    }

    fn find(&self, address: &str) -> Option<(Arc<Links>, CancellationToken)> {
        let state = self.state.lock();
        let node = state.nodes.get(address)?;
        Some((node.links.upgrade()?, node.gone.clone()))
    }

    /// Resolves once the path is open, after its delay.
    async fn passage(&self, from: &str, to: &str, since: Instant) -> Fault {
        let mut changed = self.changed.subscribe();
        loop {
            changed.mark_unchanged();
            let fault = self.faults(from, to);
            if !fault.cut {
                sleep_until(since + fault.delay).await;
                return fault;
            }
            // the sender lives as long as the network
            let _ = changed.changed().await;
        }
    }
}

struct MemoryWire {
    network: Arc<Inner>,
    name: String,
    address: String,
    boot_id: u64,
    gone: CancellationToken,
    links: Weak<Links>,
}

impl Wire for MemoryWire {
    fn dial(&self, me: NodeId, peer: Peer) -> BoxFuture<'static, Result<(), DialError>> {
        let link = LinkId(self.network.number());
        let hello = Hello {
            link,
            from: me,
            from_name: self.name.clone(),
            boot_id: self.boot_id,
            to: peer.node,
            to_name: peer.name,
        };
        let dial = Dial {
            network: self.network.clone(),
            gone: self.gone.clone(),
            from: self.address.clone(),
            to: peer.address,
            hello,
        };
        let (links, limit) = (self.links.clone(), self.network.options.connect_timeout);
        Box::pin(async move {
            let address = dial.to.clone();
            match tokio::time::timeout(limit, dial.run(links)).await {
                Ok(result) => result,
                Err(_) => Err(DialError::Failed(format!("cannot connect to {address} within {limit:?}"))),
            }
        })
    }

    fn introduce(&self, address: String, request: Bytes, _: Duration) -> BoxFuture<'static, Introduced> {
        let (network, gone, from) = (self.network.clone(), self.gone.clone(), self.address.clone());
        Box::pin(async move {
            if gone.is_cancelled() {
                return Err("this node is gone".to_owned());
            }
            network.passage(&from, &address, Instant::now()).await;
            let Some((links, there)) = network.find(&address) else {
                return Err(format!("cannot connect to {address}: nobody listens there"));
            };
            let answer = tokio::select! {
                () = there.cancelled() => return Err(format!("{address}: the connection was closed")),
                () = gone.cancelled() => return Err("this node is gone".to_owned()),
                answer = links.introduced(Counterpart::Anyone, request) => answer,
            };
            network.passage(&address, &from, Instant::now()).await;
            let reply = answer.map_err(|detail| format!("{address} refused: {detail}"))?;
            Ok((reply, Counterpart::Anyone))
        })
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        self.abandon();
        Box::pin(async {})
    }

    fn abandon(&self) {
        self.gone.cancel();
        let mut state = self.network.state.lock();
        // another node may have taken the address since
        if state.nodes.get(&self.address).is_some_and(|node| Weak::ptr_eq(&node.links, &self.links)) {
            state.nodes.remove(&self.address);
        }
    }
}

/// One attempt to open a link.
struct Dial {
    network: Arc<Inner>,
    gone: CancellationToken,
    from: String,
    to: String,
    hello: Hello,
}

impl Dial {
    async fn run(self, dialer: Weak<Links>) -> Result<(), DialError> {
        self.network.passage(&self.from, &self.to, Instant::now()).await;
        let address = self.to.clone();
        let failed = |what: &str| DialError::Failed(format!("{address}: {what}"));
        if self.gone.is_cancelled() {
            return Err(failed("this node is gone"));
        }
        let Some((there, there_gone)) = self.network.find(&self.to) else { return Err(failed("nobody listens there")) };
        if !there.hears(&self.hello, self.network.options.handshake_timeout).await {
            return Err(failed("no handshake"));
        }
        there.greet(&self.hello).map_err(|unwelcome| match unwelcome {
            Unwelcome::Unknown(detail) => DialError::Unknown { address: address.clone(), detail },
            Unwelcome::Refused(detail) => failed(&detail),
        })?;
        self.network.passage(&self.to, &self.from, Instant::now()).await;
        let (boot_id, id, to_links) = (there.boot_id, self.hello.link, Arc::downgrade(&there));
        // as a crash would close it, and as it must be closed if either node is gone by now
        let closed = self.gone.child_token();
        tokio::spawn(close_with(there_gone.clone(), closed.clone()));
        self.network.opened(&self.from, &self.to, closed.clone());
        let outward = Path {
            network: self.network.clone(),
            from: self.from.clone(),
            to: self.to.clone(),
            target: to_links,
            target_gone: there_gone,
            id,
            closed: closed.clone(),
        };
        let inward = Path {
            network: self.network,
            from: self.to,
            to: self.from,
            target: dialer.clone(),
            target_gone: self.gone,
            id,
            closed: closed.clone(),
        };
        let (out_line, out_pump) = outward.open();
        let (in_line, in_pump) = inward.open();
        if !there.link_up(id, self.hello.from, self.hello.boot_id, in_line) {
            closed.cancel();
            return Err(failed("does not want the link"));
        }
        let up = dialer.upgrade().is_some_and(|links| links.link_up(id, self.hello.to, boot_id, out_line));
        tokio::spawn(out_pump);
        tokio::spawn(in_pump);
        if !up {
            closed.cancel();
            return Err(failed("the link is not wanted any more"));
        }
        Ok(())
    }
}

async fn close_with(gone: CancellationToken, closed: CancellationToken) {
    tokio::select! {
        () = gone.cancelled() => closed.cancel(),
        () = closed.cancelled() => {}
    }
}

/// One direction of a link.
struct Path {
    network: Arc<Inner>,
    from: String,
    to: String,
    target: Weak<Links>,
    target_gone: CancellationToken,
    id: LinkId,
    closed: CancellationToken,
}

impl Path {
    fn open(self) -> (Arc<MemoryLine>, impl Future<Output = ()>) {
        // bounded by the credit window of the link that writes to it
        let (batches, queue) = mpsc::unbounded_channel();
        (Arc::new(MemoryLine { batches, closed: self.closed.clone() }), self.pump(queue))
    }

    async fn pump(self, mut queue: mpsc::UnboundedReceiver<(Instant, Vec<u8>)>) {
        let closed = self.closed.clone();
        tokio::select! {
            biased;
            () = closed.cancelled() => {}
            () = self.carry(&mut queue) => closed.cancel(),
        }
        drop(queue);
        // the news of the end takes the path, too
        tokio::select! {
            () = self.target_gone.cancelled() => {}
            _ = self.network.passage(&self.from, &self.to, Instant::now()) => {}
        }
        if let Some(target) = self.target.upgrade() {
            target.link_down(self.id, "the connection closed");
        }
    }

    async fn carry(&self, queue: &mut mpsc::UnboundedReceiver<(Instant, Vec<u8>)>) {
        while let Some((sent_at, batch)) = queue.recv().await {
            let fault = self.network.passage(&self.from, &self.to, sent_at).await;
            if self.network.drops(fault.drop_probability) {
                continue;
            }
            let Some(target) = self.target.upgrade() else { return };
            target.received(Bytes::from(batch));
        }
    }
}

struct MemoryLine {
    batches: mpsc::UnboundedSender<(Instant, Vec<u8>)>,
    closed: CancellationToken,
}

impl Line for MemoryLine {
    fn send(&self, batch: Vec<u8>) -> bool {
        !self.closed.is_cancelled() && self.batches.send((Instant::now(), batch)).is_ok()
    }

    fn hang_up(&self) {
        self.closed.cancel();
    }
}
