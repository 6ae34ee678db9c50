//! What a write must look like to be taken. Checked against the group's state at submit time, the
//! same for both implementations, so that neither the journal nor its replay ever meets a gap.

use super::{EntryRecord, Error, GroupId, StateChange, Write};
use std::ops::Range;

/// The largest payload of one log entry, in bytes.
pub const ENTRY_BYTES_MAX: usize = 16 << 20;
/// The largest vote or purge mark, in bytes.
pub const MARK_BYTES_MAX: usize = 16 << 10;
/// The longest key of the state store, in bytes.
pub const STATE_KEY_BYTES_MAX: usize = 2 << 10;
/// The largest value of the state store, in bytes.
pub const STATE_VALUE_BYTES_MAX: usize = 16 << 20;
/// The largest single write: payloads, keys and values together, in bytes.
pub const WRITE_BYTES_MAX: usize = 64 << 20;
/// Indexes above this are refused, so that "one past the last" is always a number.
pub(super) const INDEX_MAX: u64 = u64::MAX - 1;

/// What is taken into account of a group: its entries, and the index of its purge mark.
pub(super) struct Bounds {
    pub entries: Range<u64>,
    pub purged: Option<u64>,
}

/// Bytes a write keeps in memory while it waits, roughly; at least 1.
pub(super) fn weight(write: &Write) -> usize {
    const FIXED: usize = 64;
    FIXED
        + match write {
            Write::Append { entries, .. } => entries.iter().map(|e| e.payload.len() + FIXED).sum(),
            Write::Truncate { .. } => 0,
            Write::Vote { vote: mark, .. } | Write::Purge { mark, .. } => mark.len(),
            Write::State(changes) => {
                changes.iter().map(|(k, v)| k.len() + v.as_ref().map_or(0, |v| v.len()) + FIXED).sum()
            }
        }
}

/// Refuses a write that breaks its contract, saying how.
pub(super) fn check(write: &Write, weight: usize, bounds: impl FnOnce(GroupId) -> Bounds) -> Result<(), Error> {
    at_most("the write", weight, WRITE_BYTES_MAX)?;
    match write {
        Write::Append { group, entries } => check_append(*group, entries, bounds(*group)),
        Write::Truncate { .. } => Ok(()),
        Write::Vote { vote, .. } => at_most("the vote", vote.len(), MARK_BYTES_MAX),
        Write::Purge { group, upto, mark } => {
            check_purge(*group, *upto, bounds(*group))?;
            at_most("the purge mark", mark.len(), MARK_BYTES_MAX)
        }
        Write::State(changes) => changes.iter().try_for_each(check_change),
    }
}

fn check_append(group: GroupId, entries: &[EntryRecord], bounds: Bounds) -> Result<(), Error> {
    let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return Ok(()) };
    check_index(last.index)?;
    for entry in entries {
        at_most("the entry", entry.payload.len(), ENTRY_BYTES_MAX)?;
    }
    if let Some(pair) = entries.windows(2).find(|pair| pair[1].index.checked_sub(1) != Some(pair[0].index)) {
        return Err(refused(format!("group {}: entry {} after entry {}", group.0, pair[1].index, pair[0].index)));
    }
    if bounds.purged.is_some_and(|purged| first.index <= purged) {
        return Err(refused(format!("group {}: entry {} is purged already", group.0, first.index)));
    }
    let anywhere = bounds.entries.is_empty() && bounds.purged.is_none();
    if !anywhere && first.index > bounds.entries.end {
        let expected = bounds.entries.end;
        return Err(refused(format!("group {}: entry {} leaves a gap after {expected}", group.0, first.index)));
    }
    Ok(())
}

/// Entries without a mark begin anywhere; once there is one they begin right after it.
fn check_purge(group: GroupId, upto: u64, bounds: Bounds) -> Result<(), Error> {
    check_index(upto)?;
    let first = bounds.entries.start;
    if bounds.purged.is_none() && !bounds.entries.is_empty() && upto + 1 < first {
        return Err(refused(format!("group {}: purged up to {upto}, a gap is left before entry {first}", group.0)));
    }
    Ok(())
}

fn check_change((key, value): &StateChange) -> Result<(), Error> {
    at_most("the key", key.len(), STATE_KEY_BYTES_MAX)?;
    at_most("the value", value.as_ref().map_or(0, |v| v.len()), STATE_VALUE_BYTES_MAX)
}

fn check_index(index: u64) -> Result<(), Error> {
    if index > INDEX_MAX { Err(refused(format!("index {index} is over the limit of {INDEX_MAX}"))) } else { Ok(()) }
}

fn at_most(what: &str, bytes: usize, limit: usize) -> Result<(), Error> {
    if bytes > limit { Err(refused(format!("{what} takes {bytes} bytes; the limit is {limit}"))) } else { Ok(()) }
}

fn refused(detail: String) -> Error {
    Error::Refused { detail }
}
