//! Who listens where, and where each keeps its things.

use super::{
    super::{Failure, args},
    child::Child,
};
use rand::Rng as _;
use std::{
    fs,
    io::{self, Write as _},
    net::{TcpListener, UdpSocket},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

/// Seeds of a cluster of three or more. An odd number, so that none is idle in a vote.
const SEEDS_MAX: usize = 3;

pub(super) struct Plan {
    pub nodes: Vec<PlannedNode>,
    pub dir: PathBuf,
    pub secret: PathBuf,
    pub seeds: String,
}

pub(super) struct PlannedNode {
    pub name: String,
    /// `host:port`
    pub http: String,
    /// `host:port`
    pub listen: String,
    pub data: PathBuf,
    pub log: PathBuf,
}

impl Plan {
    pub fn new(args: &args::Dev) -> Result<Self, Failure> {
        let bad = || Failure::usage(format!("--http {}: write host:port, as in 127.0.0.1:8080", args.http));
        let (host, port) = args.http.rsplit_once(':').ok_or_else(bad)?;
        let http_base: u16 = port.parse().map_err(|_| bad())?;
        let mut nodes = Vec::new();
        for i in 0..args.nodes {
            let dir = args.data_dir.join(format!("n{}", i + 1));
            nodes.push(PlannedNode {
                name: format!("n{}", i + 1),
                http: format!("{host}:{}", nth_port(http_base, i, "--http")?),
                // Links between the nodes never leave the machine, wherever HTTP listens.
                listen: format!("127.0.0.1:{}", nth_port(args.cluster_port, i, "--cluster-port")?),
                data: dir.join("data"),
                log: dir.join("log"),
            });
        }
        let count = if nodes.len() >= SEEDS_MAX { SEEDS_MAX } else { 1 };
        let seeds: Vec<&str> = nodes.iter().take(count).map(|node| node.listen.as_str()).collect();
        let seeds = seeds.join(",");
        Ok(Self { nodes, dir: args.data_dir.clone(), secret: args.data_dir.join("secret"), seeds })
    }

    /// Creates the directories and the secret, and checks that every port is free: in one place,
    /// before anything runs.
    pub fn prepare(&self) -> Result<(), Failure> {
        let unusable = |error: io::Error| {
            Failure::operation(format!(
                "--data-dir {}: {error}; name a directory that this user may write to",
                self.dir.display()
            ))
        };
        for node in &self.nodes {
            fs::create_dir_all(&node.data).map_err(unusable)?;
        }
        create_secret(&self.secret).map_err(unusable)?;
        self.nodes.iter().try_for_each(PlannedNode::ports_free)
    }

    /// What to tell when the cluster is up.
    pub fn welcome(&self, took: Duration, children: &[Child]) -> String {
        let mut text = format!("\n{} ready in {:.1} s:\n\n", count(self.nodes.len()), took.as_secs_f64());
        for (node, child) in self.nodes.iter().zip(children) {
            text.push_str(&format!(
                "  {:<4}http://{:<22} pid {:<8} log {}\n",
                node.name,
                node.http,
                child.pid,
                node.log.display()
            ));
        }
        let first = &self.nodes[0].http;
        let last = &self.nodes[self.nodes.len() - 1].http;
        text.push_str(&format!(
            r#"
Try it: put something in stock, order it and wait for the outcome, read it from another node.

  curl -sX PUT http://{first}/v1/inventory/widget -H 'content-type: application/json' -d '{{"on_hand":100}}'
  curl -sX POST http://{first}/v1/orders -H 'content-type: application/json' -H 'idempotency-key: try-1' -H 'prefer: wait=5' \
    -d '{{"customer_id":"alice","currency":"USD","payment_method":"pm_card_ok","items":[{{"sku":"widget","quantity":2,"unit_price":1999}}]}}'
  curl -s http://{last}/v1/inventory/widget

API: http://{first}/docs   Shards: quorate shards --url http://{first}   Kill a node: kill -9 PID
Ctrl-C drains and stops the cluster; its data stays in {}.
"#,
            self.dir.display()
        ));
        text
    }
}

fn count(nodes: usize) -> String {
    if nodes == 1 { "1 node".into() } else { format!("{nodes} nodes") }
}

fn nth_port(base: u16, i: u16, flag: &str) -> Result<u16, Failure> {
    let port = base.checked_add(i).filter(|_| base != 0);
    port.ok_or_else(|| {
        Failure::usage(format!(
            "{flag}: node {} would have no port above {base}; choose a port below 65000, not 0",
            i + 1
        ))
    })
}

impl PlannedNode {
    /// The arguments for this very binary.
    pub fn arguments(&self, plan: &Plan) -> Vec<String> {
        let path = |path: &Path| path.display().to_string();
        [
            ("--name", self.name.clone()),
            ("--listen", self.listen.clone()),
            ("--http", self.http.clone()),
            ("--data-dir", path(&self.data)),
            ("--seeds", plan.seeds.clone()),
            ("--secret-file", path(&plan.secret)),
        ]
        .into_iter()
        .fold(vec!["node".to_owned()], |mut all, (flag, value)| {
            all.extend([flag.to_owned(), value]);
            all
        })
    }

    /// What to type to start this node by hand.
    pub fn command_line(&self, plan: &Plan) -> String {
        let program = std::env::current_exe().map_or_else(|_| "quorate".into(), |path| path.display().to_string());
        let words = std::iter::once(program).chain(self.arguments(plan));
        words.map(|word| quoted(&word)).collect::<Vec<_>>().join(" ")
    }

    /// The last `lines` lines of the log that say something, as one.
    pub fn log_tail(&self, lines: usize) -> String {
        let text = fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        let told: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let tail = &told[told.len().saturating_sub(lines)..];
        if tail.is_empty() { "its log is empty".into() } else { tail.join(" | ") }
    }

    fn ports_free(&self) -> Result<(), Failure> {
        let taken = |address: &str, what: &str, flag: &str, error: &io::Error| {
            let port = address.rsplit(':').next().unwrap_or_default();
            let reason = if error.kind() == io::ErrorKind::AddrInUse {
                "is taken".into()
            } else {
                format!("cannot be used: {error}")
            };
            Failure::operation(format!(
                "port {port} ({what} of {}) {reason}; is a cluster running already? Stop it, or choose other ports with {flag}",
                self.name
            ))
        };
        TcpListener::bind(&self.http).map_err(|error| taken(&self.http, "HTTP", "--http", &error))?;
        TcpListener::bind(&self.listen)
            .map_err(|error| taken(&self.listen, "cluster, TCP", "--cluster-port", &error))?;
        UdpSocket::bind(&self.listen).map_err(|error| taken(&self.listen, "cluster, UDP", "--cluster-port", &error))?;
        Ok(())
    }
}

/// Quotes a word for the shell where that is needed.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,=@".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// A random secret, readable by this user only; one that is there stays.
fn create_secret(path: &Path) -> io::Result<()> {
    let mut bytes = [0; 32];
    rand::rng().fill_bytes(&mut bytes);
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(mut file) => writeln!(file, "{text}"),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(dir: &Path) -> args::Dev {
        args::Dev { nodes: 3, data_dir: dir.to_owned(), http: "127.0.0.1:8080".into(), cluster_port: 7101 }
    }

    #[test]
    fn ports_count_up_from_the_base() {
        let plan = Plan::new(&args(Path::new("d"))).expect("a plan");
        let ports: Vec<_> = plan.nodes.iter().map(|node| (node.http.as_str(), node.listen.as_str())).collect();
        assert_eq!(
            ports,
            [
                ("127.0.0.1:8080", "127.0.0.1:7101"),
                ("127.0.0.1:8081", "127.0.0.1:7102"),
                ("127.0.0.1:8082", "127.0.0.1:7103")
            ]
        );
        let high = args::Dev { http: "127.0.0.1:65535".into(), ..args(Path::new("d")) };
        assert!(matches!(Plan::new(&high), Err(Failure::Usage(text)) if text.contains("--http")));
    }

    #[test]
    fn the_secret_is_made_once_and_is_good_enough() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("secret");
        create_secret(&path).expect("made");
        let first = fs::read_to_string(&path).expect("readable");
        create_secret(&path).expect("kept");
        assert_eq!(fs::read_to_string(&path).expect("readable"), first);
        let cluster = crate::config::Cluster { secret_file: Some(path), ..Default::default() };
        assert!(cluster.resolve_secret().expect("long enough").is_some());
    }

    #[test]
    fn a_taken_port_is_named_with_its_node_and_flag() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let holder = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = holder.local_addr().expect("an address");
        let args = args::Dev { nodes: 1, http: address.to_string(), ..args(dir.path()) };
        let failure = Plan::new(&args).and_then(|plan| plan.prepare()).expect_err("taken").to_string();
        assert!(failure.contains(&address.port().to_string()) && failure.contains("--http"), "{failure}");
    }

    #[test]
    fn words_are_quoted_for_the_shell() {
        assert_eq!(quoted("a-b/c"), "a-b/c");
        assert_eq!(quoted("it's here"), r"'it'\''s here'");
    }
}
