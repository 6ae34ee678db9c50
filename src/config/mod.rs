//! Configuration: composes and validates the options that each component owns.
//!
//! ```text
//! defaults ◀ file (TOML) ◀ environment (QUORATE__SECTION__KEY) ◀ flags
//!      └────────── each value remembers where it came from ──────────┘
//!                                 │
//!               unknown keys ─▶ types ─▶ rules across keys ─▶ Config (+ Sources for `config show`)
//! ```
//!
//! Invariants: a value is never silently ignored (an unknown key is an error, wherever it stands);
//! every complaint names the key, its value, where that came from, and what to do; a secret is
//! never printed. This module never decides what an option means: its component does.

mod error;
mod load;
mod schema;
mod secret;
mod sections;
mod show;
mod source;
mod validate;

#[cfg(test)]
mod tests;

pub use error::{Error, Problem};
pub use load::{Loaded, Override};
pub use secret::Secret;
pub use sections::{Cluster, Node};
pub use source::{Source, Sources};
pub(crate) use validate::{NODE_NAME_FIX, is_node_name};

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The configuration of one node.
///
/// Every field is public and has a default: to embed a node, start from [`Config::for_node`] and
/// change what differs.
///
/// ```
/// let mut config = quorate::Config::for_node("till-1", "/tmp/till-1");
/// config.cluster.shards = 4;
/// config.validate().unwrap();
/// ```
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// This node: its name, addresses, directory and seeds.
    pub node: Node,
    /// What every node of the cluster has in common.
    pub cluster: Cluster,
    /// Node links.
    pub transport: crate::transport::Options,
    /// Gossip.
    pub membership: crate::membership::Options,
    /// Journal and state store.
    pub storage: crate::storage::Options,
    /// Raft timing.
    pub replication: crate::replication::Options,
    /// Entity actors and their bounds.
    pub shard: crate::shard::Options,
    /// The HTTP interface.
    pub http: crate::ingress::Options,
    /// The card gateway behind payments.
    pub gateway: crate::gateway::Options,
    /// Requests to card gateways and webhook receivers.
    pub outbound: crate::outbound::Options,
    /// Logs and metrics.
    pub telemetry: crate::telemetry::Options,
}

impl Config {
    /// A cluster of one: `name` on loopback, its data in `data_dir`, itself as its only seed.
    /// Set `node.seeds` to join others.
    #[must_use]
    pub fn for_node(name: impl Into<String>, data_dir: impl Into<PathBuf>) -> Self {
        let mut config = Self::default();
        config.node.name = name.into();
        config.node.data_dir = data_dir.into();
        config.node.seeds = vec![config.node.listen.clone()];
        config
    }

    /// Reads `file` (if any), the environment and overrides on top of the defaults, and checks
    /// the whole.
    ///
    /// # Errors
    /// The file cannot be read or parsed, a key is unknown, a value has the wrong type, or values
    /// contradict each other. All problems are found in one go.
    pub fn load(
        file: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
        overrides: impl IntoIterator<Item = Override>,
    ) -> Result<Self, Error> {
        Loaded::load(file, env, overrides).map(|loaded| loaded.config)
    }

    /// Checks what types cannot say: ranges, and values that contradict each other.
    ///
    /// # Errors
    /// [`Error::Invalid`] with every problem found.
    pub fn validate(&self) -> Result<(), Error> {
        validate::check(self, &Sources::in_code(self))
    }
}
