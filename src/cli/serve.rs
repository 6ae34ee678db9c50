//! Where the command line touches the runtime: starting a node and serving its HTTP interface.

use crate::{Cluster, Config, cluster::StartError, ingress};
use std::{future::Future, io};
use tokio::net::TcpListener;

/// Starts a node with the shop and its payment gateway on it.
pub(super) async fn start(config: Config, allow_faults: bool) -> Result<Cluster, StartError> {
    let (gateway, outbound) = (config.gateway.clone(), config.outbound.clone());
    let builder = ingress::shop::register_configured(Cluster::builder(config), &gateway, &outbound);
    let mut builder = builder.map_err(|invalid| StartError::Config(invalid.to_string()))?;
    if allow_faults {
        tracing::warn!("this node was started with --allow-faults: whoever reaches its HTTP interface can break it");
        builder = builder.allow_faults();
    }
    builder.start().await
}

/// Serves until `shutdown`, then finishes the requests in flight.
pub(super) async fn http(
    listener: TcpListener,
    cluster: Cluster,
    options: &ingress::Options,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    ingress::serve(listener, ingress::router(cluster, options), options, shutdown).await
}
