//! What a run leaves behind: `report.json` for programs, `report.html` for people, and the history.

mod chart;
mod html;

use super::{
    faults::Times,
    history::{History, Outcome},
    plan::Plan,
    schedule::Event,
    timeline::{self, Point},
    verdict::Verdict,
};
use crate::sabotage;
use serde::Serialize;
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// What a fault did may show for so long when nothing is left of it.
const AFTERMATH: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// `passed` or `violated`.
    pub verdict: &'static str,
    /// What to type for the same again.
    pub command: String,
    pub version: &'static str,
    /// The promise that its nodes broke on purpose.
    pub sabotage: Option<&'static str>,
    pub system: System,
    pub ended_at_unix_ms: u64,
    pub network: Network,
    pub totals: Totals,
    pub verdicts: Vec<Verdict>,
    pub faults: Vec<FaultRecord>,
    pub plan: Plan,
    pub timeline: Vec<Point>,
    /// Where logs and data of the nodes are, if they were kept.
    pub evidence: Option<String>,
}

/// How nodes were kept apart.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Network {
    /// As on the command line: `namespace` or `proxy`.
    pub way: &'static str,
    /// For people, with the reason.
    pub about: String,
    /// As `/proc` showed it. It ended with the run.
    pub namespace: Option<String>,
    /// By nft, which counts them.
    pub packets_dropped: Option<u64>,
}

impl Network {
    fn render(&self) -> String {
        let dropped = self.packets_dropped.map_or_else(String::new, |count| format!("; {count} packets dropped"));
        format!("{}{dropped}", self.about)
    }
}

/// What it ran on.
#[derive(Debug, Clone, Serialize)]
pub struct System {
    pub cores: usize,
    pub kernel: String,
}

impl System {
    pub fn this() -> Self {
        let read = |path| fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
        let kernel = format!("{} {}", read("/proc/sys/kernel/ostype"), read("/proc/sys/kernel/osrelease"));
        Self { cores: std::thread::available_parallelism().map_or(1, usize::from), kernel: kernel.trim().to_owned() }
    }
}

/// Attempts, over the whole run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    pub operations: u64,
    pub acknowledged: u64,
    pub acknowledged_writes: u64,
    /// Decided for good, and not done: out of stock, an illegal transition, a version mismatch.
    pub declined: u64,
    pub refused: u64,
    pub unknown: u64,
}

impl Totals {
    pub fn add(&mut self, history: &History) {
        for operation in &history.operations {
            self.operations += 1;
            let acknowledged = operation.acknowledged().is_some();
            self.acknowledged += u64::from(acknowledged);
            self.acknowledged_writes += u64::from(acknowledged && operation.is_write());
            self.declined += u64::from(!acknowledged && matches!(operation.outcome, Outcome::Answered { .. }));
            self.refused += u64::from(matches!(operation.outcome, Outcome::Refused { .. }));
            self.unknown += u64::from(operation.is_unknown());
        }
    }
}

/// A fault as it happened. Times are seconds since the load began.
#[derive(Debug, Clone, Serialize)]
pub struct FaultRecord {
    pub name: String,
    pub expectation: &'static str,
    pub planned_at_s: f64,
    pub begun_s: Option<f64>,
    pub healed_s: Option<f64>,
    /// When nothing was left of it.
    pub gone_s: f64,
    /// The longest time without an acknowledged write, from its beginning to five seconds after
    /// nothing was left of it, or to the next fault.
    pub longest_gap_ms: Option<u64>,
    pub trouble: Option<String>,
}

impl FaultRecord {
    pub fn new(event: &Event, times: Times, started: Instant, trouble: Option<String>) -> Self {
        let seconds = |at: Instant| (at.duration_since(started).as_secs_f64() * 1000.0).round() / 1000.0;
        Self {
            name: event.fault.to_string(),
            expectation: event.fault.expectation(),
            planned_at_s: event.at.as_secs_f64(),
            begun_s: times.begun.map(seconds),
            healed_s: times.healed.map(seconds),
            gone_s: seconds(Instant::now()),
            longest_gap_ms: None,
            trouble,
        }
    }
}

/// Fills in each fault's longest time without an acknowledged write; `times` are those of the writes,
/// in order, in microseconds since the load began.
pub fn measure_gaps(faults: &mut [FaultRecord], times: &[u64]) {
    let us = |seconds: f64| (seconds * 1e6) as u64;
    let mut begins: Vec<u64> = faults.iter().filter_map(|fault| fault.begun_s).map(us).collect();
    begins.sort_unstable();
    for fault in faults {
        let Some(begun) = fault.begun_s.map(us) else { continue };
        let aftermath = us(fault.gone_s) + AFTERMATH.as_micros() as u64;
        // What the next fault does is not this one's doing.
        let next = begins.iter().copied().find(|next| *next > begun).unwrap_or(u64::MAX);
        let gap = timeline::longest_gap(times, begun..aftermath.min(next));
        fault.longest_gap_ms = gap.map(|gap| gap.as_millis() as u64);
    }
}

impl Report {
    pub fn new(
        command: String,
        plan: Plan,
        system: System,
        mut faults: Vec<FaultRecord>,
        timeline: Vec<Point>,
        verdicts: Vec<Verdict>,
    ) -> Self {
        faults.sort_by(|a, b| a.planned_at_s.total_cmp(&b.planned_at_s));
        let violated = verdicts.iter().any(|verdict| !verdict.violations.is_empty());
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            verdict: if violated { "violated" } else { "passed" },
            command,
            version: sabotage::VERSION,
            sabotage: None,
            system,
            ended_at_unix_ms: since.as_millis() as u64,
            network: Network::default(),
            totals: Totals::default(),
            verdicts,
            faults,
            plan,
            timeline,
            evidence: None,
        }
    }

    pub fn is_violated(&self) -> bool {
        self.verdicts.iter().any(|verdict| !verdict.violations.is_empty())
    }

    /// The first violation, for a line on the terminal.
    pub fn first_violation(&self) -> Option<String> {
        let verdict = self.verdicts.iter().find(|verdict| !verdict.violations.is_empty())?;
        verdict.violations.first().map(|violation| format!("{}: {}", verdict.invariant, violation.detail))
    }

    /// Writes `report.json`, `report.html` and `history.jsonl` into a directory, which is created.
    ///
    /// # Errors
    /// The directory or a file cannot be written.
    pub fn write(&self, dir: &Path, history: &History) -> io::Result<PathBuf> {
        fs::create_dir_all(dir)?;
        let json = serde_json::to_string_pretty(self).map_err(io::Error::other)?;
        fs::write(dir.join("report.json"), json + "\n")?;
        history.write(io::BufWriter::new(fs::File::create(dir.join("history.jsonl"))?))?;
        let page = dir.join("report.html");
        fs::write(&page, html::render(self))?;
        Ok(page)
    }

    /// For the terminal, at the end.
    pub fn render(&self) -> String {
        let mut text = String::new();
        if let Some(broken) = self.sabotage {
            text.push_str(&format!("  SABOTAGE: the nodes broke a promise on purpose: {broken}\n"));
        }
        for fault in &self.faults {
            let at = fault.begun_s.map_or_else(|| "   not done".into(), |at| format!("{at:>9.1} s"));
            let gap = fault.longest_gap_ms.map_or_else(String::new, |gap| format!("longest gap {gap} ms"));
            text.push_str(&format!("  {at}  {:<36} {gap}\n", fault.name));
        }
        text.push('\n');
        for verdict in &self.verdicts {
            let (mark, what) = mark(verdict);
            text.push_str(&format!("  {mark} {:<28} {what}\n", verdict.invariant));
            for violation in &verdict.violations {
                text.push_str(&format!("      {}\n", violation.detail));
            }
        }
        let Totals { operations, acknowledged, declined, refused, unknown, .. } = self.totals;
        text.push_str(&format!(
            "\n  {operations} attempts: {acknowledged} acknowledged, {declined} declined, {refused} refused, {unknown} unknown\n  network: {}\n  again: {}\n",
            self.network.render(),
            self.command
        ));
        text
    }
}

/// A sign and a sentence for a verdict.
fn mark(verdict: &Verdict) -> (&'static str, String) {
    let skipped = verdict.skipped.as_ref().map_or(String::new(), |why| format!("; not judged: {why}"));
    match (verdict.violations.len(), verdict.checked) {
        (0, 0) if verdict.skipped.is_some() => ("–", skipped.trim_start_matches("; ").to_owned()),
        (0, checked) => ("✓", format!("{checked} checked{skipped}")),
        (violations, checked) => ("✗", format!("{violations} violations, {checked} checked{skipped}")),
    }
}

#[cfg(test)]
mod tests;
