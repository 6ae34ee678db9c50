//! `quorate chaos` from end to end: it passes where nothing is wrong, says so where something is, and
//! leaves no process behind.

use crate::harness::{PATIENCE, quorate, run, turn, wait_until};
use serde_json::Value;
use std::{fs, path::Path, process::Stdio};

fn report(dir: &Path) -> Value {
    serde_json::from_slice(&fs::read(dir.join("report.json")).expect("a report")).expect("JSON")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Processes of nodes whose directories are those of the runner with this process id.
fn nodes_of(runner: u32) -> usize {
    let home = format!("quorate-chaos-{runner}-");
    let processes = fs::read_dir("/proc").expect("/proc").filter_map(Result::ok);
    let commands = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    commands.filter(|command| text(command).contains(&home)).count()
}

#[tokio::test]
async fn a_run_that_nothing_is_wrong_with_ends_with_0_and_both_reports() {
    let _turn = turn().await;
    let dir = tempfile::tempdir().expect("a directory");
    let target = dir.path().join("report");
    let arguments = ["chaos", "--duration", "15s", "--faults", "kill,pause,partition", "--seed", "7", "--clients", "6"];
    let output = run(&[&arguments[..], &["--report", target.to_str().expect("a path")]].concat()).await;
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{out}\n{err}");
    let report = report(&target);
    assert_eq!(report["verdict"], "passed");
    let faults = report["faults"].as_array().expect("faults");
    assert_eq!(faults.len(), 3, "{faults:?}");
    assert!(
        faults.iter().all(|fault| fault["healed_s"].is_number() && fault["longest_gap_ms"].is_number()),
        "{faults:?}"
    );
    assert!(report["totals"]["acknowledged_writes"].as_u64().is_some_and(|writes| writes > 20), "{}", report["totals"]);
    assert!(!report["timeline"].as_array().expect("a timeline").is_empty());
    let command = report["command"].as_str().expect("a command");
    assert!(command.contains("--seed 7") && command.contains("--faults kill,pause,partition"), "{command}");
    let page = fs::read_to_string(target.join("report.html")).expect("a page");
    assert!(page.contains("<svg") && page.contains("passed") && page.contains("kill n"), "{page}");
    assert!(err.contains("healed: "), "{err}");
}

#[tokio::test]
async fn a_fault_that_is_not_gone_in_time_is_a_violation_and_leaves_its_evidence() {
    let _turn = turn().await;
    let dir = tempfile::tempdir().expect("a directory");
    let plan = dir.path().join("plan.toml");
    let written = "duration = \"8s\"\nclients = 4\nseed = 3\nrecover_within = \"1ms\"\n\
                   [[fault]]\nat = \"2s\"\nlasts = \"1s\"\nkind = \"kill\"\nnode = 2\n";
    fs::write(&plan, written).expect("written");
    let target = dir.path().join("report");
    let (plan, target_path) = (plan.to_str().expect("a path"), target.to_str().expect("a path"));
    let output = run(&["chaos", "--plan", plan, "--report", target_path]).await;
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{out}\n{err}");
    assert!(err.contains("error: violated: heals: kill n2: n2 was not ready within 1ms"), "{err}");
    let report = report(&target);
    assert_eq!(report["verdict"], "violated");
    let evidence = report["evidence"].as_str().expect("what is left").to_owned();
    assert!(Path::new(&evidence).join("n2/log").exists(), "{evidence}");
    fs::remove_dir_all(evidence).expect("removed");
}

#[tokio::test]
async fn an_interrupted_run_leaves_neither_processes_nor_directories() {
    let _turn = turn().await;
    let dir = tempfile::tempdir().expect("a directory");
    let report = dir.path().join("report");
    let mut command = quorate(&["chaos", "--duration", "60s", "--faults", "kill", "--seed", "1"]);
    command.arg("--report").arg(&report).env("TMPDIR", dir.path());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let runner = command.spawn().expect("started");
    let (pid, runner) = (runner.id(), std::sync::Mutex::new(runner));
    wait_until("three nodes run", PATIENCE, || async { nodes_of(pid) == 3 }).await;
    let interrupted =
        std::process::Command::new("sh").args(["-c", "kill -s INT \"$1\"", "kill", &pid.to_string()]).status();
    assert!(interrupted.is_ok_and(|status| status.success()));
    let code = std::sync::Mutex::new(None);
    wait_until("the runner ends", PATIENCE, || async {
        let ended = runner.lock().expect("nobody panics").try_wait().expect("a child of ours");
        *code.lock().expect("nobody panics") = ended.and_then(|status| status.code());
        ended.is_some()
    })
    .await;
    assert_eq!(*code.lock().expect("nobody panics"), Some(1));
    assert_eq!(nodes_of(pid), 0);
    let left: Vec<_> =
        fs::read_dir(dir.path()).expect("a directory").filter_map(Result::ok).map(|one| one.path()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn a_plan_that_cannot_be_is_bad_usage() {
    let output = run(&["chaos", "--faults", "murder"]).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("`murder` is no fault"), "{}", text(&output.stderr));
    let output = run(&["chaos", "--faults", "all", "--duration", "10s"]).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("do not fit"), "{}", text(&output.stderr));
}
