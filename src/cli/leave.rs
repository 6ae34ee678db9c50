//! Members that go for good.

use super::{
    Failure,
    args::{Leave, Operator, Remove},
    http,
    operator::{client, get, list, post, text},
    output,
};
use std::time::Duration;

const MEMBERS: &str = "/admin/v1/members";
/// Between two looks at whether it has left.
const LOOK_PAUSE: Duration = Duration::from_millis(250);

/// `quorate leave`
pub(super) async fn leave(args: &Leave) -> Result<(), Failure> {
    let client = client(&args.operator.target)?;
    let name = text(&get(&client, "/admin/v1/status").await?["name"]);
    go(&name, &args.operator).await
}

/// `quorate remove NODE`
pub(super) async fn remove(args: &Remove) -> Result<(), Failure> {
    go(&args.name, &args.operator).await
}

/// Asks for it, then waits until the member is not listed any more, or the node that was asked is gone:
/// that is how its own leaving ends.
async fn go(name: &str, operator: &Operator) -> Result<(), Failure> {
    let client = client(&operator.target)?;
    let is_asked = text(&get(&client, "/admin/v1/status").await?["name"]) == name;
    post(&client, &format!("{MEMBERS}/{}/leave", http::segment(name))).await?;
    output::note(&format!("{name} is leaving; waiting until its shards are filled elsewhere"));
    loop {
        match get(&client, MEMBERS).await {
            Ok(members) if list(&members).iter().all(|member| member["name"] != name) => break,
            Ok(_) => {}
            Err(Failure::Unavailable(_)) if is_asked => break,
            Err(Failure::Unavailable(why)) => output::note(&why),
            Err(failure) => return Err(failure),
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    match operator.json {
        true => output::answer(&serde_json::json!({"name": name, "left": true}).to_string()),
        false => output::answer(&format!("{name} has left the cluster; its data directory is of no use any more")),
    }
}
