//! Commands that ask a running node.

use super::{
    Failure,
    args::{Entity, Operator, Target},
    http::{self, Client, Response},
    output,
    table::Table,
};
use crate::config::Secret;
use hyper::Method;
use serde_json::Value;
use std::collections::BTreeMap;

/// `quorate status`
pub(super) async fn status(args: &Operator) -> Result<(), Failure> {
    let answer = ask(&args.target, "/admin/v1/status").await?;
    if args.json {
        return output::answer(&answer.to_string());
    }
    output::answer(&render_status(&answer))
}

/// `quorate members`
pub(super) async fn members(args: &Operator) -> Result<(), Failure> {
    let answer = ask(&args.target, "/admin/v1/members").await?;
    if args.json {
        return output::answer(&answer.to_string());
    }
    output::answer(&render_members(&answer))
}

/// `quorate shards`
pub(super) async fn shards(args: &Operator) -> Result<(), Failure> {
    let client = client(&args.target)?;
    let answer = get(&client, "/admin/v1/shards").await?;
    if args.json {
        return output::answer(&answer.to_string());
    }
    let members = get(&client, "/admin/v1/members").await?;
    output::answer(&render_shards(&answer, &names(&members)))
}

/// `quorate entity TYPE ID`
pub(super) async fn entity(args: &Entity) -> Result<(), Failure> {
    let consistency = if args.local { "?consistency=local" } else { "" };
    let path =
        format!("/admin/v1/entities/{}/{}{consistency}", http::segment(&args.entity_type), http::segment(&args.id));
    let answer = ask(&args.operator.target, &path).await?;
    if args.operator.json {
        return output::answer(&answer.to_string());
    }
    output::answer(&format!("{answer:#}"))
}

pub(super) fn client(target: &Target) -> Result<Client, Failure> {
    let client = Client::new(&target.url).map_err(|error| failure(&error))?;
    let token = target.credentials.token()?;
    Ok(client.with_token(token.as_ref().map(Secret::expose)).with_timeout(target.timeout))
}

pub(super) async fn ask(target: &Target, path: &str) -> Result<Value, Failure> {
    get(&client(target)?, path).await
}

pub(super) async fn get(client: &Client, path: &str) -> Result<Value, Failure> {
    let response = client.get(path).await.map_err(|error| failure(&error))?;
    accept(&client.url(), path, &response)
}

/// POST without a body, under a key of its own.
pub(super) async fn post(client: &Client, path: &str) -> Result<Value, Failure> {
    let sent = client.send(Method::POST, path, &[("idempotency-key", &new_key())], None).await;
    let response = sent.map_err(|error| failure(&error))?;
    accept(&client.url(), path, &response)
}

/// An idempotency key that nobody else has.
pub(super) fn new_key() -> String {
    format!("cli-{:032x}", rand::random::<u128>())
}

/// The failure that a client's error is.
pub(super) fn failure(error: &http::Error) -> Failure {
    match error {
        http::Error::BadUrl { .. } | http::Error::BadRequest(_) => Failure::usage(error.to_string()),
        http::Error::Unreachable { .. } => Failure::unavailable(format!(
            "{error}; is a node running there? Start one with `quorate dev`, or name one with --url"
        )),
        http::Error::TimedOut { .. } => {
            Failure::unavailable(format!("{error}; ask another node with --url, or wait longer with --timeout"))
        }
        http::Error::Broken { .. } => Failure::unavailable(format!("{error}; ask again, or another node with --url")),
    }
}

/// The JSON of a good answer, or what the node complained about.
pub(super) fn accept(url: &str, path: &str, response: &Response) -> Result<Value, Failure> {
    let body = response.json();
    match response.is_success() && !body.is_null() {
        true => Ok(body),
        false => Err(refusal(url, path, response)),
    }
}

/// What the node complained about.
pub(super) fn refusal(url: &str, path: &str, response: &Response) -> Failure {
    let body = response.json();
    let code = body["code"].as_str();
    let detail = body["detail"].as_str().or(body["title"].as_str());
    let Some(code) = code else {
        return Failure::operation(format!(
            "{url}{path} answered {} and no JSON that quorate would send; is that a Quorate node of this version?",
            response.status
        ));
    };
    let text = format!("{code}: {}", detail.unwrap_or("no detail given"));
    match response.status {
        401 | 403 if ["unauthorized", "forbidden"].contains(&code) => Failure::refused(format!(
            "{text}; give a token that may do this with --token-file, --token or QUORATE_TOKEN"
        )),
        503 | 504 => Failure::unavailable(text),
        _ => Failure::operation(text),
    }
}

/// The list in an answer, bare or under `data`.
pub(super) fn list(answer: &Value) -> &[Value] {
    answer.as_array().or_else(|| answer["data"].as_array()).map_or(&[], Vec::as_slice)
}

fn names(members: &Value) -> BTreeMap<u64, String> {
    list(members)
        .iter()
        .filter_map(|member| Some((member["node"].as_u64()?, member["name"].as_str()?.to_owned())))
        .collect()
}

fn render_status(status: &Value) -> String {
    let unowned: Vec<String> = status["shards_without_owner"].as_array().into_iter().flatten().map(text).collect();
    let shards = if unowned.is_empty() {
        "all have an owner".into()
    } else {
        format!("WITHOUT AN OWNER: {}", unowned.join(", "))
    };
    let uptime = std::time::Duration::from_secs(status["uptime_ms"].as_u64().unwrap_or(0) / 1000);
    let violations = match status["violations"].as_u64() {
        Some(0) | None => "none found".into(),
        Some(found) => format!("{found} FOUND: see /admin/v1/violations and the log"),
    };
    let rows = [
        ("node", format!("{} ({})", text(&status["name"]), text(&status["node"]))),
        ("cluster", text(&status["cluster_id"].as_str().map_or_else(|| status["cluster"].clone(), Value::from))),
        ("phase", text(&status["phase"])),
        ("version", text(&status["version"])),
        ("uptime", format!("{uptime:?}")),
        ("shards owned", text(&status["shards_owned"])),
        ("shards", shards),
        ("violations", violations),
    ];
    rows.iter().map(|(label, value)| format!("{label:<14}{value}\n")).collect()
}

fn render_members(members: &Value) -> String {
    let mut table = Table::new(&["NODE", "NAME", "CLUSTER ADDRESS", "HTTP", "ZONE", "GOSSIP", "LINK"]);
    for member in list(members) {
        let own = member["is_self"].as_bool() == Some(true);
        let link = match (own, member["linked"].as_bool(), member["leaving"].as_bool()) {
            (_, _, Some(true)) => "leaving",
            (true, _, _) => "self",
            (_, Some(true), _) => "up",
            _ => "DOWN",
        };
        let columns = ["node", "name", "address", "http", "zone", "gossip"];
        let mut cells: Vec<String> = columns.iter().map(|column| text(&member[*column])).collect();
        cells.push(link.into());
        table.row(cells);
    }
    table.render()
}

fn render_shards(shards: &Value, names: &BTreeMap<u64, String>) -> String {
    let name = |node: &Value| node.as_u64().and_then(|node| names.get(&node).cloned()).unwrap_or_else(|| text(node));
    let mut table =
        Table::new(&["SHARD", "OWNER", "REPLICAS", "TERM", "APPLIED HERE", "LOG HERE", "OUTBOX", "ACTIVE HERE"]);
    for shard in list(shards) {
        let owner = if shard["owner"].is_null() { "NONE".into() } else { name(&shard["owner"]) };
        let ids = |field: &str| shard[field].as_array().cloned().unwrap_or_default();
        let (replicas, voters) = (ids("replicas"), ids("voters"));
        // A new replica is filled before it votes.
        let is_filling = |node: &Value| !voters.is_empty() && !voters.contains(node);
        let shown = |node: &Value| name(node) + if is_filling(node) { "(filling)" } else { "" };
        let replicas: Vec<String> = replicas.iter().map(shown).collect();
        let mut cells = vec![text(&shard["shard"]), owner, replicas.join(",")];
        cells.extend(
            ["term", "applied_index", "last_log_index", "outbox", "active_entities"]
                .iter()
                .map(|column| text(&shard[*column])),
        );
        table.row(cells);
    }
    table.render()
}

pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        catalog::NodeId,
        cluster::{MemberStatus, ShardStatus},
        entity::ShardId,
    };
    use hyper::HeaderMap;

    fn member(node: u64, linked: bool) -> MemberStatus {
        MemberStatus {
            node: NodeId(node),
            name: format!("n{node}"),
            address: format!("127.0.0.1:710{node}"),
            http: format!("127.0.0.1:808{node}"),
            zone: None,
            gossip: "alive".into(),
            linked,
            is_self: node == 1,
            leaving: node == 3,
        }
    }

    #[test]
    fn members_are_a_table() {
        let members = serde_json::json!({ "data": [member(1, true), member(2, false)] });
        let shown = render_members(&members);
        assert!(shown.contains("n1") && shown.contains("self"), "{shown}");
        assert!(shown.lines().nth(2).expect("two members").ends_with("DOWN"), "{shown}");
    }

    #[test]
    fn shards_name_their_nodes_and_an_owner_that_is_missing() {
        let shard = ShardStatus {
            shard: ShardId(4),
            replicas: vec![NodeId(1), NodeId(2)],
            voters: vec![NodeId(1), NodeId(9)],
            owner: None,
            term: 3,
            applied_index: None,
            last_log_index: Some(9),
            outbox: 0,
            active_entities: 2,
        };
        let names = names(&serde_json::json!([member(1, true), member(2, true)]));
        let shown = render_shards(&serde_json::json!([shard]), &names);
        let row: Vec<&str> = shown.lines().nth(1).expect("one shard").split_whitespace().collect();
        assert_eq!(row, ["4", "NONE", "n1,n2(filling)", "3", "-", "9", "0", "2"]);
    }

    #[test]
    fn a_problem_becomes_an_exit_code_and_its_text() {
        let answer = |status, body: &str| Response { status, headers: HeaderMap::new(), body: body.to_owned().into() };
        let problem = r#"{"code":"no-quorum","detail":"shard 3 has no owner"}"#;
        let refused = accept("u", "/p", &answer(503, problem));
        assert_eq!(refused, Err(Failure::Unavailable("no-quorum: shard 3 has no owner".into())));
        assert!(matches!(accept("u", "/p", &answer(404, r#"{"code":"not-found"}"#)), Err(Failure::Operation(_))));
        for (status, code) in [(401, "unauthorized"), (403, "forbidden")] {
            let refused = accept("u", "/p", &answer(status, &format!(r#"{{"code":"{code}","detail":"why"}}"#)));
            let Err(Failure::Refused(text)) = refused else { panic!("{refused:?}") };
            assert!(text.starts_with(&format!("{code}: why")) && text.contains("QUORATE_TOKEN"), "{text}");
        }
        let faults = accept("u", "/p", &answer(403, r#"{"code":"faults-not-allowed"}"#));
        assert!(matches!(faults, Err(Failure::Operation(_))), "no token would help");
        assert!(matches!(accept("u", "/p", &answer(200, "<html>")), Err(Failure::Operation(_))));
    }
}
