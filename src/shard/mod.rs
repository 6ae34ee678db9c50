//! Shards: where entities live.
//!
//! A shard is one Raft group. Every replica applies its log to an [`machine::ShardMachine`]; the
//! replica that leads (the *owner*) also runs a `session`: entity actors that decide, a proposer
//! that packs their decisions into log entries, and the delivery of effects, timers and tasks.
//!
//! ```text
//! router ─▶ host ─▶ session ─▶ entity actor: decide ─▶ proposer ─▶ replication
//!                      ▲                                               │ committed
//!   outbox · timers · tasks ◀──────── machine: apply (evolve) ◀────────┘
//! ```
//!
//! GAPLESS: a change carries the version it was decided on, and apply refuses a mismatch.
//! OWN-TERM-FIRST: a session starts only after the machine applied an entry of the owner's term,
//! and ends with the term; its actors are discarded with it.

mod actor;
mod applied;
mod audit;
pub mod backup;
mod chain;
mod clock;
mod dead_letters;
mod entry;
mod gate;
mod host;
mod inspection;
mod keys;
mod ledger;
#[cfg(feature = "sabotage")]
mod leftover;
mod lists;
mod machine;
mod options;
mod outbox;
mod overlay;
mod patience;
mod proposer;
mod registry;
mod request;
mod router;
mod session;
mod snapshot;
mod tap;
mod task_queue;
mod tasks;
mod timers;

pub use audit::Broken;
pub use chain::{Compared, Mark, StateHash};
pub use clock::{Clock, ClockHand};
pub use dead_letters::{EffectId, InvalidEffectId};
pub use host::{Parts, SEGMENTS_HELD_MAX, ShardHost};
pub use inspection::{
    Answer, Ask, DeadEffect, DeadLetterStatus, PAGE_MAX, Resolution, ShardRequest, TaskState, TaskStatus,
};
pub use ledger::LogPlace;
pub use lists::{ENTRIES_MAX, ListEntry, ListPart, ListQuery, ListRequest};
pub use machine::{Found, ShardMachine};
pub use options::Options;
pub use registry::{Registry, TaskContext, TaskError, typed_handler};
pub use request::{Cause, CommandReply, CommandRequest, Query, QueryReply, QueryRequest, StoredEvent, StoredState};
pub use router::{Router, Routes};
pub use tap::{Tap, Tapped};
pub use task_queue::{InvalidQueue, Queues, TaskQueue};

/// Milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}
