//! Faults that a node brings about in itself, by its switch (`POST /admin/v1/faults`).

use super::{
    super::cluster::{Node, describe},
    Stage, Trouble,
};
use crate::cli::http::Response;
use serde_json::{Value, json};
use std::time::Duration;

/// A node that cannot go on ends once it next writes, which it does several times a second.
const ENDS_WITHIN: Duration = Duration::from_secs(15);

pub async fn slow(stage: &Stage<'_>, node: u16, delay_ms: u64) -> Result<(), Trouble> {
    while_it_lasts(stage, node, json!({"fault": "slow-disk", "delay_ms": delay_ms})).await
}

pub async fn clock(stage: &Stage<'_>, node: u16, offset_ms: i64) -> Result<(), Trouble> {
    while_it_lasts(stage, node, json!({"fault": "clock-jump", "offset_ms": offset_ms})).await
}

/// The node goes on meanwhile.
async fn while_it_lasts(stage: &Stage<'_>, node: u16, fault: Value) -> Result<(), Trouble> {
    let node = stage.cluster.node(node);
    let id = switch_on(stage, node, fault).await?;
    stage.begun();
    stage.last().await;
    let path = format!("/admin/v1/faults/{id}");
    let client = node.client().map_err(|error| Trouble::NotDone(error.to_string()))?;
    // It ends by itself, too, and with the process: all that matters is that it is gone.
    let ended = client.send(hyper::Method::DELETE, &path, &[], None).await;
    stage.healed();
    match ended.map(|answer| answer.status) {
        Ok(200 | 204 | 404) | Err(_) => node.wait_ready(stage.recover_within).await.map_err(Trouble::NotHealed),
        Ok(status) => Err(Trouble::Unexpected(format!("{} answers {status} to the end of its fault", node.name))),
    }
}

/// The node cannot go on, and must say so and end.
pub async fn fatal(stage: &Stage<'_>, node: u16, fault: &str) -> Result<(), Trouble> {
    let node = stage.take(node).await;
    switch_on(stage, &node, json!({"fault": fault})).await?;
    stage.begun();
    let ended = node.wait_ended(ENDS_WITHIN).await;
    let status = ended.map_err(|still| Trouble::Unexpected(format!("{still}, although its disk has failed")))?;
    if status.code() != Some(1) {
        let how = describe(status);
        return Err(Trouble::Unexpected(format!("{} {how}, not with 1: {}", node.name, node.last_words())));
    }
    stage.last().await;
    stage.healed();
    stage.bring_back(&node).await
}

/// Gives the number of the fault.
async fn switch_on(stage: &Stage<'_>, node: &Node, mut fault: Value) -> Result<u64, Trouble> {
    // Should nobody be left to end it, it ends by itself.
    let bound = stage.lasts + ENDS_WITHIN;
    fault["duration_ms"] = json!(u64::try_from(bound.as_millis()).unwrap_or(u64::MAX));
    let not_done = |why: String| Trouble::NotDone(format!("{} does not take the fault: {why}", node.name));
    let client = node.client().map_err(|error| not_done(error.to_string()))?;
    let answer = client.post("/admin/v1/faults", &fault, &[]).await.map_err(|error| not_done(error.to_string()))?;
    let id =
        Some(&answer).filter(|answer| answer.is_success()).and_then(|answer: &Response| answer.json()["id"].as_u64());
    id.ok_or_else(|| not_done(answer.text().into_owned()))
}
