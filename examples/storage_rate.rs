//! Durable appends per second of the storage layer alone.
//!
//! `cargo run --release --example storage_rate -- [DIR]` (default: a directory below the current
//! one, so that it is on a real disk). Each of the writers appends 300 bytes to one of 16 groups,
//! waits until they are durable, and goes on.
#![allow(clippy::print_stdout)]

use bytes::Bytes;
use quorate::storage::{EntryRecord, GroupId, Options, SledStorage, Storage, Write};
use std::{
    error::Error,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

const GROUPS: u16 = 16;
const RUN: Duration = Duration::from_secs(4);
/// Entries kept per group; older ones are purged as a checkpoint would.
const KEEP: u64 = 20_000;

struct Log {
    group: GroupId,
    next: Mutex<u64>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let root = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("storage-rate-data"), PathBuf::from);
    for writers in [1, 4, 16, 64, 256, 1024] {
        let dir = root.join(writers.to_string());
        measure(&dir, writers)?;
        std::fs::remove_dir_all(&dir)?;
    }
    Ok(std::fs::remove_dir(&root)?)
}

fn measure(dir: &std::path::Path, writers: usize) -> Result<(), Box<dyn Error>> {
    let store: Arc<dyn Storage> = Arc::new(SledStorage::open(dir, &Options::default())?);
    let logs: Vec<Arc<Log>> =
        (0..GROUPS).map(|group| Arc::new(Log { group: GroupId(group), next: Mutex::new(1) })).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let started = Instant::now();
    let mut latencies = runtime.block_on(async {
        let tasks: Vec<_> = (0..writers)
            .map(|n| tokio::spawn(append_until(store.clone(), logs[n % logs.len()].clone(), started + RUN)))
            .collect();
        let mut all = Vec::new();
        for task in tasks {
            all.extend(task.await.unwrap_or_default());
        }
        all
    });
    let elapsed = started.elapsed();
    latencies.sort_unstable();
    let rate = latencies.len() as f64 / elapsed.as_secs_f64();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
    drop(store);
    let opening = Instant::now();
    drop(SledStorage::open(dir, &Options::default())?);
    println!(
        "{writers:5} writers: {rate:9.0} appends/s, p50 {:?}, p99 {:?}, reopened in {:?}",
        at(0.5),
        at(0.99),
        opening.elapsed()
    );
    Ok(())
}

async fn append_until(store: Arc<dyn Storage>, log: Arc<Log>, end: Instant) -> Vec<Duration> {
    let payload = Bytes::from(vec![0xA5; 300]);
    let mut latencies = Vec::new();
    while Instant::now() < end {
        let (tx, rx) = tokio::sync::oneshot::channel();
        let submitted = Instant::now();
        if let Ok(mut next) = log.next.lock() {
            let entries = vec![EntryRecord { index: *next, term: 1, payload: payload.clone() }];
            store.submit(Write::Append { group: log.group, entries }, Box::new(move |result| drop(tx.send(result))));
            if next.is_multiple_of(KEEP / 10) && *next > KEEP {
                store.submit(Write::Purge { group: log.group, upto: *next - KEEP, mark: Bytes::new() }, Box::new(drop));
            }
            *next += 1;
        }
        match rx.await {
            Ok(Ok(())) => latencies.push(submitted.elapsed()),
            _ => break,
        }
    }
    latencies
}
