//! Linearizability of the registers: there is one order of all operations on a register, in which
//! each takes effect at one moment between its invocation and its return, and answers what a single
//! copy would have answered.
//!
//! Registers are judged one by one, which is enough: linearizability is local (Herlihy and Wing,
//! *Linearizability: A Correctness Condition for Concurrent Objects*, TOPLAS 1990, theorem 1).
//! An operation whose outcome is unknown may take effect at any moment after its invocation, also
//! after the end of the run, or never.

#[cfg(test)]
mod brute;
mod search;

pub use search::{Effect, Op, Outcome, search};

use super::observe::Observed;
use crate::chaos::{
    history::{History, Method, Operation, Outcome as Answer},
    load::Workload,
    verdict::Verdict,
};
use std::collections::BTreeMap;

pub const INVARIANT: &str = "linearizable";

/// Judges the register operations of the run, and the reads made when it was over.
#[must_use]
pub fn judge(history: &History, seen: &Observed) -> Verdict {
    let mut verdict = Verdict::new(INVARIANT);
    let mut undecided = Vec::new();
    for (register, ops) in by_register(history.operations.iter().chain(&seen.last_reads)) {
        match search(&ops) {
            Outcome::Linearizable => verdict.checked += ops.len() as u64,
            Outcome::Undecided => undecided.push(register),
            Outcome::Violated { placed, blocked, state } => {
                verdict.checked += ops.len() as u64;
                let answered = ops.iter().filter(|op| op.returned_us.is_some()).count();
                let detail = format!(
                    "{register}: no order of its operations explains the answers: after {placed} of {answered}, at \
                     version {} with {}, none of the next ones fits",
                    state.version, state.on_hand
                );
                verdict.violated(detail, blocked);
            }
        }
    }
    if !undecided.is_empty() {
        let registers = undecided.join(", ");
        verdict.skipped = Some(format!("{registers}: too many unknown outcomes to be decided"));
    }
    verdict
}

fn by_register<'a>(operations: impl Iterator<Item = &'a Operation>) -> BTreeMap<&'a str, Vec<Op>> {
    let mut registers: BTreeMap<&str, Vec<Op>> = BTreeMap::new();
    for operation in operations.filter(|operation| operation.workload == Workload::Register) {
        registers.entry(&operation.request.path).or_default().extend(op(operation));
    }
    registers
}

/// What an operation tells of its register; nothing if it certainly did nothing and saw nothing.
fn op(operation: &Operation) -> Option<Op> {
    let written = || operation.request.body.value()["on_hand"].as_u64();
    let if_version = operation.request.if_match;
    let (effect, returned_us) = match (&operation.outcome, operation.request.method) {
        (Answer::Answered { status: 200, body, .. }, method) => {
            let body = body.value();
            let (version, on_hand) = (body["version"].as_u64()?, body["on_hand"].as_u64()?);
            let effect = match method {
                Method::Get => Effect::Read { version, on_hand },
                _ => Effect::Written { version, on_hand, if_version },
            };
            (effect, Some(operation.returned_us))
        }
        (Answer::Answered { status: 404, .. }, Method::Get) => {
            (Effect::Read { version: 0, on_hand: 0 }, Some(operation.returned_us))
        }
        (Answer::Answered { status: 412, body, .. }, _) => (
            Effect::Mismatch { version: body.value()["version"].as_u64()?, if_version: if_version? },
            Some(operation.returned_us),
        ),
        (Answer::Unknown { .. }, Method::Put) => (Effect::Maybe { on_hand: written()?, if_version }, None),
        _ => return None,
    };
    Some(Op { id: operation.id, invoked_us: operation.invoked_us, returned_us, effect })
}

#[cfg(test)]
mod tests;
