//! The cluster to be cruel to: real `quorate node` processes of this very binary.
//!
//! ```text
//! node i listens on   127.0.1.i:P   node links and gossip
//!        advertises   127.0.2.i:P   where a proxy listens in its place, if there is one
//!        serves HTTP  127.0.3.i:P   for clients, past everything that is between the nodes
//! ```
//!
//! A node's own address is also where its connections come from, so whoever is between them knows
//! who talks to whom. Invariants: no process outlives this value, on whatever way it ends: dropping it kills and
//! reaps its own children, and no others (a node whose parent was killed drains when its stdin
//! closes). The directory goes with it unless it is kept.

use super::plan::Plan;
use crate::cli::http::{Client, Error as HttpError, Response};
use parking_lot::Mutex;
use rand::Rng as _;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::{
    fs::{self, File},
    io,
    net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

/// Below every system's range for outgoing connections: none of those can sit on a node's port
/// while the node is down.
const PORTS: std::ops::Range<u32> = 10_000..32_000;
/// Between two questions about the same thing.
pub const POLL: Duration = Duration::from_millis(20);
const ASK_TIMEOUT: Duration = Duration::from_secs(3);
const LOG_LINE_CHARS_MAX: usize = 400;
const CERTIFICATES: &str = "certs";

pub struct Cluster {
    nodes: Vec<Node>,
    home: Home,
}

/// One node: where it is, and its process if it runs.
pub struct Node {
    /// From 1.
    pub number: u16,
    pub name: String,
    pub url: String,
    /// Where it listens, and where a proxy does in its place.
    pub listen: SocketAddrV4,
    pub proxied: SocketAddrV4,
    dir: PathBuf,
    arguments: Vec<String>,
    worker_threads: String,
    process: Mutex<Option<Child>>,
    /// Whoever does something to it that may end it says so: then its end is no surprise.
    meddled_with: AtomicBool,
    /// Held by whoever does something to its process.
    pub busy: tokio::sync::Mutex<()>,
}

/// The directory of everything.
struct Home {
    path: PathBuf,
    keep: AtomicBool,
}

impl Drop for Home {
    fn drop(&mut self) {
        if !self.keep.load(Ordering::Relaxed) {
            // What cannot be removed is left to the system's own cleaning of its temporary files.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

impl Cluster {
    /// Addresses, directories and a secret; nothing runs yet. Nodes reach each other through proxies,
    /// or past them. Each gets `more` arguments.
    ///
    /// # Errors
    /// A directory that cannot be made, or no free port.
    pub fn prepare(plan: &Plan, by_proxy: bool, more: &[String]) -> io::Result<Self> {
        let path =
            std::env::temp_dir().join(format!("quorate-chaos-{}-{:08x}", std::process::id(), rand::rng().next_u32()));
        fs::create_dir_all(&path)?;
        let home = Home { path: path.clone(), keep: AtomicBool::new(false) };
        let secret = path.join("secret");
        fs::write(&secret, format!("{:016x}{:016x}\n", rand::rng().next_u64(), rand::rng().next_u64()))?;
        let port = free_port(plan.nodes)?;
        let reached = if by_proxy { PROXIED } else { LISTEN };
        let seeds: Vec<String> = (1..=plan.nodes).map(|number| address(reached, number, port).to_string()).collect();
        let common = [
            ("--seeds", seeds.join(",")),
            ("--secret-file", secret.display().to_string()),
            ("--set", format!("cluster.shards={}", plan.shards)),
            ("--set", format!("cluster.replication_factor={}", plan.ground().replication_factor())),
        ];
        let nodes = (1..=plan.nodes).map(|number| Node::plan(number, plan.nodes, port, &path, &common));
        let mut nodes = nodes.collect::<io::Result<Vec<Node>>>()?;
        for node in &mut nodes {
            let advertised = address(reached, node.number, port).to_string();
            node.arguments.extend(["--advertise".to_owned(), advertised]);
            let file = |name: &str| path.join(CERTIFICATES).join(name).display().to_string();
            let (certificate, key) = (file(&format!("{}.crt", node.name)), file(&format!("{}.key", node.name)));
            for (of, file) in [("ca_file", file("ca.crt")), ("certificate_file", certificate), ("key_file", key)] {
                node.arguments.extend(["--set".to_owned(), format!("transport.tls.{of}={file}")]);
            }
            node.arguments.extend_from_slice(more);
        }
        Ok(Self { nodes, home })
    }

    /// Makes the certificates that the nodes show each other, as an operator does.
    ///
    /// # Errors
    /// They cannot be made.
    pub fn certify(&self) -> io::Result<()> {
        let dir = self.dir().join(CERTIFICATES);
        certs(&dir, &["init"])?;
        self.nodes.iter().try_for_each(|node| certs(&dir, &["node", &node.name]))
    }

    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// By its number, from 1.
    pub fn node(&self, number: u16) -> &Node {
        &self.nodes[usize::from(number.max(1) - 1) % self.nodes.len()]
    }

    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.url.clone()).collect()
    }

    pub fn dir(&self) -> &Path {
        &self.home.path
    }

    /// Leaves logs and data behind for whoever looks for the cause.
    pub fn keep_dir(&self) {
        self.home.keep.store(true, Ordering::Relaxed);
    }

    /// The number of the node that owns a shard, as any node that answers sees it.
    pub async fn owner_of(&self, shard: u16) -> Option<u16> {
        for node in &self.nodes {
            let (Some(shards), Some(members)) =
                (node.ask("/admin/v1/shards").await, node.ask("/admin/v1/members").await)
            else {
                continue;
            };
            let owner = list(&shards).iter().find(|one| one["shard"] == shard).map(|one| &one["owner"]);
            let member = list(&members).iter().find(|member| owner.is_some_and(|owner| *owner == member["node"]));
            let name = member.and_then(|member| member["name"].as_str());
            if let Some(owner) = self.nodes.iter().find(|node| Some(node.name.as_str()) == name) {
                return Some(owner.number);
            }
        }
        None
    }
}

/// `quorate certs …`, by this very binary.
fn certs(dir: &Path, arguments: &[&str]) -> io::Result<()> {
    let output = Command::new(std::env::current_exe()?).arg("certs").args(arguments).arg("--dir").arg(dir).output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned())),
    }
}

/// The `data` of an answer that is a list.
pub fn list(answer: &Value) -> &[Value] {
    answer["data"].as_array().map_or(&[], Vec::as_slice)
}

impl Node {
    fn plan(number: u16, nodes: u16, port: u16, home: &Path, common: &[(&str, String)]) -> io::Result<Self> {
        let name = format!("n{number}");
        let dir = home.join(&name);
        fs::create_dir_all(dir.join("data"))?;
        let [listen, proxied, http] = [LISTEN, PROXIED, HTTP].map(|role| address(role, number, port));
        let own = [
            ("--name", name.clone()),
            ("--listen", listen.to_string()),
            ("--http", http.to_string()),
            ("--data-dir", dir.join("data").display().to_string()),
        ];
        let mut arguments = vec!["node".to_owned(), "--drain-on-stdin-eof".to_owned(), "--allow-faults".to_owned()];
        for (flag, value) in own.iter().chain(common) {
            arguments.extend([(*flag).to_owned(), value.clone()]);
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            number,
            name,
            url: format!("http://{http}"),
            listen,
            proxied,
            dir,
            arguments,
            worker_threads: (cores / usize::from(nodes)).max(1).to_string(),
            process: Mutex::new(None),
            meddled_with: AtomicBool::new(false),
            busy: tokio::sync::Mutex::new(()),
        })
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// Starts it with the same name, addresses and data as ever, if it does not run.
    ///
    /// # Errors
    /// The process cannot be started.
    pub fn start(&self) -> io::Result<()> {
        self.start_with(&[])
    }

    /// The same, with further arguments this once.
    ///
    /// # Errors
    /// The process cannot be started.
    pub fn start_with(&self, more: &[&str]) -> io::Result<()> {
        let mut process = self.process.lock();
        if process.is_some() {
            return Ok(());
        }
        let log = File::options().create(true).append(true).open(self.log())?;
        let mut command = Command::new(std::env::current_exe()?);
        // What is set in this shell must not make another run of the same plan. Only how a build that can
        // be sabotaged is to fail is no part of it.
        let ours = |name: &str| name.starts_with("QUORATE_") && name != "QUORATE_SABOTAGE";
        std::env::vars_os().filter(|(name, _)| ours(&name.to_string_lossy())).for_each(|(name, _)| {
            command.env_remove(name);
        });
        command.args(&self.arguments).args(more).env("TOKIO_WORKER_THREADS", &self.worker_threads);
        // Ctrl-C reaches a whole process group: the nodes must hear of it from here only.
        command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log).process_group(0);
        *process = Some(command.spawn()?);
        Ok(())
    }

    /// Its end, from now on, is no surprise.
    pub fn meddle(&self) {
        self.meddled_with.store(true, Ordering::Relaxed);
    }

    /// Its end, from now on, is a surprise again.
    pub fn leave_alone(&self) {
        self.meddled_with.store(false, Ordering::Relaxed);
    }

    /// SIGKILL, and gone when this returns.
    pub fn kill9(&self) {
        if let Some(mut child) = self.process.lock().take() {
            // Both fail only where it has ended by itself. SIGKILL ends a stopped process, too.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Sends a signal to its process, if it has one. It is not reaped meanwhile, so its number
    /// cannot belong to anyone else.
    pub fn signal(&self, signal: Signal) {
        let process = self.process.lock();
        let pid = process.as_ref().and_then(|child| i32::try_from(child.id()).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // Fails only if it has ended.
            let _ = kill_process(pid, signal);
        }
    }

    /// How it ended, told once.
    pub fn ended(&self) -> Option<ExitStatus> {
        let mut process = self.process.lock();
        let ended = process.as_mut().and_then(|child| child.try_wait().ok().flatten());
        if ended.is_some() {
            process.take();
        }
        ended
    }

    /// Whether somebody is doing something to it that may end it.
    pub fn is_meddled_with(&self) -> bool {
        self.meddled_with.load(Ordering::Relaxed)
    }

    /// Waits until its process has ended, however that comes about.
    ///
    /// # Errors
    /// It has not.
    pub async fn wait_ended(&self, within: Duration) -> Result<ExitStatus, String> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            if started.elapsed() > within {
                return Err(format!("{} is still running after {within:?}", self.name));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until it says that it is ready.
    ///
    /// # Errors
    /// It is not within that time, or has ended.
    pub async fn wait_ready(&self, within: Duration) -> Result<(), String> {
        let started = Instant::now();
        loop {
            if self.get("/readyz").await.is_ok_and(|answer| answer.is_success()) {
                return Ok(());
            }
            if let Some(status) = self.ended() {
                return Err(format!(
                    "{} {} instead of getting ready: {}",
                    self.name,
                    describe(status),
                    self.last_words()
                ));
            }
            if started.elapsed() > within {
                return Err(format!("{} was not ready within {within:?}: {}", self.name, self.last_words()));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// On a connection of its own; an answer of any status is `Ok`.
    ///
    /// # Errors
    /// No answer.
    pub async fn get(&self, path: &str) -> Result<Response, HttpError> {
        self.client()?.get(path).await
    }

    /// What it answers to a GET, if that is a success.
    pub async fn ask(&self, path: &str) -> Option<Value> {
        self.get(path).await.ok().filter(Response::is_success).map(|answer| answer.json())
    }

    /// A client with a connection of its own.
    ///
    /// # Errors
    /// Never: the address is ours.
    pub fn client(&self) -> Result<Client, HttpError> {
        Ok(Client::new(&self.url)?.with_timeout(ASK_TIMEOUT))
    }

    /// The last line of its log that says something.
    pub fn last_words(&self) -> String {
        let text = fs::read(self.log()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        let last = text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("its log is empty");
        last.chars().take(LOG_LINE_CHARS_MAX).collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// "was killed by signal 9"
pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (_, Some(signal)) => format!("was killed by signal {signal}"),
        _ => "ended".into(),
    }
}

/// What the third byte of a node's addresses stands for.
const LISTEN: u8 = 1;
const PROXIED: u8 = 2;
const HTTP: u8 = 3;

/// One of the three addresses of a node.
fn address(role: u8, number: u16, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(127, 0, role, number as u8), port)
}

/// A port that is free for TCP and UDP on every address of every node.
fn free_port(nodes: u16) -> io::Result<u16> {
    let span = PORTS.end - PORTS.start;
    // Runs side by side begin in different places.
    let from = std::process::id().wrapping_mul(997);
    let candidates = (0..span).map(|step| (PORTS.start + from.wrapping_add(step) % span) as u16);
    let is_free = |port: &u16| {
        [LISTEN, PROXIED, HTTP]
            .into_iter()
            .flat_map(|role| (1..=nodes).map(move |number| address(role, number, *port)))
            .all(|address| TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok())
    };
    candidates.take(1000).find(is_free).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::AddrNotAvailable,
            "no port is free on 127.0.1.1, 127.0.2.1, 127.0.3.1 and their neighbours; chaos needs Linux, where all of 127/8 is loopback",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::plan::Wanted;

    #[test]
    fn every_node_has_addresses_of_its_own_and_the_directory_goes_when_it_is_done_with() {
        let plan = Wanted { nodes: Some(5), ..Wanted::default() }.decide(1).expect("a plan");
        let cluster = Cluster::prepare(&plan, true, &[]).expect("prepared");
        let mut addresses: Vec<SocketAddrV4> =
            cluster.nodes().iter().flat_map(|node| [node.listen, node.proxied]).collect();
        addresses.dedup();
        assert_eq!(addresses.len(), 10);
        assert_eq!(cluster.node(5).name, "n5");
        assert!(cluster.node(5).arguments.contains(&"cluster.replication_factor=5".to_owned()));
        let proxied = cluster.node(5).proxied.to_string();
        assert!(cluster.node(5).arguments.contains(&proxied), "it is reached through its proxy");
        let direct = Cluster::prepare(&plan, false, &[]).expect("prepared");
        let proxied = direct.node(5).proxied.to_string();
        assert!(!direct.nodes().iter().flat_map(|node| &node.arguments).any(|one| one.contains(&proxied)));
        let dir = cluster.dir().to_owned();
        assert!(dir.join("n1/data").is_dir());
        drop(cluster);
        assert!(!dir.exists());
        let cluster = Cluster::prepare(&plan, true, &[]).expect("prepared");
        let dir = cluster.dir().to_owned();
        cluster.keep_dir();
        drop(cluster);
        assert!(dir.exists());
        fs::remove_dir_all(dir).expect("removed");
    }
}
