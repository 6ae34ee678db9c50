//! The processes.

use super::{
    super::Failure,
    plan::{Plan, PlannedNode},
};
use std::{
    fs, io,
    os::unix::process::ExitStatusExt as _,
    process::{ExitStatus, Stdio},
};
use tokio::{
    process::{ChildStdin, Command},
    sync::{mpsc, oneshot},
};

pub(super) struct Child {
    pub pid: u32,
    pub running: bool,
    /// Open as long as the node is to run; its end tells it to drain.
    lifeline: Option<ChildStdin>,
    kill: Option<oneshot::Sender<()>>,
}

/// That a node ended.
pub(super) struct Exit {
    /// In the plan's order.
    pub index: usize,
    /// Exit code 0.
    pub clean: bool,
    /// "was killed by signal 9"
    pub how: String,
}

/// One for each child, then the end.
pub(super) type Exits = mpsc::Receiver<Exit>;

impl Child {
    pub fn ask_to_drain(&mut self) {
        self.lifeline = None;
    }

    pub fn kill(&mut self) {
        if let Some(kill) = self.kill.take() {
            // An error means that it has ended by itself.
            let _ = kill.send(());
        }
    }
}

/// Starts every node. When one cannot be started, those before it drain as their stdin closes.
pub(super) fn spawn_all(plan: &Plan) -> Result<(Vec<Child>, Exits), Failure> {
    let (told, exits) = mpsc::channel(plan.nodes.len());
    let mut children = Vec::new();
    for (index, node) in plan.nodes.iter().enumerate() {
        let child = spawn(plan, node, index, told.clone()).map_err(|error| {
            Failure::operation(format!("cannot start {}: {error}; its log is {}", node.name, node.log.display()))
        })?;
        children.push(child);
    }
    Ok((children, exits))
}

/// The variable that tokio takes the number of a runtime's threads from.
const WORKER_THREADS: &str = "TOKIO_WORKER_THREADS";

/// The nodes share this machine: each gets its share of the cores, so that they do not spend them
/// on waking each other's threads. Whoever sets the variable knows better.
fn worker_threads(nodes: usize) -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::env::var(WORKER_THREADS).unwrap_or_else(|_| (cores / nodes.max(1)).max(1).to_string())
}

fn spawn(plan: &Plan, node: &PlannedNode, index: usize, told: mpsc::Sender<Exit>) -> io::Result<Child> {
    keep_last_log(node)?;
    let log = fs::File::create(&node.log)?;
    let mut process = Command::new(std::env::current_exe()?)
        .args(node.arguments(plan))
        .arg("--drain-on-stdin-eof")
        .env(WORKER_THREADS, worker_threads(plan.nodes.len()))
        .stdin(Stdio::piped())
        .stdout(log.try_clone()?)
        .stderr(log)
        // Ctrl-C reaches a whole process group: the nodes must hear of it once, from here.
        .process_group(0)
        .spawn()?;
    let pid = process.id().unwrap_or_default();
    // For scripts: `kill -9 $(cat quorate-data/n1/pid)`.
    fs::write(node.log.with_file_name("pid"), format!("{pid}\n"))?;
    let lifeline = process.stdin.take();
    let (kill, mut killed) = oneshot::channel();
    tokio::spawn(async move {
        let status = tokio::select! {
            status = process.wait() => status,
            Ok(()) = &mut killed => {
                // Fails only if it has ended meanwhile, which `wait` tells.
                let _ = process.start_kill();
                process.wait().await
            }
        };
        let (clean, how) = status.map_or_else(
            |error| (false, format!("cannot be watched: {error}")),
            |status| (status.success(), describe(status)),
        );
        // Nobody to tell: this process ends.
        let _ = told.send(Exit { index, clean, how }).await;
    });
    Ok(Child { pid, running: true, lifeline, kill: Some(kill) })
}

/// The log of the run before stays as `log.1`: it may tell why that one ended.
fn keep_last_log(node: &PlannedNode) -> io::Result<()> {
    match fs::rename(&node.log, node.log.with_extension("1")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(0), _) => "stopped".into(),
        (Some(code), _) => format!("failed with exit code {code}"),
        (_, Some(signal)) => format!("was killed by signal {signal}"),
        _ => "ended".into(),
    }
}
