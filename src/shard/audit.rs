//! Looks at what a replica has applied: does every entity obey its own laws of conservation
//! ([`crate::entity::Entity::check`])? An entity that does not is frozen: it takes no commands.
//!
//! Whether an entity is frozen is a function of its applied state and of nothing else, so every
//! replica comes to the same answer without a word to the others, and so does whoever owns the
//! shard next: it looks before it lets the entity decide anything.
//!
//! What has changed is looked at soon, and all that is stored again and again, a bounded number at
//! a time. Nothing here writes.

use super::{
    applied::AppliedState,
    keys,
    machine::ShardMachine,
    registry::{EntityType, State},
};
use crate::{
    entity::{EntityKey, ShardId},
    storage::Error,
};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, HashSet},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicUsize, Ordering},
};

/// Changed entities that wait to be looked at, per shard; the sweep comes by the others.
const CHANGED_MAX: usize = 4096;
/// Frozen entities that are listed, per shard; further ones are found when they are next asked.
const FROZEN_MAX: usize = 4096;
/// Stored entities read at once.
const SCAN_STEP: usize = 16;

/// An entity whose state contradicts itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    pub entity: EntityKey,
    /// The version at which it was found.
    pub version: u64,
    pub detail: String,
    pub found_at_ms: u64,
}

#[derive(Default)]
pub struct Auditor {
    changed: Mutex<HashSet<EntityKey>>,
    frozen: Mutex<BTreeMap<EntityKey, Broken>>,
    /// How many are frozen: a command looks at this alone where none is.
    frozen_count: AtomicUsize,
    /// Where the sweep is: a key of the state, or nothing at its beginning.
    cursor: Mutex<Vec<u8>>,
}

impl Auditor {
    /// These have changed.
    pub fn note(&self, changed: Vec<EntityKey>) {
        let mut waiting = self.changed.lock();
        let room = CHANGED_MAX.saturating_sub(waiting.len());
        waiting.extend(changed.into_iter().take(room));
    }

    /// The state was replaced: what was known of it is not known of the new one.
    pub fn forget(&self) {
        self.changed.lock().clear();
        self.frozen.lock().clear();
        self.frozen_count.store(0, Ordering::Release);
        self.cursor.lock().clear();
    }

    fn take_changed(&self, limit: usize) -> Vec<EntityKey> {
        let mut waiting = self.changed.lock();
        let taken: Vec<EntityKey> = waiting.iter().take(limit).cloned().collect();
        for key in &taken {
            waiting.remove(key);
        }
        taken
    }

    fn settle(&self, shard: ShardId, key: &EntityKey, version: u64, outcome: Result<(), String>) {
        let mut frozen = self.frozen.lock();
        match outcome {
            Ok(()) if frozen.is_empty() => return,
            Ok(()) => {
                if frozen.remove(key).is_some() {
                    tracing::info!(%shard, entity = %key, version, "an entity obeys its laws again and is no longer frozen");
                }
            }
            Err(detail) => {
                let known = frozen.contains_key(key);
                if !known {
                    metrics::counter!("quorate_invariant_violations_total", "invariant" => "conservation").increment(1);
                    tracing::error!(%shard, entity = %key, version, detail, "an entity breaks its own laws; it is frozen");
                }
                if known || frozen.len() < FROZEN_MAX {
                    let found_at_ms = frozen.get(key).map_or_else(super::now_ms, |known| known.found_at_ms);
                    frozen.insert(key.clone(), Broken { entity: key.clone(), version, detail, found_at_ms });
                }
            }
        }
        self.frozen_count.store(frozen.len(), Ordering::Release);
    }
}

/// Whether a state obeys its laws; one that makes its check panic does not.
fn check(entity_type: &dyn EntityType, state: &State) -> Result<(), String> {
    let checked = catch_unwind(AssertUnwindSafe(|| entity_type.check(state)));
    checked.unwrap_or_else(|_| Err("its check panicked".into()))
}

impl ShardMachine {
    fn shard(&self) -> ShardId {
        ShardId(self.group().0)
    }

    /// Looks at a state that an entity is about to decide on; true if it may.
    pub fn examine(&self, key: &EntityKey, version: u64, state: &State) -> bool {
        let Some(entity_type) = self.registry().entity_type(&key.entity_type) else { return true };
        let outcome = check(&**entity_type, state);
        let fine = outcome.is_ok();
        self.auditor().settle(self.shard(), key, version, outcome);
        fine
    }

    pub fn is_frozen(&self, key: &EntityKey) -> bool {
        let auditor = self.auditor();
        auditor.frozen_count.load(Ordering::Acquire) > 0 && auditor.frozen.lock().contains_key(key)
    }

    /// How many entities are frozen.
    pub fn frozen_count(&self) -> usize {
        self.auditor().frozen_count.load(Ordering::Acquire)
    }

    /// The frozen entities, by key.
    pub fn frozen(&self) -> Vec<Broken> {
        self.auditor().frozen.lock().values().cloned().collect()
    }

    /// Looks at up to `limit` of the entities that have changed.
    pub fn audit_changed(&self, limit: usize) -> Result<(), Error> {
        let changed = self.auditor().take_changed(limit);
        changed.iter().try_for_each(|key| self.audit(key))
    }

    /// Looks at about the next `limit` of all stored entities.
    pub fn audit_stored(&self, limit: usize) -> Result<(), Error> {
        let mut looked_at = 0;
        while looked_at < limit {
            let start = self.auditor().cursor.lock().clone();
            let start = if start.is_empty() { b"e".to_vec() } else { start };
            let rows = self.look(|state| state.overlay.scan(&start, b"f", SCAN_STEP))?;
            let Some((last, _)) = rows.last() else {
                // From the beginning, the next time.
                self.auditor().cursor.lock().clear();
                return Ok(());
            };
            *self.auditor().cursor.lock() = [last.as_slice(), &[0]].concat();
            looked_at += rows.len();
            rows.iter().filter_map(|(key, _)| keys::parse_entity(key)).try_for_each(|key| self.audit(&key))?;
        }
        Ok(())
    }

    fn audit(&self, key: &EntityKey) -> Result<(), Error> {
        let Some(entity_type) = self.registry().entity_type(&key.entity_type).cloned() else { return Ok(()) };
        let outcome = self.look(|state: &AppliedState| state.with_state(key, |state| check(&*entity_type, state)))?;
        if let Some((version, outcome)) = outcome {
            self.auditor().settle(self.shard(), key, version, outcome);
        }
        Ok(())
    }
}
