//! Certificates for servers of the tests' own, which stand at `localhost`.

use quorate::{outbound, transport::tls::Authority};
use std::{fs, path::PathBuf, sync::Arc, time::Duration};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::aws_lc_rs::default_provider,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
    server::TlsStream,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// An authority that nobody knows who is not told.
pub struct Https {
    authority: Authority,
    dir: TempDir,
}

impl Https {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (authority, issued) = Authority::create(DAY).expect("an authority");
        let https = Self { authority, dir };
        fs::write(https.ca_file(), issued.certificate).expect("written");
        https
    }

    /// Where its certificate is.
    pub fn ca_file(&self) -> PathBuf {
        self.dir.path().join("ca.crt")
    }

    /// For nodes that trust it.
    pub fn outbound(&self) -> outbound::Options {
        outbound::Options { ca_file: Some(self.ca_file()) }
    }

    /// A port on loopback, for a server that is certified as `name`.
    pub async fn listen_as(&self, name: &str) -> Door {
        let issued = self.authority.issue(name, DAY).expect("a certificate");
        let certificate = CertificateDer::from_pem_slice(issued.certificate.as_bytes()).expect("PEM");
        let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).expect("PEM");
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("a pair");
        Door { listener: loopback().await, tls: Some(TlsAcceptor::from(Arc::new(config))) }
    }

    pub async fn listen(&self) -> Door {
        self.listen_as("localhost").await
    }
}

/// Where a server lets in its clients.
pub struct Door {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
}

impl Door {
    /// Without TLS.
    pub async fn open() -> Self {
        Self { listener: loopback().await, tls: None }
    }

    /// `http://127.0.0.1:PORT` or `https://localhost:PORT`.
    pub fn url(&self) -> String {
        let address = self.listener.local_addr().expect("an address");
        match self.tls {
            None => format!("http://{address}"),
            Some(_) => format!("https://localhost:{}", address.port()),
        }
    }

    /// The next connection; `None` when there will be no more.
    pub async fn accept(&self) -> Option<Knock> {
        let (stream, _) = self.listener.accept().await.ok()?;
        Some(Knock { stream, tls: self.tls.clone() })
    }
}

/// A connection of which nothing has been read.
pub struct Knock {
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
}

pub enum Entered {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Knock {
    /// `None` if the client does not like the certificate.
    pub async fn enter(self) -> Option<Entered> {
        match self.tls {
            None => Some(Entered::Plain(self.stream)),
            Some(tls) => tls.accept(self.stream).await.ok().map(|stream| Entered::Tls(stream.into())),
        }
    }
}

async fn loopback() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("a port on loopback")
}
