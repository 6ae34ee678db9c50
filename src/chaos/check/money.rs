//! CONSERVATION of money: of every payment, refunds ≤ captured ≤ amount; of every order, what was
//! taken and kept is the price of what the customer has.

use super::{
    observe::Observed,
    targets::{Targets, ids, payment_of},
};
use crate::chaos::{
    history::{History, Operation},
    verdict::Verdict,
};
use serde_json::Value;
use std::collections::BTreeMap;

pub const INVARIANT: &str = "money-conserved";

#[must_use]
pub fn judge(history: &History, seen: &Observed) -> Verdict {
    let mut verdict = Verdict::new(INVARIANT);
    let targets = Targets::of(history);
    for (path, attempts) in &targets.orders {
        if let Some(order) = seen.found(path) {
            check_order(&mut verdict, order, seen.found(&payment_of(path)), attempts);
        }
    }
    let refunds = asked_refunds(history);
    for (path, attempts) in &targets.payments {
        if let Some(payment) = seen.found(path) {
            check_ledger(&mut verdict, payment, &ids(attempts));
            check_refunds(&mut verdict, payment, refunds.get(path.as_str()).map_or(&[][..], Vec::as_slice));
        }
    }
    verdict
}

fn check_order(verdict: &mut Verdict, order: &Value, payment: Option<&Value>, attempts: &[&Operation]) {
    let total = units(&order["total"]);
    let asked = attempts.first().map(|attempt| attempt.request.body.value()).unwrap_or_default();
    let price: i64 = lines(&asked["items"]).map(|line| number(&line["quantity"]) * number(&line["unit_price"])).sum();
    verdict.expect(total == price, || format!("the total of {order} is not {price}"), || ids(attempts));
    let owed = owed(order);
    let Some(payment) = payment else {
        verdict.expect(owed == 0, || format!("{order} was never paid"), || ids(attempts));
        return;
    };
    check_ledger(verdict, payment, &ids(attempts));
    let kept = units(&payment["captured"]) - units(&payment["refunded"]);
    verdict.expect(
        kept == owed && (payment["amount"].is_null() || units(&payment["amount"]) == total),
        || format!("{kept} was taken and kept where {owed} is owed: {payment} for {order}"),
        || ids(attempts),
    );
}

/// What the shop may keep of an order, as far as the order says so itself.
fn owed(order: &Value) -> i64 {
    let keeps = ["confirmed", "partially_fulfilled", "fulfilled", "partially_returned", "returned"];
    if !order["status"].as_str().is_some_and(|status| keeps.contains(&status)) {
        return 0;
    }
    let refunded = lines(&order["returns"]).filter(|back| back["refund_status"] == "succeeded");
    units(&order["total"]) - refunded.map(|back| units(&back["refund"])).sum::<i64>()
}

fn check_ledger(verdict: &mut Verdict, payment: &Value, operations: &[u64]) {
    let (amount, captured) = (units(&payment["amount"]), units(&payment["captured"]));
    let refunded = units(&payment["refunded"]);
    let succeeded = lines(&payment["refunds"]).filter(|refund| refund["status"] == "succeeded");
    let listed: i64 = succeeded.map(|refund| units(&refund["amount"])).sum();
    // An order's payment that is undone as a whole is refunded outside of the list.
    let consistent = listed <= refunded && (payment["order_id"].is_string() || listed == refunded);
    verdict.expect(
        0 <= refunded && refunded <= captured && captured <= amount && consistent,
        || format!("more was given back or taken than may be: {payment}"),
        || operations.to_vec(),
    );
}

type Asked<'a> = Vec<(&'a str, Vec<&'a Operation>)>;

/// Refunds asked for, each with its attempts, by the payment's path.
fn asked_refunds(history: &History) -> BTreeMap<&str, Asked<'_>> {
    let mut refunds: BTreeMap<&str, Asked<'_>> = BTreeMap::new();
    for ((_, path, key), attempts) in history.by_key() {
        if let Some(payment) = path.strip_suffix("/refunds") {
            refunds.entry(payment).or_default().push((key, attempts));
        }
    }
    refunds
}

/// Each key is one refund: no fewer than were granted, no more than may have been.
fn check_refunds(verdict: &mut Verdict, payment: &Value, asked: &[(&str, Vec<&Operation>)]) {
    let made = lines(&payment["refunds"]).count();
    let any = |attempts: &[&Operation], good: fn(&Operation) -> bool| attempts.iter().any(|attempt| good(attempt));
    let granted = asked.iter().filter(|(_, all)| any(all, |attempt| attempt.acknowledged().is_some()));
    let granted = granted.count();
    let unknown = |all: &[&Operation]| any(all, Operation::is_unknown) && !any(all, |a| a.acknowledged().is_some());
    let possible = granted + asked.iter().filter(|(_, all)| unknown(all)).count();
    verdict.expect(
        (granted..=possible).contains(&made),
        || format!("{made} refunds where {granted} were granted: {payment}"),
        || asked.iter().flat_map(|(_, all)| ids(all)).collect(),
    );
}

fn lines(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// Minor units; 0 where there is no amount.
fn units(money: &Value) -> i64 {
    number(&money["amount"])
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        chaos::check::testing::{everywhere, history, nowhere, posted, posted_in_vain},
        ingress::identity::derived_id,
    };
    use serde_json::json;

    fn money(amount: i64) -> Value {
        json!({"amount": amount, "currency": "USD"})
    }

    fn order(status: &str) -> Value {
        json!({"status": status, "total": money(600), "returns": []})
    }

    fn payment(captured: i64, refunded: i64) -> Value {
        json!({"order_id": "ord_1", "amount": money(600), "captured": money(captured), "refunded": money(refunded), "refunds": []})
    }

    fn judged(order: Value, payment: Option<Value>) -> Verdict {
        let path = format!("/v1/orders/{}", derived_id("ord_", "/v1/orders", "k"));
        let asked = json!({"items": [{"quantity": 2, "unit_price": 250}, {"quantity": 1, "unit_price": 100}]});
        let history = history(vec![posted(0, "/v1/orders", "k", asked, 201, json!({}))]);
        let payment = payment.map_or_else(nowhere, everywhere);
        let entities = [(payment_of(&path), payment), (path, everywhere(order))];
        judge(&history, &Observed { entities: entities.into(), ..Observed::default() })
    }

    #[test]
    fn what_is_kept_is_the_price_of_what_the_customer_has() {
        let mut partly = order("partially_returned");
        partly["returns"] = json!([{"refund": money(100), "refund_status": "succeeded"}]);
        let good = [
            (order("confirmed"), Some(payment(600, 0))),
            (order("cancelled"), Some(payment(0, 0))),
            (order("cancelled"), Some(payment(600, 600))),
            (order("rejected"), None),
            (partly, Some(payment(600, 100))),
        ];
        for (order, payment) in good {
            let verdict = judged(order, payment);
            assert!(verdict.holds(), "{verdict:?}");
        }
    }

    #[test]
    fn money_that_is_not_accounted_for_is_noticed() {
        let mut dear = order("confirmed");
        dear["total"] = money(700);
        let bad = [
            // Sent and not paid, or paid in part.
            (order("confirmed"), None),
            (order("confirmed"), Some(payment(0, 0))),
            (order("confirmed"), Some(payment(600, 100))),
            // Cancelled and kept, or given back twice.
            (order("cancelled"), Some(payment(600, 0))),
            (order("cancelled"), Some(payment(600, 1200))),
            // Charged twice.
            (order("confirmed"), Some(payment(1200, 0))),
            (dear, Some(payment(600, 0))),
        ];
        for (order, payment) in bad {
            let verdict = judged(order, payment);
            assert!(!verdict.violations.is_empty(), "{verdict:?}");
        }
    }

    fn refunded(listed: usize, operations: Vec<Operation>) -> Verdict {
        let id = derived_id("pay_", "/v1/payments", "p");
        let path = format!("/v1/payments/{id}");
        let refunds: Vec<Value> = (0..listed).map(|_| json!({"amount": money(50), "status": "succeeded"})).collect();
        let payment = json!({"amount": money(600), "captured": money(600), "refunded": money(50 * listed as i64), "refunds": refunds});
        let mut all = vec![posted(0, "/v1/payments", "p", json!({}), 201, json!({"id": id}))];
        all.extend(operations);
        judge(&history(all), &Observed { entities: [(path, everywhere(payment))].into(), ..Observed::default() })
    }

    #[test]
    fn a_refund_is_made_once_per_key() {
        let path = format!("/v1/payments/{}/refunds", derived_id("pay_", "/v1/payments", "p"));
        let granted = |id| posted(id, &path, "r", json!({}), 200, json!({}));
        assert!(refunded(1, vec![granted(1), granted(2)]).holds());
        assert_eq!(refunded(2, vec![granted(1), granted(2)]).violations[0].operations, [1, 2]);
        assert_eq!(refunded(0, vec![granted(1)]).violations.len(), 1);
        let unknown = posted_in_vain(1, &path, "r", json!({}));
        assert!(refunded(0, vec![unknown.clone()]).holds() && refunded(1, vec![unknown]).holds());
    }
}
