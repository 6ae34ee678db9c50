//! `QUORATE_SABOTAGE=skip-fsync`: a disk that says "durable" and keeps it in a cache of its own.
//!
//! What a process has handed to the kernel survives a kill -9, so the cache is here: it dies with
//! the process, as a drive's dies with the power. Each write is held for a while, then written as it
//! should have been; all are when somebody reads. In builds for use nothing of it is left.

use super::head::Head;
use crate::sabotage::{self, Sabotage};
use parking_lot::Mutex;
use std::{
    collections::VecDeque,
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::Arc,
    time::{Duration, Instant},
};

/// How long a write is held: what a kill takes with it.
const HELD_FOR: Duration = Duration::from_secs(2);

/// One for the process: a node has one store.
static HELD: Mutex<VecDeque<Record>> = Mutex::new(VecDeque::new());

/// A record of the journal that is not where it is said to be.
struct Record {
    since: Instant,
    file: Arc<File>,
    at: u64,
    bytes: Vec<u8>,
    /// The newest record before it.
    before: Head,
}

pub(super) fn hold(file: Arc<File>, at: u64, bytes: Vec<u8>, before: Head) {
    HELD.lock().push_back(Record { since: Instant::now(), file, at, bytes, before });
}

/// Writes what was held for long enough; gives the newest record that is written, if that is not
/// simply the newest.
pub(super) fn let_go_of_old() -> io::Result<Option<Head>> {
    let_go(|record| record.since.elapsed() >= HELD_FOR)
}

/// Writes all that is held.
pub(super) fn let_go_of_all() -> io::Result<()> {
    let_go(|_| true).map(|_| ())
}

fn let_go(is_due: impl Fn(&Record) -> bool) -> io::Result<Option<Head>> {
    if !sabotage::is(Sabotage::SkipFsync) {
        return Ok(None);
    }
    let mut held = HELD.lock();
    while let Some(record) = held.front().filter(|record| is_due(record)) {
        record.file.write_all_at(&record.bytes, record.at)?;
        held.pop_front();
    }
    Ok(held.front().map(|record| record.before))
}
