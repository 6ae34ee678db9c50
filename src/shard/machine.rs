//! A shard's replicated state machine: applies packed entries, checkpoints, snapshots.

use super::{
    Options,
    applied::{AppliedState, Outgoing, Timer},
    audit::Auditor,
    backup::Pinned,
    chain::StateHash,
    entry::{self, Kept, KeyedAnswer, Outcome},
    gate::Gate,
    keys,
    ledger::LogPlace,
    registry::{Registry, State},
    request::{StoredEvent, StoredState},
    snapshot::{Sink, Source, delete_generation},
};
use crate::{
    cluster::Receipt,
    entity::{EntityKey, ShardId},
    replication::{Applied, CommittedEntry, EntryKind, Machine, Position, SnapshotSink, SnapshotSource},
    storage::{Error, GroupId, Storage, Write},
};
use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::{Notify, oneshot, watch};

/// One replica's state. Cheap to clone.
#[derive(Clone)]
pub struct ShardMachine(Arc<Inner>);

struct Inner {
    group: GroupId,
    storage: Arc<dyn Storage>,
    registry: Arc<Registry>,
    entities_cached: usize,
    /// Entries that the ledger keeps.
    receipts_kept: AtomicU64,
    state: Mutex<AppliedState>,
    /// Read-held by a snapshot in transfer, write-held by a checkpoint being written.
    gate: Arc<Gate>,
    /// Progress of the last durable checkpoint.
    checkpoint: Mutex<Option<Applied>>,
    auditor: Auditor,
    watchers: Mutex<HashMap<EntityKey, Vec<oneshot::Sender<()>>>>,
    /// Term and index of the last applied entry.
    progress: watch::Sender<(u64, u64)>,
    outbox_grew: Notify,
    timers_changed: Notify,
    /// Whether a backup is being restored into it.
    restoring: watch::Sender<bool>,
    /// Told when a checkpoint is written.
    flushed: Notify,
}

/// What a replica knows of a place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    Applied(LogPlace),
    NotYet,
    /// Longer ago than the ledger reaches.
    Forgotten,
}

impl ShardMachine {
    pub fn open(
        group: GroupId,
        storage: Arc<dyn Storage>,
        registry: Arc<Registry>,
        entities_cached: usize,
    ) -> Result<Self, Error> {
        let state = AppliedState::open(storage.clone(), group, registry.clone())?;
        let applied = state.meta.progress.clone();
        let at = applied.position.map_or((0, 0), |p| (p.term, p.index));
        let restoring = state.restores.under_way();
        let checkpoint = applied.position.is_some().then_some(applied);
        Ok(Self(Arc::new(Inner {
            group,
            storage,
            registry,
            entities_cached,
            receipts_kept: AtomicU64::new(Options::default().receipts_kept),
            state: Mutex::new(state),
            gate: Arc::default(),
            checkpoint: Mutex::new(checkpoint),
            auditor: Auditor::default(),
            watchers: Mutex::default(),
            progress: watch::Sender::new(at),
            outbox_grew: Notify::new(),
            timers_changed: Notify::new(),
            restoring: watch::Sender::new(restoring),
            flushed: Notify::new(),
        })))
    }

    /// Keeps the ledger of so many entries; what is older is dropped with the next checkpoints.
    pub fn keep_receipts(&self, entries: u64) {
        self.0.receipts_kept.store(entries, Ordering::Relaxed);
    }

    /// What this replica applied at a place of the log.
    pub fn applied_at(&self, index: u64) -> Result<Found, Error> {
        let state = self.0.state.lock();
        if state.meta.progress.position.is_none_or(|last| last.index < index) {
            return Ok(Found::NotYet);
        }
        let place = state.ledger.find(&state.overlay, index)?;
        Ok(place.map_or(Found::Forgotten, Found::Applied))
    }

    /// The running hash over what this replica applied.
    pub fn state_hash(&self) -> StateHash {
        self.0.state.lock().overlay.chain.shown()
    }

    /// Makes this replica differ from the others.
    #[cfg(test)]
    pub fn disturb(&self) {
        self.0.state.lock().overlay.chain.disturb();
    }

    /// Deletes what an installed snapshot replaced, where a crash came before that was done.
    pub async fn drop_old_generation(&self) -> Result<(), Error> {
        let generation = self.0.state.lock().overlay.generation();
        match generation.checked_sub(1) {
            Some(old) => delete_generation(&self.0.storage, self.0.group, old).await,
            None => Ok(()),
        }
    }

    pub fn group(&self) -> GroupId {
        self.0.group
    }

    pub(super) fn auditor(&self) -> &Auditor {
        &self.0.auditor
    }

    pub fn registry(&self) -> &Arc<Registry> {
        &self.0.registry
    }

    /// Term and index of the last applied entry, and every change of them.
    pub fn progress(&self) -> watch::Receiver<(u64, u64)> {
        self.0.progress.subscribe()
    }

    /// Version, time of the last change and a copy of the state, for an actor to decide on.
    /// No state means that this build cannot read the entity.
    pub fn entity(&self, key: &EntityKey) -> Result<(u64, u64, Option<State>), Error> {
        self.0.state.lock().copy_of(key)
    }

    pub fn read(&self, key: &EntityKey) -> Result<StoredState, Error> {
        let mut state = self.0.state.lock();
        let (version, encoded) = state.encoded_state(key)?;
        let applied_index = state.meta.progress.position.map_or(0, |p| p.index);
        Ok(StoredState { state: encoded, version, applied_index })
    }

    pub fn history(&self, key: &EntityKey, after: u64, limit: usize) -> Result<Vec<StoredEvent>, Error> {
        self.0.state.lock().history(key, after, limit)
    }

    pub fn answer(&self, key: &EntityKey, idempotency_key: &str) -> Result<Option<Kept>, Error> {
        self.0.state.lock().answer(key, idempotency_key)
    }

    /// The receipt of the change whose answer this is; `None` if an older build made it.
    pub fn receipt_of(&self, key: &EntityKey, answer: &KeyedAnswer) -> Result<Option<Receipt>, Error> {
        let place = self.0.state.lock().place_of(key, answer)?;
        Ok(place.map(|place| Receipt {
            shard: ShardId(self.0.group.0),
            term: place.term,
            index: place.index,
            entry_hash: place.entry_hash,
        }))
    }

    pub fn has_received(&self, source: GroupId, number: u64) -> bool {
        self.0.state.lock().has_received(source, number)
    }

    /// Resolves at the next change of the entity after this call.
    pub fn watch(&self, key: &EntityKey) -> oneshot::Receiver<()> {
        let (tx, rx) = oneshot::channel();
        let mut watchers = self.0.watchers.lock();
        let list = watchers.entry(key.clone()).or_default();
        list.retain(|w| !w.is_closed());
        list.push(tx);
        rx
    }

    /// Forgets watchers of the entity that have given up.
    pub fn unwatch(&self, key: &EntityKey) {
        let mut watchers = self.0.watchers.lock();
        if let Some(list) = watchers.get_mut(key) {
            list.retain(|w| !w.is_closed());
            if list.is_empty() {
                watchers.remove(key);
            }
        }
    }

    pub fn outbox_len(&self) -> usize {
        self.0.state.lock().outbox.len()
    }

    /// The lowest effect number that still waits, or the one to come.
    pub fn outbox_first(&self) -> u64 {
        let state = self.0.state.lock();
        state.outbox.keys().next().copied().unwrap_or(state.meta.next_effect + 1)
    }

    pub fn outbox_after(&self, number: u64, limit: usize) -> Vec<(u64, Outgoing)> {
        let state = self.0.state.lock();
        state.outbox.range(number + 1..).take(limit).map(|(n, o)| (*n, o.clone())).collect()
    }

    /// Looks at the applied state. Short: nothing is applied meanwhile.
    pub fn look<R>(&self, with: impl FnOnce(&AppliedState) -> R) -> R {
        with(&self.0.state.lock())
    }

    /// As [`ShardMachine::look`], with what is kept in memory to be moved about.
    pub(super) fn look_mut<R>(&self, with: impl FnOnce(&mut AppliedState) -> R) -> R {
        with(&mut self.0.state.lock())
    }

    pub fn outgoing(&self, number: u64) -> Option<Outgoing> {
        self.0.state.lock().outbox.get(&number).cloned()
    }

    pub fn outbox_grew(&self) -> &Notify {
        &self.0.outbox_grew
    }

    pub fn next_timer_at_ms(&self) -> Option<u64> {
        self.0.state.lock().next_timer_at_ms()
    }

    /// Due timers, earliest first; also corrects [`ShardMachine::next_timer_at_ms`].
    pub fn due_timers(&self, now_ms: u64, limit: usize) -> Result<Vec<(u64, u64, Timer)>, Error> {
        let mut state = self.0.state.lock();
        state.refresh_next_timer()?;
        state.due_timers(now_ms, limit)
    }

    pub fn timers_changed(&self) -> &Notify {
        &self.0.timers_changed
    }

    pub fn has_expired_answers(&self, now_ms: u64) -> Result<bool, Error> {
        self.0.state.lock().has_expired_answers(now_ms)
    }

    /// How many segments of the journal this replica's oldest entry holds back.
    pub fn segments_held(&self) -> usize {
        self.0.storage.segments_held(self.0.group)
    }

    pub fn dirty_bytes(&self) -> usize {
        self.0.state.lock().overlay.dirty_bytes()
    }

    /// Waits until less than this waits for a checkpoint.
    pub async fn room(&self, dirty_bytes_max: usize) {
        loop {
            let flushed = self.0.flushed.notified();
            tokio::pin!(flushed);
            // Listen first, then look: a checkpoint in between is not missed.
            flushed.as_mut().enable();
            if self.dirty_bytes() < dirty_bytes_max {
                return;
            }
            flushed.await;
        }
    }

    pub fn position(&self) -> Option<Position> {
        self.0.state.lock().meta.progress.position
    }

    /// A reader of the state as it is now; `None` if something was applied after `position`.
    pub fn pin_at(&self, position: Option<Position>) -> Result<Option<Pinned>, Error> {
        let mut state = self.0.state.lock();
        if state.meta.progress.position != position || state.restores.under_way() {
            return Ok(None);
        }
        Pinned::of(&mut state).map(Some)
    }

    /// Whether a backup is being restored into this shard, and every change of that.
    pub fn restoring(&self) -> watch::Receiver<bool> {
        self.0.restoring.subscribe()
    }

    /// Whether the shard began with what a backup had of another one.
    pub fn was_restored(&self) -> bool {
        self.0.state.lock().restores.has_past()
    }

    pub fn is_restoring(&self) -> bool {
        *self.0.restoring.borrow()
    }

    fn note_restoring(&self, now: bool) {
        self.0.restoring.send_if_modified(|before| std::mem::replace(before, now) != now);
    }

    fn notify_watchers(&self, changed: &[EntityKey]) {
        let mut watchers = self.0.watchers.lock();
        if watchers.is_empty() {
            return;
        }
        for key in changed {
            for watcher in watchers.remove(key).into_iter().flatten() {
                // A watcher that has given up does not mind.
                let _ = watcher.send(());
            }
        }
    }

    async fn write_checkpoint(self) -> Result<Applied, Error> {
        let gate = self.0.gate.write().await;
        let (changes, applied) = {
            let mut state = self.0.state.lock();
            state.prepare_checkpoint(self.0.receipts_kept.load(Ordering::Relaxed))?;
            (state.overlay.begin_flush(), state.meta.progress.clone())
        };
        self.0.storage.write(Write::State(changes)).await?;
        let written = {
            let mut state = self.0.state.lock();
            state.shrink_cache(self.0.entities_cached);
            state.overlay.flushed()
        };
        *self.0.checkpoint.lock() = Some(applied.clone());
        self.0.flushed.notify_waiters();
        drop(gate);
        drop(written);
        Ok(applied)
    }

    async fn open_snapshot(self) -> Result<Option<Box<dyn SnapshotSource>>, Error> {
        let gate = self.0.gate.read().await;
        let Some(applied) = self.0.checkpoint.lock().clone() else { return Ok(None) };
        let prefix = keys::prefix(self.0.group, self.0.state.lock().overlay.generation());
        let storage = self.0.storage.clone();
        Ok(Some(Box::new(Source { storage, prefix, applied, next: Vec::new(), _gate: gate })))
    }

    async fn open_sink(self) -> Result<Box<dyn SnapshotSink>, Error> {
        let generation = self.0.state.lock().overlay.generation() + 1;
        // What an interrupted transfer left behind must not mix with this one.
        delete_generation(&self.0.storage, self.0.group, generation).await?;
        let prefix = keys::prefix(self.0.group, generation);
        Ok(Box::new(Sink { storage: self.0.storage.clone(), prefix, generation }))
    }

    async fn install_received(self, received: Box<dyn SnapshotSink>, applied: Applied) -> Result<(), Error> {
        let foreign = |_| Error::Poisoned { detail: "a snapshot sink of another machine".into() };
        let sink = received.into_any().downcast::<Sink>().map_err(foreign)?;
        let _gate = self.0.gate.write().await;
        let old = self.0.state.lock().overlay.generation();
        let flip = (keys::generation(self.0.group), Some(sink.generation.to_be_bytes().to_vec().into()));
        self.0.storage.write(Write::State(vec![flip])).await?;
        let fresh = AppliedState::open(self.0.storage.clone(), self.0.group, self.0.registry.clone())?;
        if fresh.meta.progress.position != applied.position {
            let detail = format!("snapshot ends at {:?}, not {:?}", fresh.meta.progress.position, applied.position);
            return Err(Error::Corrupt { place: format!("snapshot of group {}", self.0.group.0), detail });
        }
        let restoring = fresh.restores.under_way();
        *self.0.state.lock() = fresh;
        self.0.auditor.forget();
        self.note_restoring(restoring);
        let at = applied.position.map_or((0, 0), |p| (p.term, p.index));
        *self.0.checkpoint.lock() = Some(applied);
        self.0.progress.send_replace(at);
        delete_generation(&self.0.storage, self.0.group, old).await
    }
}

impl Machine for ShardMachine {
    fn applied(&self) -> Applied {
        self.0.state.lock().meta.progress.clone()
    }

    fn apply(&self, entries: Vec<CommittedEntry>) -> Result<Vec<Bytes>, Error> {
        let mut replies = Vec::with_capacity(entries.len());
        let mut changed = Vec::new();
        let at = entries.last().map(|e| e.position);
        let (grew, timers, restoring) = {
            let mut state = self.0.state.lock();
            let (effects, next_timer) = (state.meta.next_effect, state.next_timer_at_ms());
            for committed in entries {
                replies.push(apply_entry(&mut state, committed, &mut changed)?);
            }
            let restoring = state.restores.under_way();
            (state.meta.next_effect != effects, state.next_timer_at_ms() != next_timer, restoring)
        };
        self.note_restoring(restoring);
        if let Some(at) = at {
            self.0.progress.send_replace((at.term, at.index));
        }
        self.notify_watchers(&changed);
        self.0.auditor.note(changed);
        if grew {
            self.0.outbox_grew.notify_one();
        }
        if timers {
            self.0.timers_changed.notify_one();
        }
        Ok(replies)
    }

    fn checkpoint(&self) -> BoxFuture<'static, Result<Applied, Error>> {
        Box::pin(self.clone().write_checkpoint())
    }

    fn snapshot(&self) -> BoxFuture<'static, Result<Option<Box<dyn SnapshotSource>>, Error>> {
        Box::pin(self.clone().open_snapshot())
    }

    fn receive(&self) -> BoxFuture<'static, Result<Box<dyn SnapshotSink>, Error>> {
        Box::pin(self.clone().open_sink())
    }

    fn install(&self, received: Box<dyn SnapshotSink>, applied: Applied) -> BoxFuture<'static, Result<(), Error>> {
        Box::pin(self.clone().install_received(received, applied))
    }
}

fn apply_entry(
    state: &mut AppliedState,
    committed: CommittedEntry,
    changed: &mut Vec<EntityKey>,
) -> Result<Bytes, Error> {
    let position = committed.position;
    assert!(
        state.meta.progress.position.is_none_or(|last| position.index > last.index && position.term >= last.term),
        "entry {position:?} applied after {:?}",
        state.meta.progress.position,
    );
    let entry_hash = match &committed.kind {
        EntryKind::Command(command) => crc32c::crc32c(command),
        EntryKind::Blank | EntryKind::Membership(_) => 0,
    };
    let place = LogPlace { term: position.term, index: position.index, entry_hash };
    let begins_term = matches!(committed.kind, EntryKind::Blank);
    state.begin(place);
    let reply = match committed.kind {
        EntryKind::Blank => Bytes::new(),
        EntryKind::Membership(membership) => {
            state.meta.progress.membership = membership;
            Bytes::new()
        }
        EntryKind::Command(command) => {
            let items = entry::unpack(&command).map_err(|e| Error::Corrupt {
                place: format!("log entry {} of group {}", position.index, state.overlay.group().0),
                detail: e.to_string(),
            })?;
            let mut outcomes = Vec::with_capacity(items.len());
            for item in items {
                let key = match &item {
                    entry::Item::Change(change) => Some(change.key.clone()),
                    _ => None,
                };
                let outcome = state.apply(item)?;
                if let (Some(key), Outcome::Changed { .. }) = (key, outcome) {
                    changed.push(key);
                }
                outcomes.push(outcome);
            }
            entry::encode_outcomes(&outcomes)
        }
    };
    state.end();
    if begins_term {
        state.overlay.chain.begin_term(place);
    }
    Ok(reply)
}
