//! Proxies between the nodes: everything that they send to each other passes here.
//!
//! ```text
//! n1 ── 127.0.1.1 ─▶ 127.0.2.2 (proxy of n2) ─▶ 127.0.1.2 ── n2
//!        the source names the sender ┘   └ the address names the receiver
//! ```
//!
//! For each direction of each pair a [`Condition`] says what happens to what passes. Datagrams are
//! lost, doubled, delayed and overtaken for real. Of a TCP stream nothing can be lost or overtaken
//! that its ends would notice: loss is the delay of a retransmission, a cut is silence until it is
//! healed (and then everything arrives, as it does when packets are sent again), and a reset ends
//! the connection. It needs no privileges.
//!
//! Invariant: whatever the nodes do, memory is bounded ([`tcp::CONNECTIONS_MAX`],
//! [`udp::DELAYED_MAX`]); past the bounds connections are refused and datagrams dropped.

mod condition;
mod tcp;
mod udp;

pub use condition::{Change, Condition};

use super::Place;
use condition::{Line, Matrix};
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

/// The proxies of all nodes. They end when this is dropped.
pub struct Proxies {
    matrix: watch::Sender<Matrix>,
    changes: Mutex<BTreeMap<u64, Change>>,
    _proxies: JoinSet<()>,
}

impl Proxies {
    /// Listens in place of every node. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// An address that cannot be listened on.
    pub async fn start(places: &[Place], seed: u64) -> io::Result<Self> {
        let matrix = watch::Sender::new(Matrix::new(places.len()));
        let mut proxies = JoinSet::new();
        for (to, place) in places.iter().enumerate() {
            let lines = Lines { places: places.to_vec(), to, matrix: matrix.subscribe(), seed };
            let listener = TcpListener::bind(SocketAddr::V4(place.proxied)).await?;
            let socket = tokio::net::UdpSocket::bind(SocketAddr::V4(place.proxied)).await?;
            proxies.spawn(tcp::run(listener, lines.clone()));
            proxies.spawn(udp::run(socket, lines));
        }
        Ok(Self { matrix, changes: Mutex::default(), _proxies: proxies })
    }

    /// From now on, until [`Proxies::restore`] with the same number.
    pub fn apply(&self, number: u64, change: Change) {
        let mut changes = self.changes.lock();
        changes.insert(number, change);
        self.matrix.send_modify(|matrix| matrix.recompute(changes.values()));
    }

    pub fn restore(&self, number: u64) {
        let mut changes = self.changes.lock();
        changes.remove(&number);
        self.matrix.send_modify(|matrix| matrix.recompute(changes.values()));
    }

    pub fn restore_all(&self) {
        let mut changes = self.changes.lock();
        changes.clear();
        self.matrix.send_modify(|matrix| matrix.recompute(changes.values()));
    }

    /// Ends every connection from or to a node (counted from 1), with a reset.
    pub fn reset(&self, node: u16) {
        self.matrix.send_modify(|matrix| matrix.reset(usize::from(node) - 1));
    }
}

/// The lines that end at one node.
#[derive(Clone)]
struct Lines {
    places: Vec<Place>,
    /// The index of the node at their end.
    to: usize,
    matrix: watch::Receiver<Matrix>,
    seed: u64,
}

impl Lines {
    /// The index of the node that has this address, unless it is the receiver itself.
    fn sender(&self, ip: IpAddr) -> Option<usize> {
        self.places.iter().position(|place| IpAddr::V4(*place.listen.ip()) == ip).filter(|from| *from != self.to)
    }

    fn line(&self, from: usize, to: usize) -> Line {
        Line::new(from, to, self.matrix.clone(), self.seed)
    }

    fn target(&self) -> SocketAddr {
        SocketAddr::V4(self.places[self.to].listen)
    }
}

#[cfg(test)]
mod tests;
