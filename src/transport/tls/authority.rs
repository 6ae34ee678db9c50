//! The cluster's own certificate authority. It knows no files: the command line does.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use x509_parser::pem::Pem;

/// A certificate is good from a moment before it is made: clocks differ.
const BACKDATED: Duration = Duration::from_secs(60 * 60);

/// Issues certificates that the nodes of one cluster show each other.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// After that nobody believes it.
    not_after: SystemTime,
}

/// A certificate and its key, both as PEM text.
pub struct Issued {
    pub certificate: String,
    /// PKCS #8. Whoever has it is the node, or the authority.
    pub key: String,
    /// When it ends.
    pub not_after: SystemTime,
}

impl Authority {
    /// A new authority, good for so long. ECDSA P-256; it signs nodes, and no further authorities.
    ///
    /// # Errors
    /// There is no randomness.
    pub fn create(lifetime: Duration) -> Result<(Self, Issued), String> {
        Self::create_until(SystemTime::now() + lifetime)
    }

    pub(super) fn create_until(not_after: SystemTime) -> Result<(Self, Issued), String> {
        let key = KeyPair::generate().map_err(|error| error.to_string())?;
        // Two clusters must not have authorities of one name: a certificate names its issuer.
        let name = format!("Quorate cluster {:016x}", rand::random::<u64>());
        let mut params = params(&name, not_after);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(|error| error.to_string())?;
        let issued = Issued { certificate: certificate.pem(), key: key.serialize_pem(), not_after };
        Ok((Self { issuer: Issuer::new(params, key), not_after }, issued))
    }

    /// The authority whose key this is; of several certificates, the one of the key.
    ///
    /// # Errors
    /// One line: not PEM, not an authority, or not a pair.
    pub fn load(certificates: &str, key: &str) -> Result<Self, String> {
        let key = KeyPair::from_pem(key).map_err(|error| format!("the key: {error}"))?;
        let mut found = false;
        for pem in Pem::iter_from_buffer(certificates.as_bytes()) {
            let pem = pem.map_err(|error| format!("the certificate is not in PEM form: {error}"))?;
            let parsed = pem.parse_x509().map_err(|error| format!("the certificate: {error}"))?;
            found = true;
            if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
                continue;
            }
            if !parsed.is_ca() {
                return Err("the certificate is not one of an authority".into());
            }
            let seconds = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or_default();
            let issuer = Issuer::from_ca_cert_der(&pem.contents.as_slice().into(), key);
            let issuer = issuer.map_err(|error| format!("the certificate: {error}"))?;
            return Ok(Self { issuer, not_after: UNIX_EPOCH + Duration::from_secs(seconds) });
        }
        Err(match found {
            true => "the key is not the one of the certificate".into(),
            false => "there is no certificate in PEM form".into(),
        })
    }

    /// A certificate for the node `name`, to accept and to dial with, good for so long, but for no longer
    /// than the authority.
    ///
    /// # Errors
    /// The authority has expired, the name is not ASCII, or there is no randomness.
    pub fn issue(&self, name: &str, lifetime: Duration) -> Result<Issued, String> {
        let now = SystemTime::now();
        if self.not_after <= now {
            return Err("the authority has expired; make another one".into());
        }
        self.issue_until(name, self.not_after.min(now + lifetime))
    }

    pub(super) fn issue_until(&self, name: &str, not_after: SystemTime) -> Result<Issued, String> {
        let key = KeyPair::generate().map_err(|error| error.to_string())?;
        let mut params = params(name, not_after);
        params.subject_alt_names = vec![SanType::DnsName(name.try_into().map_err(|_| "the name must be ASCII")?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer).map_err(|error| error.to_string())?;
        Ok(Issued { certificate: certificate.pem(), key: key.serialize_pem(), not_after })
    }
}

fn params(name: &str, not_after: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = (SystemTime::now() - BACKDATED).into();
    params.not_after = not_after.into();
    params
}
