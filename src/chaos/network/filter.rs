//! Packets that the kernel drops: one nft table in the run's own network namespace.
//!
//! Rules name pairs of addresses, so that each direction of each pair of nodes is dropped alone, TCP
//! and UDP alike. They are written in the input hook: there a packet is gone without anybody being
//! told, as on a broken path (in the output hook its sender would get an error). Of node *i* and
//! node *j* three pairs make one direction: with each other, and through the proxy of either end.
//!
//! ```text
//! i ─▶ j:  127.0.1.i ─▶ 127.0.1.j     linked with each other
//!          127.0.1.i ─▶ 127.0.2.j     what i sends on a connection that it made
//!          127.0.2.i ─▶ 127.0.1.j     … and on one that j made
//! ```
//!
//! Every change writes all rules anew, in one transaction.

use super::{Change, Place};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
    process::Stdio,
};
use tokio::{io::AsyncWriteExt as _, process::Command, sync::Mutex};

/// Also the mark by which it would be found, were it ever left behind.
const TABLE: &str = "inet quorate_chaos";
const CHAIN: &str = "between_nodes";
const COUNTER: &str = "dropped";

pub(super) struct Filter {
    nft: PathBuf,
    places: Vec<Place>,
    /// Held while nft runs, so that the last change is the one in force.
    changes: Mutex<BTreeMap<u64, Change>>,
}

impl Filter {
    /// Nothing is dropped yet.
    pub async fn start(nft: &Path, places: &[Place]) -> Result<Self, String> {
        let filter = Self { nft: nft.to_owned(), places: places.to_vec(), changes: Mutex::default() };
        filter.load(&BTreeMap::new()).await?;
        Ok(filter)
    }

    pub async fn apply(&self, number: u64, change: Change) -> Result<(), String> {
        self.change(|changes| {
            changes.insert(number, change);
        })
        .await
    }

    pub async fn restore(&self, number: u64) -> Result<(), String> {
        self.change(|changes| {
            changes.remove(&number);
        })
        .await
    }

    pub async fn restore_all(&self) -> Result<(), String> {
        self.change(BTreeMap::clear).await
    }

    /// What nft did not take is not in force, and is not remembered as if it were.
    async fn change(&self, change: impl FnOnce(&mut BTreeMap<u64, Change>)) -> Result<(), String> {
        let mut changes = self.changes.lock().await;
        let mut changed = changes.clone();
        change(&mut changed);
        if changed != *changes {
            self.load(&changed).await?;
            *changes = changed;
        }
        Ok(())
    }

    /// Since the beginning.
    pub async fn packets_dropped(&self) -> Result<u64, String> {
        let listed = self.run(&["list", "counter", "inet", "quorate_chaos", COUNTER], None).await?;
        let mut words = listed.split_whitespace().skip_while(|word| *word != "packets").skip(1);
        words.next().and_then(|count| count.parse().ok()).ok_or_else(|| format!("nft lists no counter: {listed}"))
    }

    async fn load(&self, changes: &BTreeMap<u64, Change>) -> Result<(), String> {
        self.run(&["-f", "-"], Some(script(&self.places, changes.values()))).await.map(drop)
    }

    async fn run(&self, arguments: &[&str], input: Option<String>) -> Result<String, String> {
        let failed = |error: std::io::Error| format!("{}: {error}", self.nft.display());
        let mut command = Command::new(&self.nft);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(failed)?;
        if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
            stdin.write_all(input.as_bytes()).await.map_err(failed)?;
        }
        let output = child.wait_with_output().await.map_err(failed)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("nft: {}", said.lines().next().unwrap_or("it says nothing")));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// What makes nft drop exactly what these changes say.
pub(super) fn script<'a>(places: &[Place], changes: impl Iterator<Item = &'a Change>) -> String {
    let mut text = format!(
        "table {TABLE} {{\n  counter {COUNTER} {{ }}\n  chain {CHAIN} {{ type filter hook input priority 0; policy accept; }}\n}}\n\
         flush chain {TABLE} {CHAIN}\n"
    );
    for change in changes {
        let addresses = addresses(places, &change.pairs);
        if addresses.is_empty() {
            continue;
        }
        let mut rule = |odds: &str| {
            let _ = writeln!(
                text,
                "add rule {TABLE} {CHAIN} ip saddr . ip daddr {{ {addresses} }} {odds}counter name {COUNTER} drop"
            );
        };
        if change.condition.blocked {
            rule("");
        } else if change.condition.loss > 0.0 {
            let of_ten_thousand = (change.condition.loss.min(1.0) * 10_000.0).round() as u32;
            rule(&format!("numgen random mod 10000 < {} ", of_ten_thousand.max(1)));
        }
    }
    text
}

fn addresses(places: &[Place], pairs: &[(u16, u16)]) -> String {
    let place = |node: u16| places.get(usize::from(node).checked_sub(1)?);
    let both = |(from, to): &(u16, u16)| Some((place(*from)?, place(*to)?));
    let listed = pairs.iter().filter_map(both).flat_map(|(from, to)| {
        let (from_listen, from_proxied) = (from.listen.ip(), from.proxied.ip());
        let (to_listen, to_proxied) = (to.listen.ip(), to.proxied.ip());
        [(from_listen, to_listen), (from_listen, to_proxied), (from_proxied, to_listen)]
    });
    listed.map(|(from, to)| format!("{from} . {to}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::network::Condition;
    use std::net::{Ipv4Addr, SocketAddrV4};

    fn places() -> Vec<Place> {
        let address = |role, node| SocketAddrV4::new(Ipv4Addr::new(127, 0, role, node), 7000);
        (1..=3).map(|node| Place { listen: address(1, node), proxied: address(2, node) }).collect()
    }

    fn rules(changes: &[Change]) -> Vec<String> {
        let text = script(&places(), changes.iter());
        text.lines().filter(|line| line.starts_with("add rule")).map(str::to_owned).collect()
    }

    #[test]
    fn a_direction_is_dropped_on_each_of_its_ways_and_no_other_is() {
        let rules = rules(&[Change { pairs: vec![(1, 3)], condition: Condition::blocked() }]);
        let expected = "add rule inet quorate_chaos between_nodes ip saddr . ip daddr { 127.0.1.1 . 127.0.1.3, \
                        127.0.1.1 . 127.0.2.3, 127.0.2.1 . 127.0.1.3 } counter name dropped drop";
        assert_eq!(rules, [expected]);
    }

    #[test]
    fn a_part_is_lost_where_a_part_is_to_be_lost() {
        let lossy = Condition { loss: 0.15, ..Condition::default() };
        let rules = rules(&[
            Change { pairs: vec![(1, 2)], condition: lossy },
            Change { pairs: vec![(2, 1)], condition: Condition { loss: 0.000_001, ..lossy } },
            // Nothing of it is for nft.
            Change { pairs: vec![(2, 1)], condition: Condition::default() },
        ]);
        assert_eq!(rules.len(), 2);
        assert!(rules[0].contains("} numgen random mod 10000 < 1500 counter"), "{}", rules[0]);
        assert!(rules[1].contains("< 1 counter"), "{}", rules[1]);
    }

    #[test]
    fn without_changes_and_with_nodes_that_are_not_there_nothing_is_dropped() {
        assert!(rules(&[]).is_empty());
        assert!(rules(&[Change { pairs: vec![(0, 1), (1, 9)], condition: Condition::blocked() }]).is_empty());
        assert!(script(&places(), [].iter()).contains("flush chain inet quorate_chaos between_nodes"));
    }
}
