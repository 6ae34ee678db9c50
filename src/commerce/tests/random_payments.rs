//! Payments of their own at random: whatever clients ask, however the gateway answers, however time
//! passes, each ends, and the gateway's own books agree.

use super::{
    gateway::Mood,
    payments::{VALID_MS, ask, captured, create, refund, state, usd},
    world::{Mail, World},
};
use crate::commerce::{
    gateway::{GatewayRequest, GatewayResponse, Operation},
    payment::{Ask, Status},
};
use proptest::{collection::vec, prelude::*};

/// One thing that happens to a payment.
#[derive(Debug, Clone)]
enum Step {
    Ask(Ask),
    /// Delivers one piece of mail, if any waits.
    Deliver(usize, Mood),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let mood = prop_oneof![
        6 => Just(Mood::Approve),
        1 => Just(Mood::Lose),
        1 => Just(Mood::Away),
        1 => Just(Mood::Decline("card_declined")),
        1 => Just(Mood::Decline("authorization_expired")),
    ];
    let amount = prop_oneof![1 => Just(None), 4 => (1..700i64).prop_map(|amount| Some(usd(amount)))];
    let ask = prop_oneof![
        3 => amount.clone().prop_map(|amount| Ask::Capture { amount }),
        1 => Just(Ask::Void),
        6 => amount.prop_map(|amount| Ask::Refund { amount }),
    ];
    prop_oneof![
        4 => ask.prop_map(Step::Ask),
        8 => (any::<usize>(), mood).prop_map(|(at, mood)| Step::Deliver(at, mood)),
        1 => (0..VALID_MS * 2).prop_map(Step::Wait),
        1 => (0..20_000u64).prop_map(Step::Wait),
    ]
}

/// Every piece of mail is delivered twice now and then, as a runtime without receipts would.
fn carry_out(world: &mut World, steps: Vec<Step>) {
    for step in steps {
        match step {
            Step::Ask(wanted) => {
                let before = state(world).clone();
                if ask(world, wanted).is_err() {
                    assert_eq!(state(world), &before, "a rejection changes nothing");
                }
            }
            Step::Deliver(at, mood) if !world.mail.is_empty() => {
                let at = at % world.mail.len();
                if let (Mail::Task { payment, task }, true) = (&world.mail[at], mood == Mood::Lose) {
                    world.mail.push(Mail::Task { payment: payment.clone(), task: task.clone() });
                }
                world.deliver(at, mood);
            }
            Step::Deliver(..) => {}
            Step::Wait(ms) => world.advance(ms),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    /// The gateway's own books, kept by key, agree to the unit; that each key stands for one
    /// operation the gateway checks, and the table and the sums the world, at every event.
    #[test]
    fn every_payment_ends_and_the_gateways_books_agree(capture: bool, steps in vec(step(), 1..60)) {
        let mut world = World::new();
        create(&mut world, 1000, capture);
        carry_out(&mut world, steps);
        world.run_to_the_end();
        prop_assert_eq!(world.verdict(), Ok(()));
        let last = state(&world).status;
        prop_assert!(last == Status::Captured || last.allowed().is_empty(), "it is still {}", last);
        let captures = world.gateway.ledger.values().filter(|(request, response)| {
            let approved = matches!(response, GatewayResponse::Approved { .. });
            request.operation == Operation::Capture && approved
        });
        prop_assert!(captures.count() <= 1, "captured once at most");
    }
}

/// The checker can fail: a refund behind the payment's back does not balance.
#[test]
fn a_double_refund_is_noticed() {
    let mut world = captured();
    refund(&mut world, 300).expect("captured");
    world.run_to_the_end();
    assert_eq!(world.verdict(), Ok(()));
    let (request, response) = world.gateway.ledger["pay_1:refund"].clone();
    let twice = GatewayRequest { key: "pay_1:refund-2".into(), ..request };
    world.gateway.ledger.insert(twice.key.clone(), (twice, response));
    assert!(world.verdict().expect_err("not balanced").contains("pay_1"));
}
