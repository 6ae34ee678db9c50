//! Mutual TLS on node links: each side shows a certificate of the cluster's own authority, which
//! names the node that it is for.
//!
//! ```text
//! quorate certs ─▶ Authority ─▶ PEM files ─▶ Loaded (rustls) ─┬─ connect ─▶ Channel + Counterpart
//!                                              ▲ read again    └─ accept ──▶ Channel + Counterpart
//!                                              └ when a file has changed
//! ```
//!
//! Invariants: TLS 1.3 only, no resumption: every connection shows its certificate anew. Both sides
//! have one, or there is no connection. Whether the name in it is the one that is claimed is for
//! whoever hears the claim ([`Counterpart::may_be`]). The proof of the cluster secret comes on top.

mod authority;
mod counterpart;
mod failure;
mod files;
#[cfg(test)]
pub(super) mod tests;
mod trust;

use files::{Loaded, Stamp};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::{fmt, io, path::PathBuf, sync::Arc, time::Duration};
use tokio::{net::TcpStream, time::Instant};
use tokio_rustls::{
    TlsAcceptor, TlsConnector, TlsStream,
    rustls::{self, pki_types::ServerName},
};

pub use authority::{Authority, Issued};
pub use counterpart::Counterpart;
pub use failure::Failure;

/// Between two looks at the files.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
const END_IS_NEAR: Duration = Duration::from_secs(30 * 24 * 60 * 60);
const WARN_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// Where this node's certificate is. All three, or none: then links are not encrypted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// PEM file with the certificate of the cluster's authority. Several may stand in it, to change from one to another.
    pub ca_file: Option<PathBuf>,
    /// PEM file with this node's certificate. Read again when it has changed.
    pub certificate_file: Option<PathBuf>,
    /// PEM file with the private key of that certificate.
    pub key_file: Option<PathBuf>,
}

impl Options {
    /// The three files, or nothing at all.
    pub fn validate(&self) -> Result<(), String> {
        let all =
            [("ca_file", &self.ca_file), ("certificate_file", &self.certificate_file), ("key_file", &self.key_file)];
        let given = all.iter().find(|(_, file)| file.is_some());
        let missing = all.iter().find(|(_, file)| file.is_none());
        match (given, missing) {
            (Some((given, _)), Some((missing, _))) => {
                Err(format!("{given} is set and {missing} is not: all three, or none"))
            }
            _ => Ok(()),
        }
    }
}

/// This node's certificate, and whom it trusts. Cloneable by `Arc`.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

struct Inner {
    files: files::Files,
    name: String,
    current: Mutex<Arc<Loaded>>,
    looked: Mutex<Looked>,
}

/// What the last look at the files came to.
struct Looked {
    stamp: Stamp,
    /// Why they could not be used. What is wrong may be mended without a trace in the stamp.
    failed: Option<String>,
}

impl Tls {
    /// Reads the files for the node `name`; `None` where none are set.
    ///
    /// # Errors
    /// One line for the operator: a file that cannot be read, a key of another certificate, a
    /// certificate of another authority, of another node, or out of date.
    pub fn open(options: &Options, name: &str) -> Result<Option<Self>, String> {
        options.validate().map_err(|error| format!("transport.tls: {error}"))?;
        let (Some(ca), Some(certificate), Some(key)) = (&options.ca_file, &options.certificate_file, &options.key_file)
        else {
            return Ok(None);
        };
        let files = files::Files { ca: ca.clone(), certificate: certificate.clone(), key: key.clone() };
        // Before what is read: files that change meanwhile are read again.
        let looked = Mutex::new(Looked { stamp: files.stamp(), failed: None });
        let current = Mutex::new(Arc::new(files.load(name)?));
        Ok(Some(Self(Arc::new(Inner { files, name: name.to_owned(), current, looked }))))
    }

    /// Looks after the files, until this future is dropped: new ones are used from the next connection on, and
    /// an end that comes near is said in time.
    pub(super) async fn watch(self) {
        let mut tick = tokio::time::interval(LOOK_INTERVAL);
        let mut warned: Option<Instant> = None;
        loop {
            tick.tick().await;
            let this = self.clone();
            // A disk that hangs must hold up nobody but this.
            if let Err(error) = tokio::task::spawn_blocking(move || this.reload()).await {
                tracing::error!("looking at the certificates failed: {error}");
            }
            let left = self.current().not_after - files::now().as_secs().cast_signed();
            if left < END_IS_NEAR.as_secs().cast_signed() && warned.is_none_or(|at| at.elapsed() > WARN_INTERVAL) {
                warned = Some(Instant::now());
                let what = if left < 0 { "has expired" } else { "ends soon" };
                tracing::warn!(
                    days_left = left / 86_400,
                    "the certificate of the node links {what}; make another with `quorate certs node {} --overwrite`",
                    self.0.name
                );
            }
        }
    }

    /// Takes what is in the files now. Where that cannot be used, what was in them before stays: a renewal
    /// that goes wrong must not cut off a node whose certificate is good. That is said once.
    pub(super) fn reload(&self) {
        let inner = &self.0;
        let mut looked = inner.looked.lock();
        let stamp = inner.files.stamp();
        if looked.stamp == stamp && looked.failed.is_none() {
            return;
        }
        looked.stamp = stamp;
        match inner.files.load(&inner.name) {
            Ok(loaded) => {
                *inner.current.lock() = Arc::new(loaded);
                looked.failed = None;
                tracing::info!("the certificates of the node links were read again");
            }
            Err(error) if looked.failed.as_ref() == Some(&error) => {}
            Err(error) => {
                tracing::warn!("certificates changed, and those from before stay in use: {error}");
                looked.failed = Some(error);
            }
        }
    }

    fn current(&self) -> Arc<Loaded> {
        self.0.current.lock().clone()
    }

    /// The dialling side. Deadlines are the caller's.
    ///
    /// # Errors
    /// The connection broke, or one of the two does not trust the other; [`Failure`] has words for it.
    pub async fn connect(&self, stream: TcpStream) -> io::Result<(TlsStream<TcpStream>, Counterpart)> {
        let loaded = self.current();
        // No name is sent: whose certificate it is gets looked at afterwards, by the name that is claimed.
        let nobody = ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into());
        let stream = TlsConnector::from(loaded.client.clone()).connect(nobody, stream).await?;
        let acceptor = counterpart(stream.get_ref().1)?;
        Ok((TlsStream::Client(stream), acceptor))
    }

    /// The accepting side. Deadlines are the caller's.
    ///
    /// # Errors
    /// As of [`Tls::connect`].
    pub async fn accept(&self, stream: TcpStream) -> io::Result<(TlsStream<TcpStream>, Counterpart)> {
        let loaded = self.current();
        let stream = TlsAcceptor::from(loaded.server.clone()).accept(stream).await?;
        let dialler = counterpart(stream.get_ref().1)?;
        Ok((TlsStream::Server(stream), dialler))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("name", &self.0.name).finish_non_exhaustive()
    }
}

fn counterpart(connection: &rustls::CommonState) -> io::Result<Counterpart> {
    let certificate = connection.peer_certificates().and_then(<[_]>::first);
    let certificate = certificate.ok_or_else(|| io::Error::other("a peer without a certificate was let in"))?;
    let named = files::Leaf::parse(certificate).map_err(io::Error::other)?;
    Ok(Counterpart::Named(named.names.into()))
}
