use super::*;
use crate::{
    entity::Versioned,
    storage::{MemoryStorage, Write},
};

fn state() -> AppliedState {
    let storage = Arc::new(MemoryStorage::new());
    AppliedState::open(storage, GroupId(3), Arc::new(Registry::default())).expect("an empty shard opens")
}

/// Writes what has changed, and keeps nothing in memory that is written.
pub fn checkpoint(state: &mut AppliedState) {
    state.prepare_checkpoint(u64::MAX).expect("encodes");
    let changes = state.overlay.begin_flush();
    futures::executor::block_on(state.overlay.storage().clone().write(Write::State(changes))).expect("written");
    state.overlay.flushed();
    state.shrink_cache(0);
}

fn entity() -> EntityKey {
    EntityKey::new("guest", "ada").expect("a valid id")
}

fn answer(key: &str, expires_at_ms: u64) -> KeyedAnswer {
    KeyedAnswer { idempotency_key: key.into(), fingerprint: [1; 16], reply: vec![7], version: 0, expires_at_ms }
}

fn reject(state: &mut AppliedState, base_version: u64, key: &str) -> Outcome {
    let answer = answer(key, 100);
    state.apply(Item::Rejected { key: entity(), base_version, answer }).expect("applies")
}

#[test]
fn answers_are_forgotten_a_bounded_number_at_a_time_and_none_before_its_time() {
    let mut state = state();
    for n in 0..10_u64 {
        let answer = answer(&format!("k{n}"), 100 + n);
        assert_eq!(
            state.apply(Item::Rejected { key: entity(), base_version: 0, answer }).expect("applies"),
            Outcome::Changed { version: 0 }
        );
    }
    let left = |state: &AppliedState| {
        let rows = |first, end| state.overlay.scan(first, end, 100).expect("readable").len();
        (rows(b"i".as_slice(), b"j".as_slice()), rows(b"x", b"y"))
    };
    let mut forget = |before_ms, limit| {
        state.apply(Item::ForgetKeys { before_ms, limit }).expect("applies");
        (left(&state), state.has_expired_answers(before_ms).expect("readable"))
    };
    assert_eq!(forget(100, 4), ((10, 10), false), "at its time it is still kept");
    assert_eq!(forget(107, 4), ((6, 6), true), "four and no more");
    assert_eq!(forget(107, 4), ((3, 3), false));
    assert_eq!(forget(u64::MAX, 4), ((0, 0), false));
}

#[test]
fn a_rejection_is_kept_once_and_only_at_the_version_that_it_was_decided_on() {
    let mut state = state();
    assert_eq!(reject(&mut state, 1, "early"), Outcome::Refused { actual: 0 });
    assert!(state.answer(&entity(), "early").expect("readable").is_none());
    assert_eq!(reject(&mut state, 0, "k"), Outcome::Changed { version: 0 });
    assert_eq!(reject(&mut state, 0, "k"), Outcome::Duplicate);
    let kept = state.answer(&entity(), "k").expect("readable").expect("kept");
    assert_eq!((kept.answer, kept.rejected), (answer("k", 100), true));
    let (key, cause) = (entity(), Cause::Client);
    let events = vec![Versioned { version: 1, bytes: Vec::new() }];
    let change =
        Change { key, base_version: 0, at_ms: 1, events, effects: Vec::new(), cause, answer: Some(answer("k", 9)) };
    assert_eq!(state.apply(Item::Change(change)).expect("applies"), Outcome::Duplicate, "it never takes effect");
}
