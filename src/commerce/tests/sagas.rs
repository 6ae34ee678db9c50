//! What is under way is seen to be, step by step, and nothing is once all has ended.

use super::{
    gateway::Mood,
    new_order,
    payments::{create, refund},
    world::World,
};
use crate::commerce::{
    Order, Payment, Reservation, SagaView,
    order::{self, NewOrder, Status},
    reservation::{Command, NewReservation},
    saga::{STATUSES, Step, UNDER_WAY, UNDER_WAY_AS},
    stock::{self, Leg},
};
use crate::entity::Entity;

/// Whether the lists have it under way, and as what.
fn listed<E: Entity>(state: &E::State) -> Option<String> {
    let rows = E::rows(state);
    let by_itself = rows.iter().any(|row| row.list == UNDER_WAY);
    let as_what = rows.iter().find(|row| row.list == UNDER_WAY_AS).map(|row| row.of.to_string());
    assert_eq!(by_itself, as_what.is_some());
    as_what
}

/// What an operator sees of everything in a world; checks that it is under way exactly if it waits for
/// something.
pub fn under_way(world: &World) -> Vec<SagaView> {
    use Status::{Authorized, Backordered, Compensating, NeedsAttention, Pending, Reserved};
    let open = [Pending, Backordered, Reserved, Authorized, Compensating, NeedsAttention];
    let mut seen = Vec::new();
    for (id, kept) in &world.orders {
        let Some(saga) = SagaView::of_order(id, &kept.state, 1) else { continue };
        let by_status = open.contains(&kept.state.status);
        let by_list = listed::<Order>(&kept.state).is_some();
        assert!(!(by_status && by_list), "once: {saga:?}");
        assert_eq!(by_status || by_list, !saga.waits_for.is_empty(), "{saga:?}: {:?}", kept.state);
        seen.push(saga);
    }
    for (id, kept) in &world.payments {
        let Some(saga) = SagaView::of_payment(id, &kept.state, 1) else { continue };
        let own = kept.state.order_id.is_none();
        assert_eq!(listed::<Payment>(&kept.state).is_some(), own && !saga.waits_for.is_empty(), "{saga:?}");
        seen.extend(own.then_some(saga));
    }
    for (id, kept) in &world.reservations {
        let Some(saga) = SagaView::of_reservation(id, &kept.state, 1) else { continue };
        assert_eq!(listed::<Reservation>(&kept.state).is_some(), !saga.waits_for.is_empty(), "{saga:?}");
        seen.push(saga);
    }
    seen.retain(|saga| !saga.waits_for.is_empty());
    assert!(seen.iter().all(|saga| STATUSES.contains(&saga.status.as_str())), "{seen:?}");
    seen
}

/// Delivers everything, one after the other, and returns the steps that were waited for on the way.
fn steps(world: &mut World, mood: Mood) -> Vec<Step> {
    let mut steps = Vec::new();
    loop {
        let now = under_way(world).into_iter().flat_map(|saga| saga.waits_for);
        for step in now.collect::<Vec<_>>() {
            if !steps.contains(&step) {
                steps.push(step);
            }
        }
        if world.mail.is_empty() {
            return steps;
        }
        world.deliver(0, mood);
    }
}

fn placed(lines: &[(&str, i64)], in_stock: u64) -> World {
    let mut world = World::new();
    for (sku, _) in lines {
        world.put_stock(sku, in_stock).expect("put");
    }
    world.ask::<Order>("ord_1", &order::Command::Place(Box::new(new_order(lines)))).expect("placed");
    world
}

#[test]
fn an_order_waits_for_one_step_after_the_other_until_it_is_confirmed() {
    let mut world = placed(&[("apple", 3), ("bread", 2)], 10);
    let expected = [Step::StockReservation, Step::Authorization, Step::StockCommit, Step::Capture];
    assert_eq!(steps(&mut world, Mood::Approve), expected);
    assert!(under_way(&world).is_empty(), "a confirmed order rests");
}

#[test]
fn a_cancelled_order_is_on_its_way_back_until_stock_and_money_are() {
    let mut world = placed(&[("apple", 3)], 10);
    world.settle(Mood::Approve);
    world.ask::<Order>("ord_1", &order::Command::Cancel { reason: "changed my mind".into() }).expect("cancelled");
    let now = under_way(&world);
    assert_eq!((now[0].status.as_str(), now[0].reason.as_deref()), ("compensating", Some("changed my mind")));
    assert_eq!(steps(&mut world, Mood::Approve), [Step::StockReturn, Step::Reversal]);
    assert!(under_way(&world).is_empty());
}

#[test]
fn a_return_is_under_way_behind_its_status_until_goods_and_money_are_back() {
    let mut world = placed(&[("apple", 3)], 10);
    world.settle(Mood::Approve);
    let all = || vec![Leg { sku: "apple".into(), quantity: 3 }];
    world.ask::<Order>("ord_1", &order::Command::Fulfill { items: all(), tracking: None }).expect("sent");
    assert!(under_way(&world).is_empty(), "what was sent rests");
    world.ask::<Order>("ord_1", &order::Command::Return { items: all(), reason: None }).expect("taken back");
    assert_eq!(listed::<Order>(world.order("ord_1")), Some("returned".into()));
    assert_eq!(steps(&mut world, Mood::Approve), [Step::Restock, Step::Refund]);
    assert!(under_way(&world).is_empty());
}

#[test]
fn an_order_whose_refund_is_refused_needs_attention_and_says_why() {
    let mut world = placed(&[("apple", 3)], 10);
    world.settle(Mood::Approve);
    world.ask::<Order>("ord_1", &order::Command::Cancel { reason: "changed my mind".into() }).expect("cancelled");
    world.settle(Mood::Decline("account_closed"));
    let now = under_way(&world);
    assert_eq!((now.len(), now[0].needs_attention, &now[0].waits_for[..]), (1, true, &[Step::Operator][..]));
    assert!(now[0].reason.as_deref().is_some_and(|why| why.contains("account_closed")), "{now:?}");
}

#[test]
fn an_order_that_waits_for_stock_says_so() {
    let mut world = World::new();
    world.supply("apple", &stock::Command::Put { on_hand: 1, backorder_limit: 10 }).expect("put");
    let wanted = NewOrder { backorder: true, ..new_order(&[("apple", 3)]) };
    world.ask::<Order>("ord_1", &order::Command::Place(Box::new(wanted))).expect("placed");
    world.settle(Mood::Approve);
    let now = under_way(&world);
    assert_eq!((now[0].status.as_str(), &now[0].waits_for[..]), ("backordered", &[Step::Supply][..]));
}

#[test]
fn a_payment_that_the_gateway_does_not_answer_is_under_way_and_counts_its_attempts() {
    let mut world = World::new();
    create(&mut world, 1000, true);
    world.settle(Mood::Away);
    let now = under_way(&world);
    assert_eq!(
        (now[0].status.as_str(), now[0].attempts, &now[0].waits_for[..]),
        ("unknown", Some(1), &[Step::Authorization][..])
    );
    world.run_to_the_end();
    assert_eq!(under_way(&world), [], "once the gateway answers, it rests");
    refund(&mut world, 400).expect("captured");
    assert_eq!(steps(&mut world, Mood::Approve), [Step::Refund]);
    assert_eq!(under_way(&world), []);
}

#[test]
fn a_reservation_is_under_way_while_the_stocks_owe_an_answer() {
    let mut world = World::new();
    world.put_stock("apple", 5).expect("put");
    let items = vec![Leg { sku: "apple".into(), quantity: 2 }];
    world.ask::<Reservation>("res_1", &Command::Hold(NewReservation { items, ttl_ms: 60_000 })).expect("a new id");
    assert_eq!(steps(&mut world, Mood::Approve), [Step::StockReservation]);
    assert_eq!(under_way(&world), [], "what is held rests");
    world.ask::<Reservation>("res_1", &Command::Release).expect("held");
    assert_eq!(listed::<Reservation>(world.reservation("res_1")), Some("released".into()));
    assert_eq!(steps(&mut world, Mood::Approve), [Step::StockReturn]);
}
