use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

/// Bounds of one store. Sizes on disk (records, values) are part of the format and not options.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Memory sled may use for pages.
    pub cache_bytes_max: ByteSize,
    /// Size of the journal's segments, allocated in advance. At least one is in use, and as many as
    /// hold entries that no checkpoint covers yet.
    pub segment_bytes: ByteSize,
    /// Writes that may wait for the writer thread; past it `submit` blocks.
    pub queue_writes_max: usize,
    /// Bytes that may wait for the writer thread; past it `submit` blocks. A write larger than
    /// this waits until the queue is empty.
    pub queue_bytes_max: ByteSize,
    /// Bytes that one group commit takes from the queue (at least one write, whatever its size).
    pub group_bytes_max: ByteSize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cache_bytes_max: ByteSize::mib(64),
            segment_bytes: ByteSize::mib(8),
            queue_writes_max: 8192,
            queue_bytes_max: ByteSize::mib(32),
            group_bytes_max: ByteSize::mib(4),
        }
    }
}
