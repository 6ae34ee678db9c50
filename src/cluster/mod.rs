//! The runtime as its users hold it: [`Cluster`], its builder, and references to entities.
//!
//! `node` wires the parts of one node together and takes them apart in order; nothing below this
//! module knows more than its own neighbours.

mod audit;
pub mod backup;
mod builder;
mod entity_ref;
mod events;
mod extension;
mod faults;
mod gateway;
mod handle;
mod inspection;
mod leadership;
mod leaving;
mod lists;
mod node;
mod receipt;
mod replicas;
mod status;
#[cfg(test)]
mod tests;
mod types;

pub use crate::entity::Place;
pub use crate::shard::{
    Clock, ClockHand, DeadEffect, DeadLetterStatus, EffectId, InvalidEffectId, InvalidQueue, LogPlace, Mark, StateHash,
    Tap, Tapped, TaskContext, TaskError, TaskQueue, TaskState, TaskStatus,
};
pub use audit::{Finding, ShardHash, Violation};
pub use builder::{Builder, StartError, Surroundings};
pub use entity_ref::EntityRef;
pub use events::{
    ClusterEvent, EVENTS_KEPT, EventId, Fault, FaultChange, Feed, InvalidEventId, LeaderChange, MemberChange,
    MemberSeen, News, STANDING_MAX, ShardSeen, Snapshot as ClusterSnapshot,
};
pub use extension::{Extension, NodeHandle};
pub use faults::{
    FAULT_DURATION_MAX, FAULTS_MAX, FaultDirection, FaultError, FaultKind, FaultPath, FaultStatus, FaultSwitch,
};
pub use handle::Cluster;
pub use inspection::{Page, ResolveError, Resolved};
pub use leaving::{Removal, RemoveError};
pub use lists::{Listed, Listing};
pub use receipt::{InvalidReceipt, ReceiptStatus, Verdict};
pub use types::*;
