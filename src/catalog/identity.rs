//! What a node keeps on disk of who it is and where it belongs, so that a restart rejoins and
//! never creates a second cluster.

use super::{ClusterId, InstanceId, Member, NodeId, Placement, entity::State};
use crate::{
    entity::codec,
    storage::{Error, Storage, Write},
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Keys in the state store. They begin with `id`, as a group number 26,980, which no shard has.
const IDENTITY_KEY: &[u8] = b"identity";
const INSTANCE_KEY: &[u8] = b"identity:instance";

/// A node's place in its cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub node: NodeId,
    pub name: String,
    pub instance: InstanceId,
    pub view: View,
}

/// The catalog as this node last saw it: enough to find the others after a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    pub cluster: ClusterId,
    pub shards: u16,
    pub members: Vec<Member>,
    pub placements: Vec<Placement>,
    /// Nodes up to this id founded the cluster.
    pub founders: u64,
    /// How many changes of the catalog led to it; 0 for what the founders agreed on.
    pub version: u64,
}

impl View {
    /// What a node knows that belongs to no cluster.
    pub fn empty() -> Self {
        let (members, placements) = (Vec::new(), Vec::new());
        Self { cluster: ClusterId(0), shards: 0, members, placements, founders: 0, version: 0 }
    }

    /// `None` while the catalog is not founded.
    pub fn of(state: &State, version: u64) -> Option<Self> {
        Some(Self {
            cluster: state.cluster?,
            shards: state.shards,
            members: state.members.values().cloned().collect(),
            placements: state.placements.clone(),
            founders: state.founders,
            version,
        })
    }

    /// Whether replicas of the group may create it. Founders do, all with the same voters; a group that
    /// has a replica of another node exists already, or has lost its quorum before it did.
    pub fn may_create(&self, placement: &Placement) -> bool {
        placement.replicas.iter().all(|replica| replica.0 <= self.founders)
    }

    pub fn member_named(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|m| m.name == name)
    }
}

impl Identity {
    pub fn load(storage: &dyn Storage) -> Result<Option<Self>, Error> {
        let Some(bytes) = storage.get(IDENTITY_KEY)? else { return Ok(None) };
        codec::decode("identity", &bytes).map(Some).map_err(corrupt)
    }

    pub async fn save(&self, storage: &Arc<dyn Storage>) -> Result<(), Error> {
        let bytes = codec::encode("identity", self).map_err(corrupt)?;
        storage.write(Write::State(vec![(IDENTITY_KEY.to_vec(), Some(bytes.into()))])).await
    }
}

/// This data directory's instance id, drawn when it is first used.
pub async fn load_instance(storage: &Arc<dyn Storage>) -> Result<InstanceId, Error> {
    if let Some(bytes) = storage.get(INSTANCE_KEY)? {
        return codec::decode("instance", &bytes).map_err(corrupt);
    }
    let instance = InstanceId(rand::random());
    let bytes = codec::encode("instance", &instance).map_err(corrupt)?;
    storage.write(Write::State(vec![(INSTANCE_KEY.to_vec(), Some(bytes.into()))])).await?;
    Ok(instance)
}

fn corrupt(error: codec::Error) -> Error {
    Error::Corrupt { place: "identity".into(), detail: error.to_string() }
}
