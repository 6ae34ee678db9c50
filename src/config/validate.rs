//! Rules that types cannot say.

use super::{
    Config, Error, Problem, Sources,
    error::{Setting, UNSET},
    schema, secret,
    sections::{SECRET_LEN_MIN, is_loopback, is_unspecified, split_address},
};
use bytesize::ByteSize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const NAME_LEN_MAX: usize = 63;
const SHARDS_MAX: u16 = 1024;
const REPLICATION_FACTOR_MAX: u8 = 7;
/// A segment holds a few of the largest records at least; offsets in it have 32 bits.
const SEGMENT_BYTES_MIN: ByteSize = ByteSize::mib(1);
const SEGMENT_BYTES_MAX: ByteSize = ByteSize::gib(1);
/// Heartbeats a replica may miss before it stands for election.
const HEARTBEATS_PER_ELECTION: u32 = 3;

/// Checks everything and reports every problem.
pub(super) fn check(config: &Config, sources: &Sources) -> Result<(), Error> {
    let mut checker = Checker { values: schema::leaves(config), sources, problems: Vec::new() };
    checker.node(config);
    checker.seeds(config);
    checker.cluster(config);
    checker.secret(config);
    checker.storage(config);
    checker.replication(config);
    checker.component("transport", config.transport.validate().err());
    checker.component("transport.tls", config.transport.tls.validate().err());
    checker.component("membership", config.membership.validate().err());
    checker.tokens(config);
    checker.origins(config);
    checker.gateway(config);
    checker.bounds();
    if checker.problems.is_empty() { Ok(()) } else { Err(Error::Invalid(checker.problems)) }
}

/// What to do about a name that is none.
pub(crate) const NODE_NAME_FIX: &str = "use 1 to 63 of a-z, 0-9, `-`, `_`, `.`";

/// Whether a node may be called so.
pub(crate) fn is_node_name(name: &str) -> bool {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
    (1..=NAME_LEN_MAX).contains(&name.len()) && name.chars().all(good)
}

struct Checker<'a> {
    values: BTreeMap<String, Value>,
    sources: &'a Sources,
    problems: Vec<Problem>,
}

impl Checker<'_> {
    fn node(&mut self, config: &Config) {
        let node = &config.node;
        if !is_node_name(&node.name) {
            self.refuse(&["node.name"], "not a node name", NODE_NAME_FIX);
        }
        if node.zone.as_deref().is_some_and(|zone| zone.trim().is_empty()) {
            self.refuse(&["node.zone"], "empty", "leave it out, or name where the node stands, as in \"eu-1a\"");
        }
        if node.data_dir.as_os_str().is_empty() {
            self.refuse(&["node.data_dir"], "empty", "name a directory that only this node uses");
        }
        self.address("node.listen", Some(&node.listen));
        self.address("node.http", Some(&node.http));
        self.address("node.advertise", node.advertise.as_deref());
        self.reachable(config);
        let clash = split_address(&node.listen).is_some_and(|(_, port)| port != 0) && node.listen == node.http;
        if clash {
            self.refuse(&["node.listen", "node.http"], "the same address twice", "give each its own port");
        }
    }

    fn address(&mut self, key: &str, address: Option<&str>) {
        if address.is_some_and(|address| split_address(address).is_none()) {
            self.refuse(&[key], "not an address", "write host:port, as in \"127.0.0.1:7101\" or \"[::1]:7101\"");
        }
    }

    /// Others must be able to dial what this node says of itself.
    fn reachable(&mut self, config: &Config) {
        let node = &config.node;
        let unspecified = |address: &str| split_address(address).is_some_and(|(host, _)| is_unspecified(host));
        match &node.advertise {
            Some(advertise) if unspecified(advertise) => self.refuse(
                &["node.advertise"],
                "no node can be reached at this address",
                "give the host name or address under which other nodes reach this one",
            ),
            None if unspecified(&node.listen) => self.refuse(
                &["node.listen"],
                "listens everywhere, but does not say where other nodes reach it",
                "set `node.advertise` (--advertise HOST:PORT)",
            ),
            _ => {}
        }
    }

    fn seeds(&mut self, config: &Config) {
        let mut seen = BTreeSet::new();
        for seed in &config.node.seeds {
            if !split_address(seed).is_some_and(|(host, port)| port != 0 && !is_unspecified(host)) {
                let what = format!("{seed:?} is not an address to dial");
                self.refuse(&["node.seeds"], what, "write each as host:port, where that node listens for its peers");
            }
            if !seen.insert(seed) {
                self.refuse(&["node.seeds"], format!("{seed:?} stands there twice"), "name every seed once");
            }
        }
    }

    fn storage(&mut self, config: &Config) {
        let bytes = config.storage.segment_bytes;
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&bytes) {
            let what = format!("{bytes} is out of range");
            let fix = format!("choose {SEGMENT_BYTES_MIN} to {SEGMENT_BYTES_MAX}; the default suits most nodes");
            self.refuse(&["storage.segment_bytes"], what, fix);
        }
    }

    fn cluster(&mut self, config: &Config) {
        if !(1..=SHARDS_MAX).contains(&config.cluster.shards) {
            self.refuse(
                &["cluster.shards"],
                "out of range",
                format!("choose 1 to {SHARDS_MAX}; 16 suits most clusters"),
            );
        }
        let factor = config.cluster.replication_factor;
        if !(1..=REPLICATION_FACTOR_MAX).contains(&factor) || factor.is_multiple_of(2) {
            self.refuse(
                &["cluster.replication_factor"],
                "must be odd, 1 to 7 (an even number survives no more failures than the odd one below it)",
                "choose 3, or 5 to survive the loss of two nodes",
            );
        }
    }

    fn secret(&mut self, config: &Config) {
        let cluster = &config.cluster;
        if cluster.secret.is_some() && cluster.secret_file.is_some() {
            self.refuse(&["cluster.secret", "cluster.secret_file"], "both are set", "keep one of them");
        }
        if cluster.secret.as_ref().is_some_and(|secret| secret.expose().len() < SECRET_LEN_MIN) {
            let what = format!("shorter than {SECRET_LEN_MIN} characters");
            self.refuse(&["cluster.secret"], what, "make one with `openssl rand -hex 32`, the same on every node");
        }
        let open = split_address(&config.node.listen).is_some_and(|(host, _)| !is_loopback(host));
        if open && cluster.secret.is_none() && cluster.secret_file.is_none() {
            self.refuse(
                &["node.listen", "cluster.secret"],
                "a node that others can reach needs a secret",
                "set `cluster.secret_file` (--secret-file FILE) to a file made with `openssl rand -hex 32`, the same on every node",
            );
        }
    }

    fn replication(&mut self, config: &Config) {
        let timing = &config.replication;
        if timing.heartbeat.is_zero() {
            self.refuse(
                &["replication.heartbeat"],
                "zero",
                "choose about the round-trip time between nodes, at least 10ms",
            );
        }
        if timing.election_min >= timing.election_max {
            self.refuse(
                &["replication.election_min", "replication.election_max"],
                "the first must be the smaller: replicas wait a random time between them",
                "make `election_max` about twice `election_min`",
            );
        }
        if timing.heartbeat.saturating_mul(HEARTBEATS_PER_ELECTION) > timing.election_min {
            self.refuse(
                &["replication.heartbeat", "replication.election_min"],
                "a replica would stand for election before three heartbeats could be missed",
                "make `election_min` at least three times `heartbeat`",
            );
        }
    }

    fn tokens(&mut self, config: &Config) {
        for problem in config.http.token_problems() {
            self.refuse(&[secret::TOKENS], problem.what, problem.fix);
        }
    }

    fn origins(&mut self, config: &Config) {
        for origin in config.http.wrong_origins() {
            let what = format!("{origin:?} is no origin as browsers send it");
            self.refuse(
                &["http.trusted_origins"],
                what,
                "write each as https://HOST or https://HOST:PORT, in small letters",
            );
        }
    }

    fn gateway(&mut self, config: &Config) {
        for problem in config.gateway.problems() {
            self.refuse(problem.keys, problem.what, problem.fix);
        }
    }

    /// What a component says of its own section: its sentence, with the keys it names.
    fn component(&mut self, section: &str, refusal: Option<impl ToString>) {
        let Some(text) = refusal.map(|refusal| refusal.to_string()) else { return };
        let words: BTreeSet<&str> = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).collect();
        let named =
            |key: &&String| key.rsplit_once('.').is_some_and(|(of, leaf)| of == section && words.contains(leaf));
        let keys: Vec<String> = self.values.keys().filter(named).cloned().collect();
        let keys: Vec<&str> = if keys.is_empty() { vec![section] } else { keys.iter().map(String::as_str).collect() };
        self.refuse(&keys, text.clone(), "change one, or leave both out to get the defaults");
    }

    /// A bound of nothing would refuse everything, a timeout of nothing would always run out.
    fn bounds(&mut self) {
        let bounded = |key: &str| key.ends_with("_max") || key.ends_with("_timeout");
        let zero = |value: &Value| value == &Value::from(0) || value == "0 B" || value == "0s";
        let found = self.values.iter().filter(|(key, value)| bounded(key) && zero(value));
        let keys: Vec<String> = found.map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.refuse(&[&key], "zero would refuse everything", "give a size above it, or leave it out");
        }
    }

    fn refuse(&mut self, keys: &[&str], what: impl Into<String>, fix: impl Into<String>) {
        let settings = keys.iter().map(|key| self.setting(key)).collect();
        self.problems.push(Problem::new(settings, what, fix));
    }

    fn setting(&self, key: &str) -> Setting {
        let value = match self.values.get(key) {
            None | Some(Value::Null) => UNSET.into(),
            Some(value) => value.to_string(),
        };
        Setting { key: key.to_owned(), value: Some(value), source: self.sources.of(key) }
    }
}
