//! The links over both wires, together and in adversity.

mod conformance;
mod faults;
mod impaired;
mod processes;
mod strangers;
mod tls;

use super::{tls::tests::Certificates, *};
use memory::Network;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use tokio::{net::TcpListener, sync::Semaphore, time::timeout};

/// For everything that must happen; far beyond what it takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Does what the request says; anything it does not know comes back as it is.
#[derive(Default)]
struct Obedient {
    /// `hold` requests wait for a permit of it.
    gate: Option<Arc<Semaphore>>,
    handled: AtomicUsize,
}

impl Obedient {
    /// Waits until so many requests have come in.
    async fn wait_handled(&self, count: usize) {
        let all = async {
            while self.handled.load(Ordering::SeqCst) < count {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE, all).await.expect("requests come in");
    }
}

impl Handler for Obedient {
    fn handle(&self, from: NodeId, _: Class, request: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        self.handled.fetch_add(1, Ordering::SeqCst);
        let gate = self.gate.clone();
        Box::pin(async move {
            match &request[..] {
                b"fail" => Err("as you asked".to_owned()),
                b"panic" => panic!("as you asked"),
                b"who" => Ok(Bytes::from(from.to_string())),
                b"never" => futures::future::pending().await,
                b"too much" => Ok(Bytes::from(vec![0; FRAME_BYTES_MAX + 1])),
                b"hold" => {
                    let _permit = gate.expect("a gate").acquire_owned().await.map_err(|error| error.to_string())?;
                    Ok(request)
                }
                _ => Ok(request),
            }
        })
    }

    fn introduce(&self, _: Counterpart, request: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        Box::pin(async move {
            match &request[..] {
                b"fail" => Err("not you".to_owned()),
                b"too much" => Ok(Bytes::from(vec![0; INTRODUCTION_BYTES_MAX + 1])),
                _ => Ok([b"nice to meet you, ", &request[..]].concat().into()),
            }
        })
    }
}

/// A node and how to call it.
struct Node {
    transport: Arc<dyn Transport>,
    peer: Peer,
}

/// Node 1 and node 2, who know each other.
struct Pair {
    a: Node,
    b: Node,
    network: Option<Network>,
    certificates: Option<Certificates>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Memory,
    Ractor,
    RactorOverTls,
}

const BOTH: [Kind; 2] = [Kind::Memory, Kind::Ractor];
const ALL: [Kind; 3] = [Kind::Memory, Kind::Ractor, Kind::RactorOverTls];

impl Pair {
    async fn start(kind: Kind, options: Options, handler: Arc<dyn Handler>) -> Self {
        // names differ from test to test: ractor's registries belong to the process
        let tag = rand::random::<u32>();
        let network = (kind == Kind::Memory).then(|| Network::with(options.clone(), 1));
        let certificates = (kind == Kind::RactorOverTls).then(Certificates::new);
        let mut nodes = Vec::new();
        for number in [1, 2] {
            let name = format!("{tag:08x}-{number}");
            let surroundings = (network.as_ref(), certificates.as_ref());
            nodes.push(Node::start(surroundings, number, &name, options.clone(), handler.clone()).await);
        }
        let b = nodes.remove(1);
        let pair = Self { a: nodes.remove(0), b, network, certificates };
        pair.acquaint();
        pair.wait_up().await;
        pair
    }

    fn acquaint(&self) {
        self.a.transport.set_peers(self.a.peer.node, vec![self.b.peer.clone()]);
        self.b.transport.set_peers(self.b.peer.node, vec![self.a.peer.clone()]);
    }

    async fn wait_up(&self) {
        self.a.wait_link(&self.b, "up on the dialling side", |state| state.up).await;
        self.b.wait_link(&self.a, "up on the accepting side", |state| state.up).await;
    }

    async fn close(self) {
        tokio::join!(self.a.transport.close(PATIENCE), self.b.transport.close(PATIENCE));
    }
}

impl Node {
    /// Over what its pair has: a network in memory, or TCP, with certificates or without.
    async fn start(
        (network, certificates): (Option<&Network>, Option<&Certificates>),
        number: u64,
        name: &str,
        options: Options,
        handler: Arc<dyn Handler>,
    ) -> Self {
        match network {
            Some(network) => Self::memory(network, number, name, handler),
            None => {
                let tls = certificates.map(|all| all.issue(name)).unwrap_or_default();
                Self::ractor(number, name, &Options { tls, ..options }, handler).await
            }
        }
    }

    fn memory(network: &Network, number: u64, name: &str, handler: Arc<dyn Handler>) -> Self {
        let peer = Peer { node: NodeId(number), name: name.to_owned(), address: format!("address of {name}") };
        Self { transport: network.join(name, &peer.address, handler), peer }
    }

    async fn ractor(number: u64, name: &str, options: &Options, handler: Arc<dyn Handler>) -> Self {
        let tls = super::tls::Tls::open(&options.tls, name).unwrap();
        Self::ractor_as(number, Identity { tls, ..Identity::new(name, "secret") }, options, handler).await
    }

    async fn ractor_as(number: u64, identity: Identity, options: &Options, handler: Arc<dyn Handler>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let name = identity.name.clone();
        let transport = start(options, identity, listener, handler, Impairments::none()).await.unwrap();
        Self { transport, peer: Peer { node: NodeId(number), name, address } }
    }

    async fn wait_link(&self, peer: &Node, reason: &str, wanted: impl Fn(&LinkState) -> bool) -> LinkState {
        let mut links = self.transport.links();
        let node = peer.peer.node;
        let waiting = links.wait_for(|view| view.get(&node).is_some_and(&wanted));
        match timeout(PATIENCE, waiting).await {
            Ok(view) => view.unwrap()[&node].clone(),
            Err(_) => panic!("the link is not {reason}"),
        }
    }

    async fn ask(&self, to: &Node, request: impl Into<Bytes>) -> Result<Bytes, Error> {
        self.transport.request(to.peer.node, Class::Command, request.into(), PATIENCE).await
    }
}

/// Waits until `done` is true; it is asked often.
async fn eventually(reason: &str, done: impl Fn() -> bool) {
    let waiting = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(timeout(PATIENCE, waiting).await.is_ok(), "never happened: {reason}");
}
