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
    reservation::{self, NewReservation, Reservation},
    stock::{self, Answer, Event, Leg, Owner, Route, Stock, Undo, UndoLeg},
};
use crate::entity::{Context, Decision, Entity, codec};
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
    let owner = (0..6u8, any::<bool>()).prop_map(|(id, order)| match order {
        true => Owner::order(&format!("ord_{id}")),
        false => Owner::reservation(&format!("res_{id}")),
    });
    let sku = prop_oneof![9 => Just("apple".to_owned()), 1 => Just("other".to_owned())];
    let legs = vec((sku, 1..8u32), 0..3);
    let route = (owner, legs).prop_map(|(owner, legs)| {
        let legs = legs.into_iter().map(|(sku, quantity)| Leg { sku, quantity }).collect();
        Route { owner, done: 0, legs }
    });
    let undo = (route.clone(), any::<bool>()).prop_map(|(route, restock)| {
        let leg = |leg: Leg| UndoLeg { sku: leg.sku, quantity: leg.quantity, restock };
        stock::Command::Undo(Undo { owner: route.owner, legs: route.legs.into_iter().map(leg).collect() })
    });
    let delta = prop_oneof![4 => -20..20i64, 1 => any::<i64>()];
    let on_hand = prop_oneof![4 => 0..40u64, 1 => any::<u64>()];
    let until_ms = proptest::option::of((0..9000u64).prop_map(|ttl_ms| START_MS + ttl_ms));
    prop_oneof![
        1 => (on_hand, 0..20u64)
            .prop_map(|(on_hand, backorder_limit)| stock::Command::Put { on_hand, backorder_limit }),
        1 => delta.prop_map(|delta| stock::Command::Adjust { delta, reason: "any".into() }),
        6 => (route.clone(), until_ms, any::<bool>())
            .prop_map(|(route, until_ms, may_wait)| stock::Command::Reserve { route, until_ms, may_wait }),
        3 => route.prop_map(stock::Command::Commit),
        3 => undo,
        1 => Just(stock::Command::Sweep),
        1 => Just(stock::Command::Serve),
    ]
}

/// A command, and how often it comes.
fn repeated<C: std::fmt::Debug + Clone>(command: impl Strategy<Value = C>) -> impl Strategy<Value = Vec<(C, u64)>> {
    let times = prop_oneof![8 => Just(1usize), 1 => Just(2), 1 => Just(3)];
    let some = (command, 0..2000u64, times).prop_map(|(command, wait_ms, times)| vec![(command, wait_ms); times]);
    vec(some, 1..80).prop_map(|sequences| sequences.concat())
}

fn reservation_command() -> impl Strategy<Value = reservation::Command> {
    use reservation::Command::{Commit, Due, Extend, Release, Stock};
    let refused = (0..4u16).prop_map(|done| {
        Stock(Answer::Refused { done, sku: "bread".into(), refusal: Refusal::InsufficientStock { available: 0 } })
    });
    prop_oneof![
        4 => Just(Stock(Answer::Reserved)),
        2 => Just(Stock(Answer::Committed)),
        2 => Just(Stock(Answer::Undone)),
        1 => refused,
        1 => (0..4u16).prop_map(|done| Stock(Answer::Served { done, sku: "bread".into() })),
        1 => Just(Stock(Answer::CommitRefused { done: 0 })),
        1 => Just(Commit),
        1 => Just(Release),
        2 => (0..9000u64).prop_map(|ttl_ms| Extend { ttl_ms }),
        2 => Just(Due),
    ]
}

/// A decision in a form that can be compared.
fn outcome<E: Entity<Event: std::fmt::Debug, Reply: std::fmt::Debug>>(decision: Decision<E>) -> impl std::fmt::Debug {
    match decision {
        Decision::Accept { events, effects, reply } => Ok((events, effects, reply)),
        Decision::Reject(rejection) => Err(rejection.to_string()),
    }
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

fn leg_sku() -> impl Strategy<Value = String> {
    prop_oneof![Just("apple"), Just("bread"), Just("cheese")].prop_map(str::to_owned)
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
        2 => (0..4u16, leg_sku()).prop_map(|(done, sku)| StockBackordered { done, sku }),
        2 => (0..4u16, leg_sku()).prop_map(|(done, sku)| BackorderServed { done, sku }),
        1 => Just(ReservationDue),
        1 => any::<u16>().prop_map(|done| CommitRefused { done }),
        1 => Just(ReservationExpired { sku: "bread".into() }),
        1 => (0..4u16, Just(Refusal::UnknownSku))
            .prop_map(|(done, refusal)| StockRefused { done, sku: "bread".into(), refusal }),
    ]
}

proptest! {
    #[test]
    fn stock_is_conserved_whatever_it_is_told(commands in repeated(stock_command())) {
        let kept = tell_all::<Stock>("apple", commands);
        prop_assert!(kept.state.is_conserved());
    }

    #[test]
    fn those_who_wait_are_served_in_the_order_in_which_they_came(commands in repeated(stock_command())) {
        let kept = tell_all::<Stock>("apple", commands);
        let mut state = stock::State::default();
        let mut queue: Vec<Owner> = Vec::new();
        for event in &kept.facts {
            match event {
                Event::Backordered { owner, .. } => queue.push(owner.clone()),
                Event::Withdrawn { owner } => queue.retain(|waiting| waiting != owner),
                Event::Served { owners } => {
                    prop_assert_eq!(&queue[..owners.len()], &owners[..]);
                    queue.drain(..owners.len());
                }
                _ => {}
            }
            Stock::evolve(&mut state, event);
            if let Event::Backordered { .. } = event {
                let owed = -state.levels.available();
                prop_assert!(0 < owed && owed <= state.levels.backorder_limit as i64, "{:?}", state.levels);
            }
        }
        // Whoever comes first waits only for want of stock.
        let first = kept.state.waiting.iter().next();
        prop_assert!(first.is_none_or(|first| u64::from(first.quantity) > kept.state.levels.free()));
    }

    #[test]
    fn a_state_that_was_stored_decides_as_the_live_one(commands in repeated(stock_command()), next in stock_command()) {
        let state = tell_all::<Stock>("apple", commands).state;
        let bytes = codec::encode("state", &state).expect("encodes");
        let stored: stock::State = codec::decode("state", &bytes).expect("decodes");
        prop_assert_eq!(&stored, &state);
        let context = Context { id: "apple", version: state.version, now_ms: START_MS + 5000, random: 7 };
        let decided = [&state, &stored].map(|state| format!("{:?}", outcome(Stock::decide(state, next.clone(), &context))));
        prop_assert_eq!(&decided[0], &decided[1]);
    }

    #[test]
    fn a_reservation_stays_in_its_table_whatever_it_is_told(commands in repeated(reservation_command())) {
        let legs = vec![Leg { sku: "bread".into(), quantity: 2 }, Leg { sku: "apple".into(), quantity: 1 }];
        let hold = reservation::Command::Hold(NewReservation { items: legs, ttl_ms: 5000 });
        let first = std::iter::once((hold, 0));
        let kept = tell_all::<Reservation>("res_1", first.chain(commands).collect());
        // What was granted is taken or given back once.
        let ends = |fact: &reservation::Fact| {
            use reservation::Fact::{Committed, Expired, Refused, Released};
            matches!(fact, Committed | Expired | Released | Refused { .. })
        };
        prop_assert!(kept.facts.iter().filter(|event| ends(&event.fact)).count() <= 1);
        for (at, event) in kept.facts.iter().enumerate() {
            if event.fact == reservation::Fact::Committed {
                let mut before = reservation::State::default();
                kept.facts[..at].iter().for_each(|event| Reservation::evolve(&mut before, event));
                prop_assert!(before.until_ms.is_some_and(|until_ms| event.at_ms < until_ms), "{:?}", before);
            }
        }
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
    fn an_order_stays_in_its_table_whatever_it_is_told(
        commands in vec((order_command(), 0..50u64), 1..60),
        backorder: bool,
    ) {
        let lines = [("apple", 1), ("bread", 2), ("cheese", 1)];
        let place = order::Command::Place(Box::new(order::NewOrder { backorder, ..new_order(&lines) }));
        let first = std::iter::once((place, 0));
        let kept = tell_all::<Order>("ord_1", first.chain(commands).collect());
        let ended = kept.facts.iter().position(|event| event.fact == order::Fact::Ended);
        prop_assert!(ended.is_none_or(|at| at + 1 == kept.facts.len()), "nothing follows the end");
    }
}
