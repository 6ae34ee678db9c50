//! Looks at every node once a second: how much memory it takes, what it says it owns.

use super::recorder::Recorder;
use crate::{chaos::history::NodeSample, cli::http};
use serde_json::Value;
use std::{sync::Arc, time::Duration};
use tokio::task::JoinSet;

const INTERVAL: Duration = Duration::from_secs(1);
/// A node that is frozen or dead is skipped.
const ANSWER_MAX: Duration = Duration::from_secs(1);
const RESIDENT: &str = "process_resident_memory_bytes";

pub(super) async fn run(urls: Vec<String>, recorder: Arc<Recorder>) {
    let mut nodes = JoinSet::new();
    for url in urls {
        nodes.spawn(watch(url, recorder.clone()));
    }
    while nodes.join_next().await.is_some() {}
}

async fn watch(url: String, recorder: Arc<Recorder>) {
    let Ok(node) = http::Client::new(&url) else { return };
    let node = node.with_timeout(ANSWER_MAX);
    while !recorder.stop.is_cancelled() {
        if let Some(sample) = look(&node, &url, &recorder).await {
            recorder.watched(sample);
        }
        let _ = tokio::time::timeout(INTERVAL, recorder.stop.cancelled()).await;
    }
}

async fn look(node: &http::Client, url: &str, recorder: &Recorder) -> Option<NodeSample> {
    let at_us = recorder.now_us();
    let metrics = node.get("/metrics").await.ok()?;
    let id = node.get("/admin/v1/status").await.ok()?.json()["node"].as_u64();
    let shards = node.get("/admin/v1/shards").await.ok()?.json();
    let resident_bytes = resident(&metrics.text());
    Some(NodeSample { node: url.to_owned(), at_us, resident_bytes, id, owns: owned(&shards, id) })
}

fn owned(shards: &Value, id: Option<u64>) -> Vec<(u64, u64)> {
    let shards = shards["data"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mine = shards.iter().filter(|shard| id.is_some() && shard["owner"].as_u64() == id);
    mine.filter_map(|shard| Some((shard["shard"].as_u64()?, shard["term"].as_u64()?))).collect()
}

/// From Prometheus text. A gauge may be written as a float.
fn resident(metrics: &str) -> Option<u64> {
    let line = metrics.lines().find_map(|line| line.strip_prefix(RESIDENT)?.strip_prefix(' '))?;
    line.trim().parse::<f64>().ok().filter(|bytes| *bytes >= 0.0).map(|bytes| bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn memory_is_found_among_the_metrics() {
        let text = "# HELP process_resident_memory_bytes x\nprocess_resident_memory_bytes 1048576\nother 1\n";
        assert_eq!(resident(text), Some(1_048_576));
        assert_eq!(resident("process_resident_memory_bytes 1.5e6"), Some(1_500_000));
        assert_eq!(resident("process_cpu_seconds_total 1"), None);
    }

    #[test]
    fn a_node_owns_what_it_names_itself_the_owner_of() {
        let shards = json!({"data": [
            {"shard": 0, "owner": 2, "term": 5}, {"shard": 1, "owner": 1, "term": 4}, {"shard": 2, "owner": null, "term": 9},
        ]});
        assert_eq!(owned(&shards, Some(2)), [(0, 5)]);
        assert_eq!(owned(&shards, None), []);
    }
}
