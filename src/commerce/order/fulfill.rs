//! Sending what was ordered, all at once or in parts.

use super::{Action, FULFILLMENTS_MAX, Fact, Rejection, saga::Saga};
use crate::commerce::stock::Leg;
use std::collections::BTreeMap;

impl Saga<'_> {
    pub(super) fn fulfill(&mut self, items: Vec<Leg>, tracking: Option<String>) -> Result<(), Rejection> {
        self.may(Action::Fulfill)?;
        let left = self.draft.state.left_to_fulfill();
        let items = self.choose(Action::Fulfill, items, &left)?;
        let sends: u64 = items.iter().map(|item| u64::from(item.quantity)).sum();
        let completes = sends == left.iter().map(|left| u64::from(*left)).sum::<u64>();
        // The last one completes the order, so that none is ever left half sent.
        if !completes && self.draft.state.shipping.fulfillments.len() + 1 >= FULFILLMENTS_MAX {
            return Err(Rejection::TooManyFulfillments { max: FULFILLMENTS_MAX });
        }
        self.emit(Fact::Fulfilled { items, tracking });
        Ok(())
    }

    /// What a client names, merged per SKU and sorted, if no more of it is asked for than is
    /// left; everything that is left, if it names nothing.
    pub(super) fn choose(&self, action: Action, named: Vec<Leg>, left: &[u32]) -> Result<Vec<Leg>, Rejection> {
        let legs = self.draft.state.reservations.iter().zip(left.iter().copied());
        if named.is_empty() {
            let all = legs.filter(|(_, left)| *left > 0);
            return Ok(all.map(|(leg, left)| Leg { sku: leg.sku.clone(), quantity: left }).collect());
        }
        let mut asked: BTreeMap<String, u64> = BTreeMap::new();
        for item in named {
            if item.quantity == 0 {
                return Err(Rejection::Invalid { detail: format!("a quantity of {} is 0", item.sku) });
            }
            *asked.entry(item.sku).or_default() += u64::from(item.quantity);
        }
        let left: BTreeMap<&str, u32> = legs.map(|(leg, left)| (leg.sku.as_str(), left)).collect();
        let check = |(sku, asked): (String, u64)| match left.get(sku.as_str()) {
            None => Err(Rejection::NotInOrder { sku }),
            Some(left) if u64::from(*left) < asked => Err(Rejection::MoreThanLeft { sku, asked, left: *left, action }),
            Some(_) => Ok(Leg { sku, quantity: u32::try_from(asked).unwrap_or(u32::MAX) }),
        };
        asked.into_iter().map(check).collect()
    }
}
