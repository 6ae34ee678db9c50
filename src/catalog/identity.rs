//! What a node keeps on disk of who it is and where it belongs, so that a restart rejoins and
//! never creates a second cluster.

use super::{
    ClusterId, InstanceId, Member, NodeId, Placement,
    entity::{Founding, State},
};
use crate::{
    entity::codec,
    storage::{Error, GroupId, Storage, Write},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

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
    pub replication_factor: u8,
    /// Where replicas are wanted.
    pub placements: Vec<Placement>,
    /// Where the founders wanted them.
    pub founding: Vec<Placement>,
    /// Who else may still hold a replica that counts, by group.
    pub moving: BTreeMap<GroupId, BTreeSet<NodeId>>,
    /// Members on their way out.
    pub leaving: BTreeSet<NodeId>,
    /// How many changes of the catalog led to it; 0 for what the founders agreed on.
    pub version: u64,
}

impl View {
    /// What a node knows that belongs to no cluster.
    pub fn empty() -> Self {
        let (members, placements) = (Vec::new(), Vec::new());
        Self::founded(Founding { cluster: ClusterId(0), shards: 0, replication_factor: 0, members, placements })
    }

    /// What the founders agreed on.
    pub fn founded(founding: Founding) -> Self {
        let Founding { cluster, shards, replication_factor, members, placements } = founding;
        Self {
            cluster,
            shards,
            members,
            replication_factor,
            founding: placements.clone(),
            placements,
            moving: BTreeMap::new(),
            leaving: BTreeSet::new(),
            version: 0,
        }
    }

    /// `None` while the catalog is not founded.
    pub fn of(state: &State, version: u64) -> Option<Self> {
        Some(Self {
            cluster: state.cluster?,
            shards: state.shards,
            members: state.members.values().cloned().collect(),
            replication_factor: state.replication_factor,
            placements: state.placements.clone(),
            founding: state.founding.clone(),
            moving: state.moving.clone(),
            leaving: state.leaving.clone(),
            version,
        })
    }

    /// With which voters a group may be created, by any of them: those that the founders agreed on. Others
    /// never, or two logs could begin in two ways. If one of them has been replaced or has left, the group
    /// exists already, or has lost its quorum before it did.
    pub fn founding(&self, group: GroupId) -> Option<&Placement> {
        let placement = self.founding.iter().find(|placement| placement.group == group)?;
        placement.replicas.iter().all(|node| self.is_member(*node)).then_some(placement)
    }

    /// Whether a node may hold a replica of the group that counts: it is to, or it was and the group has
    /// not settled without it.
    pub fn may_hold(&self, node: NodeId, group: GroupId) -> bool {
        let is_wanted = self.placement(group).is_some_and(|placement| placement.is_on(node));
        is_wanted || self.moving.get(&group).is_some_and(|nodes| nodes.contains(&node))
    }

    pub fn is_member(&self, node: NodeId) -> bool {
        self.members.iter().any(|member| member.node == node)
    }

    pub fn placement(&self, group: GroupId) -> Option<&Placement> {
        self.placements.iter().find(|placement| placement.group == group)
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
