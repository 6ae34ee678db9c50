//! What a node tells about itself, and what is known of the others.
//!
//! A record is encoded as one format byte and the fields in order. A later format only appends
//! fields: an old reader takes the fields it knows and ignores the rest.

use super::handle::Error;
use crate::catalog::NodeId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The longest encoded record, so that it fits into a packet beside everything else.
pub const RECORD_BYTES_MAX: usize = 512;
/// The most nodes of which records are kept; news of further ones is ignored.
pub(super) const RECORDS_MAX: usize = 1024;
/// The format this build writes.
const FORMAT: u8 = 1;

/// What the owner of a [`super::Membership`] says about its node. Does not change while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalRecord {
    pub node: NodeId,
    pub name: String,
    /// `host:port` of the gossip port, as others reach it.
    pub address: String,
    /// `host:port` of the HTTP port, as others reach it.
    pub http: String,
    /// Random number of this process.
    pub boot_id: u64,
}

/// How busy a node is. Hints for placement and display.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    pub shards_owned: u32,
    pub entities_active: u32,
    pub requests_per_second: u32,
}

/// What one node told about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub node: NodeId,
    /// The life of the node that this is from (see docs/protocol.md); with `sequence` it
    /// tells which of two records is newer.
    pub generation: u64,
    pub sequence: u64,
    /// Random number of the process; another one means that the node restarted.
    pub boot_id: u64,
    pub name: String,
    /// `host:port` of the gossip and link port.
    pub address: String,
    /// `host:port` of the HTTP port.
    pub http: String,
    /// The version of the software, for instance `0.1.0`.
    pub version: String,
    pub load: Load,
}

impl Record {
    pub(super) fn new(local: LocalRecord, generation: u64) -> Result<Self, Error> {
        let record = Self {
            node: local.node,
            generation,
            sequence: 1,
            boot_id: local.boot_id,
            name: local.name,
            address: local.address,
            http: local.http,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            load: Load { shards_owned: u32::MAX, entities_active: u32::MAX, requests_per_second: u32::MAX },
        };
        // Checked with its numbers at their longest: whatever they become, it will fit.
        let longest = Self { generation: u64::MAX, sequence: u64::MAX, ..record.clone() };
        let bytes = longest.encode()?.len();
        if bytes > RECORD_BYTES_MAX {
            return Err(Error::RecordTooLarge { bytes });
        }
        Ok(Self { load: Load::default(), ..record })
    }

    pub(super) fn encode(&self) -> Result<Vec<u8>, Error> {
        bincode::serde::encode_to_vec((FORMAT, self), bincode::config::standard())
            .map_err(|e| Error::Record(e.to_string()))
    }

    /// `None` for what is no record, or one of a format that is not an extension of ours.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > RECORD_BYTES_MAX {
            return None;
        }
        let config = bincode::config::standard().with_limit::<{ 2 * RECORD_BYTES_MAX }>();
        let decoded = bincode::serde::decode_from_slice::<(u8, Self), _>(bytes, config);
        let ((format, record), _ignored_tail) = decoded.ok()?;
        (format >= FORMAT).then_some(record)
    }

    pub(super) fn order(&self) -> (u64, u64) {
        (self.generation, self.sequence)
    }
}

/// The newest record of each other node.
#[derive(Debug)]
pub(super) struct Records {
    me: NodeId,
    known: BTreeMap<NodeId, Record>,
}

impl Records {
    pub fn new(me: NodeId) -> Self {
        Self { me, known: BTreeMap::new() }
    }

    pub fn get(&self, node: NodeId) -> Option<&Record> {
        self.known.get(&node)
    }

    /// Keeps the record if it is news; true if so. What others say about this node is not.
    pub fn offer(&mut self, record: Record) -> bool {
        let known = self.known.get(&record.node);
        let news = known.is_none_or(|known| record.order() > known.order());
        let room = known.is_some() || self.known.len() < RECORDS_MAX;
        let accepted = news && room && record.node != self.me;
        if accepted {
            self.known.insert(record.node, record);
        }
        accepted
    }

    /// Forgets the nodes that `keep` does not hold on to.
    pub fn retain(&mut self, keep: impl Fn(NodeId) -> bool) {
        self.known.retain(|node, _| keep(*node));
    }

    pub fn len(&self) -> usize {
        self.known.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(name: &str) -> LocalRecord {
        LocalRecord {
            node: NodeId(7),
            name: name.into(),
            address: "127.0.0.1:7101".into(),
            http: "127.0.0.1:8080".into(),
            boot_id: 99,
        }
    }

    #[test]
    fn a_record_is_read_back_also_with_fields_of_a_later_format() {
        let record = Record::new(local("a"), 5).expect("fits");
        let mut bytes = record.encode().expect("encodes");
        assert_eq!(Record::decode(&bytes).as_ref(), Some(&record));
        bytes[0] = FORMAT + 1;
        bytes.extend([1, 2, 3]);
        assert_eq!(Record::decode(&bytes), Some(record));
    }

    #[test]
    fn what_is_no_record_is_none() {
        let mut bytes = Record::new(local("a"), 5).expect("fits").encode().expect("encodes");
        for length in 0..bytes.len() {
            assert_eq!(Record::decode(&bytes[..length]), None, "cut to {length}");
        }
        bytes[0] = 0;
        assert_eq!(Record::decode(&bytes), None, "format 0");
        assert_eq!(Record::decode(&[255; 600]), None);
    }

    #[test]
    fn a_record_that_could_outgrow_its_limit_is_refused_at_once() {
        let fits = "x".repeat(380);
        assert!(Record::new(local(&fits), 1).is_ok());
        let error = Record::new(local(&"x".repeat(480)), 1).expect_err("too long");
        assert!(matches!(error, Error::RecordTooLarge { bytes } if bytes > RECORD_BYTES_MAX), "{error}");
    }

    #[test]
    fn only_news_about_others_is_kept_and_only_so_much() {
        let mut records = Records::new(NodeId(1));
        let of = |node, generation, sequence| Record {
            node: NodeId(node),
            sequence,
            ..Record::new(local("a"), generation).expect("fits")
        };
        assert!(records.offer(of(2, 5, 1)));
        assert!(!records.offer(of(2, 5, 1)), "the same again");
        assert!(!records.offer(of(2, 4, 9)), "from an earlier life");
        assert!(records.offer(of(2, 6, 1)), "from a later life");
        assert!(!records.offer(of(1, 9, 9)), "about oneself");
        for node in 10..10 + RECORDS_MAX as u64 {
            records.offer(of(node, 1, 1));
        }
        assert_eq!(records.len(), RECORDS_MAX);
        assert!(records.offer(of(2, 7, 1)), "full, but node 2 has a place");
        records.retain(|node| node == NodeId(2));
        assert_eq!(records.len(), 1);
    }
}
