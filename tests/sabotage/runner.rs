//! A run of `quorate chaos`, its report, and its end at the latest.

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;
use std::{
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Of one run, start, checks and all: several times what it takes.
const RUN_MAX: Duration = Duration::from_secs(150);
/// What a runner that is told to stop may take to end its nodes.
const STOP_MAX: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);

const SEED: &str = "1";

/// Held by the one run that goes on.
static TURN: Mutex<()> = Mutex::new(());

pub struct Run {
    pub code: Option<i32>,
    /// Both streams, as they came.
    pub output: String,
    pub report: Value,
    dir: TempDir,
}

impl Run {
    /// By the plan of that name, which the seed fills up.
    ///
    /// # Panics
    /// It takes too long, or leaves no report.
    pub fn of(broken: Option<&str>) -> Self {
        // A test that has failed leaves nothing behind that could be wrong for the next.
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::tempdir().expect("a directory");
        let report = dir.path().join("report");
        let plan = format!("tests/sabotage/plans/{}.toml", broken.unwrap_or("none"));
        let mut command = binary(broken);
        command.current_dir(env!("CARGO_MANIFEST_DIR"));
        command.args(["chaos", "--seed", SEED, "--plan", &plan, "--report"]).arg(&report);
        // Logs and data of the nodes stay there where something was violated, and go with it.
        command.env("TMPDIR", dir.path());
        let (status, output) = to_its_end(command, &dir.path().join("output"));
        let written = fs::read(report.join("report.json")).unwrap_or_else(|e| panic!("no report: {e}\n{output}"));
        let report = serde_json::from_slice(&written).expect("JSON");
        Self { code: status.code(), output, report, dir }
    }

    /// The invariants that were violated.
    pub fn violated(&self) -> Vec<String> {
        let verdicts = self.report["verdicts"].as_array().expect("verdicts").iter();
        let wrong = verdicts.filter(|verdict| verdict["violations"].as_array().is_some_and(|found| !found.is_empty()));
        wrong.filter_map(|verdict| Some(verdict["invariant"].as_str()?.to_owned())).collect()
    }

    /// What a node wrote, where it is kept.
    pub fn log_of_a_node(&self) -> String {
        let evidence = Path::new(self.report["evidence"].as_str().expect("evidence"));
        assert!(evidence.starts_with(self.dir.path()), "{} would be left behind", evidence.display());
        fs::read_to_string(evidence.join("n1/log")).expect("its log")
    }
}

/// What the binary says, on both streams, to a command that ends at once.
pub fn quorate(arguments: &[&str], broken: Option<&str>) -> String {
    let dir = tempfile::tempdir().expect("a directory");
    let mut command = binary(broken);
    command.args(arguments);
    to_its_end(command, &dir.path().join("output")).1
}

/// Untouched by the environment of whoever runs the tests.
fn binary(broken: Option<&str>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("QUORATE_")) {
        command.env_remove(name);
    }
    command.envs(broken.map(|broken| ("QUORATE_SABOTAGE", broken)));
    command
}

fn to_its_end(mut command: Command, output: &Path) -> (ExitStatus, String) {
    let file = File::create(output).expect("a file for the output");
    command.stdin(Stdio::null()).stdout(file.try_clone().expect("a handle")).stderr(file).process_group(0);
    let mut running = Running(command.spawn().expect("starting the binary"));
    let ended = running.wait(RUN_MAX);
    let said = String::from_utf8_lossy(&fs::read(output).expect("the output")).into_owned();
    (ended.unwrap_or_else(|| panic!("still running after {RUN_MAX:?}:\n{said}")), said)
}

/// A process that leads a group of its own, which does not outlive it.
struct Running(Child);

impl Running {
    fn wait(&mut self, within: Duration) -> Option<ExitStatus> {
        let started = Instant::now();
        while started.elapsed() < within {
            if let Some(status) = self.0.try_wait().expect("a child of ours") {
                return Some(status);
            }
            // Between two questions, not instead of one.
            std::thread::sleep(POLL);
        }
        None
    }

    fn signal(&self, signal: Signal) {
        let group = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        // It fails only where nobody is left.
        group.map(|group| kill_process_group(group, signal));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(Some(_))) {
            return;
        }
        // It ends its nodes, which have groups of their own, when it is told; and they themselves
        // when it is gone.
        self.signal(Signal::TERM);
        if self.wait(STOP_MAX).is_none() {
            self.signal(Signal::KILL);
            let _ = self.0.wait();
        }
    }
}
