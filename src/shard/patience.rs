//! How long something is tried that its receiver refuses for good.
//!
//! No quorum, a lost answer, a full queue pass by themselves and are waited for however long it
//! takes. An unknown type or a panic each time may pass too (a rollout, a mended build), but not
//! for ever: then it is given up, and becomes a dead letter.

use super::{Options, request::CommandReply};
use crate::cluster::Unavailable;
use std::time::Duration;
use tokio::time::Instant;

const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Refusals of one thing, counted by the owner that tries it: a new owner begins anew.
pub struct Patience {
    refusals_max: u32,
    lasts: Duration,
    refusals: u32,
    since: Option<Instant>,
}

impl Patience {
    pub fn new(options: &Options) -> Self {
        Self { refusals_max: options.refusals_max, lasts: options.refusals_for, refusals: 0, since: None }
    }

    /// Counts a refusal; true once it was one too many for too long.
    pub fn ends_at(&mut self, now: Instant) -> bool {
        self.refusals = self.refusals.saturating_add(1);
        let since = *self.since.get_or_insert(now);
        self.refusals >= self.refusals_max && now.duration_since(since) >= self.lasts
    }

    /// How long to wait before the next attempt.
    pub fn pause(&self) -> Duration {
        (PAUSE_MIN * (1 << self.refusals.min(10))).min(PAUSE_MAX)
    }
}

/// A refusal that another attempt will probably meet again, and its kind in metrics. Nothing
/// happened then.
pub fn refusal(reply: &CommandReply) -> Option<(&'static str, String)> {
    let CommandReply::Unavailable(unavailable) = reply else { return None };
    let kind = match unavailable {
        Unavailable::UnknownType { .. } => "unknown_type",
        Unavailable::EntityFailed { .. } => "entity_failed",
        Unavailable::Invalid { .. } => "invalid",
        Unavailable::Frozen { .. } => "frozen",
        Unavailable::NoQuorum { .. }
        | Unavailable::OutcomeUnknown { .. }
        | Unavailable::Overloaded { .. }
        | Unavailable::Restoring { .. }
        | Unavailable::ShuttingDown => return None,
    };
    Some((kind, unavailable.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entity::ShardId;

    fn patience() -> Patience {
        Patience::new(&Options { refusals_max: 3, refusals_for: Duration::from_secs(60), ..Options::default() })
    }

    #[test]
    fn both_the_number_and_the_time_must_be_exceeded() {
        let began = Instant::now();
        let mut hasty = patience();
        assert!((0..100).all(|_| !hasty.ends_at(began)), "many at once may be a rollout");
        assert!(hasty.ends_at(began + Duration::from_secs(60)));
        let mut slow = patience();
        assert!(!slow.ends_at(began));
        assert!(!slow.ends_at(began + Duration::from_secs(3600)), "two in an hour are few");
        assert!(slow.ends_at(began + Duration::from_secs(3601)));
    }

    #[test]
    fn what_passes_by_itself_is_no_refusal() {
        let shard = ShardId(1);
        let passing = [
            Unavailable::NoQuorum { shard },
            Unavailable::OutcomeUnknown { shard },
            Unavailable::Overloaded { limit: "x".into() },
            Unavailable::ShuttingDown,
            Unavailable::Restoring { shard },
        ];
        assert!(passing.into_iter().all(|why| refusal(&CommandReply::Unavailable(why)).is_none()));
        for passing in [CommandReply::Unknown, CommandReply::TryAgain, CommandReply::NotOwner { hint: None }] {
            assert_eq!(refusal(&passing), None);
        }
        let unknown = CommandReply::Unavailable(Unavailable::UnknownType { entity_type: "x".into() });
        assert_eq!(refusal(&unknown).map(|(kind, _)| kind), Some("unknown_type"));
    }
}
