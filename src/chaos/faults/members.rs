//! Members that go for good, and come back as somebody else.

use super::{
    super::cluster::{Node, describe},
    Stage, Trouble,
    directory::empty,
};
use serde_json::json;
use std::time::{Duration, Instant};

/// Between two tries to have it leave.
const ASK_PAUSE: Duration = Duration::from_millis(200);

/// A member leaves while everybody orders, and whatever else is in force. It is away for a while, then joins
/// on an empty directory: under its name, as a new member.
pub async fn leave(stage: &Stage<'_>, node: u16) -> Result<(), Trouble> {
    let leaver = stage.take(node).await;
    stage.begun();
    ask(stage, &leaver).await?;
    let ended = leaver.wait_ended(stage.recover_within).await;
    let status = ended.map_err(|still| Trouble::NotHealed(format!("{still}, although it was asked to leave")))?;
    if !status.success() {
        let how = describe(status);
        return Err(Trouble::Unexpected(format!("{} {how}, and was to leave: {}", leaver.name, leaver.last_words())));
    }
    stage.last().await;
    empty(&leaver)?;
    stage.healed();
    stage.bring_back(&leaver).await
}

/// One node after the other, until one has it from the catalog. No answer may be one that got lost: asked again,
/// nothing changes.
async fn ask(stage: &Stage<'_>, leaver: &Node) -> Result<(), Trouble> {
    let (began, path) = (Instant::now(), format!("/admin/v1/members/{}/leave", leaver.name));
    let mut said = String::from("no answer");
    for asked in stage.cluster.nodes().iter().cycle() {
        if began.elapsed() > stage.recover_within {
            return Err(Trouble::NotHealed(format!("nobody can have {} leave: {said}", leaver.name)));
        }
        let client = asked.client().map_err(|error| Trouble::NotDone(error.to_string()))?;
        match client.post(&path, &json!({}), &[]).await {
            // Whoever is not listed has left by a request whose answer got lost.
            Ok(answer) if matches!(answer.status, 202 | 404) => return Ok(()),
            Ok(answer) => said = answer.text().into_owned(),
            Err(error) => said = error.to_string(),
        }
        tokio::time::sleep(ASK_PAUSE).await;
    }
    Ok(())
}
