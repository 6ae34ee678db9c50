//! Defects that shops are known for, each by the name of what went wrong elsewhere.
//!
//! Two more are held under other names: a late commit after a reservation expired by `saga`
//! `a_late_commit_is_refused_and_the_payment_voided`, and a declined capture by
//! `a_capture_that_is_declined_voids_and_restocks`.

use super::{gateway::Mood, new_order, world::World};
use crate::commerce::{
    Money,
    order::{self, Order, Status},
    payment::{self, Payment, RefundStatus},
};

fn place(world: &mut World, id: &str, lines: &[(&str, i64)]) {
    world.ask::<Order>(id, &order::Command::Place(Box::new(new_order(lines)))).expect("placed");
}

/// Each line alone fits into what there is; both together do not.
#[test]
fn the_same_sku_on_two_lines_does_not_oversell() {
    let mut world = World::new();
    world.put_stock("apple", 5).expect("put");
    place(&mut world, "ord_1", &[("apple", 3), ("apple", 3)]);
    world.run_to_the_end();
    assert_eq!(world.order("ord_1").status, Status::Rejected);
    place(&mut world, "ord_2", &[("apple", 2), ("apple", 3)]);
    world.run_to_the_end();
    assert_eq!((world.order("ord_2").status, world.levels("apple").on_hand), (Status::Confirmed, 0));
    assert_eq!(world.verdict(), Ok(()));
}

/// Every order in which the mail of two checkouts can arrive, as far as 500 of them go.
#[test]
fn concurrent_checkouts_of_the_last_item_confirm_one() {
    let mut winners = [0, 0];
    for mut choices in 0..500_u32 {
        let mut world = World::new();
        world.put_stock("apple", 1).expect("put");
        let orders = ["ord_1", "ord_2"];
        orders.iter().for_each(|id| place(&mut world, id, &[("apple", 1)]));
        while let Some(last) = world.mail.len().checked_sub(1) {
            let first = choices.is_multiple_of(2);
            choices /= 2;
            world.deliver(if first { 0 } else { last }, Mood::Approve);
        }
        world.run_to_the_end();
        let confirmed = orders.map(|id| usize::from(world.order(id).status == Status::Confirmed));
        assert_eq!(confirmed.iter().sum::<usize>(), 1);
        assert!(orders.iter().any(|id| world.order(id).status == Status::Rejected));
        (winners[0], winners[1]) = (winners[0] + confirmed[0], winners[1] + confirmed[1]);
        assert_eq!(world.verdict(), Ok(()));
    }
    assert!(winners.iter().all(|won| *won > 0), "both can win: {winners:?}");
}

/// Wherever the saga stands when its reservation is gone: the order ends, and nobody keeps the
/// customer's money.
#[test]
fn an_order_is_not_orphaned_when_a_step_after_the_payment_fails() {
    let ttl_ms = new_order(&[("apple", 1)]).reservation_ttl_ms;
    let mut ended = Vec::new();
    for steps in 0..16 {
        let mut world = World::new();
        world.put_stock("apple", 5).expect("put");
        world.put_stock("bread", 5).expect("put");
        place(&mut world, "ord_1", &[("apple", 1), ("bread", 1)]);
        for _ in 0..steps {
            if !world.mail.is_empty() {
                world.deliver(0, Mood::Approve);
            }
        }
        world.advance(ttl_ms + 2000);
        world.run_to_the_end();
        assert_eq!(world.verdict(), Ok(()), "after {steps} steps");
        ended.push(world.order("ord_1").status);
    }
    assert!(ended.contains(&Status::Expired) && ended.contains(&Status::Confirmed), "{ended:?}");
}

#[test]
fn a_refund_raced_with_a_second_refund_stays_within_the_capture() {
    let mut world = World::new();
    world.put_stock("apple", 5).expect("put");
    place(&mut world, "ord_1", &[("apple", 5)]);
    world.settle(Mood::Approve);
    let part = |refund_id: &str, amount| payment::Command::RefundPart {
        order_id: "ord_1".into(),
        refund_id: refund_id.into(),
        amount: Money::new(amount, "USD".parse().expect("known")).expect("in range"),
    };
    // Both are there before the gateway has said anything about either.
    world.ask::<Payment>("pay_1", &part("a", 300)).expect("opened");
    world.ask::<Payment>("pay_1", &part("b", 300)).expect("answered by a command");
    world.ask::<Payment>("pay_1", &part("c", 200)).expect("opened");
    let payment = world.payment_of("ord_1");
    assert_eq!((payment.refunds_pending(), payment.refundable()), (500, 0));
    world.settle(Mood::Approve);
    assert_eq!(world.balance("ord_1").refunded, 500);
    let made: Vec<_> = world.payment_of("ord_1").refunds.iter().map(|refund| (&*refund.id, refund.status)).collect();
    assert_eq!(made, [("a", RefundStatus::Succeeded), ("c", RefundStatus::Succeeded)]);
}
