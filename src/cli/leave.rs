//! Members that go for good.

use super::{
    Failure,
    args::{Leave, Operator, Remove, Target},
    http,
    operator::{ask, client, list, post, text},
    output,
};
use serde_json::Value;
use std::time::Duration;

const MEMBERS: &str = "/admin/v1/members";
/// Between two looks at whether it has left.
const LOOK_PAUSE: Duration = Duration::from_millis(250);

/// `quorate leave`
pub(super) async fn leave(args: &Leave) -> Result<(), Failure> {
    let status = ask(&args.operator.target, "/admin/v1/status").await?;
    go(&text(&status["name"]), &args.operator).await
}

/// `quorate remove NODE`
pub(super) async fn remove(args: &Remove) -> Result<(), Failure> {
    go(&args.name, &args.operator).await
}

/// Asks for it, then waits until no member lists it any more that can be asked. The node that was asked may be
/// the one that goes: that it does not answer says nothing.
async fn go(name: &str, operator: &Operator) -> Result<(), Failure> {
    let target = &operator.target;
    let members = ask(target, MEMBERS).await?;
    post(&client(target)?, &format!("{MEMBERS}/{}/leave", http::segment(name))).await?;
    output::note(&format!("{name} is leaving; waiting until its shards are filled elsewhere"));
    let others = list(&members).iter().filter(|member| member["name"] != name);
    let others: Vec<Target> =
        others.map(|member| Target { url: format!("http://{}", text(&member["http"])), ..target.clone() }).collect();
    while is_listed(name, target, &others).await? {
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    match operator.json {
        true => output::answer(&serde_json::json!({"name": name, "left": true}).to_string()),
        false => output::answer(&format!("{name} has left the cluster; its data directory is of no use any more")),
    }
}

/// Whether the first that answers lists it, the others asked before the one that was asked to begin with.
async fn is_listed(name: &str, target: &Target, others: &[Target]) -> Result<bool, Failure> {
    let mut unavailable = None;
    for asked in others.iter().chain([target]) {
        match ask(asked, MEMBERS).await {
            Ok(members) => return Ok(list(&members).iter().any(|member: &Value| member["name"] == name)),
            Err(why @ Failure::Unavailable(_)) => unavailable = Some(why),
            Err(failure) => return Err(failure),
        }
    }
    Err(unavailable.unwrap_or_else(|| Failure::unavailable(format!("nobody can say whether {name} has left"))))
}
