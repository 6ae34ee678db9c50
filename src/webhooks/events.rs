//! What is announced of orders, payments and reservations: each event of a history is one event
//! for endpoints, or none.
//!
//! The type says what became of the subject: `order.confirmed`, `payment.captured`. What it looks
//! like after the event goes with it, as `GET` showed it at that moment.

use crate::{
    cluster::Recorded,
    commerce::{
        Order, OrderView, Payment, PaymentView, Reservation, ReservationView, order, payment, reservation,
        time::rfc3339,
    },
    entity::Entity,
};
use serde::Serialize;
use serde_json::{Value, json};

/// What endpoints may hear of. An entity's type is also the family of its events.
pub trait Announced: Entity {
    /// What may stand behind the family's name.
    fn words() -> Vec<&'static str>;
    fn mark(state: &Self::State) -> Mark;
    /// What an event that led from one mark to the other is called; nothing if only insiders care.
    fn word(before: Mark, event: &Self::Event, after: Mark) -> Option<&'static str>;
    /// The subject as `GET` shows it.
    fn view(id: &str, state: &Self::State, version: u64) -> Option<Value>;
    /// The id of its event of that number.
    fn event_id(id: &str, sequence: u64) -> String {
        format!("evt_{id}_{sequence}")
    }
}

/// As much of a state as tells whether an event changed what people see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    exists: bool,
    status: &'static str,
}

impl Mark {
    /// What the change of status is called, if it is one.
    fn change(self, after: Mark) -> Option<&'static str> {
        match self.exists {
            false => Some(CREATED),
            true => Some(after.status).filter(|_| self.status != after.status),
        }
    }
}

const CREATED: &str = "created";
const EXTENDED: &str = "extended";
const REFUNDED: &str = "refunded";
const REFUND_FAILED: &str = "refund_failed";
const CAPTURE_DECLINED: &str = "capture_declined";

impl Announced for Order {
    fn words() -> Vec<&'static str> {
        let statuses = order::Status::ALL.into_iter().filter(|status| *status != order::Status::Pending);
        [CREATED].into_iter().chain(statuses.map(order::Status::name)).collect()
    }

    fn mark(state: &order::State) -> Mark {
        Mark { exists: state.details.is_some(), status: state.status.name() }
    }

    fn word(before: Mark, event: &order::Event, after: Mark) -> Option<&'static str> {
        match event.fact {
            // Also the second parcel of three.
            order::Fact::Fulfilled { .. } | order::Fact::Returned { .. } => Some(after.status),
            _ => before.change(after),
        }
    }

    fn view(id: &str, state: &order::State, version: u64) -> Option<Value> {
        shown(OrderView::of(id, state, version))
    }

    /// As in the order's own history.
    fn event_id(id: &str, sequence: u64) -> String {
        format!("evt_{}_{sequence}", id.split_once('_').map_or(id, |(_, suffix)| suffix))
    }
}

impl Announced for Payment {
    fn words() -> Vec<&'static str> {
        let own = [REFUNDED, REFUND_FAILED, CAPTURE_DECLINED];
        payment::Status::ALL.into_iter().map(payment::Status::name).chain(own).collect()
    }

    fn mark(state: &payment::State) -> Mark {
        Mark { exists: state.exists(), status: state.status.name() }
    }

    fn word(before: Mark, event: &payment::Event, after: Mark) -> Option<&'static str> {
        match event.fact {
            payment::Fact::Refunded { .. } | payment::Fact::RefundSucceeded { .. } => Some(REFUNDED),
            payment::Fact::RefundFailed { .. } => Some(REFUND_FAILED),
            payment::Fact::CaptureDeclined { .. } => Some(CAPTURE_DECLINED),
            _ => before.change(after),
        }
    }

    fn view(id: &str, state: &payment::State, version: u64) -> Option<Value> {
        shown(PaymentView::of(id, state, version))
    }
}

impl Announced for Reservation {
    fn words() -> Vec<&'static str> {
        let statuses = reservation::Status::ALL.into_iter().filter(|status| *status != reservation::Status::Pending);
        [CREATED, EXTENDED].into_iter().chain(statuses.map(reservation::Status::name)).collect()
    }

    fn mark(state: &reservation::State) -> Mark {
        Mark { exists: state.exists(), status: state.status.name() }
    }

    fn word(before: Mark, event: &reservation::Event, after: Mark) -> Option<&'static str> {
        match event.fact {
            reservation::Fact::Extended { .. } => Some(EXTENDED),
            _ => before.change(after),
        }
    }

    fn view(id: &str, state: &reservation::State, version: u64) -> Option<Value> {
        shown(ReservationView::of(id, state, version))
    }
}

fn shown(view: Option<impl Serialize>) -> Option<Value> {
    view.and_then(|view| serde_json::to_value(view).ok())
}

/// Every type that there is.
pub fn types() -> Vec<String> {
    fn family<E: Announced>() -> impl Iterator<Item = String> {
        E::words().into_iter().map(type_of::<E>)
    }
    family::<Order>().chain(family::<Payment>()).chain(family::<Reservation>()).collect()
}

pub fn type_of<E: Entity>(word: &str) -> String {
    format!("{}.{word}", E::TYPE)
}

/// Whether an entry of `enabled_events` means this type.
pub fn matches(pattern: &str, event_type: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(family) => event_type.starts_with(family),
        None => pattern == event_type,
    }
}

/// Whether an entry of `enabled_events` means anything at all.
pub fn is_pattern(text: &str, types: &[String]) -> bool {
    let whole = text == "*" || text.strip_suffix(".*").is_some_and(|family| !family.contains(['.', '*']));
    types.iter().any(|known| text == known || (whole && matches(text, known)))
}

/// What is sent. `object` is the subject after the event.
pub fn body<E: Announced>(id: &str, word: &str, recorded: &Recorded<E::Event>, object: Value) -> Vec<u8> {
    let event = json!({
        "id": E::event_id(id, recorded.sequence),
        "type": type_of::<E>(word),
        "created": rfc3339(recorded.at_ms),
        "sequence": recorded.sequence,
        "data": {"object": object},
    });
    event.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_named_alone_by_its_family_or_by_all() {
        let types = types();
        for known in ["order.created", "order.confirmed", "payment.refunded", "payment.unknown", "reservation.held"] {
            assert!(types.iter().any(|it| it == known), "{known}");
            assert!(is_pattern(known, &types) && matches(known, known) && matches("*", known), "{known}");
        }
        for family in ["*", "order.*", "payment.*", "reservation.*"] {
            assert!(is_pattern(family, &types), "{family}");
        }
        for nonsense in ["", "order", "order.", "order.c*", "**", ".*", "inventory.*", "order.*.x", "order.pending"] {
            assert!(!is_pattern(nonsense, &types), "{nonsense}");
        }
        assert!(matches("order.*", "order.confirmed") && !matches("order.*", "payment.created"));
        assert!(!matches("order.confirmed", "order.confirmed_twice"));
    }

    #[test]
    fn an_event_is_announced_when_people_see_a_change() {
        let event = |fact| order::Event { at_ms: 1, fact };
        let mark = |status: order::Status| Mark { exists: true, status: status.name() };
        let word = |before, fact, after| Order::word(before, &event(fact), after);
        use order::{Fact, Status};
        let nowhere = Mark { exists: false, status: "pending" };
        assert_eq!(word(nowhere, Fact::StockReserved, mark(Status::Pending)), Some("created"));
        assert_eq!(word(mark(Status::Pending), Fact::StockReserved, mark(Status::Reserved)), Some("reserved"));
        assert_eq!(word(mark(Status::Authorized), Fact::StockCommitted, mark(Status::Authorized)), None);
        let parcel = Fact::Fulfilled { items: Vec::new(), tracking: None };
        let part = mark(Status::PartiallyFulfilled);
        assert_eq!(word(part, parcel, part), Some("partially_fulfilled"));
    }

    #[test]
    fn ids_of_events_differ_between_an_order_and_its_payment() {
        assert_eq!(Order::event_id("ord_7", 3), "evt_7_3");
        assert_eq!(Payment::event_id("pay_7", 3), "evt_pay_7_3");
    }
}
