//! Faults on purpose: a switch for those who test what a cluster withstands.
//!
//! Only a node that was started with it ([`Builder::allow_faults`](super::Builder::allow_faults),
//! `quorate node --allow-faults`) has one; every other refuses. Each fault ends by itself after a
//! bounded time, and with the process; its beginning and its end are in the log.

use super::{Idempotency, events, node::Node};
use crate::{
    impairment::{Condition, Direction, Impairment, Impairments},
    shard::ClockHand,
    storage,
};
use parking_lot::Mutex;
use serde::Serialize;
use std::{
    collections::VecDeque,
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

/// Faults at a time.
pub const FAULTS_MAX: usize = 16;
/// The longest that one lasts.
pub const FAULT_DURATION_MAX: Duration = Duration::from_secs(600);
/// Answers kept for repeated requests; the oldest goes first.
const ANSWERS_MAX: usize = 64;

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "fault", rename_all = "kebab-case")]
pub enum FaultKind {
    /// Every sync takes so much longer.
    SlowDisk { delay_ms: u64 },
    /// Writes fail: the node ends.
    FullDisk,
    /// The next sync fails: the node ends.
    FailedFsync,
    /// The clock that entities, timers and tasks go by is off by so much.
    ClockJump { offset_ms: i64 },
    /// Nothing gets through between this node and these.
    Cut(FaultPath),
    /// Packets are lost: of links that is the time until they are sent again.
    Loss {
        #[serde(flatten)]
        path: FaultPath,
        probability: f64,
    },
    /// Everything takes so much longer, and up to half of that on top.
    Delay {
        #[serde(flatten)]
        path: FaultPath,
        delay_ms: u64,
    },
    /// Gossip overtakes gossip. Links keep their order.
    Reorder {
        #[serde(flatten)]
        path: FaultPath,
        probability: f64,
    },
    /// Gossip that this node sends arrives twice.
    Duplicate {
        #[serde(flatten)]
        path: FaultPath,
        probability: f64,
    },
}

/// Where a fault of the network is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FaultPath {
    /// Names of other members; `None`: all others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peers: Option<Vec<String>>,
    pub direction: FaultDirection,
}

/// Seen from the node that has the fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultDirection {
    Both,
    /// What it sends does not arrive as it should.
    Outgoing,
    /// What others send does not.
    Incoming,
}

impl FaultKind {
    /// What it does to the network, if it is one of those.
    fn impairment(&self) -> Option<Impairment> {
        let none = Condition::default();
        let (path, condition) = match self {
            Self::Cut(path) => (path, Condition::cut()),
            Self::Loss { path, probability } => (path, Condition { loss: *probability, ..none }),
            Self::Delay { path, delay_ms } => (path, Condition { delay: Duration::from_millis(*delay_ms), ..none }),
            Self::Reorder { path, probability } => (path, Condition { reorder: *probability, ..none }),
            Self::Duplicate { path, probability } => (path, Condition { duplicate: *probability, ..none }),
            Self::SlowDisk { .. } | Self::FullDisk | Self::FailedFsync | Self::ClockJump { .. } => return None,
        };
        let direction = match path.direction {
            FaultDirection::Both => Direction::Both,
            FaultDirection::Outgoing => Direction::Outgoing,
            FaultDirection::Incoming => Direction::Incoming,
        };
        Some(Impairment { peers: path.peers.clone(), direction, condition })
    }

    /// Whom it names.
    fn peers(&self) -> &[String] {
        match self {
            Self::Cut(path)
            | Self::Loss { path, .. }
            | Self::Delay { path, .. }
            | Self::Reorder { path, .. }
            | Self::Duplicate { path, .. } => path.peers.as_deref().unwrap_or_default(),
            Self::SlowDisk { .. } | Self::FullDisk | Self::FailedFsync | Self::ClockJump { .. } => &[],
        }
    }
}

/// A fault that is in force.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FaultStatus {
    pub id: u64,
    #[serde(flatten)]
    pub kind: FaultKind,
    pub duration_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FaultError {
    #[error("this node was not started with --allow-faults")]
    NotAllowed,
    #[error("{FAULTS_MAX} faults are in force already")]
    TooMany,
    #[error("the idempotency key was used before with another request")]
    IdempotencyKeyReused,
    #[error("`{peer}` is not another member of this cluster; there are {}", .known.join(", "))]
    UnknownPeer { peer: String, known: Vec<String> },
    /// It ended, or never was.
    #[error("there is no fault {0}")]
    NotFound(u64),
}

/// Turns faults on and off. Cheap to clone.
#[derive(Clone)]
pub struct FaultSwitch(Arc<Inner>);

struct Inner {
    disk: storage::Faults,
    clock: ClockHand,
    network: Impairments,
    node: OnceLock<Weak<Node>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    last: u64,
    in_force: Vec<FaultStatus>,
    answers: VecDeque<(Idempotency, FaultStatus)>,
}

impl FaultSwitch {
    /// `disk` and `network` are armed, and given to store, links and gossip of the same node; `clock`
    /// moves that node's.
    pub(super) fn new(disk: storage::Faults, clock: ClockHand, network: Impairments) -> Self {
        Self(Arc::new(Inner { disk, clock, network, node: OnceLock::new(), state: Mutex::default() }))
    }

    /// Whose it is: then it knows who the peers are.
    pub(super) fn attach(&self, node: &Arc<Node>) {
        // A second node would be another one of the same process, which has a switch of its own.
        let _ = self.0.node.set(Arc::downgrade(node));
    }

    /// Turns a fault on; it ends by itself after `duration` (at most [`FAULT_DURATION_MAX`]). The
    /// flag says that the same request had done so before.
    ///
    /// # Errors
    /// [`FaultError::TooMany`], [`FaultError::IdempotencyKeyReused`], [`FaultError::UnknownPeer`].
    pub fn inject(
        &self,
        kind: FaultKind,
        duration: Duration,
        idempotency: Option<Idempotency>,
    ) -> Result<(FaultStatus, bool), FaultError> {
        let duration = duration.min(FAULT_DURATION_MAX);
        let status = {
            let mut state = self.0.state.lock();
            if let Some(asked) = &idempotency
                && let Some((known, answer)) = state.answers.iter().find(|(known, _)| known.key == asked.key)
            {
                let same = known.fingerprint == asked.fingerprint;
                return if same { Ok((answer.clone(), true)) } else { Err(FaultError::IdempotencyKeyReused) };
            }
            self.0.check_peers(&kind)?;
            if state.in_force.len() >= FAULTS_MAX {
                return Err(FaultError::TooMany);
            }
            state.last += 1;
            let duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
            let status = FaultStatus { id: state.last, kind: kind.clone(), duration_ms };
            state.in_force.push(status.clone());
            if let Some(asked) = idempotency {
                state.answers.truncate(ANSWERS_MAX - 1);
                state.answers.push_front((asked, status.clone()));
            }
            self.0.take_effect(&state);
            self.0.tell(|feed| feed.fault_began(events::Fault::Injected(status.clone())));
            status
        };
        if status.kind == FaultKind::FailedFsync {
            self.0.disk.fail_next("fdatasync failed: input/output error (a fault on purpose)");
        }
        tracing::warn!(fault = ?status.kind, id = status.id, duration_ms = status.duration_ms, "a fault on purpose begins");
        let (switch, id) = (self.clone(), status.id);
        tokio::spawn(async move {
            tokio::time::sleep(duration).await;
            // It may have been ended before.
            let _ = switch.end(id);
        });
        Ok((status, false))
    }

    /// Turns a fault off.
    ///
    /// # Errors
    /// [`FaultError::NotFound`].
    pub fn end(&self, id: u64) -> Result<FaultStatus, FaultError> {
        let mut state = self.0.state.lock();
        let at = state.in_force.iter().position(|fault| fault.id == id).ok_or(FaultError::NotFound(id))?;
        let ended = state.in_force.remove(at);
        self.0.take_effect(&state);
        if !state.in_force.iter().any(|fault| fault.kind == FaultKind::FailedFsync) {
            self.0.disk.forgive();
        }
        self.0.tell(|feed| feed.fault_ended(&ended));
        tracing::warn!(fault = ?ended.kind, id, "a fault on purpose ends");
        Ok(ended)
    }

    /// Those in force, oldest first.
    pub fn list(&self) -> Vec<FaultStatus> {
        self.0.state.lock().in_force.clone()
    }
}

impl Inner {
    /// Under the lock, so that no fault ends before it began.
    fn tell(&self, news: impl FnOnce(&events::Feed)) {
        if let Some(node) = self.node.get().and_then(Weak::upgrade) {
            news(node.feed());
        }
    }

    fn check_peers(&self, kind: &FaultKind) -> Result<(), FaultError> {
        let me = self.node.get().and_then(Weak::upgrade);
        let is_other = |member: &str| me.as_ref().is_some_and(|me| me.config().node.name != member);
        let members = me.as_ref().map(|me| me.known_members()).unwrap_or_default();
        let known: Vec<String> = members.into_iter().map(|one| one.name).filter(|name| is_other(name)).collect();
        match kind.peers().iter().find(|peer| !known.contains(peer)) {
            Some(peer) => Err(FaultError::UnknownPeer { peer: peer.clone(), known }),
            None => Ok(()),
        }
    }

    /// Of several slow disks the slowest counts; clocks add up.
    fn take_effect(&self, state: &State) {
        let (mut slow_ms, mut full, mut offset_ms) = (0, false, 0i64);
        for fault in &state.in_force {
            match &fault.kind {
                FaultKind::SlowDisk { delay_ms } => slow_ms = slow_ms.max(*delay_ms),
                FaultKind::FullDisk => full = true,
                FaultKind::ClockJump { offset_ms: by } => offset_ms = offset_ms.saturating_add(*by),
                // A sync that is to fail is told below; the network as a whole.
                _ => {}
            }
        }
        self.disk.slow_down(Duration::from_millis(slow_ms));
        self.disk.fill_up(full);
        self.clock.set_offset_ms(offset_ms);
        self.network.replace(state.in_force.iter().filter_map(|fault| fault.kind.impairment()).collect());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard;

    const SLOW: FaultKind = FaultKind::SlowDisk { delay_ms: 1 };
    const LONG: Duration = Duration::from_secs(60);

    fn switch() -> FaultSwitch {
        FaultSwitch::new(storage::Faults::armed(), shard::Clock::movable().1, Impairments::armed())
    }

    fn key(key: &str, fingerprint: u8) -> Option<Idempotency> {
        Some(Idempotency { key: key.into(), fingerprint: [fingerprint; 16] })
    }

    #[tokio::test]
    async fn a_fault_ends_by_itself_and_only_once() {
        let switch = switch();
        let (fault, _) = switch.inject(SLOW, Duration::from_millis(200), None).expect("on");
        assert_eq!(switch.list(), std::slice::from_ref(&fault));
        let ended = async {
            while !switch.list().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LONG, ended).await.expect("it ends by itself");
        assert_eq!(switch.end(fault.id), Err(FaultError::NotFound(fault.id)));
    }

    #[tokio::test]
    async fn faults_of_the_network_are_in_force_as_long_as_they_are_listed() {
        let switch = switch();
        let network = switch.0.network.clone();
        let path = |direction| FaultPath { peers: None, direction };
        let (cut, _) = switch.inject(FaultKind::Cut(path(FaultDirection::Outgoing)), LONG, None).expect("on");
        let slow = FaultKind::Delay { path: path(FaultDirection::Both), delay_ms: 5 };
        let (slow, _) = switch.inject(slow, LONG, None).expect("on");
        let now = |direction| network.condition(Some("b"), direction);
        let delay = Duration::from_millis(5);
        assert_eq!(now(Direction::Outgoing), Condition { delay, ..Condition::cut() });
        assert_eq!(now(Direction::Incoming), Condition { delay, ..Condition::default() });
        switch.end(cut.id).expect("off");
        assert_eq!(now(Direction::Outgoing), Condition { delay, ..Condition::default() });
        switch.end(slow.id).expect("off");
        assert!(network.is_idle());
        let nobody = FaultKind::Cut(FaultPath { peers: Some(vec!["nobody".into()]), direction: FaultDirection::Both });
        let refused = switch.inject(nobody, LONG, None);
        assert!(matches!(refused, Err(FaultError::UnknownPeer { peer, .. }) if peer == "nobody"));
    }

    #[tokio::test]
    async fn the_longest_time_and_the_number_of_faults_are_bounded() {
        let switch = switch();
        let (fault, _) = switch.inject(SLOW, Duration::from_secs(1 << 40), None).expect("on");
        assert_eq!(u128::from(fault.duration_ms), FAULT_DURATION_MAX.as_millis());
        for _ in 1..FAULTS_MAX {
            switch.inject(SLOW, LONG, None).expect("on");
        }
        assert_eq!(switch.inject(SLOW, LONG, None), Err(FaultError::TooMany));
        switch.end(fault.id).expect("off");
        switch.inject(SLOW, LONG, None).expect("room again");
    }

    #[tokio::test]
    async fn a_request_with_a_key_takes_effect_once() {
        let switch = switch();
        let (first, replayed) = switch.inject(SLOW, LONG, key("a", 1)).expect("on");
        assert!(!replayed);
        assert_eq!(switch.inject(SLOW, LONG, key("a", 1)), Ok((first, true)));
        assert_eq!(switch.inject(SLOW, LONG, key("a", 2)), Err(FaultError::IdempotencyKeyReused));
        assert_eq!(switch.list().len(), 1);
        for number in 0..2 * ANSWERS_MAX {
            let (fault, _) = switch.inject(SLOW, LONG, key(&number.to_string(), 1)).expect("on");
            switch.end(fault.id).expect("off");
        }
        assert_eq!(switch.0.state.lock().answers.len(), ANSWERS_MAX);
    }
}
