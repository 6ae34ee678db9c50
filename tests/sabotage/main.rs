//! It can fail: a build that breaks one promise is caught by the checker of that promise, and one
//! that is not told to break any is not.
//!
//! ```text
//! cargo test --features sabotage --test sabotage
//! ```
//!
//! Each test is a run of `quorate chaos` by a plan in `plans/`, one at a time: two cores carry one
//! cluster. docs/decisions/0034-sabotage.md says how often which run of them is caught.

mod runner;

use runner::Run;

/// Runs chaos on nodes that break `promise`: `checker` must be among those that see it.
fn assert_caught(promise: &str, checker: &str) {
    let run = Run::of(Some(promise));
    let violated = run.violated();
    assert_eq!(run.code, Some(1), "{}", run.output);
    assert!(
        violated.iter().any(|name| name == checker),
        "{promise} was to be found by {checker}, not by {violated:?}:\n{}",
        run.output
    );
    assert_eq!(run.report["sabotage"], promise);
    assert!(run.output.contains("SABOTAGE") && run.output.contains(promise), "{}", run.output);
    let log = run.log_of_a_node();
    let warned = log.lines().any(|line| line.contains("WARN") && line.contains("SABOTAGE") && line.contains(promise));
    assert!(warned, "a node's log does not say what it breaks:\n{log}");
}

#[test]
fn acknowledging_before_the_quorum_is_caught() {
    assert_caught("ack-before-quorum", "acknowledged-writes-kept");
}

#[test]
fn a_disk_that_lies_about_its_syncs_is_caught() {
    assert_caught("skip-fsync", "acknowledged-writes-kept");
}

#[test]
fn changes_that_count_whatever_they_were_decided_on_are_caught() {
    assert_caught("skip-gapless", "linearizable");
}

#[test]
fn keys_that_are_forgotten_are_caught() {
    assert_caught("skip-dedup", "idempotent-replies-identical");
}

#[test]
fn reads_from_a_deposed_owner_are_caught() {
    assert_caught("stale-reads", "linearizable");
}

#[test]
fn charging_twice_is_caught() {
    assert_caught("double-charge", "one-charge-per-order");
}

#[test]
fn a_build_that_is_not_told_to_break_anything_keeps_every_promise() {
    let run = Run::of(None);
    assert_eq!((run.code, run.violated()), (Some(0), Vec::new()), "{}", run.output);
    assert!(run.report["sabotage"].is_null() && !run.output.contains("SABOTAGE"), "{}", run.output);
}

#[test]
fn the_build_says_what_it_is_and_what_it_can_break() {
    let said = runner::quorate(&["--version"], None);
    assert!(said.contains("sabotage") && said.contains("never for use"), "{said}");
    let said = runner::quorate(&["chaos"], Some("everything"));
    for promise in
        ["ack-before-quorum", "skip-fsync", "skip-gapless", "skip-dedup", "stale-reads", "double-charge", "everything"]
    {
        assert!(said.contains(promise), "{promise} is missing: {said}");
    }
}
