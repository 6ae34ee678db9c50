//! How a shard's owner takes part in a cut over all shards: it holds its writes, is pinned, goes on.
//!
//! ```text
//! all shards: hold ─▶ nothing is proposed, everything proposed before is applied
//!             pin  ─▶ still the owner? still at the same entry? ─▶ a reader of the state as it is ─▶ writes go on
//! ```
//!
//! A hold is a lease that ends by itself. A pin that finds it in force, after all shards were held, has
//! the shard's state of the moment at which the last of them was: nothing was decided in between. No
//! clock is compared with another's, and an owner that was replaced spoils the attempt, not the cut.

use super::{
    pinned::Pinned,
    types::{BackupId, ShardHead},
};
use crate::{
    catalog::NodeId,
    replication::Position,
    shard::{
        host::ShardHost,
        inspection::{Answer, Ask, ShardRequest},
        router::Router,
    },
    storage::{Error, GroupId},
};
use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long a shard's writes wait at most.
pub const HOLD_MAX: Duration = Duration::from_secs(2);
/// A pin that nobody reads, nor keeps, for this long is dropped: whoever took it is gone.
const PIN_IDLE_MAX: Duration = Duration::from_secs(60);
/// Pins of one shard at one time: each keeps disk space from being freed.
const PINS_MAX: usize = 8;
/// Backups remembered that have ended.
const ENDED_KEPT: usize = 64;

/// What the node that takes a backup asks of a shard.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum CutAsk {
    /// Of the owner, whoever that is: whether it could hold.
    Probe,
    /// Of the owner, too.
    Hold,
    /// The rest of the node that held it.
    Pin,
    /// The chunk behind this key.
    Read { after: Option<Vec<u8>> },
    /// The pin is still wanted.
    Keep,
    /// Neither the hold nor the pin is wanted any more.
    End,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum CutAnswer {
    Held {
        by: NodeId,
    },
    Pinned(ShardHead),
    /// The hold was not in force, or there is no such pin any more.
    Spoiled,
    /// There are as many pins as there may be.
    Full,
    /// It is held for another backup.
    Busy,
    /// A backup is being put into it.
    Restoring,
    Part(Part),
    Done,
}

/// A chunk of a pinned shard, and how to go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Empty only if there is nothing left.
    pub chunk: Bytes,
    pub pairs: u32,
    /// The last key in it; `None` when there is nothing left behind it.
    pub last: Option<Vec<u8>>,
}

/// What the proposer is told: to let what it has proposed end, to say so, and to wait.
pub struct Pause {
    pub until: Instant,
    pub began: tokio::sync::oneshot::Sender<()>,
    pub released: CancellationToken,
}

impl Pause {
    /// Everything before has ended: waits until writes may go on.
    pub async fn last(self) {
        let is_wanted = Instant::now() < self.until && !self.released.is_cancelled();
        if is_wanted && self.began.send(()).is_ok() {
            // Which of the two it was makes no difference here.
            let _ = tokio::time::timeout_at(self.until, self.released.cancelled()).await;
        }
    }
}

/// A shard's pause as its host knows it.
struct Hold {
    backup: BackupId,
    /// Once it has begun: the last entry applied then.
    position: Option<Option<Position>>,
    until: Instant,
    released: CancellationToken,
    /// Of the session whose proposer waits.
    session: CancellationToken,
}

impl Hold {
    /// If it has begun, nothing was proposed since.
    fn is_in_force(&self) -> bool {
        Instant::now() < self.until && !self.released.is_cancelled() && !self.session.is_cancelled()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.released.cancel();
    }
}

/// A host's holds and pins.
#[derive(Default)]
pub struct Cuts {
    hold: Mutex<Option<Hold>>,
    pins: Mutex<HashMap<BackupId, Pin>>,
    /// Backups that are not wanted any more, the latest last: what is on its way for them comes too late.
    ended: Mutex<VecDeque<BackupId>>,
}

#[derive(Clone)]
struct Pin {
    pinned: Arc<Pinned>,
    /// When it was last asked for.
    used: Instant,
}

impl Cuts {
    /// The pin, if it is there; it is kept for another while.
    fn pin(&self, backup: BackupId) -> Option<Arc<Pinned>> {
        let mut pins = self.pins.lock();
        let pin = pins.get_mut(&backup)?;
        pin.used = Instant::now();
        Some(pin.pinned.clone())
    }

    /// When the pin is to be dropped, if nobody asks for it until then. It is dropped if that was before.
    fn idle_at(&self, backup: BackupId) -> Option<Instant> {
        let mut pins = self.pins.lock();
        let at = pins.get(&backup)?.used + PIN_IDLE_MAX;
        if at <= Instant::now() {
            pins.remove(&backup);
            return None;
        }
        Some(at)
    }

    fn put(&self, backup: BackupId, pinned: Pinned) -> bool {
        let mut pins = self.pins.lock();
        let has_room = pins.len() < PINS_MAX && !self.has_ended(backup);
        if has_room {
            pins.insert(backup, Pin { pinned: Arc::new(pinned), used: Instant::now() });
        }
        has_room
    }

    /// One hold at a time: a second one would only wait for the first one's end, and writes for both.
    fn begin(&self, hold: Hold) -> bool {
        let mut present = self.hold.lock();
        let is_free = present.as_ref().is_none_or(|hold| !hold.is_in_force()) && !self.has_ended(hold.backup);
        if is_free {
            *present = Some(hold);
        }
        is_free
    }

    /// The hold is there; false if it was released meanwhile.
    fn begun(&self, backup: BackupId, position: Option<Position>) -> bool {
        let mut hold = self.hold.lock();
        match hold.as_mut().filter(|hold| hold.backup == backup) {
            Some(hold) => {
                hold.position = Some(position);
                true
            }
            None => false,
        }
    }

    fn release(&self, backup: BackupId) {
        let mut hold = self.hold.lock();
        if hold.as_ref().is_some_and(|hold| hold.backup == backup) {
            *hold = None;
        }
    }

    /// Neither a hold nor a pin of it is there from here on.
    fn end(&self, backup: BackupId) {
        {
            let mut ended = self.ended.lock();
            ended.push_back(backup);
            if ended.len() > ENDED_KEPT {
                ended.pop_front();
            }
        }
        self.release(backup);
        self.pins.lock().remove(&backup);
    }

    fn has_ended(&self, backup: BackupId) -> bool {
        self.ended.lock().contains(&backup)
    }

    fn take(&self, backup: BackupId) -> Option<Hold> {
        self.hold.lock().take_if(|hold| hold.backup == backup)
    }
}

impl ShardHost {
    pub(in crate::shard) async fn cut(self: &Arc<Self>, backup: BackupId, ask: CutAsk) -> Answer {
        let answer = match ask {
            CutAsk::Probe | CutAsk::Hold if self.machine().is_restoring() => CutAnswer::Restoring,
            CutAsk::Probe if self.cuts().pins.lock().len() >= PINS_MAX => CutAnswer::Full,
            CutAsk::Probe => match self.leading().await {
                Ok(_) => CutAnswer::Done,
                Err(hint) => return Answer::NotOwner { hint },
            },
            CutAsk::Hold => return self.hold(backup).await,
            CutAsk::Pin => self.pin(backup).await,
            CutAsk::Read { after } => match self.cuts().pin(backup) {
                Some(pinned) => {
                    pinned.part(after.as_deref()).map_or_else(|error| self.unreadable(&error), CutAnswer::Part)
                }
                None => CutAnswer::Spoiled,
            },
            CutAsk::Keep => self.cuts().pin(backup).map_or(CutAnswer::Spoiled, |_| CutAnswer::Done),
            CutAsk::End => {
                self.cuts().end(backup);
                CutAnswer::Done
            }
        };
        Answer::Cut(answer)
    }

    async fn hold(&self, backup: BackupId) -> Answer {
        let until = Instant::now() + HOLD_MAX;
        let session = match self.leading().await {
            Ok(session) => session,
            Err(hint) => return Answer::NotOwner { hint },
        };
        let released = CancellationToken::new();
        let hold = Hold { backup, position: None, until, released: released.clone(), session: session.stop.clone() };
        if !self.cuts().begin(hold) {
            return Answer::Cut(CutAnswer::Busy);
        }
        let (began, begun) = tokio::sync::oneshot::channel();
        session.submitter.pause(Pause { until, began, released }).await;
        let is_held = matches!(tokio::time::timeout_at(until, begun).await, Ok(Ok(())))
            && self.cuts().begun(backup, self.machine().position());
        if is_held {
            return Answer::Cut(CutAnswer::Held { by: self.group().me() });
        }
        self.cuts().release(backup);
        Answer::Cut(CutAnswer::Spoiled)
    }

    /// Every shard is held by now. The reader that this takes is of the moment at which the last one was,
    /// if no other owner can have come before (asked of a quorum, not of a lease), nothing was applied
    /// since this one was held, and nothing can have been proposed either.
    async fn pin(self: &Arc<Self>, backup: BackupId) -> CutAnswer {
        let Some(hold) = self.cuts().take(backup) else { return CutAnswer::Spoiled };
        let Some(position) = hold.position else { return CutAnswer::Spoiled };
        if self.group().confirm_leadership().await.is_err() {
            return CutAnswer::Spoiled;
        }
        let pinned = match self.machine().pin_at(position) {
            Ok(Some(pinned)) => pinned,
            Ok(None) => return CutAnswer::Spoiled,
            Err(error) => return self.unreadable(&error),
        };
        if !hold.is_in_force() {
            return CutAnswer::Spoiled;
        }
        let head = pinned.head().clone();
        if !self.cuts().put(backup, pinned) {
            return CutAnswer::Full;
        }
        self.drop_when_idle(backup);
        CutAnswer::Pinned(head)
    }

    fn drop_when_idle(self: &Arc<Self>, backup: BackupId) {
        let host = self.clone();
        self.spawn(async move {
            while let Some(at) = host.cuts().idle_at(backup) {
                tokio::time::sleep_until(at).await;
            }
        });
    }

    fn unreadable(&self, error: &Error) -> CutAnswer {
        tracing::error!(shard = %self.shard(), %error, "a shard cannot be read for a backup");
        CutAnswer::Spoiled
    }
}

impl Router {
    /// Asks one node for its part in a cut, until `deadline`; `None` if it does not answer.
    pub async fn ask_cut(
        &self,
        node: NodeId,
        (group, backup): (GroupId, BackupId),
        ask: CutAsk,
        deadline: Instant,
    ) -> Option<CutAnswer> {
        let request = ShardRequest { group, ask: Ask::Cut { backup, ask } };
        match self.ask_node(node, request, deadline).await? {
            Answer::Cut(answer) => Some(answer),
            _ => None,
        }
    }
}
