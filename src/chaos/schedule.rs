//! When which fault happens: drawn from a seed, or as a plan file says.
//!
//! ```text
//! quiet ─▶ fault ─▶ healed, quiet ─▶ fault ─▶ healed, quiet ─▶ …
//! ```
//!
//! Every kind has its turn before one comes again. One fault at a time: what several do together is
//! for plan files to say. The same seed and arguments give the same schedule.

use super::fault::{Fault, Ground, Kind, Wish};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use serde::Serialize;
use std::time::Duration;

/// A fault at its time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Event {
    /// After the load has begun.
    #[serde(with = "humantime_serde")]
    pub at: Duration,
    #[serde(with = "humantime_serde")]
    pub lasts: Duration,
    #[serde(flatten)]
    pub fault: Fault,
}

impl Event {
    pub fn ends(&self) -> Duration {
        self.at + self.lasts
    }
}

/// The load alone, before the first fault and after the last one: a sixth of the time, at most this.
const QUIET_MAX: Duration = Duration::from_secs(3);
/// What a fault and the quiet after it take together.
const SLOT_MIN: Duration = Duration::from_secs(2);
const SLOT_MAX: Duration = Duration::from_secs(10);

/// Faults of these kinds over this time.
///
/// # Errors
/// There is not time enough for one of each.
pub fn draw(kinds: &[Kind], ground: Ground, duration: Duration, seed: u64) -> Result<Vec<Event>, String> {
    if kinds.is_empty() {
        return Ok(Vec::new());
    }
    let quiet = (duration / 6).min(QUIET_MAX);
    let window = duration - 2 * quiet;
    let count = u32::try_from(kinds.len()).unwrap_or(u32::MAX);
    let slot = (window / count).min(SLOT_MAX);
    if slot < SLOT_MIN {
        let least = SLOT_MIN * count + 2 * QUIET_MAX;
        return Err(format!(
            "{count} kinds of faults do not fit into {duration:?}; let it run for {least:?} at least, or name fewer"
        ));
    }
    let mut dice = StdRng::seed_from_u64(seed);
    let mut deck: Vec<Kind> = Vec::new();
    let mut events = Vec::new();
    for number in 0..(window.as_millis() / slot.as_millis()) as u32 {
        if deck.is_empty() {
            deck.extend_from_slice(kinds);
            deck.shuffle(&mut dice);
        }
        let Some(kind) = deck.pop() else { break };
        let fault = Fault::draw(kind, &Wish::default(), ground, &mut dice)?;
        let lasts = slot.mul_f64(dice.random_range(0.35..0.6));
        let at = quiet + slot * number + slot.mul_f64(dice.random_range(0.0..0.15));
        events.push(Event { at: whole_ms(at), lasts: whole_ms(lasts), fault });
    }
    Ok(events)
}

/// Of several faults at a time, no more nodes may be away than every shard can spare.
///
/// # Errors
/// Names the first two that are too much together.
pub fn spares_a_majority(events: &[Event], ground: Ground) -> Result<(), String> {
    for event in events.iter().filter(|event| !event.fault.spares_nobody()) {
        let others = events.iter().filter(|other| {
            !std::ptr::eq(*other, event)
                && !other.fault.spares_nobody()
                && other.fault.away(ground) > 0
                && other.at < event.ends()
                && event.at < other.ends()
                // Of a pair that overlaps, the one that begins later counts the other.
                && (other.at <= event.at)
        });
        let others: Vec<&Event> = others.collect();
        let away: u16 = others.iter().map(|other| other.fault.away(ground)).sum();
        if away > 0 && away + event.fault.away(ground) > ground.minority() && event.fault.away(ground) > 0 {
            let first = others.first().map_or(String::new(), |other| format!("`{}` at {:?}", other.fault, other.at));
            return Err(format!(
                "`{}` at {:?} begins during {first}: together they take a majority of {} nodes away; \
                 move one of them, or use kill-all to kill a majority on purpose",
                event.fault, event.at, ground.nodes
            ));
        }
    }
    Ok(())
}

fn whole_ms(duration: Duration) -> Duration {
    Duration::from_millis(duration.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUND: Ground = Ground { nodes: 3, shards: 16 };

    fn minute(kinds: &[Kind], seed: u64) -> Vec<Event> {
        draw(kinds, GROUND, Duration::from_secs(60), seed).expect("a schedule")
    }

    #[test]
    fn the_same_seed_and_arguments_give_the_same_schedule() {
        let all: Vec<Kind> = Kind::all().collect();
        assert_eq!(minute(&all, 7), minute(&all, 7));
        assert_ne!(minute(&all, 7), minute(&all, 8));
        assert_ne!(minute(&all[..3], 7), minute(&all[..4], 7));
    }

    #[test]
    fn every_kind_has_its_turn_and_quiet_lies_between_them() {
        let all: Vec<Kind> = Kind::all().collect();
        for seed in 0..50 {
            for kinds in [&all[..], &all[..3]] {
                let events = minute(kinds, seed);
                for kind in kinds {
                    assert!(events.iter().any(|event| event.fault.kind() == *kind), "{kind} with seed {seed}");
                }
                for pair in events.windows(2) {
                    assert!(pair[0].ends() + Duration::from_millis(500) < pair[1].at, "{pair:?}");
                }
                assert!(events.last().expect("some").ends() < Duration::from_secs(60));
                assert_eq!(spares_a_majority(&events, GROUND), Ok(()));
            }
        }
    }

    #[test]
    fn too_many_kinds_for_the_time_are_refused_with_the_time_that_they_need() {
        let all: Vec<Kind> = Kind::all().collect();
        let refused = draw(&all, GROUND, Duration::from_secs(20), 1).expect_err("too many");
        assert!(refused.contains("50s"), "{refused}");
        assert_eq!(draw(&[], GROUND, Duration::from_secs(1), 1), Ok(Vec::new()));
    }

    #[test]
    fn two_nodes_of_three_are_never_away_together_unless_the_fault_says_so() {
        let event = |at: u64, fault: Fault| Event { at: Duration::from_secs(at), lasts: Duration::from_secs(4), fault };
        let both = [event(1, Fault::Kill { node: 1 }), event(3, Fault::Pause { node: 2 })];
        let refused = spares_a_majority(&both, GROUND).expect_err("a majority");
        assert!(refused.contains("kill n1") && refused.contains("pause n2"), "{refused}");
        assert_eq!(spares_a_majority(&both, Ground { nodes: 5, ..GROUND }), Ok(()));
        let fine = [
            event(1, Fault::Kill { node: 1 }),
            event(2, Fault::Delay { delay_ms: 50 }),
            event(3, Fault::KillAll),
            event(5, Fault::Kill { node: 2 }),
        ];
        assert_eq!(spares_a_majority(&fine, GROUND), Ok(()));
    }
}
