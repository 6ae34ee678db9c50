//! Takes backups in the middle of the trouble. Those that are whole are put into a world of their own when all
//! is over, and what comes of that is checked.

use crate::{
    check,
    load::{Load, Placed},
    world::World,
};
use futures::{StreamExt, TryStreamExt, stream};
use quorate::{
    Cluster,
    cluster::backup::{BackupReader, RestoredBackup, Section},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{sync::Arc, time::Duration};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const PAUSE_MS: std::ops::RangeInclusive<u64> = 2_000..=30_000;
/// Backups that are kept until the end: each makes a world of its own then.
const KEPT: usize = 2;
const PART_BYTES: usize = 10_000;
const READY_WITHIN: Duration = Duration::from_secs(60);

/// A whole backup.
struct Kept {
    file: Vec<u8>,
    /// Orders that were acknowledged before it was asked for.
    acknowledged: Vec<Placed>,
}

/// Takes backups until it is told to stop.
pub struct Keeper {
    stop: CancellationToken,
    keeping: JoinHandle<(u64, Vec<Kept>, Vec<String>)>,
}

impl Keeper {
    pub fn start(world: &Arc<World>, load: &Load, seed: u64) -> Self {
        let stop = CancellationToken::new();
        let keeping = tokio::spawn(keep(world.clone(), load.clone(), seed, stop.clone()));
        Self { stop, keeping }
    }

    /// How many were whole, and what is wrong with some of them.
    pub async fn check(self, world: &World, seed: u64) -> (u64, Vec<String>) {
        self.stop.cancel();
        let (taken, kept, mut found) = self.keeping.await.unwrap_or_default();
        for kept in kept {
            let restored = world.beside(1, seed);
            restored.start(0).await;
            match put(&restored, &kept.file).await {
                Ok(_) => found.extend(check::check_restored(&restored, &kept.acknowledged).await),
                Err(wrong) => found.push(format!("RESTORE: {wrong}")),
            }
            restored.crash(0);
        }
        (taken, found)
    }
}

async fn keep(world: Arc<World>, load: Load, seed: u64, stop: CancellationToken) -> (u64, Vec<Kept>, Vec<String>) {
    let mut random = StdRng::seed_from_u64(seed ^ 0xBAC0);
    let (mut taken, mut kept, mut wrong) = (0, Vec::new(), Vec::new());
    loop {
        let pause = Duration::from_millis(random.random_range(PAUSE_MS));
        tokio::select! {
            biased;
            () = stop.cancelled() => return (taken, kept, wrong),
            () = tokio::time::sleep(pause) => {}
        }
        let Some(up) = world.node(random.random_range(0..world.size())) else { continue };
        let acknowledged = load.placed();
        let file = tokio::select! {
            biased;
            () = up.gone.cancelled() => None,
            file = take(&up.cluster) => file,
        };
        let Some(file) = file else { continue };
        tracing::info!(bytes = file.len(), "a backup");
        taken += 1;
        wrong.extend(never_sent(&file));
        if kept.len() == KEPT {
            kept.swap_remove(random.random_range(0..KEPT));
        }
        kept.push(Kept { file, acknowledged });
    }
}

/// Effects that a shard has received and their sender has not sent: the shards are not of one moment. That can be
/// seen in every backup; what was dropped and not received shows in those that are restored.
fn never_sent(file: &[u8]) -> Vec<String> {
    let (mut reader, mut sent, mut wrong) = (BackupReader::default(), Vec::new(), Vec::new());
    reader.feed(file);
    while let Ok(Some(section)) = reader.next_section() {
        match section {
            Section::Header(header) => sent = header.shards.iter().map(|head| head.effects).collect(),
            Section::Chunk { shard, pairs, .. } => {
                let received = pairs.iter().filter_map(|(key, _)| received(key));
                let too_early = received.filter(|(source, number)| sent.get(*source).is_none_or(|sent| number > sent));
                wrong.extend(too_early.map(|(source, number)| {
                    format!("CUT: shard {shard} has received {number} of shard {source}, which has sent {sent:?}")
                }));
            }
            Section::End { .. } | Section::Trailer => {}
        }
    }
    wrong
}

/// Source and number in the key of an effect that was received.
fn received(key: &[u8]) -> Option<(usize, u64)> {
    let (source, number) = key.strip_prefix(b"r")?.split_first_chunk::<2>()?;
    let number = u64::from_be_bytes(number.try_into().ok()?);
    Some((usize::from(u16::from_be_bytes(*source)), number))
}

/// Whole, or not at all.
async fn take(cluster: &Cluster) -> Option<Vec<u8>> {
    let backup = cluster.backup().await.ok()?;
    let parts: Vec<_> = backup.into_stream().try_collect().await.ok()?;
    Some(parts.concat())
}

async fn put(world: &World, file: &[u8]) -> Result<RestoredBackup, String> {
    let up = world.node(0).ok_or("the node does not start")?;
    up.cluster.ready(READY_WITHIN).await.map_err(|error| error.to_string())?;
    let parts = stream::iter(file.chunks(PART_BYTES)).map(|part| Ok::<_, String>(part.to_vec().into()));
    up.cluster.restore(parts).await.map_err(|error| error.to_string())
}
