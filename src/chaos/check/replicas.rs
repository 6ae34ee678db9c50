//! Every replica has become the same: what one node shows every node shows, and where nodes tell
//! hashes of their states, those of one shard at one index are one.

use super::observe::{Observed, Said};
use crate::chaos::verdict::Verdict;
use serde_json::Value;
use std::collections::BTreeMap;

pub const INVARIANT: &str = "replicas-identical";

#[must_use]
pub fn judge(seen: &Observed) -> Verdict {
    let mut verdict = Verdict::new(INVARIANT);
    for (path, entity) in &seen.entities {
        let differs = entity.replicas.iter().find(|(_, replica)| *replica != entity.owner);
        verdict.expect(
            differs.is_none(),
            || format!("{path} is {:?} at its owner, and elsewhere {differs:?}", entity.owner),
            Vec::new,
        );
    }
    let hashes: BTreeMap<&str, &Value> = seen
        .hashes
        .iter()
        .filter_map(|(node, said)| match said {
            Said::Value(value) => Some((node.as_str(), value)),
            _ => None,
        })
        .collect();
    if hashes.len() < 2 {
        verdict.skipped = Some("the nodes do not tell their states' hashes: compared by what they show".into());
        return verdict;
    }
    if !check_hashes(&mut verdict, &hashes) {
        verdict.skipped = Some("no two nodes told a hash of one shard at one index".into());
    }
    verdict
}

/// True if there was something to compare.
fn check_hashes(verdict: &mut Verdict, hashes: &BTreeMap<&str, &Value>) -> bool {
    let mut marks: BTreeMap<(u64, u64), Vec<(&str, &str)>> = BTreeMap::new();
    for (node, told) in hashes {
        for (shard, index, hash) in told["data"].as_array().into_iter().flatten().flat_map(marks_of) {
            marks.entry((shard, index)).or_default().push((node, hash));
        }
    }
    let mut compared = false;
    for ((shard, index), told) in marks.into_iter().filter(|(_, told)| told.len() > 1) {
        compared = true;
        let first = told[0].1;
        let detail = || format!("the states of shard {shard} at {index} differ: {told:?}");
        verdict.expect(told.iter().all(|(_, hash)| *hash == first), detail, Vec::new);
    }
    compared
}

/// Index and hash at every mark of one shard.
fn marks_of(shard: &Value) -> impl Iterator<Item = (u64, u64, &str)> {
    let marks = shard["marks"].as_array().into_iter().flatten();
    marks.filter_map(|mark| {
        Some((shard["shard"].as_u64()?, mark["applied_index"].as_u64()?, mark["state_hash"].as_str()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::check::{
        observe::Reading,
        testing::{NODES, everywhere, observed},
    };
    use serde_json::json;

    fn with_hashes(hashes: [&str; 2]) -> Verdict {
        let mut seen = observed([("/v1/orders/ord_1", everywhere(json!({"status": "confirmed"})))]);
        let told = |hash: &str| json!({"data": [{"shard": 0, "marks": [{"applied_index": 64, "state_hash": hash}]}]});
        seen.hashes =
            NODES.iter().zip(hashes).map(|(node, hash)| ((*node).to_owned(), Said::Value(told(hash)))).collect();
        judge(&seen)
    }

    #[test]
    fn replicas_that_show_the_same_are_good() {
        let verdict = with_hashes(["aa", "aa"]);
        assert!(verdict.holds() && verdict.checked == 2 && verdict.skipped.is_none(), "{verdict:?}");
    }

    #[test]
    fn states_that_differ_are_noticed() {
        assert_eq!(with_hashes(["aa", "ab"]).violations.len(), 1);
    }

    #[test]
    fn a_replica_that_shows_something_else_is_noticed() {
        let mut entity = everywhere(json!({"status": "confirmed"}));
        entity.replicas[1].1 = Reading::Found(json!({"status": "pending"}));
        let verdict = judge(&observed([("/v1/orders/ord_1", entity)]));
        assert!(verdict.violations[0].detail.contains(NODES[1]) && verdict.skipped.is_some(), "{verdict:?}");
    }
}
