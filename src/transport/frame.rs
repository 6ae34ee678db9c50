//! The bytes of a batch: a header, then frames. `docs/protocol.md` has the layout.
//!
//! Invariants: decoding never panics and never allocates by a length it was told; a decoded body
//! is a slice of the batch, not a copy.

use super::Class;
use bytes::{Buf, Bytes};

/// Version of this layout; a batch of another version is malformed.
pub(super) const VERSION: u8 = 1;
/// Bytes of a [`Header`].
pub(super) const HEADER_BYTES: usize = 26;
/// Flag: answer with a batch (which carries an acknowledgement) at once.
pub(super) const ACK_WANTED: u8 = 1;

const REQUEST_RAFT: u8 = 1;
const REQUEST_COMMAND: u8 = 2;
const REPLY_OK: u8 = 3;
const REPLY_REFUSED: u8 = 4;
const REPLY_OVERLOADED: u8 = 5;

/// What precedes the frames of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub flags: u8,
    /// The connection this batch belongs to; one of an earlier connection is dropped.
    pub link: u64,
    /// Bytes that were sent on the link before this batch.
    pub position: u64,
    /// Position up to which the sender has consumed what came the other way.
    pub ack: u64,
}

/// One message in a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    Request { correlation: u64, class: Class, timeout_ms: u32, body: Bytes },
    Reply { correlation: u64, outcome: Outcome },
}

/// How a request ended at the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Done(Bytes),
    /// The handler's error, UTF-8.
    Refused(Bytes),
    /// A bound was reached; the request was not handled.
    Overloaded,
}

/// The batch is not one; the link that brought it cannot be trusted any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed batch: {0}")]
pub(super) struct Malformed(pub &'static str);

impl Outcome {
    pub fn body_len(&self) -> usize {
        match self {
            Self::Done(body) | Self::Refused(body) => body.len(),
            Self::Overloaded => 0,
        }
    }
}

impl Header {
    /// Appends the header; the frames follow.
    pub fn put(&self, batch: &mut Vec<u8>) {
        batch.extend_from_slice(&[VERSION, self.flags]);
        for field in [self.link, self.position, self.ack] {
            batch.extend_from_slice(&field.to_be_bytes());
        }
    }

    /// Takes the header off the front of `batch`.
    pub fn take(batch: &mut Bytes) -> Result<Self, Malformed> {
        if batch.len() < HEADER_BYTES {
            return Err(Malformed("shorter than its header"));
        }
        if batch.get_u8() != VERSION {
            return Err(Malformed("unknown version"));
        }
        Ok(Self { flags: batch.get_u8(), link: batch.get_u64(), position: batch.get_u64(), ack: batch.get_u64() })
    }
}

/// Bytes that a request with `body_len` bytes takes in a batch.
pub(super) const fn request_len(body_len: usize) -> usize {
    17 + body_len
}

/// Bytes that a reply takes in a batch.
pub(super) fn reply_len(outcome: &Outcome) -> usize {
    13 + outcome.body_len()
}

/// Appends a request. `body` is at most [`super::FRAME_BYTES_MAX`] long.
pub(super) fn put_request(batch: &mut Vec<u8>, correlation: u64, class: Class, timeout_ms: u32, body: &[u8]) {
    let kind = match class {
        Class::Raft => REQUEST_RAFT,
        Class::Command => REQUEST_COMMAND,
    };
    put_start(batch, kind, correlation, body.len());
    batch.extend_from_slice(&timeout_ms.to_be_bytes());
    batch.extend_from_slice(body);
}

/// Appends a reply. Its body is at most [`super::FRAME_BYTES_MAX`] long.
pub(super) fn put_reply(batch: &mut Vec<u8>, correlation: u64, outcome: &Outcome) {
    let (kind, body): (u8, &[u8]) = match outcome {
        Outcome::Done(body) => (REPLY_OK, body),
        Outcome::Refused(detail) => (REPLY_REFUSED, detail),
        Outcome::Overloaded => (REPLY_OVERLOADED, &[]),
    };
    put_start(batch, kind, correlation, body.len());
    batch.extend_from_slice(body);
}

fn put_start(batch: &mut Vec<u8>, kind: u8, correlation: u64, body_len: usize) {
    debug_assert!(body_len <= super::FRAME_BYTES_MAX);
    batch.push(kind);
    batch.extend_from_slice(&correlation.to_be_bytes());
    batch.extend_from_slice(&(body_len as u32).to_be_bytes());
}

/// The frames of a batch whose header was taken.
pub(super) struct Frames(pub Bytes);

impl Iterator for Frames {
    type Item = Result<Frame, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let frame = take_frame(&mut self.0);
        if frame.is_err() {
            self.0 = Bytes::new();
        }
        Some(frame)
    }
}

fn take_frame(rest: &mut Bytes) -> Result<Frame, Malformed> {
    const SHORT: Malformed = Malformed("ends within a frame");
    let kind = rest.try_get_u8().map_err(|_| SHORT)?;
    let correlation = rest.try_get_u64().map_err(|_| SHORT)?;
    let body_len = rest.try_get_u32().map_err(|_| SHORT)? as usize;
    let timeout_ms = match kind {
        REQUEST_RAFT | REQUEST_COMMAND => rest.try_get_u32().map_err(|_| SHORT)?,
        _ => 0,
    };
    if body_len > rest.len() {
        return Err(SHORT);
    }
    let body = rest.split_to(body_len);
    let reply = |outcome| Ok(Frame::Reply { correlation, outcome });
    match kind {
        REQUEST_RAFT => Ok(Frame::Request { correlation, class: Class::Raft, timeout_ms, body }),
        REQUEST_COMMAND => Ok(Frame::Request { correlation, class: Class::Command, timeout_ms, body }),
        REPLY_OK => reply(Outcome::Done(body)),
        REPLY_REFUSED => reply(Outcome::Refused(body)),
        REPLY_OVERLOADED if body.is_empty() => reply(Outcome::Overloaded),
        REPLY_OVERLOADED => Err(Malformed("a body where there is none")),
        _ => Err(Malformed("unknown kind of frame")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_frame() -> impl Strategy<Value = Frame> {
        let body = prop::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from);
        (any::<u64>(), 0u8..5, any::<u32>(), body).prop_map(|(correlation, kind, timeout_ms, body)| match kind {
            0 => Frame::Request { correlation, class: Class::Raft, timeout_ms, body },
            1 => Frame::Request { correlation, class: Class::Command, timeout_ms, body },
            2 => Frame::Reply { correlation, outcome: Outcome::Done(body) },
            3 => Frame::Reply { correlation, outcome: Outcome::Refused(body) },
            _ => Frame::Reply { correlation, outcome: Outcome::Overloaded },
        })
    }

    fn encode(header: Header, frames: &[Frame]) -> Vec<u8> {
        let mut batch = Vec::new();
        header.put(&mut batch);
        for frame in frames {
            let before = batch.len();
            let expected = match frame {
                Frame::Request { correlation, class, timeout_ms, body } => {
                    put_request(&mut batch, *correlation, *class, *timeout_ms, body);
                    request_len(body.len())
                }
                Frame::Reply { correlation, outcome } => {
                    put_reply(&mut batch, *correlation, outcome);
                    reply_len(outcome)
                }
            };
            assert_eq!(batch.len() - before, expected);
        }
        batch
    }

    #[test]
    fn the_layout_is_what_the_document_says() {
        let header = Header { flags: ACK_WANTED, link: 2, position: 3, ack: 4 };
        let request =
            Frame::Request { correlation: 5, class: Class::Raft, timeout_ms: 6, body: Bytes::from_static(b"x") };
        let reply = Frame::Reply { correlation: 7, outcome: Outcome::Overloaded };
        let mut expected = vec![1, 1];
        for number in [2u64, 3, 4] {
            expected.extend_from_slice(&number.to_be_bytes());
        }
        expected.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0, 6, b'x']);
        expected.extend_from_slice(&[5, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0]);
        assert_eq!(encode(header, &[request, reply]), expected);
    }

    #[test]
    fn nothing_comes_with_an_overload() {
        let mut batch = Vec::new();
        put_start(&mut batch, REPLY_OVERLOADED, 7, 3);
        batch.extend_from_slice(b"why");
        let frames: Result<Vec<_>, _> = Frames(Bytes::from(batch)).collect();
        assert_eq!(frames, Err(Malformed("a body where there is none")));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(flags: u8, link: u64, position: u64, ack: u64, frames in prop::collection::vec(any_frame(), 0..8)) {
            let header = Header { flags, link, position, ack };
            let mut batch = Bytes::from(encode(header, &frames));
            prop_assert_eq!(Header::take(&mut batch), Ok(header));
            let decoded: Result<Vec<_>, _> = Frames(batch).collect();
            prop_assert_eq!(decoded, Ok(frames));
        }

        #[test]
        fn garbage_is_an_error_and_never_a_panic(garbage in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut batch = Bytes::from(garbage);
            let _ = Header::take(&mut batch);
            let frames = Frames(batch).count();
            prop_assert!(frames <= 300);
        }

        #[test]
        fn a_truncated_batch_is_malformed(frames in prop::collection::vec(any_frame(), 1..4), cut in 1usize..13) {
            let whole = encode(Header { flags: 0, link: 1, position: 0, ack: 0 }, &frames);
            let mut batch = Bytes::from(whole[..whole.len() - cut].to_vec());
            prop_assert!(Header::take(&mut batch).is_ok());
            prop_assert!(Frames(batch).any(|frame| frame.is_err()));
        }
    }
}
