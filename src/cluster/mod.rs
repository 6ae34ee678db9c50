//! The runtime as its users hold it: [`Cluster`], its builder, and references to entities.

mod handle;
mod types;

pub use handle::{Builder, Cluster, EntityRef, StartError, TaskContext, TaskError};
pub use types::*;
