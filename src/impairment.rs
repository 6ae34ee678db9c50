//! What a node does on purpose to what it says to its peers and hears from them.
//!
//! [`Impairments`] is a handle that links and gossip of one node share, as
//! [`storage::Faults`](crate::storage::Faults) is for its disk: a node that was not started for faults
//! gets [`Impairments::none`], which is a `None` to look at. What is in force is replaced as a whole;
//! whoever asked for it sees to it that it ends.
//!
//! Peers are meant by their names, which are kept across restarts. Of a stream nothing can be lost
//! that its ends would not notice: there loss is the delay of a retransmission, and a cut is silence.

use rand::RngExt as _;
use std::{sync::Arc, time::Duration};
use tokio::{sync::watch, time::timeout};

/// How long a sender of TCP waits before it sends again what was lost.
const RETRANSMISSION: Duration = Duration::from_millis(200);
/// Lost again and again, a piece waits twice as long each time, up to so often.
const RETRANSMISSIONS_MAX: u32 = 4;
/// How far a datagram that is overtaken falls behind.
const OVERTAKEN_BY: Duration = Duration::from_millis(50);

/// Seen from the node that does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Outgoing,
    Incoming,
    Both,
}

/// What happens to what passes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Condition {
    /// Nothing passes.
    pub cut: bool,
    /// For everything; a random part of half as much comes on top.
    pub delay: Duration,
    /// Probabilities, per datagram or piece of a stream.
    pub loss: f64,
    /// Of datagrams only, as the next one.
    pub reorder: f64,
    pub duplicate: f64,
}

/// A condition for some directions.
#[derive(Debug, Clone, PartialEq)]
pub struct Impairment {
    /// By name; `None`: everyone else.
    pub peers: Option<Vec<String>>,
    pub direction: Direction,
    pub condition: Condition,
}

impl Condition {
    pub fn cut() -> Self {
        Self { cut: true, ..Self::default() }
    }

    pub fn is_clear(&self) -> bool {
        *self == Self::default()
    }

    /// Both at once.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            cut: self.cut || other.cut,
            delay: self.delay + other.delay,
            loss: self.loss.max(other.loss),
            reorder: self.reorder.max(other.reorder),
            duplicate: self.duplicate.max(other.duplicate),
        }
    }

    /// How long a piece of a stream is on its way.
    pub fn stream_delay(&self) -> Duration {
        let mut delay = self.jittered();
        let mut again = RETRANSMISSION;
        for _ in 0..RETRANSMISSIONS_MAX {
            if !happens(self.loss) {
                break;
            }
            delay += again;
            again *= 2;
        }
        delay
    }

    /// The delays of the copies of a datagram that arrive; none if it is lost.
    pub fn datagram_delays(&self) -> Vec<Duration> {
        if self.cut || happens(self.loss) {
            return Vec::new();
        }
        let copies = 1 + usize::from(happens(self.duplicate));
        let late = || if happens(self.reorder) { OVERTAKEN_BY.mul_f64(random(0.2)) } else { Duration::ZERO };
        (0..copies).map(|_| self.jittered() + late()).collect()
    }

    fn jittered(&self) -> Duration {
        if self.delay.is_zero() { self.delay } else { self.delay.mul_f64(1.0 + random(0.0) / 2.0) }
    }
}

fn happens(probability: f64) -> bool {
    probability > 0.0 && rand::rng().random_bool(probability.min(1.0))
}

/// From there to 1.
fn random(from: f64) -> f64 {
    rand::rng().random_range(from..=1.0)
}

/// Whatever is in force at one node. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Impairments(Option<watch::Sender<Arc<[Impairment]>>>);

impl Impairments {
    /// Nothing can ever be impaired.
    pub const fn none() -> Self {
        Self(None)
    }

    /// Nothing is impaired, until [`Impairments::replace`] of this handle or of a clone says so.
    pub fn armed() -> Self {
        Self(Some(watch::Sender::new(Arc::default())))
    }

    /// From now on exactly these are in force.
    pub fn replace(&self, all: Vec<Impairment>) {
        if let Some(sender) = &self.0 {
            sender.send_replace(all.into());
        }
    }

    /// Whether nothing is in force.
    pub fn is_idle(&self) -> bool {
        self.0.as_ref().is_none_or(|sender| sender.borrow().is_empty())
    }

    /// What happens now between this node and a peer. Whoever is not known by name has none of what
    /// is for named peers.
    pub fn condition(&self, peer: Option<&str>, direction: Direction) -> Condition {
        self.0.as_ref().map_or_else(Condition::default, |sender| combined(&sender.borrow(), peer, direction))
    }

    /// One direction between this node and a peer, to be followed; `None` if nothing can happen to it.
    pub fn path(&self, peer: &str, direction: Direction) -> Option<Path> {
        let all = self.0.as_ref()?.subscribe();
        Some(Path { peer: peer.to_owned(), direction, all })
    }

    /// Waits until packets get through in both directions, as they must for a connection to be made;
    /// false if they do not within that time.
    pub async fn reachable(self, peer: String, within: Duration) -> bool {
        let Some(mut path) = self.path(&peer, Direction::Both) else { return true };
        timeout(within, path.open()).await.is_ok()
    }
}

/// See [`Impairments::path`].
#[derive(Debug, Clone)]
pub struct Path {
    peer: String,
    direction: Direction,
    all: watch::Receiver<Arc<[Impairment]>>,
}

impl Path {
    pub fn condition(&self) -> Condition {
        combined(&self.all.borrow(), Some(&self.peer), self.direction)
    }

    /// Waits until something passes.
    pub async fn open(&mut self) {
        let (peer, direction) = (self.peer.as_str(), self.direction);
        // An error means that nobody is left to impair anything.
        let _ = self.all.wait_for(|all| !combined(all, Some(peer), direction).cut).await;
    }
}

fn combined(all: &[Impairment], peer: Option<&str>, direction: Direction) -> Condition {
    let meant = |one: &&Impairment| {
        let peers = one.peers.as_ref();
        let peer = peers.is_none_or(|names| peer.is_some_and(|peer| names.iter().any(|name| name == peer)));
        peer && (one.direction == direction || one.direction == Direction::Both || direction == Direction::Both)
    };
    all.iter().filter(meant).fold(Condition::default(), |sum, one| sum.and(one.condition))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(peers: Option<&[&str]>, direction: Direction, condition: Condition) -> Impairment {
        let peers = peers.map(|names| names.iter().map(ToString::to_string).collect());
        Impairment { peers, direction, condition }
    }

    fn impairs(impairments: &Impairments, peer: &str) -> (bool, bool) {
        let cut = |direction| impairments.condition(Some(peer), direction).cut;
        (cut(Direction::Outgoing), cut(Direction::Incoming))
    }

    #[test]
    fn only_the_peers_and_directions_that_are_meant_are_impaired() {
        let impairments = Impairments::armed();
        assert_eq!(impairs(&impairments, "b"), (false, false));
        impairments.replace(vec![
            of(Some(&["b"]), Direction::Outgoing, Condition::cut()),
            of(Some(&["c", "d"]), Direction::Both, Condition::cut()),
        ]);
        assert_eq!(impairs(&impairments, "a"), (false, false));
        assert_eq!(impairs(&impairments, "b"), (true, false));
        assert_eq!(impairs(&impairments, "d"), (true, true));
        assert!(!impairments.condition(None, Direction::Outgoing).cut, "nobody in particular was meant");
        impairments.replace(vec![of(None, Direction::Incoming, Condition::cut())]);
        assert_eq!(impairs(&impairments, "b"), (false, true));
        assert!(impairments.condition(None, Direction::Incoming).cut);
    }

    #[test]
    fn several_of_one_peer_add_up() {
        let impairments = Impairments::armed();
        let slow = Condition { delay: Duration::from_millis(10), loss: 0.1, ..Condition::default() };
        let lossy = Condition { loss: 0.3, ..Condition::default() };
        impairments.replace(vec![of(None, Direction::Both, slow), of(Some(&["b"]), Direction::Outgoing, lossy)]);
        assert_eq!(impairments.condition(Some("b"), Direction::Outgoing), Condition { loss: 0.3, ..slow });
        assert_eq!(impairments.condition(Some("b"), Direction::Incoming), slow);
    }

    #[test]
    fn a_node_that_was_not_started_for_faults_has_none() {
        let none = Impairments::none();
        none.replace(vec![of(None, Direction::Both, Condition::cut())]);
        assert!(none.condition(Some("b"), Direction::Both).is_clear());
        assert!(none.path("b", Direction::Outgoing).is_none());
    }

    #[tokio::test]
    async fn a_cut_is_waited_out_or_not() {
        let impairments = Impairments::armed();
        impairments.replace(vec![of(Some(&["b"]), Direction::Incoming, Condition::cut())]);
        let reachable = |peer: &str, ms| impairments.clone().reachable(peer.into(), Duration::from_millis(ms));
        assert!(!reachable("b", 20).await && reachable("c", 20).await);
        let waiting = tokio::spawn(reachable("b", 60_000));
        tokio::task::yield_now().await;
        impairments.replace(Vec::new());
        assert!(waiting.await.expect("it ends"));
    }

    #[test]
    fn datagrams_meet_the_fate_that_was_asked_for() {
        assert!(Condition::cut().datagram_delays().is_empty());
        assert_eq!(Condition::default().datagram_delays(), [Duration::ZERO]);
        let fates = |condition: Condition| (0..1000).map(|_| condition.datagram_delays()).collect::<Vec<_>>();
        let half = |count: usize| (350..650).contains(&count);
        let lossy = fates(Condition { loss: 0.5, ..Condition::default() });
        assert!(half(lossy.iter().filter(|fate| fate.is_empty()).count()));
        let doubled = fates(Condition { duplicate: 0.5, ..Condition::default() });
        assert!(half(doubled.iter().filter(|fate| fate.len() == 2).count()));
        let late = fates(Condition { reorder: 0.5, ..Condition::default() });
        assert!(half(late.iter().filter(|fate| fate[0] > Duration::ZERO).count()));
    }

    #[test]
    fn a_stream_is_delayed_where_datagrams_would_be_lost_and_not_for_ever() {
        let delay = Duration::from_millis(40);
        let slow = Condition { delay, ..Condition::default() };
        assert!((0..100).all(|_| (delay..=delay * 3 / 2).contains(&slow.stream_delay())));
        let hopeless = Condition { loss: 1.0, ..Condition::default() };
        assert_eq!(hopeless.stream_delay(), RETRANSMISSION * 15);
        assert_eq!(Condition::cut().stream_delay(), Duration::ZERO, "that is for `open` to wait out");
    }
}
