//! The rows of a shard's lists: written with the change that moves an entity, read in order, and
//! written anew where they are not those that this build writes.

use super::{ListEntry, ListPart, ListQuery, Room};
use crate::{
    entity::{EntityKey, Place, Row, Versioned},
    shard::{
        applied::{AppliedState, corrupt, decode, encode},
        keys,
        registry::{EntityType, State},
        request::StoredState,
    },
    storage::{Error, Write},
};
use bytes::Bytes;
use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc},
};

/// Entities or rows read at once while rows are written anew.
const STEP: usize = 256;

/// By entity type, the version that the rows of its lists are written in. A type that is missing
/// has rows that cannot be relied on, or none.
pub type Versions = BTreeMap<String, u16>;

/// The rows of an entity in this state.
pub fn of(entity_type: &Arc<dyn EntityType>, key: &EntityKey, version: u64, state: &State) -> Vec<Row> {
    if version == 0 || entity_type.lists_version() == 0 {
        return Vec::new();
    }
    match catch_unwind(AssertUnwindSafe(|| entity_type.rows(state))) {
        Ok(Ok(rows)) => rows,
        _ => {
            tracing::error!(entity = %key, version, "it cannot be told in which lists an entity is; it is in none");
            Vec::new()
        }
    }
}

impl AppliedState {
    /// Moves an entity from the rows that it had to those that it has. Most changes move nothing.
    pub fn move_rows(&mut self, key: &EntityKey, before: &[Row], after: &[Row]) {
        for row in before.iter().filter(|row| !after.contains(row)) {
            self.overlay.withdraw(keys::row(key, row));
        }
        for row in after.iter().filter(|row| !before.contains(row)) {
            self.overlay.write_absent(keys::row(key, row), Bytes::new());
        }
    }

    /// An entity has changed whose rows cannot be told: they are written anew once they can.
    pub fn rows_are_lost(&mut self, entity_type: &str) {
        self.lists_changed |= self.lists.remove(entity_type).is_some();
    }

    /// One look at a list: its next rows, and what is behind them.
    pub fn list(&self, asked: &ListQuery, room: Room) -> Result<ListPart, Error> {
        let prefixes = asked.lists.iter().map(|(list, of)| keys::list(&asked.entity_type, list, of));
        let prefixes: Vec<_> = prefixes.collect();
        let Some((walked, others)) = prefixes.split_first() else { return Ok(ListPart::default()) };
        let (start, end) = range(walked, asked);
        let rows = self.overlay.scan(&start, &end, room.rows)?;
        let applied_index = self.meta.progress.position.map_or(0, |position| position.index);
        let (mut entries, mut bytes, mut looked_at) = (Vec::new(), 0, asked.after.clone());
        for (at, (key, _)) in rows.iter().enumerate() {
            let Some((order, id)) = keys::parse_place(walked, key) else { continue };
            let place = Place { order, id: id.to_owned() };
            if self.is_in(others, &place)? {
                let (version, state) = self.listed_state(&asked.entity_type, id)?;
                let state = StoredState { state, version, applied_index };
                bytes += state.bytes();
                if bytes > room.bytes && !(room.is_empty && entries.is_empty()) {
                    return Ok(ListPart { entries, rest_after: looked_at });
                }
                entries.push(ListEntry { place: place.clone(), state });
            }
            looked_at = Some(place);
            if entries.len() >= asked.limit as usize && at + 1 < rows.len() {
                return Ok(ListPart { entries, rest_after: looked_at });
            }
        }
        let rest_after = looked_at.filter(|_| rows.len() == room.rows);
        Ok(ListPart { entries, rest_after })
    }

    fn is_in(&self, lists: &[Vec<u8>], place: &Place) -> Result<bool, Error> {
        for list in lists {
            if self.overlay.get(&keys::place(list, place.order, &place.id))?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What a list carries of an entity. The cache is looked into and not filled: who walks a long
    /// list must not drive out what is in use.
    fn listed_state(&self, entity_type: &str, id: &str) -> Result<(u64, Option<Versioned>), Error> {
        let damaged = |detail: String| Error::Corrupt { place: "a list".into(), detail };
        let key = EntityKey::new(entity_type, id).map_err(|e| damaged(e.to_string()))?;
        let registered = self.registry.entity_type(entity_type).cloned();
        self.with_entity(&key, |entity| match (&registered, &entity.state) {
            (Some(registered), Some(state)) => {
                Ok((entity.version, Some(registered.save_listed(state).map_err(corrupt)?)))
            }
            _ => Ok((entity.version, None)),
        })
    }

    /// Sees to it that all rows are those that this build writes. Slow only where they are not:
    /// then every entity of the type is read.
    pub fn open_lists(&mut self) -> Result<(), Error> {
        let stored: Versions = match self.overlay.get(keys::LISTS)? {
            Some(bytes) => decode(&bytes)?,
            None => Versions::new(),
        };
        self.lists.clone_from(&stored);
        let registry = self.registry.clone();
        for entity_type in registry.entity_types().filter(|entity_type| entity_type.lists_version() > 0) {
            let (name, version) = (entity_type.name(), entity_type.lists_version());
            if stored.get(name) != Some(&version) {
                self.write_rows_anew(entity_type)?;
                self.lists.insert(name.to_owned(), version);
            }
        }
        let known = |name: &String| registry.entity_type(name).is_some_and(|found| found.lists_version() > 0);
        self.lists.retain(|name, _| known(name));
        // Written with the next checkpoint: only what that writes could make the old ones wrong.
        self.lists_changed = self.lists != stored;
        Ok(())
    }

    fn write_rows_anew(&mut self, entity_type: &Arc<dyn EntityType>) -> Result<(), Error> {
        let name = entity_type.name();
        let (entities, rows) = (keys::entities_of(name), keys::rows_of(name));
        let is_empty = |(start, end): &(Vec<u8>, Vec<u8>)| Ok::<_, Error>(self.overlay.scan(start, end, 1)?.is_empty());
        if is_empty(&entities)? && is_empty(&rows)? {
            return Ok(());
        }
        tracing::info!(group = self.overlay.group().0, entity_type = name, "the rows of its lists are written anew");
        // First of all, so that what is left halfway is never taken for whole.
        self.lists.remove(name);
        self.overlay.write(keys::LISTS.to_vec(), encode(&self.lists)?);
        self.write_now()?;
        self.drop_rows(rows)?;
        self.add_rows(entity_type, entities)
    }

    fn drop_rows(&mut self, (start, end): (Vec<u8>, Vec<u8>)) -> Result<(), Error> {
        loop {
            let rows = self.overlay.scan(&start, &end, STEP)?;
            if rows.is_empty() {
                return Ok(());
            }
            rows.into_iter().for_each(|(key, _)| self.overlay.withdraw(key));
            self.write_now()?;
        }
    }

    fn add_rows(
        &mut self,
        entity_type: &Arc<dyn EntityType>,
        (mut start, end): (Vec<u8>, Vec<u8>),
    ) -> Result<(), Error> {
        loop {
            let found = self.overlay.scan(&start, &end, STEP)?;
            let Some((last, _)) = found.last() else { return Ok(()) };
            start = [last.as_slice(), &[0]].concat();
            for (key, _) in &found {
                let id = keys::parse_entity_of(entity_type.name(), key);
                let key = id.and_then(|id| EntityKey::new(entity_type.name(), id).ok());
                let Some(key) = key else { continue };
                let rows = self.with_entity(&key, |entity| match &entity.state {
                    Some(state) => Ok(of(entity_type, &key, entity.version, state)),
                    None => Ok(Vec::new()),
                })?;
                self.move_rows(&key, &[], &rows);
            }
            self.write_now()?;
        }
    }

    /// Writes what has changed and waits for it. Only while nothing is applied yet.
    fn write_now(&mut self) -> Result<(), Error> {
        let changes = self.overlay.begin_flush();
        let (done, written) = mpsc::channel();
        // Who does not wait any more has failed already.
        let done = Box::new(move |result| drop(done.send(result)));
        self.overlay.storage().submit(Write::State(changes), done);
        let written = written.recv();
        self.overlay.flushed();
        written.unwrap_or_else(|_| Err(Error::Poisoned { detail: "the writer thread is gone".into() }))
    }
}

/// From behind the place to go on from, or the lowest order, to the highest order.
fn range(list: &[u8], asked: &ListQuery) -> (Vec<u8>, Vec<u8>) {
    let (lowest, highest) = asked.orders;
    let lowest = keys::place(list, lowest, "");
    let after = asked.after.as_ref().map(|after| [keys::place(list, after.order, &after.id), vec![0]].concat());
    // Ids are ASCII.
    let end = [keys::place(list, highest, ""), vec![0xff]].concat();
    (after.map_or(lowest.clone(), |after| after.max(lowest)), end)
}
