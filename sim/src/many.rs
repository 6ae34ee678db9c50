//! Many worlds, each in a process of its own: nothing of one can reach the next.

use crate::Args;
use std::{
    collections::BTreeMap,
    io::{IsTerminal, Write},
    process::{Command, ExitCode, Stdio},
    sync::{Mutex, PoisonError},
    thread,
};

/// What came of a world that failed.
type Failures = Mutex<BTreeMap<u64, String>>;

pub fn run(args: &Args) -> ExitCode {
    let jobs = args.jobs.or_else(|| thread::available_parallelism().ok().map(usize::from)).unwrap_or(1).max(1);
    let seeds = Mutex::new(args.first..args.first.saturating_add(args.seeds));
    let (done, failures) = (Mutex::new(0_u64), Failures::default());
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(seed) = next(&seeds) {
                    if let Err(why) = one(args, seed) {
                        println!("seed {seed} failed:\n{why}  repeat: {}", command(args, seed));
                        lock(&failures).insert(seed, why);
                    }
                    progress(&done, args.seeds);
                }
            });
        }
    });
    let failures = lock(&failures);
    println!("{} worlds of {} minutes, {} failed", args.seeds, args.minutes, failures.len());
    for seed in failures.keys() {
        println!("  {}", command(args, *seed));
    }
    ExitCode::from(u8::from(!failures.is_empty()))
}

fn next(seeds: &Mutex<std::ops::Range<u64>>) -> Option<u64> {
    lock(seeds).next()
}

/// The output of a world that failed.
fn one(args: &Args, seed: u64) -> Result<(), String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new(program)
        .args(arguments(args, seed))
        .stdin(Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Err(format!("{}{}", text(&output.stdout), text(&output.stderr)))
}

fn arguments(args: &Args, seed: u64) -> Vec<String> {
    let pair = |name: &str, value: String| [format!("--{name}"), value];
    [
        pair("seed", seed.to_string()),
        pair("minutes", args.minutes.to_string()),
        pair("nodes", args.nodes.to_string()),
        pair("customers", args.customers.to_string()),
    ]
    .concat()
}

fn command(args: &Args, seed: u64) -> String {
    format!("cargo run -p sim -- {}", arguments(args, seed).join(" "))
}

fn progress(done: &Mutex<u64>, of: u64) {
    let mut done = lock(done);
    *done += 1;
    if std::io::stderr().is_terminal() {
        eprint!("\r{done} of {of} worlds");
        // Only the display would suffer.
        let _ = std::io::stderr().flush();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
