//! The load and the checkers of `quorate chaos` on real nodes, one of which dies.

use crate::harness::{Cluster, PATIENCE, turn, wait_until};
use quorate::chaos::{
    check::{check_with, observe::QUIET_MAX},
    gateway::Gateway,
    load::{self, Workload},
    verdict::Verdict,
};
use std::time::Instant;

const CLIENTS: usize = 16;
/// Decided attempts before the node dies, while it is dead, and when it is back.
const OPERATIONS: u64 = 250;

#[tokio::test]
async fn every_invariant_is_checked_and_holds_when_a_node_is_killed_under_load() {
    let _turn = turn().await;
    let gateway = Gateway::open().await.expect("a port on loopback");
    let arguments = gateway.node_arguments();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let cluster = Cluster::start_with(3, &arguments).await;
    let urls: Vec<String> = cluster.nodes().iter().map(|node| node.url.clone()).collect();
    let load = load::start(load::Options {
        urls: urls.clone(),
        clients: CLIENTS,
        workloads: Workload::ALL.to_vec(),
        seed: 7,
        started: Instant::now(),
    });
    let more = async |reason: &str| {
        let enough = load.sample().acknowledged + OPERATIONS;
        let reason = format!("{OPERATIONS} more operations are decided {reason}");
        wait_until(&reason, PATIENCE, || async { load.sample().acknowledged >= enough }).await;
    };
    more("before anyone dies").await;
    cluster.node(1).kill9();
    more("without one node").await;
    cluster.node(1).restart();
    cluster.node(1).wait_ready("after it was killed").await;
    more("with it back").await;
    let history = load.stop().await;
    for workload in Workload::ALL {
        assert!(history.operations.iter().any(|operation| operation.workload == workload), "{workload}");
    }
    let verdicts = check_with(&history, &urls, Some(&gateway), QUIET_MAX).await;
    for verdict in &verdicts {
        // What the nodes do not offer is the only thing that may go unchecked.
        assert!(verdict.holds() || is_skipped(verdict), "{verdict:#?}");
    }
    let checked = verdicts.iter().filter(|verdict| verdict.checked > 0).count();
    assert!(checked >= 10, "{verdicts:#?}");
}

fn is_skipped(verdict: &Verdict) -> bool {
    verdict.violations.is_empty() && verdict.skipped.is_some()
}
