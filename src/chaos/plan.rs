//! What a run is made of: from the command line, a plan file (TOML), and defaults.

use super::{
    fault::{Fault, Ground, Kind, Wish},
    schedule::{self, Event},
};
use rand::{SeedableRng as _, rngs::StdRng};
use serde::{Deserialize, Serialize};
use std::{path::Path, time::Duration};

const NODES: std::ops::RangeInclusive<u16> = 3..=9;
const CLIENTS_MAX: usize = 1000;
const DURATION: std::ops::RangeInclusive<Duration> = Duration::from_secs(5)..=Duration::from_secs(24 * 3600);
/// Of the clusters that are started here: the product's default.
const SHARDS: u16 = 16;

/// What somebody wants, on the command line or in a file. What is left out comes from elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Wanted {
    pub nodes: Option<u16>,
    #[serde(with = "humantime_serde::option")]
    pub duration: Option<Duration>,
    pub clients: Option<usize>,
    pub seed: Option<u64>,
    /// Kinds of faults that the seed makes a schedule of.
    pub faults: Option<Vec<Kind>>,
    /// How long a fault may take to be gone once it is healed, and the cluster to be quiet at the end.
    #[serde(with = "humantime_serde::option")]
    pub recover_within: Option<Duration>,
    /// A schedule of one's own, instead of `faults`.
    pub fault: Vec<WantedEvent>,
}

/// A fault in a plan file: when, how long, which, and what a `Wish` may say.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WantedEvent {
    #[serde(with = "humantime_serde")]
    pub at: Duration,
    #[serde(with = "humantime_serde")]
    pub lasts: Duration,
    pub kind: Kind,
    // Not a flattened `Wish`: serde would let unknown keys pass.
    node: Option<u16>,
    peer: Option<u16>,
    shard: Option<u16>,
    probability: Option<f64>,
    #[serde(default, with = "humantime_serde::option")]
    delay: Option<Duration>,
    offset: Option<String>,
    times: Option<u16>,
}

impl WantedEvent {
    fn wish(&self) -> Wish {
        Wish {
            node: self.node,
            peer: self.peer,
            shard: self.shard,
            probability: self.probability,
            delay: self.delay,
            offset: self.offset.clone(),
            times: self.times,
        }
    }
}

/// Everything decided.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    pub nodes: u16,
    pub shards: u16,
    #[serde(with = "humantime_serde")]
    pub duration: Duration,
    pub clients: usize,
    pub seed: u64,
    #[serde(with = "humantime_serde")]
    pub recover_within: Duration,
    pub events: Vec<Event>,
}

impl Wanted {
    /// Reads a plan file.
    ///
    /// # Errors
    /// One line that names the file, the place and the fix.
    pub fn read(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let text = std::fs::read_to_string(path).map_err(|error| format!("--plan {shown}: {error}"))?;
        toml::from_str(&text).map_err(|error| {
            let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            format!("--plan {shown}, line {line}: {}", error.message().replace('\n', " "))
        })
    }

    /// What is given here counts; what is not, is taken from `other`.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            nodes: self.nodes.or(other.nodes),
            duration: self.duration.or(other.duration),
            clients: self.clients.or(other.clients),
            seed: self.seed.or(other.seed),
            faults: self.faults.or(other.faults),
            recover_within: self.recover_within.or(other.recover_within),
            fault: if self.fault.is_empty() { other.fault } else { self.fault },
        }
    }

    /// Decides the rest; `seed` is used if none is wanted.
    ///
    /// # Errors
    /// One line that says what cannot be, and the fix.
    pub fn decide(self, seed: u64) -> Result<Plan, String> {
        let nodes = within("nodes", self.nodes.unwrap_or(3), &NODES)?;
        let duration = within("duration", self.duration.unwrap_or(Duration::from_secs(60)), &DURATION)?;
        let clients = within("clients", self.clients.unwrap_or(16), &(1..=CLIENTS_MAX))?;
        let seed = self.seed.unwrap_or(seed);
        let ground = Ground { nodes, shards: SHARDS };
        let events = match (self.faults, self.fault.is_empty()) {
            (Some(_), false) => {
                return Err("`faults` and a schedule of `[[fault]]` are both given; leave one of them out".into());
            }
            (None, false) => written_out(&self.fault, ground, duration, seed)?,
            (kinds, true) => {
                let kinds = kinds.unwrap_or_else(|| vec![Kind::Kill, Kind::Pause, Kind::Partition]);
                schedule::draw(&kinds, ground, duration, seed)?
            }
        };
        let recover_within = self.recover_within.unwrap_or(Duration::from_secs(60));
        Ok(Plan { nodes, shards: SHARDS, duration, clients, seed, recover_within, events })
    }
}

/// The schedule of a plan file, with what it left open decided by the seed.
fn written_out(wanted: &[WantedEvent], ground: Ground, duration: Duration, seed: u64) -> Result<Vec<Event>, String> {
    let mut dice = StdRng::seed_from_u64(seed);
    let mut events = Vec::new();
    for (number, wanted) in wanted.iter().enumerate() {
        let here = |error: String| format!("fault {} ({}): {error}", number + 1, wanted.kind);
        let fault = Fault::draw(wanted.kind, &wanted.wish(), ground, &mut dice).map_err(here)?;
        let event = Event { at: wanted.at, lasts: wanted.lasts, fault };
        if event.ends() > duration {
            return Err(here(format!("it ends at {:?}, after the run, which takes {duration:?}", event.ends())));
        }
        events.push(event);
    }
    events.sort_by_key(|event| event.at);
    schedule::spares_a_majority(&events, ground)?;
    Ok(events)
}

fn within<T: PartialOrd + std::fmt::Debug>(
    name: &str,
    value: T,
    range: &std::ops::RangeInclusive<T>,
) -> Result<T, String> {
    if range.contains(&value) {
        return Ok(value);
    }
    Err(format!("`{name}` = {value:?}: between {:?} and {:?}", range.start(), range.end()))
}

impl Plan {
    pub fn ground(&self) -> Ground {
        Ground { nodes: self.nodes, shards: self.shards }
    }

    /// For people, before anything happens.
    pub fn render(&self) -> String {
        let mut text = format!(
            "seed {}: {} nodes, {} copies of each of {} shards, {} clients, {:?}\n",
            self.seed,
            self.nodes,
            self.ground().replication_factor(),
            self.shards,
            self.clients,
            self.duration
        );
        for event in &self.events {
            let (at, lasts) = (event.at.as_secs_f64(), event.lasts.as_secs_f64());
            text.push_str(&format!("  {at:>7.1} s  for {lasts:>5.1} s  {}\n", event.fault));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn read(text: &str) -> Result<Plan, String> {
        let wanted: Wanted = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        wanted.decide(1)
    }

    #[test]
    fn every_plan_in_cluster_config_can_be_carried_out() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster-config/chaos");
        let entries = std::fs::read_dir(&dir).expect("the plans").map(|entry| entry.expect("an entry").path());
        let files: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|e| e == "toml")).collect();
        assert!(files.len() >= 4, "{files:?}");
        for file in files {
            let plan = Wanted::read(&file).and_then(|wanted| wanted.decide(1));
            let plan = plan.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            assert!(!plan.events.is_empty(), "{}", file.display());
        }
    }

    #[test]
    fn the_command_line_beats_the_file_which_beats_the_defaults() {
        let file: Wanted = toml::from_str("nodes = 5\nduration = \"30s\"\nfaults = [\"kill\"]").expect("a plan");
        let flags = Wanted { duration: Some(Duration::from_secs(20)), ..Wanted::default() };
        let plan = flags.or(file).decide(9).expect("a plan");
        assert_eq!((plan.nodes, plan.duration, plan.seed), (5, Duration::from_secs(20), 9));
        assert!(plan.events.iter().all(|event| event.fault.kind() == Kind::Kill) && !plan.events.is_empty());
        let plain = Wanted::default().decide(9).expect("a plan");
        assert_eq!((plain.nodes, plain.clients, plain.duration), (3, 16, Duration::from_secs(60)));
    }

    #[test]
    fn a_schedule_of_ones_own_is_taken_as_it_is_and_filled_up_by_the_seed() {
        let text = "
            seed = 4
            duration = \"20s\"
            [[fault]]
            at = \"9s\"
            lasts = \"3s\"
            kind = \"kill-all\"
            [[fault]]
            at = \"2s\"
            lasts = \"3s\"
            kind = \"pause\"
        ";
        let plan = read(text).expect("a plan");
        assert_eq!(plan, read(text).expect("the same again"));
        let kinds: Vec<Kind> = plan.events.iter().map(|event| event.fault.kind()).collect();
        assert_eq!(kinds, [Kind::Pause, Kind::KillAll]);
        assert!(plan.render().contains("kill-all"));
    }

    #[test]
    fn what_cannot_be_is_said_with_its_place() {
        let event = |more: &str| format!("duration = \"10s\"\n[[fault]]\nat = \"1s\"\nlasts = \"2s\"\n{more}");
        let cases = [
            ("nodes = 2".to_owned(), "`nodes` = 2"),
            ("clients = 0".to_owned(), "`clients`"),
            ("duration = \"1s\"".to_owned(), "`duration`"),
            ("noodles = 3".to_owned(), "noodles"),
            ("faults = [\"murder\"]".to_owned(), "`murder` is no fault"),
            (format!("faults = [\"kill\"]\n{}", event("kind = \"kill\"")), "both given"),
            (event("kind = \"kill\"\nshard = 1"), "fault 1 (kill): `shard` means nothing"),
            (event("kind = \"kill\"\nnod = 1"), "nod"),
            (event("kind = \"kill\"").replace("\"2s\"", "\"20s\""), "after the run"),
        ];
        for (text, expected) in cases {
            let error = read(&text).expect_err(&text);
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
