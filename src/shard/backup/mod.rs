//! A shard's part in backups.

mod types;

pub use types::{
    BackupId, CHUNK_BYTES, CHUNK_PAIRS, Origin, Pairs, RANGES, ShardHead, Sum, decode_chunk, encode_chunk,
};
