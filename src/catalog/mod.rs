//! Who is in the cluster and which shard lives where.

mod types;

pub use types::{ClusterId, InstanceId, Member, NodeId};
