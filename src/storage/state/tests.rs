//! The store against a map, with merges and reopening in between.

use super::*;
use crate::storage::pipeline::Poison;
use compactor::{Compactor, Work};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    collections::{BTreeSet, VecDeque},
    fs::File,
};

fn open(dir: &std::path::Path) -> (sled::Db, StateStore) {
    let config = sled::Config::new().path(dir).segment_size(1 << 20).flush_every_ms(None);
    let db = crate::storage::recover::open_sled(dir, &config).unwrap();
    let store = StateStore::open(db.open_tree("state").unwrap()).unwrap();
    (db, store)
}

fn compactor(dir: &std::path::Path, db: &sled::Db, store: &StateStore) -> (Compactor, Poison) {
    let (db, store, poison) = (db.clone(), store.clone(), Poison::default());
    let file = File::open(dir.join("db")).unwrap();
    (Compactor::start(Work { db, store, file, poison: poison.clone() }).unwrap(), poison)
}

fn any_change(random: &mut StdRng) -> StateChange {
    let key = format!("{}:{:03}", random.random_range(0..3), random.random_range(0..300)).into_bytes();
    let length = if random.random_range(0..200) == 0 { 250_000 } else { random.random_range(0..600) };
    let value = (random.random_range(0..4) > 0).then(|| Bytes::from(vec![random.random::<u8>(); length]));
    (key, value)
}

#[test]
fn random_writes_read_back_through_merges_and_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = StdRng::seed_from_u64(11);
    let mut model = BTreeMap::new();
    for life in 0..4 {
        let (db, store) = open(dir.path());
        let (compactor, poison) = compactor(dir.path(), &db, &store);
        let mut pins = VecDeque::new();
        for round in 0..60 {
            let changes: Vec<StateChange> = (0..random.random_range(1..80)).map(|_| any_change(&mut random)).collect();
            store.apply(&changes).unwrap();
            for (key, value) in changes {
                match value {
                    Some(value) => model.insert(key, value),
                    None => model.remove(&key),
                };
            }
            compactor.wake();
            let key = format!("{}:{:03}", random.random_range(0..3), random.random_range(0..300)).into_bytes();
            assert_eq!(store.get(&key).unwrap(), model.get(&key).cloned(), "life {life}, round {round}");
            let (start, limit) = (key, random.random_range(0..50));
            let expected: Vec<_> =
                model.range(start.clone()..).take(limit).map(|(k, v)| (k.clone(), v.clone())).collect();
            assert_eq!(store.scan(&start..b"~", limit).unwrap(), expected, "life {life}, round {round}");
            if round % 4 == 0 {
                let group = [b'0' + random.random_range(0..3), b':'];
                let then = model.range(group.to_vec()..).take_while(|(key, _)| key.starts_with(&group));
                let then: Vec<_> = then.map(|(k, v)| (k.clone(), v.clone())).collect();
                pins.push_back((store.pin(GroupId(u16::from_be_bytes(group))), then));
                if pins.len() > 4 {
                    pins.pop_front();
                }
            }
            for (pin, then) in &pins {
                assert_eq!(pin.scan(b""..b"~", usize::MAX).unwrap(), *then, "life {life}, round {round}");
            }
        }
        drop((compactor, pins));
        assert!(poison.lock().is_none());
        db.flush().unwrap();
    }
    let (_db, store) = open(dir.path());
    let all: Vec<_> = model.into_iter().collect();
    assert_eq!(store.scan(b""..b"~", usize::MAX).unwrap(), all);
}

#[test]
fn merging_leaves_few_runs_and_none_of_the_blocks_of_the_old_ones() {
    let dir = tempfile::tempdir().unwrap();
    let (db, store) = open(dir.path());
    let change = |n: u32| (format!("k{n:05}").into_bytes(), Some(Bytes::from(vec![7; 100])));
    for n in 0..200 {
        store.apply(&[change(n % 50), change(n)]).unwrap();
    }
    // Every pair deleted: nothing is left of them once the oldest run takes part.
    store.apply(&(0..200).map(|n| (change(n).0, None)).collect::<Vec<_>>()).unwrap();
    let (compactor, poison) = compactor(dir.path(), &db, &store);
    compactor.wake();
    crate::storage::conformance::wait_until("all runs are merged", || {
        store.partitions().iter().all(|partition| store.list(*partition).len() < 4)
    });
    drop(compactor);
    assert!(poison.lock().is_none());
    assert_eq!(store.scan(b"".as_slice()..b"~", 10).unwrap(), []);
    assert_eq!(stored(&store), named(&store));
}

#[test]
fn after_a_failed_sync_no_run_goes_for_another_one() {
    let dir = tempfile::tempdir().unwrap();
    let (db, store) = open(dir.path());
    for n in 0..200_u32 {
        store.apply(&[(b"key".to_vec(), Some(Bytes::from(n.to_le_bytes().to_vec())))]).unwrap();
    }
    let before = named(&store);
    let (compactor, poison) = compactor(dir.path(), &db, &store);
    let failed = crate::storage::Error::Poisoned { detail: "what was written may be lost".into() };
    *poison.lock() = Some(failed);
    compactor.wake();
    drop(compactor);
    assert_eq!(named(&store), before);
    assert!(before.is_subset(&stored(&store)), "all of them are there");
}

/// The runs that the lists name.
fn named(store: &StateStore) -> BTreeSet<u64> {
    store.partitions().into_iter().flat_map(|partition| ids(&store.list(partition))).collect()
}

fn ids(list: &List) -> BTreeSet<u64> {
    list.iter().map(|run| run.entry.id).collect()
}

/// The runs that have blocks.
fn stored(store: &StateStore) -> BTreeSet<u64> {
    store.tree().scan_prefix([run::CHUNK]).keys().filter_map(|key| run::run_of(&key.unwrap())).collect()
}

/// The group of the keys that [`numbered`] makes.
const K0: GroupId = GroupId(u16::from_be_bytes(*b"k0"));

fn numbered(n: usize, fill: u8) -> StateChange {
    (format!("k0{n:05}").into_bytes(), Some(Bytes::from(vec![fill; 100])))
}

fn merge_all_of(compactor: &Compactor, store: &StateStore, pin: &Pin) {
    crate::storage::conformance::wait_until("every run of the pin is merged away", || {
        compactor.wake();
        ids(&pin.list).is_disjoint(&named(store))
    });
}

#[test]
fn a_pin_outlives_the_merges_of_all_that_it_reads_and_its_blocks_go_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let (db, store) = open(dir.path());
    (0..20).for_each(|n| store.apply(&[numbered(n, 1), numbered(n + 1, 1)]).unwrap());
    let (pin, then) = (store.pin(K0), store.scan(b"k0"..b"k1", 100).unwrap());
    assert_eq!((ids(&pin.list).len(), then.len()), (20, 21));
    let (compactor, poison) = compactor(dir.path(), &db, &store);
    merge_all_of(&compactor, &store, &pin);
    // What came after it is merged again and again, and goes without waiting for it.
    for n in 0..100 {
        store.apply(&[numbered(n % 30, 2), (numbered((n + 15) % 30, 0).0, None)]).unwrap();
        compactor.wake();
    }
    crate::storage::conformance::wait_until("the pin keeps its own runs and no other", || {
        compactor.wake();
        store.list(*b"k0").len() < 8 && stored(&store) == &named(&store) | &ids(&pin.list)
    });
    assert_eq!(pin.scan(b"".as_slice()..b"~", 100).unwrap(), then);
    for (key, value) in &then {
        assert_eq!(pin.get(key).unwrap().as_ref(), Some(value));
    }
    drop(pin);
    crate::storage::conformance::wait_until("the pin's runs are deleted", || {
        compactor.wake();
        stored(&store) == named(&store)
    });
    drop(compactor);
    assert!(poison.lock().is_none());
}

#[test]
fn a_run_that_is_still_pinned_when_the_store_closes_is_deleted_at_the_next_open() {
    let dir = tempfile::tempdir().unwrap();
    let then = {
        let (db, store) = open(dir.path());
        (0..20).for_each(|n| store.apply(&[numbered(n, 1)]).unwrap());
        let (pin, then) = (store.pin(K0), store.scan(b"k0"..b"k1", 100).unwrap());
        let (compactor, poison) = compactor(dir.path(), &db, &store);
        merge_all_of(&compactor, &store, &pin);
        drop(compactor);
        assert!(poison.lock().is_none());
        assert_eq!(stored(&store), &named(&store) | &ids(&pin.list));
        assert_eq!(pin.scan(b"".as_slice()..b"~", 100).unwrap(), then);
        db.flush().unwrap();
        then
    };
    let (_db, store) = open(dir.path());
    assert_eq!(stored(&store), named(&store));
    assert_eq!(store.scan(b"k0"..b"k1", 100).unwrap(), then);
}

#[test]
fn blocks_that_no_list_names_are_deleted_at_open() {
    let dir = tempfile::tempdir().unwrap();
    {
        let (db, store) = open(dir.path());
        store.apply(&[(b"kept".to_vec(), Some(Bytes::from_static(b"1")))]).unwrap();
        let mut writer = run::Writer::new(store.tree(), store.next_run(), 1);
        writer.push(b"lost", Some(b"2")).unwrap();
        writer.finish().unwrap().unwrap();
        assert_eq!(store.tree().scan_prefix([run::CHUNK]).count(), 2);
        db.flush().unwrap();
    }
    let (_db, store) = open(dir.path());
    assert_eq!(store.tree().scan_prefix([run::CHUNK]).count(), 1);
    assert_eq!(store.get(b"kept").unwrap(), Some(Bytes::from_static(b"1")));
    assert_eq!(store.get(b"lost").unwrap(), None);
}
