//! The reservations that are open on a SKU, by owner and by deadline.
//!
//! A hot SKU has thousands of them. Every step finds its one in O(log n), and a sweep finds those
//! whose time is up without looking at the others. Stored as a plain list; the index of deadlines
//! is made anew when it is read.

use super::Owner;
use serde::{Deserialize, Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reservation {
    pub quantity: u32,
    /// `None`: until its owner says otherwise.
    pub until_ms: Option<u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "Vec<Held>")]
pub struct Open {
    by_owner: BTreeMap<Owner, Reservation>,
    /// Only those that have a deadline.
    by_deadline: BTreeSet<(u64, Owner)>,
}

/// One reservation as it is stored and shown.
#[derive(Serialize, Deserialize)]
struct Held {
    owner: Owner,
    quantity: u32,
    until_ms: Option<u64>,
}

impl Open {
    pub fn len(&self) -> usize {
        self.by_owner.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_owner.is_empty()
    }

    pub fn get(&self, owner: &Owner) -> Option<&Reservation> {
        self.by_owner.get(owner)
    }

    pub fn contains(&self, owner: &Owner) -> bool {
        self.by_owner.contains_key(owner)
    }

    /// Sum of what is held.
    pub fn units(&self) -> u64 {
        self.by_owner.values().map(|held| u64::from(held.quantity)).sum()
    }

    /// Those whose deadline has come, the earliest first.
    pub fn due(&self, now_ms: u64) -> impl Iterator<Item = &Owner> {
        self.by_deadline.iter().take_while(move |(until_ms, _)| *until_ms <= now_ms).map(|(_, owner)| owner)
    }

    /// The earliest deadline but for the first `gone`.
    pub fn deadline_after(&self, gone: usize) -> Option<u64> {
        self.by_deadline.iter().nth(gone).map(|(until_ms, _)| *until_ms)
    }

    pub(super) fn insert(&mut self, owner: Owner, held: Reservation) {
        self.remove(&owner);
        self.by_deadline.extend(held.until_ms.map(|until_ms| (until_ms, owner.clone())));
        self.by_owner.insert(owner, held);
    }

    pub(super) fn remove(&mut self, owner: &Owner) -> Option<Reservation> {
        let held = self.by_owner.remove(owner)?;
        if let Some(until_ms) = held.until_ms {
            self.by_deadline.remove(&(until_ms, owner.clone()));
        }
        Some(held)
    }
}

impl Serialize for Open {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let held = |(owner, held): (&Owner, &Reservation)| Held {
            owner: owner.clone(),
            quantity: held.quantity,
            until_ms: held.until_ms,
        };
        serializer.collect_seq(self.by_owner.iter().map(held))
    }
}

impl From<Vec<Held>> for Open {
    fn from(stored: Vec<Held>) -> Self {
        let mut open = Self::default();
        for Held { owner, quantity, until_ms } in stored {
            open.insert(owner, Reservation { quantity, until_ms });
        }
        open
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entity::codec;

    fn open() -> Open {
        let mut open = Open::default();
        for (id, until_ms) in [("ord_1", Some(30)), ("ord_2", Some(10)), ("ord_3", None), ("ord_4", Some(20))] {
            open.insert(Owner::order(id), Reservation { quantity: 2, until_ms });
        }
        open
    }

    #[test]
    fn those_whose_time_is_up_are_found_the_earliest_first() {
        let mut open = open();
        let due = |open: &Open, now_ms| open.due(now_ms).map(|owner| owner.id().to_owned()).collect::<Vec<_>>();
        assert_eq!(due(&open, 20), ["ord_2", "ord_4"]);
        assert_eq!(
            (open.deadline_after(0), open.deadline_after(2), open.deadline_after(3)),
            (Some(10), Some(30), None)
        );
        open.remove(&Owner::order("ord_2"));
        assert_eq!((due(&open, 20), open.units()), (vec!["ord_4".to_owned()], 6));
        // A new deadline replaces the old one.
        open.insert(Owner::order("ord_4"), Reservation { quantity: 2, until_ms: Some(40) });
        assert_eq!((due(&open, 20), open.len()), (Vec::new(), 3));
    }

    #[test]
    fn what_is_stored_comes_back_with_its_deadlines() {
        let bytes = codec::encode("state", &open()).expect("encodes");
        assert_eq!(codec::decode::<Open>("state", &bytes).expect("decodes"), open());
    }

    #[test]
    fn it_can_be_shown_as_json() {
        let json = serde_json::to_value(open()).expect("JSON");
        assert_eq!(json[0], serde_json::json!({"owner": {"order": "ord_1"}, "quantity": 2, "until_ms": 30}));
    }
}
