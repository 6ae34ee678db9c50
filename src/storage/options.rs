use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

/// Bounds of one store. Sizes on disk (records, values) are part of the format and not options.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Memory sled may use for pages.
    pub cache_bytes_max: ByteSize,
    /// Writes that may wait for the writer thread; past it `submit` blocks.
    pub queue_writes_max: usize,
    /// Bytes that may wait for the writer thread; past it `submit` blocks. A write larger than
    /// this waits until the queue is empty.
    pub queue_bytes_max: ByteSize,
    /// Bytes that one group commit takes from the queue (at least one write, whatever its size).
    pub group_bytes_max: ByteSize,
    /// Read the whole state store at open and compare it with its recorded digest. Without it a
    /// value that sled lost silently goes unnoticed; a damaged one is still found when it is read.
    pub verify_state_at_open: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cache_bytes_max: ByteSize::mib(64),
            queue_writes_max: 8192,
            queue_bytes_max: ByteSize::mib(32),
            group_bytes_max: ByteSize::mib(4),
            verify_state_at_open: true,
        }
    }
}
