//! Whom a SWIM message is from or to.

use crate::catalog::NodeId;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Stands for "whoever listens there", in announcements to a seed whose node id is not known yet.
pub(super) const ANYONE: NodeId = NodeId(u64::MAX);

/// One life of a node. The node id stays, the generation rises with every restart and whenever
/// the node was declared down by mistake; of two lives the later one counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pub node: NodeId,
    /// Milliseconds since the Unix epoch at the start; plus one for each mistake survived.
    pub generation: u64,
    /// `host:port`, as others reach it.
    pub address: Arc<str>,
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
