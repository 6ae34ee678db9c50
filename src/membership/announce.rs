//! Whom to call when one looks for a cluster, and when.

use super::identity::ADDRESS_BYTES_MAX;
use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

/// The most remembered peers; the longest-remembered gives way.
pub(super) const REMEMBERED_MAX: usize = 256;
/// The wait after the first call that nobody answered; doubles with each further one.
const BACKOFF_MIN: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Seeds and remembered peers, and the pace at which they are called.
#[derive(Debug)]
pub(super) struct Announcer {
    me: Arc<str>,
    seeds: Vec<Arc<str>>,
    remembered: VecDeque<Arc<str>>,
    period: Duration,
    backoff: Duration,
}

impl Announcer {
    pub fn new(me: Arc<str>, seeds: Vec<String>, period: Duration) -> Self {
        let seeds = seeds.into_iter().map(Arc::from).collect();
        Self { me, seeds, remembered: VecDeque::new(), period, backoff: BACKOFF_MIN.min(period) }
    }

    /// Adds addresses (`host:port`) to those called; none that is too long to be one.
    pub fn remember(&mut self, addresses: impl IntoIterator<Item = String>) {
        for address in addresses.into_iter().filter(|address| address.len() <= ADDRESS_BYTES_MAX) {
            if self.seeds.iter().chain(&self.remembered).any(|known| **known == *address) {
                continue;
            }
            if self.remembered.len() == REMEMBERED_MAX {
                self.remembered.pop_front();
            }
            self.remembered.push_back(address.into());
        }
    }

    /// Whom to call now: everybody but this node and those who are members already.
    pub fn targets(&self, members: &BTreeSet<Arc<str>>) -> Vec<Arc<str>> {
        let all = self.seeds.iter().chain(&self.remembered);
        let wanted = all.filter(|address| **address != self.me && !members.contains(*address));
        wanted.cloned().collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// How long to wait after a call, before jitter.
    pub fn next_wait(&mut self, alone: bool) -> Duration {
        if !alone {
            self.backoff = BACKOFF_MIN.min(self.period);
            return self.period;
        }
        let wait = self.backoff;
        self.backoff = (wait * 2).min(BACKOFF_MAX).min(self.period);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announcer(seeds: &[&str]) -> Announcer {
        let seeds = seeds.iter().map(ToString::to_string).collect();
        Announcer::new("me:1".into(), seeds, Duration::from_secs(30))
    }

    #[test]
    fn neither_members_nor_oneself_are_called_and_nobody_twice() {
        let mut announcer = announcer(&["a:1", "me:1", "b:1"]);
        announcer.remember(["c:1".into(), "a:1".into(), "c:1".into()]);
        let members = BTreeSet::from(["b:1".into()]);
        assert_eq!(announcer.targets(&members), ["a:1".into(), "c:1".into()]);
    }

    #[test]
    fn the_longest_remembered_gives_way() {
        let mut announcer = announcer(&[]);
        announcer.remember((0..=REMEMBERED_MAX).map(|i| format!("n{i}:1")));
        let targets = announcer.targets(&BTreeSet::new());
        assert_eq!(targets.len(), REMEMBERED_MAX);
        assert!(!targets.contains(&"n0:1".into()));
    }

    #[test]
    fn calls_come_quickly_until_somebody_answers() {
        let mut announcer = announcer(&["a:1"]);
        let waits: Vec<_> = (0..7).map(|_| announcer.next_wait(true).as_millis()).collect();
        assert_eq!(waits, [250, 500, 1000, 2000, 4000, 5000, 5000]);
        assert_eq!(announcer.next_wait(false), Duration::from_secs(30));
        assert_eq!(announcer.next_wait(true), BACKOFF_MIN);
    }
}
