//! What the fuzzers in fuzz/ run: one function per target, which takes any bytes and panics when
//! something is wrong. Builds for use do not have this module.
//!
//! ```text
//! fuzz/fuzz_targets/<name>.rs ─▶ run(bytes) ─▶ <module>::fuzzing: the code under test
//! fuzz/corpus/<name>/* ─▶ `every_kept_input_of_<name>_is_taken` (cargo test) ─┘
//! ```
//!
//! What reaches into a module is beside it. Targets keep nothing from one input to the next, so that
//! an input alone repeats what it found; but for `http`, whose cluster serves many.

mod http;
mod input;
mod scratch;

pub(crate) use input::Input;
pub(crate) use scratch::Scratch;

use crate::{membership, replication, storage, transport};

/// One fuzzer: also the name of its executable and of its inputs' directory.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    /// The first inputs, made of what the code itself writes.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

pub const JOURNAL: Target = Target { name: "journal", run: storage::fuzzing::journal, seeds: storage::fuzzing::seeds };
pub const WIRE: Target = Target { name: "wire", run: wire, seeds: wire_seeds };
pub const GOSSIP: Target =
    Target { name: "gossip", run: membership::fuzzing::gossip, seeds: membership::fuzzing::seeds };
pub const HTTP: Target = Target { name: "http", run: http::http, seeds: http::seeds };

pub const TARGETS: [Target; 4] = [JOURNAL, WIRE, GOSSIP, HTTP];

/// In front of what is for Raft.
const RAFT: u8 = 1;

/// What comes over a node link, down to the requests for Raft groups.
fn wire(data: &[u8]) {
    match data.split_first() {
        Some((&RAFT, request)) => replication::fuzzing::raft(request),
        _ => transport::fuzzing::links(data),
    }
}

fn wire_seeds() -> Vec<Vec<u8>> {
    let requests = replication::fuzzing::seeds().into_iter().map(|request| [&[RAFT][..], &request].concat());
    transport::fuzzing::seeds().into_iter().chain(requests).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::BTreeSet, fs, path::PathBuf};

    fn paths(dir: &str) -> Vec<PathBuf> {
        let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(dir);
        let items = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
        items.map(|item| item.unwrap().path()).collect()
    }

    fn replay(target: Target) {
        let kept = paths(&format!("corpus/{}", target.name));
        assert!((5..=50).contains(&kept.len()), "fuzz/corpus/{} has {} inputs", target.name, kept.len());
        let mut bytes_kept = 0;
        for path in kept {
            let bytes = fs::read(&path).unwrap();
            bytes_kept += bytes.len();
            let outcome = std::panic::catch_unwind(|| (target.run)(&bytes));
            assert!(outcome.is_ok(), "{}", path.display());
        }
        assert!(bytes_kept <= 200 << 10, "fuzz/corpus/{} takes {bytes_kept} bytes", target.name);
        (target.seeds)().iter().for_each(|seed| (target.run)(seed));
    }

    #[test]
    fn every_kept_input_of_journal_is_taken() {
        replay(JOURNAL);
    }

    #[test]
    fn every_kept_input_of_wire_is_taken() {
        replay(WIRE);
    }

    #[test]
    fn every_kept_input_of_gossip_is_taken() {
        replay(GOSSIP);
    }

    #[test]
    fn every_kept_input_of_http_is_taken() {
        replay(HTTP);
    }

    /// An executable or a directory of inputs without a target would be dead weight, and a target
    /// without them would never run.
    #[test]
    fn every_target_has_an_executable_and_inputs_and_nothing_else_has() {
        let named = |dir: &str| -> BTreeSet<String> {
            paths(dir).iter().map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect()
        };
        let targets: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
        assert_eq!(named("fuzz_targets"), targets);
        assert_eq!(named("corpus"), targets);
    }
}
