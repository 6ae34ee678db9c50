//! The runtime as its users hold it: [`Cluster`], its builder, and references to entities.
//!
//! `node` wires the parts of one node together and takes them apart in order; nothing below this
//! module knows more than its own neighbours.

mod audit;
mod builder;
mod entity_ref;
mod gateway;
mod handle;
mod inspection;
mod leadership;
mod node;
mod receipt;
mod status;
mod types;

pub use crate::shard::{
    DeadEffect, DeadLetterStatus, EffectId, InvalidEffectId, InvalidQueue, Mark, Place, StateHash, TaskContext,
    TaskError, TaskQueue, TaskState, TaskStatus,
};
pub use audit::{Finding, ShardHash, Violation};
pub use builder::{Builder, StartError};
pub use entity_ref::EntityRef;
pub use handle::Cluster;
pub use inspection::{Page, ResolveError, Resolved};
pub use receipt::{InvalidReceipt, ReceiptStatus, Verdict};
pub use types::*;
