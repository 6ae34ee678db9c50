//! What the fuzzers in fuzz/ run: one function per target, which takes any bytes and panics when
//! something is wrong. In builds for use this module does not exist.
//!
//! ```text
//! fuzz/fuzz_targets/<name>.rs ─▶ fuzzing::<name>(bytes) ─▶ <module>::fuzzing: the code under test
//! fuzz/corpus/<name>/*  ─▶ `every_kept_input_is_taken` (cargo test)  ─┘
//! ```
//!
//! Each target is beside the code that it reaches into. None keeps anything from one input to the
//! next that an input could depend on, so that an input alone repeats what it found.

mod input;
mod messages;

pub(crate) use input::Input;

pub use crate::{ingress::fuzzing::http, membership::fuzzing::gossip, storage::fuzzing::journal, transport::fuzzing::frames};
pub use messages::messages;

/// A target, by the name of its executable and of its directory in fuzz/corpus.
pub type Target = (&'static str, fn(&[u8]));

pub const TARGETS: [Target; 5] =
    [("journal", journal), ("frames", frames), ("gossip", gossip), ("messages", messages), ("http", http)];

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        collections::BTreeSet,
        fs,
        path::{Path, PathBuf},
    };

    fn below(dir: &str) -> Vec<PathBuf> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(dir);
        let items = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
        let mut paths: Vec<PathBuf> = items.map(|item| item.unwrap().path()).collect();
        paths.sort();
        paths
    }

    fn replay(target: Target) {
        let (name, run) = target;
        let kept = below(&format!("corpus/{name}"));
        assert!(kept.len() >= 5, "fuzz/corpus/{name} has but {} inputs", kept.len());
        for path in kept {
            let bytes = fs::read(&path).unwrap();
            let outcome = std::panic::catch_unwind(|| run(&bytes));
            assert!(outcome.is_ok(), "{} is not taken; repeat: cd fuzz && ./run {name} {}", path.display(), path.display());
        }
    }

    /// Where a fuzzer once found something wrong, it stays right.
    #[test]
    fn every_kept_input_of_journal_is_taken() {
        replay(TARGETS[0]);
    }

    #[test]
    fn every_kept_input_of_frames_is_taken() {
        replay(TARGETS[1]);
    }

    #[test]
    fn every_kept_input_of_gossip_is_taken() {
        replay(TARGETS[2]);
    }

    #[test]
    fn every_kept_input_of_messages_is_taken() {
        replay(TARGETS[3]);
    }

    #[test]
    fn every_kept_input_of_http_is_taken() {
        replay(TARGETS[4]);
    }

    /// An executable or a directory of inputs that no target has would be dead weight, and a target
    /// without them would never run.
    #[test]
    fn every_target_has_an_executable_and_inputs_and_nothing_else_has() {
        let named = |dir: &str| -> BTreeSet<String> {
            let stem = |path: &PathBuf| path.file_stem().unwrap().to_string_lossy().into_owned();
            below(dir).iter().map(stem).collect()
        };
        let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(named("fuzz_targets"), targets);
        assert_eq!(named("corpus"), targets);
    }
}
