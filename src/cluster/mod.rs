//! The runtime as its users hold it: [`Cluster`], its builder, and references to entities.
//!
//! `node` wires the parts of one node together and takes them apart in order; nothing below this
//! module knows more than its own neighbours.

mod builder;
mod entity_ref;
mod faults;
mod gateway;
mod handle;
mod inspection;
mod leadership;
mod node;
mod status;
mod types;

pub use crate::shard::{
    DeadEffect, DeadLetterStatus, EffectId, InvalidEffectId, InvalidQueue, TaskContext, TaskError, TaskQueue,
    TaskState, TaskStatus,
};
pub use builder::{Builder, StartError};
pub use entity_ref::EntityRef;
pub use faults::{FAULT_DURATION_MAX, FAULTS_MAX, FaultError, FaultKind, FaultStatus, FaultSwitch};
pub use handle::Cluster;
pub use inspection::{Page, ResolveError, Resolved};
pub use types::*;
