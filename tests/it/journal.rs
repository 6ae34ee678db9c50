//! The journal's size on disk is bounded, also by shards to which nobody writes any more.

use quorate::{Cluster, Context, Decision, Entity, cluster::Consistency};
use serde::{Deserialize, Serialize};
use std::{path::Path, time::Duration};

/// Keeps the length of what was written last, in events as large as that.
struct Page;

#[derive(Clone, Serialize, Deserialize)]
struct Write(String);

impl Entity for Page {
    const TYPE: &'static str = "page";
    type State = usize;
    type Command = Write;
    type Event = Write;
    type Reply = ();
    type Rejection = String;

    fn decide(_: &usize, command: Write, _: &Context<'_>) -> Decision<Self> {
        Decision::accept(vec![command], ())
    }

    fn evolve(state: &mut usize, event: &Write) {
        *state = event.0.len();
    }
}

const QUIET: usize = 64;
const PAGE_BYTES: usize = 48 << 10;
const PAGES: usize = 640;

async fn start(dir: &Path) -> Cluster {
    let small = |config: &mut quorate::Config| config.storage.segment_bytes = bytesize::ByteSize::mib(1);
    Cluster::single_node(dir).entity::<Page>().configure(small).start().await.expect("a node")
}

fn segments(dir: &Path) -> usize {
    let files = std::fs::read_dir(dir.join("journal")).expect("a journal");
    files.filter(|file| file.as_ref().is_ok_and(|file| file.path().extension().is_some_and(|e| e == "segment"))).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quiet_shards_and_the_catalog_do_not_keep_the_whole_journal() {
    let dir = tempfile::tempdir().expect("a directory");
    let cluster = start(dir.path()).await;
    for number in 0..QUIET {
        let quiet = cluster.entity::<Page>(format!("quiet-{number}"));
        quiet.ask(Write("once".into())).await.expect("written");
    }
    for _ in 0..PAGES {
        cluster.entity::<Page>("busy").ask(Write("x".repeat(PAGE_BYTES))).await.expect("written");
    }
    let written = (PAGES * PAGE_BYTES) >> 20;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while segments(dir.path()) > 10 {
        // Segments go when the next one begins.
        cluster.entity::<Page>("busy").ask(Write("x".repeat(PAGE_BYTES))).await.expect("written");
        let held = segments(dir.path());
        assert!(tokio::time::Instant::now() < deadline, "{held} segments of 1 MiB after {written} MiB of writes");
    }
    cluster.leave().await.expect("stopped");
    drop(cluster);

    let cluster = start(dir.path()).await;
    for number in 0..QUIET {
        let quiet = cluster.entity::<Page>(format!("quiet-{number}"));
        assert_eq!(quiet.state(Consistency::Linearizable).await.expect("read").state, 4, "quiet-{number}");
    }
    let busy = cluster.entity::<Page>("busy").state(Consistency::Linearizable).await.expect("read");
    assert_eq!(busy.state, PAGE_BYTES);
    assert!(busy.version >= PAGES as u64);
    cluster.leave().await.expect("stopped");
}
