//! The sections that belong to no single component.

use super::Secret;
use serde::{Deserialize, Serialize};
use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
};

/// `[node]`: what is different on every node.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Node {
    /// Unique in the cluster and stable across restarts: 1–63 of `a-z 0-9 - _ .`
    pub name: String,
    /// `host:port` for node links (TCP) and gossip (UDP).
    pub listen: String,
    /// `host:port` of the HTTP interface.
    pub http: String,
    /// `host:port` under which the other nodes reach `listen`, where it differs (containers, NAT,
    /// or when listening on every interface).
    pub advertise: Option<String>,
    /// Where the node stands (rack, availability zone): no zone holds two replicas of a shard while another
    /// holds none.
    pub zone: Option<String>,
    /// Holds everything the node must not lose. One node per directory.
    pub data_dir: PathBuf,
    /// `host:port` cluster addresses asked when the node is new. The same list on every node; a
    /// node that is its only seed starts a cluster of one.
    pub seeds: Vec<String>,
    /// Whether a new node takes the place of one that had its name, and whose directory is damaged or
    /// lost: its shards are filled again from the other replicas. No effect on a directory that is in use.
    pub replace: bool,
}

impl Default for Node {
    fn default() -> Self {
        Self {
            name: "node-1".into(),
            listen: "127.0.0.1:7101".into(),
            http: "127.0.0.1:8080".into(),
            advertise: None,
            zone: None,
            data_dir: "quorate-data/node".into(),
            seeds: Vec::new(),
            replace: false,
        }
    }
}

impl Node {
    /// `host:port` under which other nodes reach this one.
    #[must_use]
    pub fn advertised(&self) -> &str {
        self.advertise.as_deref().unwrap_or(&self.listen)
    }

    /// Whether other machines may reach the HTTP interface.
    #[must_use]
    pub fn serves_others(&self) -> bool {
        split_address(&self.http).is_some_and(|(host, _)| !is_loopback(host))
    }

    /// `host:port` under which others reach the HTTP interface: `http`, with the advertised host
    /// when `http` listens on every interface.
    #[must_use]
    pub fn advertised_http(&self) -> String {
        match (split_address(&self.http), split_address(self.advertised())) {
            (Some((host, port)), Some((advertised, _))) if is_unspecified(host) => format!("{advertised}:{port}"),
            _ => self.http.clone(),
        }
    }
}

/// `[cluster]`: what every node has in common.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cluster {
    /// How many shards entities are spread over. Fixed when the cluster is created.
    pub shards: u16,
    /// Nodes that hold each shard: 3 survives the loss of one, 5 of two.
    pub replication_factor: u8,
    /// Proves that nodes belong together; seals gossip. At least 16 characters.
    pub secret: Option<Secret>,
    /// A file that holds the secret (surrounding blanks are dropped), instead of `secret`.
    pub secret_file: Option<PathBuf>,
}

impl Default for Cluster {
    fn default() -> Self {
        Self { shards: 16, replication_factor: 3, secret: None, secret_file: None }
    }
}

/// Fewest characters of a cluster secret.
pub(super) const SECRET_LEN_MIN: usize = 16;

impl Cluster {
    /// The cluster's secret, from `secret` or from `secret_file`; `None` when neither is set,
    /// which [`super::Config::validate`] allows on loopback only.
    ///
    /// # Errors
    /// One sentence for the operator: `secret_file` cannot be read, or what is in it is too short.
    pub fn resolve_secret(&self) -> Result<Option<Secret>, String> {
        match &self.secret_file {
            Some(path) => read_secret(path).map(Some),
            None => Ok(self.secret.clone()),
        }
    }
}

fn read_secret(path: &Path) -> Result<Secret, String> {
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
    let secret = text.trim();
    if secret.len() < SECRET_LEN_MIN {
        return Err(format!(
            "`cluster.secret_file` = {}: holds {} characters where at least {SECRET_LEN_MIN} are needed; \
             make one with `openssl rand -hex 32 > {}`",
            path.display(),
            secret.len(),
            path.display()
        ));
    }
    Ok(Secret::new(secret))
}

fn unreadable(path: &Path, error: &io::Error) -> String {
    format!(
        "`cluster.secret_file` = {}: {error}; give a file that this user may read, the same text on every node",
        path.display()
    )
}

/// `host` and `port` of `host:port`, `[v6]:port` included (the host keeps its brackets).
pub(super) fn split_address(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let well_formed = match bare {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && !host.contains(|c: char| c == ':' || c == '/' || c.is_whitespace()),
    };
    well_formed.then(|| port.parse().ok()).flatten().map(|port| (host, port))
}

fn ip_of(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

pub(super) fn is_unspecified(host: &str) -> bool {
    ip_of(host).is_some_and(|ip| ip.is_unspecified())
}

pub(super) fn is_loopback(host: &str) -> bool {
    host == "localhost" || ip_of(host).is_some_and(|ip| ip.is_loopback())
}
