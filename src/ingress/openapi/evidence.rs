//! Schemas of the evidence that a node gives. As in `schemas`, nothing here is ever made: the real
//! types are in `ingress::evidence`.
#![allow(dead_code)]

use super::EntityKey;
use serde::Serialize;
use utoipa::ToSchema;

/// A receipt as one node sees it.
#[derive(Serialize, ToSchema)]
pub struct ReceiptStatus {
    #[schema(example = "3-2-1047-9c0b7e11")]
    receipt: String,
    shard: u16,
    term: u64,
    index: u64,
    #[schema(example = "9c0b7e11")]
    entry_hash: String,
    #[schema(inline)]
    verdict: Verdict,
    /// The node that says so.
    node: Option<u64>,
    /// The nodes that hold a replica of the shard; empty where there is no such shard.
    replicas: Vec<u64>,
    /// Of this node's replica.
    applied_index: Option<u64>,
    /// The last entry in the log of this node's replica, applied or not.
    last_log_index: Option<u64>,
    /// What this node's replica applied at that index.
    found: Option<AppliedEntry>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It applied that entry at that place.
    Confirmed,
    /// It applied another entry there.
    Contradicted,
    /// It has not come so far.
    NotAppliedYet,
    /// Longer ago than `shard.receipts_kept` entries.
    Forgotten,
    NotAReplica,
}

#[derive(Serialize, ToSchema)]
pub struct AppliedEntry {
    term: u64,
    #[schema(example = "9c0b7e11")]
    entry_hash: String,
}

/// The running hash over what one replica has applied.
#[derive(Serialize, ToSchema)]
pub struct StateHash {
    shard: u16,
    /// The last entry in it.
    applied_index: u64,
    /// After that entry; 16 hexadecimal digits.
    #[schema(example = "5f1d7a84db00d2fc")]
    hash: String,
    /// The entry after which it began; 0: with the shard. Only hashes with the same one can be compared.
    since: u64,
    /// After every 64th entry, oldest first; the last 128.
    marks: Vec<StateMark>,
}

#[derive(Serialize, ToSchema)]
pub struct StateMark {
    index: u64,
    #[schema(example = "5f1d7a84db00d2fc")]
    hash: String,
}

/// A broken invariant.
#[derive(Serialize, ToSchema)]
pub struct Violation {
    shard: u16,
    #[schema(inline)]
    invariant: Invariant,
    /// Of `conservation`.
    entity: Option<EntityKey>,
    /// Of `conservation`: the entity's version when it was found.
    version: Option<u64>,
    /// Of `state_hash`: the node whose replica differs from this one's.
    peer: Option<u64>,
    /// Of `state_hash`: the first entry after which they were seen to differ.
    index: Option<u64>,
    detail: String,
    /// Whether the entity takes no commands.
    frozen: bool,
    #[schema(format = DateTime)]
    found_at: String,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Invariant {
    /// The state of an entity does not add up.
    Conservation,
    /// Two replicas differ.
    StateHash,
}
