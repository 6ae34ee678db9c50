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

/// Shard, where the hash began, and the entry after which it was taken.
type Place = (u64, u64, u64);

/// True if there was something to compare.
fn check_hashes(verdict: &mut Verdict, hashes: &BTreeMap<&str, &Value>) -> bool {
    let mut told: BTreeMap<Place, Vec<(&str, &str)>> = BTreeMap::new();
    for (node, answer) in hashes {
        for (place, hash) in answer["data"].as_array().into_iter().flatten().flat_map(hashes_of) {
            told.entry(place).or_default().push((node, hash));
        }
    }
    let mut compared = false;
    for ((shard, _, index), by) in told.into_iter().filter(|(_, by)| by.len() > 1) {
        compared = true;
        let same = by.windows(2).all(|pair| pair[0].1 == pair[1].1);
        verdict.expect(same, || format!("the states of shard {shard} after entry {index} differ: {by:?}"), Vec::new);
    }
    compared
}

/// Every hash that a node tells of one replica: of its marks, and the present one.
fn hashes_of(replica: &Value) -> Vec<(Place, &str)> {
    let Some((shard, since)) = replica["shard"].as_u64().zip(replica["since"].as_u64()) else { return Vec::new() };
    let marks = replica["marks"].as_array().into_iter().flatten().map(|mark| (&mark["index"], &mark["hash"]));
    // At rest it is a mark of its own, unless it is the last one.
    let last = replica["marks"].as_array().and_then(|marks| marks.last()).map(|mark| &mark["index"]);
    let now = (last != Some(&replica["applied_index"])).then_some((&replica["applied_index"], &replica["hash"]));
    let all = marks.chain(now);
    all.filter_map(|(index, hash)| Some(((shard, since, index.as_u64()?), hash.as_str()?))).collect()
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
        let told = |hash: &str| {
            let marks = json!([{"index": 64, "hash": "01"}]);
            json!({"data": [{"shard": 0, "since": 0, "applied_index": 70, "hash": hash, "marks": marks}]})
        };
        seen.hashes =
            NODES.iter().zip(hashes).map(|(node, hash)| ((*node).to_owned(), Said::Value(told(hash)))).collect();
        judge(&seen)
    }

    #[test]
    fn replicas_that_show_the_same_are_good() {
        let verdict = with_hashes(["aa", "aa"]);
        assert!(verdict.holds() && verdict.checked == 3 && verdict.skipped.is_none(), "{verdict:?}");
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
