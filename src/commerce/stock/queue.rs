//! Those who wait for a SKU to come in, in the order of their arrival.

use super::Owner;
use serde::{Deserialize, Serialize, Serializer};
use std::collections::BTreeMap;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    pub owner: Owner,
    pub quantity: u32,
    /// Legs of the owner's chain before this one.
    pub done: u16,
}

/// First come, first served; anyone may leave. Stored as a plain list.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(from = "Vec<Waiting>")]
pub struct Queue {
    by_arrival: BTreeMap<u64, Waiting>,
    by_owner: BTreeMap<Owner, u64>,
}

impl Queue {
    pub fn len(&self) -> usize {
        self.by_arrival.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_arrival.is_empty()
    }

    pub fn get(&self, owner: &Owner) -> Option<&Waiting> {
        self.by_arrival.get(self.by_owner.get(owner)?)
    }

    /// From the first to come to the last.
    pub fn iter(&self) -> impl Iterator<Item = &Waiting> {
        self.by_arrival.values()
    }

    /// Sum of what is waited for.
    pub fn units(&self) -> u64 {
        self.iter().map(|waiting| u64::from(waiting.quantity)).sum()
    }

    pub(super) fn push(&mut self, waiting: Waiting) {
        self.remove(&waiting.owner);
        let arrival = self.by_arrival.last_key_value().map_or(0, |(last, _)| last + 1);
        self.by_owner.insert(waiting.owner.clone(), arrival);
        self.by_arrival.insert(arrival, waiting);
    }

    pub(super) fn remove(&mut self, owner: &Owner) -> Option<Waiting> {
        let arrival = self.by_owner.remove(owner)?;
        self.by_arrival.remove(&arrival)
    }
}

/// Arrival numbers are only an order, so that a queue that was stored is the same queue.
impl PartialEq for Queue {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Queue {}

impl Serialize for Queue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl From<Vec<Waiting>> for Queue {
    fn from(stored: Vec<Waiting>) -> Self {
        let mut queue = Self::default();
        stored.into_iter().for_each(|waiting| queue.push(waiting));
        queue
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entity::codec;

    fn queue(owners: &[&str]) -> Queue {
        let waiting = |id: &&str| Waiting { owner: Owner::order(id), quantity: 3, done: 0 };
        owners.iter().map(waiting).collect::<Vec<_>>().into()
    }

    fn ids(queue: &Queue) -> Vec<&str> {
        queue.iter().map(|waiting| waiting.owner.id()).collect()
    }

    #[test]
    fn who_leaves_changes_no_ones_place() {
        let mut queue = queue(&["ord_b", "ord_a", "ord_c"]);
        assert_eq!((ids(&queue), queue.units()), (vec!["ord_b", "ord_a", "ord_c"], 9));
        assert!(queue.remove(&Owner::order("ord_b")).is_some());
        assert!(queue.remove(&Owner::order("ord_b")).is_none());
        queue.push(Waiting { owner: Owner::order("ord_b"), quantity: 1, done: 0 });
        assert_eq!((ids(&queue), queue.len()), (vec!["ord_a", "ord_c", "ord_b"], 3));
    }

    #[test]
    fn a_stored_queue_keeps_its_order_after_some_have_left() {
        let mut queue = queue(&["ord_b", "ord_a", "ord_c"]);
        queue.remove(&Owner::order("ord_b"));
        let bytes = codec::encode("state", &queue).expect("encodes");
        let stored: Queue = codec::decode("state", &bytes).expect("decodes");
        assert_eq!((ids(&stored), &stored), (vec!["ord_a", "ord_c"], &queue));
    }
}
