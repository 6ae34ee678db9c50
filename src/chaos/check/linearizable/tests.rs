use super::{brute, search::Register, *};
use crate::chaos::check::testing::{answered, unknown};
use proptest::prelude::*;
use serde_json::json;

fn op(id: u64, invoked_us: u64, returned_us: u64, effect: Effect) -> Op {
    Op { id, invoked_us, returned_us: Some(returned_us), effect }
}

fn read(version: u64, on_hand: u64) -> Effect {
    Effect::Read { version, on_hand }
}

fn written(version: u64, on_hand: u64) -> Effect {
    Effect::Written { version, on_hand, if_version: None }
}

fn maybe(id: u64, invoked_us: u64, on_hand: u64) -> Op {
    Op { id, invoked_us, returned_us: None, effect: Effect::Maybe { on_hand, if_version: None } }
}

fn blocked(ops: &[Op]) -> Vec<u64> {
    assert!(!brute::is_linearizable(ops), "some order explains {ops:?}");
    match search(ops) {
        Outcome::Violated { mut blocked, .. } => {
            blocked.sort_unstable();
            blocked
        }
        other => panic!("{other:?} for {ops:?}"),
    }
}

#[track_caller]
fn good(ops: &[Op]) {
    assert!(brute::is_linearizable(ops), "no order explains {ops:?}");
    assert_eq!(search(ops), Outcome::Linearizable);
}

#[test]
fn what_follows_one_another_is_read_as_it_was_written() {
    good(&[]);
    good(&[op(0, 0, 1, read(0, 0)), op(1, 2, 3, written(1, 7)), op(2, 4, 5, read(1, 7))]);
}

#[test]
fn a_read_beside_a_write_sees_it_or_not() {
    let write = op(0, 0, 10, written(1, 7));
    good(&[write.clone(), op(1, 2, 3, read(0, 0))]);
    good(&[write.clone(), op(1, 2, 3, read(1, 7))]);
    good(&[write.clone(), op(1, 2, 3, read(0, 0)), op(2, 4, 5, read(1, 7))]);
    // But not first the new value and then the old one.
    assert_eq!(blocked(&[write, op(1, 2, 3, read(1, 7)), op(2, 4, 5, read(0, 0))]), [2]);
}

#[test]
fn a_stale_read_is_noticed() {
    assert_eq!(blocked(&[op(0, 0, 1, written(1, 7)), op(1, 2, 3, read(0, 0))]), [1]);
    let behind = [op(0, 0, 1, written(1, 7)), op(1, 2, 3, written(2, 8)), op(2, 4, 5, read(1, 7))];
    assert_eq!(blocked(&behind), [2]);
}

#[test]
fn a_lost_write_is_noticed() {
    let lost = [op(0, 0, 1, written(1, 7)), op(1, 2, 3, written(2, 8)), op(2, 4, 5, written(2, 9))];
    assert_eq!(blocked(&lost), [2]);
}

#[test]
fn two_owners_that_both_write_are_noticed() {
    let split = [op(0, 0, 5, written(1, 7)), op(1, 0, 5, written(1, 8)), op(2, 6, 7, read(1, 7))];
    assert_eq!(blocked(&split), [1]);
}

#[test]
fn a_value_that_nobody_wrote_is_noticed() {
    assert_eq!(blocked(&[op(0, 0, 1, read(1, 7))]), [0]);
}

#[test]
fn a_write_of_unknown_outcome_may_take_effect_now_later_or_never() {
    let unknown = maybe(0, 0, 7);
    good(&[unknown.clone(), op(1, 1, 2, read(0, 0))]);
    good(&[unknown.clone(), op(1, 1, 2, read(1, 7))]);
    good(&[unknown.clone(), op(1, 1, 2, read(0, 0)), op(2, 3, 4, read(1, 7))]);
    // Nobody saw it, but somebody counted it.
    good(&[unknown.clone(), op(1, 1, 2, written(2, 8))]);
    // Not before it was sent, and not twice.
    assert_eq!(blocked(&[op(1, 0, 1, read(1, 7)), maybe(0, 2, 7)]), [1]);
    let twice = [unknown, op(1, 1, 2, read(1, 7)), op(2, 3, 4, written(2, 8)), op(3, 5, 6, read(3, 7))];
    assert_eq!(blocked(&twice), [3]);
}

#[test]
fn the_right_one_of_several_unknown_writes_is_found() {
    let mut ops: Vec<Op> = (0..12).map(|id| maybe(id, id, 100 + id)).collect();
    ops.push(op(20, 30, 31, written(3, 7)));
    ops.push(op(21, 32, 33, read(4, 105)));
    assert_eq!(search(&ops), Outcome::Linearizable);
    ops.push(op(22, 34, 35, read(4, 106)));
    assert!(matches!(search(&ops), Outcome::Violated { .. }));
}

#[test]
fn a_conditional_write_takes_effect_at_its_version_only() {
    let conditional = |id, at, version, on_hand, if_version| {
        op(id, at, at + 1, Effect::Written { version, on_hand, if_version: Some(if_version) })
    };
    let refused = |id, at, version, if_version| op(id, at, at + 1, Effect::Mismatch { version, if_version });
    good(&[op(0, 0, 1, written(1, 7)), conditional(1, 2, 2, 8, 1), refused(2, 4, 2, 1)]);
    assert_eq!(blocked(&[op(0, 0, 1, written(1, 7)), op(1, 2, 3, written(2, 8)), conditional(2, 4, 3, 9, 1)]), [2]);
    assert_eq!(blocked(&[op(0, 0, 1, written(1, 7)), refused(1, 2, 1, 1)]), [1]);
    let unknown =
        Op { id: 1, invoked_us: 2, returned_us: None, effect: Effect::Maybe { on_hand: 8, if_version: Some(1) } };
    good(&[op(0, 0, 1, written(1, 7)), unknown.clone(), op(2, 4, 5, read(2, 8))]);
    assert_eq!(
        blocked(&[op(0, 0, 1, written(1, 7)), op(3, 2, 3, written(2, 9)), unknown, op(2, 4, 5, read(3, 8))]),
        [2]
    );
}

#[test]
fn a_long_run_with_many_unknown_writes_is_decided() {
    let (mut ops, mut version) = (Vec::new(), 0);
    for round in 0..5000_u64 {
        let at = round * 10;
        if round % 25 == 0 {
            // Each second one took effect, and nobody ever saw it.
            ops.push(maybe(3 * round, at, 3 * round));
            version += round / 25 % 2;
        }
        version += 1;
        ops.push(op(3 * round + 1, at + 1, at + 4, written(version, round)));
        ops.push(op(3 * round + 2, at + 2, at + 6, read(version, round)));
    }
    assert_eq!(search(&ops), Outcome::Linearizable);
}

/// Conditional writes of which somebody saw the value, but not when: each might have been any step.
#[test]
fn what_would_take_too_long_is_not_decided() {
    let conditional = |id: u64| {
        let effect = Effect::Maybe { on_hand: id, if_version: Some(id % 20) };
        Op { id, invoked_us: 0, returned_us: None, effect }
    };
    let mut ops: Vec<Op> = (0..100).map(conditional).collect();
    ops.push(op(100, 1, 2, read(19, 1000)));
    assert_eq!(search(&ops), Outcome::Undecided);
}

#[test]
fn the_history_becomes_one_register_per_path() {
    let put = |id, path, on_hand, version| {
        let mut put = answered(id, Method::Put, path, 200, json!({"on_hand": on_hand, "version": version}));
        put.request.body = (&json!({"on_hand": on_hand})).into();
        put.workload = Workload::Register;
        put
    };
    let mut lost = unknown(2, Method::Put, "/v1/inventory/a", json!({"on_hand": 9}));
    lost.workload = Workload::Register;
    let mut history = History {
        operations: vec![put(0, "/v1/inventory/a", 7, 1), put(1, "/v1/inventory/b", 8, 1), lost],
        ..History::default()
    };
    let mut seen = Observed::default();
    let last = |id, on_hand, version| {
        let mut last =
            answered(id, Method::Get, "/v1/inventory/a", 200, json!({"on_hand": on_hand, "version": version}));
        last.workload = Workload::Register;
        last
    };
    seen.last_reads = vec![last(3, 9, 2)];
    let verdict = judge(&history, &seen);
    assert!(verdict.holds() && verdict.checked == 4, "{verdict:?}");
    // The acknowledged value is gone when all is over.
    history.operations.pop();
    seen.last_reads = vec![last(3, 0, 0)];
    let verdict = judge(&history, &seen);
    assert_eq!(verdict.violations[0].operations, [3], "{verdict:?}");
}

/// What a client asks, and how long it waits for it.
#[derive(Debug, Clone)]
struct Asked {
    invoked_us: u64,
    takes_us: u64,
    /// When it takes effect, in parts of the time it takes.
    effect_at: u64,
    value: u64,
    kind: u8,
    if_version: Option<u64>,
}

fn asked() -> impl Strategy<Value = Asked> {
    (0..40_u64, 1..20_u64, 0..=10_u64, 1..4_u64, 0..6_u8, proptest::option::of(0..3_u64)).prop_map(
        |(invoked_us, takes_us, effect_at, value, kind, if_version)| Asked {
            invoked_us,
            takes_us,
            effect_at,
            value,
            kind,
            if_version,
        },
    )
}

/// Answers of a real register, each at its moment. Times are even, so that none is a tie with an
/// effect; kind 5 loses its answer, kind 4 is lost before it takes effect.
fn answers(asked: &[Asked]) -> Vec<Op> {
    let mut order: Vec<usize> = (0..asked.len()).collect();
    order.sort_by_key(|at| asked[*at].invoked_us * 10 + asked[*at].takes_us * asked[*at].effect_at);
    let (mut state, mut ops) = (Register::default(), Vec::new());
    for at in order {
        let Asked { invoked_us, takes_us, value, kind, if_version, .. } = asked[at];
        let write = Effect::Maybe { on_hand: value, if_version };
        let (effect, answered) = match (kind, write.apply(state)) {
            (0 | 1, _) => (Effect::Read { version: state.version, on_hand: state.on_hand }, true),
            (4, _) => (write, false),
            (5, after) => {
                state = after.unwrap_or(state);
                (write, false)
            }
            (_, Some(after)) => {
                state = after;
                (Effect::Written { version: after.version, on_hand: after.on_hand, if_version }, true)
            }
            (_, None) => {
                (Effect::Mismatch { version: state.version, if_version: if_version.unwrap_or_default() }, true)
            }
        };
        let returned_us = answered.then_some(invoked_us + takes_us);
        ops.push(Op { id: at as u64, invoked_us, returned_us, effect });
    }
    ops
}

/// Another answer to one operation.
fn falsify(op: &mut Op, by: u64) {
    match &mut op.effect {
        Effect::Read { version, on_hand } | Effect::Written { version, on_hand, .. } => {
            if by.is_multiple_of(2) {
                *version = (*version + by / 2) % 5;
            } else {
                *on_hand = (*on_hand + by) % 4;
            }
        }
        Effect::Mismatch { version, .. } => *version = (*version + by) % 5,
        Effect::Maybe { on_hand, .. } => *on_hand = (*on_hand + by) % 4,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn what_a_register_answers_is_linearizable(asked in proptest::collection::vec(asked(), 0..40)) {
        prop_assert_eq!(search(&answers(&asked)), Outcome::Linearizable);
    }

    #[test]
    fn it_agrees_with_trying_every_order(
        asked in proptest::collection::vec(asked(), 1..8),
        lies in proptest::collection::vec((any::<proptest::sample::Index>(), 1..6_u64), 0..3),
    ) {
        let mut ops = answers(&asked);
        for (which, by) in lies {
            let at = which.index(ops.len());
            falsify(&mut ops[at], by);
        }
        let found = search(&ops) == Outcome::Linearizable;
        prop_assert_eq!(found, brute::is_linearizable(&ops), "{:?}", ops);
    }
}
