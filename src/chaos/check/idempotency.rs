//! A key means one thing: whoever repeats a request is answered as the first time.

use crate::chaos::{
    history::{History, Operation, Outcome},
    verdict::Verdict,
};
use serde_json::Value;

pub const INVARIANT: &str = "idempotent-replies-identical";

/// Compares every pair of a decided attempt and the ones decided after it.
#[must_use]
pub fn judge(history: &History) -> Verdict {
    let mut verdict = Verdict::new(INVARIANT);
    for ((_, path, key), mut attempts) in history.by_key() {
        attempts.sort_by_key(|attempt| attempt.returned_us);
        let kept: Vec<(&Operation, u16, Value)> = attempts.into_iter().filter_map(kept).collect();
        for pair in kept.windows(2) {
            let [(first, status, said), (again, status_again, said_again)] = pair else { continue };
            verdict.expect(
                status == status_again && said == said_again,
                || format!("{path} with key {key} was answered {status} {said}, then {status_again} {said_again}"),
                || vec![first.id, again.id],
            );
        }
        let first_done = kept.iter().find(|(attempt, ..)| attempt.acknowledged().is_some());
        for (again, ..) in kept.iter().filter(|(again, ..)| is_unmarked(first_done.map(|done| done.0), again)) {
            let detail = || format!("{path} with key {key} was answered again without saying so");
            verdict.expect(false, detail, || vec![again.id]);
        }
    }
    verdict
}

/// An answer that belongs to the key from then on, without what differs in every answer. A refusal
/// keeps nothing, but for a reservation that could not be held: that is its outcome.
fn kept(attempt: &Operation) -> Option<(&Operation, u16, Value)> {
    let Outcome::Answered { status, body, .. } = &attempt.outcome else { return None };
    let mut body = body.value();
    let refusal_is_kept = attempt.request.path == "/v1/reservations" && body["code"] == "out-of-stock";
    if let Some(members) = body.as_object_mut() {
        members.remove("trace_id");
        // A step of a reservation waits for the stocks, but not for ever: whether they had answered
        // by then may differ, what they were told may not.
        if attempt.request.path.starts_with("/v1/reservations/") {
            members.remove("version");
            members.remove("updated_at");
        }
    }
    ((200..300).contains(status) || refusal_is_kept).then_some((attempt, *status, body))
}

/// An answer to a request that was sent after another one under its key had been answered.
fn is_unmarked(first: Option<&Operation>, again: &Operation) -> bool {
    let replayed = matches!(again.outcome, Outcome::Answered { replayed: true, .. });
    first.is_some_and(|first| first.id != again.id && first.returned_us < again.invoked_us && !replayed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::check::testing::{history, posted, posted_in_vain};
    use serde_json::json;

    fn placed(id: u64, version: u64) -> Operation {
        let mut placed = posted(id, "/v1/orders", "k", json!({}), 201, json!({"id": "ord_1", "version": version}));
        if let Outcome::Answered { replayed, .. } = &mut placed.outcome {
            *replayed = id > 0;
        }
        placed
    }

    #[test]
    fn the_same_answer_again_is_good() {
        let verdict =
            judge(&history(vec![placed(0, 1), posted_in_vain(1, "/v1/orders", "k", json!({})), placed(2, 1)]));
        assert!(verdict.holds() && verdict.checked == 1, "{verdict:?}");
    }

    #[test]
    fn another_answer_is_noticed() {
        let verdict = judge(&history(vec![placed(0, 1), placed(1, 2)]));
        assert_eq!(verdict.violations[0].operations, [0, 1], "{verdict:?}");
    }

    #[test]
    fn a_second_effect_that_looks_like_the_first_is_noticed() {
        let mut again = placed(1, 1);
        if let Outcome::Answered { replayed, .. } = &mut again.outcome {
            *replayed = false;
        }
        let verdict = judge(&history(vec![placed(0, 1), again]));
        assert_eq!(verdict.violations[0].operations, [1], "{verdict:?}");
    }

    #[test]
    fn a_refusal_before_the_effect_is_no_answer_of_the_key() {
        let refused = posted(0, "/v1/orders/ord_1/returns", "k", json!({}), 409, json!({"code": "illegal-transition"}));
        let done = posted(1, "/v1/orders/ord_1/returns", "k", json!({}), 200, json!({"version": 2}));
        assert!(judge(&history(vec![refused, done])).violations.is_empty());
    }

    #[test]
    fn a_step_of_a_reservation_may_be_answered_before_or_after_its_stocks_have_heard() {
        let taken = |id, status: &str, version: u64| {
            let said = json!({"id": "res_1", "status": status, "version": version});
            let mut taken = posted(id, "/v1/reservations/res_1/commit", "k", json!({}), 200, said);
            taken.returned_us = taken.invoked_us + 10;
            taken
        };
        assert!(judge(&history(vec![taken(0, "committed", 3), taken(1, "committed", 4)])).holds());
        assert_eq!(judge(&history(vec![taken(0, "committed", 3), taken(1, "released", 4)])).violations.len(), 1);
    }

    #[test]
    fn what_could_not_be_held_stays_so() {
        let refused = |id, available: u64, trace: &str| {
            let said = json!({"code": "out-of-stock", "available": available, "trace_id": trace});
            posted(id, "/v1/reservations", "k", json!({}), 409, said)
        };
        let verdict = judge(&history(vec![refused(0, 3, "a"), refused(1, 3, "b")]));
        assert!(verdict.holds(), "{verdict:?}");
        let held = posted(1, "/v1/reservations", "k", json!({}), 201, json!({"id": "res_1"}));
        assert_eq!(judge(&history(vec![refused(0, 3, "a"), held])).violations.len(), 1);
    }
}
