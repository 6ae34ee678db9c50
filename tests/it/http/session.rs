//! The session in docs/shop.md, run top to bottom with `curl` against a node: what it promises is
//! what happens.

use super::Shop;
use quorate::ingress;
use std::{path::Path, process::Stdio};
use tokio::{net::TcpListener, process::Command, sync::oneshot};

const SEPARATOR: &str = "----8<----";

/// The shell blocks of a section, each with what it prints.
fn steps(document: &str, heading: &str) -> Vec<(String, String)> {
    let (_, section) = document.split_once(&format!("\n{heading}\n")).expect("the section is there");
    let section = section.split("\n## ").next().unwrap_or_default();
    let mut steps: Vec<(String, String)> = Vec::new();
    // Between fences, text and code take turns; a code block begins with its language.
    for block in section.split("```").skip(1).step_by(2) {
        match (block.split_once('\n').expect("a language, then the block"), steps.last_mut()) {
            (("sh", script), _) => steps.push((script.to_owned(), String::new())),
            (("text", printed), Some((_, expected))) => *expected = printed.trim().to_owned(),
            _ => {}
        }
    }
    steps
}

#[tokio::test(flavor = "multi_thread")]
async fn the_payments_session_in_the_documentation_is_true() {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/shop.md");
    let document = std::fs::read_to_string(document).expect("docs/shop.md");
    let steps = steps(&document, "### Payments of their own");
    assert!(steps.len() >= 3, "{steps:?}");
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
    let output = Command::new("sh").arg("-c").arg(&script).current_dir(dir.path()).stdin(Stdio::null()).output().await;
    let output = output.expect("sh");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    for ((script, expected), got) in steps.iter().zip(said.split(SEPARATOR)) {
        assert_eq!(got.trim(), expected, "after:\n{script}\n{}", String::from_utf8_lossy(&output.stderr));
    }
    stop.send(()).expect("still serving");
    serving.await.expect("no panic").expect("drained");
    shop.stop().await;
}
