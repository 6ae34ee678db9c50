//! openraft's log on top of the shared journal: recent entries in memory, the rest read back.

use super::types::{Entry, LogId, Types, decode, encode, from_record, position, to_record};
use crate::storage::{self, GroupId, Storage, Write};
use openraft::{
    LogState, OptionalSend, RaftLogReader,
    alias::VoteOf,
    entry::RaftEntry,
    storage::{IOFlushed, RaftLogStorage},
};
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    fmt::Debug,
    io,
    ops::{Bound, RangeBounds},
    sync::Arc,
};
use tokio_util::task::task_tracker::TaskTrackerToken;

#[derive(Clone)]
pub(super) struct LogStore(Arc<Shared>);

struct Shared {
    group: GroupId,
    storage: Arc<dyn Storage>,
    cache_bytes_max: usize,
    append_bytes_max: usize,
    log: Mutex<Log>,
    /// Last, so that it goes after what it stands for.
    _alive: TaskTrackerToken,
}

/// The part of the log that is kept in memory, and the ends of all of it.
#[derive(Default)]
struct Log {
    cache: BTreeMap<u64, Entry>,
    cache_bytes: usize,
    vote: Option<VoteOf<Types>>,
    purged: Option<LogId>,
    last: Option<LogId>,
    /// Entries up to here are durable, so the cache may drop them.
    durable: u64,
    /// Counts truncations: an append from before one says nothing about entries after it.
    epoch: u64,
}

impl LogStore {
    pub fn open(
        group: GroupId,
        storage: Arc<dyn Storage>,
        cache_bytes_max: usize,
        append_bytes_max: usize,
        alive: TaskTrackerToken,
    ) -> io::Result<Self> {
        let found = storage.group(group);
        let purged: Option<LogId> = match &found.purged {
            Some((_, mark)) => Some(decode(mark)?),
            None => None,
        };
        let last = match found.entries.end.checked_sub(1).filter(|_| !found.entries.is_empty()) {
            Some(index) => {
                let record = storage.entries(group, index..index + 1).map_err(to_io)?.pop();
                let record = record.ok_or_else(|| missing(group, index))?;
                Some(from_record(record)?.log_id())
            }
            None => purged,
        };
        let vote = found.vote.as_deref().map(decode).transpose()?;
        let durable = last.map_or(0, |id: LogId| id.index());
        let log = Mutex::new(Log { vote, purged, last, durable, ..Log::default() });
        Ok(Self(Arc::new(Shared { group, storage, cache_bytes_max, append_bytes_max, log, _alive: alive })))
    }

    /// Entries with `start <= index < end`, as far as they exist.
    fn read(&self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let (mut entries, cached) = {
            let log = self.0.log.lock();
            let cached: Vec<Entry> = log.cache.range(start..end.max(start)).map(|(_, e)| e.clone()).collect();
            let cached_from = cached.first().map_or(end, |e| e.index());
            let first = log.purged.map_or(0, |id| id.index() + 1).max(start);
            let past_last = log.last.map_or(0, |id| id.index() + 1);
            let from_disk = first..cached_from.min(past_last).max(first);
            drop(log);
            (self.read_journal(from_disk)?, cached)
        };
        entries.extend(cached);
        Ok(entries)
    }

    fn read_journal(&self, range: std::ops::Range<u64>) -> io::Result<Vec<Entry>> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let records = self.0.storage.entries(self.0.group, range).map_err(to_io)?;
        records.into_iter().map(from_record).collect()
    }

    fn submit(&self, write: Write) {
        let group = self.0.group;
        self.0.storage.submit(
            write,
            Box::new(move |result| {
                if let Err(error) = result {
                    tracing::error!(group = group.0, %error, "the journal failed");
                }
            }),
        );
    }
}

impl Log {
    fn push(&mut self, entry: Entry, bytes: usize) {
        self.last = Some(entry.log_id());
        self.cache_bytes += bytes;
        self.cache.insert(entry.index(), entry);
    }

    /// Drops the oldest durable entries until the cache is within its bound.
    fn evict(&mut self, bytes_max: usize) {
        while self.cache_bytes > bytes_max {
            match self.cache.first_entry() {
                Some(oldest) if *oldest.key() <= self.durable => {
                    let entry = oldest.remove();
                    self.cache_bytes = self.cache_bytes.saturating_sub(weight(&entry));
                }
                _ => return,
            }
        }
    }
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let start = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(index) => index + 1,
            Bound::Excluded(index) => *index,
            Bound::Unbounded => u64::MAX,
        };
        self.read(start, end)
    }

    async fn read_vote(&mut self) -> io::Result<Option<VoteOf<Types>>> {
        Ok(self.0.log.lock().vote)
    }

    /// As many entries as fit into one append request, and at least one.
    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        const STEP: u64 = 32;
        let (mut entries, mut bytes, mut next) = (Vec::new(), 0, start);
        while next < end {
            let read = self.read(next, end.min(next + STEP))?;
            next += STEP;
            for entry in read {
                bytes += weight(&entry);
                if bytes > self.0.append_bytes_max && !entries.is_empty() {
                    return Ok(entries);
                }
                entries.push(entry);
            }
        }
        Ok(entries)
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let log = self.0.log.lock();
        Ok(LogState { last_purged_log_id: log.purged, last_log_id: log.last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &VoteOf<Types>) -> io::Result<()> {
        let write = Write::Vote { group: self.0.group, vote: encode(vote)?.into() };
        self.0.storage.write(write).await.map_err(to_io)?;
        self.0.log.lock().vote = Some(*vote);
        Ok(())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut records = Vec::new();
        let epoch = {
            let mut log = self.0.log.lock();
            for entry in entries {
                records.push(to_record(&entry)?);
                let bytes = weight(&entry);
                log.push(entry, bytes);
            }
            log.evict(self.0.cache_bytes_max);
            log.epoch
        };
        let last = records.last().map_or(0, |r| r.index);
        let shared = self.0.clone();
        let done = move |result: Result<(), storage::Error>| {
            let mut log = shared.log.lock();
            if result.is_ok() && log.epoch == epoch {
                log.durable = log.durable.max(last);
            }
            drop(log);
            callback.io_completed(result.map_err(to_io));
        };
        self.0.storage.submit(Write::Append { group: self.0.group, entries: records }, Box::new(done));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let from = last.map_or(0, |id| id.index() + 1);
        {
            let mut log = self.0.log.lock();
            let gone = log.cache.split_off(&from);
            log.cache_bytes = log.cache_bytes.saturating_sub(gone.values().map(weight).sum());
            if log.last.is_some_and(|old| old.index() >= from) {
                log.last = last.or(log.purged);
            }
            log.durable = log.durable.min(from.saturating_sub(1));
            log.epoch += 1;
        }
        self.submit(Write::Truncate { group: self.0.group, from });
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        {
            let mut log = self.0.log.lock();
            let kept = log.cache.split_off(&(upto.index() + 1));
            let gone = std::mem::replace(&mut log.cache, kept);
            log.cache_bytes = log.cache_bytes.saturating_sub(gone.values().map(weight).sum());
            log.purged = Some(upto);
            log.last = log.last.max(Some(upto));
        }
        let mark = encode(&upto)?.into();
        self.submit(Write::Purge { group: self.0.group, upto: position(&upto).index, mark });
        Ok(())
    }
}

/// About how much memory an entry takes.
fn weight(entry: &Entry) -> usize {
    const OVERHEAD: usize = 96;
    match &entry.payload {
        openraft::EntryPayload::Normal(command) => command.0.len() + OVERHEAD,
        _ => OVERHEAD,
    }
}

fn to_io(error: storage::Error) -> io::Error {
    io::Error::other(error)
}

fn missing(group: GroupId, index: u64) -> io::Error {
    let detail = format!("the journal lacks entry {index} of group {}", group.0);
    io::Error::new(io::ErrorKind::InvalidData, detail)
}
