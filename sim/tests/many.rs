//! Worlds that take more than they may fail like any other, and say how to be seen again.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

fn simulate(arguments: &[&str]) -> (Output, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_sim")).args(arguments).output().expect("the simulation runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    (output, said)
}

#[test]
fn worlds_that_take_too_long_fail_in_the_order_of_their_seeds() {
    let (output, said) = simulate(&["--first", "5", "--seeds", "3", "--jobs", "3", "--wall-max", "0"]);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let told: Vec<&str> = said.lines().filter(|line| line.contains("FAILED") || line.contains("repeat")).collect();
    assert_eq!(told.len(), 6, "{said}");
    for (i, seed) in [5, 6, 7].into_iter().enumerate() {
        assert!(told[2 * i].starts_with(&format!("seed {seed} FAILED")), "{said}");
        assert!(told[2 * i + 1].contains(&format!("cargo run -p sim -- --seed {seed} --minutes 10 ")), "{said}");
    }
    assert!(said.contains("violation: TOO SLOW: no end after 0 s") && said.contains("3 worlds"), "{said}");
}

#[test]
fn a_world_without_memory_fails_and_takes_nothing_else_along() {
    let (output, said) = simulate(&["--seeds", "2", "--jobs", "1", "--memory-max", "250MB"]);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("memory allocation of") && said.contains("2 worlds of 10 minutes, 2 failed"), "{said}");
}

#[test]
fn an_expected_violation_ends_the_run_and_a_run_without_one_is_a_failure() {
    let (output, said) = simulate(&["--seeds", "500", "--jobs", "1", "--wall-max", "0", "--expect-violation"]);
    assert_eq!((output.status.code(), said.matches("FAILED").count()), (Some(0), 1), "{said}");
    let (output, said) = simulate(&["--seeds", "1", "--minutes", "1", "--expect-violation"]);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("error: a violation was expected"), "{said}");
}

#[test]
fn a_world_that_is_given_up_has_left_its_trace() {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("given-up.trace");
    let name = file.to_str().expect("a path of letters");
    let (output, said) = simulate(&["--seed", "5", "--wall-max", "0", "--trace", name]);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let trace = fs::read_to_string(&file).expect("a trace");
    assert!(trace.len() > 10_000 && trace.ends_with('\n'), "{} bytes; {said}", trace.len());
}

#[test]
fn a_build_for_use_cannot_be_sabotaged() {
    if cfg!(feature = "sabotage") {
        return;
    }
    let mut simulation = Command::new(env!("CARGO_BIN_EXE_sim"));
    let output = simulation.env("QUORATE_SABOTAGE", "skip-dedup").output().expect("the simulation runs");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("keeps its promises"));
}
