//! The times that govern gossip.

use super::{handle::Error, wire};
use serde::{Deserialize, Serialize};
use std::{
    num::{NonZeroU8, NonZeroUsize},
    time::Duration,
};

/// How often one piece of news is passed on by each member.
const TRANSMISSIONS_MAX: u8 = 10;
/// Members asked to probe on one's behalf, and told at once of news.
const FANOUT: usize = 3;

/// The defaults hold 50 nodes together at 10 % packet loss and through stalls of 4 s without a
/// false alarm, and agree on a death in about 8 s. Failover does not wait for that: Raft does it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// How often a member is picked and probed.
    #[serde(with = "humantime_serde")]
    pub probe_period: Duration,
    /// How long a probe may take before others are asked to try. At most half of `probe_period`.
    #[serde(with = "humantime_serde")]
    pub probe_timeout: Duration,
    /// How long a suspect has to speak up before it is declared down.
    #[serde(with = "humantime_serde")]
    pub suspicion_timeout: Duration,
    /// How often news is passed on.
    #[serde(with = "humantime_serde")]
    pub gossip_period: Duration,
    /// How often full lists are exchanged with a member, and dead ones are asked back.
    #[serde(with = "humantime_serde")]
    pub exchange_period: Duration,
    /// How often seeds and remembered peers that are not members are called.
    #[serde(with = "humantime_serde")]
    pub announce_period: Duration,
    /// The least time between two changes of one's load figures.
    #[serde(with = "humantime_serde")]
    pub load_period: Duration,
    /// How long a dead member is remembered.
    #[serde(with = "humantime_serde")]
    pub forget_after: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            probe_period: Duration::from_secs(1),
            probe_timeout: Duration::from_millis(300),
            suspicion_timeout: Duration::from_secs(5),
            gossip_period: Duration::from_millis(200),
            exchange_period: Duration::from_secs(10),
            announce_period: Duration::from_secs(30),
            load_period: Duration::from_secs(5),
            forget_after: Duration::from_secs(24 * 3600),
        }
    }
}

impl Options {
    /// Refuses times that cannot work together.
    pub fn validate(&self) -> Result<(), Error> {
        let shown = |d: Duration| humantime_serde::re::humantime::format_duration(d).to_string();
        for (key, value) in self.periods() {
            if value < Duration::from_millis(1) {
                return Err(Error::Options(format!("membership.{key} ({}) is below 1ms", shown(value))));
            }
        }
        let pairs = [
            ("probe_timeout", self.probe_timeout * 2, "twice ", "probe_period", self.probe_period),
            ("probe_period", self.probe_period, "", "suspicion_timeout", self.suspicion_timeout),
            ("suspicion_timeout", self.suspicion_timeout, "", "forget_after", self.forget_after),
        ];
        for (low_key, low, factor, high_key, high) in pairs {
            if low > high {
                let (low, high) = (shown(low), shown(high));
                return Err(Error::Options(format!(
                    "{factor}membership.{low_key} ({low}) must not exceed membership.{high_key} ({high})"
                )));
            }
        }
        Ok(())
    }

    fn periods(&self) -> [(&'static str, Duration); 8] {
        [
            ("probe_period", self.probe_period),
            ("probe_timeout", self.probe_timeout),
            ("suspicion_timeout", self.suspicion_timeout),
            ("gossip_period", self.gossip_period),
            ("exchange_period", self.exchange_period),
            ("announce_period", self.announce_period),
            ("load_period", self.load_period),
            ("forget_after", self.forget_after),
        ]
    }

    pub(super) fn foca(&self) -> foca::Config {
        let fanout = NonZeroUsize::new(FANOUT).unwrap_or(NonZeroUsize::MIN);
        let every = |frequency, members| {
            let num_members = NonZeroUsize::new(members).unwrap_or(NonZeroUsize::MIN);
            Some(foca::PeriodicParams { frequency, num_members })
        };
        foca::Config {
            probe_period: self.probe_period,
            probe_rtt: self.probe_timeout,
            num_indirect_probes: fanout,
            max_transmissions: NonZeroU8::new(TRANSMISSIONS_MAX).unwrap_or(NonZeroU8::MIN),
            suspect_to_down_after: self.suspicion_timeout,
            remove_down_after: Some(self.forget_after),
            max_packet_size: NonZeroUsize::new(wire::SWIM_BYTES_MAX).unwrap_or(NonZeroUsize::MIN),
            notify_down_members: true,
            periodic_announce: every(self.exchange_period, 1),
            periodic_announce_to_down_members: every(self.exchange_period, 2),
            periodic_gossip: every(self.gossip_period, FANOUT),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_as_people_write_them() {
        let options: Options = toml::from_str("probe_period = '2s'\nprobe_timeout = '750ms'").expect("valid");
        assert_eq!(options.probe_timeout, Duration::from_millis(750));
        assert_eq!(options.announce_period, Options::default().announce_period);
        assert!(options.validate().is_ok());
        assert!(toml::from_str::<Options>("probe_periode = '2s'").is_err());
    }

    #[test]
    fn times_that_disagree_are_refused_by_both_names() {
        let options = Options { probe_timeout: Duration::from_millis(600), ..Options::default() };
        let text = options.validate().expect_err("twice 600 ms is above 1 s").to_string();
        assert!(text.contains("probe_timeout") && text.contains("probe_period"), "{text}");
        let options = Options { gossip_period: Duration::ZERO, ..Options::default() };
        let text = options.validate().expect_err("zero").to_string();
        assert!(text.contains("gossip_period"), "{text}");
    }
}
