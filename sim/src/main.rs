//! Deterministic simulation of a whole cluster: one thread, virtual time, one seed.
//!
//! ```text
//! cargo run -p sim -- --seeds 1000          many worlds, one process each; prints how to repeat what fails
//! cargo run -p sim -- --seed 17 --trace f   one world, everything that happens in it written to f
//! ```
//!
//! A world is the product's own code (ingress, entities and their saga, shards, replication by
//! openraft, catalog, membership by foca) on memory links, memory gossip and memory disks. Customers
//! order, faults come and go, then all is healed, and what the customers were told is checked.
//! docs/chaos.md says what is checked and what is not simulated.

mod check;
mod client;
mod disk;
mod faults;
mod gateway;
mod load;
mod many;
mod trace;
mod world;
mod world_clock;

#[cfg(not(tokio_unstable))]
compile_error!("run cargo in the folder sim/, whose .cargo/config.toml makes the runtime repeatable");

use clap::Parser;
use std::{fs::File, path::PathBuf, process::ExitCode, time::Duration};
use tracing_subscriber::layer::SubscriberExt;
use world::World;

/// Real time after which a world that does not move is given up: on a busy machine a moment of it may
/// take long, but not so long.
const STANDSTILL_MAX: Duration = Duration::from_secs(20);

/// Simulates whole clusters, each from a seed.
#[derive(Parser)]
struct Args {
    /// Simulate this many worlds, each in a process of its own
    #[arg(long, default_value_t = 20, conflicts_with = "seed")]
    seeds: u64,
    /// The first of their seeds
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Worlds at one time [default: one for each core]
    #[arg(long)]
    jobs: Option<usize>,
    /// Simulate one world, in this process
    #[arg(long)]
    seed: Option<u64>,
    /// Write everything that happens in it to this file
    #[arg(long, requires = "seed")]
    trace: Option<PathBuf>,
    /// Simulated minutes of trouble
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    #[arg(long, default_value_t = 6)]
    customers: u32,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let Some(seed) = args.seed else { return many::run(&args) };
    let file = match args.trace.as_ref().map(File::create).transpose() {
        Ok(file) => file,
        Err(error) => {
            eprintln!("error: `--trace`: {error}");
            return ExitCode::from(2);
        }
    };
    let trace = trace::Trace::new(file);
    // Whoever subscribed before would be the same: this process has just begun.
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(trace.clone()));
    // The recorder measures the processor's clock when it is made, against the one that will stand still.
    quorate::telemetry::metrics();
    world_clock::watch(STANDSTILL_MAX);
    let world = std::thread::spawn(move || {
        world_clock::begin(seed);
        simulate(&args, seed)
    });
    let found = world.join().unwrap_or_else(|_| vec!["PANIC: the world ended in a panic".to_owned()]);
    let (lines, hash) = trace.finish();
    println!("trace: {lines} lines, {hash}");
    found.iter().for_each(|found| println!("violation: {found}"));
    ExitCode::from(u8::from(!found.is_empty()))
}

fn simulate(args: &Args, seed: u64) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .rng_seed(tokio::runtime::RngSeed::from_bytes(&seed.to_le_bytes()))
        .on_thread_unpark(world_clock::follow)
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(live(args, seed)),
        Err(error) => vec![format!("no runtime: {error}")],
    }
}

async fn live(args: &Args, seed: u64) -> Vec<String> {
    world_clock::follow();
    let world = World::new(args.nodes.max(1), seed);
    for i in 0..world.size() {
        world.start(i).await;
    }
    let load = load::Load::open(world.clone(), args.customers, seed).await;
    let end = tokio::time::Instant::now() + Duration::from_secs(60 * args.minutes);
    let faults = faults::trouble(&world, end, seed).await;
    load.close();
    let told = load.told().await;
    let found = check::check(&world, &told).await;
    println!(
        "seed {seed}: {faults} faults, {} orders acknowledged, {} unknown, {} register operations, {} requests, {} excuses",
        told.placed.len(),
        told.unknown,
        told.touches.len(),
        told.requests,
        told.excuses,
    );
    found
}
