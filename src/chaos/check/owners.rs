//! No two owners in one term: neither did two acknowledge, nor did two take themselves for it.
//!
//! An acknowledgement's receipt names shard, term, index and the hash of the entry. Two owners that
//! acknowledged in one term, or one after it was deposed, would have put different entries at one
//! index, or have gone back in terms as the log goes on. Many writes share one entry.

use crate::chaos::{history::History, verdict::Verdict};
use std::collections::{BTreeMap, BTreeSet};

pub const INVARIANT: &str = "one-owner-per-term";

/// Shard and index, then term and hash, then the operation.
type Entries<'a> = BTreeMap<(u64, u64), (u64, &'a str, u64)>;

#[must_use]
pub fn judge(history: &History) -> Verdict {
    let mut verdict = Verdict::new(INVARIANT);
    check_receipts(&mut verdict, history);
    let receipts = verdict.checked;
    check_claims(&mut verdict, history);
    match (receipts, verdict.checked) {
        (_, 0) => return Verdict::skipped(INVARIANT, "no node gave receipts or told what it owns"),
        (0, _) => verdict.skipped = Some("the nodes give no receipts: judged by what they said they own".into()),
        _ => {}
    }
    verdict
}

fn check_receipts(verdict: &mut Verdict, history: &History) {
    let mut entries: Entries<'_> = BTreeMap::new();
    for operation in &history.operations {
        let Some((shard, term, index, hash)) = operation.receipt.as_deref().and_then(parse) else { continue };
        let (known_term, known_hash, first) = *entries.entry((shard, index)).or_insert((term, hash, operation.id));
        verdict.expect(
            (known_term, known_hash) == (term, hash),
            || {
                format!(
                    "shard {shard} has two entries {index}: {known_hash} of term {known_term}, {hash} of term {term}"
                )
            },
            || vec![first, operation.id],
        );
    }
    let entries: Vec<_> = entries.into_iter().collect();
    for pair in entries.windows(2) {
        let [((shard, index), (term, _, before)), ((next_shard, next_index), (next_term, _, after))] = pair else {
            continue;
        };
        if shard == next_shard && term > next_term {
            let detail = format!("shard {shard} went from term {term} at {index} back to {next_term} at {next_index}");
            verdict.violated(detail, vec![*before, *after]);
        }
    }
}

fn parse(receipt: &str) -> Option<(u64, u64, u64, &str)> {
    let mut parts = receipt.splitn(4, '-');
    let mut number = || parts.next()?.parse().ok();
    let (shard, term, index) = (number()?, number()?, number()?);
    Some((shard, term, index, parts.next()?))
}

/// What nodes said they own, term by term. A node puts shard and term together from two looks, so a
/// single sample may be mixed: only what it said twice counts.
fn check_claims(verdict: &mut Verdict, history: &History) {
    let mut claims: BTreeMap<(u64, u64), BTreeMap<u64, u32>> = BTreeMap::new();
    for sample in &history.samples {
        let Some(node) = sample.id else { continue };
        for claim in &sample.owns {
            *claims.entry(*claim).or_default().entry(node).or_default() += 1;
        }
    }
    for ((shard, term), owners) in claims {
        let owners: BTreeSet<u64> = owners.into_iter().filter(|(_, times)| *times > 1).map(|(node, _)| node).collect();
        let detail = || format!("nodes {owners:?} all took themselves for the owner of shard {shard} in term {term}");
        verdict.expect(owners.len() <= 1, detail, Vec::new);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::{
        check::testing::posted,
        history::{NodeSample, Operation},
    };
    use serde_json::json;

    fn acknowledged(id: u64, receipt: &str) -> Operation {
        let receipt = Some(receipt.to_owned());
        Operation { receipt, ..posted(id, "/v1/orders", &id.to_string(), json!({}), 201, json!({})) }
    }

    fn judged(receipts: &[&str], samples: &[(u64, &[(u64, u64)])]) -> Verdict {
        let operations = receipts.iter().zip(0..).map(|(receipt, id)| acknowledged(id, receipt)).collect();
        let sample = |(id, owns): &(u64, &[(u64, u64)])| NodeSample {
            node: format!("n{id}"),
            at_us: 0,
            resident_bytes: None,
            id: Some(*id),
            owns: owns.to_vec(),
        };
        judge(&History { operations, samples: samples.iter().map(sample).collect() })
    }

    #[test]
    fn a_log_that_goes_on_is_good() {
        let verdict = judged(&["0-1-5-aa", "0-1-5-aa", "0-2-9-bb", "1-1-5-cc"], &[]);
        assert!(verdict.holds() && verdict.checked == 4, "{verdict:?}");
    }

    #[test]
    fn two_entries_in_one_place_are_noticed() {
        for second in ["0-1-5-bb", "0-2-5-aa"] {
            let verdict = judged(&["0-1-5-aa", second], &[]);
            assert_eq!(verdict.violations[0].operations, [0, 1], "{verdict:?}");
        }
    }

    #[test]
    fn a_deposed_owner_that_goes_on_is_noticed() {
        let verdict = judged(&["0-2-5-aa", "0-1-6-bb"], &[]);
        assert_eq!(verdict.violations[0].operations, [0, 1], "{verdict:?}");
    }

    #[test]
    fn two_who_keep_saying_that_they_own_a_shard_in_one_term_are_noticed() {
        let once: &[(u64, &[(u64, u64)])] = &[(1, &[(0, 3)]), (1, &[(0, 3)]), (2, &[(0, 3), (1, 3)])];
        let verdict = judged(&["0-3-1-aa"], once);
        assert!(verdict.holds(), "{verdict:?}");
        let twice: Vec<_> = once.iter().copied().chain([once[2]]).collect();
        assert_eq!(judged(&["0-3-1-aa"], &twice).violations.len(), 1);
    }

    #[test]
    fn without_receipts_it_says_so() {
        assert!(judged(&[], &[]).skipped.is_some() && !judged(&[], &[]).holds());
        let by_claims = judged(&[], &[(1, &[(0, 3)])]);
        assert!(by_claims.holds() && by_claims.skipped.is_some());
    }
}
