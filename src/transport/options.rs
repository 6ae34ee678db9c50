//! What can be set about node links, and who this node is.

use super::tls::{self, Tls};
use bytesize::ByteSize;
use serde::{Deserialize, Serialize};
use std::{fmt, time::Duration};

/// The longest request or reply. Anything larger must be sent in pieces.
pub const FRAME_BYTES_MAX: usize = 2 * 1024 * 1024;
/// A batch is closed once it is this long; only a single larger frame exceeds it.
pub const BATCH_BYTES_MAX: usize = 64 * 1024;
/// The longest request and reply of an introduction.
pub const INTRODUCTION_BYTES_MAX: usize = 64 * 1024;

/// Settings of the node links. The same on every node, unless there is a reason.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// How often a peer hears from this node even if there is nothing to say.
    #[serde(with = "humantime_serde")]
    pub heartbeat_interval: Duration,
    /// A peer that was silent for this long is taken for frozen, and its link is closed.
    #[serde(with = "humantime_serde")]
    pub dead_after: Duration,
    /// How long connecting to a peer may take, its name lookup included.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// How long a new connection may take to prove that it knows the cluster secret.
    #[serde(with = "humantime_serde")]
    pub handshake_timeout: Duration,
    /// The first pause before a broken link is dialled again; doubles from there.
    #[serde(with = "humantime_serde")]
    pub redial_min: Duration,
    /// The longest pause between two dials.
    #[serde(with = "humantime_serde")]
    pub redial_max: Duration,
    /// When TCP starts to probe an idle connection.
    #[serde(with = "humantime_serde")]
    pub keepalive: Duration,
    /// Request bytes per peer that may be queued or on their way unacknowledged; commands may use
    /// three quarters of it. Past it requests are refused. Replies may queue as much again.
    pub window: ByteSize,
    /// The part of the window that may be on its way; the rest waits here, where Raft overtakes.
    pub pipe: ByteSize,
    /// Requests queued per peer and class.
    pub queue_frames_max: usize,
    /// Raft requests of one peer that are handled at a time; more are answered "overloaded".
    pub raft_handlers_max: usize,
    /// Other requests of one peer that are handled at a time; more are answered "overloaded".
    pub command_handlers_max: usize,
    /// Connections that have not proven themselves yet; one more pushes out the oldest.
    pub handshakes_max: usize,
    /// Introductions answered at a time; more are refused.
    pub introductions_max: usize,
    /// This node's certificate: with it, links are encrypted, and every peer shows which node it is.
    pub tls: tls::Options,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            heartbeat_interval: Duration::from_millis(500),
            dead_after: Duration::from_millis(2500),
            connect_timeout: Duration::from_secs(2),
            handshake_timeout: Duration::from_secs(3),
            redial_min: Duration::from_millis(50),
            redial_max: Duration::from_secs(2),
            keepalive: Duration::from_secs(10),
            window: ByteSize::mib(4),
            pipe: ByteSize::mib(1),
            queue_frames_max: 32_768,
            raft_handlers_max: 4_096,
            command_handlers_max: 16_384,
            handshakes_max: 64,
            introductions_max: 32,
            tls: tls::Options::default(),
        }
    }
}

impl Options {
    /// Names the first two values that contradict each other.
    pub fn validate(&self) -> Result<(), String> {
        let pairs = [
            ("dead_after", self.dead_after, "twice heartbeat_interval", self.heartbeat_interval * 2),
            ("redial_max", self.redial_max, "redial_min", self.redial_min),
        ];
        for (name, value, least_name, least) in pairs {
            if value < least {
                return Err(format!("{name} ({value:?}) is below {least_name} ({least:?})"));
            }
        }
        let sizes = [
            ("window", self.window, "the largest frame", ByteSize::b(FRAME_BYTES_MAX as u64)),
            ("window", self.window, "pipe", self.pipe),
            ("pipe", self.pipe, "four batches", ByteSize::b(4 * BATCH_BYTES_MAX as u64)),
        ];
        for (name, value, least_name, least) in sizes {
            if value < least {
                return Err(format!("{name} ({value}) is below {least_name} ({least})"));
            }
        }
        let times = [
            ("heartbeat_interval", self.heartbeat_interval),
            ("connect_timeout", self.connect_timeout),
            ("handshake_timeout", self.handshake_timeout),
            ("redial_min", self.redial_min),
            ("keepalive", self.keepalive),
        ];
        if let Some((name, _)) = times.iter().find(|(_, value)| value.is_zero()) {
            return Err(format!("{name} is zero"));
        }
        let counts = [
            ("queue_frames_max", self.queue_frames_max),
            ("raft_handlers_max", self.raft_handlers_max),
            ("command_handlers_max", self.command_handlers_max),
            ("handshakes_max", self.handshakes_max),
            ("introductions_max", self.introductions_max),
        ];
        match counts.iter().find(|(_, value)| *value == 0) {
            Some((name, _)) => Err(format!("{name} is zero")),
            None => Ok(()),
        }
    }
}

/// Who this node is to its peers.
#[derive(Clone)]
pub struct Identity {
    /// The node's name, 1–255 bytes; peers know each other by it and by their [`NodeId`](crate::catalog::NodeId).
    pub name: String,
    /// Random number of this process, so that peers notice a restart.
    pub boot_id: u64,
    /// What every node of the cluster knows and never sends.
    pub secret: Vec<u8>,
    /// Its certificate, if links are encrypted.
    pub tls: Option<Tls>,
}

impl Identity {
    /// An identity with a fresh boot id, and no certificate.
    pub fn new(name: impl Into<String>, secret: impl Into<Vec<u8>>) -> Self {
        Self { name: name.into(), boot_id: rand::random(), secret: secret.into(), tls: None }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("name", &self.name).field("boot_id", &self.boot_id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid() {
        assert_eq!(Options::default().validate(), Ok(()));
    }

    #[test]
    fn a_contradiction_names_both_values() {
        let options = Options { dead_after: Duration::from_millis(600), ..Options::default() };
        let error = options.validate().unwrap_err();
        assert!(error.contains("dead_after (600ms)") && error.contains("heartbeat_interval (1s)"), "{error}");
        let options = Options { pipe: ByteSize::mib(8), ..Options::default() };
        assert!(options.validate().unwrap_err().contains("below pipe"));
    }

    #[test]
    fn an_unknown_key_is_refused() {
        assert!(toml::from_str::<Options>("dead_afer = \"1s\"").is_err());
        let options: Options = toml::from_str("dead_after = \"5s\"\nwindow = \"8MiB\"").unwrap();
        assert_eq!((options.dead_after, options.window), (Duration::from_secs(5), ByteSize::mib(8)));
    }

    #[test]
    fn the_secret_is_never_printed() {
        let identity = Identity::new("a", "hush-hush");
        assert!(!format!("{identity:?}").contains("hush") && !format!("{identity:?}").contains("104, 117"));
    }
}
