//! Fulfillments and returns by name.

use super::{
    gateway::Balance,
    gateway::Mood,
    new_order, order_of,
    world::{START_MS, World},
};
use crate::commerce::{
    FulfillOrder, OrderView, ReturnOrder,
    fields::METADATA_BYTES_MAX,
    order::{
        self, Action, FULFILLMENTS_MAX, FulfillmentStatus, Order, ParcelItem, PaymentTrack, RETURNS_MAX, Refund,
        RefundOutcome, Rejection, Reply, Status,
    },
    payment::{self, Payment, RefundStatus},
    stock::{self, Leg, RETURNS_REMEMBERED, Restock, Stock},
};
use crate::entity::{Context, Decision, Entity, codec};
use std::collections::BTreeSet;

/// Σ returned ≤ Σ fulfilled ≤ ordered per SKU, Σ refunds ≤ what was paid, and what has shipped is
/// never compensated. Checked on every event of every order in a world.
pub fn check(state: &order::State) {
    let shipping = &state.shipping;
    for (at, leg) in state.reservations.iter().enumerate() {
        let (sent, back) = (shipping.fulfilled(at), shipping.returned(at));
        assert!(back <= sent && sent <= leg.quantity, "{back} back, {sent} sent, {} ordered", leg.quantity);
    }
    let total = state.details.as_ref().map_or(0, |details| details.total.amount());
    assert!(shipping.refunds() <= total, "{shipping:?}");
    assert!(!shipping.has_begun() || state.ending.is_none(), "shipped, and compensated: {state:?}");
}

fn legs(items: &[(&str, u32)]) -> Vec<Leg> {
    items.iter().map(|&(sku, quantity)| Leg { sku: sku.into(), quantity }).collect()
}

fn fulfill(world: &mut World, items: &[(&str, u32)]) -> Result<Reply, Rejection> {
    world.ask::<Order>("ord_1", &order::Command::Fulfill { items: legs(items), tracking: None })
}

fn take_back(world: &mut World, items: &[(&str, u32)]) -> Result<Reply, Rejection> {
    world.ask::<Order>("ord_1", &order::Command::Return { items: legs(items), reason: Some("chipped".into()) })
}

/// A confirmed order over 3 apples and 2 breads, of which there are ten each.
fn confirmed() -> World {
    let mut world = World::new();
    for sku in ["apple", "bread"] {
        world.put_stock(sku, 10).expect("put");
    }
    let place = order::Command::Place(Box::new(new_order(&[("apple", 3), ("bread", 2)])));
    world.ask::<Order>("ord_1", &place).expect("placed");
    world.settle(Mood::Approve);
    assert_eq!(world.order("ord_1").status, Status::Confirmed);
    world
}

fn fulfilled() -> World {
    let mut world = confirmed();
    fulfill(&mut world, &[]).expect("confirmed");
    world
}

fn statuses(world: &World) -> (Status, PaymentTrack, FulfillmentStatus) {
    let view = OrderView::of("ord_1", world.order("ord_1"), 1).expect("placed");
    (view.status, view.payment_status, view.fulfillment_status)
}

#[test]
fn an_order_is_sent_in_parts_until_nothing_is_left() {
    let mut world = confirmed();
    fulfill(&mut world, &[("apple", 2)]).expect("a part");
    let partly = (Status::PartiallyFulfilled, PaymentTrack::Captured, FulfillmentStatus::PartiallyFulfilled);
    assert_eq!(statuses(&world), partly);
    // The same SKU twice is one.
    fulfill(&mut world, &[("bread", 1), ("bread", 1)]).expect("another part");
    fulfill(&mut world, &[]).expect("the rest");
    assert_eq!(statuses(&world), (Status::Fulfilled, PaymentTrack::Captured, FulfillmentStatus::Fulfilled));
    let view = OrderView::of("ord_1", world.order("ord_1"), 1).expect("placed");
    let sent: Vec<_> = view.fulfillments.iter().map(|parcel| (parcel.id.as_str(), parcel.items.clone())).collect();
    let item = |sku: &str, quantity| ParcelItem { sku: sku.into(), quantity };
    let expected =
        [("ful_1_1", vec![item("apple", 2)]), ("ful_1_2", vec![item("bread", 2)]), ("ful_1_3", vec![item("apple", 1)])];
    assert_eq!(sent, expected);
    world.run_to_the_end();
    assert_eq!(world.verdict(), Ok(()));
}

#[test]
fn no_more_is_sent_than_was_ordered() {
    let mut world = confirmed();
    fulfill(&mut world, &[("apple", 2)]).expect("a part");
    let too_many = fulfill(&mut world, &[("apple", 1), ("apple", 1)]).expect_err("one is left");
    let expected = Rejection::MoreThanLeft { sku: "apple".into(), asked: 2, left: 1, action: Action::Fulfill };
    assert_eq!(too_many, expected);
    assert_eq!(too_many.to_string(), "2 of apple are more than the 1 that are left to fulfill");
    let foreign = fulfill(&mut world, &[("cheese", 1)]).expect_err("never ordered");
    assert_eq!(foreign, Rejection::NotInOrder { sku: "cheese".into() });
    assert_eq!(fulfill(&mut world, &[("apple", 0)]).expect_err("nothing").code(), "invalid");
}

#[test]
fn what_is_asked_for_at_the_wrong_time_is_told_where_the_order_is() {
    let mut world = World::new();
    world.put_stock("apple", 10).expect("put");
    let place = order::Command::Place(Box::new(new_order(&[("apple", 3)])));
    world.ask::<Order>("ord_1", &place).expect("placed");
    let early = fulfill(&mut world, &[]).expect_err("not paid yet");
    let allowed = Status::Pending.allowed().to_vec();
    assert_eq!(early, Rejection::IllegalTransition { from: Status::Pending, to: Status::Fulfilled, allowed });
    world.settle(Mood::Approve);
    assert_eq!(take_back(&mut world, &[]).expect_err("not sent yet").code(), "illegal-transition");
    fulfill(&mut world, &[("apple", 1)]).expect("confirmed");
    assert_eq!(take_back(&mut world, &[]).expect_err("not all sent yet").code(), "illegal-transition");
    let cancel = order::Command::Cancel { reason: "late".into() };
    let shipped = world.ask::<Order>("ord_1", &cancel).expect_err("it has shipped");
    let Rejection::IllegalTransition { from, allowed, .. } = shipped else { panic!("{shipped:?}") };
    assert_eq!((from, allowed), (Status::PartiallyFulfilled, vec![Status::Fulfilled]));
}

#[test]
fn what_comes_back_is_restocked_and_its_price_refunded() {
    let mut world = fulfilled();
    let Ok(Reply::Order(after)) = take_back(&mut world, &[("apple", 1)]) else { panic!("it was sent") };
    assert_eq!((after.status, after.payment), (Status::PartiallyReturned, PaymentTrack::Refunding));
    world.settle(Mood::Approve);
    let partly = (Status::PartiallyReturned, PaymentTrack::PartiallyRefunded, FulfillmentStatus::PartiallyReturned);
    assert_eq!(statuses(&world), partly);
    assert_eq!(world.balance("ord_1"), Balance { held: 0, captured: 500, refunded: 100 });
    let levels = world.levels("apple");
    assert_eq!((levels.on_hand, levels.committed, levels.returned), (8, 3, 1));

    take_back(&mut world, &[]).expect("the rest");
    world.settle(Mood::Approve);
    assert_eq!(statuses(&world), (Status::Returned, PaymentTrack::Refunded, FulfillmentStatus::Returned));
    assert_eq!(world.balance("ord_1"), Balance { held: 0, captured: 500, refunded: 500 });
    assert_eq!((world.levels("apple").on_hand, world.levels("bread").on_hand), (10, 10));
    world.run_to_the_end();
    assert_eq!(world.verdict(), Ok(()));
}

#[test]
fn no_more_comes_back_than_was_sent() {
    let mut world = fulfilled();
    take_back(&mut world, &[("apple", 2)]).expect("they were sent");
    let refused = take_back(&mut world, &[("apple", 2)]).expect_err("one is left");
    let expected = Rejection::MoreThanLeft { sku: "apple".into(), asked: 2, left: 1, action: Action::Return };
    assert_eq!(refused, expected);
}

/// The same SKU for 3.00 and for 1.00: all returns together give back what was paid, each a part.
#[test]
fn a_sku_on_lines_of_different_prices_is_refunded_line_by_line() {
    let mut world = World::new();
    world.put_stock("apple", 10).expect("put");
    let mut order = order_of(&[("apple", 2), ("apple", 2)]);
    order.items[0].unit_price = 300;
    let place = order::Command::Place(Box::new(order.validate().expect("valid")));
    world.ask::<Order>("ord_1", &place).expect("placed");
    world.settle(Mood::Approve);
    fulfill(&mut world, &[]).expect("confirmed");
    for quantity in [1, 2, 1] {
        take_back(&mut world, &[("apple", quantity)]).expect("they were sent");
    }
    let amounts: Vec<_> = world.order("ord_1").shipping.returns.iter().map(|back| back.amount).collect();
    assert_eq!(amounts, [300, 400, 100]);
    world.run_to_the_end();
    assert_eq!(world.balance("ord_1").refunded, 800);
}

#[test]
fn what_cost_nothing_comes_back_without_a_refund() {
    let mut world = World::new();
    world.put_stock("apple", 10).expect("put");
    let mut order = order_of(&[("apple", 1)]);
    order.items[0].unit_price = 0;
    let place = order::Command::Place(Box::new(order.validate().expect("valid")));
    world.ask::<Order>("ord_1", &place).expect("placed");
    world.settle(Mood::Approve);
    fulfill(&mut world, &[]).expect("confirmed");
    take_back(&mut world, &[]).expect("it was sent");
    world.run_to_the_end();
    assert_eq!(statuses(&world).0, Status::Returned);
    assert!(world.payment_of("ord_1").refunds.is_empty());
    assert_eq!(world.verdict(), Ok(()));
}

#[test]
fn a_refund_that_is_refused_needs_attention_and_is_tried_again_under_a_new_key() {
    let mut world = fulfilled();
    take_back(&mut world, &[("apple", 1)]).expect("it was sent");
    take_back(&mut world, &[("bread", 1)]).expect("it was sent");
    world.settle(Mood::Decline("account_closed"));
    let order = world.order("ord_1");
    assert_eq!((order.status, order.payment), (Status::NeedsAttention, PaymentTrack::Unknown));
    assert_eq!(order.attention.as_deref(), Some("account_closed"));
    assert_eq!(statuses(&world).2, FulfillmentStatus::PartiallyReturned, "goods do not wait for money");
    assert_eq!(world.levels("apple").returned, 1);
    let more = take_back(&mut world, &[("apple", 1)]).expect_err("this one first");
    let Rejection::IllegalTransition { from, allowed, .. } = more else { panic!("{more:?}") };
    assert_eq!(from, Status::NeedsAttention);
    assert_eq!(allowed, [Status::PartiallyReturned, Status::Returned]);

    let again = order::Command::Cancel { reason: "operator".into() };
    world.ask::<Order>("ord_1", &again).expect("tries again");
    assert_eq!(statuses(&world).0, Status::PartiallyReturned);
    world.run_to_the_end();
    assert_eq!(world.order("ord_1").payment, PaymentTrack::PartiallyRefunded);
    let ids: BTreeSet<_> = world.payment_of("ord_1").refunds.iter().map(|refund| refund.id.as_str()).collect();
    assert_eq!(ids, BTreeSet::from(["ret_1_1", "ret_1_2", "ret_1_1-2", "ret_1_2-2"]));
    assert_eq!(world.verdict(), Ok(()));
}

#[test]
fn a_refund_that_nobody_knows_the_outcome_of_keeps_its_key_and_resolves_itself() {
    let mut world = fulfilled();
    take_back(&mut world, &[("apple", 1)]).expect("it was sent");
    for _ in 0..3 {
        world.settle(Mood::Lose);
        let next_ms = world.timers.values().map(|(at_ms, _)| *at_ms).min().expect("a query is due");
        world.advance(next_ms.saturating_sub(world.now_ms));
    }
    assert_eq!(world.order("ord_1").status, Status::NeedsAttention);
    assert_eq!(world.order("ord_1").shipping.returns[0].refund, Refund::Unresolved);
    world.run_to_the_end();
    assert_eq!(statuses(&world).0, Status::PartiallyReturned);
    assert_eq!(world.order("ord_1").attention, None);
    assert_eq!(world.balance("ord_1").refunded, 100);
    assert_eq!(world.payment_of("ord_1").refunds.len(), 1);
    assert_eq!(world.verdict(), Ok(()));
}

#[test]
fn an_operator_who_tries_an_unknown_refund_again_has_the_gateway_asked_under_the_same_key() {
    let mut world = fulfilled();
    take_back(&mut world, &[("apple", 1)]).expect("it was sent");
    let unresolved = RefundOutcome::Unresolved { reason: "silence".into() };
    world.settle(Mood::Lose);
    let told = order::Command::RefundSettled { refund_id: "ret_1_1".into(), outcome: unresolved };
    world.ask::<Order>("ord_1", &told).expect("heard");
    let again = order::Command::Cancel { reason: "operator".into() };
    world.ask::<Order>("ord_1", &again).expect("tries again");
    // No timer is needed: asking again asks the gateway at once.
    world.timers.clear();
    world.settle(Mood::Approve);
    assert_eq!(world.order("ord_1").shipping.returns[0].refund, Refund::Succeeded);
    let refunds = world.gateway.ledger.keys().filter(|key| key.contains(":refund")).count();
    assert_eq!(refunds, 1);
}

#[test]
fn repeated_answers_about_a_return_change_nothing() {
    let mut world = fulfilled();
    take_back(&mut world, &[("apple", 1)]).expect("it was sent");
    world.run_to_the_end();
    let version = world.orders["ord_1"].history.len();
    let settled = |outcome| order::Command::RefundSettled { refund_id: "ret_1_1".into(), outcome };
    for late in [
        order::Command::ReturnRestocked { return_id: "ret_1_1".into() },
        order::Command::ReturnRestocked { return_id: "ret_1_9".into() },
        settled(RefundOutcome::Succeeded),
        settled(RefundOutcome::Declined { reason: "late".into() }),
        settled(RefundOutcome::Unresolved { reason: "late".into() }),
        order::Command::RefundSettled { refund_id: "ret_1_1-2".into(), outcome: RefundOutcome::Succeeded },
    ] {
        world.ask::<Order>("ord_1", &late).expect("tolerated");
    }
    assert_eq!(world.orders["ord_1"].history.len(), version);
}

#[test]
fn a_return_is_restocked_and_refunded_once_however_often_it_is_told() {
    let mut world = fulfilled();
    take_back(&mut world, &[("apple", 1), ("bread", 1)]).expect("they were sent");
    for _ in 0..3 {
        for at in 0..world.mail.len() {
            world.repeat(at);
        }
    }
    world.run_to_the_end();
    assert_eq!((world.levels("apple").returned, world.levels("bread").returned), (1, 1));
    assert_eq!(world.balance("ord_1").refunded, 200);
    assert_eq!(world.verdict(), Ok(()));
}

#[test]
fn what_comes_back_goes_to_those_who_wait() {
    let mut world = World::new();
    world.supply("apple", &stock::Command::Put { on_hand: 1, backorder_limit: 5 }).expect("put");
    world.ask::<Order>("ord_1", &order::Command::Place(Box::new(new_order(&[("apple", 1)])))).expect("placed");
    world.settle(Mood::Approve);
    let patient = order::NewOrder { backorder: true, ..new_order(&[("apple", 1)]) };
    world.ask::<Order>("ord_2", &order::Command::Place(Box::new(patient))).expect("placed");
    world.settle(Mood::Approve);
    assert_eq!(world.order("ord_2").status, Status::Backordered);
    fulfill(&mut world, &[]).expect("confirmed");
    take_back(&mut world, &[]).expect("it was sent");
    world.run_to_the_end();
    assert_eq!(world.order("ord_2").status, Status::Confirmed);
    assert_eq!(world.verdict(), Ok(()));
}

/// What one command decides has to fit into one item of the log (`shard::proposer`).
const ITEM_BYTES_MAX: usize = 90 * 1024;

/// How many bytes a command decides: its events, its effects, and the reply that is kept.
fn weight(state: &order::State, command: order::Command) -> usize {
    let context = Context { id: "ord_1", version: 1, now_ms: START_MS, random: 7 };
    match Order::decide(state, command, &context) {
        Decision::Accept { events, effects, reply } => {
            codec::encode("decision", &(events, effects, reply)).expect("fits").len()
        }
        Decision::Reject(rejection) => panic!("{rejection}"),
    }
}

#[test]
fn the_largest_order_takes_its_fulfillments_and_returns_of_which_the_last_completes_it() {
    let mut world = World::new();
    let skus: Vec<_> = (0..100).map(|sku| format!("{sku:0>64}")).collect();
    let lines: Vec<_> = skus.iter().map(|sku| (sku.as_str(), 100_000)).collect();
    for sku in &skus {
        world.put_stock(sku, 100_000).expect("put");
    }
    let snails = |count| "🐌".repeat(count);
    let mut largest = order_of(&lines);
    largest.items.iter_mut().for_each(|item| item.unit_price = 99_999_999);
    (largest.customer_id, largest.payment_method) = (snails(128), snails(128));
    largest.metadata = (0..8).map(|key| (key.to_string(), snails(500))).collect();
    let left = METADATA_BYTES_MAX - 8 * 2001;
    largest.metadata.insert("x".into(), "x".repeat(left - 1));
    let mut too_large = largest.clone();
    too_large.metadata.insert("y".into(), String::new());
    let wrong = too_large.validate().expect_err("a byte too many");
    assert_eq!(wrong.iter().map(|error| error.field.as_str()).collect::<Vec<_>>(), ["metadata"]);
    let place = order::Command::Place(Box::new(largest.validate().expect("as large as may be")));
    let placed = weight(&order::State::default(), place.clone());
    // Beside it in the item: the entity's key, the idempotency key and the fingerprint.
    assert!(placed + 1024 < ITEM_BYTES_MAX, "{placed} bytes");
    world.ask::<Order>("ord_1", &place).expect("placed");
    world.settle(Mood::Approve);

    let some: Vec<_> = skus.iter().map(|sku| (sku.as_str(), 300)).collect();
    let part = order::Command::Fulfill { items: legs(&some), tracking: Some(snails(64)) };
    for _ in 1..FULFILLMENTS_MAX {
        world.ask::<Order>("ord_1", &part).expect("a part");
    }
    let refused = world.ask::<Order>("ord_1", &part).expect_err("this would be the last, and not the rest");
    assert_eq!(refused, Rejection::TooManyFulfillments { max: FULFILLMENTS_MAX });
    fulfill(&mut world, &[]).expect("all that is left");
    let back = order::Command::Return { items: legs(&some), reason: Some(snails(500)) };
    for _ in 1..RETURNS_MAX {
        world.ask::<Order>("ord_1", &back).expect("they were sent");
    }
    let last = weight(world.order("ord_1"), back.clone());
    assert!(last + 1024 < ITEM_BYTES_MAX, "{last} bytes");
    world.ask::<Order>("ord_1", &back).expect("the last one that fits");
    let refused = world.ask::<Order>("ord_1", &back).expect_err("one too many");
    assert_eq!(refused, Rejection::TooManyReturns { max: RETURNS_MAX });
}

#[test]
fn a_stock_remembers_a_bounded_number_of_returns() {
    let mut state = stock::State::default();
    for number in 0..RETURNS_REMEMBERED + 10 {
        let (order_id, return_id) = ("ord_1".to_owned(), format!("ret_1_{number}"));
        Stock::evolve(&mut state, &stock::Event::Returned { order_id, return_id, quantity: 1 });
    }
    assert_eq!(state.returns.len(), RETURNS_REMEMBERED);
    assert_eq!(state.returns.back().map(String::as_str), Some("ret_1_137"));
    assert_eq!(state.levels.returned, 138);
}

#[test]
fn a_return_for_another_sku_is_not_taken_in() {
    let mut world = confirmed();
    let astray = Restock { order_id: "ord_1".into(), return_id: "ret_1_1".into(), legs: legs(&[("bread", 1)]) };
    world.ask::<Stock>("apple", &stock::Command::Restock(astray)).expect("ignored");
    assert!(world.mail.is_empty() && world.levels("apple").returned == 0);
}

#[test]
fn a_payment_refunds_no_part_of_what_it_has_not_captured() {
    let mut world = World::new();
    let amount = crate::commerce::Money::new(5, "USD".parse().expect("known")).expect("in range");
    let refund = payment::Command::RefundPart { order_id: "ord_1".into(), refund_id: "ret_1_1".into(), amount };
    world.ask::<Payment>("pay_1", &refund).expect("answered by a command");
    assert!(world.payments["pay_1"].history.is_empty());
    assert_eq!(world.mail.len(), 1, "the order hears of it");
    assert!(world.gateway.ledger.is_empty());
}

#[test]
fn refunds_of_an_order_are_in_its_payments_ledger() {
    let mut world = fulfilled();
    take_back(&mut world, &[("bread", 2)]).expect("they were sent");
    world.settle(Mood::Approve);
    let refunds = &world.payment_of("ord_1").refunds;
    let ledger: Vec<_> = refunds.iter().map(|refund| (refund.id.as_str(), refund.amount, refund.status)).collect();
    assert_eq!(ledger, [("ret_1_1", 200, RefundStatus::Succeeded)]);
}

#[test]
fn bodies_name_every_wrong_field() {
    let wrong = |body: &str| {
        let fulfill: FulfillOrder = serde_json::from_str(body).expect("parses");
        let errors = fulfill.validate().err().unwrap_or_default();
        errors.into_iter().map(|error| error.field).collect::<Vec<_>>()
    };
    assert_eq!(wrong("{}"), Vec::<String>::new());
    assert_eq!(wrong(r#"{"items": []}"#), ["items"]);
    let body = r#"{"items": [{"sku": "a b", "quantity": 0}, {"sku": "x", "quantity": -1}], "tracking": ""}"#;
    assert_eq!(wrong(body), ["items[0].sku", "items[0].quantity", "items[1].quantity", "tracking"]);
    let long = ReturnOrder { items: None, reason: Some("x".repeat(501)) };
    assert_eq!(long.validate().expect_err("too long")[0].field, "reason");
    let all = ReturnOrder::default().validate();
    assert_eq!(all, Ok(order::Command::Return { items: Vec::new(), reason: None }));
}
