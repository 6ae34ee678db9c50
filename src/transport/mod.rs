//! Node links: bounded request/reply between the nodes of a cluster.
//!
//! Above: `Links`, the same for every wire: per peer a bounded queue drained into casts of at
//! most 64 KiB, correlation ids, deadlines, explicit errors, a credit window, heartbeats. Below:
//! a wire, which carries batches of bytes to a peer: `ractor_cluster` over TCP in production, a
//! channel in memory for many nodes in one process. This module knows nothing of Raft or entities.

mod dialer;
mod frame;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod impaired;
mod link;
mod links;
mod log_limit;
pub mod memory;
mod options;
mod outbox;
mod ractor_wire;
mod slot;
#[cfg(test)]
mod tests;
pub mod tls;
mod wire;

use crate::{catalog::NodeId, impairment::Impairments};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

pub use options::{BATCH_BYTES_MAX, FRAME_BYTES_MAX, INTRODUCTION_BYTES_MAX, Identity, Options};
pub use ractor_wire::StartError;
pub use tls::Counterpart;

/// Starts node links over TCP on `listener`, which the caller has bound. Peers come later, with
/// [`Transport::set_peers`]; introductions are answered from the start. `impairments` is what is done to them
/// on purpose.
///
/// One per process in production, because the registries of `ractor_cluster` belong to the
/// process; tests run several, with names that differ. Call [`Transport::close`] in the end.
///
/// # Errors
/// Options that contradict each other, a name or secret that cannot be used, and failures of
/// `ractor` to start an actor.
pub async fn start(
    options: &Options,
    identity: Identity,
    listener: tokio::net::TcpListener,
    handler: Arc<dyn Handler>,
    impairments: Impairments,
) -> Result<Arc<dyn Transport>, StartError> {
    let (links, _) = ractor_wire::start(options, identity, listener, handler, impairments).await?;
    Ok(Arc::new(links))
}

/// What a request is for; decides what happens when a peer's credit window is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Class {
    /// Raft traffic: dropped at once past the window (Raft sends again by itself).
    Raft,
    /// Commands, queries and the like: refused with [`Error::Overloaded`] past the window.
    Command,
}

/// A node to keep a link with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub node: NodeId,
    pub name: String,
    /// `host:port` of the cluster port.
    pub address: String,
}

/// What is known of the link with a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkState {
    pub up: bool,
    /// Random number of the peer's process; another one means that it restarted.
    pub boot_id: u64,
}

/// The current state of every link.
pub type LinkView = BTreeMap<NodeId, LinkState>;

/// Whether there is a link with a peer, and it is up.
pub fn is_up(links: &LinkView, peer: NodeId) -> bool {
    links.get(&peer).is_some_and(|link| link.up)
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing was sent: the request certainly did not arrive.
    #[error("no link to node {0}")]
    NotConnected(NodeId),
    /// A bound was reached, here or at the peer: the request certainly was not handled.
    #[error("the link to node {0} is overloaded")]
    Overloaded(NodeId),
    /// The request may or may not have been handled.
    #[error("node {0} did not answer in time")]
    TimedOut(NodeId),
    /// The request may or may not have been handled.
    #[error("the link to node {0} broke")]
    Broken(NodeId),
    /// The peer answered with an error instead of a reply.
    #[error("node {node} refused: {detail}")]
    Refused { node: NodeId, detail: String },
}

/// The reply to an introduction, and whom the one that gave it may claim to be; or why there is none.
pub type Introduced = Result<(Bytes, Counterpart), String>;

/// Answers what peers ask. One per node.
pub trait Handler: Send + Sync + 'static {
    /// Answers a request that came over a link. `Err` reaches the caller as [`Error::Refused`].
    fn handle(&self, from: NodeId, class: Class, request: Bytes) -> BoxFuture<'static, Result<Bytes, String>>;

    /// Answers an introduction: a one-shot request by address, from a node that may not belong to
    /// this cluster (yet). At most 64 KiB each way. A name that it goes by is checked by [`Counterpart::check`].
    fn introduce(&self, caller: Counterpart, request: Bytes) -> BoxFuture<'static, Result<Bytes, String>>;
}

/// The links of one node. Cloneable by `Arc`.
///
/// Implemented by `links::Links` (over any wire). See [`start`] and [`memory::Network`].
pub trait Transport: Send + Sync + 'static {
    /// Sends a request and waits for the reply, at most `timeout`. Both have at most
    /// [`FRAME_BYTES_MAX`] bytes; a longer one ends in [`Error::Refused`]. The request is sent
    /// when the future is first polled; dropping it gives the reply up.
    fn request(
        &self,
        to: NodeId,
        class: Class,
        request: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, Error>>;

    /// Asks whoever listens at `address` (`host:port`), without a link. Used to bootstrap and join.
    fn introduce(&self, address: String, request: Bytes, timeout: Duration) -> BoxFuture<'static, Introduced>;

    /// The peers to keep links with, without this node itself; replaces the former list.
    fn set_peers(&self, me: NodeId, peers: Vec<Peer>);

    /// Link states, and every change of them.
    fn links(&self) -> tokio::sync::watch::Receiver<LinkView>;

    /// Sends what is queued, waits until peers acknowledged it (at most `timeout`), closes.
    fn close(&self, timeout: Duration) -> BoxFuture<'static, ()>;
}
