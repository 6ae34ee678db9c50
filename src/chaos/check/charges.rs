//! Exactly one charge per order, by the books of the gateway, which is not under test.

use super::{
    observe::Observed,
    targets::{Targets, ids, payment_of},
};
use crate::chaos::{
    gateway::{Intent, Ledger},
    history::{History, Operation},
    verdict::Verdict,
};
use serde_json::Value;

pub const INVARIANT: &str = "one-charge-per-order";

#[must_use]
pub fn judge(history: &History, seen: &Observed, ledger: Option<&Ledger>) -> Verdict {
    let Some(ledger) = ledger else {
        return Verdict::skipped(INVARIANT, "the nodes used their sandbox, which keeps no books");
    };
    let mut verdict = Verdict::new(INVARIANT);
    let targets = Targets::of(history);
    let mut intents = ledger.by_payment();
    let orders = targets.orders.iter().map(|(path, attempts)| (payment_of(path), attempts));
    for (path, attempts) in orders.chain(targets.payments.iter().map(|(path, attempts)| (path.clone(), attempts))) {
        let id = path.trim_start_matches("/v1/payments/");
        let charged = intents.remove(id).unwrap_or_default();
        check(&mut verdict, seen.found(&path), &path, &charged, attempts);
    }
    for (payment, charged) in intents {
        verdict.expect(
            false,
            || format!("the gateway charged {payment}, which nobody asked for: {charged:?}"),
            Vec::new,
        );
    }
    for offence in &ledger.offences {
        verdict.expect(false, || format!("the gateway was asked for what it must refuse: {offence}"), Vec::new);
    }
    verdict
}

fn check(verdict: &mut Verdict, payment: Option<&Value>, path: &str, charged: &[&Intent], attempts: &[&Operation]) {
    verdict.expect(
        charged.len() <= 1,
        || format!("{path} was authorized {} times: {charged:?}", charged.len()),
        || ids(attempts),
    );
    let field = |name: &str| payment.and_then(|payment| payment[name]["amount"].as_i64()).unwrap_or(0);
    let sum = |of: fn(&Intent) -> i64| charged.iter().map(|intent| of(intent)).sum::<i64>();
    let (captured, refunded) = (sum(|intent| intent.captured.unwrap_or(0)), sum(|intent| intent.refunded));
    verdict.expect(
        (captured, refunded) == (field("captured"), field("refunded")),
        || format!("the gateway took {captured} and gave back {refunded} where the payment is {payment:?}"),
        || ids(attempts),
    );
    let ended = payment.is_some_and(|payment| payment["status"] == "voided" || payment["status"] == "declined");
    let held = charged.iter().any(|intent| intent.captured.is_none() && !intent.canceled);
    verdict.expect(
        !(ended && held),
        || format!("{path} has ended, and the gateway still holds money for it: {charged:?}"),
        || ids(attempts),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        chaos::check::testing::{everywhere, history, posted},
        ingress::identity::derived_id,
    };
    use serde_json::json;

    fn intent(captured: Option<i64>, refunded: i64, canceled: bool) -> Intent {
        let payment_id = derived_id("ord_", "/v1/orders", "k").replace("ord_", "pay_");
        Intent { payment_id, authorized: 600, captured, refunded, canceled }
    }

    fn judged(status: &str, captured: i64, refunded: i64, intents: &[Intent]) -> Verdict {
        let history = history(vec![posted(0, "/v1/orders", "k", json!({}), 201, json!({}))]);
        let path = payment_of(&format!("/v1/orders/{}", derived_id("ord_", "/v1/orders", "k")));
        let payment = json!({"status": status, "captured": {"amount": captured}, "refunded": {"amount": refunded}});
        let seen = Observed { entities: [(path, everywhere(payment))].into(), ..Observed::default() };
        let intents = intents.iter().enumerate().map(|(at, intent)| (format!("pi_{at}"), intent.clone())).collect();
        judge(&history, &seen, Some(&Ledger::of(intents, Vec::new())))
    }

    #[test]
    fn books_that_agree_are_good() {
        assert!(judged("captured", 600, 0, &[intent(Some(600), 0, false)]).holds());
        assert!(judged("captured", 600, 100, &[intent(Some(600), 100, false)]).holds());
        assert!(judged("voided", 0, 0, &[intent(None, 0, true)]).holds());
        assert!(judged("declined", 0, 0, &[]).holds());
    }

    #[test]
    fn a_double_charge_is_noticed() {
        let verdict = judged("captured", 600, 0, &[intent(Some(600), 0, false), intent(Some(600), 0, false)]);
        assert!(verdict.violations[0].detail.contains("authorized 2 times"), "{verdict:?}");
        assert_eq!(verdict.violations[0].operations, [0]);
    }

    #[test]
    fn books_that_differ_are_noticed() {
        assert_eq!(judged("captured", 600, 0, &[]).violations.len(), 1);
        assert_eq!(judged("captured", 600, 0, &[intent(Some(600), 600, false)]).violations.len(), 1);
        assert_eq!(judged("voided", 0, 0, &[intent(None, 0, false)]).violations.len(), 1);
    }

    #[test]
    fn charges_that_nobody_asked_for_and_offences_are_noticed() {
        let stranger = Intent { payment_id: "pay_x".into(), ..intent(Some(600), 0, false) };
        assert_eq!(judged("declined", 0, 0, &[stranger]).violations.len(), 1);
        let ledger = Ledger::of([].into(), vec!["pi_1 twice".into()]);
        assert_eq!(judge(&history(Vec::new()), &Observed::default(), Some(&ledger)).violations.len(), 1);
    }

    #[test]
    fn without_books_it_is_skipped() {
        let verdict = judge(&history(Vec::new()), &Observed::default(), None);
        assert!(verdict.skipped.is_some() && !verdict.holds());
    }
}
