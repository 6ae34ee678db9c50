//! Packs the writes of one group commit into as few journal records as their limit allows.

use super::{
    EntryRecord, GroupId,
    record::{
        BLOCK_HEADER, Hash, Header, Kind, PART_HEADER, PAYLOAD_BYTES_MAX, RECORD_BYTES_MAX, RECORD_HEADER, hash,
        write_block_header,
    },
    runs::{At, Run},
};

/// Bytes of a part that are payload of the entry.
const PART_BYTES_MAX: usize = PAYLOAD_BYTES_MAX - PART_HEADER;

/// A record whose blocks are complete; its header is written when it is chained.
pub(super) struct Draft {
    bytes: Vec<u8>,
    blocks: u32,
}

impl Draft {
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Writes the header and gives the record's bytes and hash.
    pub fn seal(mut self, seq: u64, previous: Hash) -> (Vec<u8>, Hash) {
        let body = (self.bytes.len() - RECORD_HEADER) as u32;
        Header { seq, previous, body, blocks: self.blocks }.write(&mut self.bytes);
        let hash = hash(&self.bytes);
        (self.bytes, hash)
    }
}

/// An append block that may still grow.
struct Open {
    start: usize,
    group: GroupId,
    term: u64,
    first: u64,
    next: u64,
}

/// Collects blocks; see [`Packer::finish`].
pub(super) struct Packer {
    first_seq: u64,
    drafts: Vec<Draft>,
    open: Option<Open>,
}

impl Packer {
    /// The first record will have the sequence number `first_seq`; `bytes` is the size to expect.
    pub fn new(first_seq: u64, bytes: usize) -> Self {
        let mut packer = Self { first_seq, drafts: Vec::with_capacity(bytes / RECORD_BYTES_MAX + 1), open: None };
        packer.start_record(bytes);
        packer
    }

    /// One past the sequence number of the last record so far.
    pub fn next_seq(&self) -> u64 {
        self.first_seq + self.drafts.len() as u64
    }

    /// Adds entries of consecutive indexes and tells where they went.
    pub fn append(&mut self, group: GroupId, entries: &[EntryRecord]) -> Vec<Run<At>> {
        let mut placed: Vec<Run<At>> = Vec::with_capacity(1);
        let mut left = entries.iter().map(|e| 4 + e.payload.len()).sum::<usize>();
        for entry in entries {
            let place = if 4 + entry.payload.len() > PAYLOAD_BYTES_MAX {
                self.add_in_parts(group, entry)
            } else {
                self.add(group, entry, left)
            };
            left -= 4 + entry.payload.len();
            match placed.last_mut() {
                Some(run) if run.place == place => run.end = entry.index + 1,
                _ => placed.push(Run { first: entry.index, end: entry.index + 1, place }),
            }
        }
        placed
    }

    /// Adds a block that is no append.
    pub fn mark(&mut self, group: GroupId, kind: Kind, first: u64, count: u32, payload: &[u8]) {
        self.close();
        self.make_room(BLOCK_HEADER + payload.len(), 0);
        self.add_block(group, kind, 0, first, count, &[payload]);
    }

    /// The records, to be written under consecutive sequence numbers.
    pub fn finish(mut self) -> Vec<Draft> {
        self.close();
        self.drafts
    }

    /// Adds an entry to the open block if it continues it, else to a new one. `left` bytes of the
    /// same append are still to come, this entry included.
    fn add(&mut self, group: GroupId, entry: &EntryRecord, left: usize) -> At {
        let bytes = 4 + entry.payload.len();
        let continues =
            self.open.as_ref().is_some_and(|o| o.group == group && o.term == entry.term && o.next == entry.index);
        if !continues || self.room() < bytes {
            self.close();
            self.make_room(BLOCK_HEADER + bytes, BLOCK_HEADER + left);
            let start = self.draft().bytes.len();
            self.draft().bytes.resize(start + BLOCK_HEADER, 0);
            self.open = Some(Open { start, group, term: entry.term, first: entry.index, next: entry.index });
        }
        let draft = self.draft();
        draft.bytes.extend_from_slice(&(entry.payload.len() as u32).to_le_bytes());
        draft.bytes.extend_from_slice(&entry.payload);
        let seq = self.next_seq() - 1;
        let start = self.open.as_mut().map_or(0, |open| {
            open.next = entry.index + 1;
            open.start
        });
        At { seq, offset: start as u32, parts: 0 }
    }

    /// Adds an entry that no record can hold: every part opens a record of its own.
    fn add_in_parts(&mut self, group: GroupId, entry: &EntryRecord) -> At {
        self.close();
        if !self.is_draft_empty() {
            self.start_record(RECORD_BYTES_MAX);
        }
        let seq = self.next_seq() - 1;
        let parts = entry.payload.len().div_ceil(PART_BYTES_MAX) as u32;
        let total = (entry.payload.len() as u32).to_le_bytes();
        for (number, part) in (0u32..).zip(entry.payload.chunks(PART_BYTES_MAX)) {
            if number > 0 {
                self.start_record(part.len());
            }
            self.add_block(group, Kind::Part, entry.term, entry.index, parts, &[&number.to_le_bytes(), &total, part]);
        }
        At { seq, offset: RECORD_HEADER as u32, parts }
    }

    fn add_block(&mut self, group: GroupId, kind: Kind, term: u64, first: u64, count: u32, payload: &[&[u8]]) {
        let draft = self.draft();
        let start = draft.bytes.len();
        draft.bytes.resize(start + BLOCK_HEADER, 0);
        payload.iter().for_each(|piece| draft.bytes.extend_from_slice(piece));
        draft.blocks += 1;
        write_block_header(&mut draft.bytes[start..], group, kind, term, first, count);
    }

    /// Writes the header of the open append block.
    fn close(&mut self) {
        let Some(open) = self.open.take() else { return };
        let draft = self.draft();
        draft.blocks += 1;
        let count = (open.next - open.first) as u32;
        write_block_header(&mut draft.bytes[open.start..], open.group, Kind::Append, open.term, open.first, count);
    }

    fn make_room(&mut self, bytes: usize, expected: usize) {
        if self.room() < bytes {
            self.start_record(expected.max(bytes));
        }
    }

    fn room(&mut self) -> usize {
        RECORD_BYTES_MAX - self.draft().bytes.len()
    }

    fn is_draft_empty(&mut self) -> bool {
        self.draft().bytes.len() == RECORD_HEADER
    }

    fn start_record(&mut self, expected: usize) {
        let mut bytes = Vec::with_capacity((RECORD_HEADER + BLOCK_HEADER + expected).min(RECORD_BYTES_MAX));
        bytes.resize(RECORD_HEADER, 0);
        self.drafts.push(Draft { bytes, blocks: 0 });
    }

    fn draft(&mut self) -> &mut Draft {
        let last = self.drafts.len() - 1; // never empty: `new` starts the first record
        &mut self.drafts[last]
    }
}

#[cfg(test)]
mod tests {
    use super::{super::record::Block, *};
    use bytes::Bytes;

    fn entry(index: u64, term: u64, bytes: usize) -> EntryRecord {
        EntryRecord { index, term, payload: Bytes::from(vec![index as u8; bytes]) }
    }

    /// Everything that the records say, in order.
    fn read(drafts: Vec<Draft>) -> Vec<(Kind, GroupId, u64, u64)> {
        let mut found = Vec::new();
        for (seq, draft) in (1..).zip(drafts) {
            let (bytes, _) = draft.seal(seq, Hash::default());
            assert!(bytes.len() <= RECORD_BYTES_MAX);
            let mut offset = RECORD_HEADER;
            for _ in 0..Header::read(seq, &bytes).unwrap().blocks {
                let block = Block::read(seq, &bytes, offset).unwrap();
                found.push((block.kind, block.group, block.first, u64::from(block.count)));
                offset = block.end();
            }
            assert_eq!(offset, bytes.len());
        }
        found
    }

    #[test]
    fn appends_that_continue_each_other_share_a_block() {
        let (a, b) = (GroupId(1), GroupId(2));
        let mut packer = Packer::new(7, 0);
        let first = packer.append(a, &[entry(1, 1, 10), entry(2, 1, 10)]);
        let second = packer.append(a, &[entry(3, 1, 10), entry(4, 2, 10)]);
        packer.append(b, &[entry(5, 2, 10)]);
        packer.mark(b, Kind::Truncate, 5, 0, &[]);
        assert_eq!(first[0].place, second[0].place);
        assert_eq!(
            read(packer.finish()),
            [(Kind::Append, a, 1, 3), (Kind::Append, a, 4, 1), (Kind::Append, b, 5, 1), (Kind::Truncate, b, 5, 0)]
        );
    }

    #[test]
    fn a_large_group_is_split_into_records_and_a_large_entry_into_parts() {
        let mut packer = Packer::new(1, 0);
        let group = GroupId(1);
        let sizes = [10, PAYLOAD_BYTES_MAX - 4, PAYLOAD_BYTES_MAX - 3, 10, 3 * RECORD_BYTES_MAX, 60_000, 60_000];
        let entries: Vec<_> = (0..).zip(sizes).map(|(index, bytes)| entry(index, 1, bytes)).collect();
        let placed = packer.append(group, &entries);
        assert_eq!(placed.first().unwrap().first..placed.last().unwrap().end, 0..7);
        let parts: Vec<u32> = placed.iter().map(|run| run.place.parts).collect();
        assert_eq!(parts, [0, 0, 2, 0, 4, 0, 0]);
        let kinds = read(packer.finish());
        assert_eq!(kinds.iter().filter(|(kind, ..)| *kind == Kind::Part).count(), 6);
    }
}
