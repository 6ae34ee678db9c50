//! Starting gossip, and what its owner holds.

use super::{
    Datagrams, Engine, Load, LocalRecord, Options, RECORD_BYTES_MAX, Udp, View,
    driver::{Driver, Ending, Shared},
    seal::Seal,
};
use crate::{catalog::ClusterId, impairment::Impairments};
use std::{
    io,
    net::UdpSocket,
    sync::{Arc, atomic::Ordering},
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::sync::watch;

/// Why gossip could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Options(String),
    #[error("the cluster secret is empty")]
    NoSecret,
    #[error("the name and addresses of this node take {bytes} bytes of gossip; the limit is {RECORD_BYTES_MAX}")]
    RecordTooLarge { bytes: usize },
    #[error("the record of this node cannot be encoded: {0}")]
    Record(String),
    #[error("the system gives no random numbers or no keys")]
    Cryptography,
    #[error("the gossip socket: {0}")]
    Socket(#[from] io::Error),
    #[error("gossip must be started inside a tokio runtime")]
    NoRuntime,
}

/// A node's running gossip. Dropping it stops the gossip without a farewell, as [`Membership::stop`].
pub struct Membership {
    shared: Arc<Shared>,
    view: watch::Receiver<View>,
}

/// Starts gossip on a bound UDP socket; `impairments` is what is done to its packets on purpose. Must be
/// called inside a tokio runtime.
///
/// `seeds` are `host:port`; names are resolved again at every call. Naming the node itself among
/// them does no harm.
pub fn start(
    options: &Options,
    me: LocalRecord,
    cluster: ClusterId,
    secret: &[u8],
    socket: UdpSocket,
    seeds: Vec<String>,
    impairments: Impairments,
) -> Result<Membership, Error> {
    runtime()?;
    run(options, me, cluster, secret, Arc::new(Udp::new(socket)?), seeds, impairments)
}

/// As [`start`], over any packet service, for instance [`super::memory::Network`].
pub fn start_with(
    options: &Options,
    me: LocalRecord,
    cluster: ClusterId,
    secret: &[u8],
    datagrams: Arc<dyn Datagrams>,
    seeds: Vec<String>,
) -> Result<Membership, Error> {
    run(options, me, cluster, secret, datagrams, seeds, Impairments::none())
}

fn run(
    options: &Options,
    me: LocalRecord,
    cluster: ClusterId,
    secret: &[u8],
    datagrams: Arc<dyn Datagrams>,
    seeds: Vec<String>,
    impairments: Impairments,
) -> Result<Membership, Error> {
    let runtime = runtime()?;
    let seal = Seal::new(secret, cluster)?;
    let engine = Engine::new(options, me, seeds, unix_ms(), rand::random())?;
    let shared = Arc::new(Shared::default());
    let (sender, view) = watch::channel(View::new());
    let driver = Driver::new(engine, seal, datagrams, shared.clone(), sender, impairments);
    runtime.spawn(driver.run());
    Ok(Membership { shared, view })
}

impl Membership {
    /// The other members, and every change among them. Closes when gossip has ended.
    pub fn view(&self) -> watch::Receiver<View> {
        self.view.clone()
    }

    /// Sets the load figures of this node; the last ones are sent round every `load_period`.
    pub fn update_load(&self, load: Load) {
        self.shared.inbox.lock().load = Some(load);
        self.shared.wake.notify_one();
    }

    /// Adds addresses (`host:port`) to call while they are not members, beside the seeds. The
    /// last 256 are kept.
    pub fn remember(&self, addresses: impl IntoIterator<Item = String>) {
        self.shared.inbox.lock().remember(addresses);
        self.shared.wake.notify_one();
    }

    /// Packets thrown away unanswered so far: not of this cluster, tampered with, replayed.
    pub fn rejected(&self) -> u64 {
        self.shared.rejected.load(Ordering::Relaxed)
    }

    /// Tells the others that this node goes, then stops.
    pub async fn leave(&self) {
        self.end(Ending::Leave).await;
    }

    /// Stops without a word: to the others it looks like a crash.
    pub async fn stop(&self) {
        self.end(Ending::Stop).await;
    }

    async fn end(&self, ending: Ending) {
        self.shared.end(ending);
        let mut view = self.view.clone();
        // The driver holds the sender: changes end when the driver has.
        while view.changed().await.is_ok() {}
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.shared.end(Ending::Stop);
    }
}

fn runtime() -> Result<tokio::runtime::Handle, Error> {
    tokio::runtime::Handle::try_current().map_err(|_| Error::NoRuntime)
}

/// The generation of a node that starts now.
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
