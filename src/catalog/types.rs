//! Names of nodes and clusters.

use crate::storage::GroupId;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A node's number in its cluster, given out by the catalog and never given out twice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// 128 random bits, chosen when the cluster is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClusterId(#[serde(with = "bits128")] pub u128);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// 128 random bits, chosen when a data directory is first used: tells a node from another node
/// that was given the same name, or from itself with an emptied disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InstanceId(#[serde(with = "bits128")] pub u128);

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// One node of the roster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub node: NodeId,
    pub name: String,
    pub instance: InstanceId,
    /// `host:port` of its cluster port (TCP links and UDP gossip), as others reach it.
    pub address: String,
    /// `host:port` of its HTTP port, as others reach it.
    pub http: String,
    pub zone: Option<String>,
}

/// Where one group's replicas live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    pub group: GroupId,
    pub replicas: Vec<NodeId>,
    /// The replica that should own it, if it is up.
    pub preferred: NodeId,
    /// Rises with each change of the shard map that moved the group; 0 as founded.
    pub epoch: u64,
}

impl Placement {
    pub fn is_on(&self, node: NodeId) -> bool {
        self.replicas.contains(&node)
    }

    /// Whether both want the same, whenever they were decided.
    pub(super) fn agrees_with(&self, other: &Self) -> bool {
        (self.group, &self.replicas, self.preferred) == (other.group, &other.replicas, other.preferred)
    }

    /// Puts one node in the place of another.
    pub(super) fn replace(&mut self, node: NodeId, by: NodeId) {
        for replica in self.replicas.iter_mut().chain([&mut self.preferred]).filter(|replica| **replica == node) {
            *replica = by;
        }
        self.replicas.sort_unstable();
    }
}

/// 128 bits as 32 hexadecimal digits where people read them (JSON cannot hold the number), as a
/// number in binary encodings.
pub(crate) mod bits128 {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub fn serialize<S: Serializer>(bits: &u128, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(&format_args!("{bits:032x}"))
        } else {
            bits.serialize(serializer)
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
        if !deserializer.is_human_readable() {
            return u128::deserialize(deserializer);
        }
        let text = String::deserialize(deserializer)?;
        match u128::from_str_radix(&text, 16) {
            Ok(bits) if text.len() == 32 => Ok(bits),
            _ => Err(D::Error::custom("expected 32 hexadecimal digits")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entity::codec;

    #[test]
    fn a_cluster_id_is_hexadecimal_in_json_and_a_number_in_bytes() {
        let id = ClusterId(u128::MAX - 1);
        let json = serde_json::to_value(id).expect("JSON");
        assert_eq!(json, "fffffffffffffffffffffffffffffffe");
        assert_eq!(serde_json::from_value::<ClusterId>(json).expect("reads"), id);
        let bytes = codec::encode("id", &id).expect("encodes");
        assert_eq!(bytes, codec::encode("id", &id.0).expect("encodes"));
        assert_eq!(codec::decode::<ClusterId>("id", &bytes), Ok(id));
        assert!(serde_json::from_str::<ClusterId>("\"+f\"").is_err());
    }
}
