//! A shard's state, out of one replica and into another.

use super::*;
use crate::{
    catalog::ClusterId,
    entity::{Context, Decision, Effect, Entity, EntityKey, Row, ShardId, Versioned, encode_event},
    shard::{
        Registry,
        applied::{AppliedState, Outgoing, tests::checkpoint},
        entry::{Change, Item, KeyedAnswer, Outcome},
        keys,
        ledger::LogPlace,
        request::Cause,
    },
    storage::{GroupId, MemoryStorage, Storage},
};
use bytes::Bytes;
use proptest::{collection::vec, prelude::*};
use std::sync::Arc;

const GROUP: GroupId = GroupId(3);
const CLUSTER: ClusterId = ClusterId(77);
const BACKUP: BackupId = BackupId(5);

/// Adds up, and is listed by its total.
struct Purse;

impl Entity for Purse {
    const TYPE: &'static str = "purse";
    const LISTS_VERSION: u16 = 1;
    type State = u64;
    type Command = ();
    type Event = u64;
    type Reply = ();
    type Rejection = String;

    fn decide(_: &u64, (): (), _: &Context<'_>) -> Decision<Self> {
        Decision::reply(())
    }

    fn evolve(total: &mut u64, add: &u64) {
        *total += add;
    }

    fn rows(total: &u64) -> Vec<Row> {
        vec![Row::new("all", "", *total), Row::new("parity", (total % 2).to_string(), *total)]
    }
}

fn disk() -> Arc<dyn Storage> {
    Arc::new(MemoryStorage::new())
}

fn open(storage: &Arc<dyn Storage>) -> AppliedState {
    let mut registry = Registry::default();
    registry.add_entity::<Purse>();
    AppliedState::open(storage.clone(), GROUP, Arc::new(registry)).expect("opens")
}

fn purse(number: u8) -> EntityKey {
    EntityKey::new("purse", format!("p{number}")).expect("a name")
}

/// What can happen to a shard.
#[derive(Debug, Clone)]
enum Step {
    Pay { purse: u8, add: u64, keyed: bool },
    Tell(u8),
    Task(u8),
    Wait { purse: u8, at_ms: u64 },
    Receive { source: u16, number: u64, done_below: u64 },
    EndFirst,
    GiveUpFirst,
    Checkpoint,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..6_u8, 1..9_u64, any::<bool>()).prop_map(|(purse, add, keyed)| Step::Pay { purse, add, keyed }),
        2 => (0..6_u8).prop_map(Step::Tell),
        2 => (0..6_u8).prop_map(Step::Task),
        2 => (0..6_u8, 0..50_u64).prop_map(|(purse, at_ms)| Step::Wait { purse, at_ms }),
        2 => (0..3_u16, 1..20_u64, 0..9_u64)
            .prop_map(|(source, number, done_below)| Step::Receive { source, number, done_below }),
        1 => Just(Step::EndFirst),
        1 => Just(Step::GiveUpFirst),
        1 => Just(Step::Checkpoint),
    ];
    vec(step, 0..60)
}

fn change(state: &mut AppliedState, of: u8, effects: Vec<Effect>, cause: Cause, pays: Option<(u64, bool)>) -> Item {
    let key = purse(of);
    let base_version = state.entity(&key).expect("readable").version;
    let event = |(add, _)| encode_event::<Purse>(&add).expect("encodes");
    let answer = pays.filter(|(_, keyed)| *keyed).map(|_| KeyedAnswer {
        idempotency_key: format!("k{base_version}"),
        fingerprint: [1; 16],
        reply: vec![9],
        version: base_version + 1,
        expires_at_ms: 1000 + base_version,
    });
    let events = pays.map(event).into_iter().collect();
    Item::Change(Change { key, base_version, at_ms: 5 + base_version, events, effects, cause, answer })
}

fn live(state: &mut AppliedState, steps: Vec<Step>) {
    let last = state.meta.progress.position.map_or(0, |last| last.index);
    live_from(state, last, steps);
}

fn live_from(state: &mut AppliedState, last: u64, steps: Vec<Step>) {
    for (index, step) in (last + 1..).zip(steps) {
        let command = || Versioned { version: 1, bytes: vec![7] };
        let first = state.outbox.keys().next().copied();
        let item = match step {
            Step::Pay { purse, add, keyed } => change(state, purse, vec![], Cause::Client, Some((add, keyed))),
            Step::Tell(of) => {
                let tell = Effect::Tell { entity_type: "purse".into(), id: "x".into(), command: command() };
                change(state, of, vec![tell], Cause::Client, None)
            }
            Step::Task(of) => {
                let task = Effect::task("mail", "t", vec![1_u8]);
                change(state, of, vec![task], Cause::Client, Some((1, false)))
            }
            Step::Wait { purse, at_ms } => {
                let wait = Effect::Schedule { name: format!("n{}", at_ms % 3), at_ms, command: command() };
                change(state, purse, vec![wait], Cause::Client, None)
            }
            Step::Receive { source, number, done_below } => {
                let cause = Cause::Effect { source: GroupId(source), number, done_below };
                change(state, 0, vec![], cause, Some((2, false)))
            }
            Step::EndFirst => Item::EffectsDone(first.into_iter().collect()),
            Step::GiveUpFirst => match first {
                Some(number) => Item::GiveUp { number, at_ms: 9, error: "no".into() },
                None => continue,
            },
            Step::Checkpoint => {
                checkpoint(state);
                continue;
            }
        };
        apply_at(state, index, item);
    }
}

fn apply_at(state: &mut AppliedState, index: u64, item: Item) -> Outcome {
    state.begin(LogPlace { term: 1, index, entry_hash: 1 });
    let outcome = state.apply(item).expect("applies");
    state.end();
    outcome
}

fn step(state: &mut AppliedState, backup: BackupId, step: Restore) -> Outcome {
    let index = state.meta.progress.position.map_or(1, |last| last.index + 1);
    apply_at(state, index, Item::Restore { backup, step })
}

/// Everything of a shard, as a backup has it.
fn taken(state: &mut AppliedState) -> (ShardHead, Vec<(Bytes, usize)>) {
    let pinned = Pinned::of(state).expect("readable");
    let (mut chunks, mut after) = (Vec::new(), None);
    loop {
        let part = pinned.part(after.as_deref()).expect("readable");
        if !part.chunk.is_empty() {
            chunks.push((part.chunk, part.pairs as usize));
        }
        after = part.last;
        if after.is_none() {
            return (pinned.head().clone(), chunks);
        }
    }
}

fn sum_of(chunks: &[(Bytes, usize)]) -> Sum {
    chunks.iter().fold(Sum::default(), |sum, (chunk, pairs)| sum.and(chunk, *pairs))
}

/// The steps of a whole restore.
fn restore_of(head: &ShardHead, chunks: &[(Bytes, usize)]) -> Vec<Restore> {
    let mut steps = vec![Restore::Begin { cluster: CLUSTER, head: head.clone() }];
    steps.extend((0..).zip(chunks).map(|(number, (chunk, _))| Restore::Chunk { number, chunk: chunk.clone() }));
    steps.extend([Restore::End { sum: sum_of(chunks) }, Restore::Open]);
    steps
}

/// All rows but those that are about the log.
fn rows(state: &AppliedState) -> Vec<(Vec<u8>, Bytes)> {
    let mut rows = Vec::new();
    for (start, end) in RANGES.iter().chain([&(b"l".as_slice(), b"m".as_slice())]) {
        rows.extend(state.overlay.scan(start, end, usize::MAX / 2).expect("readable"));
    }
    rows.retain(|(key, _)| key[0] != b'e');
    // The places of answers are in a log that is gone.
    rows.iter_mut().filter(|(key, _)| key[0] == b'x').for_each(|(_, value)| *value = Bytes::new());
    rows
}

fn assert_same(restored: &mut AppliedState, original: &mut AppliedState) {
    assert_eq!(rows(restored), rows(original));
    assert_eq!(restored.outbox, original.outbox);
    assert_eq!(restored.letters, original.letters);
    assert_eq!(restored.meta.next_effect, original.meta.next_effect);
    assert_eq!(restored.meta.next_timer, original.meta.next_timer);
    restored.refresh_next_timer().expect("readable");
    original.refresh_next_timer().expect("readable");
    assert_eq!(restored.next_timer_at_ms(), original.next_timer_at_ms());
    for number in 0..6 {
        let state = |state: &mut AppliedState| {
            let entity = state.entity(&purse(number)).expect("readable");
            let total = entity.state.as_ref().and_then(|state| state.downcast_ref::<u64>().copied());
            (entity.version, entity.at_ms, total)
        };
        assert_eq!(state(restored), state(original), "purse {number}");
    }
    for (source, number) in (0..3).flat_map(|source| (1..20).map(move |number| (GroupId(source), number))) {
        assert_eq!(restored.has_received(source, number), original.has_received(source, number));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn a_shard_that_is_restored_is_as_it_was_whenever_it_was_taken_and_however_often_it_starts(
        before in steps(),
        restarts in vec(any::<bool>(), 0..12),
    ) {
        let mut original = open(&disk());
        live(&mut original, before);
        let (head, chunks) = taken(&mut original);
        let storage = disk();
        let mut restored = open(&storage);
        for (at, wanted) in restore_of(&head, &chunks).into_iter().enumerate() {
            prop_assert_eq!(step(&mut restored, BACKUP, wanted.clone()), Outcome::Done);
            if restarts.get(at).is_some_and(|restarts| *restarts) {
                checkpoint(&mut restored);
                restored = open(&storage);
                let again = step(&mut restored, BACKUP, wanted.clone());
                let expected = if wanted == Restore::Open { Outcome::Duplicate } else { Outcome::Done };
                prop_assert_eq!(again, expected, "again, after a restart");
            }
        }
        assert_same(&mut restored, &mut original);
        checkpoint(&mut restored);
        assert_same(&mut open(&storage), &mut original);
        // And once more, out of the restored one: all that it has came from elsewhere.
        let (again, same) = taken(&mut restored);
        let origins = vec![Origin { effects: head.effects, cluster: CLUSTER }];
        prop_assert_eq!((again.effects, again.timers, again.origins), (head.effects, head.timers, origins));
        prop_assert_eq!(sum_of(&same), sum_of(&chunks));
    }

    #[test]
    fn replicas_agree_whenever_each_has_taken_its_checkpoints(
        before in steps(),
        after in steps(),
        kept in 0..9_usize,
        checkpoints in vec((any::<bool>(), any::<bool>()), 40),
    ) {
        let mut original = open(&disk());
        live(&mut original, before);
        let (head, chunks) = taken(&mut original);
        let mut all = restore_of(&head, &chunks);
        // One that is given up, and another one in its place.
        let mut steps: Vec<(BackupId, Restore)> = all.iter().take(kept).map(|step| (BackupId(9), step.clone())).collect();
        if kept < all.len() {
            steps.extend((0..60).map(|_| (BackupId(9), Restore::Clear { limit: 2 })));
            steps.extend(all.drain(..).map(|step| (BACKUP, step)));
        }
        let disks = [disk(), disk()];
        let mut replicas = [open(&disks[0]), open(&disks[1])];
        let mut moments = checkpoints.into_iter().cycle();
        for (backup, wanted) in steps {
            let (one, other) = moments.next().expect("endless");
            let outcomes = [0, 1].map(|at| {
                if [one, other][at] {
                    checkpoint(&mut replicas[at]);
                    replicas[at] = open(&disks[at]);
                }
                step(&mut replicas[at], backup, wanted.clone())
            });
            prop_assert_eq!(outcomes[0], outcomes[1]);
            prop_assert_eq!(replicas[0].overlay.chain.shown(), replicas[1].overlay.chain.shown());
        }
        let [mut one, mut other] = replicas;
        let at = one.meta.progress.position.map_or(0, |last| last.index);
        live_from(&mut one, at, after.clone());
        live_from(&mut other, at, after);
        for (state, disk) in [(&mut one, &disks[0]), (&mut other, &disks[1])] {
            checkpoint(state);
            *state = open(disk);
        }
        prop_assert_eq!(rows(&one), rows(&other), "also on disk");
        prop_assert_eq!(one.outbox, other.outbox);
    }

    #[test]
    fn what_is_pinned_is_of_its_moment(before in steps(), after in steps()) {
        let mut state = open(&disk());
        live(&mut state, before);
        let pinned = Pinned::of(&mut state).expect("readable");
        let then = sum_of(&taken(&mut state).1);
        live(&mut state, after);
        checkpoint(&mut state);
        let (mut sum, mut key) = (Sum::default(), None);
        loop {
            let part = pinned.part(key.as_deref()).expect("readable");
            if !part.chunk.is_empty() {
                sum = sum.and(&part.chunk, part.pairs as usize);
            }
            key = part.last;
            if key.is_none() {
                break;
            }
        }
        prop_assert_eq!(sum, then);
    }
}

#[test]
fn chunks_are_bounded_in_pairs_and_bytes_and_one_large_pair_is_alone() {
    let mut state = open(&disk());
    for number in 0..200 {
        state.overlay.put(keys::history(&purse(1), number), vec![7; 10]);
    }
    state.overlay.put(keys::history(&purse(2), 1), vec![7; CHUNK_BYTES]);
    state.overlay.put(keys::history(&purse(2), 2), vec![7; CHUNK_BYTES - 100]);
    let (_, chunks) = taken(&mut state);
    let pairs: Vec<usize> = chunks.iter().map(|(_, pairs)| *pairs).collect();
    assert_eq!(pairs, [CHUNK_PAIRS, 200 - CHUNK_PAIRS, 1, 1]);
    let all: Pairs = chunks.iter().flat_map(|(chunk, _)| decode_chunk(chunk).expect("a chunk")).collect();
    assert!(all.is_sorted() && all.len() == 202);
}

/// A shard with something in it, and how it is restored.
fn example() -> (ShardHead, Vec<(Bytes, usize)>) {
    let mut state = open(&disk());
    let pay = |purse| Step::Pay { purse, add: 3, keyed: true };
    live(&mut state, vec![pay(1), pay(2), Step::Task(1), Step::Tell(2)]);
    taken(&mut state)
}

#[test]
fn only_an_empty_shard_begins() {
    let (head, _) = example();
    let begin = Restore::Begin { cluster: CLUSTER, head };
    let mut used = open(&disk());
    live(&mut used, vec![Step::Pay { purse: 0, add: 1, keyed: false }]);
    assert_eq!(step(&mut used, BACKUP, begin.clone()), Outcome::Declined(Declined::NotEmpty));
    // Its number was given out, and so would be again.
    let mut quiet = open(&disk());
    live(&mut quiet, vec![Step::Tell(0), Step::EndFirst]);
    assert_eq!(step(&mut quiet, BACKUP, begin.clone()), Outcome::Declined(Declined::NotEmpty));
    let mut read = open(&disk());
    assert_eq!(read.entity(&purse(1)).expect("readable").version, 0);
    assert_eq!(step(&mut read, BACKUP, begin), Outcome::Done, "asking is not using");
}

#[test]
fn nothing_else_is_done_while_it_is_restored() {
    let (head, chunks) = example();
    let mut state = open(&disk());
    let pay = change(&mut state, 0, vec![], Cause::Client, Some((1, true)));
    let steps = restore_of(&head, &chunks);
    for (at, wanted) in steps.iter().enumerate() {
        assert_eq!(step(&mut state, BACKUP, wanted.clone()), Outcome::Done);
        if at + 1 < steps.len() {
            assert!(matches!(apply_at(&mut state, 100 + at as u64 * 2, pay.clone()), Outcome::Refused { .. }));
            let forget = Item::ForgetKeys { before_ms: u64::MAX, limit: 100 };
            assert_eq!(apply_at(&mut state, 101 + at as u64 * 2, forget), Outcome::Done);
        }
    }
    assert!(state.answer(&purse(1), "k0").expect("readable").is_some(), "it was not forgotten");
    assert_eq!(apply_at(&mut state, 1000, pay), Outcome::Changed { version: 1 });
}

#[test]
fn steps_out_of_turn_are_declined_and_change_nothing() {
    let (head, chunks) = example();
    let mut state = open(&disk());
    let [begin, chunk, end, open_it] = <[Restore; 4]>::try_from(restore_of(&head, &chunks)).expect("one chunk");
    let declined = Outcome::Declined;
    for early in [&chunk, &end, &open_it] {
        assert_eq!(step(&mut state, BACKUP, early.clone()), declined(Declined::OutOfOrder));
    }
    assert_eq!(step(&mut state, BACKUP, begin.clone()), Outcome::Done);
    assert_eq!(step(&mut state, BACKUP, begin.clone()), Outcome::Done, "again");
    let Restore::Chunk { chunk: bytes, .. } = &chunk else { panic!("a chunk") };
    let late = Restore::Chunk { number: 1, chunk: bytes.clone() };
    assert_eq!(step(&mut state, BACKUP, late.clone()), declined(Declined::OutOfOrder), "one is missing");
    assert_eq!(step(&mut state, BACKUP, open_it.clone()), declined(Declined::OutOfOrder));
    assert_eq!(step(&mut state, BACKUP, end.clone()), declined(Declined::Damaged), "nothing is there");
    assert_eq!(step(&mut state, BackupId(6), chunk.clone()), declined(Declined::OtherBackup));
    for done in [&chunk, &chunk, &end, &end] {
        assert_eq!(step(&mut state, BACKUP, done.clone()), Outcome::Done);
    }
    assert_eq!(step(&mut state, BACKUP, late), declined(Declined::OutOfOrder), "it has ended");
    assert_eq!(step(&mut state, BACKUP, open_it.clone()), Outcome::Done);
    for done in [begin, chunk, end, open_it] {
        assert_eq!(step(&mut state, BACKUP, done), Outcome::Duplicate, "the whole backup again");
    }
    assert!(!state.restores.under_way() && state.restores.has_past());
    assert_eq!(state.outbox.len(), 2);
}

#[test]
fn what_no_replica_could_read_does_not_get_into_one() {
    let (head, chunks) = example();
    let all: Pairs = chunks.iter().flat_map(|(chunk, _)| decode_chunk(chunk).expect("a chunk")).collect();
    let kinds: std::collections::BTreeSet<u8> = all.iter().map(|(key, _)| key[0]).collect();
    assert!(kinds.len() >= 5, "{kinds:?}");
    let refused = |key: Vec<u8>, value: Bytes| {
        let good = all[0].clone();
        let chunk = encode_chunk(&vec![good, (key.clone(), value)]).expect("encodes");
        assert_eq!(sound::read_chunk(&head, &chunk), None, "{key:?}");
        // Should it be in a log all the same, a replica stops before it does half of it.
        let mut state = open(&disk());
        let begin = Restore::Begin { cluster: CLUSTER, head: head.clone() };
        assert_eq!(step(&mut state, BACKUP, begin), Outcome::Done);
        let item = Item::Restore { backup: BACKUP, step: Restore::Chunk { number: 0, chunk } };
        assert!(state.apply(item).is_err(), "{key:?}");
        assert_eq!(rows(&state), []);
    };
    refused(keys::META.to_vec(), Bytes::new());
    // One byte more, behind an answer, says that it is no rejection.
    for (key, value) in all.iter().filter(|(key, _)| key[0] != b'i') {
        refused(key.clone(), [value.as_ref(), &[0]].concat().into());
    }
    for kind in RANGES.iter().map(|(start, _)| start[0]).chain([b'i', b'o']) {
        refused(vec![kind], Bytes::new());
        refused(vec![kind, 0xff, 1], Bytes::from_static(&[0xff; 3]));
    }
    // A number that the shard will give out itself.
    let outgoing = all.iter().find(|(key, _)| key[0] == b'o').expect("an effect").1.clone();
    refused(keys::outbox(head.effects + 1), outgoing.clone());
    // Keys that say less, or more, than they should.
    let (purse, event) = all.iter().find(|(key, _)| key[0] == b'h').cloned().expect("an event");
    let entity = &purse[..purse.len() - 8];
    for sequence in [&[0_u8; 8][..], &[0, 0, 0, 1], &[1; 16], b""] {
        refused([entity, sequence].concat(), event.clone());
    }
    let named = |id: &str| EntityKey { entity_type: "purse".into(), id: id.into() };
    for id in ["", "a/b", "a b", "\u{e9}"] {
        refused([keys::history(&named(id), 1)].concat(), event.clone());
    }
    let long = Outgoing { from: named(&"x".repeat(10_000)), ..crate::shard::applied::decode(&outgoing).expect("one") };
    refused(keys::outbox(1), crate::shard::applied::encode(&long).expect("encodes").into());
}

#[test]
fn a_head_that_no_shard_could_go_on_from_does_not_begin() {
    let (head, _) = example();
    for head in [ShardHead { effects: u64::MAX, ..head.clone() }, ShardHead { timers: u64::MAX, ..head }] {
        let begin = Restore::Begin { cluster: CLUSTER, head };
        assert_eq!(step(&mut open(&disk()), BACKUP, begin), Outcome::Declined(Declined::NotEmpty));
    }
}

/// An entity whose state is much larger than its events.
struct Heavy;

impl Entity for Heavy {
    const TYPE: &'static str = "heavy";
    type State = Vec<u8>;
    type Command = ();
    type Event = u32;
    type Reply = ();
    type Rejection = String;

    fn decide(_: &Vec<u8>, (): (), _: &Context<'_>) -> Decision<Self> {
        Decision::reply(())
    }

    fn evolve(state: &mut Vec<u8>, bytes: &u32) {
        state.resize(*bytes as usize, 7);
    }
}

#[test]
fn a_replica_that_applies_everything_at_once_has_a_checkpoint_that_one_write_takes() {
    const EACH: u32 = 300 << 10;
    const COUNT: u32 = 230;
    let mut registry = Registry::default();
    registry.add_entity::<Heavy>();
    let registry = Arc::new(registry);
    let open =
        |storage: &Arc<dyn Storage>| AppliedState::open(storage.clone(), GROUP, registry.clone()).expect("opens");
    let heavy = |number: u32| EntityKey::new("heavy", format!("h{number}")).expect("a name");
    let mut original = open(&disk());
    for number in 0..COUNT {
        let events = vec![encode_event::<Heavy>(&EACH).expect("encodes")];
        let (key, cause, effects) = (heavy(number), Cause::Client, Vec::new());
        let paid = Change { key, base_version: 0, at_ms: 1, events, effects, cause, answer: None };
        apply_at(&mut original, u64::from(number) + 1, Item::Change(paid));
        if number % 16 == 0 {
            checkpoint(&mut original);
        }
    }
    let (head, chunks) = taken(&mut original);
    assert!(chunks.len() > 20, "few states are folded in one step: {} chunks", chunks.len());
    let storage = disk();
    let mut restored = open(&storage);
    for wanted in restore_of(&head, &chunks) {
        assert_eq!(step(&mut restored, BACKUP, wanted), Outcome::Done);
    }
    assert!(u64::from(EACH) * u64::from(COUNT) > crate::storage::WRITE_BYTES_MAX as u64);
    checkpoint(&mut restored);
    let mut restored = open(&storage);
    for number in [0, COUNT / 2, COUNT - 1] {
        let entity = restored.entity(&heavy(number)).expect("readable");
        let bytes = entity.state.as_ref().and_then(|state| state.downcast_ref::<Vec<u8>>()).map(Vec::len);
        assert_eq!((entity.version, bytes), (1, Some(EACH as usize)), "kept or folded again");
    }
}

#[test]
fn a_restore_is_given_up_in_steps_and_leaves_an_empty_shard() {
    let (head, chunks) = example();
    let storage = disk();
    let mut state = open(&storage);
    let steps = restore_of(&head, &chunks);
    for wanted in &steps[..steps.len() - 1] {
        assert_eq!(step(&mut state, BACKUP, wanted.clone()), Outcome::Done);
    }
    checkpoint(&mut state);
    let clear = Restore::Clear { limit: 3 };
    assert_eq!(step(&mut state, BackupId(6), clear.clone()), Outcome::Done, "of another one");
    assert!(state.restores.under_way());
    let mut rounds = 0;
    while step(&mut state, BACKUP, clear.clone()) != Outcome::Done {
        rounds += 1;
        assert!(state.restores.under_way() && rounds < 50);
    }
    assert!(rounds >= 3, "three rows at a time");
    assert_eq!((rows(&state), state.outbox.len()), (Vec::new(), 0));
    checkpoint(&mut state);
    let mut state = open(&storage);
    assert_eq!((rows(&state), state.restores.under_way()), (Vec::new(), false));
    for wanted in steps {
        assert_eq!(step(&mut state, BackupId(6), wanted), Outcome::Done, "another one is put in");
    }
    assert_eq!(state.outbox.len(), 2);
}

#[test]
fn a_number_belongs_to_the_cluster_that_gave_it() {
    let origin = |effects, cluster| Origin { effects, cluster: ClusterId(cluster) };
    let head =
        ShardHead { shard: ShardId(GROUP.0), term: 4, index: 9, effects: 8, timers: 2, origins: vec![origin(5, 1)] };
    let mut state = open(&disk());
    assert_eq!(state.restores.origin_of(1), None);
    for wanted in restore_of(&head, &[]) {
        assert_eq!(step(&mut state, BACKUP, wanted), Outcome::Done);
    }
    let origins = [1, 5, 6, 8, 9].map(|number| state.restores.origin_of(number));
    let [first, second] = [Some(ClusterId(1)), Some(CLUSTER)];
    assert_eq!(origins, [first, first, second, second, None]);
    live(&mut state, vec![Step::Tell(0)]);
    assert_eq!(state.outbox.keys().collect::<Vec<_>>(), [&9], "and the next one is this cluster's");
}
