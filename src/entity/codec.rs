//! The one place that knows how values become bytes.
//!
//! Values are encoded with bincode 2 (standard configuration: little endian, variable-length
//! integers). Bincode is not self-describing, so everything that outlives a process travels as
//! [`Versioned`]: a version number beside the bytes, and an upcaster where the version is old.

use bincode::config::{Configuration, standard};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::cell::Cell;

/// The largest encoded value that is accepted anywhere: command, event, state or reply.
pub const VALUE_BYTES_MAX: usize = 1 << 20;

/// The largest state that still takes commands. With what may be added before it is measured
/// again it stays below [`VALUE_BYTES_MAX`], so that it can be sent to whoever reads it.
pub const STATE_BYTES_MAX: usize = 768 << 10;

/// Why bytes did not become a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("malformed {what}: {detail}")]
    Malformed { what: &'static str, detail: String },
    #[error("{what} is written in version {found}; this build reads up to version {known}")]
    UnknownVersion { what: &'static str, found: u16, known: u16 },
    #[error("{what} takes {bytes} bytes; the limit is {VALUE_BYTES_MAX}")]
    TooLarge { what: &'static str, bytes: usize },
}

/// Bytes and the version of the encoding they are written in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versioned {
    pub version: u16,
    pub bytes: Vec<u8>,
}

const CONFIG: Configuration = standard();

/// Encodes a value. Encoding into memory fails only for types serde itself cannot express
/// (for instance a sequence of unknown length), which is a defect of the type.
pub fn encode<T: Serialize + ?Sized>(what: &'static str, value: &T) -> Result<Vec<u8>, Error> {
    let bytes = to_bytes(value).map_err(|e| Error::Malformed { what, detail: e.to_string() })?;
    if bytes.len() > VALUE_BYTES_MAX {
        return Err(Error::TooLarge { what, bytes: bytes.len() });
    }
    Ok(bytes)
}

/// As [`encode`], for an entity's state, which may grow to [`STATE_BYTES_MAX`] and a little beyond
/// before commands that would let it grow further are refused.
pub fn encode_state<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, Error> {
    to_bytes(value).map_err(|e| Error::Malformed { what: "state", detail: e.to_string() })
}

/// The largest buffer that a thread keeps for its next value.
const BUFFER_BYTES_KEPT: usize = 64 << 10;

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Encodes into a buffer that is there already: only the result is allocated, and that once.
fn to_bytes<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, bincode::error::EncodeError> {
    // A value that encodes others while it is encoded finds an empty one.
    let mut buffer = BUFFER.take();
    buffer.clear();
    let written = bincode::serde::encode_into_std_write(value, &mut buffer, CONFIG);
    let bytes = written.map(|_| buffer.as_slice().to_vec());
    if buffer.capacity() <= BUFFER_BYTES_KEPT {
        BUFFER.set(buffer);
    }
    bytes
}

/// Decodes a value and refuses left-over bytes.
pub fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, Error> {
    let config = CONFIG.with_limit::<{ 16 * VALUE_BYTES_MAX }>();
    let (value, read) = bincode::serde::decode_from_slice(bytes, config)
        .map_err(|e| Error::Malformed { what, detail: e.to_string() })?;
    if read != bytes.len() {
        let detail = format!("{} bytes left over", bytes.len() - read);
        return Err(Error::Malformed { what, detail });
    }
    Ok(value)
}
