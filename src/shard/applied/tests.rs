use super::*;
use crate::{
    entity::Versioned,
    storage::{MemoryStorage, Write},
};
use proptest::{collection::vec, prelude::*};

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

#[derive(Debug, Clone)]
enum TimerStep {
    /// Of this name, due then; one of the same name goes.
    Schedule(u8, u64),
    Cancel(u8),
    /// The n-th that there is has fired.
    Fire(usize),
    Refresh,
    Checkpoint,
    /// The replica starts again.
    Open,
}

fn timer_steps() -> impl Strategy<Value = Vec<TimerStep>> {
    let step = prop_oneof![
        5 => (0..20_u8, 0..30_u64).prop_map(|(name, at_ms)| TimerStep::Schedule(name, at_ms)),
        1 => (0..20_u8).prop_map(TimerStep::Cancel),
        4 => (0..20_usize).prop_map(TimerStep::Fire),
        1 => Just(TimerStep::Refresh),
        1 => Just(TimerStep::Checkpoint),
        1 => Just(TimerStep::Open),
    ];
    vec(step, 0..120)
}

/// Beside a plain map, by due time and number.
fn timers_follow(steps: Vec<TimerStep>) {
    let mut state = state();
    let mut model: BTreeMap<(u64, u64), String> = BTreeMap::new();
    let schedule = |state: &mut AppliedState, effect| state.add_effect(&entity(), effect, 0).expect("applies");
    for step in steps {
        match step {
            TimerStep::Schedule(name, at_ms) => {
                let (name, command) = (format!("t{name}"), Versioned { version: 1, bytes: Vec::new() });
                schedule(&mut state, Effect::Schedule { name: name.clone(), at_ms, command });
                model.retain(|_, known| *known != name);
                model.insert((at_ms, state.meta.next_timer), name);
            }
            TimerStep::Cancel(name) => {
                let name = format!("t{name}");
                model.retain(|_, known| *known != name);
                schedule(&mut state, Effect::CancelSchedule { name });
            }
            TimerStep::Fire(nth) => {
                if let Some((at_ms, number)) = model.keys().nth(nth).copied() {
                    state.take_cause(&Cause::Timer { at_ms, number }, 0).expect("applies");
                    model.remove(&(at_ms, number));
                }
            }
            TimerStep::Refresh => {
                state.refresh_next_timer().expect("readable");
                let first = model.keys().next().copied();
                assert_eq!(state.next_timer_at_ms(), first.map(|(at_ms, _)| at_ms));
                assert_eq!(state.next_timer, first, "what has fired is not looked through again");
            }
            TimerStep::Checkpoint => checkpoint(&mut state),
            TimerStep::Open => {
                checkpoint(&mut state);
                let (storage, registry) = (state.overlay.storage().clone(), state.registry.clone());
                state = AppliedState::open(storage, GroupId(3), registry).expect("opens");
            }
        }
        let first = model.keys().next().map(|(at_ms, _)| *at_ms);
        assert!(first.is_none_or(|first| state.next_timer_at_ms().is_some_and(|next| next <= first)), "never too late");
        for (now_ms, limit) in [(0, 1), (15, 3), (100, 100)] {
            let due = state.due_timers(now_ms, limit).expect("readable");
            let due: Vec<_> = due.into_iter().map(|(at_ms, number, timer)| ((at_ms, number), timer.name)).collect();
            let expected = model.range(..=(now_ms, u64::MAX)).take(limit).map(|(place, name)| (*place, name.clone()));
            assert_eq!(due, expected.collect::<Vec<_>>());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_timers_that_are_due_do_not_depend_on_which_have_fired_before(steps in timer_steps()) {
        timers_follow(steps);
    }
}
