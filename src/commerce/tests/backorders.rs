//! Backorders by name: who waits, who is served, who leaves.

use super::{
    gateway::Mood,
    new_order,
    world::{Mail, START_MS, World},
};
use crate::commerce::{
    OrderView,
    order::{self, NewOrder, Order, RESERVATION_TTL_MS, ReservationStatus, Status, StockTrack},
    stock::{self, BACKORDERS_MAX, Event, Leg, Owner, Rejection, Route, SERVE_BATCH_MAX, SWEEP_BATCH_MAX, Stock},
};
use crate::entity::{Context, Decision, Entity, codec, decode_command};

/// A world with so many apples and cheeses, no bread, and up to ten of each owed.
fn shop(on_hand: u64) -> World {
    let mut world = World::new();
    for (sku, on_hand) in [("apple", on_hand), ("bread", 0), ("cheese", on_hand)] {
        world.supply(sku, &stock::Command::Put { on_hand, backorder_limit: 10 }).expect("put");
    }
    world
}

fn place(world: &mut World, id: &str, lines: &[(&str, i64)]) {
    let order = NewOrder { backorder: true, ..new_order(lines) };
    world.ask::<Order>(id, &order::Command::Place(Box::new(order))).expect("placed");
    world.settle(Mood::Approve);
}

fn adjust(world: &mut World, sku: &str, delta: i64) -> Result<stock::Reply, Rejection> {
    world.supply(sku, &stock::Command::Adjust { delta, reason: "delivery".into() })
}

fn cancel(world: &mut World, id: &str) {
    world.ask::<Order>(id, &order::Command::Cancel { reason: "too slow".into() }).expect("cancelled");
}

fn statuses(world: &World) -> Vec<Status> {
    world.orders.values().map(|kept| kept.state.status).collect()
}

#[test]
fn an_order_without_stock_waits_and_goes_on_when_it_comes_in() {
    let mut world = shop(5);
    place(&mut world, "ord_1", &[("bread", 2)]);
    assert_eq!(statuses(&world), [Status::Backordered]);
    assert_eq!((world.levels("bread").backordered, world.levels("bread").available()), (2, -2));
    assert!(world.payments.is_empty(), "nothing is charged while it waits");
    adjust(&mut world, "bread", 1).expect("adjusted");
    world.settle(Mood::Approve);
    assert_eq!(statuses(&world), [Status::Backordered], "one is not enough");
    adjust(&mut world, "bread", 1).expect("adjusted");
    world.run_to_the_end();
    assert_eq!((statuses(&world), world.verdict()), (vec![Status::Confirmed], Ok(())));
}

#[test]
fn an_order_that_may_not_wait_is_rejected_and_overtakes_nobody() {
    let mut world = shop(5);
    place(&mut world, "ord_1", &[("bread", 5)]);
    adjust(&mut world, "bread", 3).expect("adjusted");
    let order = order::Command::Place(Box::new(new_order(&[("bread", 1)])));
    world.ask::<Order>("ord_2", &order).expect("placed");
    world.settle(Mood::Approve);
    assert_eq!(statuses(&world), [Status::Backordered, Status::Rejected], "the three are owed to the first");
}

#[test]
fn backorders_are_served_in_the_order_in_which_they_came() {
    let mut world = shop(5);
    for (id, quantity) in [("ord_c", 4), ("ord_a", 1), ("ord_b", 2)] {
        place(&mut world, id, &[("bread", quantity)]);
    }
    // Enough for the small ones, but the large one was first.
    adjust(&mut world, "bread", 3).expect("adjusted");
    world.settle(Mood::Approve);
    assert_eq!(statuses(&world), [Status::Backordered; 3]);
    adjust(&mut world, "bread", 2).expect("adjusted");
    world.settle(Mood::Approve);
    assert_eq!(world.order("ord_c").status, Status::Confirmed);
    assert_eq!(world.order("ord_a").status, Status::Confirmed);
    assert_eq!(world.order("ord_b").status, Status::Backordered);
    adjust(&mut world, "bread", 2).expect("adjusted");
    world.run_to_the_end();
    assert_eq!(world.verdict(), Ok(()));
}

#[test]
fn no_more_is_owed_than_the_limit() {
    let mut world = shop(5);
    place(&mut world, "ord_1", &[("bread", 8)]);
    place(&mut world, "ord_2", &[("bread", 3)]);
    place(&mut world, "ord_3", &[("bread", 2)]);
    assert_eq!(statuses(&world), [Status::Backordered, Status::Rejected, Status::Backordered]);
    let reason = world.order("ord_2").ending.as_ref().map(|ending| ending.reason.code.as_str());
    assert_eq!(reason, Some("backorder-limit"));
    // A limit of zero is no backorders at all.
    world.put_stock("bread", 0).expect("put");
    place(&mut world, "ord_4", &[("bread", 1)]);
    let reason = world.order("ord_4").ending.as_ref().map(|ending| ending.reason.code.as_str());
    assert_eq!(reason, Some("insufficient-stock"));
    assert_eq!(world.levels("bread").backordered, 10, "who waits already goes on waiting");
}

#[test]
fn nobody_may_take_away_what_is_owed() {
    let mut world = shop(5);
    place(&mut world, "ord_1", &[("bread", 10)]);
    adjust(&mut world, "bread", 4).expect("adjusted");
    // Four of ten are there. Taking one would owe seven, which is allowed.
    assert!(adjust(&mut world, "bread", -1).is_ok());
    world.supply("bread", &stock::Command::Put { on_hand: 3, backorder_limit: 5 }).expect("the limit may be lowered");
    let refused = adjust(&mut world, "bread", -1).expect_err("eight would be owed");
    assert_eq!(refused, Rejection::BelowBackorderLimit { short: 8, limit: 5 });
    assert_eq!(refused.code(), "backorder-limit");
    assert!(adjust(&mut world, "bread", 1).is_ok(), "whoever adds is welcome");
}

#[test]
fn a_cancelled_backorder_leaves_the_queue_and_those_behind_it_move_up() {
    let mut world = shop(5);
    place(&mut world, "ord_1", &[("bread", 4)]);
    place(&mut world, "ord_2", &[("bread", 1)]);
    adjust(&mut world, "bread", 1).expect("adjusted");
    world.settle(Mood::Approve);
    assert_eq!(statuses(&world), [Status::Backordered; 2]);
    cancel(&mut world, "ord_1");
    world.run_to_the_end();
    assert_eq!((statuses(&world), world.verdict()), (vec![Status::Cancelled, Status::Confirmed], Ok(())));
}

#[test]
fn whatever_frees_units_serves_those_who_wait() {
    let mut world = shop(5);
    // By a release: ord_1 holds all apples, ord_2 waits for one.
    let reserved = order::Command::Place(Box::new(new_order(&[("apple", 5)])));
    world.ask::<Order>("ord_1", &reserved).expect("placed");
    while world.order("ord_1").status != Status::Reserved {
        world.deliver(0, Mood::Approve);
    }
    let card = std::mem::take(&mut world.mail);
    place(&mut world, "ord_2", &[("apple", 1)]);
    assert_eq!(world.order("ord_2").status, Status::Backordered);
    world.mail = card;
    world.settle(Mood::Decline("card_declined"));
    assert_eq!(world.order("ord_1").status, Status::Cancelled);
    // It got as far as its card, which this gateway declined as well.
    assert_eq!(world.order("ord_2").payment, order::PaymentTrack::Declined);
    world.run_to_the_end();
    // By restocking: ord_3 took all cheeses and is cancelled before shipping.
    place(&mut world, "ord_3", &[("cheese", 5)]);
    place(&mut world, "ord_4", &[("cheese", 2)]);
    assert_eq!((world.order("ord_3").status, world.order("ord_4").status), (Status::Confirmed, Status::Backordered));
    cancel(&mut world, "ord_3");
    world.run_to_the_end();
    assert_eq!(world.order("ord_4").status, Status::Confirmed);
    assert_eq!(world.verdict(), Ok(()));
}

#[test]
fn what_runs_out_serves_those_who_wait() {
    let mut world = shop(5);
    let legs = vec![Leg { sku: "apple".into(), quantity: 5 }];
    let route = Route { owner: Owner::order("ord_gone"), done: 0, legs };
    let reserve = stock::Command::Reserve { route, until_ms: Some(START_MS + 5000), may_wait: false };
    world.ask::<Stock>("apple", &reserve).expect("held");
    world.mail.clear();
    place(&mut world, "ord_1", &[("apple", 1)]);
    assert_eq!(world.order("ord_1").status, Status::Backordered);
    world.advance(6000);
    world.mail.retain(|mail| !matches!(mail, Mail::Command { id, .. } if id == "ord_gone"));
    while world.order("ord_1").status != Status::Confirmed {
        let gone = world.mail.iter().position(|mail| matches!(mail, Mail::Command { id, .. } if id == "ord_gone"));
        gone.map(|at| world.mail.remove(at));
        world.deliver(0, Mood::Approve);
    }
}

#[test]
fn what_a_waiting_order_holds_already_stays_its_own_without_a_deadline() {
    let mut world = shop(5);
    place(&mut world, "ord_1", &[("apple", 5), ("bread", 1), ("cheese", 1)]);
    let order = world.order("ord_1");
    let legs: Vec<_> = order.reservations.iter().map(|leg| leg.status).collect();
    assert_eq!(legs, [ReservationStatus::Held, ReservationStatus::Backordered, ReservationStatus::Requested]);
    assert_eq!(order.stock, StockTrack::Waiting);
    let view = OrderView::of("ord_1", order, 3).expect("there");
    let shown = view.reservations.iter().map(|leg| (leg.sku.as_str(), leg.expires_at.clone())).collect::<Vec<_>>();
    assert_eq!(shown, [("apple", None), ("bread", None)]);
    world.advance(100 * RESERVATION_TTL_MS);
    world.settle(Mood::Approve);
    assert_eq!((world.levels("apple").reserved, statuses(&world)), (5, vec![Status::Backordered]));
    adjust(&mut world, "bread", 1).expect("adjusted");
    world.run_to_the_end();
    assert_eq!((statuses(&world), world.verdict()), (vec![Status::Confirmed], Ok(())));
}

#[test]
fn a_cancelled_order_gives_back_what_it_held_while_it_waited() {
    let mut world = shop(5);
    place(&mut world, "ord_1", &[("apple", 5), ("bread", 1), ("cheese", 1)]);
    cancel(&mut world, "ord_1");
    world.run_to_the_end();
    assert_eq!((statuses(&world), world.levels("apple").available()), (vec![Status::Cancelled], 5));
    assert_eq!(world.verdict(), Ok(()));
}

#[test]
fn a_leg_that_cannot_be_had_after_all_rejects_the_order() {
    let mut world = shop(5);
    place(&mut world, "ord_1", &[("apple", 1), ("bread", 1), ("durian", 1)]);
    assert_eq!(statuses(&world), [Status::Backordered]);
    adjust(&mut world, "bread", 1).expect("adjusted");
    world.run_to_the_end();
    assert_eq!((statuses(&world), world.verdict()), (vec![Status::Rejected], Ok(())));
}

/// Effects come unordered.
#[test]
fn the_news_of_being_served_may_overtake_the_news_of_waiting() {
    let mut world = shop(5);
    let order = NewOrder { backorder: true, ..new_order(&[("bread", 1), ("cheese", 1)]) };
    world.ask::<Order>("ord_1", &order::Command::Place(Box::new(order))).expect("placed");
    world.deliver(0, Mood::Approve);
    adjust(&mut world, "bread", 1).expect("adjusted");
    let told: Vec<_> = world.mail.iter().filter_map(told).collect();
    assert!(matches!(told[..], [order::Command::StockBackordered { .. }, order::Command::BackorderServed { .. }]));
    world.mail.reverse();
    world.run_to_the_end();
    assert_eq!((statuses(&world), world.verdict()), (vec![Status::Confirmed], Ok(())));
    let waited = |event: &order::Event| matches!(event.fact, order::Fact::StockBackordered { .. });
    assert!(!world.orders["ord_1"].facts.iter().any(waited), "late news change nothing");
}

#[test]
fn repeated_news_of_being_served_change_nothing() {
    let mut world = shop(0);
    place(&mut world, "ord_1", &[("apple", 1), ("bread", 1)]);
    adjust(&mut world, "apple", 1).expect("adjusted");
    world.settle(Mood::Approve);
    let before = world.order("ord_1").clone();
    assert_eq!(before.stock, StockTrack::Waiting, "for bread");
    let served = order::Command::BackorderServed { done: 0, sku: "apple".into() };
    world.ask::<Order>("ord_1", &served).expect("tolerated");
    assert!(world.order("ord_1") == &before && world.mail.is_empty());
}

fn told(mail: &Mail) -> Option<order::Command> {
    match mail {
        Mail::Command { entity_type, command, .. } if entity_type == "order" => decode_command::<Order>(command).ok(),
        _ => None,
    }
}

#[test]
fn a_cancel_that_meets_the_stock_coming_in_gives_it_back() {
    let mut world = shop(5);
    place(&mut world, "ord_1", &[("bread", 1)]);
    adjust(&mut world, "bread", 1).expect("adjusted");
    // Served, but the order does not know it yet.
    cancel(&mut world, "ord_1");
    world.mail.reverse();
    world.run_to_the_end();
    assert_eq!((statuses(&world), world.levels("bread").available()), (vec![Status::Cancelled], 1));
    assert_eq!(world.verdict(), Ok(()));
}

#[test]
fn a_backorder_that_is_served_but_not_paid_in_time_expires() {
    let mut world = shop(5);
    place(&mut world, "ord_1", &[("bread", 1)]);
    world.advance(100 * RESERVATION_TTL_MS);
    adjust(&mut world, "bread", 1).expect("adjusted");
    while world.order("ord_1").status != Status::Reserved {
        world.deliver(0, Mood::Approve);
    }
    let until_ms = world.order("ord_1").due_ms.expect("it has a deadline now");
    assert!(until_ms > world.now_ms && until_ms <= world.now_ms + RESERVATION_TTL_MS + 1000, "as long as any order");
    world.deliver(0, Mood::Approve);
    let card = std::mem::take(&mut world.mail);
    world.advance(RESERVATION_TTL_MS + 1000);
    world.settle(Mood::Approve);
    assert_eq!(world.order("ord_1").status, Status::Compensating);
    world.mail = card;
    world.run_to_the_end();
    assert_eq!((statuses(&world), world.verdict()), (vec![Status::Expired], Ok(())));
}

/// A stock at which so many wait for one unit each, with ids and a name as long as they may be.
fn crowded(waiting: usize) -> (String, stock::State) {
    let sku = "s".repeat(stock::SKU_BYTES_MAX);
    let mut state = stock::State::default();
    Stock::evolve(&mut state, &Event::Put { on_hand: 0, backorder_limit: 1 << 20, previous: 0 });
    for order in 0..waiting {
        let owner = Owner::order(&format!("ord_{order:0>60}"));
        Stock::evolve(&mut state, &Event::Backordered { owner, quantity: 1, done: 99 });
    }
    (sku, state)
}

fn decide(sku: &str, state: &mut stock::State, command: stock::Command) -> (Vec<Event>, usize) {
    let context = Context { id: sku, version: state.version, now_ms: START_MS + 60_000, random: 7 };
    let Decision::Accept { events, effects, .. } = Stock::decide(state, command, &context) else { panic!("accepted") };
    let bytes = codec::encode("decision", &(&events, &effects)).expect("encodes").len();
    assert!(bytes < 80 << 10, "{bytes} bytes must fit into one item of the log");
    events.iter().for_each(|event| Stock::evolve(state, event));
    (events, effects.len())
}

#[test]
fn a_long_queue_is_served_in_bounded_steps() {
    let (sku, mut state) = crowded(SERVE_BATCH_MAX + 10);
    let plenty = stock::Command::Put { on_hand: 1000, backorder_limit: 0 };
    // Each owner is told, and the stock itself is told to go on.
    assert_eq!(decide(&sku, &mut state, plenty).1, SERVE_BATCH_MAX + 1);
    assert_eq!(state.waiting.len(), 10);
    assert_eq!(decide(&sku, &mut state, stock::Command::Serve).1, 10);
    assert_eq!((state.waiting.len(), decide(&sku, &mut state, stock::Command::Serve).0), (0, Vec::new()));
}

#[test]
fn a_sweep_that_serves_a_long_queue_stays_within_an_entry_of_the_log() {
    let (sku, mut state) = crowded(SERVE_BATCH_MAX + 1);
    Stock::evolve(&mut state, &Event::Put { on_hand: 1000, backorder_limit: 1 << 20, previous: 1 });
    for order in 0..1000 {
        let owner = Owner::order(&format!("ord_held{order:0>56}"));
        Stock::evolve(&mut state, &Event::Reserved { owner, quantity: 1, until_ms: Some(START_MS) });
    }
    let (events, _) = decide(&sku, &mut state, stock::Command::Sweep);
    assert_eq!(events.len(), 2);
    assert_eq!((state.open.len(), state.waiting.len()), (1000 - SWEEP_BATCH_MAX + SERVE_BATCH_MAX, 1));
}

#[test]
fn the_queue_is_bounded() {
    let (_, state) = crowded(BACKORDERS_MAX);
    let mut world = shop(0);
    world.stocks.get_mut("bread").expect("stocked").state = state;
    place(&mut world, "ord_last", &[("bread", 1)]);
    let reason = world.order("ord_last").ending.as_ref().map(|ending| ending.reason.code.as_str());
    assert_eq!((statuses(&world), reason), (vec![Status::Rejected], Some("too-many-backorders")));
}
