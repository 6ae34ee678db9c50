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
/// Looks at which nobody answers before it is given up to look.
const SILENT_ROUNDS_MAX: u32 = 20;

/// `quorate leave`
pub(super) async fn leave(args: &Leave) -> Result<(), Failure> {
    let status = ask(&args.operator.target, "/admin/v1/status").await?;
    go(&text(&status["name"]), &args.operator).await
}

/// `quorate remove NODE`
pub(super) async fn remove(args: &Remove) -> Result<(), Failure> {
    go(&args.name, &args.operator).await
}

/// Asks for it, then waits until no member that answers lists it any more. The node that was asked may be the one
/// that goes: that it does not answer says nothing.
async fn go(name: &str, operator: &Operator) -> Result<(), Failure> {
    let target = &operator.target;
    let mut asked = vec![target.clone()];
    let members = ask(target, MEMBERS).await?;
    asked.extend(list(&members).iter().filter(|member| member["is_self"] != true).map(|member| {
        let url = format!("http://{}", text(&member["http"]));
        Target { url, ..target.clone() }
    }));
    post(&client(target)?, &format!("{MEMBERS}/{}/leave", http::segment(name))).await?;
    output::note(&format!("{name} is leaving; waiting until its shards are filled elsewhere"));
    let mut silent = 0;
    while silent < SILENT_ROUNDS_MAX {
        match look(name, &asked).await? {
            Seen::Listed => silent = 0,
            Seen::Nobody => silent += 1,
            Seen::Gone => return told(name, operator),
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    Err(Failure::unavailable(format!(
        "{name} was asked to leave, and no member says any more whether it has; see `quorate members`"
    )))
}

fn told(name: &str, operator: &Operator) -> Result<(), Failure> {
    match operator.json {
        true => output::answer(&serde_json::json!({"name": name, "left": true}).to_string()),
        false => output::answer(&format!("{name} has left the cluster; its data directory is of no use any more")),
    }
}

/// What the members say that answer.
enum Seen {
    Listed,
    Gone,
    /// None did.
    Nobody,
}

async fn look(name: &str, members: &[Target]) -> Result<Seen, Failure> {
    let mut seen = Seen::Nobody;
    for member in members {
        match ask(member, MEMBERS).await {
            Ok(members) if list(&members).iter().any(|member: &Value| member["name"] == name) => {
                return Ok(Seen::Listed);
            }
            Ok(_) => seen = Seen::Gone,
            Err(Failure::Unavailable(_)) => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(seen)
}
