//! Golden fixtures: events as version 1 wrote them stay readable forever.
//! tests/fixtures/events/README.md tells how to add to them.

use crate::commerce::{
    Money, Payment, Stock,
    order::{self, Details, Ending, Fact, Item, Order, Reason, Reversal, Status},
    payment,
    reservation::{self, Reservation},
    stock::{self, Leg, Owner},
};
use crate::entity::{
    Context, Decision, Entity, Versioned,
    codec::{self, decode},
    decode_event, encode_event,
};
use serde::{Deserialize, Serialize};
use std::{fmt::Debug, fmt::Write as _, sync::Arc};

const AT_MS: u64 = 1_800_000_000_123;

fn money(amount: i64) -> Money {
    Money::new(amount, "USD".parse().expect("known")).expect("in range")
}

fn order_events() -> Vec<crate::commerce::order::Event> {
    let details = Details {
        customer_id: "cus_1".into(),
        items: vec![Item { sku: "apple".into(), quantity: 2, unit_price: 1999 }],
        total: money(3998),
        payment_method: "pm_card_ok".into(),
        backorder: true,
        metadata: [("channel".to_owned(), "web".to_owned())].into(),
        created_at_ms: AT_MS,
        reserved_until_ms: AT_MS + 900_000,
    };
    let reason = || "card_declined".to_owned();
    let items = || vec![Leg { sku: "apple".into(), quantity: 2 }];
    let return_id = || "ret_1_1".to_owned();
    let ending = |status| Ending { status, reason: Reason { code: "code".into(), detail: "detail".into() } };
    let facts = vec![
        Fact::Placed(Arc::new(details)),
        Fact::StockReserved,
        Fact::StockRefused { done: 1, ending: ending(Status::Rejected) },
        Fact::PaymentAuthorized,
        Fact::StockCommitted,
        Fact::PaymentCaptured,
        Fact::PaymentDeclined { reason: reason() },
        Fact::CaptureDeclined { reason: reason() },
        Fact::CommitRefused { done: 2 },
        Fact::ReservationExpired { sku: "apple".into() },
        Fact::CompensationStarted { ending: ending(Status::Cancelled) },
        Fact::UndoStarted,
        Fact::StockUndone,
        Fact::ReversalStarted,
        Fact::PaymentReversed { outcome: Reversal::Refunded },
        Fact::AttentionNeeded { reason: reason() },
        Fact::CompensationResumed,
        Fact::Ended,
        Fact::StockBackordered { done: 1, sku: "bread".into() },
        Fact::BackorderServed { done: 1, sku: "bread".into() },
        Fact::Fulfilled { items: items(), tracking: Some("1Z999".into()) },
        Fact::Returned { return_id: return_id(), items: items(), reason: Some("chipped".into()), refund: money(3998) },
        Fact::ReturnRestocked { return_id: return_id() },
        Fact::ReturnRefunded { return_id: return_id() },
        Fact::RefundDeclined { return_id: return_id(), reason: reason() },
        Fact::RefundUnresolved { return_id: return_id(), reason: reason() },
        Fact::RefundRetried { return_id: return_id() },
    ];
    facts.into_iter().map(|fact| crate::commerce::order::Event { at_ms: AT_MS, fact }).collect()
}

fn payment_events() -> Vec<payment::Event> {
    use payment::Fact::*;
    let reference = || "auth_1".to_owned();
    let reason = || "card_declined".to_owned();
    let order_id = || "ord_1".to_owned();
    let refund_id = || "re_1_1".to_owned();
    let facts = vec![
        AuthorizationRequested(payment::Authorize {
            order_id: order_id(),
            amount: money(3998),
            payment_method: "pm_card_ok".into(),
        }),
        Authorized { reference: reference() },
        Declined { reason: reason() },
        CaptureRequested,
        Captured { reference: reference() },
        CaptureDeclined { reason: reason() },
        VoidedBeforeAuthorization { order_id: order_id() },
        ReversalRequested,
        VoidRequested,
        Voided { reference: reference() },
        RefundRequested,
        Refunded { reference: reference() },
        ReversalDeclined { reason: reason() },
        OutcomeUnknown { error: "timed out".into() },
        Created(Box::new(payment::NewPayment {
            amount: money(3998),
            payment_method: "pm_card_ok".into(),
            capture: true,
            metadata: [("cart".to_owned(), "7".to_owned())].into(),
            authorization_valid_ms: 604_800_000,
        })),
        PartCaptureRequested { amount: money(1000) },
        ExpiryRequested,
        AuthorizationExpired,
        RefundOpened { refund_id: refund_id(), amount: money(250) },
        RefundSucceeded { refund_id: refund_id(), reference: "re_1".into() },
        RefundFailed { refund_id: refund_id(), reason: reason() },
        RefundUnknown { refund_id: refund_id(), error: "timed out".into() },
    ];
    facts.into_iter().map(|fact| payment::Event { at_ms: AT_MS, fact }).collect()
}

/// What version 1 wrote, as it is read today.
fn stock_events_v1() -> Vec<stock::Event> {
    use stock::Event::*;
    let owner = || Owner::order("ord_1");
    vec![
        Put { on_hand: 100, backorder_limit: 7, previous: 0 },
        Adjusted { delta: -3, reason: "broken".into(), previous: 0 },
        Reserved { owner: owner(), quantity: 2, until_ms: Some(AT_MS) },
        Committed { owner: owner() },
        Released { owner: owner() },
        Restocked { owner: owner(), quantity: 2 },
        Expired { owner: owner() },
        Swept { expired: vec![owner()], next_sweep_ms: Some(AT_MS) },
    ]
}

fn stock_events() -> Vec<stock::Event> {
    use stock::Event::*;
    let order = || Owner::order("ord_1");
    let reservation = || Owner::reservation("res_1");
    vec![
        Put { on_hand: 100, backorder_limit: 7, previous: 0 },
        Adjusted { delta: -3, reason: "broken".into(), previous: 1 },
        Reserved { owner: order(), quantity: 2, until_ms: Some(AT_MS) },
        Reserved { owner: reservation(), quantity: 3, until_ms: None },
        Committed { owner: reservation() },
        Released { owner: order() },
        Restocked { owner: order(), quantity: 2 },
        Expired { owner: order() },
        Swept { expired: vec![order(), reservation()], next_sweep_ms: Some(AT_MS) },
        Backordered { owner: order(), quantity: 5, done: 2 },
        Served { owners: vec![order()] },
        Withdrawn { owner: order() },
        Returned { order_id: "ord_1".into(), return_id: "ret_1_1".into(), quantity: 2 },
    ]
}

fn reservation_events() -> Vec<reservation::Event> {
    use reservation::Fact::*;
    let items = vec![Leg { sku: "apple".into(), quantity: 2 }, Leg { sku: "bread".into(), quantity: 1 }];
    let refusal = order::Refusal::InsufficientStock { available: 1 };
    let facts = vec![
        Requested { items, ttl_ms: 900_000 },
        Held { until_ms: AT_MS },
        Refused { done: 1, sku: "bread".into(), refusal },
        Refused { done: 0, sku: "bread".into(), refusal: order::Refusal::TooManyBackorders },
        Committed,
        Released,
        Extended { until_ms: AT_MS },
        Expired,
        StockCommitted,
        StockUndone,
    ];
    facts.into_iter().map(|fact| reservation::Event { at_ms: AT_MS, fact }).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("two hex digits");
    (0..text.len()).step_by(2).map(digits).collect()
}

/// One line per event: its number in the list above, a space, its bytes.
fn check<E: Entity>(version: u16, fixture: &str, expected: &[E::Event])
where
    E::Event: PartialEq + Debug,
{
    let lines = fixture.lines().filter(|line| !line.starts_with('#'));
    let stored: Vec<_> = lines.map(|line| line.split_once(' ').expect("number and bytes").1).collect();
    let today: Vec<_> = expected.iter().map(|event| hex(&encode_event::<E>(event).expect("encodes").bytes)).collect();
    let listing: Vec<_> = today.iter().enumerate().map(|(at, bytes)| format!("{at} {bytes}")).collect();
    assert_eq!(stored.len(), expected.len(), "{} events would be written as:\n{}", E::TYPE, listing.join("\n"));
    for (bytes, event) in stored.iter().zip(expected) {
        let versioned = Versioned { version, bytes: unhex(bytes) };
        assert_eq!(&decode_event::<E>(&versioned).expect("stays readable"), event);
    }
    if version == E::EVENT_VERSION {
        assert_eq!(stored, today, "the format changed: raise {}'s EVENT_VERSION", E::TYPE);
    }
}

#[test]
fn order_events_of_version_1_stay_readable() {
    check::<Order>(1, include_str!("../../../tests/fixtures/events/order.v1.hex"), &order_events());
}

#[test]
fn payment_events_of_version_1_stay_readable() {
    check::<Payment>(1, include_str!("../../../tests/fixtures/events/payment.v1.hex"), &payment_events());
}

#[test]
fn stock_events_of_version_1_stay_readable() {
    check::<Stock>(1, include_str!("../../../tests/fixtures/events/stock.v1.hex"), &stock_events_v1());
}

#[test]
fn stock_events_of_version_2_stay_readable() {
    check::<Stock>(2, include_str!("../../../tests/fixtures/events/stock.v2.hex"), &stock_events());
}

#[test]
fn reservation_events_of_version_1_stay_readable() {
    check::<Reservation>(1, include_str!("../../../tests/fixtures/events/reservation.v1.hex"), &reservation_events());
}

#[test]
fn events_of_a_version_from_the_future_are_refused_by_name() {
    let stored = Versioned { version: 3, bytes: vec![0] };
    let unknown = codec::Error::UnknownVersion { what: "event", found: 3, known: 2 };
    assert_eq!(decode_event::<Stock>(&stored), Err(unknown));
}

/// How an entity reads what an older version of it wrote: `Added` once held a bare number.
struct Tally;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum TallyEvent {
    Added { count: u64, by: Option<String> },
}

#[derive(Serialize, Deserialize)]
enum TallyEventV1 {
    Added(u32),
}

impl Entity for Tally {
    const TYPE: &'static str = "tally";
    const EVENT_VERSION: u16 = 2;
    type State = u64;
    type Command = u64;
    type Event = TallyEvent;
    type Reply = ();
    type Rejection = String;

    fn decide(_: &u64, count: u64, _: &Context<'_>) -> Decision<Self> {
        Decision::accept(vec![TallyEvent::Added { count, by: None }], ())
    }

    fn evolve(state: &mut u64, event: &TallyEvent) {
        let TallyEvent::Added { count, .. } = event;
        *state += count;
    }

    fn upcast_event(version: u16, bytes: &[u8]) -> Result<TallyEvent, codec::Error> {
        match version {
            1 => {
                let TallyEventV1::Added(count) = decode("event", bytes)?;
                Ok(TallyEvent::Added { count: u64::from(count), by: None })
            }
            found => Err(codec::Error::UnknownVersion { what: "event", found, known: Self::EVENT_VERSION }),
        }
    }
}

#[test]
fn an_upcaster_reads_what_version_1_wrote() {
    let old = Versioned { version: 1, bytes: codec::encode("event", &TallyEventV1::Added(41)).expect("encodes") };
    let new = encode_event::<Tally>(&TallyEvent::Added { count: 1, by: Some("me".into()) }).expect("encodes");
    let mut sum = 0;
    for stored in [old, new] {
        Tally::evolve(&mut sum, &decode_event::<Tally>(&stored).expect("readable"));
    }
    assert_eq!(sum, 42);
    let unreadable = decode_event::<Tally>(&Versioned { version: 3, bytes: Vec::new() });
    assert!(matches!(unreadable, Err(codec::Error::UnknownVersion { found: 3, known: 2, .. })));
}
