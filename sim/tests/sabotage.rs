//! It can fail: of worlds in which the cluster breaks a promise, one shows it.
//!
//! ```text
//! cargo test --features sabotage --test sabotage
//! ```

use quorate::sabotage::{Sabotage, VARIABLE};
use std::process::Command;

/// Found within so many worlds of ten minutes; docs/guarantees.md has the seed that did.
const WORLDS: &str = "60";

/// The disks of a simulated world are not the journal's files, which are what this one lies about:
/// the chaos runner finds it.
const NOT_SIMULATED: [&str; 1] = ["skip-fsync"];

/// Whether the simulation was content, and what it said.
fn simulate(broken: Option<Sabotage>, arguments: &[&str]) -> (bool, String) {
    let mut simulation = Command::new(env!("CARGO_BIN_EXE_sim"));
    simulation.args(arguments).env_remove(VARIABLE);
    if let Some(broken) = broken {
        simulation.env(VARIABLE, broken.name());
    }
    let output = simulation.output().expect("the simulation runs");
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn each_broken_promise_is_found_and_a_kept_one_is_not() {
    let (fine, said) = simulate(None, &["--seeds", "2", "--minutes", "3"]);
    assert!(fine, "this build keeps its promises unless it is asked not to; {said}");
    for broken in Sabotage::ALL.into_iter().filter(|broken| !NOT_SIMULATED.contains(&broken.name())) {
        let (found, said) = simulate(Some(broken), &["--seeds", WORLDS, "--expect-violation"]);
        assert!(found, "{broken} was not found; {said}");
        assert!(said.contains(&format!("{VARIABLE}={broken} cargo run")), "how to see it again; {said}");
        println!("{broken}:\n{}", said.lines().filter(|line| !line.contains("took")).collect::<Vec<_>>().join("\n"));
    }
}
