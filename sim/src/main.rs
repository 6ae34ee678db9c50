//! Deterministic simulation of a whole cluster: one thread, virtual time, one seed.
//!
//! ```text
//! cargo run -p sim -- --seeds 1000          many worlds, one process each; prints how to repeat what fails
//! cargo run -p sim -- --seed 17 --trace f   one world, everything that happens in it written to f
//! ```
//!
//! With the feature `sabotage` and QUORATE_SABOTAGE set, the cluster breaks a promise, and
//! `--expect-violation` is content once a world has shown it.
//!
//! A world is the product's own code (ingress, entities and their saga, shards, replication by
//! openraft, catalog, membership by foca) on memory links, memory gossip and memory disks. Customers
//! order, faults come and go, then all is healed, and what the customers were told is checked.
//! sim/README.md says what is checked and what is not simulated.

mod check;
mod client;
mod disk;
mod faults;
mod gateway;
mod keeper;
mod limits;
mod load;
mod many;
mod summary;
mod trace;
mod world;
mod world_clock;

#[cfg(not(tokio_unstable))]
compile_error!("run cargo in the folder sim/, whose .cargo/config.toml makes the runtime repeatable");

use bytesize::ByteSize;
use clap::Parser;
use std::{
    fs::File,
    panic,
    path::PathBuf,
    process::ExitCode,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use summary::Summary;
use tracing_subscriber::layer::SubscriberExt;
use world::World;

/// So many violations of one world are shown.
const SHOWN_MAX: usize = 20;

/// Each panic of the world, wherever it was caught: none is ever due.
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Simulates whole clusters, each from a seed.
#[derive(Parser)]
struct Args {
    /// Simulate this many worlds, each in a process of its own
    #[arg(long, default_value_t = 20, conflicts_with = "seed")]
    seeds: u64,
    /// The first of their seeds
    #[arg(long, visible_alias = "from", default_value_t = 1)]
    first: u64,
    /// Worlds at one time [default: half the cores]
    #[arg(long)]
    jobs: Option<usize>,
    /// Stop at the first world that fails, and succeed only if one does: for a bug put in on purpose
    #[arg(long, conflicts_with = "seed")]
    expect_violation: bool,
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
    /// Real seconds that one world may take
    #[arg(long, default_value_t = 600)]
    wall_max: u64,
    /// Address space that it may take. One of ten minutes keeps 130 MB, and reserves a few times that
    #[arg(long, default_value_t = ByteSize::gib(3))]
    memory_max: ByteSize,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Err(error) = quorate::sabotage::chosen() {
        eprintln!("error: {error}");
        return ExitCode::from(2);
    }
    let Some(seed) = args.seed else { return many::run(&args) };
    let file = match args.trace.as_ref().map(File::create).transpose() {
        Ok(file) => file,
        Err(error) => {
            eprintln!("error: `--trace`: {error}");
            return ExitCode::from(2);
        }
    };
    if let Err(error) = limits::limit_memory(args.memory_max) {
        eprintln!("error: the memory of this process cannot be limited: {error}");
        return ExitCode::from(2);
    }
    let trace = trace::Trace::new(file);
    // Whoever subscribed before would be the same: this process has just begun.
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(trace.clone()));
    // The recorder measures the processor's clock when it is made, against the one that will stand still.
    quorate::telemetry::metrics();
    limits::watch(trace.clone(), Duration::from_secs(args.wall_max));
    note_panics();
    let world = std::thread::spawn(move || {
        world_clock::begin(seed);
        simulate(&args, seed)
    });
    // Why it ended early is among the panics.
    let (summary, wrong) = world.join().unwrap_or_default();
    let mut found = std::mem::take(&mut *PANICS.lock().unwrap_or_else(PoisonError::into_inner));
    found.extend(wrong);
    let (lines, hash) = trace.finish();
    println!("seed {seed}: {summary}");
    println!("trace: {lines} lines, {hash}");
    found.iter().take(SHOWN_MAX).for_each(|found| println!("violation: {found}"));
    if found.len() > SHOWN_MAX {
        println!("and {} more", found.len() - SHOWN_MAX);
    }
    ExitCode::from(u8::from(!found.is_empty()))
}

fn note_panics() {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let line = info.to_string().replace('\n', " ");
        PANICS.lock().unwrap_or_else(PoisonError::into_inner).push(format!("PANIC: {line}"));
        usual(info);
    }));
}

fn simulate(args: &Args, seed: u64) -> (Summary, Vec<String>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .rng_seed(tokio::runtime::RngSeed::from_bytes(&seed.to_le_bytes()))
        .on_thread_unpark(world_clock::follow)
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(live(args, seed)),
        Err(error) => (Summary::default(), vec![format!("no runtime: {error}")]),
    }
}

async fn live(args: &Args, seed: u64) -> (Summary, Vec<String>) {
    world_clock::follow();
    let world = World::new(args.nodes.max(1), seed);
    for i in 0..world.size() {
        world.start(i).await;
    }
    let load = load::Load::open(world.clone(), args.customers, seed).await;
    let keeper = keeper::Keeper::start(&world, &load, seed);
    let end = tokio::time::Instant::now() + Duration::from_secs(60 * args.minutes);
    let faults = faults::trouble(&world, end, seed).await;
    load.close();
    let told = load.told().await;
    let mut found = check::check(&world, &told).await;
    let (backups, wrong) = keeper.check(&world, seed).await;
    found.extend(wrong);
    let summary = Summary {
        faults: u64::from(faults),
        orders: told.placed.len() as u64,
        unknown: told.unknown,
        touches: told.touches.len() as u64,
        requests: told.requests,
        excuses: told.excuses,
        backups,
    };
    (summary, found)
}
