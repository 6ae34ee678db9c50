//! `QUORATE_SABOTAGE=skip-gapless`: actors that are not discarded with their term.
//!
//! What an actor knew when it ended is what the next one of its entity begins with, whatever others
//! have made of the entity meanwhile, and whether or not the changes that it had decided were ever
//! committed.

use super::{actor::Running, registry::State};
use crate::{
    entity::EntityKey,
    sabotage::{self, Sabotage},
};
use parking_lot::Mutex;
use std::collections::BTreeMap;

/// Version, time of the last change, state: as an actor starts with them.
pub type Known = (u64, u64, State);

/// Of the process: a node has each entity once. As large as a short run makes it.
static KEPT: Mutex<BTreeMap<EntityKey, Known>> = Mutex::new(BTreeMap::new());

pub fn take(key: &EntityKey) -> Option<Known> {
    KEPT.lock().remove(key)
}

impl Drop for Running {
    fn drop(&mut self) {
        if sabotage::is(Sabotage::SkipGapless) {
            let (key, known) = self.leave();
            KEPT.lock().insert(key, known);
        }
    }
}
