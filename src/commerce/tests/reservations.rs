//! A reservation's behaviours by name.

use super::{
    gateway::Mood,
    world::{START_MS, World},
};
use crate::commerce::{
    ReservationView,
    reservation::{Command, NewReservation, Rejection, Reply, Reservation, Status, StockTrack},
    stock::Leg,
};

const TTL_MS: u64 = 60_000;

/// A world with five of each of two SKUs.
fn shop() -> World {
    let mut world = World::new();
    for sku in ["apple", "bread"] {
        world.put_stock(sku, 5).expect("put");
    }
    world
}

fn hold(world: &mut World, id: &str, items: &[(&str, u32)]) -> Status {
    let items = items.iter().map(|&(sku, quantity)| Leg { sku: sku.into(), quantity }).collect();
    world.ask::<Reservation>(id, &Command::Hold(NewReservation { items, ttl_ms: TTL_MS })).expect("a new id");
    world.settle(Mood::Approve);
    world.reservation(id).status
}

fn ask(world: &mut World, command: Command) -> Result<Status, Rejection> {
    let Reply::Reservation(state) = world.ask::<Reservation>("res_1", &command)? else { panic!("the reservation") };
    world.settle(Mood::Approve);
    Ok(state.status)
}

fn from_to(refused: Result<Status, Rejection>) -> (Status, Status) {
    match refused {
        Err(Rejection::IllegalTransition { from, to }) => (from, to),
        other => panic!("not an illegal transition: {other:?}"),
    }
}

fn ended(world: &mut World, status: Status) {
    world.run_to_the_end();
    assert_eq!((world.reservation("res_1").status, world.verdict()), (status, Ok(())));
}

#[test]
fn all_of_it_is_held_and_then_taken() {
    let mut world = shop();
    assert_eq!(hold(&mut world, "res_1", &[("bread", 1), ("apple", 2), ("bread", 2)]), Status::Held);
    assert_eq!((world.levels("apple").available(), world.levels("bread").available()), (3, 2));
    assert_eq!(ask(&mut world, Command::Commit), Ok(Status::Committed));
    assert_eq!((world.levels("apple").on_hand, world.levels("bread").committed), (3, 3));
    ended(&mut world, Status::Committed);
}

#[test]
fn one_sku_that_is_not_to_be_had_holds_nothing_of_the_others() {
    let mut world = shop();
    assert_eq!(hold(&mut world, "res_1", &[("apple", 2), ("bread", 6)]), Status::Rejected);
    let state = world.reservation("res_1");
    let reason = state.reason().expect("a reason");
    assert_eq!((reason.code.as_str(), state.stock), ("insufficient-stock", StockTrack::Clear));
    assert!(reason.detail.contains("only 5 of bread"), "{}", reason.detail);
    assert_eq!((world.levels("apple").reserved, world.levels("bread").reserved), (0, 0));
    assert_eq!(from_to(ask(&mut world, Command::Commit)), (Status::Rejected, Status::Committed));
    ended(&mut world, Status::Rejected);
}

#[test]
fn the_last_units_go_to_one_of_two() {
    let mut world = shop();
    assert_eq!(hold(&mut world, "res_1", &[("apple", 3)]), Status::Held);
    assert_eq!(hold(&mut world, "res_2", &[("apple", 3)]), Status::Rejected);
    assert_eq!(ask(&mut world, Command::Release), Ok(Status::Released));
    assert_eq!(hold(&mut world, "res_3", &[("apple", 3)]), Status::Held);
}

#[test]
fn it_expires_at_its_deadline_and_a_late_commit_is_refused() {
    let mut world = shop();
    hold(&mut world, "res_1", &[("apple", 2)]);
    let until_ms = world.reservation("res_1").until_ms.expect("held");
    let timers = std::mem::take(&mut world.timers);
    world.advance(until_ms - START_MS);
    // The timer has not come by yet.
    assert_eq!(from_to(ask(&mut world, Command::Commit)), (Status::Expired, Status::Committed));
    assert_eq!(from_to(ask(&mut world, Command::Extend { ttl_ms: TTL_MS })), (Status::Expired, Status::Held));
    assert_eq!(world.levels("apple").reserved, 2);
    world.timers = timers;
    world.advance(0);
    world.settle(Mood::Approve);
    assert_eq!((world.reservation("res_1").status, world.levels("apple").available()), (Status::Expired, 5));
    assert_eq!(from_to(ask(&mut world, Command::Release)), (Status::Expired, Status::Released));
    ended(&mut world, Status::Expired);
}

#[test]
fn an_extension_counts_from_now_and_never_shortens() {
    let mut world = shop();
    hold(&mut world, "res_1", &[("apple", 2)]);
    let first = world.reservation("res_1").until_ms.expect("held");
    assert_eq!(ask(&mut world, Command::Extend { ttl_ms: 1000 }), Ok(Status::Held));
    assert_eq!(world.reservation("res_1").until_ms, Some(first));
    assert_eq!(ask(&mut world, Command::Extend { ttl_ms: 2 * TTL_MS }), Ok(Status::Held));
    let second = world.reservation("res_1").until_ms.expect("held");
    assert_eq!(second, first + TTL_MS);
    assert_eq!(world.timers.len(), 1, "the old timer is replaced");
    world.advance(TTL_MS + 1000);
    world.settle(Mood::Approve);
    assert_eq!(world.reservation("res_1").status, Status::Held);
    ended(&mut world, Status::Expired);
}

#[test]
fn asking_again_for_what_has_happened_changes_nothing() {
    let mut world = shop();
    hold(&mut world, "res_1", &[("apple", 2)]);
    ask(&mut world, Command::Commit).expect("held");
    let version = world.reservations["res_1"].history.len();
    assert_eq!(ask(&mut world, Command::Commit), Ok(Status::Committed));
    assert_eq!((world.reservations["res_1"].history.len(), world.levels("apple").committed), (version, 2));
    assert_eq!(from_to(ask(&mut world, Command::Release)), (Status::Committed, Status::Released));
    let mut world = shop();
    hold(&mut world, "res_1", &[("apple", 2)]);
    for _ in 0..2 {
        assert_eq!(ask(&mut world, Command::Release), Ok(Status::Released));
    }
    assert_eq!(from_to(ask(&mut world, Command::Commit)), (Status::Released, Status::Committed));
    ended(&mut world, Status::Released);
}

#[test]
fn nothing_can_be_done_before_the_stocks_have_answered() {
    let mut world = shop();
    let items = vec![Leg { sku: "apple".into(), quantity: 1 }];
    world.ask::<Reservation>("res_1", &Command::Hold(NewReservation { items, ttl_ms: TTL_MS })).expect("a new id");
    for command in [Command::Commit, Command::Release, Command::Extend { ttl_ms: TTL_MS }] {
        let refused = world.ask::<Reservation>("res_1", &command).expect_err("pending");
        assert_eq!(refused.code(), "illegal-transition");
    }
    world.settle(Mood::Approve);
    ended(&mut world, Status::Expired);
}

#[test]
fn an_id_can_be_made_once_and_unknown_ones_are_not_found() {
    let mut world = shop();
    assert_eq!(ask(&mut world, Command::Commit), Err(Rejection::NotFound));
    hold(&mut world, "res_1", &[("apple", 1)]);
    let items = vec![Leg { sku: "bread".into(), quantity: 1 }];
    let again = Command::Hold(NewReservation { items, ttl_ms: TTL_MS });
    assert_eq!(ask(&mut world, again), Err(Rejection::AlreadyExists));
}

#[test]
fn the_view_has_the_fields_of_the_contract() {
    let mut world = shop();
    hold(&mut world, "res_1", &[("bread", 1), ("apple", 2)]);
    let view = ReservationView::of("res_1", world.reservation("res_1"), 2).expect("there");
    let json = serde_json::to_value(view).expect("serialises");
    let expected = serde_json::json!({
        "id": "res_1", "status": "held", "version": 2,
        "items": [{"sku": "apple", "quantity": 2}, {"sku": "bread", "quantity": 1}],
        "expires_at": json["expires_at"], "created_at": json["created_at"], "updated_at": json["updated_at"],
    });
    assert_eq!(json, expected);
}
