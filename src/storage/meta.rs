//! What the journal must not forget with its old segments: the vote and the purge mark of every
//! group, and how far the state store is. Every segment begins with all of it.
//!
//! ```text
//! state epoch u64 | votes u32 | (group u16 | bytes u32 | vote)* | marks u32 | (group u16 | upto u64 | bytes u32 | mark)*
//! ```
//!
//! Votes and marks are first of all journal blocks; replay starts from a segment's values and takes
//! in the blocks behind them in order.

use super::{
    GroupId,
    admission::INDEX_MAX,
    record::{u16_at, u32_at, u64_at},
};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Everything as of the last batch built or the last block replayed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Meta {
    pub votes: BTreeMap<GroupId, Bytes>,
    pub purged: BTreeMap<GroupId, (u64, Bytes)>,
    /// The state store is known to have durably reached this epoch.
    pub state_epoch: u64,
}

impl Meta {
    pub fn set_vote(&mut self, group: GroupId, vote: Bytes) {
        self.votes.insert(group, vote);
    }

    /// Changes nothing if the present mark is higher.
    pub fn set_purged(&mut self, group: GroupId, upto: u64, mark: Bytes) {
        if self.purged_upto(group).is_none_or(|present| present <= upto) {
            self.purged.insert(group, (upto, mark));
        }
    }

    pub fn set_state_epoch(&mut self, epoch: u64) {
        self.state_epoch = self.state_epoch.max(epoch);
    }

    pub fn purged_upto(&self, group: GroupId) -> Option<u64> {
        self.purged.get(&group).map(|(upto, _)| *upto)
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64 * (1 + self.votes.len() + self.purged.len()));
        bytes.extend_from_slice(&self.state_epoch.to_le_bytes());
        bytes.extend_from_slice(&(self.votes.len() as u32).to_le_bytes());
        for (group, vote) in &self.votes {
            bytes.extend_from_slice(&group.0.to_le_bytes());
            push(&mut bytes, vote);
        }
        bytes.extend_from_slice(&(self.purged.len() as u32).to_le_bytes());
        for (group, (upto, mark)) in &self.purged {
            bytes.extend_from_slice(&group.0.to_le_bytes());
            bytes.extend_from_slice(&upto.to_le_bytes());
            push(&mut bytes, mark);
        }
        bytes
    }

    /// `None` if the bytes are not what [`Meta::encode`] writes.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let mut meta = Self { state_epoch: u64_at(take(&mut rest, 8)?, 0), ..Self::default() };
        for _ in 0..u32_at(take(&mut rest, 4)?, 0) {
            let group = GroupId(u16_at(take(&mut rest, 2)?, 0));
            meta.votes.insert(group, pull(&mut rest)?);
        }
        for _ in 0..u32_at(take(&mut rest, 4)?, 0) {
            let head = take(&mut rest, 10)?;
            let upto = Some(u64_at(head, 2)).filter(|upto| *upto <= INDEX_MAX)?;
            meta.purged.insert(GroupId(u16_at(head, 0)), (upto, pull(&mut rest)?));
        }
        rest.is_empty().then_some(meta)
    }
}

fn push(bytes: &mut Vec<u8>, value: &Bytes) {
    bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
    bytes.extend_from_slice(value);
}

fn pull(rest: &mut &[u8]) -> Option<Bytes> {
    let length = u32_at(take(rest, 4)?, 0) as usize;
    take(rest, length).map(Bytes::copy_from_slice)
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(count)?;
    *rest = after;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meta_values_come_back_and_torn_ones_are_refused() {
        let mut meta = Meta::default();
        meta.set_vote(GroupId(3), Bytes::from_static(b"vote"));
        meta.set_purged(GroupId::CATALOG, 9, Bytes::from_static(b"mark"));
        meta.set_purged(GroupId::CATALOG, 7, Bytes::from_static(b"older"));
        meta.set_state_epoch(12);
        let bytes = meta.encode();
        assert_eq!(Meta::decode(&bytes), Some(meta));
        (0..bytes.len()).for_each(|cut| assert_eq!(Meta::decode(&bytes[..cut]), None, "cut at {cut}"));
        let mut endless = Meta::default();
        endless.set_purged(GroupId(3), u64::MAX, Bytes::new());
        assert_eq!(Meta::decode(&endless.encode()), None, "nothing comes after the last index");
    }
}
