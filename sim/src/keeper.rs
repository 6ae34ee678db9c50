//! Takes backups in the middle of the trouble. Those that are whole are put into a world of their own when all
//! is over, and what comes of that is checked.

use crate::{
    check,
    load::{Load, Placed},
    world::World,
};
use futures::{StreamExt, TryStreamExt, stream};
use quorate::{Cluster, cluster::backup::RestoredBackup};
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
    keeping: JoinHandle<(u64, Vec<Kept>)>,
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
        let (taken, kept) = self.keeping.await.unwrap_or_default();
        let mut found = Vec::new();
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

async fn keep(world: Arc<World>, load: Load, seed: u64, stop: CancellationToken) -> (u64, Vec<Kept>) {
    let mut random = StdRng::seed_from_u64(seed ^ 0xBAC0);
    let (mut taken, mut kept) = (0, Vec::new());
    loop {
        let pause = Duration::from_millis(random.random_range(PAUSE_MS));
        tokio::select! {
            biased;
            () = stop.cancelled() => return (taken, kept),
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
        if kept.len() == KEPT {
            kept.swap_remove(random.random_range(0..KEPT));
        }
        kept.push(Kept { file, acknowledged });
    }
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
