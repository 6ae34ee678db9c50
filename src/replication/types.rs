//! The openraft type configuration, and how entries become journal records.

use super::{
    COMMAND_TAG,
    machine::{Applied, CommittedEntry, EntryKind, Position, SnapshotSink, SnapshotSource},
};
use crate::storage::EntryRecord;
use bytes::Bytes;
use openraft::{
    EntryPayload, RaftTypeConfig, Vote,
    alias::{DefaultEntryOf, LogIdOf, StoredMembershipOf},
    entry::RaftEntry,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{fmt, io};

/// A proposed command: opaque bytes that begin with [`COMMAND_TAG`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Command(pub Bytes);

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command of {} bytes", self.0.len())
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What [`super::Machine::apply`] answered for an entry.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Reply(pub Bytes);

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "reply of {} bytes", self.0.len())
    }
}

type LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Types;

impl RaftTypeConfig for Types {
    type D = Command;
    type R = Reply;
    type NodeId = u64;
    type Node = ();
    type Term = u64;
    type LeaderId = LeaderId;
    type Vote = Vote<LeaderId>;
    type Payload = EntryPayload<Command, u64, ()>;
    type Entry = DefaultEntryOf<Self>;
    type Responder<T>
        = openraft::impls::OneshotResponder<Self, T>
    where
        T: Send + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: Send + 'static;
    type AsyncRuntime = openraft::impls::TokioRuntime;
    type ErrorSource = openraft::AnyError;
}

pub(super) type Entry = DefaultEntryOf<Types>;
pub(super) type LogId = LogIdOf<Types>;
pub(super) type Membership = StoredMembershipOf<Types>;

/// A snapshot on its way out (read from the checkpoint) or in (staged beside the state).
pub(super) enum SnapshotData {
    Source(Box<dyn SnapshotSource>),
    Staged(Box<dyn SnapshotSink>),
}

const BLANK_TAG: u8 = 0;
const MEMBERSHIP_TAG: u8 = 2;

const CODEC: bincode::config::Configuration = bincode::config::standard();

pub(super) fn encode<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    bincode::serde::encode_to_vec(value, CODEC).map_err(io::Error::other)
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    let config = CODEC.with_limit::<{ 64 << 20 }>();
    let (value, read) =
        bincode::serde::decode_from_slice(bytes, config).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
    if read != bytes.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "bytes left over"));
    }
    Ok(value)
}

pub(super) fn position(id: &LogId) -> Position {
    Position { term: id.committed_leader_id().term, index: id.index() }
}

pub(super) fn log_id(position: Position) -> LogId {
    LogId::new(position.term.into(), position.index)
}

pub(super) fn to_record(entry: &Entry) -> io::Result<EntryRecord> {
    let payload = match &entry.payload {
        EntryPayload::Blank => Bytes::from_static(&[BLANK_TAG]),
        EntryPayload::Normal(command) => command.0.clone(),
        EntryPayload::Membership(membership) => {
            let mut bytes = vec![MEMBERSHIP_TAG];
            bytes.extend(encode(membership)?);
            bytes.into()
        }
    };
    let at = position(&entry.log_id());
    Ok(EntryRecord { index: at.index, term: at.term, payload })
}

pub(super) fn from_record(record: EntryRecord) -> io::Result<Entry> {
    let payload = match record.payload.first() {
        Some(&BLANK_TAG) => EntryPayload::Blank,
        Some(&COMMAND_TAG) => EntryPayload::Normal(Command(record.payload)),
        Some(&MEMBERSHIP_TAG) => EntryPayload::Membership(decode(&record.payload[1..])?),
        other => {
            let detail = format!("entry {} begins with {other:?}", record.index);
            return Err(io::Error::new(io::ErrorKind::InvalidData, detail));
        }
    };
    Ok(Entry::new(log_id(Position { term: record.term, index: record.index }), payload))
}

pub(super) fn committed(entry: Entry) -> io::Result<CommittedEntry> {
    let id = entry.log_id();
    let kind = match entry.payload {
        EntryPayload::Blank => EntryKind::Blank,
        EntryPayload::Normal(command) => EntryKind::Command(command.0),
        EntryPayload::Membership(membership) => EntryKind::Membership(encode(&Membership::new(Some(id), membership))?),
    };
    Ok(CommittedEntry { position: position(&id), kind })
}

/// Splits a machine's state of progress into openraft's terms.
pub(super) fn progress(applied: &Applied) -> io::Result<(Option<LogId>, Membership)> {
    let membership = match applied.membership.as_slice() {
        [] => Membership::default(),
        bytes => decode(bytes)?,
    };
    Ok((applied.position.map(log_id), membership))
}
