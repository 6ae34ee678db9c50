//! Payments of their own, by name: what clients ask of them, a gateway that declines, loses answers
//! and is away, validities that run out. At random they are in `random_payments`.

use super::{
    gateway::{Balance, Mood},
    new_order,
    world::World,
};
use crate::commerce::{
    CreatePayment, Money, PaymentView,
    gateway::Operation,
    order::{self, Order},
    payment::{
        self, Action, Amount, Ask, Command, Payment, REFUNDS_MAX, RefundStatus, Rejection, Reply, State, Status,
    },
};
use crate::entity::{Entity, codec, encode_event};
const DAY_MS: u64 = 86_400_000;
pub const VALID_MS: u64 = 7 * DAY_MS;
const ID: &str = "pay_1";

pub fn usd(amount: i64) -> Money {
    Money::new(amount, "USD".parse().expect("known")).expect("in range")
}

fn new_payment(amount: i64, capture: bool) -> CreatePayment {
    CreatePayment {
        amount: Amount { amount, currency: "USD".into() },
        payment_method: "pm_card_ok".into(),
        capture,
        metadata: [("cart".to_owned(), "7".to_owned())].into(),
    }
}

pub fn ask(world: &mut World, ask: Ask) -> Result<State, Rejection> {
    match world.ask::<Payment>(ID, &Command::Ask(ask))? {
        Reply::Payment(state) => Ok(*state),
        Reply::Ack => panic!("a client is shown the payment"),
    }
}

pub fn create(world: &mut World, amount: i64, capture: bool) -> State {
    ask(world, new_payment(amount, capture).validate(VALID_MS).expect("valid")).expect("a new id")
}

/// A payment of 1000 that is authorized.
fn authorized() -> World {
    let mut world = World::new();
    create(&mut world, 1000, false);
    world.settle(Mood::Approve);
    assert_eq!(state(&world).status, Status::Authorized);
    world
}

/// A payment of 1000 that is captured.
pub fn captured() -> World {
    let mut world = World::new();
    create(&mut world, 1000, true);
    world.settle(Mood::Approve);
    assert_eq!(state(&world).status, Status::Captured);
    world
}

pub fn state(world: &World) -> &State {
    &world.payments[ID].state
}

fn view(world: &World) -> PaymentView {
    PaymentView::of(ID, state(world), 1).expect("exists")
}

pub fn refund(world: &mut World, amount: impl Into<Option<i64>>) -> Result<State, Rejection> {
    ask(world, Ask::Refund { amount: amount.into().map(usd) })
}

/// What the gateway has been asked, by key.
fn keys(world: &World) -> Vec<&str> {
    world.gateway.ledger.keys().map(String::as_str).collect()
}

fn balance(world: &World) -> Balance {
    world.gateway.balance(ID)
}

#[test]
fn a_payment_is_authorized_and_waits_to_be_captured() {
    let mut world = World::new();
    assert_eq!(create(&mut world, 1000, false).status, Status::Authorizing);
    world.settle(Mood::Approve);
    assert_eq!(state(&world).status, Status::Authorized);
    assert_eq!(balance(&world), Balance { held: 1000, captured: 0, refunded: 0 });
    let after = ask(&mut world, Ask::Capture { amount: None }).expect("authorized");
    assert_eq!(after.status, Status::Capturing);
    world.settle(Mood::Approve);
    assert_eq!(balance(&world), Balance { held: 0, captured: 1000, refunded: 0 });
    assert!(world.timers.is_empty(), "nothing is left to run out");
    assert_eq!(world.verdict(), Ok(()));
}

#[test]
fn a_payment_to_be_captured_at_once_is_and_the_gateway_learns_what_it_is_for() {
    let world = captured();
    assert_eq!(keys(&world), ["pay_1:authorize", "pay_1:capture"]);
    let metadata = &world.gateway.ledger["pay_1:authorize"].0.metadata;
    assert_eq!(metadata.get("cart").map(String::as_str), Some("7"));
}

#[test]
fn a_part_is_captured_and_the_rest_let_go() {
    let mut world = authorized();
    ask(&mut world, Ask::Capture { amount: Some(usd(300)) }).expect("authorized");
    world.settle(Mood::Approve);
    assert_eq!(balance(&world), Balance { held: 0, captured: 300, refunded: 0 });
    assert_eq!((view(&world).captured, view(&world).amount), (Some(usd(300)), Some(usd(1000))));
    assert_eq!(world.gateway.ledger["pay_1:capture"].0.amount, usd(300));
    let again = ask(&mut world, Ask::Capture { amount: Some(usd(700)) }).expect_err("captured once");
    assert_eq!(again.code(), "illegal-transition");
}

#[test]
fn no_more_is_captured_than_was_authorized_and_in_no_other_currency() {
    let mut world = authorized();
    let too_much = ask(&mut world, Ask::Capture { amount: Some(usd(1001)) }).expect_err("too much");
    assert_eq!(too_much, Rejection::ExceedsAuthorized { amount: usd(1001), authorized: usd(1000) });
    let euros = Money::new(5, "EUR".parse().expect("known")).expect("in range");
    let other = ask(&mut world, Ask::Capture { amount: Some(euros) }).expect_err("another currency");
    assert_eq!(other, Rejection::OtherCurrency { currency: usd(1).currency() });
    assert_eq!(state(&world).status, Status::Authorized);
}

#[test]
fn a_capture_that_is_refused_can_be_tried_again_under_a_new_key() {
    let mut world = authorized();
    ask(&mut world, Ask::Capture { amount: Some(usd(900)) }).expect("authorized");
    world.settle(Mood::Decline("insufficient_funds"));
    assert_eq!(
        (state(&world).status, view(&world).reason.as_deref()),
        (Status::Authorized, Some("insufficient_funds"))
    );
    ask(&mut world, Ask::Capture { amount: Some(usd(500)) }).expect("still authorized");
    world.settle(Mood::Approve);
    assert_eq!(keys(&world), ["pay_1:authorize", "pay_1:capture", "pay_1:capture-2"]);
    assert_eq!(balance(&world), Balance { held: 0, captured: 500, refunded: 0 });
}

#[test]
fn a_payment_is_voided_before_its_capture_and_never_after() {
    let mut world = authorized();
    ask(&mut world, Ask::Void).expect("authorized");
    assert_eq!(view(&world).in_progress, Some(Operation::Void));
    let meanwhile = ask(&mut world, Ask::Capture { amount: None }).expect_err("the gateway is being asked");
    assert_eq!(meanwhile, Rejection::OperationInProgress { operation: Operation::Void });
    world.settle(Mood::Approve);
    assert_eq!((state(&world).status, balance(&world).held), (Status::Voided, 0));
    let refused = ask(&mut captured(), Ask::Void).expect_err("captured");
    let allowed = Status::Captured.allowed().to_vec();
    assert_eq!(refused, Rejection::IllegalTransition { action: Action::Void, from: Status::Captured, allowed });
}

#[test]
fn what_the_state_does_not_allow_is_refused_with_the_state_and_changes_nothing() {
    let mut declined = World::new();
    create(&mut declined, 5, false);
    declined.settle(Mood::Decline("card_declined"));
    let mut authorizing = World::new();
    create(&mut authorizing, 5, false);
    let mut unknown = World::new();
    create(&mut unknown, 5, false);
    unknown.settle(Mood::Lose);
    for mut world in [declined, authorizing, unknown] {
        let before = state(&world).clone();
        for wanted in [Ask::Capture { amount: None }, Ask::Void, Ask::Refund { amount: None }] {
            let refused = ask(&mut world, wanted).expect_err("not yet, or never again");
            let Rejection::IllegalTransition { from, allowed, .. } = refused else { panic!("{refused}") };
            assert_eq!((from, &*allowed), (before.status, before.status.allowed()));
        }
        assert_eq!(state(&world), &before);
    }
}

#[test]
fn a_payment_that_is_not_there_or_is_an_orders_is_not_a_clients_to_change() {
    let mut world = World::new();
    for wanted in [Ask::Capture { amount: None }, Ask::Void, Ask::Refund { amount: None }] {
        assert_eq!(ask(&mut world, wanted), Err(Rejection::NotFound));
    }
    world.put_stock("apple", 5).expect("put");
    let place = order::Command::Place(Box::new(new_order(&[("apple", 1)])));
    world.ask::<Order>("ord_1", &place).expect("placed");
    world.settle(Mood::Approve);
    let belongs = Rejection::BelongsToOrder { order_id: "ord_1".into() };
    for wanted in [Ask::Capture { amount: None }, Ask::Void, Ask::Refund { amount: None }] {
        assert_eq!(ask(&mut world, wanted), Err(belongs.clone()));
    }
    assert_eq!(world.verdict(), Ok(()));
}

/// An order that takes everything back while a part of it is still being refunded.
#[test]
fn a_reversal_waits_for_the_refunds_under_way_and_gives_back_the_rest() {
    for (answer, rest) in [(Mood::Approve, 70), (Mood::Decline("account_closed"), 100)] {
        let mut world = World::new();
        world.put_stock("apple", 5).expect("put");
        let place = order::Command::Place(Box::new(new_order(&[("apple", 1)])));
        world.ask::<Order>("ord_1", &place).expect("placed");
        world.settle(Mood::Approve);
        let fact = payment::Fact::RefundOpened { refund_id: "part".into(), amount: usd(30) };
        let event = payment::Event { at_ms: world.now_ms, fact };
        let kept = world.payments.get_mut(ID).expect("the order's");
        Payment::evolve(&mut kept.state, &event);
        kept.history.push(encode_event::<Payment>(&event).expect("encodes"));
        world.ask::<Order>("ord_1", &order::Command::Cancel { reason: "returned".into() }).expect("confirmed");
        world.settle(Mood::Approve);
        assert!(state(&world).reverse_wanted && state(&world).in_flight.is_none(), "it waits");
        // The gateway's answer to the part, which nobody has sent here.
        let mut request = world.gateway.ledger["pay_1:capture"].0.clone();
        (request.operation, request.key, request.amount) = (Operation::Refund, "pay_1:refund".into(), usd(30));
        let result = world.gateway.run(request, answer);
        world.ask::<Payment>(ID, &Command::GatewayAnswered { tag: "refund-1#0".into(), result }).expect("awaited");
        world.run_to_the_end();
        assert_eq!(world.order("ord_1").status, order::Status::Cancelled);
        assert_eq!(world.gateway.ledger["pay_1:refund-2"].0.amount, usd(rest));
        assert_eq!(world.verdict(), Ok(()));
    }
}

#[test]
fn an_order_cannot_drive_a_payment_that_is_not_its_own() {
    let mut world = captured();
    let foreign = Command::Reverse { order_id: "ord_1".into() };
    assert_eq!(world.ask::<Payment>(ID, &foreign), Err(Rejection::OtherOrder));
    assert_eq!(state(&world).refunded, 0);
}

#[test]
fn refunds_in_parts_have_keys_of_their_own_and_end_at_what_was_captured() {
    let mut world = captured();
    refund(&mut world, 300).expect("captured");
    refund(&mut world, 200).expect("the first is still pending");
    assert_eq!(state(&world).refunds_pending(), 500);
    world.settle(Mood::Approve);
    refund(&mut world, None).expect("what is left");
    world.settle(Mood::Approve);
    assert_eq!(keys(&world)[2..], ["pay_1:refund", "pay_1:refund-2", "pay_1:refund-3"]);
    assert_eq!(balance(&world), Balance { held: 0, captured: 1000, refunded: 1000 });
    let refunds: Vec<_> = view(&world).refunds.into_iter().map(|refund| (refund.id, refund.amount)).collect();
    let expected = [("re_1_1", 300), ("re_1_2", 200), ("re_1_3", 500)];
    assert_eq!(refunds, expected.map(|(id, amount)| (id.to_owned(), Some(usd(amount)))));
    assert_eq!(state(&world).status, Status::Captured);
    assert_eq!(refund(&mut world, None), Err(Rejection::ExceedsCaptured { amount: usd(0), left: usd(0) }));
    assert_eq!(world.verdict(), Ok(()));
}

/// The defect this is named after: two refunds are each checked against what is refunded so far,
/// while neither has been answered yet, and both go out.
#[test]
fn a_refund_raced_with_a_second_refund_never_exceeds_the_capture() {
    for first_answer in [Mood::Approve, Mood::Lose, Mood::Away] {
        let mut world = captured();
        refund(&mut world, 600).expect("captured");
        let second = refund(&mut world, 600).expect_err("the first may still be made");
        assert_eq!(second, Rejection::ExceedsCaptured { amount: usd(600), left: usd(400) });
        world.settle(first_answer);
        // Made, or nobody knows: either way it counts.
        refund(&mut world, 401).expect_err("still too much");
        refund(&mut world, 400).expect("exactly what is left");
        world.run_to_the_end();
        assert_eq!(balance(&world), Balance { held: 0, captured: 1000, refunded: 1000 }, "{first_answer:?}");
        assert_eq!(world.verdict(), Ok(()));
    }
}

#[test]
fn a_refund_that_the_gateway_refuses_can_be_made_anew() {
    let mut world = captured();
    refund(&mut world, 1000).expect("captured");
    world.settle(Mood::Decline("account_closed"));
    let failed = &view(&world).refunds[0];
    assert_eq!((failed.status, failed.reason.as_deref()), (RefundStatus::Failed, Some("account_closed")));
    refund(&mut world, 1000).expect("nothing was refunded");
    world.settle(Mood::Approve);
    assert_eq!(balance(&world), Balance { held: 0, captured: 1000, refunded: 1000 });
}

#[test]
fn a_refund_without_an_answer_is_queried_under_its_key_beside_another_one() {
    let mut world = captured();
    refund(&mut world, 300).expect("captured");
    world.settle(Mood::Lose);
    refund(&mut world, 200).expect("the first is unknown, not in the way");
    world.settle(Mood::Away);
    let statuses = |world: &World| view(world).refunds.iter().map(|refund| refund.status).collect::<Vec<_>>();
    assert_eq!(statuses(&world), [RefundStatus::Unknown; 2]);
    assert!(!view(&world).is_settled());
    world.run_to_the_end();
    assert_eq!(statuses(&world), [RefundStatus::Succeeded; 2]);
    assert_eq!(keys(&world)[2..], ["pay_1:refund", "pay_1:refund-2"], "one key each");
    assert!(view(&world).is_settled());
    assert_eq!(world.verdict(), Ok(()));
}

#[test]
fn the_number_of_refunds_is_bounded_and_the_state_stays_small() {
    let mut world = captured();
    let endless: &str = Box::leak("€".repeat(10_000).into_boxed_str());
    for _ in 0..REFUNDS_MAX {
        refund(&mut world, 1).expect("captured");
        world.settle(Mood::Decline(endless));
    }
    assert_eq!(refund(&mut world, 1), Err(Rejection::TooManyRefunds { max: REFUNDS_MAX }));
    let bytes = codec::encode("state", state(&world)).expect("encodes").len();
    // It is kept as an answer beside an event and a task, in one item of 90 KiB.
    assert!(bytes + crate::commerce::fields::METADATA_BYTES_MAX < 60 << 10, "{bytes}");
}

#[test]
fn an_authorization_runs_out_and_the_gateway_lets_go_of_it() {
    let mut world = authorized();
    assert_eq!(view(&world).expires_at.as_deref(), Some("2027-01-22T08:00:00.074Z"));
    world.advance(VALID_MS - 1000);
    world.settle(Mood::Approve);
    assert_eq!(state(&world).status, Status::Authorized);
    world.run_to_the_end();
    assert_eq!((state(&world).status, balance(&world).held), (Status::AuthorizationExpired, 0));
    assert_eq!(keys(&world), ["pay_1:authorize", "pay_1:void"]);
    assert_eq!(world.verdict(), Ok(()));
}

#[test]
fn what_has_run_out_is_not_captured_even_before_the_timer_comes_by() {
    let mut world = authorized();
    world.timers.clear();
    world.advance(VALID_MS + 1000);
    let late = ask(&mut world, Ask::Capture { amount: None }).expect_err("run out");
    let Rejection::IllegalTransition { from, allowed, .. } = late else { panic!("{late}") };
    assert_eq!(from, Status::Authorized);
    assert!(!allowed.contains(&Status::Capturing) && allowed.contains(&Status::AuthorizationExpired));
    ask(&mut world, Ask::Void).expect("a void is never too late");
}

#[test]
fn a_capture_under_way_is_not_disturbed_by_the_end_of_the_validity() {
    let mut world = authorized();
    ask(&mut world, Ask::Capture { amount: None }).expect("authorized");
    let task = world.mail.pop().expect("the capture");
    world.advance(VALID_MS + 1000);
    world.settle(Mood::Approve);
    world.mail.push(task);
    world.run_to_the_end();
    assert_eq!(state(&world).status, Status::Captured);
    // One that the gateway refuses leaves an authorization behind that has run out meanwhile.
    let mut world = authorized();
    ask(&mut world, Ask::Capture { amount: None }).expect("authorized");
    let task = world.mail.pop().expect("the capture");
    world.advance(VALID_MS + 1000);
    world.settle(Mood::Approve);
    world.mail.push(task);
    world.settle(Mood::Decline("insufficient_funds"));
    world.run_to_the_end();
    assert_eq!(state(&world).status, Status::AuthorizationExpired);
    assert_eq!(world.verdict(), Ok(()));
}

#[test]
fn a_gateway_that_will_not_let_go_is_asked_again_and_one_that_already_has_is_believed() {
    let mut world = authorized();
    world.advance(VALID_MS + 1000);
    world.settle(Mood::Decline("try_later"));
    assert_eq!(state(&world).status, Status::Authorized);
    world.run_to_the_end();
    assert_eq!(state(&world).status, Status::AuthorizationExpired);
    assert_eq!(keys(&world), ["pay_1:authorize", "pay_1:void", "pay_1:void-2"]);
    let mut world = authorized();
    ask(&mut world, Ask::Void).expect("authorized");
    world.settle(Mood::Decline("authorization_expired"));
    assert_eq!(state(&world).status, Status::AuthorizationExpired);
    assert_eq!(world.verdict(), Ok(()));
}

#[test]
fn an_id_can_be_created_once_and_a_payment_of_nothing_never() {
    let mut world = captured();
    let again = new_payment(5, false).validate(VALID_MS).expect("valid");
    assert_eq!(ask(&mut world, again.clone()), Err(Rejection::AlreadyExists));
    let Ask::Create(nothing) = again else { panic!("a new payment") };
    let nothing = payment::NewPayment { amount: usd(0), ..*nothing };
    let refused = world.ask::<Payment>("pay_2", &Command::Ask(Ask::Create(Box::new(nothing))));
    assert_eq!(refused.expect_err("nothing").code(), "invalid");
}

#[test]
fn wrong_fields_of_a_payment_are_all_named() {
    let fields = |change: fn(&mut CreatePayment)| {
        let mut body = new_payment(5, false);
        change(&mut body);
        body.validate(VALID_MS).expect_err("refused").into_iter().map(|error| error.field).collect::<Vec<_>>()
    };
    assert_eq!(fields(|body| body.amount.amount = 0), ["amount.amount"]);
    assert_eq!(fields(|body| body.amount.amount = i64::MAX), ["amount.amount"]);
    assert_eq!(fields(|body| body.payment_method.clear()), ["payment_method"]);
    let both = |body: &mut CreatePayment| body.amount = Amount { amount: -1, currency: "usd".into() };
    assert_eq!(fields(both), ["amount.amount", "amount.currency"]);
    let heavy = |body: &mut CreatePayment| {
        body.metadata = (0..20).map(|key| (key.to_string(), "\u{10ffff}".repeat(500))).collect();
    };
    assert_eq!(fields(heavy), ["metadata"]);
}

#[test]
fn commands_stay_small_enough_for_one_entry() {
    let mut body = new_payment(5, true);
    body.metadata = (0..20).map(|key| (key.to_string(), "x".repeat(500))).collect();
    let mut world = World::new();
    ask(&mut world, body.validate(VALID_MS).expect("valid")).expect("a new id");
    let bytes = codec::encode("state", state(&world)).expect("encodes").len();
    // An event, a task and an answer go into one item of 90 KiB.
    assert!(3 * (bytes + crate::commerce::fields::METADATA_BYTES_MAX) < 90 << 10, "{bytes}");
}
