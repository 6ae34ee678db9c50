//! Raft's messages under the fuzzer: see `crate::fuzzing`.
//!
//! They are read, and no more: peers hold the cluster's secret, and what a lying one could make of a
//! Raft group is not promised to be harmless.

use super::{
    Position, RpcKind,
    network::{SnapshotChunk, SnapshotEnd, Transfer},
    parse_raft,
    types::{Entry, Types, decode, encode, from_record, log_id, to_record},
};
use crate::storage::EntryRecord;
use bytes::Bytes;
use openraft::{
    EntryPayload, Vote,
    alias::VoteOf,
    entry::RaftEntry,
    raft::{AppendEntriesRequest, VoteRequest},
};
use serde::{Serialize, de::DeserializeOwned};

/// First a byte: 0 in front of a log entry's payload, others in front of a request for a group.
pub fn raft(bytes: &[u8]) {
    let Some((what, bytes)) = bytes.split_first() else { return };
    if *what == 0 {
        return entry(bytes);
    }
    let Ok((_, kind, body)) = parse_raft(Bytes::copy_from_slice(bytes)) else { return };
    match kind {
        RpcKind::Append => keeps::<AppendEntriesRequest<Types>>(&body),
        RpcKind::Vote | RpcKind::PreVote => keeps::<VoteRequest<Types>>(&body),
        RpcKind::Transfer => keeps::<Transfer>(&body),
        RpcKind::SnapshotChunk => keeps::<SnapshotChunk>(&body),
        RpcKind::SnapshotEnd => keeps::<SnapshotEnd>(&body),
    }
}

/// What can be read is written so that it reads the same.
fn keeps<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    let Ok(value) = decode::<T>(bytes) else { return };
    let written = encode(&value).expect("in memory");
    let again = decode::<T>(&written).expect("it was just written");
    assert_eq!(encode(&again).expect("in memory"), written);
}

fn entry(payload: &[u8]) {
    let record = EntryRecord { index: 1, term: 1, payload: Bytes::copy_from_slice(payload) };
    let Ok(entry) = from_record(record) else { return };
    let written = to_record(&entry).expect("in memory");
    let again = from_record(written.clone()).expect("it was just written");
    assert_eq!(to_record(&again).expect("in memory"), written);
}

/// The first bytes to try.
pub fn seeds() -> Vec<Vec<u8>> {
    let vote: VoteOf<Types> = Vote::new(3, 1);
    let last = Some(log_id(Position { term: 2, index: 7 }));
    let record = |payload: &'static [u8]| EntryRecord { index: 8, term: 3, payload: Bytes::from_static(payload) };
    let entries =
        vec![from_record(record(b"\x01a command")).expect("a command"), from_record(record(b"\0")).expect("blank")];
    let append = AppendEntriesRequest::<Types> { vote, prev_log_id: last, entries, leader_commit: last };
    let end = SnapshotEnd {
        transfer: 1,
        chunks: 2,
        vote,
        last_log_id: last,
        membership: super::types::Membership::default(),
    };
    let chunk = SnapshotChunk { transfer: 1, sequence: 0, bytes: Bytes::from_static(b"bytes") };
    let bodies = [
        (RpcKind::Append, encode(&append)),
        (RpcKind::Vote, encode(&VoteRequest::<Types>::new(vote, last))),
        (RpcKind::Transfer, encode(&Transfer { from: vote, to: 2, last_log_id: last })),
        (RpcKind::SnapshotChunk, encode(&chunk)),
        (RpcKind::SnapshotEnd, encode(&end)),
    ];
    let request = |(kind, body): (RpcKind, std::io::Result<Vec<u8>>)| {
        [&[1, 0, 1, kind as u8][..], &body.expect("in memory")].concat()
    };
    let mut seeds: Vec<Vec<u8>> = bodies.into_iter().map(request).collect();
    let membership = EntryPayload::Membership(openraft::Membership::new_with_defaults(vec![[1, 2, 3].into()], []));
    let entry = Entry::new(log_id(Position { term: 3, index: 9 }), membership);
    seeds.push([&[0][..], &to_record(&entry).expect("in memory").payload].concat());
    seeds
}
