//! Snapshots: the state store's pairs of one generation, read out and staged in bounded chunks.

use super::{gate::ReadPass, keys};
use crate::{
    entity::codec,
    replication::{Applied, SnapshotSink, SnapshotSource},
    storage::{Error, GroupId, StateChange, Storage, Write},
};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::sync::Arc;

/// Pairs read from the store at once.
const SCAN_STEP: usize = 256;

type Pairs = Vec<(Vec<u8>, Bytes)>;

/// Reads the last checkpoint. Holds the gate that keeps the next one from being written.
pub struct Source {
    pub storage: Arc<dyn Storage>,
    pub prefix: Vec<u8>,
    pub applied: Applied,
    pub next: Vec<u8>,
    pub _gate: ReadPass,
}

impl SnapshotSource for Source {
    fn applied(&self) -> Applied {
        self.applied.clone()
    }

    fn next_chunk(&mut self, bytes_max: usize) -> Result<Option<Bytes>, Error> {
        let mut chunk: Pairs = Vec::new();
        let mut bytes = 0;
        let start = [self.prefix.as_slice(), &self.next].concat();
        for (key, value) in self.storage.scan(&start, &end_of(&self.prefix), SCAN_STEP)? {
            bytes += key.len() + value.len();
            if bytes > bytes_max && !chunk.is_empty() {
                break;
            }
            let key = key[self.prefix.len()..].to_vec();
            self.next = [key.as_slice(), &[0]].concat();
            chunk.push((key, value));
        }
        if chunk.is_empty() {
            return Ok(None);
        }
        let encoded = codec::encode("snapshot chunk", &chunk);
        let encoded = encoded.map_err(|e| Error::Corrupt { place: "snapshot".into(), detail: e.to_string() })?;
        Ok(Some(encoded.into()))
    }
}

/// Stages a received snapshot under a generation of its own.
pub struct Sink {
    pub storage: Arc<dyn Storage>,
    pub prefix: Vec<u8>,
    pub generation: u32,
}

impl SnapshotSink for Sink {
    fn put(&mut self, chunk: Bytes) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            let pairs: Pairs = codec::decode("snapshot chunk", &chunk)
                .map_err(|e| Error::Corrupt { place: "received snapshot".into(), detail: e.to_string() })?;
            let staged = |(key, value): (Vec<u8>, Bytes)| ([self.prefix.as_slice(), &key].concat(), Some(value));
            let changes: Vec<StateChange> = pairs.into_iter().map(staged).collect();
            self.storage.write(Write::State(changes)).await
        })
    }

    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any + Send> {
        self
    }
}

/// Deletes everything of one generation, in steps.
pub async fn delete_generation(storage: &Arc<dyn Storage>, group: GroupId, generation: u32) -> Result<(), Error> {
    let prefix = keys::prefix(group, generation);
    loop {
        let pairs = storage.scan(&prefix, &end_of(&prefix), SCAN_STEP)?;
        if pairs.is_empty() {
            return Ok(());
        }
        let deletions = pairs.into_iter().map(|(key, _)| (key, None)).collect();
        storage.write(Write::State(deletions)).await?;
    }
}

/// The first key after every key with this prefix. Prefixes end with a generation, which is far
/// from its maximum.
fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    end.push(0xff);
    end
}
