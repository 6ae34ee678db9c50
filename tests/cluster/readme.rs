//! The README's session, run top to bottom against `quorate dev`: what it promises is what happens.

use crate::harness::{BINARY, PATIENCE, free_ports, quorate, turn, wait_until};
use quorate::cli::http::Client;
use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

const SEPARATOR: &str = "----8<----";

/// A cluster under `quorate dev`; drained when dropped, as its stdin closes with it.
struct Dev(Child);

impl Drop for Dev {
    fn drop(&mut self) {
        // SIGKILL for `dev`; its nodes notice and drain.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A shell block of the README and what it prints.
struct Step {
    script: String,
    expected: String,
}

fn session() -> Vec<Step> {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("README.md");
    let mut steps: Vec<Step> = Vec::new();
    // Between fences, text and code take turns; a code block begins with its language.
    for block in readme.split("```").skip(1).step_by(2) {
        let (language, body) = block.split_once('\n').expect("a language, then the block");
        match (language, steps.last_mut()) {
            ("sh", _) => steps.push(Step { script: body.to_owned(), expected: String::new() }),
            ("json" | "text", Some(step)) if step.expected.is_empty() => step.expected = body.trim().to_owned(),
            _ => {}
        }
    }
    steps
}

/// The first of three free ports in a row.
fn three_in_a_row() -> u16 {
    let ports = free_ports(30);
    let row = ports.windows(3).find(|row| row[2] == row[0] + 2);
    row.expect("three free ports in a row")[0]
}

#[tokio::test]
async fn the_session_in_the_readme_is_true() {
    let _turn = turn().await;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (http, cluster) = (three_in_a_row(), three_in_a_row());
    let data = dir.path().join("quorate-data");
    let mut command = quorate(&["dev", "--http", &format!("127.0.0.1:{http}"), "--cluster-port", &cluster.to_string()]);
    command.arg("--data-dir").arg(&data).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _dev = Dev(command.spawn().unwrap_or_else(|error| panic!("{BINARY}: {error}")));
    for i in 0..3 {
        let url = format!("http://127.0.0.1:{}", http + i);
        let client = Client::new(&url).expect("a url").with_timeout(Duration::from_secs(2));
        let ready = || async { client.get("/readyz").await.is_ok_and(|answer| answer.status == 200) };
        wait_until(&format!("{url} is ready"), PATIENCE, ready).await;
    }
    let steps = session();
    assert!(steps.len() >= 5, "found {} steps", steps.len());
    let script: String = steps.iter().map(|step| format!("{}\necho; echo '{SEPARATOR}'\n", step.script)).collect();
    let script = (0..3)
        .fold(script, |text, i| text.replace(&format!("127.0.0.1:{}", 8080 + i), &format!("127.0.0.1:{}", http + i)));
    let output = Command::new("sh").arg("-c").arg(&script).current_dir(dir.path()).output().expect("sh");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let parts: Vec<&str> = said.split(SEPARATOR).collect();
    for (step, got) in steps.iter().zip(&parts) {
        assert_eq!(got.trim(), step.expected, "after:\n{}\n{}", step.script, String::from_utf8_lossy(&output.stderr));
    }
}
