//! The walk over the journal at open: rebuilds where every entry is, and proves that nothing that
//! was acknowledged is damaged or missing.
//!
//! A group commit that was cut short leaves records that cannot be read at the end of the newest
//! segment. So the journal ends at the first record that does not continue the chain, as long as the
//! head note does not say that more of it is durable: then that record is damaged.

use super::{
    Error, GroupId,
    admission::INDEX_MAX,
    head::Head,
    journal::{End, Table},
    ledger::Ledger,
    meta::Meta,
    record::{Block, Hash, Header, Kind, RECORD_HEADER, corrupt_record, hash},
    runs::{At, Run},
    segment::{SegmentDir, SegmentHead, wipe},
};
use bytes::Bytes;
use std::{fs::File, io, os::unix::fs::FileExt, sync::Arc};

/// An entry whose parts are being read.
struct Parts {
    group: GroupId,
    index: u64,
    at: At,
}

/// A segment whose head is intact.
struct Opened {
    file: Arc<File>,
    head: SegmentHead,
    /// Where its records begin, and the hash of its head.
    start: u64,
    hash: Hash,
}

/// The newest segment, if its head is not intact.
type Broken = Option<(u64, Error)>;

/// The walk over the journal, and what it found.
pub(super) struct Replay {
    pub meta: Meta,
    pub ledger: Ledger,
    pub table: Table,
    /// The last record.
    newest: Head,
    /// What the next record must be chained to.
    chain: Hash,
    /// First record of the oldest segment.
    base: u64,
    parts: Option<Parts>,
}

impl Replay {
    /// Walks all segments; the journal must reach the `noted` head. Clears what a write that was
    /// cut short has left behind the end.
    pub fn run(dir: &mut SegmentDir, segments: &[u64], noted: Option<Head>) -> Result<(Self, End), Error> {
        let (opened, broken) = open_segments(dir, segments)?;
        let base = opened.first().map_or(1, |segment| segment.head.first);
        let first_chain = opened.first().map_or(Hash::default(), |segment| segment.head.previous);
        let mut replay = Self {
            meta: Meta::default(),
            ledger: Ledger::new(base),
            table: Table::default(),
            newest: Head { seq: base - 1, hash: first_chain },
            chain: first_chain,
            base,
            parts: None,
        };
        let bound = noted.unwrap_or_default();
        replay.check_bound(bound)?;
        let mut end = 0;
        for (number, segment) in opened.iter().enumerate() {
            replay.enter(segment)?;
            let (at, reason) = replay.walk(segment, bound)?;
            end = at;
            let next_first = opened.get(number + 1).map(|next| next.head.first);
            let reached = replay.newest.seq + 1;
            if next_first.is_some_and(|first| first != reached) || reached <= bound.seq && next_first.is_none() {
                return Err(broken.filter(|_| next_first.is_none()).map_or(reason, |(_, error)| error));
            }
        }
        if opened.is_empty() && bound.seq > 0 {
            return Err(broken.map_or_else(|| corrupt_record(1, "missing".into()), |(_, error)| error));
        }
        replay.finish(noted.is_some())?;
        let current = opened.last().map(|segment| (segment.head.first, segment.file.clone()));
        // The head of the newest segment was cut short, and nothing behind it was acknowledged.
        let cleared = broken.iter().try_for_each(|(first, _)| clear_segment(dir, *first));
        let cleared = cleared.and_then(|()| current.as_ref().map_or(Ok(()), |(_, file)| clear(file, end)));
        cleared.map_err(|e| Error::Unusable { path: dir.path().display().to_string(), detail: e.to_string() })?;
        let (chain, newest) = (replay.chain, replay.newest);
        Ok((replay, End { current, end, chain, newest }))
    }

    /// The record of the head note must be the one that was noted.
    fn check_bound(&self, bound: Head) -> Result<(), Error> {
        if self.newest.seq == bound.seq && self.newest.hash != bound.hash && bound.seq > 0 {
            return Err(corrupt_record(bound.seq, "its hash is not the one in the head file".into()));
        }
        Ok(())
    }

    fn enter(&mut self, segment: &Opened) -> Result<(), Error> {
        if segment.head.previous != self.chain {
            return Err(corrupt_record(
                self.newest.seq,
                format!("segment {} is not chained to it", segment.head.first),
            ));
        }
        self.meta = segment.head.meta.clone();
        self.chain = segment.hash;
        self.table.push_segment(segment.head.first, segment.file.clone());
        self.ledger.open(segment.head.first - 1);
        // A purge that only this head tells of.
        for (group, (upto, _)) in &self.meta.purged {
            self.ledger.purge(*group, *upto);
        }
        Ok(())
    }

    /// Reads records until one does not continue the journal; gives where that is, and why.
    fn walk(&mut self, segment: &Opened, bound: Head) -> Result<(u64, Error), Error> {
        let mut at = segment.start;
        loop {
            match self.read(&segment.file, at) {
                Ok(record) => {
                    self.record(&record)?;
                    self.table.push_record(at, record.len());
                    self.check_bound(bound)?;
                    at += record.len() as u64;
                }
                Err(reason) => return Ok((at, reason)),
            }
        }
    }

    /// The record at `at`, if it is intact and the next one of the chain.
    fn read(&self, file: &File, at: u64) -> Result<Vec<u8>, Error> {
        let seq = self.newest.seq + 1;
        let cut = |e: io::Error| corrupt_record(seq, format!("cannot be read: {e}"));
        let mut record = vec![0; RECORD_HEADER];
        match file.read_exact_at(&mut record, at) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Err(corrupt_record(seq, "missing".into())),
            other => other.map_err(cut)?,
        }
        let header = Header::parse(seq, &record)?;
        if header.previous != self.chain {
            return Err(corrupt_record(seq, "it is not chained to the record before it".into()));
        }
        record.resize(RECORD_HEADER + header.body as usize, 0);
        file.read_exact_at(&mut record[RECORD_HEADER..], at + RECORD_HEADER as u64).map_err(cut)?;
        let mut offset = RECORD_HEADER;
        for _ in 0..header.blocks {
            offset = Block::read(seq, &record, offset)?.end();
        }
        if offset != record.len() {
            return Err(corrupt_record(seq, format!("{} bytes after its last block", record.len() - offset)));
        }
        Ok(record)
    }

    /// Takes in a record that is known to be intact.
    fn record(&mut self, record: &[u8]) -> Result<(), Error> {
        let seq = self.newest.seq + 1;
        self.ledger.open(seq);
        let mut offset = RECORD_HEADER;
        while offset < record.len() {
            let block = Block::read(seq, record, offset)?;
            self.block(seq, offset, &block)?;
            offset = block.end();
        }
        self.newest = Head { seq, hash: hash(record) };
        self.chain = self.newest.hash;
        Ok(())
    }

    fn block(&mut self, seq: u64, offset: usize, block: &Block<'_>) -> Result<(), Error> {
        if block.kind != Kind::Part {
            // A write that was cut short between its parts was never acknowledged.
            self.parts = None;
        }
        match block.kind {
            Kind::Append => {
                block.entries(0..0, &mut Vec::new())?;
                let range = block.indexes()?;
                let place = At { seq, offset: offset as u32, parts: 0 };
                self.append(block, Run { first: range.start, end: range.end, place })?;
            }
            Kind::Part => self.part(seq, offset, block)?,
            Kind::Truncate => self.ledger.truncate(block.group, block.first),
            Kind::Purge if block.first > INDEX_MAX => return Err(block.corrupt("the index is out of range")),
            Kind::Purge => {
                self.meta.set_purged(block.group, block.first, Bytes::copy_from_slice(block.payload));
                self.ledger.purge(block.group, block.first);
            }
            Kind::Vote => self.meta.set_vote(block.group, Bytes::copy_from_slice(block.payload)),
            Kind::State => self.meta.set_state_epoch(block.first),
        }
        Ok(())
    }

    /// Entries of a segment that is gone are dead, and so are those below the purge mark; what
    /// remains must follow what is there.
    fn append(&mut self, block: &Block<'_>, mut run: Run<At>) -> Result<(), Error> {
        self.ledger.truncate(block.group, run.first);
        run.first = run.first.max(self.purged(block.group).map_or(0, |purged| purged + 1));
        if run.first >= run.end {
            return Ok(());
        }
        let present = self.ledger.runs(block.group).and_then(|runs| runs.range());
        if present.is_some_and(|present| present.end != run.first) {
            return Err(block.corrupt("entries before it are missing"));
        }
        self.ledger.append(block.group, &[run]);
        Ok(())
    }

    fn part(&mut self, seq: u64, offset: usize, block: &Block<'_>) -> Result<(), Error> {
        let (number, ..) = block.part()?;
        if offset != RECORD_HEADER || number >= block.count {
            return Err(block.corrupt("a part out of place"));
        }
        let first_seq = seq - u64::from(number).min(seq);
        let at = At { seq: first_seq, offset: offset as u32, parts: block.count };
        if number == 0 {
            self.parts = Some(Parts { group: block.group, index: block.first, at });
        }
        match &self.parts {
            Some(parts) if (parts.group, parts.index, parts.at) == (block.group, block.first, at) => {}
            // The entry was dead when the segment of its first records was let go.
            None if first_seq < self.base => return Ok(()),
            _ => return Err(block.corrupt("a part without the ones before it")),
        }
        if number + 1 < block.count {
            return Ok(());
        }
        self.parts = None;
        self.append(block, Run { first: block.first, end: block.indexes()?.end, place: at })
    }

    fn finish(&self, is_noted: bool) -> Result<(), Error> {
        if self.newest.seq > 0 && !is_noted {
            return Err(corrupt("the head file", "missing, although the journal has records".into()));
        }
        self.ledger.groups().try_for_each(|(group, runs)| {
            let next = self.purged(group).map(|purged| purged + 1);
            match (next, runs.range()) {
                (Some(next), Some(range)) if range.start != next => Err(corrupt(
                    &format!("journal, group {}, entries {next}..{}", group.0, range.start),
                    "missing".into(),
                )),
                _ => Ok(()),
            }
        })
    }

    fn purged(&self, group: GroupId) -> Option<u64> {
        self.meta.purged_upto(group)
    }
}

/// Opens all segments that are still needed, and retires the others. The head of the newest one may
/// be broken: then it is given apart, with the reason.
fn open_segments(dir: &mut SegmentDir, found: &[u64]) -> Result<(Vec<Opened>, Broken), Error> {
    let unusable = |dir: &SegmentDir, e: io::Error| Error::Unusable {
        path: dir.path().display().to_string(),
        detail: e.to_string(),
    };
    let mut opened = Vec::new();
    let mut broken = None;
    for first in found {
        let file = dir.open_segment(*first).map_err(|e| unusable(dir, e))?;
        match SegmentHead::read(*first, &file) {
            Ok((head, start, hash)) => opened.push(Opened { file: Arc::new(file), head, start, hash }),
            Err(error) if Some(first) == found.last() => broken = Some((*first, error)),
            Err(error) => return Err(error),
        }
    }
    let oldest = opened.last().map_or(1, |newest| newest.head.oldest);
    let needed = opened.partition_point(|segment| segment.head.first < oldest);
    for gone in opened.drain(..needed) {
        dir.retire(gone.head.first).map_err(|e| unusable(dir, e))?;
    }
    match opened.first() {
        Some(first) if first.head.first != oldest => Err(corrupt_record(oldest, "missing".into())),
        _ => Ok((opened, broken)),
    }
}

/// Clears what lies behind the end of the newest segment.
fn clear(file: &File, end: u64) -> io::Result<()> {
    wipe(file, end, file.metadata()?.len())?;
    file.sync_data()
}

fn clear_segment(dir: &mut SegmentDir, first: u64) -> io::Result<()> {
    clear(&dir.open_segment(first)?, 0)?;
    dir.retire(first)
}

pub(super) fn corrupt(place: &str, detail: String) -> Error {
    Error::Corrupt { place: place.to_owned(), detail }
}
