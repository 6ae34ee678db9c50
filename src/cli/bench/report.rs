//! The result, for people and for scripts.

use super::{super::args, stats::Stats};
use serde::Serialize;
use std::{collections::BTreeMap, time::Duration};

/// A result together with the load it was measured at: one is worth nothing without the other.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    version: &'static str,
    workload: &'static str,
    concurrency: u32,
    nodes: Vec<String>,
    skus: u32,
    duration_s: f64,
    warmup_s: f64,
    /// Of the machine the client ran on.
    cores: usize,
    pub succeeded: u64,
    failed: u64,
    /// Requests still unanswered when the client gave up on them.
    unanswered: usize,
    /// Successes within `duration_s`, per second.
    per_second: f64,
    latency_ms: Latency,
    errors: BTreeMap<String, u64>,
}

#[derive(Debug, Serialize)]
struct Latency {
    mean: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

impl Report {
    pub fn new(args: &args::Bench, nodes: Vec<String>, stats: Stats, unanswered: usize) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            workload: args.workload.name(),
            concurrency: args.concurrency,
            nodes,
            skus: if args.workload == args::Workload::HotSku { 1 } else { args.skus },
            duration_s: args.duration.as_secs_f64(),
            warmup_s: args.warmup.as_secs_f64(),
            cores: std::thread::available_parallelism().map_or(1, Into::into),
            succeeded: stats.successes(),
            failed: stats.errors.values().sum(),
            unanswered,
            per_second: rate(stats.in_window, args.duration),
            latency_ms: Latency {
                mean: stats.millis_mean(),
                p50: stats.millis_at(0.5),
                p90: stats.millis_at(0.9),
                p99: stats.millis_at(0.99),
                p999: stats.millis_at(0.999),
                max: stats.millis_max(),
            },
            errors: stats.errors,
        }
    }

    /// What went wrong most often.
    pub fn main_error(&self) -> Option<&str> {
        self.errors.iter().max_by_key(|(_, count)| **count).map(|(code, _)| code.as_str())
    }

    /// Whether nothing but failed connections was seen.
    pub fn never_connected(&self) -> bool {
        self.succeeded == 0 && !self.errors.is_empty() && self.errors.keys().all(|code| code.starts_with("connect: "))
    }

    pub fn render(&self) -> String {
        let latency = &self.latency_ms;
        let mut text = format!(
            "{} over {} nodes, {} connections, {} s, {} cores (client included)\n\n  {:>10.1} per second\n",
            self.workload,
            self.nodes.len(),
            self.concurrency,
            self.duration_s,
            self.cores,
            self.per_second
        );
        let rows = [
            ("p50", latency.p50),
            ("p90", latency.p90),
            ("p99", latency.p99),
            ("p999", latency.p999),
            ("max", latency.max),
        ];
        for (name, millis) in rows {
            text.push_str(&format!("  {millis:>10.2} ms {name}\n"));
        }
        text.push_str(&format!("\n  {:>10} succeeded\n  {:>10} failed\n", self.succeeded, self.failed));
        for (code, count) in &self.errors {
            text.push_str(&format!("  {count:>10}   {code}\n"));
        }
        if self.unanswered > 0 {
            text.push_str(&format!("  {:>10} still unanswered at the end\n", self.unanswered));
        }
        text
    }
}

#[expect(clippy::cast_precision_loss, reason = "no run makes 2^52 requests")]
pub(super) fn rate(count: u64, over: Duration) -> f64 {
    let seconds = over.as_secs_f64();
    if seconds > 0.0 { (count as f64 / seconds * 10.0).round() / 10.0 } else { 0.0 }
}
