//! What happens to the directory of a node that does not run.

use super::{
    super::cluster::{Node, describe},
    Stage, Trouble, journal,
};
use std::{fs, io, time::Duration};

/// For a node to look at its directory and say no.
const REFUSES_WITHIN: Duration = Duration::from_secs(30);

/// A write that a crash cut short lies behind the last record. It was never acknowledged: the node
/// must clear it away and come back.
pub async fn torn_write(stage: &Stage<'_>, node: u16) -> Result<(), Trouble> {
    let node = stage.take(node).await;
    node.kill9();
    stage.begun();
    journal::tear(&node.data_dir()).map_err(|error| not_done(&node, &error))?;
    stage.last().await;
    stage.healed();
    stage.bring_back(&node).await
}

/// A byte of what was acknowledged is another one. The node must name the damage instead of serving
/// what is left. It is healed as docs/operations.md says: an empty directory, filled from the others.
pub async fn flip_bytes(stage: &Stage<'_>, node: u16) -> Result<(), Trouble> {
    let node = stage.take(node).await;
    node.kill9();
    stage.begun();
    journal::flip(&node.data_dir()).map_err(|error| not_done(&node, &error))?;
    let refused = must_refuse(&node, "corrupt").await;
    stage.last().await;
    // Whatever it did, it is replaced; that it was served would be told by its verdict.
    node.kill9();
    replace(stage, &node).await?;
    refused
}

/// The directory is gone. The node could have voted and forgotten it: it must not be let in as the one
/// that it was, but in its place, under an id of its own.
pub async fn wipe(stage: &Stage<'_>, node: u16) -> Result<(), Trouble> {
    let node = stage.take(node).await;
    node.kill9();
    stage.begun();
    empty(&node)?;
    let refused = must_refuse(&node, "belongs to a node with another data directory").await;
    stage.last().await;
    node.kill9();
    replace(stage, &node).await?;
    refused
}

/// Starts the node on an empty directory in its own place; it is ready once it is filled and votes.
async fn replace(stage: &Stage<'_>, node: &Node) -> Result<(), Trouble> {
    empty(node)?;
    stage.healed();
    stage.bring_back_with(node, &["--replace"]).await
}

pub(super) fn empty(node: &Node) -> Result<(), Trouble> {
    match fs::remove_dir_all(node.data_dir()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(not_done(node, &error)),
        _ => Ok(()),
    }
}

/// Started, it ends with exit code 1 and says why.
async fn must_refuse(node: &Node, why: &str) -> Result<(), Trouble> {
    node.start().map_err(|error| not_done(node, &error))?;
    let unexpected = |what: String| Trouble::Unexpected(format!("{} {what}: {}", node.name, node.last_words()));
    let status =
        node.wait_ended(REFUSES_WITHIN).await.map_err(|_| unexpected("takes part with a damaged directory".into()))?;
    match status.code() {
        Some(1) if node.last_words().contains(why) => Ok(()),
        _ => Err(unexpected(format!("{} without naming the damage (`{why}`)", describe(status)))),
    }
}

fn not_done(node: &Node, error: &io::Error) -> Trouble {
    Trouble::NotDone(format!("the directory of {}: {error}", node.name))
}
