//! The connections that were handed to `ractor_cluster`, from handing over to their end.
//!
//! A connection is found three ways: by its link id (ours), by the label its stream carries
//! (which `ractor_cluster` shows when it opens a session for it), and by that session's actor id.
//!
//! Invariant: a session that carries no label of ours came in through `ractor_cluster`'s own
//! loopback listener, where nobody has business, and is stopped at once.

use super::{
    super::{
        links::Links,
        wire::{Line, LinkId},
    },
    gateway::Batch,
    stream::Socket,
};
use crate::catalog::NodeId;
use parking_lot::Mutex;
use ractor::{ActorId, ActorRef};
use ractor_cluster::{NodeEventSubscription, NodeSessionMessage, node::NodeServerSessionInformation};
use std::{
    collections::HashMap,
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};
use tokio::sync::watch;

const LABEL: &str = "quorate-link-";
/// How long the end of a former session is waited for before the next one starts.
const RETIRE_TIMEOUT: Duration = Duration::from_secs(1);

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Opening,
    Up,
    Down,
}

/// One connection.
pub(super) struct Connection {
    pub id: LinkId,
    pub peer: NodeId,
    pub peer_name: String,
    pub boot_id: u64,
    pub socket: Socket,
    pub stage: watch::Sender<Stage>,
    session: OnceLock<ActorRef<NodeSessionMessage>>,
    gateway: OnceLock<ActorRef<Batch>>,
}

#[derive(Default)]
struct Table {
    links: HashMap<LinkId, Arc<Connection>>,
    sessions: HashMap<ActorId, Arc<Connection>>,
}

pub(super) struct Sessions {
    links: Weak<Links>,
    table: Mutex<Table>,
}

impl Connection {
    pub fn new(id: LinkId, peer: NodeId, peer_name: String, boot_id: u64, socket: Socket) -> Arc<Self> {
        let stage = watch::Sender::new(Stage::Opening);
        Arc::new(Self {
            id,
            peer,
            peer_name,
            boot_id,
            socket,
            stage,
            session: OnceLock::new(),
            gateway: OnceLock::new(),
        })
    }

    /// The label of its stream.
    pub fn label(&self) -> String {
        format!("{LABEL}{:016x}", self.id.0)
    }

    async fn ended(&self) {
        let _ = self.stage.subscribe().wait_for(|stage| *stage == Stage::Down).await;
    }
}

impl Line for Connection {
    fn send(&self, batch: Vec<u8>) -> bool {
        self.gateway.get().is_some_and(|gateway| gateway.cast(Batch(batch)).is_ok())
    }

    fn hang_up(&self) {
        // the socket first: it unblocks whatever reads or writes it, even if the peer is frozen
        self.socket.shut_down();
        if let Some(session) = self.session.get() {
            session.stop(Some("hung up".to_owned()));
        }
    }
}

impl Sessions {
    pub fn new(links: Weak<Links>) -> Arc<Self> {
        Arc::new(Self { links, table: Mutex::default() })
    }

    /// Registers a connection that is about to be handed over. False if its id is taken.
    pub fn register(&self, connection: &Arc<Connection>) -> bool {
        let mut table = self.table.lock();
        if table.links.contains_key(&connection.id) {
            return false;
        }
        table.links.insert(connection.id, connection.clone());
        true
    }

    /// Ends the former sessions with `peer` and waits until `ractor_cluster` has noticed; it
    /// could otherwise elect one of them instead of the next.
    pub async fn retire(&self, peer: NodeId) {
        let former: Vec<_> =
            self.table.lock().links.values().filter(|connection| connection.peer == peer).cloned().collect();
        for connection in former {
            connection.hang_up();
            if connection.session.get().is_none() {
                self.end(&connection, "never became a session");
            } else if tokio::time::timeout(RETIRE_TIMEOUT, connection.ended()).await.is_err() {
                tracing::warn!(node = %peer, "a former session does not end");
                self.end(&connection, "does not end");
            }
        }
    }

    /// A remote gateway showed up in `group` over a session: its connection is complete.
    pub fn joined(&self, session: ActorId, group: &str, gateway: ActorRef<Batch>) {
        let connection = self.table.lock().sessions.get(&session).cloned();
        let Some(connection) = connection else { return };
        if connection.peer_name != group || connection.gateway.set(gateway).is_err() {
            return;
        }
        let Some(links) = self.links.upgrade() else { return };
        if !links.link_up(connection.id, connection.peer, connection.boot_id, connection.clone()) {
            return connection.hang_up();
        }
        let went_down = !connection.stage.send_if_modified(|stage| {
            let opening = *stage == Stage::Opening;
            if opening {
                *stage = Stage::Up;
            }
            opening
        });
        if went_down {
            links.link_down(connection.id, "the session ended while it opened");
        }
    }

    /// A connection is over, for whatever reason.
    pub fn end(&self, connection: &Connection, reason: &str) {
        {
            let mut table = self.table.lock();
            table.links.remove(&connection.id);
            if let Some(session) = connection.session.get() {
                table.sessions.remove(&session.get_id());
            }
        }
        connection.socket.shut_down();
        connection.stage.send_replace(Stage::Down);
        if let Some(links) = self.links.upgrade() {
            links.link_down(connection.id, reason);
        }
    }

    /// Hangs up every connection.
    pub fn hang_up_all(&self) {
        let all: Vec<_> = self.table.lock().links.values().cloned().collect();
        for connection in all {
            connection.hang_up();
        }
    }

    fn opened(&self, session: &NodeServerSessionInformation) -> bool {
        let id = session.peer_addr.strip_prefix(LABEL).and_then(|hex| u64::from_str_radix(hex, 16).ok());
        let mut table = self.table.lock();
        let Some(connection) = id.and_then(|id| table.links.get(&LinkId(id)).cloned()) else { return false };
        if connection.session.set(session.actor.clone()).is_err() {
            return false;
        }
        table.sessions.insert(session.actor.get_id(), connection);
        true
    }
}

/// Lets `ractor_cluster`'s node server tell of its sessions.
pub(super) struct Subscription(pub Arc<Sessions>);

impl NodeEventSubscription for Subscription {
    fn node_session_opened(&self, session: NodeServerSessionInformation) {
        if !self.0.opened(&session) {
            tracing::warn!(peer = session.peer_addr, "stopped a session that is none of ours");
            session.actor.stop(Some("not ours".to_owned()));
        }
    }

    fn node_session_disconnected(&self, session: NodeServerSessionInformation) {
        let connection = self.0.table.lock().sessions.get(&session.actor.get_id()).cloned();
        if let Some(connection) = connection {
            self.0.end(&connection, "the connection closed");
        }
    }

    fn node_session_authenticated(&self, _: NodeServerSessionInformation) {}
}
