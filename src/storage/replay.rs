//! The walk over the journal at open: rebuilds where every entry is, and proves that nothing that
//! was acknowledged is damaged or missing.

use super::{
    Error, GroupId,
    engine::{JOURNAL_PREFIX, Trees},
    head::Head,
    ledger::Ledger,
    meta::Meta,
    record::{Block, Header, Kind, RECORD_HEADER, corrupt_record, hash},
    runs::{At, Run},
};
use bytes::Bytes;

/// An entry whose parts are being read.
struct Parts {
    group: GroupId,
    index: u64,
    at: At,
}

/// The walk over the journal, and what it found.
pub(super) struct Replay {
    /// As stored with the last drop at first, as of the last record in the end.
    pub meta: Meta,
    pub ledger: Ledger,
    /// The last record.
    pub newest: Head,
    parts: Option<Parts>,
}

impl Replay {
    /// Walks from the anchor in `meta` to the end, which must not be before the `noted` head.
    pub fn run(trees: &Trees, meta: Meta, noted: Option<Head>) -> Result<Self, Error> {
        let newest = Head { seq: meta.anchor.seq, hash: meta.anchor.hash };
        let mut replay = Self { meta, ledger: Ledger::new(newest.seq + 1), newest, parts: None };
        let bound = noted.unwrap_or_default();
        let mut meta_digest = 0;
        replay.check_bound(bound)?;
        for pair in trees.store.scan_prefix([JOURNAL_PREFIX]) {
            let (key, record) = pair.map_err(|e| corrupt("the journal", e.to_string()))?;
            meta_digest = replay.record(&key, &record)?;
            replay.check_bound(bound)?;
        }
        replay.finish(bound, noted.is_some(), meta_digest)?;
        Ok(replay)
    }

    /// The record of the head note must be the one that was noted.
    fn check_bound(&self, bound: Head) -> Result<(), Error> {
        if self.newest.seq == bound.seq && self.newest.hash != bound.hash && bound.seq > 0 {
            return Err(corrupt_record(bound.seq, "its hash is not the one in the head file".into()));
        }
        Ok(())
    }

    fn record(&mut self, key: &[u8], record: &[u8]) -> Result<u64, Error> {
        let seq = self.newest.seq + 1;
        let found = key.get(1..).and_then(|key| key.try_into().ok()).map(u64::from_be_bytes);
        let found = found.ok_or_else(|| corrupt("the journal", format!("unknown key {key:02x?}")))?;
        if found != seq {
            return Err(corrupt_record(
                seq.min(found),
                if found > seq {
                    format!("missing; the next one is {found}")
                } else {
                    "should have been dropped".into()
                },
            ));
        }
        let header = Header::read(seq, record)?;
        if header.previous != self.newest.hash {
            let place = if seq == self.meta.anchor.seq + 1 { seq } else { seq - 1 };
            return Err(corrupt_record(place, format!("record {seq} is not chained to the record before it")));
        }
        self.ledger.open(seq);
        let mut offset = RECORD_HEADER;
        for _ in 0..header.blocks {
            let block = Block::read(seq, record, offset)?;
            self.block(seq, offset, &block)?;
            offset = block.end();
        }
        if offset != record.len() {
            return Err(corrupt_record(seq, format!("{} bytes after its last block", record.len() - offset)));
        }
        self.newest = Head { seq, hash: hash(record) };
        self.ledger.set_hash(seq, self.newest.hash);
        Ok(header.meta_digest)
    }

    fn block(&mut self, seq: u64, offset: usize, block: &Block<'_>) -> Result<(), Error> {
        match block.kind {
            Kind::Append => {
                block.entries(0..0, &mut Vec::new())?;
                let range = block.indexes()?;
                self.append(
                    block,
                    Run { first: range.start, end: range.end, place: At { seq, offset: offset as u32, parts: 0 } },
                )
            }
            Kind::Part => self.part(seq, offset, block),
            Kind::Truncate => {
                self.ledger.truncate(block.group, block.first);
                Ok(())
            }
            Kind::Purge => {
                self.meta.set_purged(block.group, block.first, Bytes::copy_from_slice(block.payload));
                self.ledger.purge(block.group, block.first);
                Ok(())
            }
            Kind::Vote => {
                self.meta.set_vote(block.group, Bytes::copy_from_slice(block.payload));
                Ok(())
            }
            Kind::State => Ok(()),
        }
    }

    /// Entries of a record that was dropped are dead, and so are those below the purge mark; what
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
            // The entry was dead when its first records were dropped.
            None if first_seq <= self.meta.anchor.seq => return Ok(()),
            _ => return Err(block.corrupt("a part without the ones before it")),
        }
        if number + 1 < block.count {
            return Ok(());
        }
        self.parts = None;
        self.append(block, Run { first: block.first, end: block.indexes()?.end, place: at })
    }

    fn finish(&self, bound: Head, is_noted: bool, meta_digest: u64) -> Result<(), Error> {
        if self.newest.seq < bound.seq {
            let detail = format!(
                "missing: record {} is known to be durable, the journal ends at {}",
                bound.seq, self.newest.seq
            );
            return Err(corrupt_record(self.newest.seq + 1, detail));
        }
        if self.newest.seq > 0 && !is_noted {
            return Err(corrupt("the head file", "missing, although the journal has records".into()));
        }
        if meta_digest != self.meta.digest() {
            let detail = format!("they are not those of journal record {}", self.newest.seq);
            return Err(corrupt("votes, purge marks and digests", detail));
        }
        if let Some(parts) = &self.parts {
            return Err(corrupt(
                &format!("journal, group {}, entry {}", parts.group.0, parts.index),
                "its last part is missing".into(),
            ));
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

pub(super) fn corrupt(place: &str, detail: String) -> Error {
    Error::Corrupt { place: place.to_owned(), detail }
}
