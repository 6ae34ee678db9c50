//! BOUNDED memory: no node grew beyond a limit while it was loaded and mistreated.

use crate::chaos::{history::History, verdict::Verdict};
use std::collections::BTreeMap;

pub const INVARIANT: &str = "memory-bounded";

/// Resident bytes of one node. Idle it takes less than 60 MB; every queue and cache at its bound
/// stays below this.
pub const RESIDENT_MAX: u64 = 768 << 20;

#[must_use]
pub fn judge(history: &History) -> Verdict {
    let mut largest: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    let mut verdict = Verdict::new(INVARIANT);
    for sample in &history.samples {
        let Some(bytes) = sample.resident_bytes else { continue };
        verdict.checked += 1;
        let largest = largest.entry(&sample.node).or_default();
        *largest = (*largest).max((bytes, sample.at_us));
    }
    if verdict.checked == 0 {
        return Verdict::skipped(INVARIANT, "no node told how much memory it takes");
    }
    for (node, (bytes, at_us)) in largest.into_iter().filter(|(_, (bytes, _))| *bytes > RESIDENT_MAX) {
        let (mib, limit, at_s) = (bytes >> 20, RESIDENT_MAX >> 20, at_us / 1_000_000);
        verdict.violated(format!("{node} took {mib} MiB at {at_s} s, more than {limit} MiB"), Vec::new());
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::history::NodeSample;

    fn sample(node: &str, resident_bytes: Option<u64>) -> NodeSample {
        NodeSample { node: node.into(), at_us: 5_000_000, resident_bytes, id: None, owns: Vec::new() }
    }

    fn judged(samples: Vec<NodeSample>) -> Verdict {
        judge(&History { samples, ..History::default() })
    }

    #[test]
    fn a_node_that_grows_without_end_is_noticed() {
        assert!(judged(vec![sample("a", Some(1 << 20)), sample("b", Some(RESIDENT_MAX))]).holds());
        let verdict = judged(vec![sample("a", Some(1 << 20)), sample("b", Some(RESIDENT_MAX + 1))]);
        assert_eq!(verdict.violations[0].detail, "b took 768 MiB at 5 s, more than 768 MiB");
    }

    #[test]
    fn where_nobody_tells_it_is_skipped() {
        assert!(judged(vec![sample("a", None)]).skipped.is_some());
    }
}
