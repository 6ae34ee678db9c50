//! The sessions in docs/shop.md, run top to bottom with `curl` against a node: what
//! they promise is what happens.

use super::{Shop, routes_table::routes};
use quorate::ingress;
use std::{path::Path, process::Stdio};
use tokio::{net::TcpListener, process::Command, sync::oneshot};

const SEPARATOR: &str = "----8<----";

/// A part of the document that is run as one session: from a heading to a heading, and how many
/// steps it has at least.
type Part = (&'static str, &'static str, usize);

const STOCK: Part = ("### Stock by hand", "## Looking after it", 5);
const PARCELS: Part = ("### Sending and taking back", "## Payment", 5);
const PAYMENTS: Part = ("### Payments of their own", "## Stock", 3);
const OPERATIONS: Part = ("## Looking after it", "## Every route and its tests", 4);
const WEBHOOKS: Part = ("## Webhooks", "## What the tests show", 3);
const PARTS: [Part; 5] = [STOCK, PARCELS, PAYMENTS, OPERATIONS, WEBHOOKS];

fn document() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/shop.md");
    std::fs::read_to_string(path).expect("docs/shop.md")
}

/// The shell blocks from one heading to another, each with what it prints.
fn steps(document: &str, from: &str, to: &str) -> Vec<(String, String)> {
    let (_, session) = document.split_once(&format!("\n{from}\n")).expect("the first heading is there");
    let (session, _) = session.split_once(&format!("\n{to}\n")).expect("the last heading is there");
    let mut steps: Vec<(String, String)> = Vec::new();
    // Between fences, text and code take turns; a code block begins with its language.
    for block in session.split("```").skip(1).step_by(2) {
        match (block.split_once('\n').expect("a language, then the block"), steps.last_mut()) {
            (("sh", script), _) => steps.push((script.to_owned(), String::new())),
            (("text", printed), Some((_, expected))) => *expected = printed.trim().to_owned(),
            _ => {}
        }
    }
    steps
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sessions_about_stock_in_the_documentation_are_true() {
    run(STOCK).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_session_about_parcels_in_the_documentation_is_true() {
    run(PARCELS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_payments_session_in_the_documentation_is_true() {
    run(PAYMENTS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_session_about_webhooks_in_the_documentation_is_true() {
    run(WEBHOOKS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_session_about_operations_in_the_documentation_is_true() {
    run(OPERATIONS).await;
}

#[test]
fn every_route_has_a_curl_that_is_run() {
    let document = document();
    let scripts = PARTS.iter().flat_map(|(from, to, _)| steps(&document, from, to)).map(|(script, _)| script);
    let run: Vec<(String, String)> = scripts.flat_map(|script| curls(&script)).collect();
    for route in routes() {
        let (method, template) = route.split_once(' ').expect("a method and a path");
        let is_run = run.iter().any(|(by, path)| by == method && is_of(template, path));
        assert!(is_run, "docs/shop.md runs no curl of {route}; it runs {run:?}");
    }
}

/// Method and path of each curl.
fn curls(script: &str) -> Vec<(String, String)> {
    let script = script.replace("\\\n", " ");
    let commands = script.split("curl ").skip(1).map(|rest| rest.split(['|', ';', '\n']).next().unwrap_or_default());
    let curl = |command: &str| {
        let words: Vec<&str> = command.split_whitespace().collect();
        let method = words.iter().position(|word| *word == "-X").and_then(|at| words.get(at + 1));
        let (_, path) = command.split_once("127.0.0.1:8080").expect("a curl of this node");
        let path = path.split(['"', ' ', '?']).next().unwrap_or_default();
        (method.copied().unwrap_or("GET").to_owned(), path.to_owned())
    };
    commands.map(curl).collect()
}

/// Whether a path is one of the template. What the shell puts in stands for a parameter only.
fn is_of(template: &str, path: &str) -> bool {
    let (mut expected, mut given) = (template.split('/'), path.split('/'));
    loop {
        match (expected.next(), given.next()) {
            (None, None) => return true,
            (Some(segment), Some(word)) if segment == word => {}
            (Some(segment), Some(word)) if segment.starts_with('{') && !word.is_empty() => {}
            _ => return false,
        }
    }
}

#[test]
fn a_curl_is_read_as_the_shell_reads_it() {
    let script = "curl -s -X POST \"http://127.0.0.1:8080/v1/orders/$ORDER/cancel\" \\\n  -d '{}' | grep x\ncurl -s http://127.0.0.1:8080/livez?verbose";
    let owned = |method: &str, path: &str| (method.to_owned(), path.to_owned());
    assert_eq!(curls(script), [owned("POST", "/v1/orders/$ORDER/cancel"), owned("GET", "/livez")]);
    assert!(is_of("/v1/orders/{id}/cancel", "/v1/orders/$ORDER/cancel"));
    assert!(!is_of("/v1/orders/{id}", "/v1/orders/$ORDER/cancel") && !is_of("/v1/orders/{id}", "/v1/orders/"));
}

/// Runs a part of the document.
async fn run((from, to, steps_min): Part) {
    let steps = steps(&document(), from, to);
    assert!(steps.len() >= steps_min, "{steps:?}");
    let shop = Shop::start(1).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let (router, options) = (shop.routers[0].clone(), ingress::Options::default());
    let (stop, stopped) = oneshot::channel::<()>();
    let serving =
        tokio::spawn(async move { ingress::serve(listener, router, &options, async { _ = stopped.await }).await });

    let dir = tempfile::tempdir().expect("a temporary directory");
    let script: String = steps.iter().map(|(script, _)| format!("{script}\necho '{SEPARATOR}'\n")).collect();
    let script = script.replace("127.0.0.1:8080", &address);
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(&script).current_dir(dir.path()).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(super::PATIENCE, shell.output()).await.expect("the session ends").expect("sh");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(said.matches(SEPARATOR).count(), steps.len(), "{said}");
    for ((script, expected), got) in steps.iter().zip(said.split(SEPARATOR)) {
        assert_eq!(got.trim(), expected, "after:\n{script}\n{}", String::from_utf8_lossy(&output.stderr));
    }
    stop.send(()).expect("still serving");
    serving.await.expect("no panic").expect("drained");
    shop.stop().await;
}
