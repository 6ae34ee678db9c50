//! Units that come back from customers. As every chain over SKUs it passes from stock to stock and
//! answers the order at its end.
//!
//! A stock takes a return in once, however often it is told: it remembers the last
//! [`RETURNS_REMEMBERED`] of them. (The runtime delivers every effect once in effect as it is;
//! this holds where somebody sends it again.)

use super::{Command, Event, Reply, Restock, State, Stock, serve::After};
use crate::commerce::order::{self, Order};
use crate::entity::{Context, Decision, Effect};

/// The last returns that a stock remembers having taken in.
pub const RETURNS_REMEMBERED: usize = 128;

pub(super) fn restock(state: &State, mut restock: Restock, context: &Context<'_>) -> Decision<Stock> {
    let Some(leg) = restock.legs.first().filter(|leg| leg.sku == context.id) else {
        return Decision::reply(Reply::Ack);
    };
    let (order_id, return_id, quantity) = (restock.order_id.clone(), restock.return_id.clone(), leg.quantity);
    let mut after = After::of(state);
    if !state.returns.contains(&return_id) {
        after.levels.take_back(u64::from(quantity));
        after.events.push(Event::Returned { order_id: order_id.clone(), return_id: return_id.clone(), quantity });
    }
    restock.legs.remove(0);
    // Passed on even when it is known here: it may not be known further on.
    after.effects.push(match restock.legs.first().map(|leg| leg.sku.clone()) {
        Some(sku) => Effect::tell::<Stock>(sku, &Command::Restock(restock)),
        None => Effect::tell::<Order>(order_id, &order::Command::ReturnRestocked { return_id }),
    });
    after.serve(context).accept()
}

impl State {
    pub(super) fn take_in(&mut self, return_id: &str, quantity: u32) {
        self.levels.take_back(u64::from(quantity));
        if self.returns.len() >= RETURNS_REMEMBERED {
            self.returns.pop_front();
        }
        self.returns.push_back(return_id.to_owned());
    }
}
