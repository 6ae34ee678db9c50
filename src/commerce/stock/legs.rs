//! One leg of an owner's chain: hold it, take it, give it back.

use super::{
    Answer, Command, Event, Reply, Route, State, Stock, Undo, UndoLeg,
    serve::{After, sweep_at},
    state::Admission,
};
use crate::entity::{Context, Decision, Effect};

pub(super) fn reserve(
    state: &State,
    route: Route,
    until_ms: Option<u64>,
    may_wait: bool,
    context: &Context<'_>,
) -> Decision<Stock> {
    let Some(leg) = route.leg_of(context.id) else {
        return Decision::reply(Reply::Ack);
    };
    let (owner, quantity, done) = (route.owner.clone(), leg.quantity, route.done);
    let sku = context.id.to_owned();
    // Granted before: the answer may have been lost, so pass it on again.
    if state.open.contains(&owner) {
        return Decision::reply(Reply::Ack).with(next_reserve(route, until_ms, may_wait));
    }
    if state.waiting.get(&owner).is_some() {
        return Decision::reply(Reply::Ack).with(owner.tell(Answer::Backordered { done, sku }));
    }
    match state.admit(quantity, until_ms, may_wait, context.now_ms) {
        Admission::Hold => {
            let timer = until_ms.and_then(|until_ms| state.earlier_sweep(until_ms)).map(sweep_at);
            let held = Event::Reserved { owner, quantity, until_ms };
            let next = next_reserve(route, until_ms, may_wait);
            Decision::accept(vec![held], Reply::Ack).with_all(timer).with(next)
        }
        Admission::Wait => {
            let answer = owner.tell(Answer::Backordered { done, sku });
            Decision::accept(vec![Event::Backordered { owner, quantity, done }], Reply::Ack).with(answer)
        }
        Admission::Refuse(refusal) => {
            Decision::reply(Reply::Ack).with(owner.tell(Answer::Refused { done, sku, refusal }))
        }
    }
}

fn next_reserve(route: Route, until_ms: Option<u64>, may_wait: bool) -> Effect {
    match route.next() {
        Ok((sku, route)) => Effect::tell::<Stock>(sku, &Command::Reserve { route, until_ms, may_wait }),
        Err(owner) => owner.tell(Answer::Reserved),
    }
}

pub(super) fn commit(state: &State, route: Route, context: &Context<'_>) -> Decision<Stock> {
    if route.leg_of(context.id).is_none() {
        return Decision::reply(Reply::Ack);
    }
    let owner = route.owner.clone();
    let mut after = After::of(state);
    let Some(held) = state.open.get(&owner) else {
        after.effects.push(owner.tell(Answer::CommitRefused { done: route.done }));
        return after.accept();
    };
    after.open -= 1;
    if held.until_ms.is_some_and(|until_ms| until_ms <= context.now_ms) {
        // Past its deadline, though not swept yet: it ends here.
        after.levels.release(u64::from(held.quantity));
        after.effects.push(owner.tell(Answer::CommitRefused { done: route.done }));
        after.events.push(Event::Expired { owner });
        return after.serve(context).accept();
    }
    after.levels.commit(u64::from(held.quantity));
    after.events.push(Event::Committed { owner });
    after.effects.push(match route.next() {
        Ok((sku, route)) => Effect::tell::<Stock>(sku, &Command::Commit(route)),
        Err(owner) => owner.tell(Answer::Committed),
    });
    // It may have been the number of open reservations that kept others waiting.
    after.serve(context).accept()
}

pub(super) fn give_back(state: &State, undo: Undo, context: &Context<'_>) -> Decision<Stock> {
    let Some(leg) = undo.legs.first().filter(|leg| leg.sku == context.id) else {
        return Decision::reply(Reply::Ack);
    };
    let mut after = After::of(state);
    undo_leg(&mut after, state, &undo, leg);
    after.effects.push(match undo.next() {
        Ok((sku, undo)) => Effect::tell::<Stock>(sku, &Command::Undo(undo)),
        Err(owner) => owner.tell(Answer::Undone),
    });
    after.serve(context).accept()
}

fn undo_leg(after: &mut After<'_>, state: &State, undo: &Undo, leg: &UndoLeg) {
    let owner = undo.owner.clone();
    let quantity = leg.quantity;
    if leg.restock {
        if state.levels.committed >= u64::from(quantity) {
            after.levels.restock(u64::from(quantity));
            after.events.push(Event::Restocked { owner, quantity });
        }
    } else if let Some(held) = state.open.get(&owner) {
        after.levels.release(u64::from(held.quantity));
        after.open -= 1;
        after.events.push(Event::Released { owner });
    } else if let Some(waiting) = state.waiting.get(&owner) {
        after.levels.backordered -= u64::from(waiting.quantity);
        after.gone = Some(owner.clone());
        after.events.push(Event::Withdrawn { owner });
    }
    // Otherwise it ran out meanwhile and is gone already.
}
