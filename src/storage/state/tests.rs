//! The store against a map, with merges and reopening in between.

use super::*;
use crate::storage::pipeline::Poison;
use compactor::{Compactor, Work};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::fs::File;

fn open(dir: &std::path::Path) -> (sled::Db, StateStore) {
    let db = sled::Config::new().path(dir).segment_size(1 << 20).flush_every_ms(None).open().unwrap();
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
        }
        drop(compactor);
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
    let named: HashSet<u64> =
        store.partitions().iter().flat_map(|p| store.list(*p).iter().map(|r| r.entry.id).collect::<Vec<_>>()).collect();
    let stored: HashSet<u64> =
        store.tree().scan_prefix([run::CHUNK]).keys().filter_map(|key| run::run_of(&key.unwrap())).collect();
    assert_eq!(stored, named);
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
