//! What was acknowledged with a receipt is in the log where the receipt says: a majority of the
//! shard's replicas confirms it, and none contradicts it.

use super::observe::{Observed, Said};
use crate::chaos::{history::History, verdict::Verdict};
use serde_json::Value;
use std::collections::BTreeMap;

pub const INVARIANT: &str = "receipts-confirmed";

#[must_use]
pub fn judge(history: &History, seen: &Observed) -> Verdict {
    let mut operations: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for operation in &history.operations {
        if let Some(receipt) = operation.receipt.as_deref() {
            operations.entry(receipt).or_default().push(operation.id);
        }
    }
    if operations.is_empty() {
        return Verdict::skipped(INVARIANT, "the nodes give no receipts");
    }
    let mut verdict = Verdict::new(INVARIANT);
    let mut forgotten = 0_u64;
    for (receipt, by) in operations {
        let said = seen.receipts.get(receipt).map(Vec::as_slice).unwrap_or_default();
        if said.iter().all(|(_, said)| *said == Said::NotOffered) {
            return Verdict::skipped(INVARIANT, "the nodes give receipts, and do not say what became of them");
        }
        match weigh(said) {
            Weight::Proven => verdict.checked += 1,
            Weight::Forgotten => forgotten += 1,
            Weight::Not(why) => verdict.expect(false, || format!("{receipt}: {why}"), || by.clone()),
        }
    }
    if forgotten > 0 {
        verdict.skipped =
            Some(format!("{forgotten} receipts are older than the nodes look back (`shard.receipts_kept`)"));
    }
    verdict
}

enum Weight {
    Proven,
    /// So long ago that too few can tell.
    Forgotten,
    Not(String),
}

fn weigh(said: &[(String, Said)]) -> Weight {
    let values: Vec<(&str, &Value)> = said
        .iter()
        .filter_map(|(node, said)| match said {
            Said::Value(value) => Some((node.as_str(), value)),
            _ => None,
        })
        .collect();
    let count = |verdict: &str| values.iter().filter(|(_, value)| value["verdict"] == verdict).count();
    if let Some((node, value)) = values.iter().find(|(_, value)| value["verdict"] == "contradicted") {
        return Weight::Not(format!("{node} holds another entry there: {value}"));
    }
    let replicas = values.iter().filter_map(|(_, value)| value["replicas"].as_array()).map(Vec::len).max().unwrap_or(0);
    let majority = replicas / 2 + 1;
    match (count("confirmed"), count("forgotten")) {
        (confirmed, _) if replicas > 0 && confirmed >= majority => Weight::Proven,
        (confirmed, forgotten) if forgotten > 0 && confirmed + forgotten >= majority => Weight::Forgotten,
        (confirmed, _) => Weight::Not(format!("{confirmed} of {replicas} replicas confirm it: {said:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::{
        check::testing::{history, posted},
        history::Operation,
    };
    use serde_json::json;

    const RECEIPT: &str = "0-1-5-aa";

    fn judged(said: &[&str]) -> Verdict {
        let placed = posted(7, "/v1/orders", "k", json!({}), 201, json!({}));
        let history = history(vec![Operation { receipt: Some(RECEIPT.into()), ..placed }]);
        let answer = |(at, verdict): (usize, &&str)| {
            let said = match *verdict {
                "not-offered" => Said::NotOffered,
                "down" => Said::Failed("no answer".into()),
                verdict => Said::Value(json!({"verdict": verdict, "replicas": [1, 2, 3]})),
            };
            (format!("n{at}"), said)
        };
        let said = said.iter().enumerate().map(answer).collect();
        judge(&history, &Observed { receipts: [(RECEIPT.to_owned(), said)].into(), ..Observed::default() })
    }

    #[test]
    fn a_majority_that_confirms_is_a_proof() {
        assert!(judged(&["confirmed", "confirmed", "confirmed"]).holds());
        assert!(judged(&["confirmed", "not-applied-yet", "confirmed"]).holds());
    }

    #[test]
    fn a_write_that_is_not_where_it_was_promised_is_noticed() {
        for said in [["confirmed", "confirmed", "contradicted"], ["confirmed", "not-applied-yet", "down"]] {
            assert_eq!(judged(&said).violations[0].operations, [7], "{said:?}");
        }
    }

    #[test]
    fn what_is_too_old_or_not_offered_is_said() {
        assert!(judged(&["forgotten", "forgotten", "confirmed"]).skipped.is_some());
        assert!(judged(&["not-offered", "not-offered", "not-offered"]).skipped.is_some());
        assert!(judge(&history(Vec::new()), &Observed::default()).skipped.is_some());
    }
}
