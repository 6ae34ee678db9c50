//! openraft's own conformance suite on this log store and on a shard's machine, over both
//! storages.

use super::{
    Group, Options, PeerClient,
    log_store::LogStore,
    state_machine::StateMachine,
    types::{Types, to_record},
};
use crate::{
    catalog::{ClusterId, NodeId},
    shard::{Registry, ShardMachine},
    storage::{
        self, Done, EntryRecord, Error, GroupId, GroupState, MemoryStorage, SledStorage, StateRead, Storage, Write,
    },
    transport::{Class, Counterpart, Handler, memory::Network},
};
use bytes::Bytes;
use futures::future::BoxFuture;
use openraft::{
    StorageError,
    testing::log::{StoreBuilder, Suite},
};
use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio_util::task::TaskTracker;

const CACHE_BYTES: usize = 1 << 20;

/// Panics instead of taking an entry, once it is told to: inside of openraft's core.
struct Fragile {
    store: MemoryStorage,
    breaks: AtomicBool,
}

impl Storage for Fragile {
    fn submit(&self, write: Write, done: Done) {
        let is_entry = matches!(write, Write::Append { .. });
        assert!(!is_entry || !self.breaks.load(Ordering::SeqCst), "broken on purpose");
        self.store.submit(write, done);
    }

    fn group(&self, group: GroupId) -> GroupState {
        self.store.group(group)
    }

    fn entries(&self, group: GroupId, range: Range<u64>) -> Result<Vec<EntryRecord>, Error> {
        self.store.entries(group, range)
    }

    fn segments_held(&self, group: GroupId) -> usize {
        self.store.segments_held(group)
    }

    fn pin(&self, group: GroupId) -> Arc<dyn StateRead> {
        self.store.pin(group)
    }
}

impl StateRead for Fragile {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        self.store.get(key)
    }

    fn scan(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Bytes)>, Error> {
        self.store.scan(start, end, limit)
    }
}

/// A node without peers is asked nothing.
struct Nobody;

impl Handler for Nobody {
    fn handle(&self, _: NodeId, _: Class, _: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        Box::pin(async { Err("nobody is here".into()) })
    }

    fn introduce(&self, _: Counterpart, _: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        Box::pin(async { Err("nobody is here".into()) })
    }
}

#[tokio::test]
async fn a_replica_whose_core_panics_has_stopped_and_does_not_linger() {
    let (id, me) = (GroupId(3), NodeId(1));
    let storage = Arc::new(Fragile { store: MemoryStorage::new(), breaks: AtomicBool::new(false) });
    let transport = Network::new().join("a", "a:1", Arc::new(Nobody));
    let peers = PeerClient { transport, cluster: ClusterId(7) };
    let machine = ShardMachine::open(id, storage.clone(), Arc::new(Registry::default()), 100).unwrap();
    let options = Options::default();
    let alive = TaskTracker::new().token();
    let group = Group::open(id, me, &options, peers, storage.clone(), Arc::new(machine), alive).await.unwrap();
    group.initialize(&[me]).await.unwrap();
    let mut leadership = group.leadership();
    leadership.wait_for(|now| now.is_me).await.unwrap();
    storage.breaks.store(true, Ordering::SeqCst);
    let command = Bytes::from_static(&[super::COMMAND_TAG]);
    if let Ok(proposed) = group.propose(command).await {
        assert!(proposed.done().await.is_err());
    }
    let why = tokio::time::timeout(Duration::from_secs(20), group.stopped()).await.expect("it tells");
    assert!(why.contains("panicked"), "{why}");
}

fn parts(storage: Arc<dyn Storage>) -> (LogStore, StateMachine) {
    let group = GroupId(3);
    let log = LogStore::open(group, storage.clone(), CACHE_BYTES, CACHE_BYTES, TaskTracker::new().token()).unwrap();
    let machine = ShardMachine::open(group, storage, Arc::new(Registry::default()), 100).unwrap();
    (log, StateMachine::new(Arc::new(machine), TaskTracker::new().token()))
}

struct OnMemory;

impl StoreBuilder<Types, LogStore, StateMachine, ()> for OnMemory {
    async fn build(&self) -> Result<((), LogStore, StateMachine), StorageError<Types>> {
        let (log, machine) = parts(Arc::new(MemoryStorage::new()));
        Ok(((), log, machine))
    }
}

struct OnSled;

impl StoreBuilder<Types, LogStore, StateMachine, tempfile::TempDir> for OnSled {
    async fn build(&self) -> Result<(tempfile::TempDir, LogStore, StateMachine), StorageError<Types>> {
        let dir = tempfile::tempdir().unwrap();
        let storage = SledStorage::open(dir.path(), &storage::Options::default()).unwrap();
        let (log, machine) = parts(Arc::new(storage));
        Ok((dir, log, machine))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_store_passes_the_conformance_suite_on_memory() {
    Suite::test_all(OnMemory).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_store_passes_the_conformance_suite_on_sled() {
    Suite::test_all(OnSled).await.unwrap();
}

#[test]
fn entries_become_records_and_come_back() {
    use super::types::{Command, from_record, log_id};
    use crate::replication::Position;
    use openraft::{EntryPayload, entry::RaftEntry};
    let id = log_id(Position { term: 3, index: 9 });
    let command = Command(bytes::Bytes::from_static(&[super::COMMAND_TAG, 7, 7]));
    for payload in [EntryPayload::Blank, EntryPayload::Normal(command)] {
        let entry = super::types::Entry::new(id, payload);
        assert_eq!(from_record(to_record(&entry).unwrap()).unwrap(), entry);
    }
    let foreign = storage::EntryRecord { index: 1, term: 1, payload: bytes::Bytes::from_static(&[99]) };
    assert!(from_record(foreign).is_err(), "a record of an unknown kind is refused");
}
