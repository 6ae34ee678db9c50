//! A stock's behaviours by name.

use super::world::{Mail, START_MS, World};
use crate::commerce::{
    StockView,
    order::{self, Order, Refusal},
    stock::{
        BACKORDERS_MAX, Command, Event, Leg, Owner, RESERVATIONS_MAX, RETURNS_REMEMBERED, Rejection, Reply, Route,
        SWEEP_BATCH_MAX, State, Stock, Undo, UndoLeg,
    },
};
use crate::entity::{Entity, codec, decode_command};

const TTL_MS: u64 = 60_000;

fn reserve(order_id: &str, quantity: u32, until_ms: u64) -> Command {
    let legs = vec![Leg { sku: "apple".into(), quantity }];
    let route = Route { owner: Owner::order(order_id), done: 0, legs };
    Command::Reserve { route, until_ms: Some(until_ms), may_wait: false }
}

fn stocked(on_hand: u64) -> World {
    let mut world = World::new();
    world.put_stock("apple", on_hand).expect("put");
    world
}

fn tell(world: &mut World, command: Command) {
    world.ask::<Stock>("apple", &command).expect("never rejected");
}

/// What the stock said to orders, in order.
fn answers(world: &mut World) -> Vec<(String, order::Command)> {
    let answer = |mail| match mail {
        Mail::Command { entity_type, id, command } if entity_type == "order" => {
            Some((id, decode_command::<Order>(&command).expect("decodes")))
        }
        _ => None,
    };
    std::mem::take(&mut world.mail).into_iter().filter_map(answer).collect()
}

fn state(world: &World) -> &State {
    &world.stocks["apple"].state
}

#[test]
fn a_reservation_expires_at_its_deadline() {
    let mut world = stocked(5);
    tell(&mut world, reserve("ord_1", 2, START_MS + TTL_MS));
    answers(&mut world);
    world.advance(TTL_MS - 1000);
    assert!(world.mail.is_empty(), "not yet");
    world.advance(1000);
    world.deliver(0, super::gateway::Mood::Approve);
    assert_eq!((state(&world).levels.reserved, state(&world).sweep_at_ms), (0, None));
    let expired = order::Command::ReservationExpired { sku: "apple".into() };
    assert_eq!(answers(&mut world), [("ord_1".to_owned(), expired)]);
    assert!(world.timers.is_empty());
}

#[test]
fn one_timer_serves_all_reservations_of_a_sku() {
    let mut world = stocked(500);
    for order in 0..100 {
        tell(&mut world, reserve(&format!("ord_{order}"), 1, START_MS + TTL_MS + order));
    }
    assert_eq!(world.timers.len(), 1);
    let deadline = START_MS + TTL_MS;
    assert_eq!(state(&world).sweep_at_ms, Some(deadline));
    // A much earlier deadline moves it.
    tell(&mut world, reserve("ord_soon", 1, START_MS + 5_000));
    assert_eq!(state(&world).sweep_at_ms, Some(START_MS + 5_000));
}

#[test]
fn a_sweep_ends_a_bounded_number_and_comes_back_for_the_rest() {
    let mut world = stocked(10_000);
    let many = SWEEP_BATCH_MAX + 10;
    for order in 0..many {
        tell(&mut world, reserve(&format!("ord_{order}"), 1, START_MS + TTL_MS));
    }
    world.mail.clear();
    world.advance(TTL_MS);
    world.deliver(0, super::gateway::Mood::Approve);
    assert_eq!(state(&world).open.len(), 10);
    world.mail.clear();
    world.advance(400);
    world.deliver(0, super::gateway::Mood::Approve);
    assert_eq!((state(&world).open.len(), state(&world).levels.available()), (0, 10_000));
}

#[test]
fn the_number_of_open_reservations_is_bounded_and_the_state_stays_small() {
    let mut world = stocked(1_000_000);
    let full = &mut world.stocks.get_mut("apple").expect("stocked").state;
    for order in 0..RESERVATIONS_MAX {
        let owner = Owner::order(&format!("ord_{order:0>60}"));
        Stock::evolve(full, &Event::Reserved { owner, quantity: 1, until_ms: Some(START_MS + TTL_MS) });
    }
    for order in 0..BACKORDERS_MAX {
        let owner = Owner::order(&format!("ord_w{order:0>59}"));
        Stock::evolve(full, &Event::Backordered { owner, quantity: 1, done: 99 });
    }
    for back in 0..RETURNS_REMEMBERED {
        let (order_id, return_id) = ("ord_1".to_owned(), format!("ret_{back:0>60}_25"));
        Stock::evolve(full, &Event::Returned { order_id, return_id, quantity: 1 });
    }
    tell(&mut world, reserve("ord_last", 1, START_MS + TTL_MS));
    let refused = order::Command::StockRefused { done: 0, sku: "apple".into(), refusal: Refusal::TooManyReservations };
    assert_eq!(answers(&mut world), [("ord_last".to_owned(), refused)]);
    let bytes = codec::encode("state", state(&world)).expect("fits").len();
    assert!(bytes < codec::STATE_BYTES_MAX, "{bytes} bytes");
}

#[test]
fn a_repeated_reserve_is_answered_again_and_holds_once() {
    let mut world = stocked(5);
    for _ in 0..2 {
        tell(&mut world, reserve("ord_1", 4, START_MS + TTL_MS));
    }
    assert_eq!(state(&world).levels.reserved, 4);
    assert_eq!(answers(&mut world).len(), 2);
}

#[test]
fn a_reserve_after_its_own_deadline_is_refused() {
    let mut world = stocked(5);
    tell(&mut world, reserve("ord_1", 1, START_MS));
    let refused = order::Command::StockRefused { done: 0, sku: "apple".into(), refusal: Refusal::TooLate };
    assert_eq!(answers(&mut world), [("ord_1".to_owned(), refused)]);
}

#[test]
fn releasing_what_is_not_held_only_answers() {
    let mut world = stocked(5);
    let legs = vec![UndoLeg { sku: "apple".into(), quantity: 3, restock: false }];
    tell(&mut world, Command::Undo(Undo { owner: Owner::order("ord_1"), legs }));
    assert_eq!(answers(&mut world), [("ord_1".to_owned(), order::Command::StockUndone)]);
    assert_eq!((state(&world).levels.on_hand, world.stocks["apple"].history.len()), (5, 1));
}

#[test]
fn on_hand_cannot_be_set_below_what_is_reserved() {
    let mut world = stocked(5);
    tell(&mut world, reserve("ord_1", 4, START_MS + TTL_MS));
    let refused = world.put_stock("apple", 3).expect_err("4 are reserved");
    assert_eq!(refused, Rejection::BelowReserved { on_hand: 3, reserved: 4 });
    assert_eq!(refused.code(), "below-reserved");
    let adjusted = world.supply("apple", &Command::Adjust { delta: -2, reason: "broken".into() });
    assert_eq!(adjusted, Err(Rejection::InsufficientStock { available: 1 }));
    assert!(world.put_stock("apple", 4).is_ok());
}

#[test]
fn a_repeated_put_leaves_no_trace() {
    let mut world = stocked(5);
    let reply = world.put_stock("apple", 5).expect("put");
    assert!(matches!(reply, Reply::Levels(levels) if levels.on_hand == 5));
    assert_eq!(world.stocks["apple"].history.len(), 1);
}

#[test]
fn an_unlisted_sku_cannot_be_adjusted_and_has_no_view() {
    let mut world = World::new();
    let adjusted = world.supply("apple", &Command::Adjust { delta: 1, reason: "found".into() });
    assert_eq!(adjusted, Err(Rejection::NotFound));
    assert_eq!(StockView::of("apple", &State::default(), 0), None);
}

#[test]
fn the_view_has_the_fields_of_the_contract() {
    let mut world = stocked(5);
    tell(&mut world, reserve("ord_1", 2, START_MS + TTL_MS));
    let view = StockView::of("apple", state(&world), 2).expect("listed");
    let expected = serde_json::json!({
        "sku": "apple", "on_hand": 5, "reserved": 2, "available": 3, "committed": 0,
        "backordered": 0, "backorder_limit": 0, "version": 2,
    });
    assert_eq!(serde_json::to_value(view).expect("serialises"), expected);
}
