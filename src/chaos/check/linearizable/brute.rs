//! Every order, one after the other: slow, and too simple to be wrong. For the tests.

use super::search::{Op, Register};

/// Whether some order explains the answers.
pub fn is_linearizable(ops: &[Op]) -> bool {
    place(ops, &mut vec![false; ops.len()], Register::default())
}

fn place(ops: &[Op], placed: &mut Vec<bool>, state: Register) -> bool {
    let answers_left = (0..ops.len()).any(|at| !placed[at] && ops[at].returned_us.is_some());
    if !answers_left {
        return true;
    }
    for at in 0..ops.len() {
        let precedes = |other: &Op| other.returned_us.is_some_and(|returned| returned < ops[at].invoked_us);
        let too_early = (0..ops.len()).any(|other| !placed[other] && precedes(&ops[other]));
        if placed[at] || too_early {
            continue;
        }
        let Some(after) = ops[at].effect.apply(state) else { continue };
        placed[at] = true;
        if place(ops, placed, after) {
            return true;
        }
        placed[at] = false;
    }
    false
}
