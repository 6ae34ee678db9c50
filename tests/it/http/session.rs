//! The sessions in docs/shop.md, run top to bottom with `curl` against a node: what
//! they promise is what happens.

use super::Shop;
use quorate::ingress;
use std::{path::Path, process::Stdio};
use tokio::{net::TcpListener, process::Command, sync::oneshot};

const SEPARATOR: &str = "----8<----";

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
    run("### Stock by hand", "## What each party relies on", 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_session_about_parcels_in_the_documentation_is_true() {
    run("### Sending and taking back", "## Payment", 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_payments_session_in_the_documentation_is_true() {
    run("### Payments of their own", "## Stock", 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_session_about_webhooks_in_the_documentation_is_true() {
    run("## Webhooks", "## What the tests show", 3).await;
}

/// Runs what stands between two headings, which must be so many steps at least.
async fn run(from: &str, to: &str, steps_min: usize) {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/shop.md");
    let document = std::fs::read_to_string(document).expect("docs/shop.md");
    let steps = steps(&document, from, to);
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
