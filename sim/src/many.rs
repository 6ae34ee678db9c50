//! Many worlds, each in a process of its own: nothing of one can reach the next. What came of them
//! is told in the order of their seeds, however they end.

use crate::{Args, summary::Summary};
use std::{
    collections::BTreeMap,
    io::{IsTerminal, Write},
    ops::Range,
    process::{Command, ExitCode, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// What came of a world.
#[derive(Debug)]
enum Outcome {
    Fine(Summary),
    /// All that its process has said.
    Wrong(String),
    /// There was none: the process could not be started, or refused its arguments.
    None(String),
}

struct Ended {
    outcome: Outcome,
    took: Duration,
}

pub fn run(args: &Args) -> ExitCode {
    let began = Instant::now();
    let jobs = args.jobs.unwrap_or_else(|| thread::available_parallelism().map_or(1, |cores| cores.get() / 2)).max(1);
    let seeds = Mutex::new(args.first..args.first.saturating_add(args.seeds));
    let told = Mutex::new(Told { args, next: args.first, early: BTreeMap::new(), sum: Tally::default() });
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(seed) = next(&seeds) {
                    let ended = one(args, seed);
                    let is_over =
                        matches!(ended.outcome, Outcome::None(_)) || args.expect_violation && ended.is_wrong();
                    if is_over {
                        *lock(&seeds) = 0..0;
                    }
                    lock(&told).take(seed, ended);
                }
            });
        }
    });
    let sum = told.into_inner().unwrap_or_else(PoisonError::into_inner).sum;
    sum.close(args, began.elapsed())
}

fn next(seeds: &Mutex<Range<u64>>) -> Option<u64> {
    lock(seeds).next()
}

fn one(args: &Args, seed: u64) -> Ended {
    let began = Instant::now();
    let outcome = simulate(args, seed).unwrap_or_else(|error| Outcome::None(error.to_string()));
    Ended { outcome, took: began.elapsed() }
}

fn simulate(args: &Args, seed: u64) -> std::io::Result<Outcome> {
    let program = std::env::current_exe()?;
    let output = Command::new(program).args(arguments(args, seed)).stdin(Stdio::null()).output()?;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let summary = said.lines().find_map(|line| Summary::read(line.strip_prefix(&format!("seed {seed}: "))?));
    Ok(match (output.status.code(), summary) {
        (Some(0), Some(summary)) => Outcome::Fine(summary),
        (Some(2), _) => Outcome::None(said),
        // What a signal has ended (memory that could not be had aborts) says the least itself.
        _ => Outcome::Wrong(format!("{said}{}\n", output.status)),
    })
}

impl Ended {
    fn is_wrong(&self) -> bool {
        matches!(self.outcome, Outcome::Wrong(_))
    }
}

/// What has been told, and what has to wait until all before it have ended.
struct Told<'a> {
    args: &'a Args,
    next: u64,
    early: BTreeMap<u64, Ended>,
    sum: Tally,
}

impl Told<'_> {
    fn take(&mut self, seed: u64, ended: Ended) {
        self.early.insert(seed, ended);
        while let Some(ended) = self.early.remove(&self.next) {
            self.tell(self.next, ended);
            self.next += 1;
        }
        if std::io::stderr().is_terminal() {
            eprint!("\r{} of {} worlds", self.sum.worlds, self.args.seeds);
            // Only the display would suffer.
            let _ = std::io::stderr().flush();
        }
    }

    fn tell(&mut self, seed: u64, ended: Ended) {
        let seconds = ended.took.as_secs_f64();
        match &ended.outcome {
            Outcome::Fine(summary) => println!("seed {seed}: {summary}; took {seconds:.1} s"),
            Outcome::Wrong(said) => {
                let end = if said.ends_with('\n') { "" } else { "\n" };
                println!("seed {seed} FAILED after {seconds:.1} s:\n{said}{end}  repeat: {}", command(self.args, seed));
            }
            Outcome::None(why) => println!("seed {seed} was not simulated: {why}"),
        }
        self.sum.count(seed, ended);
    }
}

/// Of all worlds.
#[derive(Default)]
struct Tally {
    worlds: u64,
    sum: Summary,
    took: Duration,
    wrong: Vec<u64>,
    not_simulated: u64,
}

impl Tally {
    fn count(&mut self, seed: u64, ended: Ended) {
        self.worlds += 1;
        self.took += ended.took;
        match ended.outcome {
            Outcome::Fine(summary) => self.sum += summary,
            Outcome::Wrong(_) => self.wrong.push(seed),
            Outcome::None(_) => self.not_simulated += 1,
        }
    }

    fn close(&self, args: &Args, took: Duration) -> ExitCode {
        let Self { worlds, sum, wrong, .. } = self;
        println!("{worlds} worlds of {} minutes, {} failed", args.minutes, wrong.len());
        println!("those that did not: {sum}");
        println!("took {} s, {} s of all worlds together", took.as_secs(), self.took.as_secs());
        for seed in wrong {
            println!("  {}", command(args, *seed));
        }
        if self.not_simulated > 0 {
            return ExitCode::from(2);
        }
        if args.expect_violation && wrong.is_empty() {
            println!("error: a violation was expected");
        }
        ExitCode::from(u8::from(wrong.is_empty() == args.expect_violation))
    }
}

fn arguments(args: &Args, seed: u64) -> Vec<String> {
    let pair = |name: &str, value: String| [format!("--{name}"), value];
    [
        pair("seed", seed.to_string()),
        pair("minutes", args.minutes.to_string()),
        pair("nodes", args.nodes.to_string()),
        pair("customers", args.customers.to_string()),
        pair("wall-max", args.wall_max.to_string()),
        pair("memory-max", format!("{}B", args.memory_max.as_u64())),
    ]
    .concat()
}

/// What repeats a world.
fn command(args: &Args, seed: u64) -> String {
    let (set, feature) = match quorate::sabotage::chosen() {
        Ok(Some(what)) => (format!("{}={what} ", quorate::sabotage::VARIABLE), " --features sabotage"),
        _ => (String::new(), ""),
    };
    format!("{set}cargo run -p sim{feature} -- {}", arguments(args, seed).join(" "))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
