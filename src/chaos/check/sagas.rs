//! Every saga has ended: no order, payment or reservation is left in the middle, and each ended as
//! its card and the stock let it end.

use super::{
    observe::{Observed, Reading},
    targets::{Targets, by_entity, ids, payment_of},
};
use crate::chaos::{
    history::{History, Operation},
    load::{Workload, is_cancelled_by_card},
    verdict::Verdict,
};
use serde_json::Value;

pub const INVARIANT: &str = "every-saga-ended";

/// An order that needs attention has ended visibly, but with a gateway that answers in the end
/// none has to.
const ORDER_ENDS: [&str; 8] = [
    "confirmed",
    "partially_fulfilled",
    "fulfilled",
    "partially_returned",
    "returned",
    "rejected",
    "expired",
    "cancelled",
];
const PAYMENT_ENDS: [&str; 5] = ["authorized", "captured", "declined", "voided", "authorization_expired"];
const RESERVATION_ENDS: [&str; 5] = ["held", "committed", "released", "expired", "rejected"];

#[must_use]
pub fn judge(history: &History, seen: &Observed) -> Verdict {
    let mut verdict = Verdict::new(INVARIANT);
    let targets = Targets::of(history);
    let asked = by_entity(history);
    for (path, attempts) in &targets.orders {
        let Some(order) = check(&mut verdict, seen, path, attempts, &ORDER_ENDS) else { continue };
        let cancelled = asked.contains_key(&(path.as_str(), "cancel"));
        check_end(&mut verdict, order, attempts, cancelled);
        check(&mut verdict, seen, &payment_of(path), attempts, &PAYMENT_ENDS);
    }
    for (path, attempts) in &targets.payments {
        check(&mut verdict, seen, path, attempts, &PAYMENT_ENDS);
    }
    for (path, attempts) in &targets.reservations {
        check(&mut verdict, seen, path, attempts, &RESERVATION_ENDS);
    }
    verdict
}

/// The entity, if it is there at all.
fn check<'a>(
    verdict: &mut Verdict,
    seen: &'a Observed,
    path: &str,
    attempts: &[&Operation],
    ends: &[&str],
) -> Option<&'a Value> {
    match &seen.entities.get(path)?.owner {
        Reading::Missing => None,
        Reading::Failed(why) => {
            verdict.expect(false, || format!("{path} cannot be read: {why}"), || ids(attempts));
            None
        }
        Reading::Found(value) => {
            let ended = value["status"].as_str().is_some_and(|status| ends.contains(&status));
            let refunding = value["payment_status"] == "refunding" || !value["in_progress"].is_null();
            verdict.expect(ended && !refunding, || format!("{path} has not ended: {value}"), || ids(attempts));
            Some(value)
        }
    }
}

/// Whether it may have ended so.
fn check_end(verdict: &mut Verdict, order: &Value, attempts: &[&Operation], cancelled: bool) {
    let Some(first) = attempts.first() else { return };
    let declined = is_cancelled_by_card(&first.request.body.value());
    let good = match order["status"].as_str().unwrap_or_default() {
        "cancelled" | "expired" => true,
        // Only one workload ever runs out of stock. A cancel may come before the refusal.
        "rejected" => first.workload == Workload::HotSku || cancelled,
        _ => !declined,
    };
    let detail = || format!("an order that could not end so: {order}, asked for as {:?}", first.request.body);
    verdict.expect(good, detail, || ids(attempts));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        chaos::check::testing::{everywhere, history, nowhere, posted},
        ingress::identity::derived_id,
    };
    use serde_json::json;

    fn judged(card: &str, order: Value, workload: Workload) -> Verdict {
        let path = format!("/v1/orders/{}", derived_id("ord_", "/v1/orders", "k"));
        let mut placed = posted(0, "/v1/orders", "k", json!({"payment_method": card}), 201, json!({}));
        placed.workload = workload;
        let entities = [(payment_of(&path), nowhere()), (path, everywhere(order))];
        judge(&history(vec![placed]), &Observed { entities: entities.into(), ..Observed::default() })
    }

    fn status(status: &str) -> Value {
        json!({"status": status, "payment_status": "captured"})
    }

    #[test]
    fn orders_that_ended_as_they_may_are_good() {
        for (card, end, workload) in [
            ("pm_card_ok", "confirmed", Workload::Checkout),
            ("pm_card_ok", "returned", Workload::Checkout),
            ("pm_card_declined", "cancelled", Workload::Checkout),
            ("pm_card_ok", "rejected", Workload::HotSku),
        ] {
            let verdict = judged(card, status(end), workload);
            assert!(verdict.holds(), "{verdict:?}");
        }
    }

    #[test]
    fn an_order_left_in_the_middle_is_noticed() {
        for middle in ["pending", "reserved", "authorized", "compensating", "needs_attention"] {
            assert_eq!(judged("pm_card_ok", status(middle), Workload::Checkout).violations.len(), 1, "{middle}");
        }
        let refunding = json!({"status": "returned", "payment_status": "refunding"});
        assert_eq!(judged("pm_card_ok", refunding, Workload::Checkout).violations.len(), 1);
    }

    #[test]
    fn an_order_that_could_not_end_so_is_noticed() {
        for (card, end) in [("pm_card_declined", "confirmed"), ("pm_card_ok", "rejected")] {
            assert_eq!(judged(card, status(end), Workload::Checkout).violations.len(), 1, "{end}");
        }
    }
}
