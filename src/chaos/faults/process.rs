//! Signals.

use super::{Stage, Trouble};
use rustix::process::Signal;
use std::time::Duration;

/// What a node may take to drain, above what it allows itself.
const DRAIN_MAX: Duration = Duration::from_secs(75);

pub async fn kill(stage: &Stage<'_>, node: u16) -> Result<(), Trouble> {
    let node = stage.take(node).await;
    node.kill9();
    stage.begun();
    stage.last().await;
    stage.healed();
    stage.bring_back(&node).await
}

pub async fn kill_owner(stage: &Stage<'_>, shard: u16) -> Result<(), Trouble> {
    let owner = stage.cluster.owner_of(shard).await;
    let owner = owner.ok_or_else(|| Trouble::NotDone(format!("nobody knows who owns shard {shard} just now")))?;
    kill(stage, owner).await
}

pub async fn kill_all(stage: &Stage<'_>) -> Result<(), Trouble> {
    let mut nodes = Vec::new();
    for node in stage.cluster.nodes() {
        nodes.push(stage.take(node.number).await);
    }
    nodes.iter().for_each(|node| node.kill9());
    stage.begun();
    stage.last().await;
    stage.healed();
    for node in &nodes {
        node.start().map_err(|error| Trouble::NotDone(format!("{} cannot be started: {error}", node.name)))?;
    }
    for node in &nodes {
        node.wait_ready(stage.recover_within).await.map_err(Trouble::NotHealed)?;
    }
    Ok(())
}

pub async fn pause(stage: &Stage<'_>, node: u16) -> Result<(), Trouble> {
    let node = stage.take(node).await;
    node.signal(Signal::STOP);
    stage.begun();
    stage.last().await;
    node.signal(Signal::CONT);
    stage.healed();
    node.wait_ready(stage.recover_within).await.map_err(Trouble::NotHealed)
}

/// One node after the other; the time that the fault lasts is spread over them.
pub async fn rolling_restart(stage: &Stage<'_>) -> Result<(), Trouble> {
    stage.begun();
    let nodes = stage.cluster.nodes();
    for node in nodes {
        let node = stage.take(node.number).await;
        node.signal(Signal::TERM);
        let status = node.wait_ended(DRAIN_MAX).await.map_err(Trouble::NotHealed)?;
        if !status.success() {
            let how = super::super::cluster::describe(status);
            return Err(Trouble::Unexpected(format!("{} {how} after SIGTERM: {}", node.name, node.last_words())));
        }
        stage.bring_back(&node).await?;
    }
    stage.healed();
    Ok(())
}

pub async fn restart_loop(stage: &Stage<'_>, node: u16, times: u16) -> Result<(), Trouble> {
    let node = stage.take(node).await;
    let pause = stage.lasts / u32::from(times.max(1));
    for round in 0..times.max(1) {
        node.kill9();
        if round == 0 {
            stage.begun();
        }
        tokio::time::sleep(pause / 2).await;
        stage.bring_back(&node).await?;
    }
    stage.healed();
    Ok(())
}
