//! It can fail: a build that breaks one promise is caught by the checker of that promise.
//!
//! ```text
//! cargo test --features sabotage --test sabotage
//! ```

use serde_json::Value;
use std::{fs, path::Path, process::Command};

/// A run of `quorate chaos` on nodes that break a promise: its exit code, and what was violated.
fn chaos(broken: Option<&str>, faults: &str) -> (Option<i32>, Vec<String>) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
    command.args(["chaos", "--duration", "20s", "--seed", "7", "--clients", "12", "--faults", faults, "--report"]);
    command.arg(dir.path()).env_remove("QUORATE_SABOTAGE");
    if let Some(broken) = broken {
        command.env("QUORATE_SABOTAGE", broken);
    }
    let output = command.output().expect("it runs");
    let violated = violated(&dir.path().join("report.json"));
    (output.status.code(), violated)
}

fn violated(report: &Path) -> Vec<String> {
    let report: Value = serde_json::from_slice(&fs::read(report).expect("a report")).expect("JSON");
    let verdicts = report["verdicts"].as_array().expect("verdicts").iter();
    let wrong = verdicts.filter(|verdict| verdict["violations"].as_array().is_some_and(|found| !found.is_empty()));
    wrong.filter_map(|verdict| Some(verdict["invariant"].as_str()?.to_owned())).collect()
}

#[test]
fn each_broken_promise_is_found_by_its_checker_and_a_kept_one_is_not() {
    // One after the other: two cores carry one cluster.
    assert_eq!(
        chaos(None, "kill,partition"),
        (Some(0), Vec::new()),
        "this build keeps its promises unless it is asked not to"
    );
    for (broken, faults, checker) in
        [("double-charge", "kill", "one-charge-per-order"), ("skip-dedup", "kill", "idempotent-replies-identical")]
    {
        let (code, violated) = chaos(Some(broken), faults);
        assert_eq!(code, Some(1), "{broken}");
        assert!(
            violated.iter().any(|name| name == checker),
            "{broken} was to be found by {checker}, not by {violated:?}"
        );
    }
}
