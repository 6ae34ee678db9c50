//! The replicated log alone: 256 writers of 300 B on 16 groups of three nodes, every node with a
//! journal of its own, beside one raw file with append + fdatasync group commit.
//!
//! `cargo bench --bench replicated_log`. Three journals share one process here and one disk, so a
//! node of its own is faster than this.

/// As the command has it.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures::future::{BoxFuture, join_all};
use parking_lot::Mutex;
use quorate::{
    catalog::{ClusterId, NodeId},
    replication::{
        Applied, COMMAND_TAG, CommittedEntry, Group, Machine, Options, PeerClient, Service, SnapshotSink,
        SnapshotSource, parse_raft,
    },
    storage::{self, GroupId, SledStorage, Storage},
    transport::{Class, Handler, Peer, memory::Network},
};
use std::{
    collections::HashMap,
    fs::File,
    io::Write as _,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot};

const NODES: u64 = 3;
const GROUPS: u16 = 16;
const WRITERS: usize = 256;
const PAYLOAD_BYTES: usize = 300;
const PACK_MAX: usize = 512;

/// Applies nothing: the log is what is measured.
#[derive(Default)]
struct Nothing(Mutex<Applied>);

impl Machine for Nothing {
    fn applied(&self) -> Applied {
        self.0.lock().clone()
    }

    fn apply(&self, entries: Vec<CommittedEntry>) -> Result<Vec<Bytes>, storage::Error> {
        if let Some(last) = entries.last() {
            self.0.lock().position = Some(last.position);
        }
        Ok(vec![Bytes::new(); entries.len()])
    }

    fn checkpoint(&self) -> BoxFuture<'static, Result<Applied, storage::Error>> {
        let applied = self.applied();
        Box::pin(async move { Ok(applied) })
    }

    fn snapshot(&self) -> BoxFuture<'static, Result<Option<Box<dyn SnapshotSource>>, storage::Error>> {
        Box::pin(async { Ok(None) })
    }

    fn receive(&self) -> BoxFuture<'static, Result<Box<dyn SnapshotSink>, storage::Error>> {
        Box::pin(async { Err(storage::Error::Refused { detail: "no snapshots here".into() }) })
    }

    fn install(&self, _: Box<dyn SnapshotSink>, _: Applied) -> BoxFuture<'static, Result<(), storage::Error>> {
        Box::pin(async { Err(storage::Error::Refused { detail: "no snapshots here".into() }) })
    }
}

#[derive(Default)]
struct Dispatch {
    groups: Mutex<HashMap<GroupId, Arc<Group>>>,
    peers: OnceLock<PeerClient>,
}

impl Handler for Dispatch {
    fn handle(&self, _from: NodeId, _class: Class, request: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        let opened = self.peers.get().ok_or_else(|| "not yet".to_owned()).and_then(|peers| peers.open(request));
        let target = opened.and_then(|(service, body)| match service {
            Service::Raft => parse_raft(body),
            _ => Err("only raft here".into()),
        });
        let group = target.as_ref().ok().and_then(|(group, ..)| self.groups.lock().get(group).cloned());
        Box::pin(async move {
            let (_, kind, body) = target?;
            group.ok_or("no such group")?.handle(kind, body).await
        })
    }

    fn introduce(
        &self,
        _: quorate::transport::Counterpart,
        _request: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, String>> {
        Box::pin(async { Err("nobody to introduce to".into()) })
    }
}

type Pending = oneshot::Sender<()>;

/// Sixteen groups on three nodes, and a packer in front of each leader.
struct Log {
    packers: Vec<mpsc::Sender<Pending>>,
    _dirs: Vec<tempfile::TempDir>,
    _dispatches: Vec<Arc<Dispatch>>,
}

impl Log {
    async fn open() -> Self {
        let network = Network::new();
        let (mut dirs, mut dispatches) = (Vec::new(), Vec::new());
        for node in 1..=NODES {
            let dir = tempfile::tempdir().expect("a directory for a node");
            let dispatch = open_node(&network, node, dir.path()).await;
            dirs.push(dir);
            dispatches.push(dispatch);
        }
        let voters: Vec<NodeId> = (1..=NODES).map(NodeId).collect();
        let mut packers = Vec::new();
        for group in (0..GROUPS).map(GroupId) {
            let first = dispatches[usize::from(group.0) % dispatches.len()].groups.lock()[&group].clone();
            first.initialize(&voters).await.expect("a new group");
            packers.push(pack(wait_leader(&dispatches, group).await));
        }
        Self { packers, _dirs: dirs, _dispatches: dispatches }
    }

    /// `total` writes, spread over 256 writers that each wait for one write before the next.
    async fn write(&self, total: u64) -> Duration {
        let started = Instant::now();
        let writers = (0..WRITERS as u64).map(|writer| {
            let packers = self.packers.clone();
            let share = total / WRITERS as u64 + u64::from(writer < total % WRITERS as u64);
            tokio::spawn(async move {
                for turn in 0..share {
                    let (done, written) = oneshot::channel();
                    let packer = &packers[(writer + turn) as usize % packers.len()];
                    packer.send(done).await.expect("the packer runs");
                    written.await.expect("the leader stays");
                }
            })
        });
        join_all(writers).await;
        started.elapsed()
    }
}

async fn open_node(network: &Network, node: u64, dir: &std::path::Path) -> Arc<Dispatch> {
    let dispatch = Arc::new(Dispatch::default());
    let name = format!("n{node}");
    let transport = network.join(name.clone(), name, dispatch.clone());
    let peers = (1..=NODES).filter(|n| *n != node);
    let peer = |n| Peer { node: NodeId(n), name: format!("n{n}"), address: format!("n{n}") };
    transport.set_peers(NodeId(node), peers.map(peer).collect());
    let client = PeerClient { transport, cluster: ClusterId(1) };
    assert!(dispatch.peers.set(client.clone()).is_ok());
    let storage: Arc<dyn Storage> = Arc::new(SledStorage::open(dir, &storage::Options::default()).expect("a journal"));
    for group in (0..GROUPS).map(GroupId) {
        let machine = Arc::new(Nothing::default());
        let options = Options::default();
        let alive = tokio_util::task::TaskTracker::new().token();
        let opened = Group::open(group, NodeId(node), &options, client.clone(), storage.clone(), machine, alive).await;
        dispatch.groups.lock().insert(group, Arc::new(opened.expect("a group")));
    }
    dispatch
}

async fn wait_leader(dispatches: &[Arc<Dispatch>], group: GroupId) -> Arc<Group> {
    let replicas: Vec<Arc<Group>> = dispatches.iter().map(|d| d.groups.lock()[&group].clone()).collect();
    let leads = replicas.iter().map(|replica| {
        Box::pin(async move {
            let mut leadership = replica.leadership();
            let _ = leadership.wait_for(|l| l.is_me).await;
            replica.clone()
        })
    });
    futures::future::select_all(leads).await.0
}

/// Packs what gathers while the last entry is under way, as a shard's proposer does.
fn pack(leader: Arc<Group>) -> mpsc::Sender<Pending> {
    let (tx, mut rx) = mpsc::channel::<Pending>(WRITERS);
    tokio::spawn(async move {
        let mut waiting = Vec::new();
        while rx.recv_many(&mut waiting, PACK_MAX).await > 0 {
            let mut entry = vec![COMMAND_TAG];
            entry.resize(1 + waiting.len() * PAYLOAD_BYTES, 7);
            let proposed = leader.propose(entry.into()).await.expect("the leader runs");
            proposed.done().await.expect("the leader stays");
            for done in waiting.drain(..) {
                done.send(()).expect("the writer waits");
            }
        }
    });
    tx
}

/// One thread that appends what gathers to one file and syncs it: what the disk allows.
fn raw_group_commit(total: u64) -> Duration {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let (tx, rx) = crossbeam_channel::bounded::<crossbeam_channel::Sender<()>>(WRITERS);
    let mut log: File = file.reopen().expect("the same file");
    let committer = std::thread::spawn(move || {
        while let Ok(first) = rx.recv() {
            let mut waiting = vec![first];
            waiting.extend(rx.try_iter().take(PACK_MAX * usize::from(GROUPS)));
            log.write_all(&vec![7; waiting.len() * PAYLOAD_BYTES]).expect("an append");
            log.sync_data().expect("a sync");
            for done in waiting {
                done.send(()).expect("the writer waits");
            }
        }
    });
    let started = Instant::now();
    let writers: Vec<_> = (0..WRITERS as u64)
        .map(|writer| {
            let tx = tx.clone();
            let share = total / WRITERS as u64 + u64::from(writer < total % WRITERS as u64);
            std::thread::spawn(move || {
                let (done, written) = crossbeam_channel::bounded(1);
                for _ in 0..share {
                    tx.send(done.clone()).expect("the committer runs");
                    written.recv().expect("the committer runs");
                }
            })
        })
        .collect();
    writers.into_iter().for_each(|w| w.join().expect("a writer"));
    let took = started.elapsed();
    drop(tx);
    committer.join().expect("the committer");
    took
}

fn bench(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let log = runtime.block_on(Log::open());
    let mut group = criterion.benchmark_group("256 writers x 300 B");
    group.throughput(Throughput::Elements(1)).sample_size(10).measurement_time(Duration::from_secs(10));
    group.bench_function(BenchmarkId::new("replicated", "3 nodes, 16 groups"), |b| {
        b.iter_custom(|total| runtime.block_on(log.write(total)));
    });
    group.bench_function(BenchmarkId::new("raw", "one file, append + fdatasync"), |b| {
        b.iter_custom(raw_group_commit);
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
