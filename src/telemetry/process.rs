//! Memory and CPU time of this process, read from `/proc/self` when somebody asks.

use super::names;
use std::{fmt::Write, fs};

/// `USER_HZ`: the unit of the times in `/proc/self/stat`, the same on every Linux that Rust runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// What the kernel says of this process.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Usage {
    resident_bytes: u64,
    /// User and system time since the start.
    cpu_seconds: f64,
}

/// Appends the figures as Prometheus text; nothing where there is no `/proc`.
pub(super) fn append(text: &mut String) {
    let Some(usage) = read() else { return };
    let lines = [
        (names::PROCESS_RSS, "gauge", "Resident memory size in bytes", usage.resident_bytes as f64),
        (names::PROCESS_CPU, "counter", "User and system CPU time spent in seconds", usage.cpu_seconds),
    ];
    for (name, kind, help, value) in lines {
        // Writing into a String cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
    }
}

fn read() -> Option<Usage> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    Some(Usage { resident_bytes: resident_bytes(&status)?, cpu_seconds: cpu_seconds(&stat)? })
}

/// From the line `VmRSS:   12345 kB`.
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// Fields 14 and 15, counted after the command name, which may itself hold blanks and brackets.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_lines_are_understood() {
        assert_eq!(resident_bytes("Name:\tq\nVmRSS:\t    2048 kB\nRssAnon: 1 kB"), Some(2048 * 1024));
        assert_eq!(resident_bytes("Name:\tq"), None);
        let stat = "42 (a ) name) S 1 42 42 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 4 0 100 1 1";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(cpu_seconds("42 (q) S 1"), None);
    }

    #[test]
    fn this_process_has_memory() {
        let usage = read().expect("/proc is there");
        assert!(usage.resident_bytes > 100_000, "{usage:?}");
        let mut text = String::new();
        append(&mut text);
        assert!(text.contains("# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total "), "{text}");
    }
}
