//! Whom a SWIM message is from or to.

use crate::catalog::NodeId;
use serde::{Deserialize, Deserializer, Serialize, de::Error};
use std::sync::Arc;

/// Stands for "whoever listens there", in announcements to a seed whose node id is not known yet.
pub(super) const ANYONE: NodeId = NodeId(u64::MAX);

/// The longest address: a DNS name of 253 bytes, a colon and a port. Three of them, which is the most that a
/// SWIM message names, leave room in a packet.
pub(super) const ADDRESS_BYTES_MAX: usize = 259;

/// One life of a node. The node id stays, the generation rises with every restart and whenever
/// the node was declared down by mistake; of two lives the later one counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pub node: NodeId,
    /// Milliseconds since the Unix epoch at the start; plus one for each mistake survived.
    pub generation: u64,
    /// `host:port`, as others reach it.
    #[serde(deserialize_with = "short_address")]
    pub address: Arc<str>,
}

/// One that is too long is refused where it comes in: foca could not write to its owner, and an error while
/// it probes somebody is the end of its probing.
fn short_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<str>, D::Error> {
    let address = Arc::<str>::deserialize(deserializer)?;
    match address.len() <= ADDRESS_BYTES_MAX {
        true => Ok(address),
        false => Err(D::Error::custom(format!("an address of {} bytes", address.len()))),
    }
}

impl Identity {
    pub fn anyone(address: Arc<str>) -> Self {
        Self { node: ANYONE, generation: 0, address }
    }

    /// This node in a life that comes after `generation`.
    pub fn after(&self, generation: u64) -> Self {
        Self { generation: generation.saturating_add(1), ..self.clone() }
    }
}

impl foca::Identity for Identity {
    /// The node id and not the address: a node may move.
    type Addr = NodeId;

    fn renew(&self) -> Option<Self> {
        Some(self.after(self.generation))
    }

    fn addr(&self) -> NodeId {
        self.node
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.generation > adversary.generation
    }
}
