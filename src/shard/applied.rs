//! A replica's applied state, and how a log item changes it.
//!
//! DETERMINISTIC-APPLY: nothing here reads a clock or draws a random number; what an item does
//! depends on the item and on the state alone, so every replica ends up with the same.

use super::{
    backup::Restores,
    chain::Chain,
    entry::{Change, Item, Kept, KeyedAnswer, Outcome},
    keys,
    ledger::{Ledger, LogPlace},
    lists,
    overlay::Overlay,
    registry::{Registry, State},
    request::{Cause, StoredEvent},
};
use crate::{
    entity::{Effect, EntityKey, Task, TimedTask, Versioned, codec},
    replication::{self, Position},
    sabotage::{self, Sabotage},
    storage::{Error, GroupId, Storage},
};
use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

/// Progress and counters, written with every checkpoint.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Meta {
    pub progress: replication::Applied,
    pub next_effect: u64,
    pub next_timer: u64,
}

/// An effect that waits for delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outgoing {
    pub from: EntityKey,
    pub delivery: Delivery,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Delivery {
    Tell {
        to: EntityKey,
        command: Versioned,
    },
    /// As it was written before there were queues: read, and from then on a [`QueuedTask`].
    Task {
        task: Task,
        attempts: u32,
        retry_at_ms: u64,
        last_error: Option<String>,
    },
    Queued(QueuedTask),
}

/// A task and how far it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuedTask {
    pub task: Task,
    /// Under which number it was asked for, if not under its own: it was a dead letter since. The
    /// key that its handler is given is made of it, and stays.
    pub first_number: Option<u64>,
    pub queued_at_ms: u64,
    pub deadline_ms: Option<u64>,
    /// Attempts that failed.
    pub attempts: u32,
    /// The next one does not begin before.
    pub next_at_ms: u64,
    pub last_error: Option<String>,
}

impl Outgoing {
    /// In the form that this build works with.
    pub(super) fn current(mut self) -> Self {
        if let Delivery::Task { task, attempts, retry_at_ms, last_error } = self.delivery {
            let queued = QueuedTask { attempts, next_at_ms: retry_at_ms, last_error, ..QueuedTask::new(task, 0) };
            self.delivery = Delivery::Queued(queued);
        }
        self
    }
}

impl QueuedTask {
    fn new(task: Task, queued_at_ms: u64) -> Self {
        let (attempts, next_at_ms) = (0, 0);
        Self { task, first_number: None, queued_at_ms, deadline_ms: None, attempts, next_at_ms, last_error: None }
    }
}

/// A command to come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timer {
    pub entity: EntityKey,
    pub name: String,
    pub command: Versioned,
}

#[derive(Serialize, Deserialize)]
pub(super) struct EntityRecord {
    version: u64,
    at_ms: u64,
    state: Option<Versioned>,
}

impl EntityRecord {
    /// As a backup has it.
    pub fn is_sound(record: &[u8]) -> bool {
        decode::<Self>(record).is_ok_and(|record| record.state.is_none() && record.version < 1 << 62)
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct EventRecord {
    at_ms: u64,
    event: Versioned,
}

impl EventRecord {
    pub fn is_readable(record: &[u8]) -> bool {
        decode::<Self>(record).is_ok()
    }
}

/// An entity as applied. `state` is `None` where its type is not registered or its history
/// cannot be read by this build.
pub struct Entity {
    pub version: u64,
    pub at_ms: u64,
    pub state: Option<State>,
    dirty: bool,
    used: bool,
}

impl Entity {
    /// Has it written with the next checkpoint.
    pub fn touch(&mut self) {
        self.dirty = true;
    }
}

/// Effects received from one source shard.
#[derive(Default)]
struct Received {
    /// Everything below has been received.
    below: u64,
    numbers: BTreeSet<u64>,
}

pub struct AppliedState {
    pub overlay: Overlay,
    pub meta: Meta,
    pub outbox: BTreeMap<u64, Outgoing>,
    /// Numbers of the dead letters.
    pub letters: BTreeSet<u64>,
    /// The next timer, by due time and number. May be too early after a cancellation, never too late; so those
    /// that have fired since the last checkpoint need not be looked through again and again.
    next_timer: Option<(u64, u64)>,
    pub ledger: Ledger,
    /// The entry that is being applied.
    place: LogPlace,
    /// In which versions the rows of lists are kept; written with a checkpoint if they changed.
    pub(super) lists: lists::Versions,
    pub(super) lists_changed: bool,
    pub(super) registry: Arc<Registry>,
    pub(super) restores: Restores,
    pub(super) entities: HashMap<EntityKey, Entity>,
    received: HashMap<GroupId, Received>,
}

impl AppliedState {
    /// Reads what the last checkpoint left.
    pub fn open(storage: Arc<dyn Storage>, group: GroupId, registry: Arc<Registry>) -> Result<Self, Error> {
        let mut overlay = Overlay::open(storage, group)?;
        let meta: Meta = match overlay.get(keys::META)? {
            Some(bytes) => decode(&bytes)?,
            None => Meta::default(),
        };
        let applied_index = meta.progress.position.map(|position| position.index);
        let chain = overlay.get(keys::CHAIN)?.map(|bytes| decode(&bytes)).transpose()?;
        overlay.chain = Chain::open(chain, applied_index);
        let ledger = Ledger::open(&overlay, applied_index)?;
        let mut state = Self {
            overlay,
            meta,
            registry,
            outbox: BTreeMap::new(),
            letters: BTreeSet::new(),
            next_timer: None,
            lists: lists::Versions::new(),
            lists_changed: false,
            ledger,
            place: LogPlace::default(),
            restores: Restores::default(),
            entities: HashMap::new(),
            received: HashMap::new(),
        };
        state.load_restores()?;
        state.load()?;
        state.open_lists()?;
        Ok(state)
    }

    /// Reads what is kept in memory beside the store.
    pub(super) fn load(&mut self) -> Result<(), Error> {
        self.outbox.clear();
        self.letters.clear();
        self.received.clear();
        self.load_outbox()?;
        self.load_letters()?;
        self.load_received()?;
        // Whatever there is comes after it.
        self.next_timer = Some((0, 0));
        self.refresh_next_timer()
    }

    fn load_outbox(&mut self) -> Result<(), Error> {
        for (key, value) in self.overlay.scan(b"o", b"p", usize::MAX / 2)? {
            if let Some(number) = keys::parse_number(&key) {
                self.outbox.insert(number, decode::<Outgoing>(&value)?.current());
            }
        }
        Ok(())
    }

    fn load_received(&mut self) -> Result<(), Error> {
        for (key, value) in self.overlay.scan(b"r", b"s", usize::MAX / 2)? {
            match keys::parse_received(&key) {
                Some((source, 0)) => self.received.entry(source).or_default().below = decode(&value)?,
                Some((source, number)) => {
                    self.received.entry(source).or_default().numbers.insert(number);
                }
                None => {}
            }
        }
        Ok(())
    }

    pub fn next_timer_at_ms(&self) -> Option<u64> {
        self.next_timer.map(|(at_ms, _)| at_ms)
    }

    pub fn refresh_next_timer(&mut self) -> Result<(), Error> {
        if let Some((at_ms, number)) = self.next_timer {
            let first = self.overlay.scan(&keys::timer(at_ms, number), b"u", 1)?;
            self.next_timer = first.first().and_then(|(key, _)| keys::parse_timer(key));
        }
        Ok(())
    }

    /// What follows is done by this entry.
    pub fn begin(&mut self, place: LogPlace) {
        self.place = place;
    }

    /// All of the entry is done.
    pub fn end(&mut self) {
        self.ledger.record(self.place);
        self.overlay.chain.end(self.place);
        self.meta.progress.position = Some(Position { term: self.place.term, index: self.place.index });
    }

    pub fn apply(&mut self, item: Item) -> Result<Outcome, Error> {
        match item {
            Item::Restore { backup, step } => self.restore(backup, step),
            // What an owner had under way when the restore began.
            Item::Change(_) | Item::Rejected { .. } if self.restores.under_way() => Ok(Outcome::Refused { actual: 0 }),
            _ if self.restores.under_way() => Ok(Outcome::Done),
            Item::Change(change) => self.apply_change(change),
            Item::EffectsDone(numbers) => {
                for number in numbers {
                    self.drop_outgoing(number);
                }
                Ok(Outcome::Done)
            }
            Item::TaskFailed { number, attempts, retry_at_ms, error } => {
                self.note_failure(number, attempts, retry_at_ms, error)?;
                Ok(Outcome::Done)
            }
            Item::TimerDone { at_ms, number } => {
                self.drop_timer(at_ms, number)?;
                Ok(Outcome::Done)
            }
            Item::ForgetKeys { before_ms, limit } => {
                self.forget_answers(before_ms, limit as usize)?;
                Ok(Outcome::Done)
            }
            Item::GiveUp { number, at_ms, error } => {
                self.bury(number, at_ms, error)?;
                Ok(Outcome::Done)
            }
            Item::RetryDeadLetter { number, at_ms, answer } => {
                self.retry_letter(number, at_ms, answer)?;
                Ok(Outcome::Done)
            }
            Item::DiscardDeadLetter { number, answer } => {
                self.discard_letter(number, answer, None)?;
                Ok(Outcome::Done)
            }
            Item::DiscardTask { number, answer, word } => {
                self.discard_letter(number, answer, Some(word))?;
                Ok(Outcome::Done)
            }
            Item::Rejected { key, base_version, answer } => self.apply_rejection(&key, base_version, answer),
        }
    }

    fn apply_change(&mut self, change: Change) -> Result<Outcome, Error> {
        if self.has_happened(&change)? && !sabotage::is(Sabotage::SkipDedup) {
            return Ok(Outcome::Duplicate);
        }
        let actual = self.entity(&change.key)?.version;
        if actual != change.base_version && !sabotage::is(Sabotage::SkipGapless) {
            return Ok(Outcome::Refused { actual });
        }
        let version = self.fold(&change)?;
        self.take_cause(&change.cause, change.at_ms)?;
        if let Some(answer) = change.answer {
            self.keep_answer(&change.key, answer)?;
        }
        for effect in change.effects {
            self.add_effect(&change.key, effect, change.at_ms)?;
        }
        Ok(Outcome::Changed { version })
    }

    /// Nothing changes but that the key has its answer. Like a change it counts only for the version
    /// that it was decided on.
    fn apply_rejection(&mut self, key: &EntityKey, base_version: u64, answer: KeyedAnswer) -> Result<Outcome, Error> {
        if self.answer(key, &answer.idempotency_key)?.is_some() && !sabotage::is(Sabotage::SkipDedup) {
            return Ok(Outcome::Duplicate);
        }
        let version = self.entity(key)?.version;
        if version != base_version && !sabotage::is(Sabotage::SkipGapless) {
            return Ok(Outcome::Refused { actual: version });
        }
        self.keep(key, Kept { answer, rejected: true })?;
        Ok(Outcome::Changed { version })
    }

    fn has_happened(&self, change: &Change) -> Result<bool, Error> {
        let by_cause = match &change.cause {
            Cause::Client => false,
            Cause::Effect { source, number, .. } => self.has_received(*source, *number),
            Cause::Timer { at_ms, number } => self.overlay.get(&keys::timer(*at_ms, *number))?.is_none(),
            Cause::Task { number, .. } => !self.outbox.contains_key(number),
        };
        Ok(by_cause
            || match &change.answer {
                Some(answer) => self.answer(&change.key, &answer.idempotency_key)?.is_some(),
                None => false,
            })
    }

    /// Appends the events to the history and folds them into the state.
    fn fold(&mut self, change: &Change) -> Result<u64, Error> {
        let entity_type = self.registry.entity_type(&change.key.entity_type).cloned();
        let mut version = change.base_version;
        for event in &change.events {
            version += 1;
            let record = EventRecord { at_ms: change.at_ms, event: event.clone() };
            self.overlay.put(keys::history(&change.key, version), encode(&record)?);
        }
        let Some(entity) = self.entities.get_mut(&change.key) else { return Ok(version) };
        let rows = |entity: &Entity| match (&entity_type, &entity.state) {
            (Some(entity_type), Some(state)) => Some(lists::of(entity_type, &change.key, entity.version, state)),
            _ => None,
        };
        let before = rows(entity);
        for event in &change.events {
            let folded = match (&entity_type, &mut entity.state) {
                (Some(entity_type), Some(state)) => catch_unwind(AssertUnwindSafe(|| entity_type.evolve(state, event))),
                _ => break,
            };
            if !matches!(folded, Ok(Ok(()))) {
                tracing::error!(entity = %change.key, version, "an event cannot be folded; the entity is closed");
                entity.state = None;
            }
        }
        entity.version = version;
        entity.at_ms = entity.at_ms.max(change.at_ms);
        entity.dirty = true;
        match (before, rows(entity)) {
            _ if change.events.is_empty() => {}
            (Some(before), Some(after)) => self.move_rows(&change.key, &before, &after),
            _ => self.rows_are_lost(&change.key.entity_type),
        }
        Ok(version)
    }

    fn take_cause(&mut self, cause: &Cause, now_ms: u64) -> Result<(), Error> {
        match cause {
            Cause::Client => {}
            Cause::Effect { source, number, done_below } => self.receive(*source, *number, *done_below)?,
            Cause::Timer { at_ms, number } => self.drop_timer(*at_ms, *number)?,
            Cause::Task { number, dead: Some(error) } => self.bury(*number, now_ms, error.clone())?,
            Cause::Task { number, dead: None } => self.drop_outgoing(*number),
        }
        Ok(())
    }

    fn add_effect(&mut self, from: &EntityKey, effect: Effect, now_ms: u64) -> Result<(), Error> {
        match effect {
            Effect::Tell { entity_type, id, command } => match EntityKey::new(entity_type, id) {
                Ok(to) => self.add_outgoing(from, Delivery::Tell { to, command })?,
                Err(error) => tracing::error!(entity = %from, %error, "an effect names no entity and is dropped"),
            },
            Effect::Task(task) => {
                self.add_outgoing(from, Delivery::Queued(QueuedTask::new(task, now_ms)))?;
            }
            Effect::TimedTask(TimedTask { task, run_at_ms, deadline_ms }) => {
                let queued = QueuedTask { next_at_ms: run_at_ms, deadline_ms, ..QueuedTask::new(task, now_ms) };
                self.add_outgoing(from, Delivery::Queued(queued))?;
            }
            Effect::Schedule { name, at_ms, command } => {
                self.cancel_timer(from, &name)?;
                self.add_timer(Timer { entity: from.clone(), name, command }, at_ms)?;
            }
            Effect::CancelSchedule { name } => self.cancel_timer(from, &name)?,
        }
        Ok(())
    }

    pub(super) fn add_outgoing(&mut self, from: &EntityKey, delivery: Delivery) -> Result<(), Error> {
        self.meta.next_effect += 1;
        let number = self.meta.next_effect;
        let outgoing = Outgoing { from: from.clone(), delivery };
        self.overlay.put_new(keys::outbox(number), encode(&outgoing)?);
        self.outbox.insert(number, outgoing);
        Ok(())
    }

    pub(super) fn drop_outgoing(&mut self, number: u64) {
        if self.outbox.remove(&number).is_some() {
            self.overlay.delete(keys::outbox(number));
        }
    }

    fn note_failure(&mut self, number: u64, failures: u32, at_ms: u64, error: String) -> Result<(), Error> {
        if let Some(outgoing) = self.outbox.get_mut(&number) {
            if let Delivery::Queued(task) = &mut outgoing.delivery {
                (task.attempts, task.next_at_ms, task.last_error) = (failures, at_ms, Some(error));
            }
            self.overlay.put(keys::outbox(number), encode(outgoing)?);
        }
        Ok(())
    }

    fn add_timer(&mut self, timer: Timer, at_ms: u64) -> Result<(), Error> {
        self.meta.next_timer += 1;
        let number = self.meta.next_timer;
        self.overlay.put(keys::timer_name(&timer.entity, &timer.name), encode(&(at_ms, number))?);
        self.overlay.put_new(keys::timer(at_ms, number), encode(&timer)?);
        let added = (at_ms, number);
        self.next_timer = Some(self.next_timer.map_or(added, |next| next.min(added)));
        Ok(())
    }

    fn cancel_timer(&mut self, entity: &EntityKey, name: &str) -> Result<(), Error> {
        let by_name = keys::timer_name(entity, name);
        if let Some(bytes) = self.overlay.get(&by_name)? {
            let (at_ms, number) = decode(&bytes)?;
            self.overlay.delete(keys::timer(at_ms, number));
            self.overlay.delete(by_name);
        }
        Ok(())
    }

    fn drop_timer(&mut self, at_ms: u64, number: u64) -> Result<(), Error> {
        let key = keys::timer(at_ms, number);
        if let Some(bytes) = self.overlay.get(&key)? {
            let timer: Timer = decode(&bytes)?;
            self.overlay.delete(key);
            self.overlay.delete(keys::timer_name(&timer.entity, &timer.name));
        }
        self.refresh_next_timer()
    }

    /// Up to `limit` timers due at `now_ms`, earliest first.
    pub fn due_timers(&self, now_ms: u64, limit: usize) -> Result<Vec<(u64, u64, Timer)>, Error> {
        let Some((at_ms, number)) = self.next_timer else { return Ok(Vec::new()) };
        let (start, end) = (keys::timer(at_ms, number), keys::timer(now_ms.saturating_add(1), 0));
        let mut due = Vec::new();
        for (key, value) in self.overlay.scan(&start, &end, limit)? {
            if let Some((at_ms, number)) = keys::parse_timer(&key) {
                due.push((at_ms, number, decode(&value)?));
            }
        }
        Ok(due)
    }

    pub fn has_received(&self, source: GroupId, number: u64) -> bool {
        self.received.get(&source).is_some_and(|r| number < r.below || r.numbers.contains(&number))
    }

    fn receive(&mut self, source: GroupId, number: u64, done_below: u64) -> Result<(), Error> {
        let received = self.received.entry(source).or_default();
        received.numbers.insert(number);
        self.overlay.put_new(keys::received(source, number), Bytes::new());
        if done_below > received.below {
            received.below = done_below;
            let kept = received.numbers.split_off(&done_below);
            for old in std::mem::replace(&mut received.numbers, kept) {
                self.overlay.delete(keys::received(source, old));
            }
            self.overlay.put(keys::received(source, 0), encode(&done_below)?);
        }
        Ok(())
    }

    pub(super) fn keep_answer(&mut self, entity: &EntityKey, answer: KeyedAnswer) -> Result<(), Error> {
        self.keep(entity, Kept { answer, rejected: false })
    }

    fn keep(&mut self, entity: &EntityKey, kept: Kept) -> Result<(), Error> {
        let KeyedAnswer { idempotency_key, expires_at_ms, .. } = &kept.answer;
        let expiry = keys::answer_expiry(*expires_at_ms, entity, idempotency_key);
        self.overlay.put(keys::answer(entity, idempotency_key), kept.encode().map_err(corrupt)?);
        self.overlay.put(expiry, encode(&self.place)?);
        Ok(())
    }

    pub fn answer(&self, entity: &EntityKey, idempotency_key: &str) -> Result<Option<Kept>, Error> {
        let kept = self.overlay.get(&keys::answer(entity, idempotency_key))?;
        kept.map(|bytes| Kept::decode(&bytes).map_err(corrupt)).transpose()
    }

    /// Where the change was made whose answer this is; `None` if an older build made it.
    pub fn place_of(&self, entity: &EntityKey, answer: &KeyedAnswer) -> Result<Option<LogPlace>, Error> {
        let expiry = keys::answer_expiry(answer.expires_at_ms, entity, &answer.idempotency_key);
        let place = self.overlay.get(&expiry)?.filter(|bytes| !bytes.is_empty());
        place.map(|bytes| decode(&bytes)).transpose()
    }

    /// Whether some answer expired before `now_ms`.
    pub fn has_expired_answers(&self, now_ms: u64) -> Result<bool, Error> {
        Ok(!self.overlay.scan(b"x", &[b"x".as_slice(), &now_ms.to_be_bytes()].concat(), 1)?.is_empty())
    }

    fn forget_answers(&mut self, before_ms: u64, limit: usize) -> Result<(), Error> {
        let end = [b"x".as_slice(), &before_ms.to_be_bytes()].concat();
        for (key, _) in self.overlay.scan(b"x", &end, limit)? {
            if let Some((_, answer)) = keys::parse_answer_expiry(&key) {
                self.overlay.delete(answer);
            }
            self.overlay.delete(key);
        }
        Ok(())
    }

    /// The entity as applied; version 0 and an empty state if it has no events.
    pub fn entity(&mut self, key: &EntityKey) -> Result<&mut Entity, Error> {
        if !self.entities.contains_key(key) {
            let loaded = self.load_entity(key)?;
            self.entities.insert(key.clone(), loaded);
        }
        match self.entities.get_mut(key) {
            Some(entity) => {
                entity.used = true;
                Ok(entity)
            }
            None => Err(Error::Poisoned { detail: format!("entity {key} vanished from the cache") }),
        }
    }

    /// Shows an entity as applied, without keeping it in the cache if it is not there.
    pub(super) fn with_entity<R>(
        &self,
        key: &EntityKey,
        show: impl FnOnce(&Entity) -> Result<R, Error>,
    ) -> Result<R, Error> {
        match self.entities.get(key) {
            Some(entity) => show(entity),
            None => show(&self.load_entity(key)?),
        }
    }

    fn load_entity(&self, key: &EntityKey) -> Result<Entity, Error> {
        let record: Option<EntityRecord> =
            self.overlay.get(&keys::entity(key))?.map(|bytes| decode(&bytes)).transpose()?;
        let (version, at_ms, stored) = record.map_or((0, 0, None), |r| (r.version, r.at_ms, r.state));
        let Some(entity_type) = self.registry.entity_type(&key.entity_type) else {
            return Ok(Entity { version, at_ms, state: None, dirty: false, used: true });
        };
        let state = match (version, stored) {
            (0, _) => Some(entity_type.empty()),
            (_, Some(stored)) => match entity_type.load(&stored) {
                Ok(Some(state)) => Some(state),
                Ok(None) => self.refold(key, version)?,
                Err(error) => {
                    tracing::error!(entity = %key, %error, "a stored state cannot be read; folding its history");
                    self.refold(key, version)?
                }
            },
            (_, None) => self.refold(key, version)?,
        };
        Ok(Entity { version, at_ms, state, dirty: false, used: true })
    }

    /// Folds the whole history again: after a change of the state's encoding.
    fn refold(&self, key: &EntityKey, version: u64) -> Result<Option<State>, Error> {
        const STEP: usize = 256;
        let Some(entity_type) = self.registry.entity_type(&key.entity_type) else { return Ok(None) };
        let (mut state, mut after) = (entity_type.empty(), 0);
        while after < version {
            let events = self.history(key, after, STEP)?;
            let Some(last) = events.last().map(|e| e.sequence) else { return Ok(None) };
            for stored in &events {
                let folded = catch_unwind(AssertUnwindSafe(|| entity_type.evolve(&mut state, &stored.event)));
                if !matches!(folded, Ok(Ok(()))) {
                    tracing::error!(entity = %key, sequence = stored.sequence, "an event cannot be folded");
                    return Ok(None);
                }
            }
            after = last;
        }
        Ok(Some(state))
    }

    /// Events after number `after`, oldest first.
    pub fn history(&self, key: &EntityKey, after: u64, limit: usize) -> Result<Vec<StoredEvent>, Error> {
        let start = keys::history(key, after.saturating_add(1));
        let end = keys::history(key, u64::MAX);
        let mut events = Vec::new();
        for (key, value) in self.overlay.scan(&start, &end, limit)? {
            let Some((_, sequence)) = key.split_last_chunk::<8>() else { continue };
            let record: EventRecord = decode(&value)?;
            let sequence = u64::from_be_bytes(*sequence);
            events.push(StoredEvent { sequence, at_ms: record.at_ms, event: record.event });
        }
        Ok(events)
    }

    /// A copy of an entity's state, and its encoded form's parts.
    pub fn copy_of(&mut self, key: &EntityKey) -> Result<(u64, u64, Option<State>), Error> {
        let entity_type = self.registry.entity_type(&key.entity_type).cloned();
        let entity = self.entity(key)?;
        let state = match (&entity_type, &entity.state) {
            (Some(entity_type), Some(state)) => Some(entity_type.copy(state)),
            _ => None,
        };
        Ok((entity.version, entity.at_ms, state))
    }

    /// Looks at an entity's state without keeping it: its version, and what was found. `None` if it
    /// has no events or no readable state.
    pub fn with_state<R>(&self, key: &EntityKey, look: impl FnOnce(&State) -> R) -> Result<Option<(u64, R)>, Error> {
        let loaded;
        let entity = match self.entities.get(key) {
            Some(entity) => entity,
            None => {
                loaded = self.load_entity(key)?;
                &loaded
            }
        };
        let state = entity.state.as_ref().filter(|_| entity.version > 0);
        Ok(state.map(|state| (entity.version, look(state))))
    }

    /// The encoded state as applied, or `None` if the entity has no events or no readable state.
    pub fn encoded_state(&mut self, key: &EntityKey) -> Result<(u64, Option<Versioned>), Error> {
        let entity_type = self.registry.entity_type(&key.entity_type).cloned();
        let entity = self.entity(key)?;
        let state = match (&entity_type, &entity.state) {
            (Some(entity_type), Some(state)) if entity.version > 0 => Some(entity_type.save(state).map_err(corrupt)?),
            _ => None,
        };
        Ok((entity.version, state))
    }

    /// Writes changed entities and the progress into the overlay, ready to be flushed.
    pub fn prepare_checkpoint(&mut self, receipts_kept: u64) -> Result<(), Error> {
        self.settle()?;
        self.ledger.checkpoint(&mut self.overlay, receipts_kept)?;
        self.overlay.write(keys::CHAIN.to_vec(), encode(self.overlay.chain.saved())?);
        self.overlay.write(keys::META.to_vec(), encode(&self.meta)?);
        Ok(())
    }

    /// Writes changed entities into the overlay, which then holds all that is not in the store.
    pub fn settle(&mut self) -> Result<(), Error> {
        let mut records = Vec::new();
        for (key, entity) in self.entities.iter_mut().filter(|(_, e)| e.dirty) {
            let entity_type = self.registry.entity_type(&key.entity_type);
            let state = match (entity_type, &entity.state) {
                (Some(entity_type), Some(state)) => Some(entity_type.save(state).map_err(corrupt)?),
                _ => None,
            };
            let record = EntityRecord { version: entity.version, at_ms: entity.at_ms, state };
            records.push((keys::entity(key), encode(&record)?));
            entity.dirty = false;
        }
        for (key, record) in records {
            self.overlay.write(key, record);
        }
        if std::mem::take(&mut self.lists_changed) {
            self.overlay.write(keys::LISTS.to_vec(), encode(&self.lists)?);
        }
        Ok(())
    }

    /// Drops clean entities that were not used since the last call, if there are more than `max`.
    pub fn shrink_cache(&mut self, max: usize) {
        if self.entities.len() > max {
            self.entities.retain(|_, e| e.dirty || std::mem::take(&mut e.used));
        }
        if self.entities.len() > max {
            self.entities.retain(|_, e| e.dirty);
        }
    }
}

/// An entity's record, of which the history says everything else, and how many events that has.
pub(super) fn without_state(record: &[u8]) -> Result<(Bytes, u64), Error> {
    let record = EntityRecord { state: None, ..decode(record)? };
    Ok((encode(&record)?.into(), record.version))
}

pub(super) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, Error> {
    codec::encode_state(value).map_err(corrupt)
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    codec::decode("applied state", bytes).map_err(corrupt)
}

pub(super) fn corrupt(error: codec::Error) -> Error {
    Error::Corrupt { place: "applied state".into(), detail: error.to_string() }
}

#[cfg(test)]
pub(super) mod tests;
