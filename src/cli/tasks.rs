//! Commands about what is under way, tasks and dead letters.

use super::{
    Failure,
    args::{DeadLettersCommand, Letters, List, Sagas},
    http,
    operator::{ask, client, get, list, post, text},
    output,
    table::Table,
};
use serde_json::Value;

const LETTERS: &str = "/admin/v1/dead-letters";
/// How much of an error a table shows, in characters; `show` has all of it.
const ERROR_SHOWN_MAX: usize = 60;

/// `quorate tasks`
pub(super) async fn tasks(args: &List) -> Result<(), Failure> {
    show_page(args, "/admin/v1/tasks", "", render_tasks).await
}

/// `quorate sagas`
pub(super) async fn sagas(args: &Sagas) -> Result<(), Failure> {
    let status = args.status.as_ref().map(|status| format!("&status={}", http::segment(status)));
    show_page(&args.list, "/admin/v1/sagas", &status.unwrap_or_default(), render_sagas).await
}

/// `quorate dead-letters …`
pub(super) async fn dead_letters(command: &DeadLettersCommand) -> Result<(), Failure> {
    match command {
        DeadLettersCommand::List(args) => show_page(args, LETTERS, "", render_letters).await,
        DeadLettersCommand::Show(args) => show(args).await,
        DeadLettersCommand::Retry(args) => resolve(args, "retry").await,
        DeadLettersCommand::Discard(args) => resolve(args, "discard").await,
    }
}

/// `only` is what narrows the list, beginning with `&`.
async fn show_page(args: &List, path: &str, only: &str, render: fn(&Value) -> String) -> Result<(), Failure> {
    let after = args.starting_after.as_ref().map(|id| format!("&starting_after={}", http::segment(id)));
    let path = format!("{path}?limit={}{only}{}", args.limit, after.unwrap_or_default());
    let answer = ask(&args.operator.target, &path).await?;
    match args.operator.json {
        true => output::answer(&answer.to_string()),
        false => output::answer(&render(&answer)),
    }
}

async fn show(args: &Letters) -> Result<(), Failure> {
    let client = client(&args.operator.target)?;
    for id in &args.ids {
        let letter = get(&client, &format!("{LETTERS}/{}", http::segment(id))).await?;
        match args.operator.json {
            true => output::answer(&letter.to_string())?,
            false => output::answer(&format!("{letter:#}"))?,
        }
    }
    Ok(())
}

/// One after the other; ends at the first that fails.
async fn resolve(args: &Letters, action: &str) -> Result<(), Failure> {
    let client = client(&args.operator.target)?;
    for id in &args.ids {
        let answer = post(&client, &format!("{LETTERS}/{}/{action}", http::segment(id))).await?;
        match args.operator.json {
            true => output::answer(&answer.to_string())?,
            false => output::answer(&format!("{} {}", text(&answer["id"]), text(&answer["resolution"])))?,
        }
    }
    Ok(())
}

fn render_tasks(tasks: &Value) -> String {
    let mut table = Table::new(&["ID", "HANDLER", "ENTITY", "TAG", "STATE", "ATTEMPTS", "NEXT ATTEMPT", "LAST ERROR"]);
    for task in list(tasks) {
        table.row(vec![
            text(&task["id"]),
            text(&task["handler"]),
            entity(&task["entity"]),
            text(&task["tag"]),
            text(&task["state"]),
            format!("{}/{}", text(&task["attempts"]), text(&task["attempts_max"])),
            text(&task["next_attempt_at"]),
            shortened(&task["last_error"]),
        ]);
    }
    with_more(table, tasks)
}

fn render_sagas(sagas: &Value) -> String {
    let mut table = Table::new(&["ID", "TYPE", "STATUS", "WAITS FOR", "SINCE", "ATTEMPTS", "REASON"]);
    for saga in list(sagas) {
        let waits_for: Vec<String> = list(&saga["waits_for"]).iter().map(text).collect();
        table.row(vec![
            text(&saga["id"]),
            text(&saga["type"]),
            text(&saga["status"]),
            waits_for.join(", "),
            text(&saga["since"]),
            text(&saga["attempts"]),
            shortened(&saga["reason"]),
        ]);
    }
    with_more(table, sagas)
}

fn render_letters(letters: &Value) -> String {
    let mut table = Table::new(&["ID", "KIND", "OF", "TO", "TAG", "ATTEMPTS", "GIVEN UP", "ERROR"]);
    for letter in list(letters) {
        let to = match letter["kind"].as_str() {
            Some("tell") => entity(&letter["to"]),
            _ => text(&letter["handler"]),
        };
        table.row(vec![
            text(&letter["id"]),
            text(&letter["kind"]),
            entity(&letter["entity"]),
            to,
            text(&letter["tag"]),
            text(&letter["attempts"]),
            text(&letter["given_up_at"]),
            shortened(&letter["error"]),
        ]);
    }
    with_more(table, letters)
}

/// The table, and how to see what is behind it.
fn with_more(table: Table, answer: &Value) -> String {
    let mut shown = table.render();
    if answer["has_more"] == true
        && let Some(last) = list(answer).last()
    {
        shown.push_str(&format!("there are more: --starting-after {}\n", text(&last["id"])));
    }
    shown
}

fn entity(key: &Value) -> String {
    format!("{}/{}", text(&key["entity_type"]), text(&key["id"]))
}

/// The first line of an error, as far as it fits a table.
fn shortened(error: &Value) -> String {
    let error = text(error);
    let line = error.lines().next().unwrap_or_default();
    match line.chars().count() > ERROR_SHOWN_MAX || line.len() < error.len() {
        true => line.chars().take(ERROR_SHOWN_MAX).chain(['…']).collect(),
        false => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn columns(shown: &str, line: usize) -> Vec<&str> {
        shown.lines().nth(line).expect("a line").split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()
    }

    #[test]
    fn tasks_and_letters_are_tables() {
        let task = json!({
            "id": "task_3_17", "handler": "send-email", "tag": "welcome", "state": "retrying",
            "entity": {"entity_type": "guest", "id": "ada"}, "attempts": 2, "attempts_max": 10,
            "next_attempt_at": "2026-11-25T12:00:00.000Z", "last_error": "451 try later",
        });
        let shown = render_tasks(&json!({"data": [task], "has_more": false}));
        let expected = [
            "task_3_17",
            "send-email",
            "guest/ada",
            "welcome",
            "retrying",
            "2/10",
            "2026-11-25T12:00:00.000Z",
            "451 try later",
        ];
        assert_eq!(columns(&shown, 1), expected);
        let tell = json!({
            "id": "dl_3_17", "kind": "tell", "entity": {"entity_type": "guest", "id": "ada"},
            "to": {"entity_type": "hall", "id": "x"}, "error": "no entity type `hall` is registered",
        });
        let shown = render_letters(&json!({"data": [tell], "has_more": true}));
        assert_eq!(columns(&shown, 1)[..4], ["dl_3_17", "tell", "guest/ada", "hall/x"]);
        assert!(shown.ends_with("there are more: --starting-after dl_3_17\n"), "{shown}");
    }

    #[test]
    fn sagas_are_a_table() {
        let order = json!({
            "id": "ord_a", "type": "order", "status": "compensating", "needs_attention": false,
            "waits_for": ["stock_return", "reversal"], "since": "2026-11-25T12:00:00.000Z", "attempts": null,
            "reason": "changed my mind", "version": 7, "created_at": "2026-11-25T11:00:00.000Z",
        });
        let payment = json!({
            "id": "pay_a", "type": "payment", "status": "unknown", "waits_for": ["capture"], "attempts": 3,
            "since": "2026-11-25T12:00:00.000Z",
        });
        let shown = render_sagas(&json!({"data": [order, payment], "has_more": true}));
        let expected = [
            "ord_a",
            "order",
            "compensating",
            "stock_return, reversal",
            "2026-11-25T12:00:00.000Z",
            "-",
            "changed my mind",
        ];
        assert_eq!(columns(&shown, 1), expected);
        assert_eq!(columns(&shown, 2)[2..], ["unknown", "capture", "2026-11-25T12:00:00.000Z", "3", "-"]);
        assert!(shown.ends_with("there are more: --starting-after pay_a\n"), "{shown}");
    }

    #[test]
    fn a_long_error_stays_on_its_line() {
        assert_eq!(shortened(&json!("short")), "short");
        assert_eq!(shortened(&json!("first\nsecond")), "first…");
        assert_eq!(shortened(&json!("x".repeat(100))).chars().count(), ERROR_SHOWN_MAX + 1);
    }
}
