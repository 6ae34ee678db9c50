//! Bounds and timing of shards.

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// How long a command or a linearizable read is tried before the caller gets an error.
    #[serde(with = "humantime_serde")]
    pub command_timeout: Duration,
    /// Client commands under way per shard; past it they are answered `overloaded`.
    pub commands_in_flight: usize,
    /// Commands under way per entity; past it they are answered `overloaded`.
    pub commands_per_entity: usize,
    /// Entity actors alive per shard; past it idle ones are passivated, least recently used first.
    pub active_entities: usize,
    /// An entity actor without work for this long is passivated.
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Duration,
    /// Effects waiting for delivery per shard; past it client commands are answered `overloaded`.
    pub outbox: usize,
    /// Tells under way per shard.
    pub tells_in_flight: usize,
    /// Task attempts running at once per handler on this node, unless its queue says otherwise.
    pub tasks_in_flight: usize,
    /// What its receiver refuses (its type is unknown, it fails each time, it cannot read it) becomes
    /// a dead letter after so many attempts,
    pub refusals_max: u32,
    /// and not before this long after the first.
    #[serde(with = "humantime_serde")]
    pub refusals_for: Duration,
    /// Decided changes packed into one log entry, by their number and
    pub pack_count: usize,
    /// by their size.
    pub pack_bytes: ByteSize,
    /// Log entries under way per shard; past it changes gather for the next entry.
    pub entries_in_flight: usize,
    /// Applied entities cached per shard.
    pub entities_cached: usize,
    /// A checkpoint is taken after this many changed bytes,
    pub checkpoint_bytes: ByteSize,
    /// or this long after a change.
    #[serde(with = "humantime_serde")]
    pub checkpoint_interval: Duration,
    /// Idempotency keys are kept at least this long.
    #[serde(with = "humantime_serde")]
    pub idempotency_retention: Duration,
    /// Receipts of the last so many log entries of a shard can be checked; a multiple of 64 is kept.
    pub receipts_kept: u64,
    /// How often this node looks at what it has applied, and compares it with its peers; 0s: never.
    #[serde(with = "humantime_serde")]
    pub audit_interval: Duration,
}

/// Changes that may wait for a checkpoint, in sizes of one.
const DIRTY_FACTOR: u64 = 64;

impl Options {
    /// Changes that may wait for a checkpoint: past it clients are refused.
    pub(super) fn dirty_bytes_max(&self) -> usize {
        usize::try_from(self.checkpoint_bytes.as_u64() * DIRTY_FACTOR).unwrap_or(usize::MAX)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            command_timeout: Duration::from_millis(2500),
            commands_in_flight: 4096,
            commands_per_entity: 2048,
            active_entities: 10_000,
            idle_timeout: Duration::from_secs(30),
            outbox: 50_000,
            tells_in_flight: 1024,
            tasks_in_flight: 1024,
            refusals_max: 100,
            refusals_for: Duration::from_secs(15 * 60),
            pack_count: 512,
            pack_bytes: ByteSize::kib(48),
            entries_in_flight: 1,
            entities_cached: 10_000,
            checkpoint_bytes: ByteSize::kib(512),
            checkpoint_interval: Duration::from_secs(30),
            idempotency_retention: Duration::from_secs(24 * 3600),
            receipts_kept: 1 << 20,
            audit_interval: Duration::from_secs(1),
        }
    }
}
