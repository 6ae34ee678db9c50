//! What can be done to a cluster, and how it is written down.

use rand::{RngExt as _, seq::IndexedRandom as _};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, time::Duration};

/// A kind of fault, by the name that `--faults` and plan files use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Kill,
    KillOwner,
    KillAll,
    Pause,
    Partition,
    PartitionOneWay,
    PartitionPartial,
    Loss,
    Delay,
    Reorder,
    Duplicate,
    Reset,
    SlowDisk,
    FullDisk,
    FailedFsync,
    TornWrite,
    FlipBytes,
    Wipe,
    ClockJump,
    RollingRestart,
    RestartLoop,
    Leave,
}

/// Name, the parameters that mean something to it, and what it does.
type Entry = (Kind, &'static str, &'static [&'static str], &'static str);

const KINDS: &[Entry] = &[
    (Kind::Kill, "kill", &["node"], "kill -9 of a node, started again afterwards"),
    (Kind::KillOwner, "kill-owner", &["shard"], "kill -9 of the node that owns a shard"),
    (Kind::KillAll, "kill-all", &[], "kill -9 of all nodes at once"),
    (Kind::Pause, "pause", &["node"], "SIGSTOP, then SIGCONT: it comes back believing what it last knew"),
    (Kind::Partition, "partition", &["node"], "a minority is cut off in both directions"),
    (Kind::PartitionOneWay, "partition-one-way", &["node"], "a node hears the others and is not heard"),
    (
        Kind::PartitionPartial,
        "partition-partial",
        &["node", "peer"],
        "two nodes cannot reach each other, all others can",
    ),
    (Kind::Loss, "loss", &["probability"], "datagrams are lost; TCP sees it as delays"),
    (Kind::Delay, "delay", &["delay"], "everything between the nodes takes longer, and not always as long"),
    (Kind::Reorder, "reorder", &["probability"], "datagrams overtake each other; TCP keeps its order"),
    (Kind::Duplicate, "duplicate", &["probability"], "datagrams arrive twice"),
    (Kind::Reset, "reset", &["node"], "the connections of a node are cut, again and again"),
    (Kind::SlowDisk, "slow-disk", &["node", "delay"], "every sync takes longer"),
    (Kind::FullDisk, "full-disk", &["node"], "writes fail for want of space: the node ends"),
    (Kind::FailedFsync, "failed-fsync", &["node"], "a sync fails: the node ends"),
    (Kind::TornWrite, "torn-write", &["node"], "kill -9 in the middle of a write: half a record at the journal's end"),
    (
        Kind::FlipBytes,
        "flip-bytes",
        &["node"],
        "an acknowledged byte changes on a stopped node: it must refuse to start",
    ),
    (Kind::Wipe, "wipe", &["node"], "a stopped node loses its directory: it must not be let in"),
    (Kind::ClockJump, "clock-jump", &["node", "offset"], "a node's clock is wrong"),
    (Kind::RollingRestart, "rolling-restart", &[], "SIGTERM and a new start, one node after the other"),
    (Kind::RestartLoop, "restart-loop", &["node", "times"], "kill -9 of one node each time it has come back"),
    (Kind::Leave, "leave", &["node"], "a member leaves for good; on an empty directory it joins as a new one"),
];

impl Kind {
    pub fn all() -> impl Iterator<Item = Self> {
        KINDS.iter().map(|(kind, ..)| *kind)
    }

    fn entry(self) -> &'static Entry {
        KINDS.iter().find(|(kind, ..)| *kind == self).unwrap_or_else(|| unreachable!("every kind has its entry"))
    }

    pub fn name(self) -> &'static str {
        self.entry().1
    }

    /// Parameters of a plan file that mean something to it.
    pub fn parameters(self) -> &'static [&'static str] {
        self.entry().2
    }

    pub fn about(self) -> &'static str {
        self.entry().3
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = KINDS.iter().find(|(_, name, ..)| *name == text);
        known.map(|(kind, ..)| *kind).ok_or_else(|| {
            let names: Vec<&str> = KINDS.iter().map(|(_, name, ..)| *name).collect();
            format!("`{text}` is no fault; there are {}", names.join(", "))
        })
    }
}

impl Serialize for Kind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What a plan file may say of a fault; what it leaves open, the seed decides.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wish {
    pub node: Option<u16>,
    pub peer: Option<u16>,
    pub shard: Option<u16>,
    pub probability: Option<f64>,
    pub delay: Option<Duration>,
    /// As in `-90s`.
    pub offset: Option<String>,
    pub times: Option<u16>,
}

/// One fault with everything that it needs. Nodes count from 1.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Fault {
    Kill {
        node: u16,
    },
    KillOwner {
        shard: u16,
    },
    KillAll,
    Pause {
        node: u16,
    },
    /// These on one side, all others on the other.
    Partition {
        nodes: Vec<u16>,
    },
    PartitionOneWay {
        node: u16,
    },
    PartitionPartial {
        node: u16,
        peer: u16,
    },
    Loss {
        probability: f64,
    },
    Delay {
        delay_ms: u64,
    },
    Reorder {
        probability: f64,
    },
    Duplicate {
        probability: f64,
    },
    Reset {
        node: u16,
    },
    SlowDisk {
        node: u16,
        delay_ms: u64,
    },
    FullDisk {
        node: u16,
    },
    FailedFsync {
        node: u16,
    },
    TornWrite {
        node: u16,
    },
    FlipBytes {
        node: u16,
    },
    Wipe {
        node: u16,
    },
    ClockJump {
        node: u16,
        offset_ms: i64,
    },
    RollingRestart,
    RestartLoop {
        node: u16,
        times: u16,
    },
    Leave {
        node: u16,
    },
}

/// What a fault is drawn for.
#[derive(Debug, Clone, Copy)]
pub struct Ground {
    pub nodes: u16,
    pub shards: u16,
}

impl Ground {
    /// Copies that each shard has: as many as the nodes allow, at most five.
    pub fn replication_factor(self) -> u16 {
        if self.nodes >= 5 { 5 } else { 3 }
    }

    /// How many nodes may be away while every shard keeps a majority.
    pub fn minority(self) -> u16 {
        (self.replication_factor() - 1) / 2
    }
}

impl Fault {
    /// A fault of this kind: as wished, and for the rest as the dice say.
    ///
    /// # Errors
    /// A sentence for whoever wrote the wish.
    pub fn draw(kind: Kind, wish: &Wish, ground: Ground, dice: &mut impl rand::Rng) -> Result<Self, String> {
        wish.fits(kind, ground)?;
        // Drawn whether they are needed or not, so that a wish changes nothing about what follows.
        let (node, peer) = two_nodes(wish, ground, dice);
        let shard = dice.random_range(0..ground.shards);
        let probability = wish.probability.unwrap_or(f64::from(dice.random_range(5..=30_u32)) / 100.0);
        let delay_ms = wish.delay.map_or(dice.random_range(20..=120), |delay| delay.as_millis() as u64);
        let offset = dice.random_range(1_000..=120_000_i64) * if dice.random() { 1 } else { -1 };
        let mut others: Vec<u16> = (1..=ground.nodes).filter(|other| *other != node).collect();
        others.sort_by_cached_key(|_| dice.random::<u64>());
        let side = dice.random_range(1..=ground.minority());
        Ok(match kind {
            Kind::Kill => Self::Kill { node },
            Kind::KillOwner => Self::KillOwner { shard: wish.shard.unwrap_or(shard) },
            Kind::KillAll => Self::KillAll,
            Kind::Pause => Self::Pause { node },
            Kind::Partition => {
                let mut nodes: Vec<u16> = std::iter::once(node).chain(others).take(usize::from(side)).collect();
                nodes.sort_unstable();
                Self::Partition { nodes }
            }
            Kind::PartitionOneWay => Self::PartitionOneWay { node },
            Kind::PartitionPartial => Self::PartitionPartial { node: node.min(peer), peer: node.max(peer) },
            Kind::Loss => Self::Loss { probability },
            Kind::Delay => Self::Delay { delay_ms },
            Kind::Reorder => Self::Reorder { probability },
            Kind::Duplicate => Self::Duplicate { probability },
            Kind::Reset => Self::Reset { node },
            Kind::SlowDisk => Self::SlowDisk { node, delay_ms },
            Kind::FullDisk => Self::FullDisk { node },
            Kind::FailedFsync => Self::FailedFsync { node },
            Kind::TornWrite => Self::TornWrite { node },
            Kind::FlipBytes => Self::FlipBytes { node },
            Kind::Wipe => Self::Wipe { node },
            Kind::ClockJump => Self::ClockJump { node, offset_ms: wish.offset_ms()?.unwrap_or(offset) },
            Kind::RollingRestart => Self::RollingRestart,
            Kind::RestartLoop => Self::RestartLoop { node, times: wish.times.unwrap_or(3) },
            Kind::Leave => Self::Leave { node },
        })
    }

    pub fn kind(&self) -> Kind {
        match self {
            Self::Kill { .. } => Kind::Kill,
            Self::KillOwner { .. } => Kind::KillOwner,
            Self::KillAll => Kind::KillAll,
            Self::Pause { .. } => Kind::Pause,
            Self::Partition { .. } => Kind::Partition,
            Self::PartitionOneWay { .. } => Kind::PartitionOneWay,
            Self::PartitionPartial { .. } => Kind::PartitionPartial,
            Self::Loss { .. } => Kind::Loss,
            Self::Delay { .. } => Kind::Delay,
            Self::Reorder { .. } => Kind::Reorder,
            Self::Duplicate { .. } => Kind::Duplicate,
            Self::Reset { .. } => Kind::Reset,
            Self::SlowDisk { .. } => Kind::SlowDisk,
            Self::FullDisk { .. } => Kind::FullDisk,
            Self::FailedFsync { .. } => Kind::FailedFsync,
            Self::TornWrite { .. } => Kind::TornWrite,
            Self::FlipBytes { .. } => Kind::FlipBytes,
            Self::Wipe { .. } => Kind::Wipe,
            Self::ClockJump { .. } => Kind::ClockJump,
            Self::RollingRestart => Kind::RollingRestart,
            Self::RestartLoop { .. } => Kind::RestartLoop,
            Self::Leave { .. } => Kind::Leave,
        }
    }

    /// How many nodes their shards must do without meanwhile.
    pub fn away(&self, ground: Ground) -> u16 {
        match self {
            Self::KillAll => ground.nodes,
            Self::Partition { nodes } => nodes.len() as u16,
            Self::Loss { .. }
            | Self::Delay { .. }
            | Self::Reorder { .. }
            | Self::Duplicate { .. }
            | Self::SlowDisk { .. }
            | Self::ClockJump { .. } => 0,
            _ => 1,
        }
    }

    /// Whether it takes a majority away and is meant to.
    pub fn spares_nobody(&self) -> bool {
        *self == Self::KillAll
    }

    /// Whether only a proxy between the nodes can bring it about: nft drops packets, and no more.
    pub fn needs_proxy(&self) -> bool {
        matches!(self.kind(), Kind::Delay | Kind::Reorder | Kind::Duplicate | Kind::Reset)
    }

    /// What must come of it, where that is more than "all goes on".
    pub fn expectation(&self) -> &'static str {
        match self {
            Self::KillAll => "nobody is left to answer; everything acknowledged is there when they are back",
            Self::Pause { .. } => "its shards move to others; awake again, it serves nothing old",
            Self::FullDisk { .. } | Self::FailedFsync { .. } => {
                "the node ends with exit code 1, and comes back with what it has"
            }
            Self::TornWrite { .. } => "the half record was never acknowledged: the node cuts it off and comes back",
            Self::FlipBytes { .. } => {
                "the node names the damage and stays out; on an empty directory it takes its own place and is filled again"
            }
            Self::Wipe { .. } => {
                "the emptied node is refused, as it could have voted; with --replace it takes its own place and is filled again"
            }
            Self::RollingRestart => "every node drains with exit code 0",
            Self::Leave { .. } => {
                "its shards are filled elsewhere, then it ends with exit code 0; as a new member it gets its share of them"
            }
            _ => "the others take over, and the node comes back",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind();
        let percent = |probability: &f64| (probability * 100.0).round();
        match self {
            Self::KillAll | Self::RollingRestart => write!(f, "{kind}"),
            Self::KillOwner { shard } => write!(f, "{kind} of shard {shard}"),
            Self::Partition { nodes } => {
                let names: Vec<String> = nodes.iter().map(|node| format!("n{node}")).collect();
                write!(f, "{kind} {} | the others", names.join(" "))
            }
            Self::PartitionOneWay { node } => write!(f, "{kind} n{node} is not heard"),
            Self::PartitionPartial { node, peer } => write!(f, "{kind} n{node} | n{peer}"),
            Self::Loss { probability } | Self::Reorder { probability } | Self::Duplicate { probability } => {
                write!(f, "{kind} {} %", percent(probability))
            }
            Self::Delay { delay_ms } => write!(f, "{kind} {delay_ms} ms"),
            Self::SlowDisk { node, delay_ms } => write!(f, "{kind} n{node} {delay_ms} ms"),
            Self::ClockJump { node, offset_ms } => write!(f, "{kind} n{node} {:+.1} s", *offset_ms as f64 / 1000.0),
            Self::RestartLoop { node, times } => write!(f, "{kind} n{node} {times} times"),
            Self::Kill { node }
            | Self::Pause { node }
            | Self::Reset { node }
            | Self::FullDisk { node }
            | Self::FailedFsync { node }
            | Self::TornWrite { node }
            | Self::FlipBytes { node }
            | Self::Wipe { node }
            | Self::Leave { node } => write!(f, "{kind} n{node}"),
        }
    }
}

/// The longest jump of a clock: answers under an idempotency key are kept for a day.
const OFFSET_MS_MAX: i64 = 600_000;
const DELAY_MAX: Duration = Duration::from_secs(10);
const TIMES_MAX: u16 = 20;

impl Wish {
    fn fits(&self, kind: Kind, ground: Ground) -> Result<(), String> {
        let given = [
            ("node", self.node.is_some()),
            ("peer", self.peer.is_some()),
            ("shard", self.shard.is_some()),
            ("probability", self.probability.is_some()),
            ("delay", self.delay.is_some()),
            ("offset", self.offset.is_some()),
            ("times", self.times.is_some()),
        ];
        if let Some((name, _)) = given.iter().find(|(name, given)| *given && !kind.parameters().contains(name)) {
            let takes = match kind.parameters() {
                [] => "it takes none".to_owned(),
                parameters => format!("it takes {}", parameters.join(", ")),
            };
            return Err(format!("`{name}` means nothing to {kind}; {takes}"));
        }
        for (name, node) in [("node", self.node), ("peer", self.peer)] {
            if let Some(node) = node.filter(|node| *node == 0 || *node > ground.nodes) {
                return Err(format!("`{name}` = {node}: the nodes are 1 to {}", ground.nodes));
            }
        }
        if self.node.is_some() && self.node == self.peer {
            return Err("`node` and `peer` are the same; name two nodes".into());
        }
        if let Some(shard) = self.shard.filter(|shard| *shard >= ground.shards) {
            return Err(format!("`shard` = {shard}: the shards are 0 to {}", ground.shards - 1));
        }
        if let Some(probability) = self.probability.filter(|p| !(*p > 0.0 && *p < 1.0)) {
            return Err(format!("`probability` = {probability}: write a number between 0 and 1, as in 0.2"));
        }
        if let Some(delay) = self.delay.filter(|delay| delay.is_zero() || *delay > DELAY_MAX) {
            return Err(format!("`delay` = {delay:?}: more than 0 and at most {DELAY_MAX:?}"));
        }
        if let Some(times) = self.times.filter(|times| *times == 0 || *times > TIMES_MAX) {
            return Err(format!("`times` = {times}: 1 to {TIMES_MAX}"));
        }
        Ok(())
    }

    fn offset_ms(&self) -> Result<Option<i64>, String> {
        let Some(text) = &self.offset else { return Ok(None) };
        let (sign, length) = match text.strip_prefix('-') {
            Some(length) => (-1, length),
            None => (1, text.strip_prefix('+').unwrap_or(text)),
        };
        let bad =
            || format!("`offset` = {text}: write a sign and a length, as in -90s, at most {} s", OFFSET_MS_MAX / 1000);
        let value = serde_json::Value::String(length.to_owned());
        let length: Duration = humantime_serde::deserialize(value).map_err(|_| bad())?;
        let offset = i64::try_from(length.as_millis()).ok().filter(|ms| *ms > 0 && *ms <= OFFSET_MS_MAX);
        offset.map(|ms| Some(sign * ms)).ok_or_else(bad)
    }
}

/// The wished one, or any; and another one.
fn two_nodes(wish: &Wish, ground: Ground, dice: &mut impl rand::Rng) -> (u16, u16) {
    let all: Vec<u16> = (1..=ground.nodes).collect();
    let any = |without: Option<u16>, dice: &mut _| {
        let left: Vec<u16> = all.iter().copied().filter(|node| Some(*node) != without).collect();
        left.choose(dice).copied().unwrap_or(1)
    };
    let drawn = any(wish.peer, dice);
    let node = wish.node.unwrap_or(drawn);
    let drawn = any(Some(node), dice);
    (node, wish.peer.unwrap_or(drawn))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{SeedableRng as _, rngs::StdRng};

    const GROUND: Ground = Ground { nodes: 3, shards: 16 };

    fn draw(kind: Kind, wish: &Wish) -> Result<Fault, String> {
        Fault::draw(kind, wish, GROUND, &mut StdRng::seed_from_u64(1))
    }

    #[test]
    fn every_kind_has_one_name_and_can_be_drawn() {
        for kind in Kind::all() {
            assert_eq!(kind.name().parse(), Ok(kind));
            let fault = draw(kind, &Wish::default()).expect("a fault");
            assert_eq!(fault.kind(), kind);
            assert!(fault.to_string().starts_with(kind.name()), "{fault}");
            assert!(fault.away(GROUND) <= GROUND.minority() || fault.spares_nobody(), "{fault}");
            let written = serde_json::to_value(&fault).expect("plain data");
            assert_eq!(written["kind"], kind.name());
        }
        assert!("murder".parse::<Kind>().is_err_and(|error| error.contains("kill-owner")));
    }

    #[test]
    fn a_wish_is_kept_and_one_that_means_nothing_is_named() {
        let wish = Wish { node: Some(2), ..Wish::default() };
        assert_eq!(draw(Kind::Pause, &wish), Ok(Fault::Pause { node: 2 }));
        assert!(draw(Kind::KillAll, &wish).is_err_and(|error| error.contains("`node` means nothing to kill-all")));
        let wish = Wish { offset: Some("-90s".into()), ..Wish::default() };
        assert!(matches!(draw(Kind::ClockJump, &wish), Ok(Fault::ClockJump { offset_ms: -90_000, .. })));
        for bad in ["", "-", "1d", "9", "-0s"] {
            let wish = Wish { offset: Some(bad.into()), ..Wish::default() };
            assert!(draw(Kind::ClockJump, &wish).is_err_and(|error| error.contains("`offset`")), "{bad}");
        }
        let wish = Wish { node: Some(4), ..Wish::default() };
        assert!(draw(Kind::Kill, &wish).is_err_and(|error| error.contains("1 to 3")));
        let wish = Wish { probability: Some(1.5), ..Wish::default() };
        assert!(draw(Kind::Loss, &wish).is_err_and(|error| error.contains("`probability`")));
    }

    #[test]
    fn a_pair_has_two_nodes_whatever_is_wished() {
        for seed in 0..50 {
            for wish in [Wish::default(), Wish { peer: Some(1), ..Wish::default() }] {
                let drawn = Fault::draw(Kind::PartitionPartial, &wish, GROUND, &mut StdRng::seed_from_u64(seed));
                assert!(matches!(drawn, Ok(Fault::PartitionPartial { node, peer }) if node < peer), "{drawn:?}");
            }
        }
    }
}
