//! Tests of the whole in one process. Tests with real processes are in tests/cluster.

mod audit;
mod backup;
mod entities;
mod examples;
mod http;
mod journal;
mod layers;
mod options;
mod partitions;
mod tasks;

/// With `RUST_LOG=quorate=debug cargo test …` the nodes of a test tell what they do.
fn logs() {
    let quiet = quorate::telemetry::Options { filter: "off".into(), ..quorate::telemetry::Options::default() };
    // Whoever comes second finds them set up.
    let _ = quorate::telemetry::init(&quiet);
}
