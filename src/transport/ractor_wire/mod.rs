//! The wire of production: TCP that we accept and dial ourselves, with `ractor_cluster` on top.
//!
//! ```text
//! accept / dial ─▶ TLS, if any ─▶ handshake ─▶ introduction: one request, one reply
//!                                        └──▶ link: session of ractor_cluster ─▶ gateway actors find each other
//! ```
//!
//! Why not `ractor_cluster`'s own listener: one silent client blocks it, and its cookie is no
//! security. It neither reconnects, nor notices a frozen peer, nor tells an old connection from
//! a new one; [`super::links`] does. Its registries belong to the process; two of these wires in
//! one process work because a gateway is told apart by its session, but production has one.

mod accept;
mod dial;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;
mod gateway;
mod handshake;
mod lobby;
mod sessions;
mod stream;

use self::{
    gateway::Gateway,
    handshake::{Answer, Keys, Purpose},
    lobby::Lobby,
    sessions::{Connection, Sessions, Stage, Subscription},
    stream::{Channel, LinkStream},
};
use super::{
    BATCH_BYTES_MAX, Counterpart, FRAME_BYTES_MAX, Handler, Identity, Introduced, Options, Peer,
    links::Links,
    log_limit::LogLimit,
    tls::Tls,
    wire::{DialError, Hello, Line, LinkId, Wire},
};
use crate::{catalog::NodeId, impairment::Impairments};
use bytes::{Buf, Bytes};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use ractor::{Actor, ActorRef};
use ractor_cluster::{NodeServer, NodeServerMessage, node::NodeConnectionMode};
use std::{
    net::Ipv4Addr,
    sync::{Arc, Weak, atomic::AtomicU64},
    time::Duration,
};
use tokio::{net::TcpListener, sync::Semaphore, task::AbortHandle, time::timeout};

/// From the end of our handshake to both gateways knowing each other.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an actor is given to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);
/// The largest message a session takes: the largest batch and what is wrapped around it.
const SESSION_FRAME_BYTES_MAX: u64 = (FRAME_BYTES_MAX + BATCH_BYTES_MAX) as u64;

/// Why the node links could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("node links: {0}")]
    Options(String),
    #[error("node links: the name must have 1 to 255 bytes, not {0}")]
    Name(usize),
    #[error("node links: the cluster secret is empty")]
    NoSecret,
    #[error("node links: {0}")]
    Actor(#[from] ractor::SpawnErr),
    #[error("node links: the node server stopped while starting")]
    Stopped,
}

pub(super) struct RactorWire {
    links: Weak<Links>,
    options: Options,
    name: String,
    boot_id: u64,
    keys: Keys,
    tls: Option<Tls>,
    /// Where connections to others come from, if that matters.
    from: Option<Ipv4Addr>,
    server: ActorRef<NodeServerMessage>,
    gateway: ActorRef<gateway::Batch>,
    sessions: Arc<Sessions>,
    lobby: Arc<Lobby>,
    introductions: Arc<Semaphore>,
    /// What runs beside the links, until they are closed.
    background: Mutex<Vec<AbortHandle>>,
    log: LogLimit,
    /// Connections that were turned away or given up before they had proven themselves.
    rejected: AtomicU64,
}

/// Starts node links on a listener that is already bound.
pub(super) async fn start(
    options: &Options,
    identity: Identity,
    listener: TcpListener,
    handler: Arc<dyn Handler>,
    impairments: Impairments,
) -> Result<(Arc<Links>, Arc<RactorWire>), StartError> {
    options.validate().map_err(StartError::Options)?;
    if identity.name.is_empty() || identity.name.len() > 255 {
        return Err(StartError::Name(identity.name.len()));
    }
    if identity.secret.is_empty() {
        return Err(StartError::NoSecret);
    }
    let keys = Keys::derive(&identity.secret);
    let links = Links::new(identity.name.clone(), identity.boot_id, options.clone(), handler, impairments);
    let sessions = Sessions::new(Arc::downgrade(&links));
    let server = start_server(&identity, &keys, &sessions).await?;
    let gateway = Gateway { name: identity.name.clone(), links: Arc::downgrade(&links), sessions: sessions.clone() };
    let (gateway, _) = Actor::spawn(None, gateway, ()).await?;
    let wire = Arc::new(RactorWire {
        links: Arc::downgrade(&links),
        options: options.clone(),
        name: identity.name,
        boot_id: identity.boot_id,
        keys,
        tls: identity.tls,
        from: dial::source(&listener),
        server,
        gateway,
        sessions,
        lobby: Lobby::new(options.handshakes_max),
        introductions: Arc::new(Semaphore::new(options.introductions_max)),
        background: Mutex::default(),
        log: LogLimit::default(),
        rejected: AtomicU64::new(0),
    });
    links.attach(Arc::new(wire.clone()));
    let mut background = vec![tokio::spawn(accept::run(wire.clone(), listener)).abort_handle()];
    background.extend(wire.tls.clone().map(|tls| tokio::spawn(tls.watch()).abort_handle()));
    *wire.background.lock() = background;
    Ok((links, wire))
}

async fn start_server(
    identity: &Identity,
    keys: &Keys,
    sessions: &Arc<Sessions>,
) -> Result<ActorRef<NodeServerMessage>, StartError> {
    // the name is unique per process: after a crash the peer may still hold a session with the
    // former one, and host and port must differ too, or two nodes take each other for themselves
    let unique = format!("{}-{:016x}", identity.name, identity.boot_id);
    let server = NodeServer::new(0, keys.cookie(), unique.clone(), unique, None, Some(NodeConnectionMode::Isolated))
        .with_listen_addr(std::net::Ipv4Addr::LOCALHOST.into())
        .with_max_inbound_frame_size(SESSION_FRAME_BYTES_MAX);
    let (server, _) = Actor::spawn(None, server, ()).await?;
    let subscription = Box::new(Subscription(sessions.clone()));
    let subscribed = server.cast(NodeServerMessage::SubscribeToEvents { id: "quorate".to_owned(), subscription });
    subscribed.map_err(|_| StartError::Stopped)?;
    Ok(server)
}

impl RactorWire {
    async fn connect(&self, address: &str) -> Result<(Channel, Counterpart), String> {
        let stream = match timeout(self.options.connect_timeout, dial::connect(address, self.from)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(format!("cannot connect to {address}: {error}")),
            Err(_) => return Err(format!("cannot connect to {address} within {:?}", self.options.connect_timeout)),
        };
        stream::tune(&stream, self.options.keepalive)
            .map_err(|error| format!("cannot set up the connection to {address}: {error}"))?;
        let Some(tls) = &self.tls else { return Ok((Channel::Plain(stream), Counterpart::Anyone)) };
        match timeout(self.options.handshake_timeout, tls.connect(stream)).await {
            Ok(Ok((stream, peer))) => Ok((Channel::Tls(stream.into()), peer)),
            Ok(Err(error)) => Err(format!("{address}: {}", handshake::Error::from(error))),
            Err(_) => Err(format!("{address}: no TLS within {:?}", self.options.handshake_timeout)),
        }
    }

    async fn open(&self, me: NodeId, peer: Peer) -> Result<(), DialError> {
        self.sessions.retire(peer.node).await;
        let address = peer.address;
        let failed = |what: &dyn std::fmt::Display| DialError::Failed(format!("{address}: {what}"));
        let (mut channel, there) = self.connect(&address).await.map_err(DialError::Failed)?;
        there.check(&peer.name).map_err(|error| failed(&error))?;
        let hello = Hello {
            link: LinkId(rand::random()),
            from: me,
            from_name: self.name.clone(),
            boot_id: self.boot_id,
            to: peer.node,
            to_name: peer.name.clone(),
        };
        let body = hello.encode();
        let shake = handshake::dial(&mut channel, &self.keys, Purpose::Link, &body);
        let answer = match timeout(self.options.handshake_timeout, shake).await {
            Ok(answer) => answer.map_err(|error| failed(&error))?,
            Err(_) => return Err(failed(&format_args!("no handshake within {:?}", self.options.handshake_timeout))),
        };
        let boot_id = match answer {
            Answer::Done(mut body) => body.try_get_u64().map_err(|_| failed(&"malformed welcome"))?,
            Answer::Unknown(detail) => return Err(DialError::Unknown { address, detail }),
            Answer::Refused(detail) => return Err(failed(&detail)),
        };
        let opened = self.hand_over(channel, hello.link, peer.node, peer.name, boot_id, false).await;
        opened.map_err(|error| failed(&error))
    }

    /// Gives a connection to `ractor_cluster` and waits until the link over it is up.
    async fn hand_over(
        &self,
        channel: Channel,
        id: LinkId,
        peer: NodeId,
        name: String,
        boot_id: u64,
        is_server: bool,
    ) -> Result<(), String> {
        let socket = channel.socket().map_err(|error| error.to_string())?;
        let connection = Connection::new(id, peer, name, boot_id, socket);
        if !self.sessions.register(&connection) {
            return Err("the link id is taken".to_owned());
        }
        let stream = Box::new(LinkStream { channel, label: connection.label() });
        let mut stage = connection.stage.subscribe();
        let handed = self.server.cast(NodeServerMessage::ConnectionOpenedExternal { stream, is_server });
        let result = match handed {
            Err(_) => Err("the node server has stopped".to_owned()),
            Ok(()) => match timeout(OPEN_TIMEOUT, stage.wait_for(|stage| *stage != Stage::Opening)).await {
                Ok(Ok(stage)) if *stage == Stage::Up => Ok(()),
                Ok(_) => Err("the session ended while it opened".to_owned()),
                Err(_) => Err(format!("no session within {OPEN_TIMEOUT:?}")),
            },
        };
        if result.is_err() {
            connection.hang_up();
            self.sessions.end(&connection, "could not be opened");
        }
        result
    }

    async fn ask(&self, address: &str, request: &[u8]) -> Introduced {
        // Whoever listens there: the address is all that is known of it.
        let (mut channel, there) = self.connect(address).await?;
        match handshake::dial(&mut channel, &self.keys, Purpose::Introduction, request).await {
            Ok(Answer::Done(reply)) => Ok((reply, there)),
            Ok(Answer::Unknown(detail) | Answer::Refused(detail)) => Err(format!("{address} refused: {detail}")),
            Err(error) => Err(format!("{address}: {error}")),
        }
    }
}

impl Wire for Arc<RactorWire> {
    fn dial(&self, me: NodeId, peer: Peer) -> BoxFuture<'static, Result<(), DialError>> {
        let wire = self.clone();
        Box::pin(async move { wire.open(me, peer).await })
    }

    fn introduce(&self, address: String, request: Bytes, _: Duration) -> BoxFuture<'static, Introduced> {
        let wire = self.clone();
        Box::pin(async move { wire.ask(&address, &request).await })
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        let wire = self.clone();
        Box::pin(async move {
            wire.halt();
            let _ = wire.gateway.stop_and_wait(None, Some(STOP_TIMEOUT)).await;
            let _ = wire.server.stop_and_wait(None, Some(STOP_TIMEOUT)).await;
        })
    }

    fn abandon(&self) {
        self.halt();
        self.gateway.stop(None);
        self.server.stop(None);
    }
}

impl RactorWire {
    fn halt(&self) {
        for task in std::mem::take(&mut *self.background.lock()) {
            task.abort();
        }
        self.lobby.clear();
        self.sessions.hang_up_all();
    }
}

#[cfg(test)]
impl RactorWire {
    pub(super) fn rejected(&self) -> u64 {
        self.rejected.load(std::sync::atomic::Ordering::Relaxed)
    }

    pub(super) fn unproven(&self) -> usize {
        self.lobby.len()
    }
}
