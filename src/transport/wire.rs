//! What [`super::links::Links`] needs of a wire, and what a wire tells of a peer that says hello.

use super::{Introduced, Peer};
use crate::catalog::NodeId;
use bytes::Bytes;
use futures::future::BoxFuture;
use std::time::Duration;

/// Names one connection between two nodes; random, chosen by the side that dials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct LinkId(pub u64);

/// Opens connections. What comes in goes to the `Links` the wire was made for.
pub(super) trait Wire: Send + Sync + 'static {
    /// Opens a link; resolves once it is up (`Links::link_up` was called) or has failed.
    fn dial(&self, me: NodeId, peer: Peer) -> BoxFuture<'static, Result<(), DialError>>;

    /// See [`super::Transport::introduce`].
    fn introduce(&self, address: String, request: Bytes, timeout: Duration) -> BoxFuture<'static, Introduced>;

    /// Closes every connection and stops listening.
    fn close(&self) -> BoxFuture<'static, ()>;

    /// As `close`, without waiting: the links were dropped.
    fn abandon(&self);
}

/// One side of an open connection.
pub(super) trait Line: Send + Sync + 'static {
    /// Hands over one batch without blocking; false if the connection is gone.
    /// The link's credit window bounds what can pile up below.
    fn send(&self, batch: Vec<u8>) -> bool;

    /// Closes the connection at once. `Links::link_down` may follow.
    fn hang_up(&self);
}

/// How the side that dials presents itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hello {
    pub link: LinkId,
    pub from: NodeId,
    pub from_name: String,
    pub boot_id: u64,
    /// Whom it wants to reach: a node that was given another's address must not answer.
    pub to: NodeId,
    pub to_name: String,
}

/// Why a link could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum DialError {
    /// The peer does not know this node yet (its roster lags): try again soon.
    #[error("{address} does not know this node yet: {detail}")]
    Unknown { address: String, detail: String },
    #[error("{0}")]
    Failed(String),
}
