//! Waiting until nothing is left to do.
//!
//! Quiet is: every node is ready; all of them name the same owner for each shard; every replica has
//! applied what its shard's log holds; nothing waits for delivery but tasks whose time has not come:
//! whether what they belong to ends is for the checkers to say. Conditions only: it takes as long as
//! it takes, up to a deadline.

use super::cluster::{Cluster, Node, POLL, list};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Quiet for so many looks in a row: an owner may move, a timer may fire, between two of them.
const LOOKS: u32 = 5;

/// # Errors
/// What is still not quiet after that time.
pub async fn wait(cluster: &Cluster, within: Duration) -> Result<(), String> {
    let started = Instant::now();
    let mut quiet = 0;
    loop {
        match look(cluster).await {
            Ok(()) if quiet + 1 == LOOKS => return Ok(()),
            Ok(()) => quiet += 1,
            Err(why) if started.elapsed() > within => return Err(format!("{within:?} after the last fault: {why}")),
            Err(_) => quiet = 0,
        }
        tokio::time::sleep(POLL * 5).await;
    }
}

/// # Errors
/// The first thing that is not quiet.
async fn look(cluster: &Cluster) -> Result<(), String> {
    let mut views = Vec::new();
    for node in cluster.nodes() {
        views.push((node.name.as_str(), shards(node).await?));
    }
    let node = cluster.node(1);
    let tasks = node.ask("/admin/v1/tasks?limit=100").await.ok_or_else(|| format!("{} lists no tasks", node.name))?;
    agree(&views, &waiting(&tasks)?)
}

/// Tasks that wait for their time, by shard.
///
/// # Errors
/// Some do not wait.
fn waiting(tasks: &Value) -> Result<BTreeMap<u64, u64>, String> {
    let mut waiting = BTreeMap::new();
    for task in list(tasks) {
        let id = task["id"].as_str().unwrap_or_default();
        let state = task["state"].as_str().unwrap_or_default();
        let shard = id.strip_prefix("task_").and_then(|rest| rest.split('_').next()?.parse().ok());
        match (shard, state) {
            (Some(shard), "scheduled" | "retrying") => *waiting.entry(shard).or_default() += 1,
            _ => return Err(format!("task {id} is {state}")),
        }
    }
    Ok(waiting)
}

async fn shards(node: &Node) -> Result<Value, String> {
    let ready = node.get("/readyz").await.is_ok_and(|answer| answer.is_success());
    if !ready {
        return Err(format!("{} is not ready: {}", node.name, node.last_words()));
    }
    node.ask("/admin/v1/shards").await.ok_or_else(|| format!("{} does not show its shards", node.name))
}

/// Whether the nodes see the same owners, replicas that have applied everything, and outboxes that
/// hold nothing but what waits for its time.
fn agree(views: &[(&str, Value)], waiting: &BTreeMap<u64, u64>) -> Result<(), String> {
    let mut known: BTreeMap<u64, (Value, Value)> = BTreeMap::new();
    for (name, view) in views {
        for shard in list(view) {
            let number = shard["shard"].as_u64().unwrap_or_default();
            if shard["owner"].is_null() {
                return Err(format!("{name} knows no owner of shard {number}"));
            }
            // Exact on the owner; others may have less to show.
            let outbox = shard["outbox"].as_u64().unwrap_or(u64::MAX);
            if outbox > waiting.get(&number).copied().unwrap_or(0) {
                return Err(format!("{outbox} effects of shard {number} wait for delivery"));
            }
            let (owner, applied) = (shard["owner"].clone(), shard["applied_index"].clone());
            if applied.is_null() {
                // No replica of it there.
                continue;
            }
            let first = known.entry(number).or_insert_with(|| (owner.clone(), applied.clone()));
            if first.0 != owner {
                return Err(format!("the nodes name different owners of shard {number}"));
            }
            if first.1 != applied || shard["last_log_index"] != applied {
                return Err(format!("replicas of shard {number} are not equally far"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn view(owner: Value, applied: u64, last: u64, outbox: u64) -> Value {
        let shard = json!({
            "shard": 3, "owner": owner, "applied_index": applied, "last_log_index": last, "outbox": outbox
        });
        json!({"data": [shard]})
    }

    #[test]
    fn each_thing_that_is_not_quiet_is_named() {
        let fine = || view(json!(1), 9, 9, 0);
        let none = BTreeMap::new();
        assert_eq!(agree(&[("n1", fine()), ("n2", fine())], &none), Ok(()));
        let cases = [
            (view(json!(null), 9, 9, 0), "no owner"),
            (view(json!(2), 9, 9, 0), "different owners"),
            (view(json!(1), 8, 9, 0), "not equally far"),
            (view(json!(1), 9, 9, 4), "4 effects"),
        ];
        for (other, why) in cases {
            let told = agree(&[("n1", fine()), ("n2", other)], &none).expect_err(why);
            assert!(told.contains(why), "{told}");
        }
    }

    #[test]
    fn tasks_may_wait_for_their_time_and_for_nothing_else() {
        let task = |id: &str, state: &str| json!({"id": id, "state": state});
        let tasks = json!({"data": [task("task_3_7", "scheduled"), task("task_3_9", "retrying")]});
        let two = waiting(&tasks).expect("both wait");
        assert_eq!(two, BTreeMap::from([(3, 2)]));
        assert_eq!(agree(&[("n1", view(json!(1), 9, 9, 2))], &two), Ok(()));
        assert!(agree(&[("n1", view(json!(1), 9, 9, 3))], &two).is_err());
        assert!(waiting(&json!({"data": [task("task_3_7", "running")]})).is_err());
    }
}
