//! Raft's requests as messages of the node links.

use super::{
    machine::SnapshotSource,
    types::{LogId, Membership, SnapshotData, Types, decode, encode},
};
use crate::{
    catalog::{ClusterId, NodeId},
    storage::GroupId,
    transport::{Class, Error, Transport},
};
use bytes::{BufMut, Bytes, BytesMut};
use openraft::{
    AnyError, OptionalSend,
    alias::{SnapshotOf, VoteOf},
    errors::{RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::{RPCOption, RaftNetworkFactory, v2::RaftNetworkV2},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
        VoteRequest, VoteResponse,
    },
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{io, sync::Arc, time::Duration};

/// Length of the header before every request between nodes: cluster id, service.
pub(crate) const HEADER_BYTES: usize = 17;

/// Sends requests to the nodes of one cluster. Every request begins with the cluster's id, so
/// that a node of another cluster can refuse it.
#[derive(Clone)]
pub struct PeerClient {
    pub transport: Arc<dyn Transport>,
    pub cluster: ClusterId,
}

/// What a request between nodes is for: the byte after the cluster id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Service {
    Raft = 1,
    Command = 2,
    Query = 3,
    /// What operators ask of a shard.
    Shard = 4,
    /// A part of a shard's list of entities.
    List = 5,
    /// Who owns the groups that have a replica there.
    Owners = 6,
}

impl PeerClient {
    pub async fn request(
        &self,
        to: NodeId,
        class: Class,
        service: Service,
        timeout: Duration,
        write_body: impl FnOnce(&mut BytesMut) + Send,
    ) -> Result<Bytes, Error> {
        let mut request = BytesMut::with_capacity(256);
        request.put_u128(self.cluster.0);
        request.put_u8(service as u8);
        write_body(&mut request);
        self.transport.request(to, class, request.freeze(), timeout).await
    }

    /// Splits a request into service and body; refuses other clusters' requests.
    pub fn open(&self, mut request: Bytes) -> Result<(Service, Bytes), String> {
        if request.len() < HEADER_BYTES {
            return Err("request shorter than its header".into());
        }
        let body = request.split_off(HEADER_BYTES);
        if request[..16] != self.cluster.0.to_be_bytes() {
            return Err(format!("this node belongs to cluster {}", self.cluster));
        }
        let service = match request[16] {
            1 => Service::Raft,
            2 => Service::Command,
            3 => Service::Query,
            4 => Service::Shard,
            5 => Service::List,
            6 => Service::Owners,
            other => return Err(format!("unknown service {other}")),
        };
        Ok((service, body))
    }
}

/// The kinds of Raft request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RpcKind {
    Append = 1,
    Vote = 2,
    PreVote = 3,
    Transfer = 4,
    SnapshotChunk = 5,
    SnapshotEnd = 6,
}

impl TryFrom<u8> for RpcKind {
    type Error = String;

    fn try_from(byte: u8) -> Result<Self, String> {
        Ok(match byte {
            1 => Self::Append,
            2 => Self::Vote,
            3 => Self::PreVote,
            4 => Self::Transfer,
            5 => Self::SnapshotChunk,
            6 => Self::SnapshotEnd,
            other => return Err(format!("unknown raft request {other}")),
        })
    }
}

/// One chunk of a snapshot. Chunks of a transfer come in order, from 0.
#[derive(Serialize, Deserialize)]
pub(super) struct SnapshotChunk {
    pub transfer: u64,
    pub sequence: u32,
    pub bytes: Bytes,
}

/// All chunks are there: install.
#[derive(Serialize, Deserialize)]
pub(super) struct SnapshotEnd {
    pub transfer: u64,
    pub chunks: u32,
    pub vote: VoteOf<Types>,
    pub last_log_id: Option<LogId>,
    pub membership: Membership,
}

/// `TransferLeaderRequest` has no public fields to serialize.
#[derive(Serialize, Deserialize)]
pub(super) struct Transfer {
    pub from: VoteOf<Types>,
    pub to: u64,
    pub last_log_id: Option<LogId>,
}

/// Splits a Raft request into its group, kind and body.
pub fn parse_raft(mut body: Bytes) -> Result<(GroupId, RpcKind, Bytes), String> {
    if body.len() < 3 {
        return Err("raft request shorter than its header".into());
    }
    let rest = body.split_off(3);
    let group = GroupId(u16::from_be_bytes([body[0], body[1]]));
    Ok((group, RpcKind::try_from(body[2])?, rest))
}

#[derive(Clone)]
pub(super) struct Factory {
    pub group: GroupId,
    pub peers: PeerClient,
    pub rpc_timeout: Duration,
    pub snapshot_chunk: usize,
    pub snapshot_timeout: Duration,
}

pub(super) struct Network {
    target: NodeId,
    factory: Factory,
}

impl RaftNetworkFactory<Types> for Factory {
    type Network = Network;

    async fn new_client(&mut self, target: u64, (): &()) -> Network {
        Network { target: NodeId(target), factory: self.clone() }
    }
}

impl Network {
    async fn call<A: Serialize, R: DeserializeOwned>(
        &self,
        kind: RpcKind,
        class: Class,
        argument: &A,
        timeout: Duration,
    ) -> Result<R, Unreachable<Types>> {
        let body = encode(argument).map_err(|e| unreachable(&e))?;
        let group = self.factory.group;
        let reply = self.factory.peers.request(self.target, class, Service::Raft, timeout, |out| {
            out.put_u16(group.0);
            out.put_u8(kind as u8);
            out.extend_from_slice(&body);
        });
        let reply = reply.await.map_err(|e| unreachable(&e))?;
        decode(&reply).map_err(|e| unreachable(&e))
    }

    async fn send_snapshot(
        &self,
        vote: VoteOf<Types>,
        meta: openraft::alias::SnapshotMetaOf<Types>,
        mut source: Box<dyn SnapshotSource>,
    ) -> Result<SnapshotResponse<Types>, Unreachable<Types>> {
        let (transfer, mut sequence) = (rand::random::<u64>(), 0);
        let timeout = Duration::from_secs(10);
        while let Some(bytes) = next_chunk(&mut source, self.factory.snapshot_chunk).map_err(|e| unreachable(&e))? {
            let chunk = SnapshotChunk { transfer, sequence, bytes };
            let () = self.call(RpcKind::SnapshotChunk, Class::Command, &chunk, timeout).await?;
            sequence += 1;
        }
        let end = SnapshotEnd {
            transfer,
            chunks: sequence,
            vote,
            last_log_id: meta.last_log_id,
            membership: meta.last_membership,
        };
        let vote = self.call(RpcKind::SnapshotEnd, Class::Command, &end, self.factory.snapshot_timeout).await?;
        Ok(SnapshotResponse::new(vote))
    }
}

fn next_chunk(source: &mut Box<dyn SnapshotSource>, bytes_max: usize) -> io::Result<Option<Bytes>> {
    source.next_chunk(bytes_max).map_err(io::Error::other)
}

fn unreachable<E: std::error::Error + 'static>(error: &E) -> Unreachable<Types> {
    Unreachable::new(error)
}

impl RaftNetworkV2<Types> for Network {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        Ok(self.call(RpcKind::Append, Class::Raft, &request, self.factory.rpc_timeout).await?)
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        _option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        Ok(self.call(RpcKind::Vote, Class::Raft, &request, self.factory.rpc_timeout).await?)
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        _option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        Ok(self.call(RpcKind::PreVote, Class::Raft, &request, self.factory.rpc_timeout).await?)
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<Types>,
        snapshot: SnapshotOf<Types, SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let SnapshotData::Source(source) = snapshot.snapshot else {
            let error = AnyError::error("a received snapshot cannot be sent");
            return Err(StreamingError::Unreachable(Unreachable::new(&error)));
        };
        let transfer = self.send_snapshot(vote, snapshot.meta, source);
        tokio::select! {
            result = tokio::time::timeout(self.factory.snapshot_timeout, transfer) => match result {
                Ok(response) => Ok(response.map_err(StreamingError::Unreachable)?),
                Err(elapsed) => Err(StreamingError::Unreachable(Unreachable::new(&elapsed))),
            },
            closed = cancel => Err(StreamingError::Closed(closed)),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        _option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        let transfer = Transfer {
            from: *request.from_leader(),
            to: *request.to_node_id(),
            last_log_id: request.last_log_id().copied(),
        };
        let () = self.call(RpcKind::Transfer, Class::Raft, &transfer, self.factory.rpc_timeout).await?;
        Ok(Ok(()))
    }
}
