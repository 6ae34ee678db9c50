//! One Raft group on this node, in words that hide openraft.

use super::{
    Options,
    log_store::LogStore,
    machine::{Machine, Position, SnapshotSink},
    network::{Factory, PeerClient, RpcKind, SnapshotChunk, SnapshotEnd, Transfer},
    state_machine::StateMachine,
    types::{Command, SnapshotData, Types, decode, encode, position},
};
use crate::{
    catalog::NodeId,
    storage::{GroupId, Storage},
};
use bytes::Bytes;
use openraft::{
    Config, Raft, ReadPolicy, ServerState, SnapshotPolicy,
    alias::SnapshotOf,
    async_runtime::watch::WatchReceiver,
    errors::{ClientWriteError, InitializeError, RaftError},
    impls::OneshotResponder,
    raft::{AppendEntriesRequest, SnapshotResponse, TransferLeaderRequest, VoteRequest},
};
use std::{collections::BTreeMap, io, sync::Arc, time::Duration};
use tokio::sync::watch;
use tokio_util::task::task_tracker::TaskTrackerToken;

type RaftOf = Raft<Types, StateMachine>;

/// A group's replica on this node.
pub struct Group {
    id: GroupId,
    me: NodeId,
    pub(super) raft: RaftOf,
    machine: Arc<dyn Machine>,
    leadership: watch::Receiver<Leadership>,
    /// The snapshot that is being received, if any. A new transfer replaces an old one.
    incoming: tokio::sync::Mutex<Option<Incoming>>,
}

struct Incoming {
    transfer: u64,
    next: u32,
    sink: Box<dyn SnapshotSink>,
}

/// Who leads a group, as this node knows it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Leadership {
    pub term: u64,
    pub leader: Option<NodeId>,
    /// This node is the leader. It may serve once it has applied an entry of `term`.
    pub is_me: bool,
}

/// How far replicas are behind their leader.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lag {
    pub last_log_index: u64,
    pub applied_index: u64,
    /// Highest index known to be on each other replica (on the leader only).
    pub matched: BTreeMap<NodeId, u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Certainly not in the log.
    #[error("this node does not lead the group")]
    NotLeader { leader: Option<NodeId> },
    /// May be in the log, or may still get there.
    #[error("the outcome is unknown: leadership was lost")]
    Unknown,
    /// The replica has stopped for good: storage failed, or it was shut down.
    #[error("the replica has stopped: {0}")]
    Stopped(String),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("this node does not lead the group")]
    NotLeader,
    #[error("the replica has stopped: {0}")]
    Stopped(String),
}

/// A proposal that is under way.
pub struct Proposed(openraft::alias::OneshotReceiverOf<Types, WriteResult>);

type WriteResult = openraft::raft::ClientWriteResult<Types>;

impl Proposed {
    /// Waits until the entry is committed and applied here; answers its place and the machine's
    /// reply.
    pub async fn done(self) -> Result<(Position, Bytes), ProposeError> {
        match self.0.await {
            Ok(Ok(response)) => Ok((position(&response.log_id), response.data.0)),
            Ok(Err(ClientWriteError::ForwardToLeader(to))) => {
                Err(ProposeError::NotLeader { leader: to.leader_id.map(NodeId) })
            }
            Ok(Err(_)) | Err(_) => Err(ProposeError::Unknown),
        }
    }
}

impl Group {
    /// Opens the replica from what storage holds. Openraft's tasks end some time after
    /// [`Group::shutdown`]: `alive` is held for as long as one of them has storage or machine.
    pub async fn open(
        id: GroupId,
        me: NodeId,
        options: &Options,
        peers: PeerClient,
        storage: Arc<dyn Storage>,
        machine: Arc<dyn Machine>,
        alive: TaskTrackerToken,
    ) -> Result<Self, String> {
        let bytes = |size: bytesize::ByteSize| usize::try_from(size.as_u64()).unwrap_or(usize::MAX);
        let log = LogStore::open(id, storage, bytes(options.log_cache), bytes(options.append_bytes_max), alive.clone())
            .map_err(|e| format!("log of group {}: {e}", id.0))?;
        let factory = Factory {
            group: id,
            peers,
            rpc_timeout: options.election_max.max(Duration::from_millis(500)),
            snapshot_chunk: bytes(options.snapshot_chunk),
            snapshot_timeout: options.snapshot_timeout,
        };
        let config = Arc::new(config(id, options)?);
        let raft = Raft::new(me.0, config, factory, log, StateMachine::new(machine.clone(), alive))
            .await
            .map_err(|e| format!("group {}: {e}", id.0))?;
        let leadership = follow_leadership(&raft, me);
        Ok(Self { id, me, raft, machine, leadership, incoming: tokio::sync::Mutex::new(None) })
    }

    pub fn id(&self) -> GroupId {
        self.id
    }

    /// Creates the group with these voters, unless it exists already. Several nodes may call
    /// this, as long as they name the same voters.
    pub async fn initialize(&self, voters: &[NodeId]) -> Result<(), String> {
        let members: BTreeMap<u64, ()> = voters.iter().map(|n| (n.0, ())).collect();
        match self.raft.initialize(members).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    pub async fn is_initialized(&self) -> bool {
        self.raft.is_initialized().await.unwrap_or(false)
    }

    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    /// Resolves when this replica has stopped for good, with the reason.
    pub async fn stopped(&self) -> String {
        // Whatever openraft's core ends by, nobody tells of leadership any more. Only if it came to it
        // does it leave a reason: not where it panicked.
        let mut leadership = self.leadership();
        while leadership.changed().await.is_ok() {}
        match &self.raft.metrics().borrow_watched().running_state {
            Err(fatal) => fatal.to_string(),
            Ok(()) => "it panicked".into(),
        }
    }

    pub fn lag(&self) -> Lag {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let others = metrics.replication.iter().flatten();
        Lag {
            last_log_index: metrics.last_log_index.unwrap_or(0),
            applied_index: metrics.last_applied.map_or(0, |id| id.index()),
            matched: others.map(|(node, id)| (NodeId(*node), id.map_or(0, |id| id.index()))).collect(),
        }
    }

    /// Hands a command (beginning with [`super::COMMAND_TAG`]) to Raft. Commands get into the log
    /// in the order in which these calls return.
    pub async fn propose(&self, command: Bytes) -> Result<Proposed, ProposeError> {
        let (responder, receiver) = OneshotResponder::new_pair();
        match self.raft.client_write_ff(Command(command), Some(responder)).await {
            Ok(()) => Ok(Proposed(receiver)),
            Err(fatal) => Err(ProposeError::Stopped(fatal.to_string())),
        }
    }

    /// Returns once this replica has applied everything that was acknowledged before the call and
    /// is known to lead: under the leader lease, else after a round to a quorum.
    pub async fn read_barrier(&self) -> Result<(), ReadError> {
        match self.barrier(ReadPolicy::LeaseRead).await {
            Err(ReadError::NotLeader) => self.barrier(ReadPolicy::ReadIndex).await,
            done => done,
        }
    }

    /// Returns once a quorum, asked after the call, knows of no later leader, and this replica has applied
    /// everything that was committed then. Unlike [`Group::read_barrier`] it trusts no clock.
    pub async fn confirm_leadership(&self) -> Result<(), ReadError> {
        self.barrier(ReadPolicy::ReadIndex).await
    }

    async fn barrier(&self, policy: ReadPolicy) -> Result<(), ReadError> {
        let linearizer = self.raft.get_read_linearizer(policy).await.map_err(|e| match e {
            RaftError::Fatal(fatal) => ReadError::Stopped(fatal.to_string()),
            RaftError::APIError(_) => ReadError::NotLeader,
        })?;
        linearizer.await_ready(&self.raft).await.map_err(|e| ReadError::Stopped(e.to_string()))?;
        Ok(())
    }

    /// Makes the applied state durable and lets Raft drop the log before it.
    pub async fn checkpoint(&self) -> Result<(), String> {
        self.raft.trigger().snapshot().await.map_err(|e| e.to_string())
    }

    /// Whether the last checkpoint covers everything that is applied.
    pub fn is_checkpointed(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.snapshot.is_some() && metrics.snapshot >= metrics.last_applied
    }

    /// Drops the whole log up to the last checkpoint, also what is kept for replicas that are a little
    /// behind: those get a snapshot.
    pub async fn purge(&self) -> Result<(), String> {
        let checkpoint = self.raft.metrics().borrow_watched().snapshot;
        match checkpoint {
            Some(upto) => self.raft.trigger().purge_log(upto.index()).await.map_err(|e| e.to_string()),
            None => Ok(()),
        }
    }

    /// Stands for election without waiting for the timeout, with a pre-vote: harmless while
    /// others still hear a leader.
    pub async fn elect(&self) {
        if let Err(error) = self.raft.trigger().elect(true).await {
            tracing::debug!(group = self.id.0, %error, "cannot stand for election");
        }
    }

    /// Asks `to` to take over. Whether it did shows in [`Group::leadership`].
    pub async fn transfer(&self, to: NodeId) {
        if let Err(error) = self.raft.trigger().transfer_leader(to.0).await {
            tracing::debug!(group = self.id.0, %error, "cannot transfer leadership");
        }
    }

    pub async fn shutdown(&self) {
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(group = self.id.0, %error, "a raft task ended badly");
        }
    }

    /// Answers a Raft request of a peer.
    pub async fn handle(&self, kind: RpcKind, body: Bytes) -> Result<Bytes, String> {
        self.dispatch(kind, body).await.map(Bytes::from).map_err(|e| e.to_string())
    }

    async fn dispatch(&self, kind: RpcKind, body: Bytes) -> io::Result<Vec<u8>> {
        match kind {
            RpcKind::Append => {
                let request: AppendEntriesRequest<Types> = decode(&body)?;
                encode(&self.raft.append_entries(request).await.map_err(io::Error::other)?)
            }
            RpcKind::Vote => {
                let request: VoteRequest<Types> = decode(&body)?;
                encode(&self.raft.vote(request).await.map_err(io::Error::other)?)
            }
            RpcKind::PreVote => {
                let request: VoteRequest<Types> = decode(&body)?;
                encode(&self.raft.pre_vote(request).await.map_err(io::Error::other)?)
            }
            RpcKind::Transfer => {
                let t: Transfer = decode(&body)?;
                let request = TransferLeaderRequest::new(t.from, t.to, t.last_log_id);
                let answer = self.raft.handle_transfer_leader(request).await.map_err(io::Error::other)?;
                answer.map_err(io::Error::other)?;
                encode(&())
            }
            RpcKind::SnapshotChunk => encode(&self.take_chunk(decode(&body)?).await?),
            RpcKind::SnapshotEnd => encode(&self.install(decode(&body)?).await?.vote),
        }
    }

    async fn take_chunk(&self, chunk: SnapshotChunk) -> io::Result<()> {
        let mut incoming = self.incoming.lock().await;
        if chunk.sequence == 0 {
            let sink = self.machine.receive().await.map_err(io::Error::other)?;
            *incoming = Some(Incoming { transfer: chunk.transfer, next: 0, sink });
        }
        let current = incoming.as_mut().filter(|i| i.transfer == chunk.transfer && i.next == chunk.sequence);
        let current = current.ok_or_else(|| io::Error::other("a chunk of another transfer, or out of order"))?;
        current.sink.put(chunk.bytes).await.map_err(io::Error::other)?;
        current.next += 1;
        Ok(())
    }

    async fn install(&self, end: SnapshotEnd) -> io::Result<SnapshotResponse<Types>> {
        let incoming = self.incoming.lock().await.take();
        let incoming = incoming.filter(|i| i.transfer == end.transfer && i.next == end.chunks);
        let incoming = incoming.ok_or_else(|| io::Error::other("an incomplete snapshot"))?;
        let meta =
            openraft::alias::SnapshotMetaOf::<Types> { last_log_id: end.last_log_id, last_membership: end.membership };
        let snapshot = SnapshotOf::<Types, SnapshotData> { meta, snapshot: SnapshotData::Staged(incoming.sink) };
        tracing::info!(group = self.id.0, chunks = end.chunks, "installing a snapshot");
        self.raft.install_full_snapshot(end.vote, snapshot).await.map_err(io::Error::other)
    }

    pub fn me(&self) -> NodeId {
        self.me
    }
}

fn config(id: GroupId, options: &Options) -> Result<Config, String> {
    let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    let config = Config {
        cluster_name: format!("group {}", id.0),
        heartbeat_interval: millis(options.heartbeat),
        election_timeout_min: millis(options.election_min),
        election_timeout_max: millis(options.election_max),
        // The shard decides when to checkpoint: it knows how much memory that would free.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: options.entries_kept,
        replication_lag_threshold: options.entries_kept * 4,
        install_snapshot_timeout: millis(options.snapshot_timeout),
        max_payload_entries: 256,
        enable_pre_vote: Some(true),
        // A restarted leader starts over in a new term, so that no entity actor spans a restart.
        enable_leader_restore: Some(false),
        ..Config::default()
    };
    config.validate().map_err(|e| e.to_string())
}

/// Mirrors the part of openraft's metrics that the runtime acts on, so that watchers wake only
/// when it changes.
fn follow_leadership(raft: &RaftOf, me: NodeId) -> watch::Receiver<Leadership> {
    let mut metrics = raft.server_metrics();
    let current = move |m: &openraft::metrics::RaftServerMetrics<Types>| Leadership {
        term: m.vote.leader_id.term,
        leader: m.current_leader.map(NodeId),
        is_me: m.state == ServerState::Leader && m.current_leader == Some(me.0),
    };
    let (tx, rx) = watch::channel(current(&metrics.borrow_watched()));
    tokio::spawn(async move {
        while metrics.changed().await.is_ok() {
            let now = current(&metrics.borrow_watched());
            tx.send_if_modified(|old| std::mem::replace(old, now) != now);
            if tx.is_closed() {
                return;
            }
        }
        tx.send_replace(Leadership::default());
    });
    rx
}
