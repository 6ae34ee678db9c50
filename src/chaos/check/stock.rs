//! CONSERVATION of stock: of every SKU, what was supplied is on hand or was taken, once, by someone
//! who is known; and what is held is held by someone.

use super::{
    observe::Observed,
    targets::{Targets, ids, stock},
};
use crate::chaos::{
    history::{History, Method, Operation, Outcome},
    load::{Workload, skus},
    verdict::Verdict,
};
use serde_json::Value;
use std::collections::BTreeMap;

pub const INVARIANT: &str = "stock-conserved";

/// Units of one SKU.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Units {
    /// Held by orders and reservations that have not ended.
    held: i64,
    taken: i64,
    returned: i64,
}

#[must_use]
pub fn judge(history: &History, seen: &Observed) -> Verdict {
    let mut verdict = Verdict::new(INVARIANT);
    let targets = Targets::of(history);
    let known = known(&targets, seen);
    for path in &targets.stocks {
        let Some(level) = seen.found(path) else {
            let good = supplied(history, path).is_none_or(|supply| supply.acknowledged().is_none());
            verdict.expect(good, || format!("{path} was supplied and cannot be read"), Vec::new);
            continue;
        };
        let sku = level["sku"].as_str().unwrap_or_default();
        let units = known.get(sku).copied().unwrap_or_default();
        let Some(supply) = check_adjustments(&mut verdict, history, seen, path) else { continue };
        check_level(&mut verdict, level, supply, units);
    }
    check_total(&mut verdict, &targets, seen);
    verdict
}

/// What orders and reservations say they hold, took and gave back.
fn known(targets: &Targets<'_>, seen: &Observed) -> BTreeMap<String, Units> {
    let mut known: BTreeMap<String, Units> = BTreeMap::new();
    let mut count = |line: &Value, status: &str| {
        let units = known.entry(line["sku"].as_str().unwrap_or_default().to_owned()).or_default();
        let quantity = line["quantity"].as_i64().unwrap_or(0);
        match status {
            "held" => units.held += quantity,
            "committed" => units.taken += quantity,
            "returned" => units.returned += quantity,
            _ => {}
        }
    };
    let lines = |value: &Value| value.as_array().cloned().unwrap_or_default();
    for order in targets.orders.keys().filter_map(|path| seen.found(path)) {
        lines(&order["reservations"]).iter().for_each(|leg| count(leg, leg["status"].as_str().unwrap_or_default()));
        let returns = lines(&order["returns"]);
        returns.iter().flat_map(|back| lines(&back["items"])).for_each(|item| count(&item, "returned"));
    }
    for reservation in targets.reservations.keys().filter_map(|path| seen.found(path)) {
        let status = reservation["status"].as_str().unwrap_or_default();
        lines(&reservation["items"]).iter().for_each(|item| count(item, status));
    }
    known
}

/// The attempt that put the first units there, acknowledged if any was.
fn supplied<'a>(history: &'a History, path: &str) -> Option<&'a Operation> {
    let puts = history.operations.iter().filter(|o| o.request.method == Method::Put && o.request.path == path);
    puts.max_by_key(|put| put.acknowledged().is_some())
}

/// Holds the list of people's changes against what was asked; answers the units that people brought.
fn check_adjustments(verdict: &mut Verdict, history: &History, seen: &Observed, path: &str) -> Option<i64> {
    let listed = match seen.adjustments.get(path) {
        Some(Ok(listed)) => listed,
        Some(Err(why)) => {
            verdict.expect(false, || format!("the changes of {path} cannot be read: {why}"), Vec::new);
            return None;
        }
        None => return None,
    };
    let mut supply = 0;
    let mut by_reason: BTreeMap<&str, u64> = BTreeMap::new();
    for change in listed {
        let data = &change["data"];
        supply += data["on_hand"].as_i64().or(data["delta"].as_i64()).unwrap_or(0);
        if let Some(reason) = data["reason"].as_str() {
            *by_reason.entry(reason).or_default() += 1;
        }
    }
    let puts = listed.iter().filter(|change| change["data"]["on_hand"].is_i64()).count();
    verdict.expect(puts <= 1, || format!("{path} was supplied {puts} times"), Vec::new);
    let route = format!("{path}/adjustments");
    for ((_, _, key), attempts) in history.by_key().into_iter().filter(|((_, path, _), _)| *path == route) {
        let times = by_reason.remove(key).unwrap_or(0);
        let acknowledged = attempts.iter().any(|attempt| attempt.acknowledged().is_some());
        let undecided = attempts.iter().any(|attempt| attempt.is_unknown());
        let good = times == 1 || (times == 0 && !acknowledged);
        // Refused for good, and yet it happened.
        let good = good && (times == 0 || acknowledged || undecided || !all_refused(&attempts));
        verdict.expect(good, || format!("the adjustment {key} of {path} took effect {times} times"), || ids(&attempts));
    }
    for (reason, _) in by_reason {
        verdict.expect(false, || format!("{path} was adjusted by `{reason}`, which nobody asked for"), Vec::new);
    }
    Some(supply)
}

fn all_refused(attempts: &[&Operation]) -> bool {
    attempts.iter().all(|attempt| match &attempt.outcome {
        Outcome::Answered { status, .. } => *status >= 400,
        Outcome::Refused { .. } => true,
        Outcome::Unknown { .. } => false,
    })
}

fn check_level(verdict: &mut Verdict, level: &Value, supply: i64, units: Units) {
    let number = |name: &str| level[name].as_i64().unwrap_or(0);
    let (on_hand, committed, returned) = (number("on_hand"), number("committed"), number("returned"));
    let mut expect = |good: bool, what: &str| {
        verdict.expect(good, || format!("{what}: {level}, supplied {supply}, known {units:?}"), Vec::new);
    };
    expect(on_hand + committed - returned == supply, "units appeared or vanished");
    expect(committed == units.taken, "more or fewer units were taken than anyone took");
    expect(returned == units.returned, "more or fewer units came back than anyone returned");
    expect(number("reserved") == units.held, "units are held for nobody, or not for those who hold them");
    expect(number("reserved") <= on_hand && number("available") >= 0, "more is promised than there is");
    expect(number("available") == on_hand - number("reserved") - number("backordered"), "the levels disagree");
}

/// All accounts together: what they began with, less what was taken and not yet put.
fn check_total(verdict: &mut Verdict, targets: &Targets<'_>, seen: &Observed) {
    let accounts: Vec<String> = skus(Workload::Transfer).iter().map(|sku| stock(sku)).collect();
    if !accounts.iter().all(|path| targets.stocks.contains(path)) {
        return;
    }
    let sum = |field: &str| -> i64 { accounts.iter().filter_map(|path| seen.found(path)?[field].as_i64()).sum() };
    let changes = accounts.iter().filter_map(|path| seen.adjustments.get(path)?.as_ref().ok()).flatten();
    let put: i64 = changes
        .map(|change| {
            let data = &change["data"];
            data["on_hand"].as_i64().or(data["delta"].as_i64()).unwrap_or(0)
        })
        .sum();
    let holds = sum("on_hand") + sum("committed");
    let detail = || format!("the accounts hold and gave {holds} together, and were given {put}");
    verdict.expect(holds == put, detail, Vec::new);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        chaos::check::testing::{everywhere, history, posted, posted_in_vain},
        ingress::identity::derived_id,
    };
    use serde_json::json;

    const HOT: &str = "/v1/inventory/chaos-hot";

    /// One confirmed order of 3 of 100, and one delivery of 20 under the key `d`.
    fn world() -> (History, Observed) {
        let id = derived_id("ord_", "/v1/orders", "k");
        let mut operations = vec![
            posted(0, "/v1/orders", "k", json!({}), 201, json!({"id": id})),
            posted(1, &format!("{HOT}/adjustments"), "d", json!({"delta": 20, "reason": "d"}), 200, json!({})),
        ];
        operations.iter_mut().for_each(|operation| operation.workload = Workload::HotSku);
        let leg = json!({"sku": "chaos-hot", "quantity": 3, "status": "committed"});
        let order = json!({"id": id, "status": "confirmed", "reservations": [leg], "returns": []});
        let level = json!({"sku": "chaos-hot", "on_hand": 117, "reserved": 0, "available": 117, "committed": 3, "backordered": 0});
        let listed = vec![
            json!({"type": "adjusted", "data": {"delta": 20, "reason": "d"}}),
            json!({"type": "put", "data": {"on_hand": 100, "backorder_limit": 0}}),
        ];
        let entities = [(format!("/v1/orders/{id}"), everywhere(order)), (HOT.to_owned(), everywhere(level))];
        let seen = Observed {
            entities: entities.into(),
            adjustments: [(HOT.to_owned(), Ok(listed))].into(),
            ..Observed::default()
        };
        (history(operations), seen)
    }

    fn with_level(change: impl FnOnce(&mut Value)) -> Verdict {
        let (history, mut seen) = world();
        let mut level = seen.found(HOT).expect("there").clone();
        change(&mut level);
        seen.entities.insert(HOT.into(), everywhere(level));
        judge(&history, &seen)
    }

    fn with_listed(change: impl FnOnce(&mut Vec<Value>)) -> Verdict {
        let (history, mut seen) = world();
        if let Some(Ok(listed)) = seen.adjustments.get_mut(HOT) {
            change(listed);
        }
        judge(&history, &seen)
    }

    #[test]
    fn what_adds_up_is_conserved() {
        let (history, seen) = world();
        let verdict = judge(&history, &seen);
        assert!(verdict.holds() && verdict.checked == 8, "{verdict:?}");
    }

    #[test]
    fn units_that_vanish_are_noticed() {
        let verdict = with_level(|level| (level["on_hand"], level["available"]) = (json!(116), json!(116)));
        assert_eq!(verdict.violations.len(), 1, "{verdict:?}");
    }

    #[test]
    fn an_order_that_took_twice_is_noticed() {
        let verdict = with_level(|level| {
            (level["on_hand"], level["available"], level["committed"]) = (json!(114), json!(114), json!(6));
        });
        assert!(verdict.violations[0].detail.contains("than anyone took"), "{verdict:?}");
    }

    #[test]
    fn units_held_for_nobody_are_noticed() {
        let verdict = with_level(|level| (level["reserved"], level["available"]) = (json!(2), json!(115)));
        assert!(verdict.violations[0].detail.contains("held for nobody"), "{verdict:?}");
    }

    #[test]
    fn overselling_is_noticed() {
        let verdict = with_level(|level| {
            (level["on_hand"], level["available"], level["committed"]) = (json!(-3), json!(-3), json!(123))
        });
        assert!(
            verdict.violations.iter().any(|violation| violation.detail.contains("more is promised")),
            "{verdict:?}"
        );
    }

    #[test]
    fn an_adjustment_that_took_effect_twice_or_never_is_noticed() {
        let twice = with_listed(|listed| listed.push(listed[0].clone()));
        assert_eq!(twice.violations[0].operations, [1], "{twice:?}");
        let never = with_listed(|listed| drop(listed.remove(0)));
        assert_eq!(never.violations[0].operations, [1], "{never:?}");
    }

    #[test]
    fn an_adjustment_of_unknown_outcome_may_have_happened_or_not() {
        for happened in [true, false] {
            let (mut history, mut seen) = world();
            let path = format!("{HOT}/adjustments");
            history.operations.push(posted_in_vain(2, &path, "e", json!({"delta": 5, "reason": "e"})));
            if happened {
                let mut level = seen.found(HOT).expect("there").clone();
                (level["on_hand"], level["available"]) = (json!(122), json!(122));
                seen.entities.insert(HOT.into(), everywhere(level));
                if let Some(Ok(listed)) = seen.adjustments.get_mut(HOT) {
                    listed.push(json!({"type": "adjusted", "data": {"delta": 5, "reason": "e"}}));
                }
            }
            let verdict = judge(&history, &seen);
            assert!(verdict.holds(), "{happened}: {verdict:?}");
        }
    }
}
