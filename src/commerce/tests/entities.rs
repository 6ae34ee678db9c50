//! Random command sequences against one entity at a time: whatever it is told, in whatever order,
//! it keeps its tables and CONSERVATION (the world checks both on every event), and replaying its
//! history gives its state.

use super::{
    new_order,
    world::{Kept, Kind, START_MS, World},
};
use crate::commerce::{
    Money,
    gateway::GatewayResponse,
    order::{self, Order, Refusal, Reversal},
    payment::{self, Payment},
    stock::{self, Leg, Route, Stock, Undo, UndoLeg},
};
use proptest::{collection::vec, prelude::*};
use std::collections::BTreeSet;

/// Tells one entity all of it, letting a little time pass in between, and replays it.
fn tell_all<E: Kind>(id: &str, commands: Vec<(E::Command, u64)>) -> Kept<E> {
    let mut world = World::new();
    for (command, wait_ms) in commands {
        let _ = world.ask::<E>(id, &command);
        world.advance(wait_ms);
    }
    let kept = E::kept(&mut world).remove(id).expect("was told something");
    let mut replayed = E::State::default();
    kept.facts.iter().for_each(|event| E::evolve(&mut replayed, event));
    assert_eq!(replayed, kept.state);
    kept
}

fn stock_command() -> impl Strategy<Value = stock::Command> {
    let order = (0..6u8).prop_map(|order| format!("ord_{order}"));
    let sku = prop_oneof![9 => Just("apple".to_owned()), 1 => Just("other".to_owned())];
    let legs = vec((sku, 1..8u32), 0..3);
    let route = (order, legs).prop_map(|(order_id, legs)| {
        let legs = legs.into_iter().map(|(sku, quantity)| Leg { sku, quantity }).collect();
        Route { order_id, done: 0, legs }
    });
    let undo = (route.clone(), any::<bool>()).prop_map(|(route, restock)| {
        let leg = |leg: Leg| UndoLeg { sku: leg.sku, quantity: leg.quantity, restock };
        stock::Command::Undo(Undo { order_id: route.order_id, legs: route.legs.into_iter().map(leg).collect() })
    });
    let delta = prop_oneof![-20..20i64, any::<i64>()];
    prop_oneof![
        1 => prop_oneof![0..40u64, any::<u64>()]
            .prop_map(|on_hand| stock::Command::Put { on_hand, backorder_limit: 0 }),
        1 => delta.prop_map(|delta| stock::Command::Adjust { delta, reason: "any".into() }),
        4 => (route.clone(), 0..9000u64).prop_map(|(route, ttl_ms)| {
            stock::Command::Reserve { route, expires_at_ms: START_MS + ttl_ms }
        }),
        3 => route.prop_map(stock::Command::Commit),
        3 => undo,
        1 => Just(stock::Command::Sweep),
    ]
}

/// Anything at all that a payment may be told, at the right time or not.
fn payment_command(own: bool) -> impl Strategy<Value = payment::Command> {
    use payment::Command::{Ask, Authorize, Capture, ExpiryDue, GatewayAnswered, QueryDue, RefundQueryDue, Reverse};
    let order_id = || "ord_1".to_owned();
    let money = |amount, code: &str| Money::new(amount, code.parse().expect("known")).expect("in range");
    let new = payment::NewPayment {
        amount: money(500, "EUR"),
        payment_method: "pm_card_ok".into(),
        capture: false,
        metadata: Default::default(),
        authorization_valid_ms: 1000,
    };
    let authorize =
        payment::Authorize { order_id: order_id(), amount: money(500, "EUR"), payment_method: "pm_card_ok".into() };
    let operation = prop_oneof![
        1 => Just("authorize"), 1 => Just("capture"), 1 => Just("void"), 3 => Just("refund"),
    ];
    let tag =
        (operation, 1..5u8, 0..3u8).prop_map(|(operation, number, round)| format!("{operation}-{number}#{round}"));
    let answer = prop_oneof![
        4 => Just(Ok(GatewayResponse::Approved { reference: "ref".into() })),
        1 => prop_oneof![Just("card_declined"), Just("authorization_expired")]
            .prop_map(|reason| Ok(GatewayResponse::Declined { reason: reason.into() })),
        1 => Just(Ok(GatewayResponse::NotFound)),
        1 => Just(Err("timed out".to_owned())),
    ];
    let amount = prop_oneof![
        2 => Just(None),
        5 => (0..600i64).prop_map(move |amount| Some(money(amount, "EUR"))),
        1 => Just(Some(money(1, "USD"))),
    ];
    let ask = prop_oneof![
        2 => (any::<bool>(), 1..2000u64).prop_map(move |(capture, valid_ms)| {
            payment::Ask::Create(Box::new(payment::NewPayment { capture, authorization_valid_ms: valid_ms, ..new.clone() }))
        }),
        3 => amount.clone().prop_map(|amount| payment::Ask::Capture { amount }),
        1 => Just(payment::Ask::Void),
        6 => amount.prop_map(|amount| payment::Ask::Refund { amount }),
    ];
    let order = if own { 0 } else { 3 };
    prop_oneof![
        order => Just(Authorize(authorize)),
        order => Just(Capture { order_id: order_id() }),
        1 => Just(Reverse { order_id: order_id() }),
        1 => (0..4u32).prop_map(|round| QueryDue { round }),
        1 => (0..5u16, 0..4u32).prop_map(|(number, round)| RefundQueryDue { number, round }),
        1 => Just(ExpiryDue),
        6 => ask.prop_map(Ask),
        12 => (tag, answer).prop_map(|(tag, result)| GatewayAnswered { tag, result }),
    ]
}

fn order_command() -> impl Strategy<Value = order::Command> {
    use order::Command::*;
    let reason = || "any".to_owned();
    let reversal = prop_oneof![Just(Reversal::Voided), Just(Reversal::Refunded), Just(Reversal::Declined)];
    prop_oneof![
        3 => Just(StockReserved),
        3 => Just(PaymentAuthorized),
        3 => Just(StockCommitted),
        3 => Just(PaymentCaptured),
        3 => Just(StockUndone),
        3 => reversal.prop_map(|outcome| PaymentReversed { outcome }),
        1 => Just(Cancel { reason: reason() }),
        1 => Just(PaymentDeclined { reason: reason() }),
        1 => Just(CaptureDeclined { reason: reason() }),
        1 => Just(PaymentUnresolved { reason: reason() }),
        1 => any::<u16>().prop_map(|done| CommitRefused { done }),
        1 => Just(ReservationExpired { sku: "bread".into() }),
        1 => (0..4u16, Just(Refusal::UnknownSku))
            .prop_map(|(done, refusal)| StockRefused { done, sku: "bread".into(), refusal }),
    ]
}

proptest! {
    #[test]
    fn stock_is_conserved_whatever_it_is_told(commands in vec((stock_command(), 0..2000u64), 1..80)) {
        let kept = tell_all::<Stock>("apple", commands);
        prop_assert!(kept.state.is_conserved());
    }

    /// The table and `refunds, pending ones included ≤ captured ≤ authorized` are checked after
    /// every event, and that each decision is made twice alike, by the world itself.
    #[test]
    fn a_payment_keeps_its_books_whatever_it_is_told(
        commands in any::<bool>().prop_flat_map(|own| vec((payment_command(own), 0..50u64), 1..80))
    ) {
        let kept = tell_all::<Payment>("pay_1", commands);
        let state = kept.state;
        prop_assert!(state.refunded + state.refunds_pending() <= state.captured && state.captured <= 500);
        let settled = matches!(state.status, payment::Status::Declined | payment::Status::Voided);
        prop_assert!(!settled || state.in_flight.is_none());
        let keys: BTreeSet<_> = state.refunds.iter().map(|refund| refund.number).collect();
        prop_assert_eq!(keys.len(), state.refunds.len(), "each refund has a key of its own");
    }

    #[test]
    fn an_order_stays_in_its_table_whatever_it_is_told(commands in vec((order_command(), 0..50u64), 1..60)) {
        let lines = [("apple", 1), ("bread", 2), ("cheese", 1)];
        let place = order::Command::Place(Box::new(new_order(&lines)));
        let first = std::iter::once((place, 0));
        let kept = tell_all::<Order>("ord_1", first.chain(commands).collect());
        let ended = kept.facts.iter().position(|event| event.fact == order::Fact::Ended);
        prop_assert!(ended.is_none_or(|at| at + 1 == kept.facts.len()), "nothing follows the end");
    }
}
