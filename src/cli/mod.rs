//! The command line: one binary that runs a node, a whole cluster on loopback, operator commands,
//! a load generator, and chaos.
//!
//! ```text
//! main ─▶ args (clap) ─┬─ node ──▶ config ─▶ cluster + ingress, until a signal
//!                      ├─ dev ───▶ N × `quorate node`, watched
//!                      ├─ status, members, leave, remove, shards, entity, tasks, sagas, dead-letters ──▶ http ─▶ a running node
//!                      ├─ backup, restore ─▶ a file ◀─▶ http ─▶ a running node
//!                      ├─ config check | show
//!                      ├─ certs init | node ─▶ PEM files
//!                      ├─ verify ─▶ receipts held against every replica
//!                      ├─ bench ─▶ closed-loop load on running nodes
//!                      └─ chaos ─▶ N × `quorate node`, mistreated ─▶ verdict
//! ```
//!
//! Invariants: what was asked for goes to stdout, everything else to stderr; an error is one line,
//! `error: …`, that says what to do; the exit code is 0, 1, 2 or 3 as [`Failure`] defines them.

mod args;
mod backup;
mod bench;
mod certs;
mod chaos;
mod config;
mod credentials;
mod dev;
mod failure;
pub mod http;
mod leave;
mod node;
mod operator;
mod output;
mod serve;
mod signals;
mod table;
mod tasks;
mod verify;

pub use failure::Failure;

use args::{Args, Command};
use clap::Parser;
use std::process::ExitCode;

/// Parses the arguments of this process and carries them out.
pub fn main() -> ExitCode {
    output::install_panic_hook();
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help and version are answers (stdout, 0); the rest is bad usage (stderr, 2). Clap
            // knows which is which; nothing is left to do if the terminal is gone.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match run(args.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::note(&format!("error: {failure}"));
            failure.exit_code()
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Dev(args) => multi_threaded()?.block_on(dev::run(args)),
        Command::Node(args) => node::run(&args),
        Command::Status(args) => single_threaded()?.block_on(operator::status(&args)),
        Command::Members(args) => single_threaded()?.block_on(operator::members(&args)),
        Command::Leave(args) => single_threaded()?.block_on(leave::leave(&args)),
        Command::Remove(args) => single_threaded()?.block_on(leave::remove(&args)),
        Command::Shards(args) => single_threaded()?.block_on(operator::shards(&args)),
        Command::Entity(args) => single_threaded()?.block_on(operator::entity(&args)),
        Command::Tasks(args) => single_threaded()?.block_on(tasks::tasks(&args)),
        Command::Sagas(args) => single_threaded()?.block_on(tasks::sagas(&args)),
        Command::DeadLetters(args) => single_threaded()?.block_on(tasks::dead_letters(&args.command)),
        Command::Backup(args) => single_threaded()?.block_on(backup::backup(&args)),
        Command::Restore(args) => single_threaded()?.block_on(backup::restore(&args)),
        Command::Config(args) => config::run(&args),
        Command::Certs(args) => certs::run(&args),
        Command::Verify(args) => single_threaded()?.block_on(verify::run(&args)),
        // One thread: the cluster under load has better uses for the others.
        Command::Bench(args) => single_threaded()?.block_on(bench::run(&args)),
        Command::Chaos(args) => {
            let begun = chaos::begin(&args)?;
            multi_threaded()?.block_on(chaos::run(args, begun))
        }
    }
}

fn single_threaded() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(no_runtime)
}

fn multi_threaded() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(no_runtime)
}

fn no_runtime(error: std::io::Error) -> Failure {
    Failure::operation(format!("cannot start threads: {error}; check the limits of this user (`ulimit -u`)"))
}
