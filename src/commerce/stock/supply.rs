//! What people change: how many there are, and how many may be owed.

use super::{Event, ON_HAND_MAX, Rejection, Reply, State, Stock, serve::After};
use crate::entity::{Context, Decision};

pub(super) fn put(state: &State, on_hand: u64, backorder_limit: u64, context: &Context<'_>) -> Decision<Stock> {
    if on_hand > ON_HAND_MAX {
        return Decision::reject(Rejection::TooMany { on_hand_max: ON_HAND_MAX });
    }
    if on_hand < state.levels.reserved {
        return Decision::reject(Rejection::BelowReserved { on_hand, reserved: state.levels.reserved });
    }
    let mut after = After::of(state);
    after.levels.put(on_hand, backorder_limit);
    // A repeated PUT changes nothing and leaves no trace.
    if after.levels == state.levels {
        return Decision::reply(Reply::Levels(after.levels));
    }
    after.events.push(Event::Put { on_hand, backorder_limit, previous: state.last_supply });
    after.serve(context).accept_with_levels()
}

pub(super) fn adjust(state: &State, delta: i64, reason: String, context: &Context<'_>) -> Decision<Stock> {
    if !state.levels.listed {
        return Decision::reject(Rejection::NotFound);
    }
    let available = state.levels.available().max(0) as u64;
    // What is held stays: it may be taken away from nobody.
    let on_hand = state.levels.on_hand.checked_add_signed(delta).filter(|on_hand| *on_hand >= state.levels.reserved);
    let Some(on_hand) = on_hand else {
        return Decision::reject(Rejection::InsufficientStock { available });
    };
    if on_hand > ON_HAND_MAX {
        return Decision::reject(Rejection::TooMany { on_hand_max: ON_HAND_MAX });
    }
    let mut after = After::of(state);
    after.levels.adjust(delta);
    let (left, limit) = (after.levels.available(), state.levels.backorder_limit);
    // Whoever adds may be short even so: the limit may have been lowered under those who wait.
    if delta < 0 && left < 0 && left.unsigned_abs() > limit {
        return Decision::reject(Rejection::BelowBackorderLimit { short: left.unsigned_abs(), limit });
    }
    after.events.push(Event::Adjusted { delta, reason, previous: state.last_supply });
    after.serve(context).accept_with_levels()
}
