//! Receipts: how they are written, and what this node's replica has to say of one.

use super::{handle::Cluster, types::Receipt};
use crate::{
    catalog::NodeId,
    entity::ShardId,
    shard::{Found, LogPlace},
    storage::{self, GroupId},
};
use serde::Serialize;
use std::{fmt, str::FromStr};

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}-{:08x}", self.shard, self.term, self.index, self.entry_hash)
    }
}

/// A text that is no receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a receipt is a shard, a term, an index and a hash of eight hexadecimal digits, as in 3-2-1047-9c0b7e11")]
pub struct InvalidReceipt;

impl FromStr for Receipt {
    type Err = InvalidReceipt;

    fn from_str(text: &str) -> Result<Self, InvalidReceipt> {
        let mut parts = text.split('-');
        let mut next = || parts.next().ok_or(InvalidReceipt);
        let shard = next()?.parse().map_err(|_| InvalidReceipt)?;
        let term = next()?.parse().map_err(|_| InvalidReceipt)?;
        let index = next()?.parse().map_err(|_| InvalidReceipt)?;
        let entry_hash = u32::from_str_radix(next()?, 16).map_err(|_| InvalidReceipt)?;
        let receipt = Self { shard: ShardId(shard), term, index, entry_hash };
        // One text each: no signs, no leading zeros, nothing behind it.
        if receipt.to_string() == text { Ok(receipt) } else { Err(InvalidReceipt) }
    }
}

/// What one replica has to say of a receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It applied that entry at that place.
    Confirmed,
    /// It applied another entry there.
    Contradicted,
    /// It has not come so far.
    NotAppliedYet,
    /// It has come further than it can look back: `shard.receipts_kept`. Or the shard was restored from a backup, and
    /// the receipt, which is none of this cluster's log, may be one of the cluster that was backed up.
    Forgotten,
    /// This node holds no replica of the shard.
    NotAReplica,
}

/// A receipt as one node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiptStatus {
    pub receipt: Receipt,
    pub verdict: Verdict,
    /// The node that says so.
    pub node: Option<NodeId>,
    /// The nodes that hold a replica of the shard; none where there is no such shard.
    pub replicas: Vec<NodeId>,
    /// Of this node's replica.
    pub applied_index: Option<u64>,
    /// The last entry in the log of this node's replica, applied or not.
    pub last_log_index: Option<u64>,
    /// What was applied at the receipt's index.
    pub applied: Option<LogPlace>,
}

impl Cluster {
    /// What this node's replica has to say of a receipt. It is asked as it is, without a quorum: a
    /// write is proven once a majority of the shard's replicas confirms it.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn check_receipt(&self, receipt: Receipt) -> Result<ReceiptStatus, storage::Error> {
        let member = self.node().membership_of_cluster();
        let group = GroupId(receipt.shard.0);
        let placement = member.as_ref().and_then(|m| m.router.placement(group));
        let placement = placement.filter(|_| group != GroupId::CATALOG);
        let host = member.as_ref().and_then(|m| m.router.host(group)).filter(|_| placement.is_some());
        let mut status = ReceiptStatus {
            receipt,
            verdict: Verdict::NotAReplica,
            node: member.map(|m| m.node),
            replicas: placement.map(|p| p.replicas).unwrap_or_default(),
            applied_index: None,
            last_log_index: None,
            applied: None,
        };
        let Some(host) = host else { return Ok(status) };
        // The log first: what it does not hold then, it had not applied before either.
        status.last_log_index = Some(host.lag().last_log_index);
        let found = host.machine().applied_at(receipt.index)?;
        status.applied_index = Some(host.machine().progress().borrow().1);
        let is_restored = host.machine().was_restored();
        let is_beyond = status.last_log_index.is_some_and(|last| last < receipt.index);
        (status.verdict, status.applied) = match found {
            Found::NotYet if is_restored && is_beyond => (Verdict::Forgotten, None),
            Found::NotYet => (Verdict::NotAppliedYet, None),
            Found::Forgotten => (Verdict::Forgotten, None),
            Found::Applied(place) => match judge(receipt, place) {
                Verdict::Contradicted if is_restored => (Verdict::Forgotten, None),
                verdict => (verdict, Some(place)),
            },
        };
        Ok(status)
    }
}

fn judge(receipt: Receipt, place: LogPlace) -> Verdict {
    let same = (place.term, place.entry_hash) == (receipt.term, receipt.entry_hash);
    if same { Verdict::Confirmed } else { Verdict::Contradicted }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECEIPT: Receipt = Receipt { shard: ShardId(3), term: 2, index: 1047, entry_hash: 0x000b_7e11 };

    #[test]
    fn a_receipt_is_written_in_one_way_only() {
        assert_eq!(RECEIPT.to_string(), "3-2-1047-000b7e11");
        assert_eq!("3-2-1047-000b7e11".parse(), Ok(RECEIPT));
        for bad in [
            "",
            "3-2-1047",
            "3-2-1047-b7e11",
            "3-2-1047-000B7E11",
            "03-2-1047-000b7e11",
            "+3-2-1047-000b7e11",
            "3-2-1047-000b7e11-1",
            "3-2-1047-000b7e11 ",
            "70000-2-1047-000b7e11",
            "3-2-99999999999999999999-000b7e11",
        ] {
            assert_eq!(bad.parse::<Receipt>(), Err(InvalidReceipt), "{bad:?}");
        }
    }

    #[test]
    fn another_term_or_another_hash_contradicts() {
        let place = LogPlace { term: 2, index: 1047, entry_hash: 0x000b_7e11 };
        assert_eq!(judge(RECEIPT, place), Verdict::Confirmed);
        assert_eq!(judge(RECEIPT, LogPlace { term: 3, ..place }), Verdict::Contradicted);
        assert_eq!(judge(RECEIPT, LogPlace { entry_hash: 1, ..place }), Verdict::Contradicted);
    }
}
