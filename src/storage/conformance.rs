//! What every implementation of [`Storage`] must do, as a suite to run on each.
//!
//! [`run_all`] takes a factory of empty stores with a [`Faults`] handle each. It panics where an
//! implementation does not conform; it is compiled in so that tests of other modules can use it.

use super::{EntryRecord, Error, Faults, GroupId, Options, STATE_VALUE_BYTES_MAX, StateRead, Storage, Write};
use bytes::Bytes;
use std::{
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

/// How long a condition may take to become true on a slow machine.
const DEADLINE: Duration = Duration::from_secs(30);
const A: GroupId = GroupId(3);
const B: GroupId = GroupId::CATALOG;

/// Makes an empty store with these bounds, whose syncs obey the handle.
pub type Factory<'a> = &'a dyn Fn(&Options, Faults) -> Arc<dyn Storage>;

/// Runs the whole suite.
pub fn run_all(factory: Factory<'_>) {
    let fresh = || factory(&Options::default(), Faults::none());
    a_new_store_is_empty(fresh().as_ref());
    entries_come_back_in_order_and_only_those_asked_for(fresh().as_ref());
    an_append_over_present_entries_replaces_them(fresh().as_ref());
    truncation_forgets_the_tail(fresh().as_ref());
    a_purge_forgets_the_front_and_keeps_its_mark(fresh().as_ref());
    a_purge_past_the_end_moves_the_next_index(fresh().as_ref());
    groups_do_not_touch_each_other(fresh().as_ref());
    malformed_writes_are_refused_and_change_nothing(fresh().as_ref());
    large_entries_come_back_whole(fresh().as_ref());
    state_is_kept_in_key_order(fresh().as_ref());
    state_values_may_be_large_and_replaced(fresh().as_ref());
    of_two_changes_to_a_key_the_later_counts(fresh().as_ref());
    a_pin_shows_one_group_and_no_other_key(fresh().as_ref());
    a_pin_keeps_showing_the_moment_it_was_taken(fresh().as_ref());
    queued_writes_are_visible_before_they_are_durable(factory);
    completions_come_in_order_and_after_the_sync(factory);
    a_full_queue_blocks_until_it_drains(factory);
    a_failed_sync_poisons_the_store(factory);
    dropping_the_store_completes_what_is_queued(factory);
}

/// An entry whose payload tells its index and term.
pub fn entry(index: u64, term: u64) -> EntryRecord {
    EntryRecord { index, term, payload: Bytes::from(format!("entry {index} of term {term}")) }
}

/// Entries `range` of one term.
pub fn append(group: GroupId, range: std::ops::Range<u64>, term: u64) -> Write {
    Write::Append { group, entries: range.map(|index| entry(index, term)).collect() }
}

/// Submits and waits for the answer.
pub fn write(store: &dyn Storage, write: Write) -> Result<(), Error> {
    let waiting = submit(store, write);
    waiting.recv_timeout(DEADLINE).expect("a write was never answered")
}

/// Submits; the answer arrives at the receiver.
pub fn submit(store: &dyn Storage, write: Write) -> mpsc::Receiver<Result<(), Error>> {
    let (tx, rx) = mpsc::channel();
    store.submit(write, Box::new(move |result| drop(tx.send(result))));
    rx
}

/// Waits until `condition` holds; `reason` is for the failure message.
pub fn wait_until(reason: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "never happened: {reason}");
        std::thread::yield_now();
    }
}

fn must(store: &dyn Storage, what: Write) {
    let shown = format!("{what:.80?}");
    write(store, what).unwrap_or_else(|error| panic!("{shown}: {error}"));
}

fn terms(store: &dyn Storage, group: GroupId) -> Vec<(u64, u64)> {
    let all = store.entries(group, 0..u64::MAX).expect("entries");
    all.iter().for_each(|e| assert_eq!(*e, entry(e.index, e.term)));
    all.iter().map(|e| (e.index, e.term)).collect()
}

fn put(key: &str, value: &str) -> (Vec<u8>, Option<Bytes>) {
    (key.as_bytes().to_vec(), Some(Bytes::copy_from_slice(value.as_bytes())))
}

fn a_new_store_is_empty(store: &dyn Storage) {
    assert_eq!(store.group(A), super::GroupState::default());
    assert_eq!(store.entries(A, 0..u64::MAX).expect("entries"), []);
    assert_eq!(store.get(b"key").expect("get"), None);
    assert_eq!(store.scan(b"", b"\xff", 10).expect("scan"), []);
}

fn entries_come_back_in_order_and_only_those_asked_for(store: &dyn Storage) {
    must(store, append(A, 1..101, 1));
    must(store, append(A, 101..201, 2));
    assert_eq!(store.group(A).entries, 1..201);
    let some = store.entries(A, 95..105).expect("entries");
    assert_eq!(some, (95..105).map(|i| entry(i, if i < 101 { 1 } else { 2 })).collect::<Vec<_>>());
    assert_eq!(store.entries(A, 200..300).expect("entries"), [entry(200, 2)]);
    assert_eq!(store.entries(A, 300..400).expect("entries"), []);
    let (start, end) = (60, 50);
    assert_eq!(store.entries(A, start..end).expect("entries"), [], "an inverted range is empty");
}

fn an_append_over_present_entries_replaces_them(store: &dyn Storage) {
    must(store, append(A, 1..11, 1));
    must(store, append(A, 6..8, 2));
    let expected: Vec<_> = (1..6).map(|i| (i, 1)).chain((6..8).map(|i| (i, 2))).collect();
    assert_eq!(terms(store, A), expected);
    must(store, append(A, 6..8, 2));
    assert_eq!(terms(store, A), expected, "a replay changes nothing");
}

fn truncation_forgets_the_tail(store: &dyn Storage) {
    must(store, append(A, 1..11, 1));
    must(store, Write::Truncate { group: A, from: 5 });
    must(store, Write::Truncate { group: A, from: 50 });
    assert_eq!(store.group(A).entries, 1..5);
    must(store, append(A, 5..7, 2));
    assert_eq!(terms(store, A), [(1, 1), (2, 1), (3, 1), (4, 1), (5, 2), (6, 2)]);
    must(store, Write::Truncate { group: A, from: 0 });
    assert_eq!(store.group(A).entries, 0..0);
    must(store, append(A, 9..10, 3));
    assert_eq!(store.group(A).entries, 9..10);
}

fn a_purge_forgets_the_front_and_keeps_its_mark(store: &dyn Storage) {
    must(store, append(A, 1..11, 1));
    must(store, Write::Purge { group: A, upto: 4, mark: Bytes::from_static(b"four") });
    assert_eq!(store.group(A).entries, 5..11);
    must(store, Write::Purge { group: A, upto: 2, mark: Bytes::from_static(b"two") });
    assert_eq!(store.group(A).purged, Some((4, Bytes::from_static(b"four"))), "the mark never goes back");
    must(store, Write::Truncate { group: A, from: 0 });
    assert_eq!(store.group(A).entries, 5..5, "the next entry follows the mark");
    assert!(matches!(write(store, append(A, 4..5, 1)), Err(Error::Refused { .. })));
    assert!(matches!(write(store, append(A, 6..7, 1)), Err(Error::Refused { .. })));
    must(store, append(A, 5..6, 1));
}

fn a_purge_past_the_end_moves_the_next_index(store: &dyn Storage) {
    must(store, append(A, 1..11, 1));
    must(store, Write::Purge { group: A, upto: 100, mark: Bytes::from_static(b"snapshot") });
    assert_eq!(store.group(A).entries, 101..101);
    must(store, append(A, 101..103, 2));
    assert_eq!(terms(store, A), [(101, 2), (102, 2)]);
}

fn groups_do_not_touch_each_other(store: &dyn Storage) {
    must(store, append(A, 1..4, 1));
    must(store, append(B, 0..2, 9));
    must(store, Write::Vote { group: A, vote: Bytes::from_static(b"for a") });
    must(store, Write::Vote { group: A, vote: Bytes::from_static(b"for a again") });
    must(store, Write::Truncate { group: B, from: 1 });
    assert_eq!(terms(store, A), [(1, 1), (2, 1), (3, 1)]);
    assert_eq!(terms(store, B), [(0, 9)]);
    assert_eq!(store.group(A).vote, Some(Bytes::from_static(b"for a again")));
    assert_eq!(store.group(B).vote, None);
}

fn malformed_writes_are_refused_and_change_nothing(store: &dyn Storage) {
    must(store, append(A, 1..4, 1));
    must(store, append(B, 59..60, 1));
    let before = [A, B].map(|group| store.group(group));
    let huge = Bytes::from(vec![0; STATE_VALUE_BYTES_MAX + 1]);
    let refused = [
        append(A, 5..6, 1),
        Write::Append { group: A, entries: vec![entry(4, 1), entry(6, 1)] },
        Write::Append { group: A, entries: vec![entry(4, 1), entry(4, 1)] },
        Write::Append { group: B, entries: vec![entry(u64::MAX, 1)] },
        Write::Purge { group: A, upto: u64::MAX, mark: Bytes::new() },
        // A fuzzer found that this was taken, and that the journal was then refused at the next start.
        Write::Purge { group: B, upto: 57, mark: Bytes::new() },
        Write::Vote { group: A, vote: huge.clone() },
        Write::State(vec![put("good", "good"), (b"huge".to_vec(), Some(huge))]),
        Write::State(vec![(vec![b'k'; super::STATE_KEY_BYTES_MAX + 1], None)]),
    ];
    for what in refused {
        assert!(matches!(write(store, what), Err(Error::Refused { .. })));
    }
    assert_eq!([A, B].map(|group| store.group(group)), before);
    assert_eq!(store.get(b"good").expect("get"), None);
    must(store, Write::Append { group: A, entries: vec![] });
    must(store, append(A, 4..5, 1));
    must(store, Write::Purge { group: B, upto: 58, mark: Bytes::new() });
}

fn large_entries_come_back_whole(store: &dyn Storage) {
    let sizes = [0, 1, 50_000, 60_000, super::RECORD_BYTES_MAX, 5, 1 << 20, 3 << 20, 7];
    let entries: Vec<_> = (1u64..)
        .zip(sizes)
        .map(|(index, size)| EntryRecord { index, term: index, payload: pattern(index, size) })
        .collect();
    must(store, Write::Append { group: A, entries: entries.clone() });
    assert_eq!(store.entries(A, 0..100).expect("entries"), entries);
    assert_eq!(store.entries(A, 8..9).expect("entries"), entries[7..8]);
}

fn pattern(seed: u64, size: usize) -> Bytes {
    (0..size as u64).map(|i| (i.wrapping_mul(seed + 7) >> 3) as u8).collect::<Vec<_>>().into()
}

fn state_is_kept_in_key_order(store: &dyn Storage) {
    must(store, Write::State(vec![put("b", "2"), put("a", "1"), put("c", "3"), put("d", "")]));
    must(store, Write::State(vec![(b"c".to_vec(), None), (b"never there".to_vec(), None), put("a", "one")]));
    let pairs = |limit| {
        let found = store.scan(b"a", b"e", limit).expect("scan");
        found.into_iter().map(|(k, v)| format!("{}={}", k.escape_ascii(), v.escape_ascii())).collect::<Vec<_>>()
    };
    assert_eq!(pairs(10), ["a=one", "b=2", "d="]);
    assert_eq!(pairs(2), ["a=one", "b=2"]);
    assert_eq!(store.scan(b"b", b"d", 10).expect("scan").len(), 1, "the end is not in the range");
    assert_eq!(store.scan(b"z", b"a", 10).expect("scan"), []);
    assert_eq!(store.get(b"c").expect("get"), None);
}

fn state_values_may_be_large_and_replaced(store: &dyn Storage) {
    let sizes = [200_000, 1 << 20, 10, STATE_VALUE_BYTES_MAX, 96 << 10, (96 << 10) + 1];
    for (seed, size) in (1..).zip(sizes) {
        must(store, Write::State(vec![(b"large".to_vec(), Some(pattern(seed, size))), put("small", "unharmed")]));
        assert_eq!(store.get(b"large").expect("get"), Some(pattern(seed, size)));
    }
    let all = store.scan(b"", b"z", 10).expect("scan");
    assert_eq!(
        all.iter().map(|(k, v)| (k.as_slice(), v.len())).collect::<Vec<_>>(),
        [(&b"large"[..], (96 << 10) + 1), (b"small", 8)]
    );
    must(store, Write::State(vec![(b"large".to_vec(), None)]));
    assert_eq!(store.get(b"large").expect("get"), None);
}

fn of_two_changes_to_a_key_the_later_counts(store: &dyn Storage) {
    must(store, Write::State(vec![put("a", "1"), put("a", "2"), put("b", "1"), (b"b".to_vec(), None)]));
    assert_eq!(store.get(b"a").expect("get"), Some(Bytes::from_static(b"2")));
    assert_eq!(store.get(b"b").expect("get"), None);
}

/// A key of a group's state.
fn key_of(group: GroupId, rest: &[u8]) -> Vec<u8> {
    [&group.0.to_be_bytes(), rest].concat()
}

fn all_of(pin: &dyn StateRead) -> Vec<(Vec<u8>, Bytes)> {
    pin.scan(b"", &[0xff; 9], usize::MAX).expect("scan")
}

fn a_pin_shows_one_group_and_no_other_key(store: &dyn Storage) {
    // A group whose number ends with a zero: a key of one byte is in its partition, and not the group's.
    let groups = [GroupId(0), GroupId(2), A, GroupId(4), GroupId(0x0300), B];
    let mut keys: Vec<Vec<u8>> = vec![vec![], vec![0], vec![3], vec![0xff]];
    keys.extend(groups.iter().flat_map(|group| [b"".as_slice(), b"a", b"\xff"].map(|rest| key_of(*group, rest))));
    let value = Bytes::from_static(b"v");
    must(
        store,
        Write::State(keys.iter().filter(|key| !key.is_empty()).map(|k| (k.clone(), Some(value.clone()))).collect()),
    );
    for group in groups {
        let pin = store.pin(group);
        let is_theirs = |key: &[u8]| key.starts_with(&group.0.to_be_bytes());
        let theirs = [b"".as_slice(), b"a", b"\xff"].map(|rest| (key_of(group, rest), value.clone()));
        assert_eq!(all_of(pin.as_ref()), theirs, "{group:?}");
        for key in &keys {
            assert_eq!(pin.get(key).expect("get").is_some(), is_theirs(key), "{group:?}: {key:02x?}");
        }
    }
    assert_eq!(all_of(store.pin(GroupId(7)).as_ref()), []);
}

fn a_pin_keeps_showing_the_moment_it_was_taken(store: &dyn Storage) {
    let key = |n: u8| key_of(A, &[b'k', n]);
    let put = |n: u8, round: u8| (key(n), Some(Bytes::from(vec![round; 1000])));
    let empty = store.pin(A);
    for round in 0..3 {
        must(store, Write::State((0..40).map(|n| put(n, round)).collect()));
    }
    must(store, Write::State((0..40).step_by(4).map(|n| (key(n), None)).collect()));
    let pin = store.pin(A);
    let then: Vec<_> = (0..40).filter(|n| n % 4 != 0).map(|n| (key(n), Bytes::from(vec![2; 1000]))).collect();
    // So many that they are merged, here and there, with what the pin reads.
    for round in 3..100 {
        let (overwritten, deleted) = (put(round % 40, round), (key((round + 20) % 40), None));
        must(store, Write::State(vec![overwritten, deleted, put(100 + round, round)]));
        assert_eq!(all_of(pin.as_ref()), then, "after write {round}");
        let one = key(round % 40);
        let expected = then.iter().find(|(key, _)| *key == one).map(|(_, value)| value.clone());
        assert_eq!(pin.get(&one).expect("get"), expected, "after write {round}");
    }
    must(store, Write::State((0..=255).map(|n| (key(n), None)).collect()));
    assert_eq!(pin.scan(&key(5), &key(20), 4).expect("scan"), then[3..7], "from 5 on, 8 is deleted");
    assert_eq!(pin.scan(&key(20), &key(5), 4).expect("scan"), []);
    assert_eq!(all_of(pin.as_ref()), then);
    assert_eq!(all_of(empty.as_ref()), [], "there was nothing yet");
    assert_eq!(all_of(store.pin(A).as_ref()), [], "all of it is deleted by now");
}

fn queued_writes_are_visible_before_they_are_durable(factory: Factory<'_>) {
    let faults = Faults::armed();
    let store = factory(&Options::default(), faults.clone());
    must(store.as_ref(), append(A, 1..3, 1));
    faults.hold();
    let held = submit(store.as_ref(), append(A, 3..5, 1));
    wait_until("the first write is at its sync", || faults.is_holding());
    let queued = submit(store.as_ref(), Write::Truncate { group: A, from: 4 });
    let more = submit(store.as_ref(), append(A, 4..7, 2));
    let vote = submit(store.as_ref(), Write::Vote { group: A, vote: Bytes::from_static(b"v") });
    let expected = [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2), (6, 2)];
    assert_eq!(terms(store.as_ref(), A), expected);
    assert_eq!(store.group(A).vote, Some(Bytes::from_static(b"v")));
    let purge = submit(store.as_ref(), Write::Purge { group: A, upto: 2, mark: Bytes::new() });
    assert_eq!(terms(store.as_ref(), A), expected[2..]);
    for waiting in [&held, &queued, &more, &vote, &purge] {
        assert!(waiting.try_recv().is_err(), "answered before the sync");
    }
    faults.release();
    for waiting in [held, queued, more, vote, purge] {
        waiting.recv_timeout(DEADLINE).expect("never answered").expect("written");
    }
    assert_eq!(terms(store.as_ref(), A), expected[2..]);
}

fn completions_come_in_order_and_after_the_sync(factory: Factory<'_>) {
    let faults = Faults::armed();
    let store = factory(&Options::default(), faults.clone());
    faults.hold();
    let (tx, rx) = mpsc::channel();
    for number in 1..=50u64 {
        let tx = tx.clone();
        let what = if number == 25 {
            append(A, 1000..1001, 1)
        } else {
            append(GroupId(number as u16 % 4 + 10), number..number, 1)
        };
        let what = if number == 1 { append(A, 1..2, 1) } else { what };
        store.submit(what, Box::new(move |result| drop(tx.send((number, result)))));
    }
    assert!(rx.try_recv().is_err());
    faults.release();
    for number in 1..=50 {
        let (found, result) = rx.recv_timeout(DEADLINE).expect("never answered");
        assert_eq!(found, number);
        assert_eq!(matches!(result, Err(Error::Refused { .. })), number == 25, "{number}: {result:?}");
    }
}

fn a_full_queue_blocks_until_it_drains(factory: Factory<'_>) {
    let options = Options { queue_writes_max: 4, ..Options::default() };
    let faults = Faults::armed();
    let store = factory(&options, faults.clone());
    faults.hold();
    let mut waiting = vec![submit(store.as_ref(), append(A, 1..2, 1))];
    wait_until("the first write is at its sync", || faults.is_holding());
    waiting.extend((2..6).map(|i| submit(store.as_ref(), append(A, i..i + 1, 1))));
    let theirs = store.clone();
    let (tx, returned) = mpsc::channel();
    let blocked = std::thread::spawn(move || {
        let waiting = submit(theirs.as_ref(), append(A, 6..7, 1));
        let _ = tx.send(());
        waiting.recv_timeout(DEADLINE)
    });
    assert!(returned.recv_timeout(Duration::from_millis(100)).is_err(), "the queue took a fifth write");
    assert_eq!(store.group(A).entries, 1..6, "a write that is blocked is not queued");
    faults.release();
    returned.recv_timeout(DEADLINE).expect("still blocked after the queue has drained");
    blocked.join().expect("joined").expect("answered").expect("written");
    waiting.into_iter().for_each(|w| w.recv_timeout(DEADLINE).expect("answered").expect("written"));
    assert_eq!(store.group(A).entries, 1..7);
}

fn a_failed_sync_poisons_the_store(factory: Factory<'_>) {
    let faults = Faults::armed();
    let store = factory(&Options::default(), faults.clone());
    must(store.as_ref(), append(A, 1..2, 1));
    faults.fail_next("no space left on device");
    faults.hold();
    let failing = submit(store.as_ref(), append(A, 2..3, 1));
    wait_until("the write is at its sync", || faults.is_holding());
    let queued = submit(store.as_ref(), append(B, 1..2, 1));
    faults.release();
    let poisoned = |result: Result<(), Error>| match result {
        Err(Error::Poisoned { detail }) => assert!(detail.contains("no space left"), "{detail}"),
        other => panic!("expected poison, got {other:?}"),
    };
    poisoned(failing.recv_timeout(DEADLINE).expect("answered"));
    poisoned(queued.recv_timeout(DEADLINE).expect("answered"));
    poisoned(write(store.as_ref(), Write::State(vec![put("a", "1")])));
    poisoned(write(store.as_ref(), append(A, 3..4, 1)));
}

fn dropping_the_store_completes_what_is_queued(factory: Factory<'_>) {
    let faults = Faults::armed();
    let store = factory(&Options::default(), faults.clone());
    faults.hold();
    let waiting: Vec<_> = (1..20).map(|i| submit(store.as_ref(), append(A, i..i + 1, 1))).collect();
    drop(store);
    waiting.into_iter().for_each(|w| w.recv_timeout(DEADLINE).expect("answered").expect("written"));
}
