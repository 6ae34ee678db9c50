use super::{rows::Versions, *};
use crate::{
    entity::{Context, Decision, Entity, EntityKey, Row, encode_event},
    shard::{
        Registry,
        applied::{AppliedState, tests::checkpoint},
        entry::{Change, Item, Outcome},
        keys,
        request::Cause,
    },
    storage::{MemoryStorage, Storage},
};
use proptest::{collection::vec, prelude::*};
use std::{collections::BTreeMap, sync::Arc};

/// Has an age and a colour that changes; `V` is the version of its lists.
struct Balloon<const V: u16>;

type Paint = (u64, u8);

impl<const V: u16> Entity for Balloon<V> {
    const TYPE: &'static str = "balloon";
    const LISTS_VERSION: u16 = V;
    type State = Paint;
    type Command = ();
    type Event = Paint;
    type Reply = ();
    type Rejection = String;

    fn decide(_: &Paint, (): (), _: &Context<'_>) -> Decision<Self> {
        Decision::reply(())
    }

    fn evolve(state: &mut Paint, event: &Paint) {
        assert!(event.1 != BURSTS, "it bursts");
        *state = *event;
    }

    fn rows((age, colour): &Paint) -> Vec<Row> {
        let list = if V == 1 { "colour" } else { "paint" };
        vec![Row::new("all", "", *age), Row::new(list, colour.to_string(), *age)]
    }
}

const BURSTS: u8 = 200;

fn registry<const V: u16>() -> Arc<Registry> {
    let mut registry = Registry::default();
    registry.add_entity::<Balloon<V>>();
    Arc::new(registry)
}

fn open(storage: &Arc<dyn Storage>, registry: Arc<Registry>) -> AppliedState {
    AppliedState::open(storage.clone(), GroupId(3), registry).expect("opens")
}

fn disk() -> Arc<dyn Storage> {
    Arc::new(MemoryStorage::new())
}

fn paint(state: &mut AppliedState, id: &str, event: Paint) {
    let key = EntityKey::new("balloon", id).expect("a valid id");
    let base_version = state.entity(&key).expect("readable").version;
    let events = vec![encode_event::<Balloon<1>>(&event).expect("encodes")];
    let change =
        Change { key, base_version, at_ms: 1, events, effects: Vec::new(), cause: Cause::Client, answer: None };
    let outcome = state.apply(Item::Change(change)).expect("applies");
    assert!(matches!(outcome, Outcome::Changed { .. }), "{outcome:?}");
}

fn query(lists: &[(&str, &str)], limit: u32) -> ListQuery {
    let lists = lists.iter().map(|(list, of)| ((*list).to_owned(), (*of).to_owned())).collect();
    ListQuery { entity_type: "balloon".into(), lists, orders: (0, u64::MAX), after: None, limit }
}

/// Looks until there is nothing behind, a few rows at a time.
fn walk(state: &AppliedState, mut asked: ListQuery, rows: usize) -> Vec<String> {
    let mut found = Vec::new();
    loop {
        let room = Room { rows, bytes: usize::MAX, is_empty: true };
        let part = state.list(&asked, room).expect("readable");
        assert!(part.entries.len() <= asked.limit as usize);
        assert!(part.rest_after.is_none() || part.rest_after > asked.after, "it gets on");
        found.extend(part.entries.into_iter().map(|entry| entry.place.id));
        match part.rest_after {
            Some(after) => asked.after = Some(after),
            None => return found,
        }
    }
}

fn rows(state: &AppliedState) -> usize {
    let (start, end) = keys::rows_of("balloon");
    state.overlay.scan(&start, &end, usize::MAX / 2).expect("readable").len()
}

#[test]
fn a_list_is_in_order_and_an_entity_moves_from_list_to_list() {
    let mut state = open(&disk(), registry::<1>());
    for (id, age) in [("c", 1), ("b", 2), ("a", 2), ("d", 300)] {
        paint(&mut state, id, (age, 7));
    }
    assert_eq!(walk(&state, query(&[("colour", "7")], 2), 3), ["c", "a", "b", "d"]);
    paint(&mut state, "a", (2, 8));
    assert_eq!(walk(&state, query(&[("colour", "7")], 100), 100), ["c", "b", "d"]);
    assert_eq!(walk(&state, query(&[("colour", "8")], 100), 100), ["a"]);
    assert_eq!(walk(&state, query(&[("all", ""), ("colour", "7")], 1), 1), ["c", "b", "d"], "those in both");
    let between = ListQuery { orders: (2, 299), ..query(&[("all", "")], 100) };
    assert_eq!(walk(&state, between, 100), ["a", "b"]);
    let nothing = ListQuery { orders: (3, 2), ..query(&[("all", "")], 100) };
    assert!(walk(&state, nothing, 100).is_empty() && walk(&state, query(&[("hue", "7")], 1), 1).is_empty());
}

#[test]
fn rows_that_do_not_change_are_not_written_again() {
    let mut state = open(&disk(), registry::<1>());
    paint(&mut state, "a", (2, 7));
    checkpoint(&mut state);
    paint(&mut state, "a", (2, 7));
    let written = state.overlay.begin_flush();
    assert!(!written.iter().any(|(key, _)| key[6] == b'l'), "{written:?}");
}

#[test]
fn a_look_has_an_end_in_rows_and_in_bytes() {
    let mut state = open(&disk(), registry::<1>());
    (0..10).for_each(|at| paint(&mut state, &format!("a{at}"), (at, if at == 9 { 8 } else { 7 })));
    let room = Room { rows: 4, bytes: usize::MAX, is_empty: true };
    let rare = query(&[("all", ""), ("colour", "8")], 100);
    let part = state.list(&rare, room).expect("readable");
    assert_eq!((part.entries.len(), part.rest_after.map(|place| place.order)), (0, Some(3)), "found nothing so far");
    let all = query(&[("all", "")], 100);
    let part = state.list(&all, Room { rows: 100, bytes: 0, is_empty: true }).expect("readable");
    assert_eq!((part.entries.len(), part.rest_after.map(|place| place.order)), (1, Some(0)), "one in any case");
    let part = state.list(&all, Room { rows: 100, bytes: 0, is_empty: false }).expect("readable");
    assert_eq!((part.entries.len(), part.rest_after), (0, None), "where it began");
}

#[test]
fn lists_that_an_older_build_wrote_are_written_anew() {
    let disk = disk();
    let mut state = open(&disk, registry::<1>());
    (0..600).for_each(|at| paint(&mut state, &format!("a{at}"), (at, 7)));
    checkpoint(&mut state);
    let state = open(&disk, registry::<2>());
    assert_eq!((walk(&state, query(&[("paint", "7")], 100), 100).len(), rows(&state)), (600, 1200));
    assert!(walk(&state, query(&[("colour", "7")], 100), 100).is_empty());
    let mut back = open(&disk, registry::<1>());
    assert_eq!(walk(&back, query(&[("colour", "7")], 100), 100).len(), 600, "and back");
    checkpoint(&mut back);
    assert_eq!(open(&disk, registry::<1>()).lists, Versions::from([("balloon".to_owned(), 1)]));
}

#[test]
fn lists_of_a_type_that_was_not_known_for_a_while_are_written_anew() {
    let disk = disk();
    let mut state = open(&disk, registry::<1>());
    paint(&mut state, "a", (1, 7));
    checkpoint(&mut state);
    let mut stranger = open(&disk, Arc::new(Registry::default()));
    paint(&mut stranger, "a", (1, 8));
    paint(&mut stranger, "b", (2, 8));
    checkpoint(&mut stranger);
    let state = open(&disk, registry::<1>());
    assert_eq!(walk(&state, query(&[("colour", "8")], 100), 100), ["a", "b"]);
    assert_eq!(rows(&state), 4);
}

#[test]
fn an_entity_that_cannot_be_folded_leaves_lists_that_are_written_anew() {
    let mut state = open(&disk(), registry::<1>());
    paint(&mut state, "a", (1, 7));
    assert!(state.lists.contains_key("balloon"));
    paint(&mut state, "a", (1, BURSTS));
    assert!(!state.lists.contains_key("balloon") && state.lists_changed);
}

#[derive(Debug, Clone)]
enum Step {
    Paint(u8, u8),
    Checkpoint,
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => (0..20u8, 0..3u8).prop_map(|(id, colour)| Step::Paint(id, colour)),
        2 => Just(Step::Checkpoint),
        1 => Just(Step::Reopen),
    ];
    vec(step, 0..120)
}

fn id(number: u8) -> String {
    format!("a{number:02}")
}

/// A reader pages through one colour while others write between its pages.
fn reads_while_others_write(steps: Vec<Step>, page: u32) {
    let (disk, mut model, mut durable) = (disk(), BTreeMap::new(), BTreeMap::new());
    let mut state = open(&disk, registry::<1>());
    for number in 0..6 {
        paint(&mut state, &id(number), (u64::from(number / 2), 0));
        model.insert(id(number), 0);
    }
    let mut always: Vec<String> = model.keys().cloned().collect();
    let (mut asked, mut seen, mut ended) = (query(&[("colour", "0")], page), Vec::new(), false);
    for (at, step) in steps.into_iter().enumerate() {
        match step {
            Step::Paint(number, colour) => {
                paint(&mut state, &id(number), (u64::from(number / 2), colour));
                model.insert(id(number), colour);
                always.retain(|id| model[id] == 0);
            }
            Step::Checkpoint => {
                checkpoint(&mut state);
                durable.clone_from(&model);
            }
            // The log that would be applied again is gone with the test: what was durable is left.
            Step::Reopen if durable == model => state = open(&disk, registry::<1>()),
            Step::Reopen => {}
        }
        if at % 5 == 0 && !ended {
            let part = state.list(&asked, Room { rows: 3, bytes: usize::MAX, is_empty: true }).expect("readable");
            seen.extend(part.entries.into_iter().map(|entry| entry.place.id));
            ended = part.rest_after.is_none();
            asked.after = part.rest_after.or(asked.after);
        }
    }
    if !ended {
        seen.extend(walk(&state, asked, 3));
    }
    let mut once = seen.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), seen.len(), "shown twice: {seen:?}");
    assert!(always.iter().all(|id| seen.contains(id)), "{always:?} were there all the time, seen {seen:?}");
    for colour in 0..3 {
        let of: Vec<_> = model.iter().filter(|(_, painted)| **painted == colour).map(|(id, _)| id.clone()).collect();
        assert_eq!(walk(&state, query(&[("colour", &colour.to_string())], 4), 3), of, "as the model has it");
    }
    assert_eq!(rows(&state), 2 * model.len(), "no row is left behind");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn who_pages_through_a_list_misses_nothing_and_sees_nothing_twice(steps in steps(), page in 1..5_u32) {
        reads_while_others_write(steps, page);
    }
}

#[test]
fn what_is_stored_for_a_list_is_an_empty_value_under_its_place() {
    let mut state = open(&disk(), registry::<1>());
    paint(&mut state, "a", (1, 7));
    let key = keys::place(&keys::list("balloon", "colour", "7"), 1, "a");
    assert_eq!(state.overlay.get(&key).expect("readable").expect("there").len(), 0);
    assert_eq!(key, b"l\x07balloon\x06colour\x00\x017\0\0\0\0\0\0\0\x01a");
}
