//! Tests of the stores as wholes; adversity is in its own files.

mod crash;
mod damage;
mod model;
mod reopen;

use super::{conformance::*, *};
use std::{path::Path, sync::Arc};

fn open(dir: &Path) -> Result<SledStorage, Error> {
    SledStorage::open(dir, &Options::default())
}

#[test]
fn the_store_on_sled_conforms() {
    let root = tempfile::tempdir().unwrap();
    let number = std::cell::Cell::new(0);
    run_all(&|options, faults| {
        number.set(number.get() + 1);
        let dir = root.path().join(number.get().to_string());
        Arc::new(SledStorage::open_with_faults(&dir, options, faults).unwrap())
    });
}

#[test]
fn the_store_in_memory_conforms() {
    run_all(&|options, faults| Arc::new(MemoryStorage::with_faults(options, faults)));
}

#[test]
fn a_crash_of_the_memory_store_loses_exactly_what_was_not_flushed() {
    let faults = Faults::armed();
    let group = GroupId(1);
    let store = MemoryStorage::with_faults(&Options::default(), faults.clone());
    write(&store, append(group, 1..3, 1)).unwrap();
    write(&store, Write::State(vec![(b"k".to_vec(), Some(Bytes::from_static(b"old")))])).unwrap();
    faults.hold();
    let lost = submit(&store, append(group, 3..5, 1));
    let also_lost = submit(&store, Write::State(vec![(b"k".to_vec(), Some(Bytes::from_static(b"new")))]));
    assert_eq!(store.group(group).entries, 1..5);
    let reopened = store.crash();
    assert!(lost.recv().unwrap().is_err() && also_lost.recv().unwrap().is_err());
    assert!(write(&store, append(group, 5..6, 1)).is_err(), "the crashed store is gone");
    assert_eq!(reopened.group(group).entries, 1..3);
    assert_eq!(reopened.get(b"k").unwrap(), Some(Bytes::from_static(b"old")));
    write(&reopened, append(group, 3..4, 2)).unwrap();
    assert_eq!(reopened.crash().group(group).entries, 1..4);
}

/// A checkpoint used to keep the journal waiting for seconds, until owners lost their elections.
#[test]
fn a_state_write_that_takes_long_holds_up_neither_the_journal_nor_readers() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Faults::armed();
    let store = SledStorage::open_with_faults(dir.path(), &Options::default(), faults.clone()).unwrap();
    faults.hold_state();
    let held = submit(&store, Write::State(vec![(b"k".to_vec(), Some(Bytes::from_static(b"v")))]));
    wait_until("the state write is at its sync", || faults.is_holding());
    write(&store, append(GroupId(1), 1..3, 1)).unwrap();
    assert_eq!(store.entries(GroupId(1), 1..3).unwrap().len(), 2);
    assert_eq!(store.get(b"other").unwrap(), None);
    assert!(held.try_recv().is_err(), "answered before its sync");
    faults.release();
    held.recv().unwrap().unwrap();
}

#[test]
fn a_completion_that_panics_harms_nobody_else() {
    let store = MemoryStorage::new();
    store.submit(append(GroupId(1), 1..2, 1), Box::new(|_| panic!("on purpose")));
    write(&store, append(GroupId(1), 2..3, 1)).unwrap();
}

#[test]
fn a_completion_may_own_the_last_handle() {
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn Storage> = Arc::new(open(dir.path()).unwrap());
    let (tx, rx) = std::sync::mpsc::channel();
    let handle = store.clone();
    store.submit(
        append(GroupId(1), 1..2, 1),
        Box::new(move |result| {
            drop(handle);
            drop(tx.send(result));
        }),
    );
    drop(store);
    rx.recv().unwrap().unwrap();
}
