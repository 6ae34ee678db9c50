//! The programs in examples/ do what they say.

use axum::http::Method;
use quorate::cli::http::Client;
use serde_json::json;
use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

/// Only a hang exceeds it.
const PATIENCE: Duration = Duration::from_secs(60);

/// The example's binary, built if it is not up to date. (`cargo test` builds all of them before.)
async fn example(name: &str) -> PathBuf {
    // This test is TARGET/PROFILE/deps/it-HASH.
    let own = std::env::current_exe().expect("a path");
    let profile_dir = own.ancestors().nth(2).expect("two directories up");
    let target_dir = profile_dir.parent().expect("three directories up");
    let profile = if profile_dir.ends_with("release") { "release" } else { "dev" };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--example", name, "--profile", profile, "--target-dir"]).arg(target_dir);
    // What cargo tells this test about its package would make a build script (ring's) run again, and
    // everything above it compile again.
    let of_package = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars().filter(|(name, _)| of_package(name)) {
        build.env_remove(name);
    }
    let built = build.current_dir(env!("CARGO_MANIFEST_DIR")).output().await.expect("cargo runs");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    profile_dir.join("examples").join(name)
}

#[tokio::test]
async fn the_counter_counts_on_three_nodes() {
    let run = Command::new(example("counter").await).kill_on_drop(true).output();
    let output = timeout(PATIENCE, run).await.expect("it ends by itself").expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let expected = "asked through node 0: 1\nasked through node 1: 2\nasked through node 2: 3\n\
                    adding nothing: rejected: Nothing\n";
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
}

#[tokio::test]
async fn mails_are_put_off_sent_once_and_given_up() {
    let run = Command::new(example("send_email").await).kill_on_drop(true).output();
    let output = timeout(PATIENCE, run).await.expect("it ends by itself").expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let expected = "server: mail to ada@example.org is put off\n\
                    ada: 250 sent to ada@example.org, mails so far: 1\n\
                    nobody: given up: 550 no such mailbox\n\
                    dead letter of guest/nobody: 550 no such mailbox\n\
                    dead letters left: 0\n";
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
}

#[tokio::test]
async fn an_app_serves_its_own_entity_beside_the_shop_and_keeps_it() {
    let data_dir = tempfile::tempdir().expect("a directory");
    let binary = example("embed_axum").await;

    let app = App::start(&binary, data_dir.path()).await;
    for (guests, name) in [(1, "Ada"), (2, "Grace")] {
        assert_eq!(app.sign(name).await, (200, json!(guests)));
    }
    assert_eq!(app.sign("").await.0, 422, "the entity's rejection reaches the client");
    assert_eq!(app.get("/readyz").await, (200, json!({"status": "ok"})));
    let stocked = app.client.put("/v1/inventory/mug", &json!({"on_hand": 3}), &[]).await.expect("an answer");
    assert_eq!((stocked.status, &stocked.json()["available"]), (200, &json!(3)));
    app.stop().await;

    let again = App::start(&binary, data_dir.path()).await;
    assert_eq!(again.get("/guests/hall").await, (200, json!(["Ada", "Grace"])));
    assert_eq!(again.get("/v1/inventory/mug").await.1["available"], 3);
    again.stop().await;
}

/// A running `embed_axum`, killed when it is dropped.
struct App {
    process: Child,
    client: Client,
}

impl App {
    async fn start(binary: &Path, data_dir: &Path) -> Self {
        let mut command = Command::new(binary);
        command.arg(data_dir).arg("127.0.0.1:0").stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().expect("it starts");
        let mut lines = BufReader::new(process.stdout.take().expect("piped")).lines();
        let line = timeout(PATIENCE, lines.next_line()).await.expect("it gets ready").expect("text");
        let line = line.expect("a line before it ends");
        let url = line.split_whitespace().next().unwrap_or_default();
        Self { process, client: Client::new(url).expect("it prints its address first") }
    }

    async fn sign(&self, name: &'static str) -> (u16, serde_json::Value) {
        let sent = self.client.send(Method::POST, "/guests/hall", &[], Some(name.into())).await.expect("an answer");
        (sent.status, sent.json())
    }

    async fn get(&self, path: &str) -> (u16, serde_json::Value) {
        let answer = self.client.get(path).await.expect("an answer");
        (answer.status, answer.json())
    }

    /// As Ctrl-C does.
    async fn stop(mut self) {
        // An open connection is a request that may still come.
        drop(self.client);
        let pid = self.process.id().expect("it runs");
        let interrupt = format!("kill -INT {pid}");
        assert!(Command::new("sh").args(["-c", &interrupt]).status().await.expect("sh runs").success());
        let status = timeout(PATIENCE, self.process.wait()).await.expect("it stops").expect("a status");
        assert!(status.success(), "{status}");
    }
}
