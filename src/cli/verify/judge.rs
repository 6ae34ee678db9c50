//! What becomes of a receipt once its shard's replicas have spoken. Pure.
//!
//! An acknowledged write was applied by its owner and lies in the logs of a majority. So a majority
//! that confirms it proves it, and it is lost once so many logs end before it that no majority can
//! hold it. A replica that applied something else at its place contradicts it, whatever the others
//! say: at one place of a log there is one entry.

use serde_json::Value;

/// What one node said of one receipt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    pub node: u64,
    pub replicas: Vec<u64>,
    pub word: Word,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Word {
    Confirmed,
    /// It applied this instead.
    Contradicted(String),
    /// Its log ends before.
    Absent,
    /// In its log, or to be; it has not applied it yet.
    Behind,
    Forgotten,
    NotAReplica,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    Proven,
    Lost,
    Contradicted,
    Forgotten,
    Undecided,
}

impl Outcome {
    pub fn name(self) -> &'static str {
        match self {
            Self::Proven => "proven",
            Self::Lost => "lost",
            Self::Contradicted => "contradicted",
            Self::Forgotten => "forgotten",
            Self::Undecided => "undecided",
        }
    }

    /// No further answer changes it.
    pub fn is_final(self) -> bool {
        self != Self::Undecided
    }
}

impl Said {
    /// A node's answer; `None` if it is not a member yet, or answered something else.
    pub fn of(answer: &Value) -> Option<Self> {
        let number = |name: &str| answer[name].as_u64();
        let word = match answer["verdict"].as_str()? {
            "confirmed" => Word::Confirmed,
            "contradicted" => Word::Contradicted(contradiction(answer)),
            "not-applied-yet" if number("last_log_index")? < number("index")? => Word::Absent,
            "not-applied-yet" => Word::Behind,
            "forgotten" => Word::Forgotten,
            "not-a-replica" => Word::NotAReplica,
            _ => return None,
        };
        let replicas = answer["replicas"].as_array()?.iter().filter_map(Value::as_u64).collect();
        Some(Self { node: number("node")?, replicas, word })
    }
}

fn contradiction(answer: &Value) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let found = &answer["found"];
    format!("node {} applied term {}, hash {} there", answer["node"], found["term"], text(&found["entry_hash"]))
}

/// The outcome, and why where it is not proven.
pub(super) fn judge(said: &[Said]) -> (Outcome, String) {
    let Some(replicas) = said.iter().map(|s| &s.replicas).find(|r| !r.is_empty()) else {
        return match said.is_empty() {
            true => (Outcome::Undecided, "no node answered".into()),
            false => (Outcome::Contradicted, "there is no such shard".into()),
        };
    };
    let majority = replicas.len() / 2 + 1;
    let of = |node: &u64| said.iter().find(|s| s.node == *node).map(|s| &s.word);
    let count = |word: &Word| replicas.iter().filter(|node| of(node) == Some(word)).count();
    let (confirmed, absent, forgotten) = (count(&Word::Confirmed), count(&Word::Absent), count(&Word::Forgotten));
    for word in replicas.iter().filter_map(of) {
        if let Word::Contradicted(why) = word {
            return (Outcome::Contradicted, why.clone());
        }
    }
    if confirmed >= majority {
        (Outcome::Proven, String::new())
    } else if replicas.len() - absent < majority {
        (Outcome::Lost, format!("{absent} of {} replicas have no such entry in their logs", replicas.len()))
    } else if confirmed + forgotten >= majority {
        let why = format!("{confirmed} of {} replicas confirm it, {forgotten} cannot look back so far", replicas.len());
        (Outcome::Forgotten, why)
    } else {
        let (behind, silent) = (count(&Word::Behind), replicas.iter().filter(|node| of(node).is_none()).count());
        let why = format!(
            "{confirmed} of {} replicas confirm it, {absent} do not have it, {behind} are behind, {silent} did not answer",
            replicas.len()
        );
        (Outcome::Undecided, why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn judged(words: &[Word]) -> Outcome {
        let said =
            |(at, word): (usize, &Word)| Said { node: at as u64 + 1, replicas: vec![1, 2, 3], word: word.clone() };
        judge(&words.iter().enumerate().map(said).collect::<Vec<_>>()).0
    }

    #[test]
    fn a_majority_proves_and_a_majority_of_short_logs_refutes() {
        use Word::{Absent, Behind, Confirmed, Forgotten};
        assert_eq!(judged(&[Confirmed, Confirmed]), Outcome::Proven);
        assert_eq!(judged(&[Confirmed, Confirmed, Absent]), Outcome::Proven, "one replica may have lost its disk");
        assert_eq!(judged(&[Confirmed, Absent, Absent]), Outcome::Lost, "one disk is no quorum");
        assert_eq!(judged(&[Absent, Absent]), Outcome::Lost);
        assert_eq!(judged(&[Confirmed]), Outcome::Undecided);
        assert_eq!(judged(&[Confirmed, Behind, Absent]), Outcome::Undecided);
        assert_eq!(judged(&[Confirmed, Forgotten]), Outcome::Forgotten);
        assert_eq!(judged(&[Forgotten, Absent]), Outcome::Undecided);
        assert_eq!(judged(&[]), Outcome::Undecided);
    }

    #[test]
    fn one_contradiction_is_enough() {
        let other = Word::Contradicted("x".into());
        assert_eq!(judged(&[Word::Confirmed, Word::Confirmed, other]), Outcome::Contradicted);
    }

    #[test]
    fn only_replicas_count_and_each_counts_once() {
        let said = |node, word| Said { node, replicas: vec![1, 2, 3], word };
        let twice = [said(1, Word::Confirmed), said(1, Word::Confirmed), said(9, Word::Confirmed)];
        assert_eq!(judge(&twice).0, Outcome::Undecided);
        let nowhere = [Said { node: 1, replicas: vec![], word: Word::NotAReplica }];
        assert_eq!(judge(&nowhere), (Outcome::Contradicted, "there is no such shard".into()));
        let elsewhere = [Said { word: Word::NotAReplica, ..said(9, Word::Confirmed) }];
        assert_eq!(judge(&elsewhere).0, Outcome::Undecided);
    }

    #[test]
    fn answers_are_read_as_the_route_writes_them() {
        let answer = |verdict: &str, last: u64| {
            json!({"verdict": verdict, "node": 2, "replicas": [1, 2], "index": 10, "last_log_index": last,
                   "found": {"term": 4, "entry_hash": "00ff"}})
        };
        let word = |verdict, last| Said::of(&answer(verdict, last)).expect("read").word;
        assert_eq!(word("not-applied-yet", 9), Word::Absent);
        assert_eq!(word("not-applied-yet", 10), Word::Behind);
        assert_eq!(word("contradicted", 10), Word::Contradicted("node 2 applied term 4, hash 00ff there".into()));
        assert_eq!(Said::of(&json!({"verdict": "not-a-replica", "node": null, "replicas": []})), None);
        assert_eq!(Said::of(&json!({"code": "internal"})), None);
    }
}
