//! Timing and bounds of replication.

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// How often an owner tells its replicas that it is alive.
    #[serde(with = "humantime_serde")]
    pub heartbeat: Duration,
    /// A replica that hears nothing for a random time between this
    #[serde(with = "humantime_serde")]
    pub election_min: Duration,
    /// and this stands for election.
    #[serde(with = "humantime_serde")]
    pub election_max: Duration,
    /// Entries kept in memory per group; older ones are read back from the journal.
    pub log_cache: ByteSize,
    /// Entries kept behind a checkpoint for replicas that lag; past it they get a snapshot.
    pub entries_kept: u64,
    /// Most bytes of entries in one append request.
    pub append_bytes_max: ByteSize,
    /// Bytes per snapshot chunk.
    pub snapshot_chunk: ByteSize,
    /// How long the transfer of one snapshot may take.
    #[serde(with = "humantime_serde")]
    pub snapshot_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(200),
            election_min: Duration::from_millis(600),
            election_max: Duration::from_millis(800),
            log_cache: ByteSize::mib(4),
            entries_kept: 128,
            append_bytes_max: ByteSize::kib(512),
            snapshot_chunk: ByteSize::kib(128),
            snapshot_timeout: Duration::from_secs(120),
        }
    }
}
