//! What can be typed.

use super::credentials::Credentials;
use crate::{config::Override, sabotage};
use clap::{ArgAction, Parser, Subcommand, ValueEnum};
use std::{path::PathBuf, time::Duration};

#[derive(Debug, Parser)]
#[command(
    name = "quorate",
    version = sabotage::VERSION,
    about = "An actor-based clustered runtime: one binary, no broker, no database to run beside it",
    after_help = "\
Try it:
  quorate dev                      a three-node cluster on this machine
  quorate status                   ask the node at http://127.0.0.1:8080
  quorate node --help              run one node of a real cluster

Exit codes: 0 done · 1 the operation failed · 2 bad usage or configuration
            3 the cluster could not be reached or has no quorum"
)]
pub(super) struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Start a whole cluster on this machine
    Dev(Dev),
    /// Run one node
    Node(Node),
    /// Show what a node says of itself, and whether every shard has an owner
    Status(Operator),
    /// List the nodes of the cluster
    Members(Operator),
    /// Have the node that is asked leave the cluster for good
    Leave(Leave),
    /// Have another node leave the cluster for good; it may be down
    Remove(Remove),
    /// List the shards: owner, replicas, progress
    Shards(Operator),
    /// Show one entity: where it lives, its version, its state
    Entity(Entity),
    /// List the tasks that have not ended: scheduled, queued, running, retrying
    Tasks(List),
    /// List what is under way: orders, payments and reservations, and what each waits for
    Sagas(Sagas),
    /// What was given up: list, show, retry, discard
    DeadLetters(DeadLetters),
    /// Write all that the cluster holds, as it is at one moment, to a file
    Backup(Backup),
    /// Put a backup into a new cluster
    Restore(Restore),
    /// Check a configuration file, or show the configuration in effect
    Config(Config),
    /// Make certificates for node links: an authority, and one for each node
    Certs(Certs),
    /// Prove from receipts that no acknowledged write was lost
    Verify(Verify),
    /// Put running nodes under load and measure
    Bench(Bench),
    /// Mistreat a cluster under load and check what became of it
    Chaos(Chaos),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Each node is a process of its own, so try to break it:
  quorate dev                      three nodes: http://127.0.0.1:8080, :8081, :8082
  kill -9 PID                      of one of them (dev prints the PIDs): the others carry on
  quorate shards --url http://127.0.0.1:8081
Ctrl-C drains the cluster; the next `quorate dev` finds its data in ./quorate-data again.
The log of node i is ./quorate-data/ni/log.")]
pub(super) struct Dev {
    /// How many nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=9))]
    pub nodes: u16,
    /// Where their data, logs and secret live
    #[arg(long, default_value = "./quorate-data", value_name = "DIR")]
    pub data_dir: PathBuf,
    /// HTTP address of the first node; the next ones take the ports after it
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "HOST:PORT")]
    pub http: String,
    /// Cluster port (TCP and UDP) of the first node; the next ones take the ports after it
    #[arg(long, default_value_t = 7101, value_name = "PORT")]
    pub cluster_port: u16,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Every flag is also a key of the configuration file and an environment variable; a flag beats the
environment, which beats the file, which beats the default:
  --listen 10.0.0.1:7101  =  QUORATE__NODE__LISTEN=10.0.0.1:7101  =  [node] listen = \"10.0.0.1:7101\"

A cluster of one:
  quorate node --name a --listen 127.0.0.1:7101 --seeds 127.0.0.1:7101 --data-dir ./a
One of three (the same seeds and secret on each):
  quorate node --name a --listen 10.0.0.1:7101 --http 10.0.0.1:8080 --data-dir /var/lib/quorate \\
    --seeds 10.0.0.1:7101,10.0.0.2:7101,10.0.0.3:7101 --secret-file /etc/quorate/secret

SIGTERM or Ctrl-C drains: leadership moves away, requests in flight finish, exit 0. A second one
stops at once.")]
pub(super) struct Node {
    #[command(flatten)]
    pub settings: NodeSettings,
    /// Drain when stdin is closed: how `quorate dev` makes sure that no node outlives it
    #[arg(long, hide = true)]
    pub drain_on_stdin_eof: bool,
    /// Let whoever reaches the HTTP interface break this node's disk, clock and network (never in production)
    #[arg(long)]
    pub allow_faults: bool,
}

/// The flags that stand for keys of the configuration.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct NodeSettings {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Name, unique in the cluster, kept across restarts
    #[arg(long)]
    pub name: Option<String>,
    /// Address for the other nodes: TCP for links and UDP for gossip on one port
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: Option<String>,
    /// Address of the HTTP interface
    #[arg(long, value_name = "HOST:PORT")]
    pub http: Option<String>,
    /// Where other nodes reach --listen, if not there (containers, NAT)
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// Rack or availability zone, over which replicas are spread
    #[arg(long)]
    pub zone: Option<String>,
    /// Directory for everything that must not be lost; one per node
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// Cluster addresses to ask when the node is new, the same list on every node
    #[arg(long, value_name = "HOST:PORT,…")]
    pub seeds: Option<String>,
    /// Start on an empty directory in the place of the node that had this name, whose own is lost
    #[arg(long)]
    pub replace: bool,
    /// File with the cluster's secret (make one: openssl rand -hex 32)
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<String>,
    /// Any other key, as in --set replication.heartbeat=200ms; may be repeated
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE", action = ArgAction::Append, value_parser = key_value)]
    pub set: Vec<(String, String)>,
}

impl NodeSettings {
    pub fn overrides(&self) -> Vec<Override> {
        let named = [
            ("node.name", &self.name, "--name"),
            ("node.listen", &self.listen, "--listen"),
            ("node.http", &self.http, "--http"),
            ("node.advertise", &self.advertise, "--advertise"),
            ("node.zone", &self.zone, "--zone"),
            ("node.data_dir", &self.data_dir, "--data-dir"),
            ("node.seeds", &self.seeds, "--seeds"),
            ("cluster.secret_file", &self.secret_file, "--secret-file"),
        ];
        let named = named.into_iter().filter_map(|(key, value, flag)| Some(Override::new(key, value.clone()?, flag)));
        let replace = self.replace.then(|| Override::new("node.replace", "true", "--replace"));
        let set = self.set.iter().map(|(key, value)| Override::new(key, value, "--set"));
        named.chain(replace).chain(set).collect()
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if key.contains('.') => Ok((key.trim().to_owned(), value.trim().to_owned())),
        _ => Err("write SECTION.KEY=VALUE, as in replication.heartbeat=200ms".into()),
    }
}

/// How to reach a running node.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Target {
    /// A node's HTTP address; any node will do, or a proxy with TLS before them (https://…)
    #[arg(long, env = "QUORATE_URL", default_value = "http://127.0.0.1:8080")]
    pub url: String,
    #[command(flatten)]
    pub credentials: Credentials,
    /// How long to wait for an answer
    #[arg(long, default_value = "10s", value_parser = duration, value_name = "DURATION")]
    pub timeout: Duration,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
  --url http://127.0.0.1:8081      ask another node
  export QUORATE_URL=http://…      ask it from now on
  --token-file FILE                where the nodes ask for a token (or QUORATE_TOKEN)
  --json | jq                      for scripts")]
pub(super) struct Operator {
    #[command(flatten)]
    pub target: Target,
    /// Print the node's answer as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
  quorate leave --url http://10.0.0.4:8080   that node's shards are filled elsewhere, then it stops
Waits until it has left. --timeout bounds each question, not the wait.")]
pub(super) struct Leave {
    #[command(flatten)]
    pub operator: Operator,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
  quorate remove n3                for good: its shards are filled elsewhere, its directory is of no use any more
A node that only restarts, or is upgraded, is not to be removed. Waits until it has left.")]
pub(super) struct Remove {
    /// Its name, as `quorate members` lists it
    #[arg(value_name = "NODE")]
    pub name: String,
    #[command(flatten)]
    pub operator: Operator,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
  quorate entity order ord_01hx…   an order, from the shard that owns it
  quorate entity stock widget      a stock item
  quorate entity order ord_01hx… --local   this node's replica: may lag, works without a quorum")]
pub(super) struct Entity {
    /// Its type, as in `order`
    #[arg(value_name = "TYPE")]
    pub entity_type: String,
    /// Its id
    pub id: String,
    /// Read the asked node's own replica
    #[arg(long)]
    pub local: bool,
    #[command(flatten)]
    pub operator: Operator,
}

/// A page of a list.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
  --limit 100                      more at a time
  --starting-after ID              the page behind the last one seen")]
pub(super) struct List {
    /// At most so many
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub limit: u16,
    /// The id of the last one seen
    #[arg(long, value_name = "ID")]
    pub starting_after: Option<String>,
    #[command(flatten)]
    pub operator: Operator,
}

#[derive(Debug, clap::Args)]
pub(super) struct Sagas {
    /// Only what is this now, as in `needs_attention`
    #[arg(long)]
    pub status: Option<String>,
    #[command(flatten)]
    pub list: List,
}

#[derive(Debug, clap::Args)]
pub(super) struct DeadLetters {
    #[command(subcommand)]
    pub command: DeadLettersCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum DeadLettersCommand {
    /// Tasks and tells that were given up
    List(List),
    /// One of them, with its payload
    Show(Letters),
    /// Try them again, with all their attempts before them
    Retry(Letters),
    /// Forget them for good
    Discard(Letters),
}

#[derive(Debug, clap::Args)]
pub(super) struct Letters {
    /// As listed, as in `dl_3_17`; several are done one after the other
    #[arg(value_name = "ID", required = true)]
    pub ids: Vec<String>,
    #[command(flatten)]
    pub operator: Operator,
}

#[derive(Debug, clap::Args)]
#[command(
    mut_arg("timeout", |timeout| timeout.default_value("1m").help("How long the node may be silent")),
    after_help = "\
  quorate backup /backups/monday.qb
  quorate backup /backups/monday.qb --url http://10.0.0.2:8080 --token-file token   the role admin
The cluster serves meanwhile; writes wait for a moment. FILE.part is FILE when all of it is checked and
on disk; a FILE that is there already is never written over. Keep it as you keep a data directory: the
secrets of webhooks are in it. `quorate restore` puts it into a new cluster."
)]
pub(super) struct Backup {
    /// Where it goes; readable by this user only
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    #[command(flatten)]
    pub operator: Operator,
}

#[derive(Debug, clap::Args)]
#[command(
    mut_arg("timeout", |timeout| timeout.default_value("5m").help("How long the node may take nothing and say nothing")),
    after_help = "\
  quorate restore /backups/monday.qb --url http://10.1.0.1:8080
Into a NEW cluster: with the same number of shards (cluster.shards), and no data. The whole file is checked
before anything is sent. The cluster serves nothing until all of it is there; a restore that broke off goes
on with the same command. Make sure that the old cluster is gone for good: two would send the same effects."
)]
pub(super) struct Restore {
    /// What `quorate backup` wrote
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    #[command(flatten)]
    pub operator: Operator,
}

#[derive(Debug, clap::Args)]
pub(super) struct Config {
    #[command(subcommand)]
    pub command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Check a file: every problem on a line, exit code 2 if there is one
    #[command(after_help = "  quorate config check cluster-config/node-1.toml")]
    Check {
        file: PathBuf,
        /// Print the problems as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show every key with its value and where that came from; secrets are redacted
    #[command(after_help = "\
  quorate config show                                    every key and its default
  quorate config show --config node.toml --name b        what `quorate node` would run with
  QUORATE__CLUSTER__SHARDS=32 quorate config show        the environment counts, too")]
    Show {
        #[command(flatten)]
        settings: Box<NodeSettings>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Links between nodes are encrypted, and each shows which node it is, where every node has a
certificate of one authority:
  quorate certs init                         once, where ca.key can stay a secret
  quorate certs node n1                      for each node, by its name
  quorate node --name n1 --set transport.tls.ca_file=ca.crt \\
    --set transport.tls.certificate_file=n1.crt --set transport.tls.key_file=n1.key …")]
pub(super) struct Certs {
    #[command(subcommand)]
    pub command: CertsCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum CertsCommand {
    /// Make the cluster's authority: ca.crt, which every node gets, and ca.key, which none does
    Init {
        #[command(flatten)]
        place: CertsPlace,
        /// How long it is good, in days
        #[arg(long, default_value_t = 3650, value_parser = days())]
        days: u32,
    },
    /// Make the certificate of a node: NAME.crt and NAME.key
    #[command(after_help = "\
  quorate certs node n1 --overwrite          another one before it expires; the node reads it by itself")]
    Node {
        /// Its name, as in `node.name`
        name: String,
        #[command(flatten)]
        place: CertsPlace,
        /// How long it is good, in days; never longer than the authority
        #[arg(long, default_value_t = 365, value_parser = days())]
        days: u32,
        /// Take the place of the one that is there
        #[arg(long)]
        overwrite: bool,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct CertsPlace {
    /// Where the files are
    #[arg(long, value_name = "DIR", default_value = "./certs")]
    pub dir: PathBuf,
    /// Print what was made as JSON
    #[arg(long)]
    pub json: bool,
}

/// To a century.
fn days() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=36_500)
}

/// What load to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Workload {
    /// Orders carried through to confirmed: reserve, authorize, commit, capture
    Checkout,
    /// Orders accepted: durable on a quorum, not waited for further
    Place,
    /// Checkout of a single SKU, which all orders fight over
    HotSku,
    /// Linearizable reads of existing orders
    Read,
}

impl Workload {
    pub fn name(self) -> &'static str {
        match self {
            Self::Checkout => "checkout",
            Self::Place => "place",
            Self::HotSku => "hot-sku",
            Self::Read => "read",
        }
    }
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
A closed loop: each of --concurrency connections sends its next request when the last is answered,
spread over all nodes. Stock is prepared first. Client and nodes share this machine's cores if they
run on it, so compare ratios from one machine, not absolute numbers from two.
  quorate bench                              carry orders to confirmed for 10 s
  quorate bench --workload place --concurrency 256 --duration 30s
  quorate bench --json result.json           keep the figures, with the load they came from")]
pub(super) struct Bench {
    #[arg(long, value_enum, default_value = "checkout")]
    pub workload: Workload,
    /// Connections, each with one request in flight
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub concurrency: u32,
    /// How long to measure
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub duration: Duration,
    /// How long to run before measuring
    #[arg(long, default_value = "2s", value_parser = duration)]
    pub warmup: Duration,
    /// How many SKUs the orders are spread over
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub skus: u32,
    /// Write the result to this file as JSON (`-`: to stdout, instead of the table)
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the receipt of each acknowledged write to this file, for `quorate verify`
    #[arg(long, value_name = "FILE")]
    pub receipts: Option<PathBuf>,
    /// Nodes, separated by commas or repeated. One: all the nodes it knows of
    #[arg(long = "url", env = "QUORATE_URL", value_delimiter = ',', default_value = "http://127.0.0.1:8080")]
    pub urls: Vec<String>,
    #[command(flatten)]
    pub credentials: Credentials,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Every answer to a write carries `x-receipt`. Keep them, one a line: bare, as a JSON string, or as
the `receipt` of a JSON object with whatever else you like beside it. A write is proven when a
majority of its shard's replicas holds it. What is older than shard.receipts_kept is forgotten.
  quorate bench --receipts r.jsonl && quorate verify r.jsonl
  quorate verify r.jsonl --urls http://10.0.0.1:8080,http://10.0.0.2:8080,http://10.0.0.3:8080
Exit codes: 0 all are proven · 1 some are lost or contradicted · 2 the file is no list of receipts
            3 not enough replicas could tell")]
pub(super) struct Verify {
    /// Receipts, one a line (`-`: stdin)
    #[arg(value_name = "RECEIPTS.jsonl")]
    pub file: PathBuf,
    /// Nodes, separated by commas or repeated. One: all the nodes it knows of
    #[arg(
        long = "url",
        visible_alias = "urls",
        env = "QUORATE_URL",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:8080"
    )]
    pub urls: Vec<String>,
    #[command(flatten)]
    pub credentials: Credentials,
    /// How long to wait for each answer
    #[arg(long, default_value = "10s", value_parser = duration, value_name = "DURATION")]
    pub timeout: Duration,
    /// How long replicas that are behind or away may take to catch up
    #[arg(long, default_value = "10s", value_parser = duration, value_name = "DURATION")]
    pub wait: Duration,
    /// Print the outcome as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Starts real nodes on loopback, puts load on them, injects faults, heals them, waits until all is
quiet, and checks. Exit code 0: nothing was violated. The same seed makes the same schedule.
  quorate chaos                                      kill, pause, partition, for a minute
  quorate chaos --faults all --duration 3m --nodes 5
  quorate chaos --plan cluster-config/chaos/disks.toml
Faults: kill kill-owner kill-all pause partition partition-one-way partition-partial loss delay
  reorder duplicate reset slow-disk full-disk failed-fsync torn-write flip-bytes wipe clock-jump
  rolling-restart restart-loop (docs/chaos.md says what each does)")]
pub(super) struct Chaos {
    /// How many nodes, 3 to 9 [default: 3]
    #[arg(long)]
    pub nodes: Option<u16>,
    /// How long the load lasts [default: 60s]
    #[arg(long, value_parser = duration)]
    pub duration: Option<Duration>,
    /// Kinds of faults, separated by commas, or `all` [default: kill,pause,partition]
    #[arg(long, value_name = "KIND,…")]
    pub faults: Option<String>,
    /// Decides the schedule [default: a random one]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Clients, each with one request in flight [default: 16]
    #[arg(long)]
    pub clients: Option<usize>,
    /// How nodes are kept apart
    #[arg(long, value_enum, default_value = "auto")]
    pub network: ChaosNetwork,
    /// The network namespace that this process was in before it went on in one of the run's own
    #[arg(long, hide = true, value_name = "NET")]
    pub left_network: Option<String>,
    /// A plan (TOML); flags beat what it says
    #[arg(long, value_name = "FILE")]
    pub plan: Option<PathBuf>,
    /// Where report.json, report.html and the history go
    #[arg(long, value_name = "DIR", default_value = "./chaos-report")]
    pub report: PathBuf,
}

/// What is between the nodes of `quorate chaos`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ChaosNetwork {
    /// A namespace where one can be made, else the proxy
    Auto,
    /// A proxy on loopback, without privileges
    Proxy,
    /// A network namespace of the run's own, where nft drops packets; needs unshare, ip and nft, and root or user namespaces
    Namespace,
}

fn duration(text: &str) -> Result<Duration, String> {
    // humantime_serde brings humantime; through serde it needs no direct dependency.
    let value = serde_json::Value::String(text.to_owned());
    humantime_serde::deserialize(value).map_err(|_| "write a number with a unit, as in 500ms, 10s or 2m".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn flags_become_overrides_that_name_them() {
        let args =
            Args::try_parse_from(["quorate", "node", "--name", "a", "--set", "cluster.shards=4"]).expect("valid");
        let Command::Node(node) = args.command else { panic!("not a node") };
        let expected = [Override::new("node.name", "a", "--name"), Override::new("cluster.shards", "4", "--set")];
        assert_eq!(node.settings.overrides(), expected);
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("1500ms"), Ok(Duration::from_millis(1500)));
        assert!(duration("10").is_err());
    }
}
