use super::*;
use crate::{
    entity::{Effect, Task, TimedTask, Versioned},
    shard::{
        Registry,
        applied::QueuedTask,
        entry::{Change, Item, Outcome},
        request::Cause,
    },
    storage::{GroupId, MemoryStorage},
};
use std::sync::Arc;

fn entity() -> EntityKey {
    EntityKey::new("guest", "ada").expect("a valid id")
}

fn state() -> AppliedState {
    let storage = Arc::new(MemoryStorage::new());
    AppliedState::open(storage, GroupId(3), Arc::new(Registry::default())).expect("an empty shard opens")
}

fn apply(state: &mut AppliedState, item: Item) {
    let outcome = state.apply(item).expect("applies");
    assert!(matches!(outcome, Outcome::Done | Outcome::Changed { .. }), "{outcome:?}");
}

/// An effect as an entity asks for it at `at_ms`.
fn ask_for(state: &mut AppliedState, effect: impl Into<Effect>, at_ms: u64) -> u64 {
    let (key, cause, effects) = (entity(), Cause::Client, vec![effect.into()]);
    apply(
        state,
        Item::Change(Change { key, base_version: 0, at_ms, events: Vec::new(), effects, cause, answer: None }),
    );
    state.meta.next_effect
}

fn queued(state: &AppliedState, number: u64) -> &QueuedTask {
    match &state.outbox[&number].delivery {
        Delivery::Queued(task) => task,
        other => panic!("not a task: {other:?}"),
    }
}

fn give_up(state: &mut AppliedState, number: u64, at_ms: u64) {
    apply(state, Item::GiveUp { number, at_ms, error: "no".into() });
}

fn retry(state: &mut AppliedState, number: u64, at_ms: u64) {
    apply(state, Item::RetryDeadLetter { number, at_ms, answer: None });
}

#[test]
fn what_is_given_up_moves_from_the_outbox_to_the_dead_letters() {
    let mut state = state();
    let number = ask_for(&mut state, Effect::task("mail", "welcome", vec![1]), 5);
    apply(&mut state, Item::TaskFailed { number, attempts: 1, retry_at_ms: 9, error: "no".into() });
    give_up(&mut state, number, 10);
    assert!(state.outbox.is_empty());
    let letter = state.letter(number).expect("readable").expect("there");
    assert_eq!((letter.error.as_str(), letter.at_ms, &letter.outgoing.from), ("no", 10, &entity()));
    assert!(matches!(letter.outgoing.delivery, Delivery::Queued(QueuedTask { attempts: 1, .. })));
    give_up(&mut state, number, 11);
    assert_eq!(state.letters.len(), 1, "a second time changes nothing");
}

#[test]
fn a_task_whose_end_is_told_to_its_entity_leaves_a_letter_in_the_same_entry() {
    let mut state = state();
    let number = ask_for(&mut state, Effect::task("mail", "welcome", vec![1]), 5);
    let cause = Cause::Task { number, dead: Some("no".into()) };
    let (events, effects) = (Vec::new(), Vec::new());
    let told = Change { key: entity(), base_version: 0, at_ms: 8, events, effects, cause, answer: None };
    apply(&mut state, Item::Change(told));
    assert_eq!((state.outbox.len(), state.letter(number).unwrap().expect("there").at_ms), (0, 8));
}

#[test]
fn a_retried_task_begins_anew_under_a_new_number_and_its_first_ones_key() {
    let mut state = state();
    let task = TimedTask::new("mail", "welcome", vec![1]).run_at_ms(50).deadline_ms(105);
    let first = ask_for(&mut state, task, 5);
    assert_eq!(queued(&state, first).next_at_ms, 50);
    apply(&mut state, Item::TaskFailed { number: first, attempts: 3, retry_at_ms: 90, error: "no".into() });
    give_up(&mut state, first, 105);
    retry(&mut state, first, 1000);
    assert!(state.letters.is_empty() && state.letter(first).unwrap().is_none());
    let second = state.meta.next_effect;
    assert!(second > first);
    let task = queued(&state, second);
    assert_eq!((task.first_number, task.attempts, task.next_at_ms), (Some(first), 0, 0));
    assert_eq!((task.queued_at_ms, task.deadline_ms), (1000, Some(1100)), "as much time as it had");
    give_up(&mut state, second, 1100);
    retry(&mut state, second, 2000);
    assert_eq!(queued(&state, state.meta.next_effect).first_number, Some(first), "however often");
}

#[test]
fn a_retried_tell_has_a_new_number_and_a_discarded_one_is_gone() {
    let mut state = state();
    let command = Versioned { version: 1, bytes: vec![7] };
    let tell = || Effect::Tell { entity_type: "guest".into(), id: "bob".into(), command: command.clone() };
    let (first, second) = (ask_for(&mut state, tell(), 1), ask_for(&mut state, tell(), 1));
    give_up(&mut state, first, 2);
    give_up(&mut state, second, 2);
    retry(&mut state, first, 3);
    apply(&mut state, Item::DiscardDeadLetter { number: second, answer: None });
    assert_eq!(state.outbox.keys().copied().collect::<Vec<_>>(), [second + 1]);
    assert!(state.letters.is_empty());
    retry(&mut state, first, 4);
    apply(&mut state, Item::DiscardDeadLetter { number: first, answer: None });
    assert_eq!(state.outbox.len(), 1, "what is gone is neither retried nor discarded again");
}

#[test]
fn the_answer_to_a_request_is_kept_with_what_it_did_and_only_then() {
    let mut state = state();
    let number = ask_for(&mut state, Effect::task("mail", "t", vec![1]), 1);
    give_up(&mut state, number, 2);
    let answer = |key: &str| KeyedAnswer {
        idempotency_key: key.into(),
        fingerprint: [1; 16],
        reply: Vec::new(),
        version: 0,
        expires_at_ms: 100,
    };
    apply(&mut state, Item::DiscardDeadLetter { number, answer: Some(answer("k1")) });
    apply(&mut state, Item::DiscardDeadLetter { number, answer: Some(answer("k2")) });
    let kept_at = EffectId { shard: ShardId(3), number }.answers_at();
    let kept = state.answer(&kept_at, "k1").unwrap().expect("there");
    assert_eq!((kept.answer, kept.rejected), (answer("k1"), false));
    assert!(state.answer(&kept_at, "k2").unwrap().is_none());
}

#[test]
fn the_oldest_letter_goes_when_there_are_too_many() {
    let mut state = state();
    for _ in 0..=LETTERS_MAX {
        let number = ask_for(&mut state, Effect::task("mail", "t", Vec::<u8>::new()), 1);
        give_up(&mut state, number, 2);
    }
    assert_eq!((state.letters.len(), state.letters.first()), (LETTERS_MAX, Some(&2)));
    assert!(state.letter(1).unwrap().is_none() && state.letter(2).unwrap().is_some());
}

#[test]
fn letters_come_in_pages() {
    let mut state = state();
    for _ in 0..5 {
        let number = ask_for(&mut state, Effect::task("mail", "t", Vec::<u8>::new()), 1);
        give_up(&mut state, number, 2);
    }
    let numbers = |after, limit| {
        let page = state.letters_after(after, limit).expect("readable");
        page.into_iter().map(|(number, _)| number).collect::<Vec<_>>()
    };
    assert_eq!((numbers(0, 2), numbers(2, 2), numbers(4, 2)), (vec![1, 2], vec![3, 4], vec![5]));
}

#[test]
fn letters_and_tasks_in_the_forms_of_earlier_builds_are_read() {
    #[derive(Serialize)]
    struct OldLetter {
        outgoing: Outgoing,
        error: String,
    }
    let task = Task::new("mail", "t", vec![1]);
    let delivery = Delivery::Task { task: task.clone(), attempts: 2, retry_at_ms: 7, last_error: Some("no".into()) };
    let outgoing = Outgoing { from: entity(), delivery };
    let mut state = state();
    let old = OldLetter { outgoing: outgoing.clone(), error: "no".into() };
    state.overlay.put(keys::dead_letter(9), encode(&old).expect("encodes"));
    state.load_letters().expect("loads");
    let letter = state.letter(9).expect("readable").expect("there");
    assert_eq!((letter.error.as_str(), letter.at_ms), ("no", 0));
    let Delivery::Queued(queued) = letter.outgoing.delivery else { panic!("not in today's form") };
    assert_eq!((queued.task, queued.attempts, queued.next_at_ms), (task, 2, 7));
    assert_eq!((queued.last_error.as_deref(), queued.queued_at_ms), (Some("no"), 0));
}

#[test]
fn an_effect_has_one_name() {
    let id = EffectId { shard: ShardId(3), number: 17 };
    assert_eq!((id.to_string().as_str(), "3_17".parse()), ("3_17", Ok(id)));
    for other in ["", "3", "3_", "_17", "03_17", "3_+17", "3_17_1", "70000_1", "3_99999999999999999999"] {
        assert_eq!(other.parse::<EffectId>(), Err(InvalidEffectId), "{other:?}");
    }
}

#[test]
fn a_long_error_is_cut_between_characters() {
    assert_eq!(shorten("short".into()), "short");
    let long = shorten("é".repeat(ERROR_BYTES_MAX));
    assert!(long.len() <= ERROR_BYTES_MAX + '…'.len_utf8() && long.ends_with('…'));
}

#[test]
fn a_discarded_task_leaves_word_for_its_entity_once() {
    let mut state = state();
    let number = ask_for(&mut state, Effect::task("mail", "welcome", vec![1]), 5);
    give_up(&mut state, number, 10);
    let word = Versioned { version: 1, bytes: vec![7] };
    for _ in 0..2 {
        apply(&mut state, Item::DiscardTask { number, answer: None, word: word.clone() });
    }
    assert!(state.letters.is_empty());
    let told: Vec<_> = state.outbox.values().cloned().collect();
    assert_eq!(told, [Outgoing { from: entity(), delivery: Delivery::Tell { to: entity(), command: word } }]);
}
