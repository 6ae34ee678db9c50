//! How a run goes, for the terminal.

use super::timeline::Point;
use std::time::Duration;

const BAR: usize = 24;
/// What fits beside the figures.
const FAULTS_CHARS_MAX: usize = 48;

/// What is told while a run goes on.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    /// Something happened; a line of its own.
    Note(String),
    /// The latest figures, in place of those before.
    Progress(Progress),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    pub elapsed: Duration,
    pub duration: Duration,
    pub point: Point,
    /// Attempts so far.
    pub acknowledged: u64,
    pub refused: u64,
    pub unknown: u64,
    pub in_force: Vec<String>,
}

impl Progress {
    /// One line.
    pub fn render(&self) -> String {
        let done = (self.elapsed.as_secs_f64() / self.duration.as_secs_f64().max(0.001)).clamp(0.0, 1.0);
        let filled = (done * BAR as f64).round() as usize;
        let bar = format!("{}{}", "█".repeat(filled), "░".repeat(BAR - filled));
        let latency = self.point.p99_ms.map_or_else(|| "    –".into(), |ms| format!("{ms:>5.0}"));
        let mut faults = self.in_force.join(" · ");
        if faults.chars().count() > FAULTS_CHARS_MAX {
            faults = faults.chars().take(FAULTS_CHARS_MAX - 1).chain(['…']).collect();
        }
        let faults = if faults.is_empty() { "quiet".to_owned() } else { format!("⚡ {faults}") };
        format!(
            "{bar} {:>4.0}/{:.0} s {:>6.0}/s  p99 {latency} ms  refused {}  unknown {}  {faults}",
            self.elapsed.as_secs_f64(),
            self.duration.as_secs_f64(),
            self.point.acknowledged_per_s,
            self.refused,
            self.unknown,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(elapsed: u64, in_force: Vec<String>) -> Progress {
        let point = Point {
            at_s: 1.0,
            acknowledged_per_s: 123.4,
            refused_per_s: 0.0,
            unknown_per_s: 0.0,
            p50_ms: Some(1.0),
            p99_ms: None,
        };
        let (elapsed, duration) = (Duration::from_secs(elapsed), Duration::from_secs(60));
        Progress { elapsed, duration, point, acknowledged: 9, refused: 2, unknown: 1, in_force }
    }

    #[test]
    fn the_bar_fills_up_and_faults_in_force_are_named() {
        let line = progress(30, vec!["kill n1".into()]).render();
        assert!(line.starts_with(&format!("{}{}", "█".repeat(12), "░".repeat(12))), "{line}");
        assert!(line.contains("123/s") && line.contains("⚡ kill n1") && line.contains("refused 2"), "{line}");
        let late = progress(90, vec!["x".repeat(200)]).render();
        assert!(late.starts_with(&"█".repeat(24)) && late.chars().count() < 150, "{late}");
        assert!(progress(0, Vec::new()).render().ends_with("quiet"));
    }
}
