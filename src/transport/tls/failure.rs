//! What rustls means when it refuses, in words for whoever runs the node.

use std::io;
use tokio_rustls::rustls::{self, AlertDescription, CertificateError};

/// Why a connection came to nothing, if it is TLS that failed.
#[derive(Debug)]
pub enum Failure {
    /// The peer is a node without certificates.
    OneSided,
    /// In words, after the peer's address.
    Other(String),
}

impl Failure {
    pub fn of(error: &io::Error) -> Option<Self> {
        use CertificateError as Bad;
        use rustls::Error::{AlertReceived, InvalidCertificate, InvalidMessage, NoCertificatesPresented};
        let text = match error.get_ref()?.downcast_ref::<rustls::Error>()? {
            // What a node without certificates answers: handshake::one_sided_tls.
            AlertReceived(AlertDescription::UnexpectedMessage) => return Some(Self::OneSided),
            InvalidMessage(rustls::InvalidMessage::InvalidContentType) => "it does not speak TLS",
            InvalidCertificate(Bad::UnknownIssuer | Bad::BadSignature) => {
                "its certificate is of an authority that is not in transport.tls.ca_file"
            }
            InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. }) => {
                "its certificate has expired, or the clock of this node is wrong"
            }
            InvalidCertificate(Bad::NotValidYet | Bad::NotValidYetContext { .. }) => {
                "its certificate is not valid yet, or the clock of this node is wrong"
            }
            AlertReceived(AlertDescription::UnknownCA | AlertDescription::DecryptError) => {
                "it does not trust the authority of this node's certificate"
            }
            AlertReceived(AlertDescription::CertificateExpired) => {
                "it takes this node's certificate for expired, or not valid yet; check both clocks"
            }
            NoCertificatesPresented => "it shows no certificate",
            other => return Some(Self::Other(format!("TLS: {other}"))),
        };
        Some(Self::Other(text.into()))
    }
}
