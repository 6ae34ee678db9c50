//! Writing the journal, and finding its records again.
//!
//! ```text
//! drafts ─▶ seal (hash chain) ─▶ append to the current segment ─▶ table learns the places
//!             └ no room: rotate ─▶ sync ─▶ next segment, its head durable ─▶ old segments retire
//! ```

use super::{
    Error,
    head::Head,
    held,
    meta::Meta,
    pack::Draft,
    record::{Hash, Header, corrupt_record, hash},
    segment::{SegmentDir, SegmentHead},
};
use crate::sabotage::{self, Sabotage};
use parking_lot::RwLock;
use std::{collections::VecDeque, fs::File, io, os::unix::fs::FileExt, sync::Arc};

/// Where every record is; shared by the writer and all readers.
#[derive(Debug, Clone, Default)]
pub(super) struct Table(Arc<RwLock<VecDeque<Segment>>>);

#[derive(Debug)]
struct Segment {
    first: u64,
    file: Arc<File>,
    /// Offset and length of each record.
    records: Vec<(u32, u32)>,
}

impl Table {
    /// A segment behind the present ones, without records yet.
    pub fn push_segment(&self, first: u64, file: Arc<File>) {
        self.0.write().push_back(Segment { first, file, records: Vec::new() });
    }

    /// The next record of the newest segment.
    pub fn push_record(&self, offset: u64, length: usize) {
        if let Some(newest) = self.0.write().back_mut() {
            newest.records.push((offset as u32, length as u32));
        }
    }

    /// Reads record `seq` and checks its header; `None` if there is no such record (any more).
    pub fn read(&self, seq: u64) -> Result<Option<Vec<u8>>, Error> {
        let Some((file, offset, length)) = self.find(seq) else { return Ok(None) };
        held::let_go_of_all().map_err(|e| corrupt_record(seq, format!("cannot be written: {e}")))?;
        let mut record = vec![0; length];
        file.read_exact_at(&mut record, offset).map_err(|e| corrupt_record(seq, format!("cannot be read: {e}")))?;
        Header::read(seq, &record)?;
        Ok(Some(record))
    }

    fn find(&self, seq: u64) -> Option<(Arc<File>, u64, usize)> {
        let segments = self.0.read();
        let at = segments.partition_point(|segment| segment.first <= seq).checked_sub(1)?;
        let segment = segments.get(at)?;
        let (offset, length) = *segment.records.get((seq - segment.first) as usize)?;
        Some((segment.file.clone(), u64::from(offset), length as usize))
    }

    /// First sequence number of the segment that holds `seq`, or of the newest one.
    fn segment_of(&self, seq: u64) -> Option<u64> {
        let segments = self.0.read();
        let holds = |s: &Segment| s.first + s.records.len() as u64 > seq;
        segments.iter().find(|s| holds(s)).or(segments.back()).map(|s| s.first)
    }

    /// How many segments there are behind the one that holds `seq`.
    pub fn segments_after(&self, seq: u64) -> usize {
        let segments = self.0.read();
        segments.len() - segments.partition_point(|segment| segment.first <= seq)
    }

    /// Takes out the segments before the one that begins with `oldest`.
    fn take_before(&self, oldest: u64) -> Vec<u64> {
        let mut segments = self.0.write();
        let gone = segments.partition_point(|segment| segment.first < oldest);
        segments.drain(..gone).map(|segment| segment.first).collect()
    }

    /// The file, offset and length of every record, for tests that damage them.
    #[cfg(test)]
    pub fn all(&self) -> Vec<(u64, Arc<File>, u64, usize)> {
        let segments = self.0.read();
        let records = segments.iter().flat_map(|s| {
            let places = (s.first..).zip(&s.records);
            places.map(|(seq, (offset, length))| (seq, s.file.clone(), u64::from(*offset), *length as usize))
        });
        records.collect()
    }
}

/// The writer's end.
#[derive(Debug)]
pub(super) struct Journal {
    dir: SegmentDir,
    table: Table,
    /// The segment being written and its first sequence number; none before the first record.
    current: Option<(u64, Arc<File>)>,
    /// Where the next record goes.
    end: u64,
    /// What the next record is chained to: the last record, or the head of its segment.
    chain: Hash,
    newest: Head,
}

/// Where an opened journal goes on.
pub(super) struct End {
    pub current: Option<(u64, Arc<File>)>,
    pub end: u64,
    pub chain: Hash,
    pub newest: Head,
}

impl Journal {
    pub fn new(dir: SegmentDir, table: Table, end: End) -> Self {
        let End { current, end, chain, newest } = end;
        Self { dir, table, current, end, chain, newest }
    }

    pub fn next_seq(&self) -> u64 {
        self.newest.seq + 1
    }

    /// Writes the records behind the present ones; durable after [`Journal::sync`]. `meta` is as of
    /// after them, `oldest_live` the first record that must be kept.
    pub fn append(&mut self, drafts: Vec<Draft>, meta: &Meta, oldest_live: u64) -> io::Result<()> {
        for draft in drafts {
            let seq = self.next_seq();
            let has_room = self.end + draft.len() as u64 <= self.dir.segment_bytes();
            let file = match &self.current {
                Some((first, file)) if has_room || *first == seq => file.clone(),
                _ => self.rotate(meta, oldest_live)?,
            };
            let (bytes, hash) = draft.seal(seq, self.chain);
            let length = bytes.len();
            match sabotage::is(Sabotage::SkipFsync) {
                true => held::hold(file, self.end, bytes, self.newest),
                false => file.write_all_at(&bytes, self.end)?,
            }
            self.table.push_record(self.end, length);
            self.end += length as u64;
            self.chain = hash;
            self.newest = Head { seq, hash };
        }
        Ok(())
    }

    /// Makes everything written durable; gives the newest record that is.
    pub fn sync(&self) -> io::Result<Head> {
        let held_from = held::let_go_of_old()?;
        if let Some((_, file)) = &self.current {
            file.sync_data()?;
        }
        Ok(held_from.unwrap_or(self.newest))
    }

    /// Begins a new segment, and lets those go that nothing needs any more.
    fn rotate(&mut self, meta: &Meta, oldest_live: u64) -> io::Result<Arc<File>> {
        held::let_go_of_all()?;
        self.sync()?;
        let first = self.next_seq();
        let oldest = self.table.segment_of(oldest_live).filter(|_| oldest_live < first).unwrap_or(first);
        let head = SegmentHead { first, oldest, previous: self.chain, meta: meta.clone() };
        let (file, bytes) = self.dir.create(&head)?;
        let file = Arc::new(file);
        self.table.push_segment(first, file.clone());
        (self.end, self.chain) = (bytes.len() as u64, hash(&bytes));
        self.current = Some((first, file.clone()));
        // Only now that the new head says so may they be missing.
        for gone in self.table.take_before(oldest) {
            self.dir.retire(gone)?;
        }
        Ok(file)
    }
}
