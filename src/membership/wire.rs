//! The plaintext of a packet: one byte that says what it is, then the content.

use super::datagram::PLAINTEXT_BYTES_MAX;

/// What is left for a SWIM message beside the kind byte.
pub(super) const SWIM_BYTES_MAX: usize = PLAINTEXT_BYTES_MAX - 1;

const SWIM: u8 = 1;
const ASK: u8 = 2;
const RECORD: u8 = 3;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message<'a> {
    /// foca's own encoding.
    Swim(&'a [u8]),
    /// "Send your record to this address."
    Ask { reply_to: &'a str },
    /// A record as [`super::Record`] is encoded.
    Record(&'a [u8]),
}

impl<'a> Message<'a> {
    pub fn encode(&self) -> Vec<u8> {
        let (kind, content) = match self {
            Self::Swim(content) => (SWIM, *content),
            Self::Ask { reply_to } => (ASK, reply_to.as_bytes()),
            Self::Record(content) => (RECORD, *content),
        };
        let mut bytes = Vec::with_capacity(1 + content.len());
        bytes.push(kind);
        bytes.extend_from_slice(content);
        bytes
    }

    /// `None` for an unknown kind, which may come from a later version.
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (kind, content) = bytes.split_first()?;
        match *kind {
            SWIM => Some(Self::Swim(content)),
            ASK => std::str::from_utf8(content).ok().map(|reply_to| Self::Ask { reply_to }),
            RECORD => Some(Self::Record(content)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_read_back_and_no_other() {
        let all = [Message::Swim(b"swim"), Message::Ask { reply_to: "a:1" }, Message::Record(b"")];
        for message in all {
            assert_eq!(Message::decode(&message.encode()), Some(message));
        }
        for bytes in [&b""[..], &[0], &[4, 1, 2], &[ASK, 0xff]] {
            assert_eq!(Message::decode(bytes), None, "{bytes:?}");
        }
    }
}
