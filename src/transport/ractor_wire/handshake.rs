//! What happens on a fresh connection before anything else: both sides prove that they know the
//! cluster secret, and say what the connection is for.
//!
//! ```text
//! dialler                                            acceptor
//!   magic, version, purpose, nonce ────────────────▶
//!   ◀──────────────────────────────── magic, version, nonce
//!   length, body, HMAC(both nonces, body) ─────────▶
//!   ◀───── status, length, body, HMAC(all of the above)
//! ```
//!
//! Invariants: the secret never crosses the wire; every length is checked before anything is
//! allocated by it; nothing is read past the handshake; the dialler proves itself first, so that
//! whoever knocks learns nothing to try secrets against. Deadlines are the caller's.

use super::super::{
    INTRODUCTION_BYTES_MAX, tls,
    wire::{Hello, LinkId},
};
use crate::catalog::NodeId;
use bytes::{Buf, Bytes};
use ring::{hmac, rand::SecureRandom};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

pub(super) const MAGIC: [u8; 8] = *b"QUORATE\n";
/// The first bytes of TLS records (RFC 8446, 5.1): what a client begins with, and what ends a connection.
const TLS_HANDSHAKE: u8 = 22;
const TLS_ALERT: u8 = 21;
/// A fatal alert, `unexpected_message` (RFC 8446, 6.2): a peer with TLS reads it as such, one without
/// knows it by its first byte.
const ONE_SIDED_TLS: [u8; 7] = [TLS_ALERT, 3, 3, 0, 2, 2, 10];
/// More than whoever begins sends before it wants an answer.
const BEGINNING_BYTES_MAX: usize = 4096;
/// Version of the handshake and of everything after it.
pub(super) const VERSION: u16 = 1;
const NONCE_BYTES: usize = 32;
const TAG_BYTES: usize = 32;
/// Longest node name on the wire.
const NAME_BYTES_MAX: usize = 255;
/// Longest text with which a connection is turned away.
const REFUSAL_BYTES_MAX: usize = 1024;

const PURPOSE_LINK: u8 = 1;
const PURPOSE_INTRODUCTION: u8 = 2;

const STATUS_DONE: u8 = 0;
const STATUS_WRONG_SECRET: u8 = 1;
const STATUS_UNKNOWN: u8 = 2;
const STATUS_REFUSED: u8 = 3;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Link,
    Introduction,
}

/// The acceptor's word on a proven connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// Link: the acceptor's boot id. Introduction: the reply.
    Done(Bytes),
    /// The acceptor does not know the dialler yet.
    Unknown(String),
    Refused(String),
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("what listens there is not a Quorate node")]
    NotQuorate,
    #[error("one side has a certificate for node links (transport.tls), the other has none")]
    OneSidedTls,
    #[error("{0}")]
    Tls(String),
    #[error("speaks version {theirs} of the link protocol, this node speaks {VERSION}")]
    Version { theirs: u16 },
    #[error("the cluster secret differs")]
    WrongSecret,
    #[error("malformed handshake: {0}")]
    Malformed(&'static str),
    #[error("the connection was closed during the handshake")]
    Closed,
    #[error(transparent)]
    Io(io::Error),
}

impl Error {
    /// A short name for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotQuorate => "not-quorate",
            Self::OneSidedTls => "one-sided-tls",
            Self::Tls(_) => "tls",
            Self::Version { .. } => "version",
            Self::WrongSecret => "wrong-secret",
            Self::Malformed(_) => "malformed",
            Self::Closed => "closed",
            Self::Io(_) => "io",
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match tls::Failure::of(&error) {
            Some(tls::Failure::OneSided) => return Self::OneSidedTls,
            Some(tls::Failure::Other(text)) => return Self::Tls(text),
            None => {}
        }
        match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Io(error),
        }
    }
}

/// Derived from the cluster secret; the secret itself is not kept.
#[derive(Clone)]
pub(super) struct Keys {
    handshake: hmac::Key,
    cookie: String,
}

impl Keys {
    pub fn derive(secret: &[u8]) -> Self {
        let key = blake3::derive_key("quorate 2026-11 node link handshake", secret);
        let cookie = blake3::derive_key("quorate 2026-11 ractor_cluster cookie", secret);
        Self {
            handshake: hmac::Key::new(hmac::HMAC_SHA256, &key),
            cookie: blake3::Hash::from_bytes(cookie).to_hex().to_string(),
        }
    }

    /// What `ractor_cluster` authenticates its sessions with, on top of this handshake.
    pub fn cookie(&self) -> String {
        self.cookie.clone()
    }

    fn sign(&self, parts: &[&[u8]]) -> [u8; TAG_BYTES] {
        let mut context = hmac::Context::with_key(&self.handshake);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut tag = [0; TAG_BYTES];
        tag.copy_from_slice(context.sign().as_ref());
        tag
    }

    fn verify(&self, parts: &[&[u8]], tag: &[u8; TAG_BYTES]) -> Result<(), Error> {
        let expected = self.sign(parts);
        // compares MACs of the tags, so that the comparison takes the same time for any tag
        let check = hmac::sign(&self.handshake, &expected);
        hmac::verify(&self.handshake, tag, check.as_ref()).map_err(|_| Error::WrongSecret)
    }
}

fn nonce() -> Result<[u8; NONCE_BYTES], Error> {
    let mut nonce = [0; NONCE_BYTES];
    ring::rand::SystemRandom::new().fill(&mut nonce).map_err(|_| Error::Io(io::Error::other("no randomness")))?;
    Ok(nonce)
}

/// The dialling side, from connect to the acceptor's answer.
pub(super) async fn dial<S>(stream: &mut S, keys: &Keys, purpose: Purpose, body: &[u8]) -> Result<Answer, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mine = nonce()?;
    let purpose = [match purpose {
        Purpose::Link => PURPOSE_LINK,
        Purpose::Introduction => PURPOSE_INTRODUCTION,
    }];
    let start = [&MAGIC[..], &VERSION.to_be_bytes(), &purpose, &mine].concat();
    stream.write_all(&start).await?;
    stream.flush().await?;
    read_start(stream).await?;
    let theirs: [u8; NONCE_BYTES] = read_array(stream).await?;
    let proof = keys.sign(&[b"dial", &purpose, &mine, &theirs, body]);
    let message = [&(body.len() as u32).to_be_bytes()[..], body, &proof].concat();
    stream.write_all(&message).await?;
    stream.flush().await?;
    let status = stream.read_u8().await?;
    if status == STATUS_WRONG_SECRET {
        return Err(Error::WrongSecret);
    }
    let answer = read_body(stream, INTRODUCTION_BYTES_MAX).await?;
    let tag = read_array(stream).await?;
    keys.verify(&[b"answer", &[status], &proof, &answer], &tag)?;
    let text = || String::from_utf8_lossy(&answer).into_owned();
    match status {
        STATUS_DONE => Ok(Answer::Done(answer.clone())),
        STATUS_UNKNOWN => Ok(Answer::Unknown(text())),
        STATUS_REFUSED => Ok(Answer::Refused(text())),
        _ => Err(Error::Malformed("unknown status")),
    }
}

/// Tells a dialler that has TLS where this node has none, or none where this node has it.
pub(super) async fn one_sided_tls<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> Error {
    // Read first: a connection that is closed with something unread in it takes the answer along.
    let mut beginning = [0; BEGINNING_BYTES_MAX];
    let told = async {
        let _ = stream.read(&mut beginning).await?;
        stream.write_all(&ONE_SIDED_TLS).await?;
        stream.shutdown().await
    };
    // Whether it hears it or not.
    let _ = told.await;
    Error::OneSidedTls
}

/// A connection whose dialler has proven itself.
pub(super) struct Proven {
    pub purpose: Purpose,
    pub body: Bytes,
    proof: [u8; TAG_BYTES],
}

/// The accepting side, until the dialler has proven itself. [`Proven::answer`] completes it.
pub(super) async fn accept<S>(stream: &mut S, keys: &Keys) -> Result<Proven, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match read_start(stream).await {
        Err(error @ Error::Version { .. }) => {
            // so that the other side can name both versions
            stream.write_all(&[&MAGIC[..], &VERSION.to_be_bytes()].concat()).await?;
            stream.flush().await?;
            return Err(error);
        }
        Err(Error::OneSidedTls) => return Err(one_sided_tls(stream).await),
        start => start?,
    }
    let purpose = [stream.read_u8().await?];
    let theirs: [u8; NONCE_BYTES] = read_array(stream).await?;
    let (kind, body_max) = match purpose[0] {
        PURPOSE_LINK => (Purpose::Link, Hello::BYTES_MAX),
        PURPOSE_INTRODUCTION => (Purpose::Introduction, INTRODUCTION_BYTES_MAX),
        _ => return Err(Error::Malformed("unknown purpose")),
    };
    let mine = nonce()?;
    stream.write_all(&[&MAGIC[..], &VERSION.to_be_bytes(), &mine].concat()).await?;
    stream.flush().await?;
    let body = read_body(stream, body_max).await?;
    let proof = read_array(stream).await?;
    if let Err(error) = keys.verify(&[b"dial", &purpose, &theirs, &mine, &body], &proof) {
        stream.write_all(&[STATUS_WRONG_SECRET]).await?;
        stream.flush().await?;
        return Err(error);
    }
    Ok(Proven { purpose: kind, body, proof })
}

impl Proven {
    /// Tells the dialler how it ends.
    pub async fn answer<S: AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
        keys: &Keys,
        answer: &Answer,
    ) -> Result<(), Error> {
        let clipped;
        let (status, body): (u8, &[u8]) = match answer {
            Answer::Done(body) => (STATUS_DONE, body),
            Answer::Unknown(text) => {
                clipped = clip(text);
                (STATUS_UNKNOWN, clipped)
            }
            Answer::Refused(text) => {
                clipped = clip(text);
                (STATUS_REFUSED, clipped)
            }
        };
        let tag = keys.sign(&[b"answer", &[status], &self.proof, body]);
        let message = [&[status][..], &(body.len() as u32).to_be_bytes(), body, &tag].concat();
        stream.write_all(&message).await?;
        Ok(stream.flush().await?)
    }
}

fn clip(text: &str) -> &[u8] {
    &text.as_bytes()[..text.len().min(REFUSAL_BYTES_MAX)]
}

async fn read_start<S: AsyncRead + Unpin>(stream: &mut S) -> Result<(), Error> {
    let first = stream.read_u8().await?;
    if [TLS_HANDSHAKE, TLS_ALERT].contains(&first) {
        return Err(Error::OneSidedTls);
    }
    let rest: [u8; MAGIC.len() - 1] = read_array(stream).await?;
    if first != MAGIC[0] || rest != MAGIC[1..] {
        return Err(Error::NotQuorate);
    }
    match stream.read_u16().await? {
        VERSION => Ok(()),
        theirs => Err(Error::Version { theirs }),
    }
}

async fn read_array<const N: usize, S: AsyncRead + Unpin>(stream: &mut S) -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

async fn read_body<S: AsyncRead + Unpin>(stream: &mut S, len_max: usize) -> Result<Bytes, Error> {
    let len = stream.read_u32().await? as usize;
    if len > len_max {
        return Err(Error::Malformed("a length is out of range"));
    }
    let mut body = vec![0; len];
    stream.read_exact(&mut body).await?;
    Ok(body.into())
}

impl Hello {
    /// Longest encoding of a hello.
    pub(super) const BYTES_MAX: usize = 4 * 8 + 2 * (1 + NAME_BYTES_MAX);

    /// The body of a link handshake. Names longer than 255 bytes are cut, and then refused.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::BYTES_MAX);
        for number in [self.link.0, self.from.0, self.boot_id, self.to.0] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        for name in [&self.from_name, &self.to_name] {
            let name = &name.as_bytes()[..name.len().min(NAME_BYTES_MAX)];
            bytes.push(name.len() as u8);
            bytes.extend_from_slice(name);
        }
        bytes
    }

    pub(super) fn decode(mut bytes: Bytes) -> Result<Self, Error> {
        const SHORT: Error = Error::Malformed("short hello");
        let mut number = || bytes.try_get_u64().map_err(|_| SHORT);
        let (link, from, boot_id, to) = (number()?, number()?, number()?, number()?);
        let mut name = || {
            let len = usize::from(bytes.try_get_u8().map_err(|_| SHORT)?);
            if bytes.len() < len {
                return Err(SHORT);
            }
            String::from_utf8(bytes.split_to(len).to_vec()).map_err(|_| Error::Malformed("a name is not UTF-8"))
        };
        let (from_name, to_name) = (name()?, name()?);
        if !bytes.is_empty() {
            return Err(Error::Malformed("long hello"));
        }
        Ok(Self { link: LinkId(link), from: NodeId(from), from_name, boot_id, to: NodeId(to), to_name })
    }
}

#[cfg(test)]
#[path = "../tests/handshake.rs"]
mod tests;
