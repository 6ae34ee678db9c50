//! Packets over UDP, to addresses or to names.

use super::Datagrams;
use crate::telemetry::Limited;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::net::UdpSocket;

/// The most names whose addresses are kept; when they are reached, all are looked up anew.
const NAMES_MAX: usize = 1024;
/// The most addresses taken of one name.
const ADDRESSES_MAX: usize = 16;
/// The most lookups under way; packets that would need a further one are dropped.
const LOOKUPS_MAX: usize = 32;
/// How long an address found is used before the name is looked up again.
const FRESH_FOR: Duration = Duration::from_secs(30);
/// The pause after a failed receive, so that a broken socket does not spin.
const ERROR_PAUSE: Duration = Duration::from_millis(50);

static RECEIVE_FAILED: Limited = Limited::new();
static LOOKUP_FAILED: Limited = Limited::new();

/// A bound UDP socket. Names are resolved in the background: a packet to a name not known yet
/// goes out when the answer is there.
pub struct Udp {
    inner: Arc<Inner>,
}

struct Inner {
    /// For waiting.
    socket: UdpSocket,
    /// The same socket past tokio's bookkeeping: it knows what has arrived even when the reactor
    /// has not looked yet, because the process stood still.
    raw: std::net::UdpSocket,
    is_ipv4: bool,
    names: Mutex<HashMap<String, Name>>,
    lookups: AtomicUsize,
    receive_failed: AtomicBool,
}

struct Name {
    first: SocketAddr,
    found_at: Instant,
}

impl Udp {
    /// Must be called inside a tokio runtime.
    pub fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let raw = socket.try_clone()?;
        let is_ipv4 = socket.local_addr()?.is_ipv4();
        let inner = Inner {
            socket: UdpSocket::from_std(socket)?,
            raw,
            is_ipv4,
            names: Mutex::default(),
            lookups: AtomicUsize::new(0),
            receive_failed: AtomicBool::new(false),
        };
        Ok(Self { inner: Arc::new(inner) })
    }
}

impl Datagrams for Udp {
    fn send(&self, address: &str, packet: Vec<u8>) {
        if let Ok(address) = address.parse() {
            return self.inner.send(address, &packet);
        }
        let known = self.inner.names.lock().get(address).map(|name| (name.first, name.found_at));
        match known {
            Some((first, found_at)) => {
                self.inner.send(first, &packet);
                if found_at.elapsed() > FRESH_FOR {
                    self.inner.look_up(address, Vec::new(), false);
                }
            }
            None => self.inner.look_up(address, packet, false),
        }
    }

    fn send_to_all(&self, name: &str, packet: Vec<u8>) {
        match name.parse() {
            Ok(address) => self.inner.send(address, &packet),
            Err(_) => self.inner.look_up(name, packet, true),
        }
    }

    fn readable(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            if self.inner.receive_failed.swap(false, Ordering::Relaxed) {
                tokio::time::sleep(ERROR_PAUSE).await;
            }
            if self.inner.socket.readable().await.is_err() {
                tokio::time::sleep(ERROR_PAUSE).await;
            }
        })
    }

    fn try_receive(&self, buffer: &mut [u8]) -> Option<usize> {
        let received = self.inner.socket.try_recv_from(buffer);
        let received = match received {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.inner.raw.recv_from(buffer),
            other => other,
        };
        match received {
            Ok((length, _)) => Some(length),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => {
                self.inner.receive_failed.store(true, Ordering::Relaxed);
                if let Some(left_out) = RECEIVE_FAILED.admit() {
                    tracing::warn!(%error, left_out, "receiving gossip failed");
                }
                None
            }
        }
    }
}

impl Inner {
    /// Errors are losses, and the protocol above lives with those.
    fn send(&self, to: SocketAddr, packet: &[u8]) {
        if let (Some(to), false) = (self.fitting(to), packet.is_empty()) {
            let _ = self.raw.send_to(packet, to);
        }
    }

    /// The address in the family of this socket, if it has one there.
    fn fitting(&self, address: SocketAddr) -> Option<SocketAddr> {
        match (self.is_ipv4, address.ip()) {
            (true, IpAddr::V6(_)) => None,
            (false, IpAddr::V4(ip)) => Some(SocketAddr::new(ip.to_ipv6_mapped().into(), address.port())),
            _ => Some(address),
        }
    }

    /// Resolves a name in the background, then sends the packet (unless it is empty).
    fn look_up(self: &Arc<Self>, name: &str, packet: Vec<u8>, to_all: bool) {
        if self.lookups.fetch_add(1, Ordering::Relaxed) >= LOOKUPS_MAX {
            self.lookups.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let (inner, name) = (self.clone(), name.to_owned());
        tokio::spawn(async move {
            let found = inner.resolve(&name).await;
            inner.lookups.fetch_sub(1, Ordering::Relaxed);
            let wanted = if to_all { ADDRESSES_MAX } else { 1 };
            for address in found.into_iter().take(wanted) {
                inner.send(address, &packet);
            }
        });
    }

    async fn resolve(&self, name: &str) -> Vec<SocketAddr> {
        let found: Vec<SocketAddr> = match tokio::net::lookup_host(name).await {
            Ok(found) => found.filter(|address| self.fitting(*address).is_some()).take(ADDRESSES_MAX).collect(),
            Err(error) => {
                if let Some(left_out) = LOOKUP_FAILED.admit() {
                    tracing::warn!(name, %error, left_out, "no address for a gossip peer");
                }
                return Vec::new();
            }
        };
        if let Some(first) = found.first().copied() {
            let mut names = self.names.lock();
            if names.len() >= NAMES_MAX && !names.contains_key(name) {
                names.clear();
            }
            names.insert(name.to_owned(), Name { first, found_at: Instant::now() });
        }
        found
    }
}
