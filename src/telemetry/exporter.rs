//! The metrics recorder of this process and its Prometheus text.

use super::{names, process};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use std::{sync::OnceLock, thread, time::Duration};

/// Upper bounds of the buckets of every `*_seconds` histogram: 100 µs to 10 s.
const SECONDS_BUCKETS: [f64; 16] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Upper bounds of the buckets of every `*_size` histogram.
const SIZE_BUCKETS: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

/// How often observations are folded into their buckets when nobody scrapes. It bounds what the
/// recorder holds between two scrapes.
const UPKEEP_PERIOD: Duration = Duration::from_secs(5);

/// The way to the recorder's text. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
}

impl Metrics {
    /// Every metric in the Prometheus text format, with the process's memory and CPU time as of now.
    pub fn render(&self) -> String {
        self.handle.run_upkeep();
        let mut text = self.handle.render();
        process::append(&mut text);
        text
    }
}

/// The recorder of this process: installed by the first call, the same ever after.
///
/// Where an app has installed a recorder of its own before, that one stays in place and gets the
/// metrics; this one then renders the process's figures only, and a warning says so.
pub fn metrics() -> Metrics {
    static INSTALLED: OnceLock<Metrics> = OnceLock::new();
    INSTALLED.get_or_init(install).clone()
}

fn install() -> Metrics {
    let recorder = recorder();
    let metrics = Metrics { handle: recorder.handle() };
    if metrics::set_global_recorder(recorder).is_err() {
        tracing::warn!("another metrics recorder is installed in this process: /metrics stays nearly empty");
        return metrics;
    }
    names::describe();
    metrics::gauge!(names::BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    keep_up(metrics.handle.clone());
    metrics
}

fn recorder() -> PrometheusRecorder {
    let buckets = [("_seconds", SECONDS_BUCKETS.as_slice()), ("_size", SIZE_BUCKETS.as_slice())];
    let mut builder = PrometheusBuilder::new();
    for (suffix, bounds) in buckets {
        let with_buckets = builder.set_buckets_for_metric(Matcher::Suffix(suffix.to_owned()), bounds);
        #[expect(clippy::expect_used, reason = "the only error is an empty list, and these are constants")]
        let with_buckets = with_buckets.expect("bucket lists are not empty");
        builder = with_buckets;
    }
    builder.build_recorder()
}

/// A thread and not a task: the recorder outlives every runtime of the process.
fn keep_up(handle: PrometheusHandle) {
    let upkeep = move || {
        loop {
            thread::sleep(UPKEEP_PERIOD);
            handle.run_upkeep();
        }
    };
    if let Err(error) = thread::Builder::new().name("metrics-upkeep".into()).spawn(upkeep) {
        tracing::warn!(%error, "metrics are only folded when they are scraped");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_holds_what_was_recorded_and_what_the_build_is() {
        let first = metrics();
        metrics::counter!(names::PROPOSALS).increment(3);
        metrics::histogram!(names::JOURNAL_SYNC_SECONDS).record(0.002);
        metrics::histogram!(names::PROPOSAL_BATCH_SIZE).record(100.0);
        // The same recorder again: what the first handle's metrics counted is in the second's text.
        let text = metrics().render();
        let proposals = text.lines().find_map(|line| line.strip_prefix("quorate_proposals_total "));
        let counted: u64 = proposals.expect("counted").parse().expect("a number");
        assert!(counted >= 3, "{counted}");
        assert!(text.contains("# HELP quorate_proposals_total"), "{text}");
        assert!(text.contains("quorate_journal_sync_seconds_bucket{le=\"0.0025\"}"), "{text}");
        assert!(text.contains("quorate_proposal_batch_size_bucket{le=\"128\"}"), "{text}");
        let build = format!("quorate_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"));
        assert!(text.contains(&build), "{text}");
        assert!(first.render().contains(names::PROCESS_RSS));
    }

    #[test]
    fn names_follow_the_conventions_that_the_buckets_rely_on() {
        for name in [names::HTTP_REQUEST_SECONDS, names::COMMAND_SECONDS, names::JOURNAL_SYNC_SECONDS] {
            assert!(name.ends_with("_seconds"), "{name}");
        }
        for name in [names::PROPOSAL_BATCH_SIZE, names::JOURNAL_GROUP_SIZE] {
            assert!(name.ends_with("_size"), "{name}");
        }
    }
}
