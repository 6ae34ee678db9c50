//! `quorate bench`: a closed-loop load generator.
//!
//! ```text
//! find nodes ─▶ put stock (or orders to read) in place ─▶ N workers, one connection each ─▶ merge ─▶ report
//! ```
//!
//! Closed loop means that a slow cluster is asked less: the rate is what N clients got, not what
//! the cluster could be offered. The report always says at which load it was made.

mod prepare;
mod receipts;
mod report;
mod stats;
mod wire;
mod worker;
mod workload;

use super::{Failure, args, output};
use crate::config::Secret;
use receipts::Receipts;
use report::Report;
use stats::{Live, Stats};
use std::{path::Path, sync::Arc, time::Duration};
use tokio::{task::JoinSet, time::Instant};
use worker::{Window, Worker};

/// Longest wait for answers still missing when the time is up.
const LAST_ANSWERS_MAX: Duration = Duration::from_secs(5);

pub(super) async fn run(args: &args::Bench) -> Result<(), Failure> {
    if args.duration.is_zero() {
        return Err(Failure::usage("--duration 0s measures nothing; give at least 1s"));
    }
    let receipts = args.receipts.as_deref().map(Receipts::create).transpose()?;
    let nodes = prepare::nodes(args).await?;
    output::note(&format!("preparing {} on {}", args.workload.name(), nodes.join(", ")));
    let run = prepare::run_id();
    let orders = prepare::data(args, &nodes, &run).await?;
    let token = args.credentials.token()?;
    let (stats, unanswered) = load(args, token.as_ref(), &nodes, &run, &orders, receipts.as_ref()).await;
    receipts.map_or(Ok(()), Receipts::finish)?;
    let report = Report::new(args, nodes, stats, unanswered);
    write(args.json.as_deref(), &report)?;
    match report.main_error() {
        _ if report.succeeded > 0 => Ok(()),
        Some(_) if report.never_connected() => {
            Err(Failure::unavailable("no node could be reached while measuring; are they running?"))
        }
        Some(code) => Err(Failure::operation(format!("no request succeeded, most often because of: {code}"))),
        None => Err(Failure::operation("no request was answered; try a longer --duration or less --concurrency")),
    }
}

/// Runs the workers; also tells how many requests were given up on at the end.
async fn load(
    args: &args::Bench,
    token: Option<&Secret>,
    nodes: &[String],
    run: &str,
    orders: &[String],
    receipts: Option<&Receipts>,
) -> (Stats, usize) {
    let begin = Instant::now() + args.warmup;
    let window = Window { begin, end: begin + args.duration };
    let live = Arc::new(Live::default());
    let mut workers = JoinSet::new();
    for (number, authority) in (0..args.concurrency).zip(nodes.iter().cycle()) {
        let envelope = workload::Envelope { authority: authority.clone(), token: token.cloned() };
        let requests = match args.workload {
            args::Workload::Read => workload::Requests::reads(&envelope, orders, number),
            order => workload::Requests::orders(&envelope, order, run, number, args.skus),
        };
        let worker = Worker {
            authority: authority.clone(),
            workload: args.workload,
            requests,
            window,
            live: live.clone(),
            receipts: receipts.cloned(),
        };
        workers.spawn(worker.run());
    }
    let progress = tokio::spawn(show_progress(live, window));
    let mut total = Stats::new();
    let give_up = window.end + LAST_ANSWERS_MAX;
    while let Ok(Some(done)) = tokio::time::timeout_at(give_up, workers.join_next()).await {
        if let Ok(stats) = done {
            total.merge(stats);
        }
    }
    progress.abort();
    (total, workers.len())
}

async fn show_progress(live: Arc<Live>, window: Window) {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    tick.tick().await;
    let start = Instant::now();
    let mut before = (0, 0);
    loop {
        let now = tick.tick().await;
        let (good, bad) = live.read();
        let phase = if now < window.begin { "  (warming up)" } else { "" };
        output::note(&format!(
            "{:>4} s  {:>8}/s  {:>6} errors/s{phase}",
            now.duration_since(start).as_secs(),
            good - before.0,
            bad - before.1
        ));
        before = (good, bad);
    }
}

fn write(file: Option<&Path>, report: &Report) -> Result<(), Failure> {
    let json = || {
        serde_json::to_string_pretty(report)
            .map_err(|error| Failure::operation(format!("the result is no JSON: {error}")))
    };
    match file {
        None => output::answer(&report.render()),
        Some(path) if path.as_os_str() == "-" => output::answer(&json()?),
        Some(path) => {
            std::fs::write(path, json()? + "\n")
                .map_err(|error| Failure::operation(format!("--json {}: {error}", path.display())))?;
            output::answer(&report.render())
        }
    }
}

#[cfg(test)]
mod tests;
