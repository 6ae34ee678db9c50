//! From three PEM files to what rustls takes, with every mistake named by its file.

use super::trust::AsOfAClient;
use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio_rustls::rustls::{
    self, ClientConfig, RootCertStore, ServerConfig,
    client::Resumption,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
};

pub(super) type Provider = Arc<CryptoProvider>;

/// Where everything is.
pub(super) struct Files {
    pub ca: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Tells whether files may have changed: which ones they are, how long, and when they were written.
pub(super) type Stamp = [Option<(u64, u64, u64, i64, i64)>; 3];

/// What a connection needs.
pub(super) struct Loaded {
    pub client: Arc<ClientConfig>,
    pub server: Arc<ServerConfig>,
    /// When the certificate ends, in seconds since 1970.
    pub not_after: i64,
}

impl Files {
    pub fn stamp(&self) -> Stamp {
        [&self.ca, &self.certificate, &self.key].map(|file| {
            let of = fs::metadata(file).ok()?;
            Some((of.dev(), of.ino(), of.len(), of.mtime(), of.mtime_nsec()))
        })
    }

    /// Reads and checks all three, for the node `name`.
    pub fn load(&self, name: &str) -> Result<Loaded, String> {
        let roots = roots(&self.ca)?;
        let chain = certificates("certificate_file", &self.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&read("key_file", &self.key)?)
            .map_err(|error| refused("key_file", &self.key, &format_args!("no private key in PEM form ({error})")))?;
        let bad = |what: &dyn std::fmt::Display| refused("certificate_file", &self.certificate, what);
        let leaf = chain.first().ok_or_else(|| bad(&"holds no certificate"))?;
        let leaf = Leaf::parse(leaf).map_err(|error| bad(&error))?;
        let provider: Provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone()).build();
        let verifier = verifier.map_err(|error| refused("ca_file", &self.ca, &error))?;
        trusts_itself(&*verifier, &chain).map_err(|error| bad(&explain(&error, name, &leaf)))?;
        if !leaf.names.iter().any(|one| one == name) {
            let names = leaf.names.join(", ");
            return Err(bad(&format_args!(
                "is for {names:?}, and this node is {name:?}; make one with `quorate certs node {name}`"
            )));
        }
        let pair = |error: rustls::Error| {
            refused("key_file", &self.key, &format_args!("is not the key of transport.tls.certificate_file ({error})"))
        };
        let only_1_3 = [&rustls::version::TLS13];
        let mut client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&only_1_3)
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AsOfAClient {
                verifier: verifier.clone(),
                provider: provider.clone(),
            }))
            .with_client_auth_cert(chain.clone(), key.clone_key())
            .map_err(pair)?;
        client.resumption = Resumption::disabled();
        client.enable_sni = false;
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&only_1_3)
            .map_err(|error| error.to_string())?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(pair)?;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        metrics::gauge!("quorate_tls_certificate_not_after_timestamp_seconds").set(leaf.not_after as f64);
        Ok(Loaded { client: client.into(), server: server.into(), not_after: leaf.not_after })
    }
}

/// What a certificate says of the node that it is for.
pub(super) struct Leaf {
    pub names: Vec<String>,
    /// Seconds since 1970.
    pub not_after: i64,
    not_after_text: String,
}

impl Leaf {
    pub fn parse(der: &[u8]) -> Result<Self, String> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|error| format!("no certificate: {error}"))?;
        let alternatives = certificate.subject_alternative_name().map_err(|error| format!("its names: {error}"))?;
        let names = alternatives.iter().flat_map(|found| &found.value.general_names).filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        });
        let not_after = certificate.validity().not_after;
        Ok(Self { names: names.collect(), not_after: not_after.timestamp(), not_after_text: not_after.to_string() })
    }
}

fn roots(file: &Path) -> Result<Arc<RootCertStore>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("ca_file", file)? {
        roots.add(certificate).map_err(|error| refused("ca_file", file, &error))?;
    }
    Ok(Arc::new(roots))
}

/// All that stand in a file, at least one.
fn certificates(key: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = read(key, file)?;
    let all = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
    match all {
        Ok(all) if all.is_empty() => Err(refused(key, file, &"holds no certificate in PEM form")),
        Ok(all) => Ok(all),
        Err(error) => Err(refused(key, file, &format_args!("no certificate in PEM form ({error})"))),
    }
}

fn read(key: &str, file: &Path) -> Result<Vec<u8>, String> {
    fs::read(file).map_err(|error: io::Error| refused(key, file, &error))
}

fn refused(key: &str, file: &Path, what: &dyn std::fmt::Display) -> String {
    format!("`transport.tls.{key}` = {}: {what}", file.display())
}

/// Peers will check the same, and say no without a word to this node's operator.
fn trusts_itself(verifier: &dyn ClientCertVerifier, chain: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
    let Some((leaf, intermediates)) = chain.split_first() else { return Ok(()) };
    verifier.verify_client_cert(leaf, intermediates, UnixTime::since_unix_epoch(now())).map(|_| ())
}

/// Since 1970.
pub(super) fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn explain(error: &rustls::Error, name: &str, leaf: &Leaf) -> String {
    use rustls::CertificateError as Bad;
    match error {
        rustls::Error::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. }) => {
            format!("expired at {}; make another with `quorate certs node {name} --overwrite`", leaf.not_after_text)
        }
        rustls::Error::InvalidCertificate(Bad::UnknownIssuer | Bad::BadSignature) => {
            "was not issued by the authority in transport.tls.ca_file".into()
        }
        rustls::Error::InvalidCertificate(Bad::InvalidPurpose | Bad::InvalidPurposeContext { .. }) => {
            "is not for both server and client use: nodes accept with it and dial with it".into()
        }
        other => other.to_string(),
    }
}
