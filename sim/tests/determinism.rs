//! One seed is one world: run twice, it leaves the same bytes.

use std::{fs, path::PathBuf, process::Command};

const MINUTES: &str = "1";

/// The trace of a world, and whether nothing was wrong in it.
fn trace(seed: u64, name: &str) -> (Vec<u8>, bool) {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{seed}.trace"));
    let mut simulation = Command::new(env!("CARGO_BIN_EXE_sim"));
    simulation.args(["--seed", &seed.to_string(), "--minutes", MINUTES, "--trace"]).arg(&file);
    let output = simulation.output().expect("the simulation runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let trace = fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}; {said}", file.display()));
    assert!(trace.len() > 100_000, "a world is full of events; {said}");
    (trace, output.status.success())
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_seed_gives_others() {
    let mut different = Vec::new();
    for seed in [5, 11] {
        let (first, fine) = trace(seed, "first");
        let (second, _) = trace(seed, "second");
        assert!(fine, "something was wrong in world {seed}");
        let at = first.iter().zip(&second).position(|(a, b)| a != b);
        assert!(first == second, "seed {seed}: the traces differ from byte {at:?} on");
        different.push(first);
    }
    assert!(different[0] != different[1], "two seeds are two worlds");
}
