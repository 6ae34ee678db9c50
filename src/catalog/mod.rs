//! Who is in the cluster and which shard lives where.
//!
//! The catalog is an entity of its own ([`Catalog`], id [`CATALOG_ID`]) on a Raft group of its own:
//! roster and shard map change only through consensus. [`bootstrap`] turns a seed list into one
//! cluster, in whatever order nodes start; [`Identity`] is what a node keeps of it on disk.

pub mod bootstrap;
mod entity;
mod identity;
mod placement;
mod types;

pub use entity::{CATALOG_ID, Catalog, Command, Founding, Rejection, Reply, State};
pub use identity::{Identity, View, load_instance};
pub use placement::plan;
pub(crate) use types::bits128;
pub use types::{ClusterId, InstanceId, Member, NodeId, Placement};
