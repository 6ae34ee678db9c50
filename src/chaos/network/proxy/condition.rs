//! What happens to what passes, per pair of nodes and direction.

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use std::time::Duration;
use tokio::sync::watch;

/// How long a sender of TCP waits before it sends again what was lost.
const RETRANSMISSION: Duration = Duration::from_millis(200);
/// How far a datagram that is overtaken falls behind.
const OVERTAKEN_BY: Duration = Duration::from_millis(50);

/// The state of one direction between two nodes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Condition {
    /// Nothing passes.
    pub blocked: bool,
    /// For everything; a random part of half as much comes on top.
    pub delay: Duration,
    /// Probabilities, per datagram or piece of a stream.
    pub loss: f64,
    pub reorder: f64,
    pub duplicate: f64,
}

impl Condition {
    pub fn blocked() -> Self {
        Self { blocked: true, ..Self::default() }
    }

    /// Both at once.
    fn and(self, other: Self) -> Self {
        Self {
            blocked: self.blocked || other.blocked,
            delay: self.delay + other.delay,
            loss: self.loss.max(other.loss),
            reorder: self.reorder.max(other.reorder),
            duplicate: self.duplicate.max(other.duplicate),
        }
    }
}

/// A condition for some directions, as pairs (from, to) of nodes that count from 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    pub pairs: Vec<(u16, u16)>,
    pub condition: Condition,
}

/// All directions.
#[derive(Debug, Clone)]
pub(super) struct Matrix {
    nodes: usize,
    conditions: Vec<Condition>,
    /// How often the connections of each node were reset.
    resets: Vec<u64>,
}

impl Matrix {
    pub fn new(nodes: usize) -> Self {
        Self { nodes, conditions: vec![Condition::default(); nodes * nodes], resets: vec![0; nodes] }
    }

    pub fn recompute<'a>(&mut self, changes: impl Iterator<Item = &'a Change>) {
        self.conditions.fill(Condition::default());
        for change in changes {
            for (from, to) in &change.pairs {
                let at = (usize::from(*from) - 1) * self.nodes + usize::from(*to) - 1;
                if let Some(condition) = self.conditions.get_mut(at) {
                    *condition = condition.and(change.condition);
                }
            }
        }
    }

    pub fn reset(&mut self, node: usize) {
        if let Some(count) = self.resets.get_mut(node) {
            *count += 1;
        }
    }

    fn condition(&self, from: usize, to: usize) -> Condition {
        self.conditions[from * self.nodes + to]
    }
}

/// One direction, watched.
pub(super) struct Line {
    from: usize,
    to: usize,
    matrix: watch::Receiver<Matrix>,
    dice: StdRng,
}

impl Line {
    pub fn new(from: usize, to: usize, matrix: watch::Receiver<Matrix>, seed: u64) -> Self {
        let dice = StdRng::seed_from_u64(seed ^ ((from as u64) << 32 | to as u64));
        Self { from, to, matrix, dice }
    }

    /// The same direction, watched by somebody else.
    pub fn again(&self) -> Self {
        Self::new(self.from, self.to, self.matrix.clone(), 1)
    }

    pub fn condition(&self) -> Condition {
        self.matrix.borrow().condition(self.from, self.to)
    }

    /// Waits until something passes.
    pub async fn open(&mut self) {
        let (from, to) = (self.from, self.to);
        // An error means that the network is gone, and its tasks with it.
        let _ = self.matrix.wait_for(|matrix| !matrix.condition(from, to).blocked).await;
    }

    /// Waits until the connections of one of its ends are reset.
    pub async fn reset(&mut self) {
        let (from, to) = (self.from, self.to);
        let now = |matrix: &Matrix| matrix.resets[from] + matrix.resets[to];
        let before = now(&self.matrix.borrow());
        let _ = self.matrix.wait_for(|matrix| now(matrix) != before).await;
    }

    /// How long a piece of a stream is on its way.
    pub fn stream_delay(&mut self) -> Duration {
        let condition = self.condition();
        let mut delay = self.jittered(condition.delay);
        if condition.loss > 0.0 {
            // Lost again and again, it waits twice as long each time, as TCP does.
            let mut again = RETRANSMISSION;
            while self.dice.random_bool(condition.loss.min(0.9)) && again < RETRANSMISSION * 16 {
                delay += again;
                again *= 2;
            }
        }
        delay
    }

    /// The delays of the copies of a datagram that arrive; none if it is lost.
    pub fn datagram_delays(&mut self) -> Vec<Duration> {
        let condition = self.condition();
        if condition.blocked || self.dice.random_bool(condition.loss.min(1.0)) {
            return Vec::new();
        }
        let copies = 1 + usize::from(self.dice.random_bool(condition.duplicate.min(1.0)));
        let mut delays = Vec::with_capacity(copies);
        for _ in 0..copies {
            let late = if self.dice.random_bool(condition.reorder.min(1.0)) {
                OVERTAKEN_BY.mul_f64(self.dice.random_range(0.2..=1.0))
            } else {
                Duration::ZERO
            };
            delays.push(self.jittered(condition.delay) + late);
        }
        delays
    }

    fn jittered(&mut self, delay: Duration) -> Duration {
        if delay.is_zero() { delay } else { delay + delay.mul_f64(self.dice.random_range(0.0..=0.5)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(condition: Condition) -> Line {
        let mut matrix = Matrix::new(3);
        matrix.recompute([&Change { pairs: vec![(1, 2)], condition }].into_iter());
        Line::new(0, 1, watch::Sender::new(matrix).subscribe(), 1)
    }

    #[test]
    fn changes_add_up_and_leave_other_directions_alone() {
        let slow = Condition { delay: Duration::from_millis(10), loss: 0.1, ..Condition::default() };
        let changes = [
            Change { pairs: vec![(1, 2), (2, 1)], condition: slow },
            Change { pairs: vec![(1, 2)], condition: Condition { loss: 0.3, ..Condition::blocked() } },
        ];
        let mut matrix = Matrix::new(3);
        matrix.recompute(changes.iter());
        assert_eq!(matrix.condition(0, 1), Condition { blocked: true, loss: 0.3, ..slow });
        assert_eq!(matrix.condition(1, 0), slow);
        assert_eq!(matrix.condition(0, 2), Condition::default());
        matrix.recompute(changes[..1].iter());
        assert_eq!(matrix.condition(0, 1), slow);
    }

    #[test]
    fn datagrams_meet_the_fate_that_was_asked_for() {
        assert!(line(Condition::blocked()).datagram_delays().is_empty());
        assert_eq!(line(Condition::default()).datagram_delays(), [Duration::ZERO]);
        let fates = |condition: Condition| {
            let mut line = line(condition);
            (0..1000).map(|_| line.datagram_delays()).collect::<Vec<_>>()
        };
        let lost = fates(Condition { loss: 0.3, ..Condition::default() }).iter().filter(|fate| fate.is_empty()).count();
        assert!((200..400).contains(&lost), "{lost}");
        let doubled =
            fates(Condition { duplicate: 0.3, ..Condition::default() }).iter().filter(|fate| fate.len() == 2).count();
        assert!((200..400).contains(&doubled), "{doubled}");
        let late = fates(Condition { reorder: 0.3, ..Condition::default() });
        assert!((200..400).contains(&late.iter().filter(|fate| fate[0] > Duration::ZERO).count()));
    }

    #[test]
    fn a_stream_is_delayed_where_datagrams_would_be_lost() {
        let mut lossy = line(Condition { loss: 0.3, ..Condition::default() });
        let delayed = (0..1000).filter(|_| lossy.stream_delay() >= RETRANSMISSION).count();
        assert!((200..400).contains(&delayed), "{delayed}");
        let delay = Duration::from_millis(40);
        let mut slow = line(Condition { delay, ..Condition::default() });
        assert!((0..100).all(|_| (delay..=delay * 3 / 2).contains(&slow.stream_delay())));
    }
}
