//! Hands committed entries to a [`Machine`] and its snapshots to openraft.

use super::{
    machine::{Applied, Machine, SnapshotSink, SnapshotSource},
    types::{LogId, Membership, Reply, SnapshotData, Types, committed, encode, position, progress},
};
use crate::storage;
use futures::{FutureExt, Stream, StreamExt};
use openraft::{
    OptionalSend, RaftSnapshotBuilder,
    alias::{SnapshotMetaOf, SnapshotOf},
    storage::{EntryResponder, RaftStateMachine},
};
use std::{io, sync::Arc};
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Entries applied under one lock of the machine.
const APPLY_BATCH_MAX: usize = 64;

#[derive(Clone)]
pub(super) struct StateMachine {
    machine: Arc<dyn Machine>,
    /// Last, so that it goes after what it stands for.
    _alive: TaskTrackerToken,
}

impl StateMachine {
    pub fn new(machine: Arc<dyn Machine>, alive: TaskTrackerToken) -> Self {
        Self { machine, _alive: alive }
    }

    /// Copies a snapshot that was never sent anywhere.
    async fn stage(&self, mut source: Box<dyn SnapshotSource>) -> io::Result<Box<dyn SnapshotSink>> {
        const CHUNK_BYTES: usize = 64 << 10;
        let mut sink = self.machine.receive().await.map_err(to_io)?;
        while let Some(chunk) = source.next_chunk(CHUNK_BYTES).map_err(to_io)? {
            sink.put(chunk).await.map_err(to_io)?;
        }
        Ok(sink)
    }

    fn apply_batch(&self, batch: &mut Vec<EntryResponder<Types>>) -> io::Result<()> {
        let mut entries = Vec::with_capacity(batch.len());
        let mut responders = Vec::with_capacity(batch.len());
        for (entry, responder) in batch.drain(..) {
            entries.push(committed(entry)?);
            responders.push(responder);
        }
        let replies = self.machine.apply(entries).map_err(to_io)?;
        for (responder, reply) in responders.into_iter().zip(replies) {
            if let Some(responder) = responder {
                responder.send(Reply(reply));
            }
        }
        Ok(())
    }
}

impl RaftStateMachine<Types> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, Membership)> {
        progress(&self.machine.applied())
    }

    async fn apply<S>(&mut self, entries: S) -> io::Result<()>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        let mut entries = entries.fuse();
        let mut batch = Vec::new();
        while let Some(first) = entries.next().await {
            batch.push(first?);
            // And whatever else is committed already.
            while batch.len() < APPLY_BATCH_MAX
                && let Some(Some(next)) = entries.next().now_or_never()
            {
                batch.push(next?);
            }
            self.apply_batch(&mut batch)?;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMetaOf<Types>, data: SnapshotData) -> io::Result<()> {
        let received = match data {
            SnapshotData::Staged(received) => received,
            SnapshotData::Source(source) => self.stage(source).await?,
        };
        let applied =
            Applied { position: meta.last_log_id.as_ref().map(position), membership: encode(&meta.last_membership)? };
        self.machine.install(received, applied).await.map_err(to_io)
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf<Types, SnapshotData>>> {
        let Some(source) = self.machine.snapshot().await.map_err(to_io)? else {
            return Ok(None);
        };
        let meta = meta_of(&source.applied())?;
        Ok(Some(SnapshotOf::<Types, SnapshotData> { meta, snapshot: SnapshotData::Source(source) }))
    }
}

impl RaftSnapshotBuilder<Types> for StateMachine {
    type SnapshotData = SnapshotData;

    /// A checkpoint is a snapshot: it lies in the state store and is read only if a replica asks.
    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<Types, SnapshotData>> {
        self.machine.checkpoint().await.map_err(to_io)?;
        self.get_current_snapshot().await?.ok_or_else(|| io::Error::other("no checkpoint after a checkpoint"))
    }
}

fn meta_of(applied: &Applied) -> io::Result<SnapshotMetaOf<Types>> {
    let (last_log_id, last_membership) = progress(applied)?;
    Ok(SnapshotMetaOf::<Types> { last_log_id, last_membership })
}

fn to_io(error: storage::Error) -> io::Error {
    io::Error::other(error)
}
