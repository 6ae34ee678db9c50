//! No acknowledged write is lost: what was said to be done is there, on every node, as it was said.

use super::{
    observe::{Observed, Reading, Seen},
    targets::{Targets, ids, parts},
};
use crate::chaos::{
    history::{History, Operation},
    verdict::Verdict,
};
use serde_json::Value;

pub const INVARIANT: &str = "acknowledged-writes-kept";

/// What an order can never change.
const OF_ORDER: &[&str] =
    &["id", "customer_id", "items", "currency", "total", "payment_id", "metadata", "backorder", "created_at"];
const OF_PAYMENT: &[&str] = &["id", "amount", "payment_method", "metadata", "created_at"];
const OF_RESERVATION: &[&str] = &["id", "items", "created_at"];
/// Lists that only grow; their entries have ids.
const LISTS: [&str; 3] = ["fulfillments", "returns", "refunds"];
/// Where a reservation stays.
const RESERVATION_ENDS: [&str; 3] = ["committed", "released", "expired"];

#[must_use]
pub fn judge(history: &History, seen: &Observed) -> Verdict {
    let mut verdict = Verdict::new(INVARIANT);
    let targets = Targets::of(history);
    let made = [(&targets.orders, OF_ORDER), (&targets.payments, OF_PAYMENT), (&targets.reservations, OF_RESERVATION)];
    for (path, attempts, fixed) in
        made.into_iter().flat_map(|(made, fixed)| made.iter().map(move |(p, a)| (p, a, fixed)))
    {
        for attempt in attempts {
            if let Some(said) = attempt.acknowledged() {
                check(&mut verdict, seen, path, &said.value(), fixed, attempt);
            }
        }
        // What one node has and another has not is the replicas' affair, but for what was promised.
        let promised: Vec<_> = attempts.iter().copied().filter(|attempt| attempt.acknowledged().is_some()).collect();
        if !promised.is_empty() {
            check_replicas(&mut verdict, seen.entities.get(path), path, &ids(&promised));
        }
    }
    for operation in history.operations.iter().filter(|operation| operation.is_write()) {
        let (path, asked) = parts(&operation.request.path);
        // Adjustments are counted by the judge of stock, who knows each of them.
        if let (Some(said), false) = (operation.acknowledged(), asked.is_empty() || asked == "adjustments") {
            check(&mut verdict, seen, path, &said.value(), &[], operation);
            check_end(&mut verdict, seen, path, asked, operation);
        }
    }
    verdict
}

fn check(verdict: &mut Verdict, seen: &Observed, path: &str, said: &Value, fixed: &[&str], operation: &Operation) {
    let Some(now) = seen.found(path) else {
        let what = seen.entities.get(path).map(|seen| &seen.owner);
        verdict.expect(false, || format!("{path} was acknowledged and is gone: {what:?}"), || vec![operation.id]);
        return;
    };
    let changed = fixed.iter().find(|field| now[**field] != said[**field]);
    verdict.expect(
        changed.is_none(),
        || format!("`{}` of {path} was acknowledged otherwise: {said}, now {now}", changed.unwrap_or(&"")),
        || vec![operation.id],
    );
    let versions = (said["version"].as_u64(), now["version"].as_u64());
    let forgot = LISTS.iter().any(|list| !contains(&now[*list], &said[*list]));
    verdict.expect(
        versions.0 <= versions.1 && !forgot,
        || format!("{path} has forgotten a change: acknowledged as {said}, now {now}"),
        || vec![operation.id],
    );
}

/// Every entry of `before` is still in `now`, by its id.
fn contains(now: &Value, before: &Value) -> bool {
    let ids = |list: &Value| -> Vec<Value> {
        list.as_array().into_iter().flatten().map(|entry| entry["id"].clone()).collect()
    };
    let now = ids(now);
    ids(before).iter().all(|id| now.contains(id))
}

/// What was asked for and granted is what became of it.
fn check_end(verdict: &mut Verdict, seen: &Observed, path: &str, asked: &str, operation: &Operation) {
    let status = seen.found(path).and_then(|now| now["status"].as_str()).unwrap_or("gone");
    let said = operation.acknowledged().map(|said| said.value()["status"].clone()).unwrap_or_default();
    let good = match asked {
        "commit" => status == "committed",
        "release" => status == "released",
        "cancel" => !["confirmed", "partially_fulfilled", "fulfilled"].contains(&status),
        _ => true,
    };
    let ended = path.starts_with("/v1/reservations/") && RESERVATION_ENDS.iter().any(|end| said == *end);
    verdict.expect(
        good && (!ended || said == status),
        || format!("{asked} of {path} was acknowledged, and now it is {status}"),
        || vec![operation.id],
    );
}

fn check_replicas(verdict: &mut Verdict, seen: Option<&Seen>, path: &str, operations: &[u64]) {
    let Some(seen) = seen else { return };
    for (node, replica) in &seen.replicas {
        verdict.expect(
            matches!(replica, Reading::Found(_)),
            || format!("{path} was acknowledged and cannot be read on {node}: {replica:?}"),
            || operations.to_vec(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        chaos::check::testing::{NODES, everywhere, history, nowhere, posted, posted_in_vain},
        ingress::identity::derived_id,
    };
    use serde_json::json;

    fn order(status: &str, version: u64) -> Value {
        json!({"id": id("ord_", "/v1/orders"), "customer_id": "c", "items": [], "total": {"amount": 5}, "status": status, "version": version})
    }

    fn id(prefix: &str, route: &str) -> String {
        derived_id(prefix, route, "k")
    }

    fn path() -> String {
        format!("/v1/orders/{}", id("ord_", "/v1/orders"))
    }

    fn seen(path: String, entity: Seen) -> Observed {
        Observed { entities: [(path, entity)].into(), ..Observed::default() }
    }

    fn placed() -> Operation {
        posted(0, "/v1/orders", "k", json!({}), 201, order("pending", 1))
    }

    #[test]
    fn what_was_acknowledged_and_is_everywhere_is_kept() {
        let verdict = judge(&history(vec![placed()]), &seen(path(), everywhere(order("confirmed", 9))));
        assert!(verdict.holds(), "{verdict:?}");
        assert_eq!(verdict.checked, 2 + NODES.len() as u64);
    }

    #[test]
    fn an_order_that_is_gone_is_noticed() {
        let verdict = judge(&history(vec![placed()]), &seen(path(), nowhere()));
        assert_eq!(verdict.violations[0].operations, [0], "{verdict:?}");
    }

    #[test]
    fn an_order_that_one_node_lacks_is_noticed() {
        let mut entity = everywhere(order("confirmed", 9));
        entity.replicas[1].1 = Reading::Missing;
        let verdict = judge(&history(vec![placed()]), &seen(path(), entity));
        assert!(verdict.violations.len() == 1 && verdict.violations[0].detail.contains(NODES[1]), "{verdict:?}");
    }

    #[test]
    fn an_order_that_has_become_another_or_went_back_is_noticed() {
        let mut other = order("confirmed", 9);
        other["total"] = json!({"amount": 6});
        for now in [other, order("pending", 0)] {
            let verdict = judge(&history(vec![placed()]), &seen(path(), everywhere(now)));
            assert_eq!(verdict.violations.len(), 1, "{verdict:?}");
        }
    }

    #[test]
    fn an_order_that_was_never_acknowledged_may_be_gone() {
        let history = history(vec![posted_in_vain(0, "/v1/orders", "k", json!({}))]);
        let verdict = judge(&history, &seen(path(), nowhere()));
        assert!(verdict.violations.is_empty() && verdict.checked == 0, "{verdict:?}");
    }

    #[test]
    fn a_cancel_that_was_granted_and_a_return_that_was_recorded_must_show() {
        let cancel = posted(1, &format!("{}/cancel", path()), "c", json!({}), 200, order("compensating", 2));
        let verdict = judge(&history(vec![placed(), cancel]), &seen(path(), everywhere(order("confirmed", 9))));
        assert_eq!(verdict.violations[0].operations, [1], "{verdict:?}");
        let mut returned = order("returned", 7);
        returned["returns"] = json!([{"id": "ret_1"}]);
        let back = posted(1, &format!("{}/returns", path()), "r", json!({}), 200, returned.clone());
        let verdict = judge(&history(vec![placed(), back.clone()]), &seen(path(), everywhere(order("returned", 9))));
        assert_eq!(verdict.violations[0].operations, [1], "{verdict:?}");
        assert!(judge(&history(vec![placed(), back]), &seen(path(), everywhere(returned))).holds());
    }

    #[test]
    fn a_reservation_that_was_committed_stays_so() {
        let id = id("res_", "/v1/reservations");
        let path = format!("/v1/reservations/{id}");
        let reservation =
            |status: &str, version: u64| json!({"id": id, "items": [], "status": status, "version": version});
        let made = posted(0, "/v1/reservations", "k", json!({}), 201, reservation("held", 2));
        let taken = posted(1, &format!("{path}/commit"), "t", json!({}), 200, reservation("committed", 3));
        let history = history(vec![made, taken]);
        assert!(judge(&history, &seen(path.clone(), everywhere(reservation("committed", 4)))).holds());
        let verdict = judge(&history, &seen(path, everywhere(reservation("released", 4))));
        assert_eq!(verdict.violations[0].operations, [1], "{verdict:?}");
    }
}
