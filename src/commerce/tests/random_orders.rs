//! One order, told anything in any order, from its placement to its last return. The world checks
//! on every event that its status follows the table, that `returned ≤ fulfilled ≤ ordered`, that
//! refunds stay within what was paid and that what has shipped is never compensated
//! ([`super::parcels::check`]); and that every decision made twice comes out the same.

use super::{new_order, world::World};
use crate::commerce::{
    order::{self, Order, RefundOutcome, Refusal, Reversal, Status},
    stock::Leg,
};
use crate::entity::Entity;
use proptest::{collection::vec, prelude::*};
use std::collections::BTreeSet;

const LINES: [(&str, i64); 4] = [("apple", 2), ("bread", 3), ("apple", 1), ("cheese", 1)];

/// What brings an order to its confirmation, in order.
fn confirming() -> [order::Command; 4] {
    use order::Command::{PaymentAuthorized, PaymentCaptured, StockCommitted, StockReserved};
    [StockReserved, PaymentAuthorized, StockCommitted, PaymentCaptured]
}

fn from_others() -> impl Strategy<Value = order::Command> {
    use order::Command::*;
    let reason = || "any".to_owned();
    let reversal = prop_oneof![Just(Reversal::Voided), Just(Reversal::Refunded), Just(Reversal::Declined)];
    prop_oneof![
        4 => proptest::sample::select(confirming().to_vec()),
        1 => Just(StockUndone),
        1 => reversal.prop_map(|outcome| PaymentReversed { outcome }),
        1 => Just(PaymentDeclined { reason: reason() }),
        1 => Just(PaymentUnresolved { reason: reason() }),
        1 => (0..4u16).prop_map(|done| CommitRefused { done }),
        1 => Just(ReservationExpired { sku: "bread".into() }),
        1 => (0..4u16, Just(Refusal::UnknownSku))
            .prop_map(|(done, refusal)| StockRefused { done, sku: "bread".into(), refusal }),
    ]
}

fn about_parcels() -> impl Strategy<Value = order::Command> {
    use order::Command::*;
    let sku = prop_oneof![4 => Just("apple"), 4 => Just("bread"), 4 => Just("cheese"), 1 => Just("durian")];
    let leg = (sku, 0..4u32).prop_map(|(sku, quantity)| Leg { sku: sku.into(), quantity });
    let items = prop_oneof![1 => Just(Vec::new()), 3 => vec(leg, 1..4)];
    let outcome = prop_oneof![
        3 => Just(RefundOutcome::Succeeded),
        1 => Just(RefundOutcome::Declined { reason: "declined".into() }),
        1 => Just(RefundOutcome::Unresolved { reason: "silence".into() }),
    ];
    let number = 1..5u8;
    let tries = prop_oneof![3 => Just(String::new()), 1 => (2..4u8).prop_map(|tries| format!("-{tries}"))];
    prop_oneof![
        5 => items.clone().prop_map(|items| Fulfill { items, tracking: None }),
        5 => items.prop_map(|items| Return { items, reason: None }),
        2 => Just(Cancel { reason: "any".into() }),
        1 => number.clone().prop_map(|number| ReturnRestocked { return_id: format!("ret_1_{number}") }),
        4 => (number, tries, outcome).prop_map(|(number, tries, outcome)| {
            RefundSettled { refund_id: format!("ret_1_{number}{tries}"), outcome }
        }),
    ]
}

/// Most orders get as far as their confirmation; the rest is left to chance.
fn life() -> impl Strategy<Value = Vec<order::Command>> {
    let anything = prop_oneof![1 => from_others(), 3 => about_parcels()];
    (any::<u8>(), vec(anything, 1..60)).prop_map(|(luck, rest)| {
        let mut life = if luck < 200 { confirming().to_vec() } else { Vec::new() };
        life.extend(rest);
        life
    })
}

/// Lives it, and returns the states it went through.
fn live(life: &[order::Command]) -> Vec<order::State> {
    let mut world = World::new();
    let place = order::Command::Place(Box::new(new_order(&LINES)));
    world.ask::<Order>("ord_1", &place).expect("placed");
    for command in life {
        let before = world.order("ord_1").clone();
        if world.ask::<Order>("ord_1", command).is_err() {
            assert_eq!(world.order("ord_1"), &before, "a rejection changes nothing");
        }
        world.advance(1);
    }
    let kept = &world.orders["ord_1"];
    let mut states = vec![order::State::default()];
    for event in &kept.facts {
        let mut next = states[states.len() - 1].clone();
        Order::evolve(&mut next, event);
        states.push(next);
    }
    assert_eq!(states.last(), Some(&kept.state), "replaying the history gives the live state");
    states
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn an_order_keeps_its_table_and_its_books_whatever_it_is_told(life in life()) {
        for pair in live(&life).windows(2) {
            let (from, to) = (pair[0].status, pair[1].status);
            prop_assert!(from == to || from.may_become(to), "no transition from {} to {}", from, to);
        }
    }

    /// Money and goods of one return go separate ways, and each arrives once.
    #[test]
    fn a_return_is_never_refunded_or_restocked_twice(life in life()) {
        for pair in live(&life).windows(2) {
            for (before, after) in pair[0].shipping.returns.iter().zip(&pair[1].shipping.returns) {
                prop_assert!(!before.restocked || after.restocked);
                prop_assert!(before.refund != order::Refund::Succeeded || after.refund == order::Refund::Succeeded);
                prop_assert_eq!((&before.lines, before.amount), (&after.lines, after.amount));
            }
        }
    }
}

/// The random lives reach everything there is to reach after confirmation.
#[test]
fn random_lives_visit_every_status_after_confirmation() {
    use proptest::{strategy::ValueTree, test_runner::TestRunner};
    let mut runner = TestRunner::deterministic();
    let mut visited = BTreeSet::new();
    for _ in 0..300 {
        let life = life().new_tree(&mut runner).expect("a life").current();
        visited.extend(live(&life).iter().map(|state| state.status.name()));
    }
    use Status::*;
    for status in [PartiallyFulfilled, Fulfilled, PartiallyReturned, Returned, NeedsAttention, Cancelled] {
        assert!(visited.contains(status.name()), "{status} was never seen: {visited:?}");
    }
}
