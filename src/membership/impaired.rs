//! Packets that are late, or never come: what the node was told to do to its gossip.
//!
//! Whom a packet is from or for is known by the record of the node: an announcement to a seed that
//! has not answered yet is for nobody in particular. Duplicates are made of what is sent only; of
//! what comes in the seal would throw the second copy away.

use super::{Engine, Packet};
use crate::impairment::{Condition, Direction, Impairments};
use std::{cmp::Ordering, collections::BinaryHeap, sync::Arc};
use tokio::time::Instant;

/// Packets on their way; one more is lost, as in a router.
const LATE_MAX: usize = 4096;

/// A packet on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Late {
    /// Sealed.
    Outgoing { to: Arc<str>, to_all: bool, bytes: Vec<u8> },
    /// Opened.
    Incoming(Vec<u8>),
}

/// In the order in which they arrive; the number keeps those of one moment in order.
struct Waiting {
    due: Instant,
    number: u64,
    packet: Late,
}

pub(super) struct Lane {
    impairments: Impairments,
    waiting: BinaryHeap<Waiting>,
    number: u64,
}

impl Lane {
    pub fn new(impairments: Impairments) -> Self {
        Self { impairments, waiting: BinaryHeap::new(), number: 0 }
    }

    /// Whether a packet that came in is to be taken in now. If not, it comes later or never.
    pub fn takes_in(&mut self, engine: &Engine, plain: &[u8]) -> bool {
        if self.impairments.is_idle() {
            return true;
        }
        let condition = self.impairments.condition(engine.sender(plain).as_deref(), Direction::Incoming);
        let condition = Condition { duplicate: 0.0, ..condition };
        self.passes(condition, || Late::Incoming(plain.to_vec()))
    }

    /// Whether a packet is to be sent now. If not, it is sent later or never.
    pub fn sends(&mut self, engine: &Engine, packet: &Packet, sealed: &[u8]) -> bool {
        if self.impairments.is_idle() {
            return true;
        }
        let condition = self.impairments.condition(engine.name_at(&packet.to).as_deref(), Direction::Outgoing);
        let (to, to_all) = (packet.to.clone(), packet.to_all);
        self.passes(condition, || Late::Outgoing { to: to.clone(), to_all, bytes: sealed.to_vec() })
    }

    fn passes(&mut self, condition: Condition, copy: impl Fn() -> Late) -> bool {
        if condition.is_clear() {
            return true;
        }
        let now = Instant::now();
        for delay in condition.datagram_delays() {
            if self.waiting.len() < LATE_MAX {
                self.number += 1;
                self.waiting.push(Waiting { due: now + delay, number: self.number, packet: copy() });
            }
        }
        false
    }

    /// When the next one is due.
    pub fn next(&self) -> Option<Instant> {
        self.waiting.peek().map(|next| next.due)
    }

    /// Those that are due.
    pub fn arrived(&mut self) -> Vec<Late> {
        if self.waiting.is_empty() {
            return Vec::new();
        }
        let now = Instant::now();
        let mut arrived = Vec::new();
        while self.waiting.peek().is_some_and(|next| next.due <= now) {
            arrived.extend(self.waiting.pop().map(|next| next.packet));
        }
        arrived
    }
}

impl Ord for Waiting {
    /// The earliest is the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.due, other.number).cmp(&(self.due, self.number))
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Waiting {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn lane() -> Lane {
        Lane::new(Impairments::armed())
    }

    fn packet(number: u8) -> Late {
        Late::Incoming(vec![number])
    }

    #[tokio::test]
    async fn what_is_late_arrives_in_the_order_of_its_time() {
        let mut lane = lane();
        let delayed = |ms| Condition { delay: Duration::from_millis(ms), ..Condition::default() };
        assert!(lane.passes(Condition::default(), || packet(0)), "nothing is in its way");
        assert!(!lane.passes(delayed(100), || packet(1)), "it comes later");
        assert!(!lane.passes(delayed(10), || packet(2)));
        assert!(!lane.passes(Condition::cut(), || packet(3)));
        let mut arrived = Vec::new();
        while let Some(due) = lane.next() {
            tokio::time::sleep_until(due).await;
            arrived.extend(lane.arrived());
        }
        assert_eq!(arrived, [packet(2), packet(1)]);
        assert_eq!(lane.next(), None);
    }

    #[tokio::test]
    async fn what_is_on_its_way_is_bounded() {
        let mut lane = lane();
        let doubled = Condition { duplicate: 1.0, ..Condition::default() };
        for _ in 0..LATE_MAX {
            lane.passes(doubled, || packet(1));
        }
        assert_eq!(lane.arrived().len(), LATE_MAX);
    }
}
