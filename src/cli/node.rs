//! `quorate node`: one node, from its configuration to its drain.
//!
//! ```text
//! config ─▶ data directory ─▶ ports ─▶ runtime ─▶ HTTP ─▶ … signal ─▶ stop accepting ─▶ hand over ─▶ exit 0
//!                                                          └ cannot go on ─▶ exit 1
//! ```
//!
//! Ports and directory are tried here first, because here it is known which key to blame.

use super::{Failure, args, config, output, serve, signals::Signals};
use crate::{
    Cluster, Config,
    cluster::StartError,
    config::Loaded,
    sabotage::{self, Sabotage},
    telemetry,
};
use std::{
    fs, io,
    net::{TcpListener, UdpSocket},
    path::Path,
    time::Duration,
};
use tokio::{sync::oneshot, task::JoinHandle};

/// Longest time that the shards may take to move away before the process ends anyway.
const HAND_OVER_MAX: Duration = Duration::from_secs(30);

pub(super) fn run(args: &args::Node) -> Result<(), Failure> {
    let Loaded { config, sources } = config::load(&args.settings)?;
    let broken = sabotage::chosen().map_err(Failure::usage)?;
    if config.node.seeds.is_empty() {
        return Err(Failure::usage(format!(
            "`node.seeds` ({}) is empty; name the cluster's seeds with --seeds A,B,C, or this node alone for a cluster of one: --seeds {}",
            sources.of("node.seeds"),
            config.node.advertised()
        )));
    }
    config.cluster.resolve_secret().map_err(Failure::usage)?;
    config.http.check_tokens().map_err(Failure::usage)?;
    // A second setup cannot be: this process runs one node.
    telemetry::init(&config.telemetry).map_err(|error| Failure::usage(error.to_string()))?;
    if cfg!(feature = "sabotage") {
        let broken = broken.map_or("none", Sabotage::name);
        tracing::warn!(broken, "SABOTAGE: this build breaks a promise when told to; never for use");
    }
    if config.http.tokens.is_empty() && config.node.serves_others() {
        tracing::warn!(http = config.node.http, "no `http.tokens`: whoever reaches this address may do everything");
    }
    usable_directory(&config.node.data_dir)?;
    let http = bind_http(&config)?;
    try_cluster_port(&config)?;
    let runtime = super::multi_threaded()?;
    let result = runtime.block_on(live(config, http, args));
    // What still blocks a thread after the drain must not hold up the exit.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

/// Starts, serves, and drains when told to; ends at once when the node cannot go on.
async fn live(config: Config, http: TcpListener, args: &args::Node) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    if args.drain_on_stdin_eof {
        signals = signals.and_stdin();
    }
    let cluster = tokio::select! {
        started = serve::start(config.clone(), args.allow_faults) => started.map_err(refused)?,
        why = signals.next() => {
            // Nothing to hand over yet.
            output::note(&format!("{why}: {} stops before it had started", config.node.name));
            return Ok(());
        }
    };
    let http = tokio::net::TcpListener::from_std(http)
        .map_err(|error| Failure::operation(format!("cannot serve HTTP: {error}")))?;
    let (stop, stopped) = oneshot::channel();
    let options = config.http.clone();
    let serving = cluster.clone();
    let served = tokio::spawn(async move {
        // An error means that the other end is gone, which is as good a reason to stop.
        serve::http(http, serving, &options, async { _ = stopped.await }).await
    });
    let why = tokio::select! {
        why = signals.next() => why,
        () = cluster.left() => "this node has left the cluster and its data directory is of no use any more",
        // Crash-only: what it cannot keep it must not serve, and the others take over as they do
        // from any dead node. There is nothing to drain that its peers do not have.
        broken = cluster.failed() => return Err(Failure::operation(broken)),
    };
    tracing::info!(node = %config.node.name, "{why}: draining");
    // An error would mean that nobody serves any more: then there is nothing to stop.
    _ = stop.send(());
    tokio::select! {
        drained = drain(&cluster, served) => drained,
        signal = signals.next() => Err(Failure::operation(format!(
            "{signal} again: stopped before the drain was over; nothing acknowledged is lost"
        ))),
    }
}

/// Requests in flight are answered first, while this node still can (`http.drain_timeout` bounds
/// that); then it hands its shards over.
async fn drain(cluster: &Cluster, served: JoinHandle<io::Result<()>>) -> Result<(), Failure> {
    let served = served.await.map_err(io::Error::other).flatten();
    if tokio::time::timeout(HAND_OVER_MAX, cluster.shutdown()).await.is_err() {
        return Err(Failure::operation(format!(
            "handing over took longer than {HAND_OVER_MAX:?}; stopped anyway, nothing acknowledged is lost"
        )));
    }
    served.map_err(|error| Failure::operation(format!("serving HTTP failed: {error}")))
}

fn refused(error: StartError) -> Failure {
    match error {
        StartError::Config(text) => Failure::usage(text),
        StartError::Failed(text) => Failure::operation(text),
    }
}

/// Creates the directory if need be, and writes to it.
fn usable_directory(dir: &Path) -> Result<(), Failure> {
    let probe = dir.join(".quorate-probe");
    let tried = fs::create_dir_all(dir).and_then(|()| fs::write(&probe, b"x")).and_then(|()| fs::remove_file(&probe));
    tried.map_err(|error| {
        Failure::operation(format!(
            "`node.data_dir` = {}: {error}; name a directory that this user may write to with --data-dir",
            dir.display()
        ))
    })
}

fn bind_http(config: &Config) -> Result<TcpListener, Failure> {
    let address = &config.node.http;
    let bound =
        TcpListener::bind(address.as_str()).and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
    bound.map_err(|error| Failure::operation(not_bound("node.http", "--http", address, "TCP", &error)))
}

/// Binds the cluster port, TCP and UDP, and lets go of it again: the runtime binds it itself.
fn try_cluster_port(config: &Config) -> Result<(), Failure> {
    let address = &config.node.listen;
    let blame = |protocol: &str, error: &io::Error| {
        Failure::operation(not_bound("node.listen", "--listen", address, protocol, error))
    };
    TcpListener::bind(address.as_str()).map_err(|error| blame("TCP", &error))?;
    UdpSocket::bind(address.as_str()).map_err(|error| blame("UDP", &error))?;
    Ok(())
}

fn not_bound(key: &str, flag: &str, address: &str, protocol: &str, error: &io::Error) -> String {
    let port = address.rsplit(':').next().unwrap_or_default();
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "`{key}` = {address}: port {port} ({protocol}) is taken, perhaps by another node; choose another with {flag}, or see who has it: `ss -lnp | grep {port}`"
        ),
        io::ErrorKind::PermissionDenied => {
            format!(
                "`{key}` = {address}: this user may not listen on port {port} ({protocol}); choose one above 1023 with {flag}"
            )
        }
        io::ErrorKind::AddrNotAvailable => {
            format!(
                "`{key}` = {address}: no interface of this machine has that address; choose one with {flag} (0.0.0.0 for all)"
            )
        }
        _ => format!("`{key}` = {address}: {error} ({protocol}); choose another address with {flag}"),
    }
}
