//! What the executables share.

use quorate::fuzzing::Target;
use std::{env, fs, path::PathBuf};

/// Where the first inputs are to be written, if at all.
const SEEDS: &str = "QUORATE_FUZZ_SEEDS";

/// Before the first input: writes those that the target itself knows, if it is asked to.
///
/// # Panics
/// If they cannot be written.
pub fn begin(target: Target) {
    let Some(dir) = env::var_os(SEEDS).map(PathBuf::from) else { return };
    fs::create_dir_all(&dir).expect("the directory of the seeds");
    for (number, seed) in (target.seeds)().into_iter().enumerate() {
        fs::write(dir.join(format!("seed-{number:02}")), seed).expect("a seed");
    }
}
