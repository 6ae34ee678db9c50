//! openraft's own conformance suite on this log store and on a shard's machine, over both
//! storages.

use super::{
    log_store::LogStore,
    state_machine::StateMachine,
    types::{Types, to_record},
};
use crate::{
    shard::{Registry, ShardMachine},
    storage::{self, GroupId, MemoryStorage, SledStorage, Storage},
};
use openraft::{
    StorageError,
    testing::log::{StoreBuilder, Suite},
};
use std::sync::Arc;
use tokio_util::task::TaskTracker;

const CACHE_BYTES: usize = 1 << 20;

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
