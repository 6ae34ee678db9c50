//! `quorate verify`: holds receipts against every replica, and so proves or refutes that
//! acknowledged writes are still there.
//!
//! ```text
//! file ─▶ receipts ─▶ ask every node for each ─▶ judge: proven, lost, contradicted, … ─▶ report
//! ```

mod ask;
mod file;
mod judge;

use super::{Failure, args::Verify, output};
use ask::Verdicts;
use file::Receipts;
use judge::Outcome;
use serde_json::{Value, json};

/// Lines shown where something is not proven; `--json` lists them all.
const LINES_SHOWN: usize = 100;
const OUTCOMES: [Outcome; 5] =
    [Outcome::Proven, Outcome::Lost, Outcome::Contradicted, Outcome::Forgotten, Outcome::Undecided];

pub(super) async fn run(args: &Verify) -> Result<(), Failure> {
    let receipts = file::read(&args.file)?;
    let nodes = ask::nodes(args).await?;
    let verdicts = ask::ask(args, nodes, receipts.keys().cloned().collect()).await?;
    let report = Report { receipts: &receipts, verdicts: &verdicts };
    output::answer(&if args.json { report.json().to_string() } else { report.text() })?;
    report.conclusion()
}

struct Report<'a> {
    receipts: &'a Receipts,
    verdicts: &'a Verdicts,
}

/// A line of the file that is not proven.
struct Unproven<'a> {
    line: usize,
    receipt: &'a str,
    outcome: Outcome,
    detail: &'a str,
}

impl Report<'_> {
    /// Lines of the file with this outcome.
    fn count(&self, wanted: Outcome) -> usize {
        let of = |receipt: &String| self.verdicts.outcomes.get(receipt).map(|(outcome, _)| *outcome);
        self.receipts.iter().filter(|(receipt, _)| of(receipt) == Some(wanted)).map(|(_, (_, lines))| lines.len()).sum()
    }

    fn lines(&self) -> usize {
        self.receipts.values().map(|(_, lines)| lines.len()).sum()
    }

    /// In the order of the file.
    fn unproven(&self) -> Vec<Unproven<'_>> {
        let mut all = Vec::new();
        for (receipt, (outcome, detail)) in &self.verdicts.outcomes {
            let lines = self.receipts.get(receipt).map_or(&[][..], |(_, lines)| lines);
            let unproven = |line: &usize| Unproven { line: *line, receipt, outcome: *outcome, detail };
            all.extend(lines.iter().filter(|_| *outcome != Outcome::Proven).map(unproven));
        }
        all.sort_unstable_by_key(|unproven| unproven.line);
        all
    }

    fn json(&self) -> Value {
        let problem = |unproven: Unproven<'_>| {
            let Unproven { line, receipt, outcome, detail } = unproven;
            json!({"line": line, "receipt": receipt, "outcome": outcome.name(), "detail": detail})
        };
        let mut json = json!({
            "lines": self.lines(),
            "entries": self.receipts.len(),
            "nodes": self.verdicts.nodes,
            "unanswered": self.verdicts.silent,
            "problems": self.unproven().into_iter().map(problem).collect::<Vec<_>>(),
        });
        for outcome in OUTCOMES {
            json[outcome.name()] = self.count(outcome).into();
        }
        json
    }

    fn text(&self) -> String {
        let (entries, shards) = (self.receipts.len(), self.verdicts.shards());
        let mut text = format!("{:<14}{} of {entries} log entries in {shards} shards\n", "receipts", self.lines());
        text += &format!("{:<14}{}\n", "nodes", self.verdicts.nodes.join(", "));
        for (node, why) in &self.verdicts.silent {
            text += &format!("{:<14}{node}: {why}\n", "no answer");
        }
        for outcome in OUTCOMES {
            text += &format!("{:<14}{}\n", outcome.name(), self.count(outcome));
        }
        let unproven = self.unproven();
        for Unproven { line, receipt, outcome, detail } in unproven.iter().take(LINES_SHOWN) {
            text += &format!("line {line}: {receipt} is {}: {detail}\n", outcome.name());
        }
        if unproven.len() > LINES_SHOWN {
            text += &format!("… and {} more; --json lists them all\n", unproven.len() - LINES_SHOWN);
        }
        text
    }

    fn conclusion(&self) -> Result<(), Failure> {
        let [_, lost, contradicted, forgotten, undecided] = OUTCOMES.map(|outcome| self.count(outcome));
        if lost + contradicted > 0 {
            let text = format!("acknowledged writes are missing: {lost} lost, {contradicted} contradicted");
            return Err(Failure::operation(format!("{text}; keep the data directories and the logs of all nodes")));
        }
        if undecided > 0 {
            let text = format!("{undecided} receipts are undecided: not enough replicas could tell");
            return Err(Failure::unavailable(format!("{text}; bring the nodes back, or wait longer with --wait")));
        }
        if forgotten > 0 {
            let text =
                format!("{forgotten} receipts are older than what the nodes keep, so that nothing is known of them");
            return Err(Failure::unavailable(format!("{text}; verify sooner, or raise shard.receipts_kept")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn verdicts(outcomes: &[Outcome]) -> (Receipts, Verdicts) {
        let receipt = |at: usize| format!("{at}-1-7-0000000a");
        let entry = |(at, _): (usize, &Outcome)| {
            (receipt(at), (receipt(at).parse().expect("a receipt"), vec![at + 1, at + 101]))
        };
        let receipts = outcomes.iter().enumerate().map(entry).collect();
        let outcome = |(at, outcome): (usize, &Outcome)| (receipt(at), (*outcome, "why".to_owned()));
        let outcomes = outcomes.iter().enumerate().map(outcome).collect();
        (receipts, Verdicts { outcomes, nodes: vec!["n1:1".into()], silent: BTreeMap::new() })
    }

    #[test]
    fn lines_are_counted_and_those_that_are_not_proven_are_shown() {
        let (receipts, verdicts) = verdicts(&[Outcome::Proven, Outcome::Lost]);
        let report = Report { receipts: &receipts, verdicts: &verdicts };
        let json = report.json();
        assert_eq!(
            (&json["lines"], &json["entries"], &json["proven"], &json["lost"]),
            (&4.into(), &2.into(), &2.into(), &2.into())
        );
        assert_eq!(json["problems"][1]["line"], 102);
        let text = report.text();
        assert!(text.contains("line 2: 1-1-7-0000000a is lost: why\n"), "{text}");
        assert!(!text.contains("line 1:"), "{text}");
    }

    #[test]
    fn loss_goes_before_doubt() {
        let conclusion = |outcomes: &[Outcome]| {
            let (receipts, verdicts) = verdicts(outcomes);
            Report { receipts: &receipts, verdicts: &verdicts }.conclusion()
        };
        assert_eq!(conclusion(&[Outcome::Proven, Outcome::Proven]), Ok(()));
        for refuted in [Outcome::Lost, Outcome::Contradicted] {
            let failure = conclusion(&[Outcome::Undecided, refuted]);
            assert!(matches!(failure, Err(Failure::Operation(_))), "{failure:?}");
        }
        for doubtful in [Outcome::Undecided, Outcome::Forgotten] {
            assert!(matches!(conclusion(&[Outcome::Proven, doubtful]), Err(Failure::Unavailable(_))));
        }
    }
}
