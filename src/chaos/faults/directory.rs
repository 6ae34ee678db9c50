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
/// what is left. There is no refill yet, so it is healed as docs/operations.md says: by the same
/// bytes, put back.
pub async fn flip_bytes(stage: &Stage<'_>, node: u16) -> Result<(), Trouble> {
    let node = stage.take(node).await;
    node.kill9();
    stage.begun();
    let flip = journal::flip(&node.data_dir()).map_err(|error| not_done(&node, &error))?;
    let refused = must_refuse(&node, "corrupt").await;
    stage.last().await;
    // Whatever it did, its bytes come back; that it was served would be told by its verdict.
    node.kill9();
    flip.undo().map_err(|error| not_done(&node, &error))?;
    stage.healed();
    stage.bring_back(&node).await?;
    refused
}

/// The directory is gone. The node could have voted and forgotten it: it must not be let in under
/// its old name. It is healed by its directory, put back.
pub async fn wipe(stage: &Stage<'_>, node: u16) -> Result<(), Trouble> {
    let node = stage.take(node).await;
    node.kill9();
    stage.begun();
    let (data, aside) = (node.data_dir(), node.data_dir().with_extension("aside"));
    fs::rename(&data, &aside).map_err(|error| not_done(&node, &error))?;
    let refused = must_refuse(&node, "belongs to a node with another data directory").await;
    stage.last().await;
    node.kill9();
    let put_back = fs::remove_dir_all(&data).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    });
    put_back.and_then(|()| fs::rename(&aside, &data)).map_err(|error| not_done(&node, &error))?;
    stage.healed();
    stage.bring_back(&node).await?;
    refused
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
