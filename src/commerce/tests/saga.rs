//! The saga's behaviours by name.

use super::{
    gateway::{Balance, Mood},
    new_order,
    world::World,
};
use crate::commerce::{
    OrderView, PaymentView,
    order::{self, Order, PaymentTrack, Rejection, Reply, ReservationStatus, Status, StockTrack, payment_id},
    payment::{self, Payment},
    stock::{self, Stock},
};
use crate::entity::{Entity, Versioned, decode_command};

/// A world with five of each of two SKUs and one placed order.
fn placed(lines: &[(&str, i64)]) -> World {
    let mut world = World::new();
    for sku in ["apple", "bread"] {
        world.put_stock(sku, 5).expect("put");
    }
    world.ask::<Order>("ord_1", &order::Command::Place(Box::new(new_order(lines)))).expect("placed");
    world
}

/// Delivers mail oldest first until the order is in this status.
fn until(world: &mut World, status: Status) {
    for _ in 0..100 {
        if world.order("ord_1").status == status {
            return;
        }
        world.deliver(0, Mood::Approve);
    }
    panic!("the order is {}, never became {status}", world.order("ord_1").status);
}

fn cancel(world: &mut World) -> Result<Reply, Rejection> {
    world.ask::<Order>("ord_1", &order::Command::Cancel { reason: "no longer needed".into() })
}

fn ended(world: &mut World, status: Status, code: &str) {
    world.run_to_the_end();
    let order = world.order("ord_1");
    assert_eq!((order.status, order.stock), (status, StockTrack::Clear));
    assert_eq!(order.ending.as_ref().map(|e| e.reason.code.as_str()), Some(code));
    assert_eq!(world.verdict(), Ok(()));
}

#[test]
fn an_order_is_reserved_authorized_committed_captured_and_confirmed() {
    let mut world = placed(&[("bread", 1), ("apple", 2), ("bread", 1)]);
    let mut seen = vec![world.order("ord_1").status];
    while !world.mail.is_empty() {
        world.deliver(0, Mood::Approve);
        let status = world.order("ord_1").status;
        if seen.last() != Some(&status) {
            seen.push(status);
        }
    }
    assert_eq!(seen, [Status::Pending, Status::Reserved, Status::Authorized, Status::Confirmed]);
    // Two SKUs after merging, sorted.
    let legs: Vec<_> = world.order("ord_1").reservations.iter().map(|r| (r.sku.as_str(), r.quantity)).collect();
    assert_eq!(legs, [("apple", 2), ("bread", 2)]);
    assert_eq!((world.levels("apple").on_hand, world.levels("apple").committed), (3, 2));
    assert_eq!(world.balance("ord_1"), Balance { held: 0, captured: 400, refunded: 0 });
    world.run_to_the_end();
    assert_eq!(world.verdict(), Ok(()));
}

#[test]
fn an_order_of_one_sku_takes_eleven_replicated_hops() {
    let mut world = placed(&[("apple", 1)]);
    let mut hops = 1;
    while !world.mail.is_empty() {
        // Running the task is no proposal; its result is.
        hops += usize::from(matches!(world.mail[0], super::world::Mail::Command { .. }));
        world.deliver(0, Mood::Approve);
    }
    assert_eq!((world.order("ord_1").status, hops), (Status::Confirmed, 11));
}

#[test]
fn without_stock_the_order_is_rejected_and_nothing_is_charged() {
    let mut world = placed(&[("apple", 6)]);
    ended(&mut world, Status::Rejected, "insufficient-stock");
    assert!(world.payments.is_empty());
}

#[test]
fn a_refused_leg_releases_the_legs_before_it() {
    let mut world = placed(&[("apple", 2), ("bread", 6)]);
    world.deliver(0, Mood::Approve);
    assert_eq!(world.levels("apple").reserved, 2);
    ended(&mut world, Status::Rejected, "insufficient-stock");
    assert_eq!(world.levels("apple").reserved, 0);
}

#[test]
fn an_unknown_sku_rejects_the_order() {
    ended(&mut placed(&[("apple", 1), ("durian", 1)]), Status::Rejected, "unknown-sku");
}

#[test]
fn a_declined_card_releases_the_stock_and_cancels() {
    let mut world = placed(&[("apple", 2)]);
    until(&mut world, Status::Reserved);
    world.settle(Mood::Decline("card_declined"));
    ended(&mut world, Status::Cancelled, "payment-declined");
    assert_eq!(world.order("ord_1").payment, PaymentTrack::Declined);
    assert_eq!(world.levels("apple").available(), 5);
}

#[test]
fn a_cancel_while_stock_is_being_reserved_releases_what_arrives_late() {
    let mut world = placed(&[("apple", 2), ("bread", 2)]);
    cancel(&mut world).expect("pending can be cancelled");
    ended(&mut world, Status::Cancelled, "requested");
    assert_eq!(world.levels("apple").available(), 5);
    assert!(world.payments.is_empty(), "nothing was ever charged");
}

#[test]
fn a_cancel_while_the_card_is_being_authorized_voids_once_it_is() {
    let mut world = placed(&[("apple", 1)]);
    until(&mut world, Status::Reserved);
    world.deliver(0, Mood::Approve);
    cancel(&mut world).expect("reserved can be cancelled");
    ended(&mut world, Status::Cancelled, "requested");
    assert_eq!(world.order("ord_1").payment, PaymentTrack::Voided);
    assert!(world.gateway.ledger.contains_key("pay_1:void"));
}

#[test]
fn a_reversal_that_overtakes_the_authorization_keeps_it_from_beginning() {
    let mut world = placed(&[("apple", 1)]);
    until(&mut world, Status::Reserved);
    cancel(&mut world).expect("reserved can be cancelled");
    // The newest mail first: Reverse is there before Authorize.
    while let Some(last) = world.mail.len().checked_sub(1) {
        world.deliver(last, Mood::Approve);
    }
    ended(&mut world, Status::Cancelled, "requested");
    assert!(world.gateway.ledger.is_empty(), "the gateway never heard of it");
}

#[test]
fn a_cancel_during_capture_refunds_and_restocks() {
    let mut world = placed(&[("apple", 3)]);
    while world.order("ord_1").payment != PaymentTrack::Capturing {
        world.deliver(0, Mood::Approve);
    }
    world.deliver(0, Mood::Approve);
    cancel(&mut world).expect("authorized can be cancelled");
    ended(&mut world, Status::Cancelled, "requested");
    assert_eq!(world.balance("ord_1"), Balance { held: 0, captured: 300, refunded: 300 });
}

#[test]
fn a_confirmed_order_can_be_cancelled_before_shipping() {
    let mut world = placed(&[("apple", 3)]);
    until(&mut world, Status::Confirmed);
    let Ok(Reply::Order(after)) = cancel(&mut world) else { panic!("confirmed can be cancelled") };
    assert_eq!(after.status, Status::Compensating, "the reply is the state after the command");
    ended(&mut world, Status::Cancelled, "requested");
    assert_eq!(world.order("ord_1").payment, PaymentTrack::Refunded);
    assert_eq!((world.levels("apple").on_hand, world.levels("apple").committed), (5, 0));
}

#[test]
fn an_order_that_has_ended_cannot_be_cancelled() {
    let mut world = placed(&[("apple", 9)]);
    until(&mut world, Status::Rejected);
    let refused = cancel(&mut world).expect_err("rejected is final");
    assert_eq!(refused.code(), "illegal-transition");
    let Rejection::IllegalTransition { from, allowed, .. } = refused else { panic!("names the state") };
    assert_eq!((from, allowed), (Status::Rejected, vec![]));
}

#[test]
fn a_cancel_of_a_compensating_order_names_what_it_may_become() {
    let mut world = placed(&[("apple", 1)]);
    cancel(&mut world).expect("pending can be cancelled");
    let refused = cancel(&mut world).expect_err("already under way");
    assert!(refused.to_string().contains("cancelled, expired, needs_attention"), "{refused}");
}

#[test]
fn an_id_can_be_placed_once() {
    let mut world = placed(&[("apple", 1)]);
    let again = order::Command::Place(Box::new(new_order(&[("bread", 1)])));
    let refused = world.ask::<Order>("ord_1", &again).expect_err("taken");
    assert_eq!(refused, Rejection::AlreadyExists);
    let unknown = world.ask::<Order>("ord_2", &order::Command::Cancel { reason: String::new() });
    assert_eq!(unknown.expect_err("unknown"), Rejection::NotFound);
}

#[test]
fn a_reservation_that_runs_out_expires_the_order_and_voids_its_payment() {
    let mut world = placed(&[("apple", 2), ("bread", 1)]);
    until(&mut world, Status::Reserved);
    world.deliver(0, Mood::Approve);
    // The gateway takes its time; the card is charged only after the reservation ran out.
    let ttl_ms = new_order(&[("apple", 1)]).reservation_ttl_ms;
    let task = world.mail.pop().expect("the authorization");
    world.advance(ttl_ms + 2000);
    world.settle(Mood::Approve);
    assert_eq!(world.order("ord_1").status, Status::Compensating);
    assert_eq!(world.levels("apple").available(), 5, "it is free again at once");
    world.mail.push(task);
    ended(&mut world, Status::Expired, "reservation-expired");
    assert_eq!(world.order("ord_1").payment, PaymentTrack::Voided);
}

#[test]
fn a_late_commit_is_refused_and_the_payment_voided() {
    let mut world = placed(&[("apple", 2), ("bread", 1)]);
    until(&mut world, Status::Authorized);
    // The first leg commits in time, the second does not.
    world.deliver(0, Mood::Approve);
    world.timers.clear();
    world.advance(new_order(&[("apple", 1)]).reservation_ttl_ms + 1000);
    world.deliver(0, Mood::Approve);
    let order = |world: &World| world.order("ord_1").reservations.clone();
    ended(&mut world, Status::Expired, "reservation-expired");
    let statuses: Vec<_> = order(&world).iter().map(|r| r.status).collect();
    assert_eq!(statuses, [ReservationStatus::Released, ReservationStatus::Expired]);
    assert_eq!(world.order("ord_1").payment, PaymentTrack::Voided);
}

#[test]
fn an_unknown_outcome_is_queried_under_the_same_key_and_never_guessed() {
    let mut world = placed(&[("apple", 1)]);
    until(&mut world, Status::Reserved);
    world.deliver(0, Mood::Approve);
    world.settle(Mood::Lose);
    let payment = world.payment_of("ord_1");
    assert_eq!(payment.status, payment::Status::Unknown);
    assert_eq!(world.order("ord_1").status, Status::Reserved, "the order waits");
    world.run_to_the_end();
    assert_eq!(world.order("ord_1").status, Status::Confirmed);
    let keys: Vec<_> = world.gateway.ledger.keys().map(String::as_str).collect();
    assert_eq!(keys, ["pay_1:authorize", "pay_1:capture"], "one charge each");
}

#[test]
fn an_operation_that_never_reached_the_gateway_is_sent_again_under_its_key() {
    let mut world = placed(&[("apple", 1)]);
    until(&mut world, Status::Reserved);
    world.settle(Mood::Away);
    assert!(world.gateway.ledger.is_empty());
    world.run_to_the_end();
    assert_eq!(world.order("ord_1").status, Status::Confirmed);
    assert_eq!(world.verdict(), Ok(()));
}

/// Lets the gateway be away for so many rounds of queries.
fn outage(world: &mut World, rounds: usize) {
    for _ in 0..rounds {
        world.settle(Mood::Away);
        let query = world.timers.iter().find(|((kind, ..), _)| kind == Payment::TYPE);
        let Some((_, (at_ms, _))) = query else { return };
        let wait_ms = at_ms.saturating_sub(world.now_ms);
        world.advance(wait_ms);
    }
    world.settle(Mood::Away);
}

#[test]
fn an_order_whose_money_cannot_be_given_back_needs_attention_until_it_can() {
    let mut world = placed(&[("apple", 2)]);
    until(&mut world, Status::Confirmed);
    cancel(&mut world).expect("confirmed can be cancelled");
    outage(&mut world, 4);
    let order = world.order("ord_1");
    assert_eq!((order.status, order.payment), (Status::NeedsAttention, PaymentTrack::Unknown));
    assert_eq!(order.stock, StockTrack::Clear, "stock does not wait for money");
    assert!(order.attention.is_some());
    // The gateway comes back: the payment's own queries resolve it.
    ended(&mut world, Status::Cancelled, "requested");
}

#[test]
fn an_order_whose_authorization_stays_unknown_gives_up_and_is_cancelled() {
    let mut world = placed(&[("apple", 2)]);
    until(&mut world, Status::Reserved);
    outage(&mut world, 3);
    assert_eq!(world.order("ord_1").status, Status::Compensating);
    ended(&mut world, Status::Cancelled, "payment-unresolved");
    assert_eq!(world.order("ord_1").payment, PaymentTrack::Voided);
}

#[test]
fn a_refused_refund_needs_attention_and_an_operator_can_try_again_under_a_new_key() {
    let mut world = placed(&[("apple", 2)]);
    until(&mut world, Status::Confirmed);
    cancel(&mut world).expect("confirmed can be cancelled");
    world.settle(Mood::Decline("account_closed"));
    assert_eq!(world.order("ord_1").status, Status::NeedsAttention);
    cancel(&mut world).expect("try again");
    ended(&mut world, Status::Cancelled, "requested");
    assert!(world.gateway.ledger.contains_key("pay_1:refund-2"));
}

#[test]
fn a_capture_that_is_declined_voids_and_restocks() {
    for (reason, money) in
        [("do_not_honor", PaymentTrack::Voided), ("authorization_expired", PaymentTrack::AuthorizationExpired)]
    {
        let mut world = placed(&[("apple", 2)]);
        while world.order("ord_1").payment != PaymentTrack::Capturing {
            world.deliver(0, Mood::Approve);
        }
        for _ in 0..2 {
            world.deliver(0, Mood::Decline(reason));
        }
        ended(&mut world, Status::Cancelled, "capture-declined");
        assert_eq!(world.order("ord_1").payment, money);
        assert_eq!(world.levels("apple").on_hand, 5);
    }
}

#[test]
fn a_payment_obeys_only_the_order_it_belongs_to() {
    let mut world = placed(&[("apple", 1)]);
    until(&mut world, Status::Confirmed);
    let foreign = payment::Command::Reverse { order_id: "ord_2".into() };
    let refused = world.ask::<Payment>("pay_1", &foreign).expect_err("not its own");
    assert_eq!(refused.code(), "payment-of-another-order");
}

#[test]
fn repeated_answers_of_every_kind_change_nothing() {
    let mut world = placed(&[("apple", 1)]);
    until(&mut world, Status::Confirmed);
    let version = world.orders["ord_1"].history.len();
    for late in [
        order::Command::StockReserved,
        order::Command::PaymentAuthorized,
        order::Command::StockCommitted,
        order::Command::PaymentCaptured,
        order::Command::StockUndone,
        order::Command::CommitRefused { done: 0 },
        order::Command::ReservationExpired { sku: "apple".into() },
        order::Command::PaymentDeclined { reason: "late".into() },
        order::Command::PaymentUnresolved { reason: "late".into() },
        order::Command::PaymentReversed { outcome: order::Reversal::Voided },
    ] {
        world.ask::<Order>("ord_1", &late).expect("tolerated");
    }
    assert_eq!(world.orders["ord_1"].history.len(), version);
    assert!(world.mail.is_empty());
}

#[test]
fn views_have_the_fields_of_the_contract() {
    let mut world = placed(&[("apple", 2)]);
    until(&mut world, Status::Confirmed);
    let view = OrderView::of("ord_1", world.order("ord_1"), 5).expect("exists");
    let json = serde_json::to_value(&view).expect("serialises");
    let expected = serde_json::json!({
        "id": "ord_1", "status": "confirmed", "payment_status": "captured",
        "fulfillment_status": "unfulfilled", "customer_id": "cus_1",
        "items": [{"sku": "apple", "quantity": 2, "unit_price": 100}],
        "currency": "USD", "total": {"amount": 200, "currency": "USD"},
        "reservations": [{"id": "res_1_1", "sku": "apple", "quantity": 2, "status": "committed",
            "expires_at": json["reservations"][0]["expires_at"]}],
        "fulfillments": [], "returns": [], "payment_id": "pay_1", "backorder": false, "metadata": {}, "version": 5,
        "created_at": "2027-01-15T08:00:00.069Z", "updated_at": "2027-01-15T08:00:00.069Z",
    });
    assert_eq!(json, expected);
    assert_eq!(OrderView::of("ord_2", &order::State::default(), 0), None);
    let payment = PaymentView::of("pay_1", world.payment_of("ord_1"), 4).expect("exists");
    assert_eq!(payment.captured.map(|money| money.amount()), Some(200));
    assert_eq!(payment_id("ord_1"), payment.id);
}

/// The chain passes sorted SKUs on, so two orders never wait for each other.
#[test]
fn reserving_starts_at_the_first_sku_by_name() {
    let world = placed(&[("bread", 1), ("apple", 1)]);
    let [super::world::Mail::Command { entity_type, id, command }] = world.mail.as_slice() else {
        panic!("one effect");
    };
    assert_eq!((entity_type.as_str(), id.as_str()), (Stock::TYPE, "apple"));
    let command: &Versioned = command;
    let Ok(stock::Command::Reserve { route, .. }) = decode_command::<Stock>(command) else { panic!("a reserve") };
    assert_eq!(route.legs.len(), 2);
}
