//! Whom the outside must be certified by: an authority of this system, or one of `[outbound]`.

use serde::{Deserialize, Serialize};
use std::{
    fmt::{self, Display},
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::{net::TcpStream, sync::OnceCell};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        self, CertificateError, ClientConfig, RootCertStore,
        crypto::aws_lc_rs::default_provider,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

/// Requests to card gateways and webhook receivers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// PEM file with authorities that card gateways and webhook receivers may have their certificates of, beside those of this system.
    pub ca_file: Option<PathBuf>,
}

/// The authorities that are trusted. Cloneable by `Arc`.
#[derive(Clone)]
pub struct Trust(Arc<Inner>);

struct Inner {
    more: RootCertStore,
    /// Those of the system are read when they are first needed.
    config: OnceCell<Arc<ClientConfig>>,
}

impl Trust {
    /// Those of this system: what its package of CA certificates brings, or `SSL_CERT_FILE` and
    /// `SSL_CERT_DIR` name instead.
    #[must_use]
    pub fn system() -> Self {
        Self::and(RootCertStore::empty())
    }

    /// # Errors
    /// `outbound.ca_file` holds no certificates; one line for the operator.
    pub fn of(options: &Options) -> Result<Self, String> {
        options.ca_file.as_deref().map_or(Ok(Self::system()), |file| authorities(file).map(Self::and))
    }

    fn and(more: RootCertStore) -> Self {
        Self(Arc::new(Inner { more, config: OnceCell::new() }))
    }

    /// TLS to `host`, as it stands in the URL.
    ///
    /// # Errors
    /// What is wrong with the other side, or with the authorities of this system.
    pub async fn secure(&self, host: &str, stream: TcpStream) -> Result<TlsStream<TcpStream>, String> {
        let name = server_name(host).ok_or_else(|| format!("no certificate can be for {host}"))?;
        let config = self.config().await?;
        TlsConnector::from(config).connect(name, stream).await.map_err(|error| describe(&error))
    }

    /// Reads the authorities, if that has not been done. Goes on where whoever waits for it gives up: it may
    /// take longer than any one of them has.
    ///
    /// # Errors
    /// There are none.
    pub async fn ready(&self) -> Result<(), String> {
        self.config().await.map(drop)
    }

    async fn config(&self) -> Result<Arc<ClientConfig>, String> {
        if let Some(config) = self.0.config.get() {
            return Ok(config.clone());
        }
        let inner = self.0.clone();
        let loading = tokio::spawn(async move {
            let load = || async {
                let more = inner.more.clone();
                // Some hundred files.
                let loaded = tokio::task::spawn_blocking(move || load(more)).await;
                loaded.map_err(|error| error.to_string()).flatten()
            };
            inner.config.get_or_try_init(load).await.cloned()
        });
        loading.await.map_err(|error| error.to_string()).flatten()
    }
}

/// Of a host as it stands in a URL.
pub(super) fn server_name(host: &str) -> Option<ServerName<'static>> {
    let unbracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    ServerName::try_from(unbracketed.to_owned()).ok()
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").field("more", &self.0.more.len()).finish_non_exhaustive()
    }
}

fn load(mut roots: RootCertStore) -> Result<Arc<ClientConfig>, String> {
    let system = rustls_native_certs::load_native_certs();
    // Of the many that a system has, some may be too odd to be read.
    let (added, _) = roots.add_parsable_certificates(system.certs);
    if let Some(error) = system.errors.first() {
        tracing::warn!(
            all = system.errors.len(),
            read = added,
            "certificate authorities of this system cannot be read: {error}"
        );
    }
    if roots.is_empty() {
        let why = system.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
        return Err(format!(
            "this system has no certificate authorities{why}: install its package of CA certificates, or name some in SSL_CERT_FILE, or in `outbound.ca_file` of a node"
        ));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    let config = config.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// All that stand in a file, at least one.
fn authorities(file: &Path) -> Result<RootCertStore, String> {
    let refused = |what: &dyn Display| format!("`outbound.ca_file` = {}: {what}", file.display());
    let bytes = std::fs::read(file).map_err(|error| refused(&error))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        let certificate =
            certificate.map_err(|error| refused(&format_args!("no certificate in PEM form ({error})")))?;
        roots.add(certificate).map_err(|error| refused(&error))?;
    }
    match roots.is_empty() {
        true => Err(refused(&"holds no certificate in PEM form")),
        false => Ok(roots),
    }
}

fn describe(error: &std::io::Error) -> String {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            "its certificate is of an authority that is not trusted here; SSL_CERT_FILE, or `outbound.ca_file` of a node, names others".into()
        }
        Some(rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => "its certificate is for another name".into(),
        Some(rustls::Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        )) => "its certificate has expired".into(),
        Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)) => {
            "it does not speak TLS".into()
        }
        Some(other) => format!("TLS: {other}"),
        None => format!("TLS: {error}"),
    }
}
