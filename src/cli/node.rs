//! `quorate node`: one node, from its configuration to its drain.
//!
//! ```text
//! config ─▶ data directory ─▶ ports ─▶ runtime ─▶ HTTP ─▶ … signal ─▶ stop accepting ─▶ hand over ─▶ exit 0
//! ```
//!
//! Ports and directory are tried here first, because here it is known which key to blame.

use super::{Failure, args, config, output, serve, signals::Signals};
use crate::{Cluster, Config, cluster::StartError, config::Loaded};
use std::{
    fs, io,
    net::{TcpListener, UdpSocket},
    path::Path,
    time::Duration,
};
use tokio::sync::watch;

/// Longest time that a drain may take before the process ends anyway.
const DRAIN_MAX: Duration = Duration::from_secs(30);

pub(super) fn run(args: &args::Node) -> Result<(), Failure> {
    let Loaded { config, sources } = config::load(&args.settings)?;
    if config.node.seeds.is_empty() {
        return Err(Failure::usage(format!(
            "`node.seeds` ({}) is empty; name the cluster's seeds with --seeds A,B,C, or this node alone for a cluster of one: --seeds {}",
            sources.of("node.seeds"),
            config.node.advertised()
        )));
    }
    config.cluster.resolve_secret().map_err(Failure::usage)?;
    usable_directory(&config.node.data_dir)?;
    let http = bind_http(&config)?;
    try_cluster_port(&config)?;
    let runtime = super::multi_threaded()?;
    let result = runtime.block_on(live(config, http, args.drain_on_stdin_eof));
    // What still blocks a thread after the drain must not hold up the exit.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

/// Starts, serves, and drains when told to.
async fn live(config: Config, http: TcpListener, drain_on_stdin_eof: bool) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    if drain_on_stdin_eof {
        signals = signals.and_stdin();
    }
    let cluster = tokio::select! {
        started = serve::start(config.clone()) => started.map_err(refused)?,
        why = signals.next() => return Ok(stopped_early(&config, why)),
    };
    let http = tokio::net::TcpListener::from_std(http)
        .map_err(|error| Failure::operation(format!("cannot serve HTTP: {error}")))?;
    let (stop, stopping) = watch::channel(false);
    let served = tokio::spawn(serve_until(http, cluster.clone(), stopping));
    let why = signals.next().await;
    tracing::info!(node = %config.node.name, "{why}: draining");
    // An error would mean that nobody serves any more: then there is nothing to stop.
    let _ = stop.send(true);
    tokio::select! {
        drained = tokio::time::timeout(DRAIN_MAX, drain(cluster, served)) => {
            drained.map_err(|_| Failure::operation(format!("the drain took longer than {DRAIN_MAX:?}; stopped anyway, nothing acknowledged is lost")))?
        }
        signal = signals.next() => {
            output::note(&format!("{signal} again: stopping at once"));
            Err(Failure::operation("stopped before the drain was over; nothing acknowledged is lost"))
        }
    }
}

async fn serve_until(
    listener: tokio::net::TcpListener,
    cluster: Cluster,
    mut stopping: watch::Receiver<bool>,
) -> io::Result<()> {
    let shutdown = async move {
        // An error means that the sender is gone, which is as good a reason to stop.
        let _ = stopping.wait_for(|stop| *stop).await;
    };
    serve::http(listener, &cluster, shutdown).await
}

/// Leadership moves away while the last requests are answered.
async fn drain(cluster: Cluster, served: tokio::task::JoinHandle<io::Result<()>>) -> Result<(), Failure> {
    cluster.shutdown().await;
    match served.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Failure::operation(format!("serving HTTP failed: {error}"))),
        Err(error) => Err(Failure::operation(format!("serving HTTP failed: {error}"))),
    }
}

/// A signal before the node was up: nothing to hand over.
fn stopped_early(config: &Config, why: &str) {
    output::note(&format!("{why}: {} stops before it had started", config.node.name));
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
