//! Access tokens on a real node, from its configuration to the command line that brings one.

use crate::harness::{Cluster, run, run_with};
use std::{fs, process::Output};

const READ: &str = "token-of-the-one-who-reads";
const ADMIN: &str = "token-of-the-one-who-may-all";

#[tokio::test]
async fn the_command_line_brings_the_token_that_a_node_asks_for() {
    let cluster = Cluster::plan(1, &[]);
    let (reader, admin) = (cluster.dir().join("reader"), cluster.dir().join("admin"));
    fs::write(&reader, format!("{READ}\n")).expect("writing a token");
    fs::write(&admin, format!("{ADMIN}\n")).expect("writing a token");
    let [reader, admin] = [&reader, &admin].map(|path| path.to_str().expect("a path"));
    let list = format!("http.tokens=reader:read:{reader},ops:admin:{admin}");
    let node = cluster.node(0);
    node.restart_with(&["--set", &list, "--set", "telemetry.filter=info,quorate=debug"]);
    node.wait_ready("probes need no token").await;

    let refused = run(&["status", "--url", &node.url]).await;
    assert_ends(&refused, 1, "error: unauthorized: ");
    assert_ends(&run(&["bench", "--url", &node.url]).await, 1, "unauthorized");
    assert_ends(
        &run(&["status", "--url", &node.url, "--token", "one-that-is-not-known"]).await,
        1,
        "error: unauthorized: ",
    );
    let shown = run_with(&[("QUORATE_TOKEN", READ)], &["status", "--url", &node.url]).await;
    assert_eq!(shown.status.code(), Some(0), "{}", stderr(&shown));
    let retry = ["dead-letters", "retry", "dl_0_1", "--url", &node.url];
    let refused = run_with(&[("QUORATE_TOKEN", READ)], &retry).await;
    assert_ends(&refused, 1, "error: forbidden: ");
    let with_file: Vec<&str> = retry.into_iter().chain(["--token-file", admin]).collect();
    assert_ends(&run_with(&[("QUORATE_TOKEN", READ)], &with_file).await, 1, "error: not-found: ");

    let receipts = cluster.dir().join("receipts");
    fs::write(&receipts, "0-1-1-00000000\n").expect("writing a receipt");
    let receipts = receipts.to_str().expect("a path");
    assert_ends(&run(&["verify", receipts, "--url", &node.url]).await, 1, "error: unauthorized: ");
    // Where a client puts it by mistake.
    let in_query = node.http_get(&format!("/v1/orders?access_token={ADMIN}")).await;
    assert_eq!(in_query.status, 401, "{}", in_query.text());
    let log = node.log_text();
    assert!(log.contains("an admin's request") && log.contains("token=\"ops\""), "{log}");
    assert!(log.contains("path=/v1/orders status=401"), "each answer is in the log: {log}");
    for text in [log, stderr(&refused)] {
        assert!(!text.contains(READ) && !text.contains(ADMIN), "{text}");
    }
}

#[tokio::test]
async fn a_configuration_with_tokens_shows_whose_they_are_and_not_what_they_are() {
    let list = format!(r#"[{{ name = "ops", role = "admin", token = "{ADMIN}" }}]"#);
    let variables = [("QUORATE__HTTP__TOKENS", list.as_str())];
    for command in [&["config", "show"][..], &["config", "show", "--json"]] {
        let output = run_with(&variables, command).await;
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert!(shown.contains("ops") && shown.contains("QUORATE__HTTP__TOKENS") && !shown.contains(ADMIN), "{shown}");
    }
    let list = list.replace("admin\"", "root\"");
    let refused = run_with(&[("QUORATE__HTTP__TOKENS", &list)], &["node", "--seeds", "127.0.0.1:7101"]).await;
    assert_ends(
        &refused,
        2,
        "error: `http.tokens` = <redacted> (environment QUORATE__HTTP__TOKENS): entry 1 has a `role`",
    );
    assert!(!stderr(&refused).contains(ADMIN), "{}", stderr(&refused));
}

#[track_caller]
fn assert_ends(output: &Output, code: i32, said: &str) {
    assert_eq!(output.status.code(), Some(code), "{}", stderr(output));
    assert!(stderr(output).contains(said), "{said:?}: {}", stderr(output));
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
