//! Real nodes to be cruel to.
//!
//! Every node is a process of the binary under test, on free loopback ports, with its data in a
//! temporary directory. Whatever happens, they are killed by pid when the test ends; if it ends in
//! a panic, the ends of their logs are printed.
#![allow(dead_code, reason = "not every scenario uses every tool")]
#![allow(clippy::print_stderr, reason = "a failing test shows the logs of its nodes")]

use quorate::cli::http::Client;
pub use quorate::cli::http::{Error, Response};
use std::{
    fs::{self, File},
    future::Future,
    net::{TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};
use tempfile::TempDir;

pub const BINARY: &str = env!("CARGO_BIN_EXE_quorate");
/// For whatever should take no time: long enough that only a hang exceeds it on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
const LOG_LINES_SHOWN: usize = 40;
/// Below every system's range for outgoing connections: none of those can sit on a node's port
/// while the node is down.
const PORTS: std::ops::Range<u32> = 10_000..32_000;

/// Several nodes that know each other.
pub struct Cluster {
    nodes: Vec<Node>,
    dir: TempDir,
}

impl Cluster {
    /// Starts `nodes` nodes and waits until each is ready.
    pub async fn start(nodes: usize) -> Self {
        Self::start_with(nodes, &[]).await
    }

    /// The same, with further arguments for each, as `&["--set", "cluster.shards=4"]`.
    pub async fn start_with(nodes: usize, arguments: &[&str]) -> Self {
        let cluster = Self::plan(nodes, arguments);
        cluster.nodes.iter().for_each(Node::restart);
        cluster.wait_ready("after the first start").await;
        cluster
    }

    /// Nodes with addresses and directories, none of them started ([`Node::restart`] does).
    pub fn plan(nodes: usize, arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let secret = dir.path().join("secret");
        fs::write(&secret, "a secret for tests on loopback").expect("writing the secret");
        let ports = free_ports(nodes * 2);
        let (listen, http) = ports.split_at(nodes);
        let seeds: Vec<String> = listen.iter().take(3).map(|port| format!("127.0.0.1:{port}")).collect();
        let common = ["--seeds", &seeds.join(","), "--secret-file", &secret.display().to_string()].map(str::to_owned);
        let node = |i: usize| {
            let name = format!("n{}", i + 1);
            let own_dir = dir.path().join(&name);
            fs::create_dir_all(&own_dir).expect("a directory for the node");
            let mut all = vec!["node".to_owned(), "--name".into(), name.clone()];
            all.extend(["--listen".into(), format!("127.0.0.1:{}", listen[i])]);
            all.extend(["--http".into(), format!("127.0.0.1:{}", http[i])]);
            all.extend(["--data-dir".into(), own_dir.join("data").display().to_string()]);
            all.extend(common.iter().cloned());
            all.extend(arguments.iter().map(ToString::to_string));
            let mut node = Node::new(name, format!("http://127.0.0.1:{}", http[i]), own_dir, all);
            node.listen = format!("127.0.0.1:{}", listen[i]);
            node
        };
        Self { nodes: (0..nodes).map(node).collect(), dir }
    }

    /// The node at `index`, from 0.
    pub fn node(&self, index: usize) -> &Node {
        &self.nodes[index]
    }

    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// A place for the test's own files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Waits until every running node is ready.
    pub async fn wait_ready(&self, reason: &str) {
        for node in self.nodes.iter().filter(|node| node.pid().is_some()) {
            node.wait_ready(reason).await;
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.nodes.iter().for_each(|node| eprintln!("--- log of {} ---\n{}", node.name, node.log_tail()));
        }
    }
}

/// One node: where it is, and its process if it runs.
pub struct Node {
    pub name: String,
    pub url: String,
    /// Its cluster port: TCP for links, UDP for gossip.
    pub listen: String,
    dir: PathBuf,
    arguments: Vec<String>,
    process: Mutex<Option<Child>>,
}

impl Node {
    fn new(name: String, url: String, dir: PathBuf, arguments: Vec<String>) -> Self {
        Self { name, url, listen: String::new(), dir, arguments, process: Mutex::new(None) }
    }

    /// A node beside those of the cluster, with these arguments; not started.
    pub fn other(cluster: &Cluster, name: &str, url: &str, arguments: Vec<String>) -> Self {
        let dir = cluster.dir().join(name);
        fs::create_dir_all(&dir).expect("a directory for the node");
        Self::new(name.to_owned(), url.to_owned(), dir, arguments)
    }

    /// Its data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub fn arguments(&self) -> &[String] {
        &self.arguments
    }

    /// Of its process, if it has one.
    pub fn pid(&self) -> Option<u32> {
        self.process().as_ref().map(Child::id)
    }

    /// Starts it, with the same name, addresses and data as ever. It must not be running.
    pub fn restart(&self) {
        self.restart_with(&[]);
    }

    /// The same, with further arguments this once.
    pub fn restart_with(&self, arguments: &[&str]) {
        let mut process = self.process();
        assert!(process.is_none(), "{} is running already", self.name);
        let log = File::options().create(true).append(true).open(self.log()).expect("opening the log");
        let mut command = quorate(&self.arguments);
        command.args(arguments);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a second handle")).stderr(log);
        *process = Some(command.spawn().unwrap_or_else(|error| panic!("starting {}: {error}", self.name)));
    }

    /// SIGKILL, and gone when this returns.
    pub fn kill9(&self) {
        if let Some(mut child) = self.process().take() {
            child.kill().expect("killing a child");
            child.wait().expect("waiting for a child");
        }
    }

    /// SIGSTOP: it holds its ports and connections, and says nothing.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal("CONT");
    }

    /// SIGTERM, then waits until it has drained.
    pub async fn terminate(&self) -> ExitStatus {
        self.signal("TERM");
        self.wait_exit("after SIGTERM").await
    }

    /// Sends a signal by its name, as `TERM`.
    pub fn signal(&self, name: &str) {
        let pid = self.pid().unwrap_or_else(|| panic!("{} is not running", self.name));
        // The shell's own `kill`: no package has to be installed for it.
        let sent = Command::new("sh").args(["-c", "kill -s \"$1\" \"$2\"", "kill", name, &pid.to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "SIG{name} to {} ({pid})", self.name);
    }

    /// Waits until the process has ended, however that comes about.
    pub async fn wait_exit(&self, reason: &str) -> ExitStatus {
        let status = Mutex::new(None);
        wait_until(&format!("{} ends {reason}", self.name), PATIENCE, || async {
            let ended = self.process().as_mut().and_then(|child| child.try_wait().expect("asking for a child's state"));
            *lock(&status) = ended;
            ended.is_some()
        })
        .await;
        self.process().take();
        let ended = lock(&status).take();
        ended.expect("it has ended")
    }

    /// Waits until `/readyz` answers 200.
    pub async fn wait_ready(&self, reason: &str) {
        wait_until(&format!("{} is ready {reason}", self.name), PATIENCE, || async {
            self.is_running() && self.get("/readyz").await.is_ok_and(|answer| answer.status == 200)
        })
        .await;
    }

    fn is_running(&self) -> bool {
        let ended = self.process().as_mut().and_then(|child| child.try_wait().ok().flatten());
        if let Some(status) = ended {
            panic!("{} ended by itself: {status}\n{}", self.name, self.log_tail());
        }
        true
    }

    /// A client with a connection of its own.
    pub fn client(&self) -> Client {
        Client::new(&self.url).expect("a good url")
    }

    /// GET, on a new connection; an answer of any status is `Ok`.
    pub async fn get(&self, path: &str) -> Result<Response, Error> {
        self.client().with_timeout(Duration::from_secs(5)).get(path).await
    }

    /// GET that must be answered, whatever the status.
    pub async fn http_get(&self, path: &str) -> Response {
        self.client().get(path).await.unwrap_or_else(|error| panic!("GET {path} from {}: {error}", self.name))
    }

    /// POST that must be answered, whatever the status.
    pub async fn post(&self, path: &str, json: &serde_json::Value, headers: &[(&str, &str)]) -> Response {
        let answer = self.client().post(path, json, headers).await;
        answer.unwrap_or_else(|error| panic!("POST {path} to {}: {error}", self.name))
    }

    /// PUT that must be answered, whatever the status.
    pub async fn put(&self, path: &str, json: &serde_json::Value) -> Response {
        let answer = self.client().put(path, json, &[]).await;
        answer.unwrap_or_else(|error| panic!("PUT {path} to {}: {error}", self.name))
    }

    /// Everything it has said since it was first started.
    pub fn log_text(&self) -> String {
        fs::read(self.log()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    pub fn log_tail(&self) -> String {
        let text = self.log_text();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }

    fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    fn process(&self) -> MutexGuard<'_, Option<Child>> {
        lock(&self.process)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.process().take() {
            // Both fail only where it is gone already. SIGKILL ends a paused process, too.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The binary, untouched by the environment of whoever runs the tests.
pub fn quorate(arguments: &[impl AsRef<std::ffi::OsStr>]) -> Command {
    let mut command = Command::new(BINARY);
    command.args(arguments);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("QUORATE_")) {
        command.env_remove(name);
    }
    command
}

/// Runs the binary to its end, which must come within [`PATIENCE`].
pub async fn run(arguments: &[&str]) -> Output {
    run_with(&[], arguments).await
}

/// The same, with these variables set.
pub async fn run_with(variables: &[(&str, &str)], arguments: &[&str]) -> Output {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (out, err) = (dir.path().join("out"), dir.path().join("err"));
    let file = |path: &Path| File::create(path).expect("a file for the output");
    let mut command = quorate(arguments);
    command.envs(variables.iter().copied());
    command.stdin(Stdio::null()).stdout(file(&out)).stderr(file(&err));
    let node = Node::new(arguments.join(" "), String::new(), dir.path().to_owned(), Vec::new());
    *node.process() = Some(command.spawn().expect("starting the binary"));
    let status = node.wait_exit("by itself").await;
    let read = |path: &Path| fs::read(path).expect("the output");
    Output { status, stdout: read(&out), stderr: read(&err) }
}

/// Asserts the exit code and that all that was said is one `error: …` line with `words` in it.
pub fn assert_one_line(output: &Output, code: i32, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.starts_with("error: ") && said.lines().count() == 1, "one line: {said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is missing: {said}");
    }
}

/// Asks again and again until `condition` holds; panics with `reason` when `deadline` has passed.
pub async fn wait_until<F: Future<Output = bool>>(reason: &str, deadline: Duration, mut condition: impl FnMut() -> F) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < deadline, "waited {deadline:?} in vain until {reason}");
        // Between two questions, not instead of one.
        tokio::time::sleep(POLL).await;
    }
}

/// Ports that are free for TCP and UDP, never the same twice in this process. Another process could
/// take one before it is used: nothing but holding it open could prevent that.
pub fn free_ports(count: usize) -> Vec<u16> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let span = PORTS.end - PORTS.start;
    // Test binaries that run side by side begin in different places.
    let from = std::process::id().wrapping_mul(997);
    let candidates =
        std::iter::repeat_with(|| PORTS.start + from.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % span);
    let ports =
        candidates.take(span as usize).filter_map(|port| u16::try_from(port).ok()).filter(|port| is_free(*port));
    let ports: Vec<u16> = ports.take(count).collect();
    assert_eq!(ports.len(), count, "not enough free ports in {PORTS:?}");
    ports
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok() && UdpSocket::bind(("127.0.0.1", port)).is_ok()
}

/// Tests that measure how a whole cluster behaves take turns: two cores carry one at a time.
pub async fn turn() -> tokio::sync::MutexGuard<'static, ()> {
    static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    TURN.lock().await
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panicking test must still be able to kill its nodes.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
