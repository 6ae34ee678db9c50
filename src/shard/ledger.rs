//! The ledger of a shard: which entry was applied at which place of its log, for the last so many
//! entries. It is what a receipt is held against.
//!
//! The log itself is purged behind checkpoints, so this is part of the applied state: pages of
//! [`PAGE_ENTRIES`] entries, gathered in memory while they are applied and written with the batch
//! of the next checkpoint. What a crash takes from memory is applied, and so recorded, again.
//!
//! An entry costs about seven bytes on disk, and nothing on its way but a push onto a vector.

use super::{
    applied::{decode, encode},
    keys,
    overlay::Overlay,
};
use crate::storage::Error;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Entries per page, and so per row.
const PAGE_ENTRIES: u64 = 64;
/// Pages dropped with one checkpoint: a limit that was lowered takes effect in steps.
const DROP_STEP: u64 = 4096;

/// An entry and where it lies in the log of its shard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPlace {
    pub term: u64,
    pub index: u64,
    /// CRC32C of the command; 0 for an entry without one.
    pub entry_hash: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Page {
    /// Index of its first entry: not a multiple of the page's size where recording began.
    first: u64,
    /// Term and hash of one entry after the other.
    entries: Vec<(u64, u32)>,
}

impl Page {
    fn next(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    fn place(&self, index: u64) -> Option<LogPlace> {
        let at = usize::try_from(index.checked_sub(self.first)?).ok()?;
        self.entries.get(at).map(|(term, entry_hash)| LogPlace { term: *term, index, entry_hash: *entry_hash })
    }
}

#[derive(Default)]
pub struct Ledger {
    /// Pages that are not written yet, and the one that is being filled.
    pages: BTreeMap<u64, Page>,
    /// The oldest page that is written.
    oldest: Option<u64>,
}

impl Ledger {
    /// As the last checkpoint left it; `applied_index` is its last entry.
    pub fn open(overlay: &Overlay, applied_index: Option<u64>) -> Result<Self, Error> {
        let oldest = overlay.scan(b"g", b"h", 1)?.first().and_then(|(key, _)| keys::parse_number(key));
        let mut pages = BTreeMap::new();
        if let Some(number) = applied_index.map(page_of)
            && let Some(page) = read(overlay, number)?
        {
            pages.insert(number, page);
        }
        Ok(Self { pages, oldest })
    }

    pub fn record(&mut self, place: LogPlace) {
        let page = self.pages.entry(page_of(place.index)).or_insert_with(|| Page::at(place.index));
        if page.next() != place.index {
            // What came before was applied by a build that kept no ledger.
            *page = Page::at(place.index);
        }
        page.entries.push((place.term, place.entry_hash));
    }

    /// What was applied at `index`, if that is still known.
    pub fn find(&self, overlay: &Overlay, index: u64) -> Result<Option<LogPlace>, Error> {
        let number = page_of(index);
        let page = match self.pages.get(&number) {
            Some(page) => return Ok(page.place(index)),
            None => read(overlay, number)?,
        };
        Ok(page.and_then(|page| page.place(index)))
    }

    /// Writes what is new into the overlay, and drops the pages behind the last `kept` entries.
    pub fn checkpoint(&mut self, overlay: &mut Overlay, kept: u64) -> Result<(), Error> {
        let Some((&last, page)) = self.pages.last_key_value() else { return Ok(()) };
        let behind = page_of(page.next().saturating_sub(kept));
        for (number, page) in &self.pages {
            overlay.write(keys::ledger(*number), encode(page)?);
        }
        let first = self.pages.keys().next().copied().unwrap_or(last);
        let oldest = self.oldest.map_or(first, |oldest| oldest.min(first));
        let dropped_to = behind.min(oldest.saturating_add(DROP_STEP)).max(oldest);
        (oldest..dropped_to).for_each(|number| overlay.erase(keys::ledger(number)));
        self.oldest = Some(dropped_to);
        self.pages.retain(|number, _| *number == last);
        Ok(())
    }
}

impl Page {
    fn at(first: u64) -> Self {
        Self { first, entries: Vec::new() }
    }
}

fn page_of(index: u64) -> u64 {
    index / PAGE_ENTRIES
}

fn read(overlay: &Overlay, number: u64) -> Result<Option<Page>, Error> {
    overlay.get(&keys::ledger(number))?.map(|bytes| decode(&bytes)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{GroupId, MemoryStorage, Storage, Write};
    use std::sync::Arc;

    fn place(index: u64) -> LogPlace {
        LogPlace { term: 1 + index / 100, index, entry_hash: index as u32 ^ 0xdead_beef }
    }

    fn record(ledger: &mut Ledger, indexes: std::ops::Range<u64>) {
        indexes.for_each(|index| ledger.record(place(index)));
    }

    async fn checkpoint(storage: &Arc<dyn Storage>, overlay: &mut Overlay, ledger: &mut Ledger, kept: u64) {
        ledger.checkpoint(overlay, kept).expect("pages can be encoded");
        storage.write(Write::State(overlay.begin_flush())).await.expect("memory takes it");
        overlay.flushed();
    }

    fn open() -> (Arc<dyn Storage>, Overlay) {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        let overlay = Overlay::open(storage.clone(), GroupId(1)).expect("opens");
        (storage, overlay)
    }

    #[tokio::test]
    async fn every_entry_is_found_before_and_after_a_checkpoint_and_a_restart() {
        let (storage, mut overlay) = open();
        let mut ledger = Ledger::open(&overlay, None).expect("empty");
        record(&mut ledger, 0..150);
        checkpoint(&storage, &mut overlay, &mut ledger, 1000).await;
        record(&mut ledger, 150..200);
        let found = |ledger: &Ledger, overlay: &Overlay| {
            (0..300).take_while(|index| ledger.find(overlay, *index).expect("readable") == Some(place(*index))).count()
        };
        assert_eq!(found(&ledger, &overlay), 200);
        // After a crash the entries behind the checkpoint are applied again, in the middle of a page.
        let mut overlay = Overlay::open(storage.clone(), GroupId(1)).expect("opens");
        let mut ledger = Ledger::open(&overlay, Some(149)).expect("readable");
        assert_eq!(found(&ledger, &overlay), 150);
        record(&mut ledger, 150..260);
        checkpoint(&storage, &mut overlay, &mut ledger, 1000).await;
        assert_eq!(found(&ledger, &overlay), 260);
    }

    #[tokio::test]
    async fn what_is_older_than_the_limit_is_dropped_page_by_page() {
        let (storage, mut overlay) = open();
        let mut ledger = Ledger::open(&overlay, None).expect("empty");
        for round in 0..10 {
            record(&mut ledger, round * 100..(round + 1) * 100);
            checkpoint(&storage, &mut overlay, &mut ledger, 200).await;
        }
        let rows = overlay.scan(b"g", b"h", usize::MAX / 2).expect("readable").len();
        assert!((4..=5).contains(&rows), "200 entries are on four pages or five, not {rows}");
        assert_eq!(ledger.find(&overlay, 767).expect("readable"), None);
        assert_eq!(ledger.find(&overlay, 800).expect("readable"), Some(place(800)));
        let reopened = Ledger::open(&overlay, Some(999)).expect("readable");
        assert_eq!(reopened.oldest, ledger.oldest);
    }

    #[test]
    fn a_ledger_that_begins_late_knows_nothing_of_before() {
        let (_, overlay) = open();
        let mut ledger = Ledger::default();
        record(&mut ledger, 70..75);
        assert_eq!(ledger.find(&overlay, 69).expect("readable"), None);
        assert_eq!(ledger.find(&overlay, 72).expect("readable"), Some(place(72)));
        // A gap on the same page: what came before it is forgotten rather than misplaced.
        record(&mut ledger, 80..82);
        assert_eq!(ledger.find(&overlay, 72).expect("readable"), None);
        assert_eq!(ledger.find(&overlay, 81).expect("readable"), Some(place(81)));
    }

    #[test]
    fn an_entry_costs_a_few_bytes() {
        let page = Page { first: 1_000_000, entries: (0..64).map(|i| (300, u32::MAX - i)).collect() };
        let bytes = encode(&page).expect("encodes").len() as u64 + keys::ledger(1).len() as u64 + 6;
        assert!(bytes <= 9 * PAGE_ENTRIES, "{bytes} bytes for a page");
    }
}
