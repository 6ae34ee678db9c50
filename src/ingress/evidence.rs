//! The evidence that a node gives of what it holds: receipts, state hashes, violations.
//!
//! Each answer is about this node's own replicas, as they are: whoever wants to know what the
//! cluster holds asks every node and counts (`quorate verify`).

use super::{
    Api,
    extract::{Params, invalid},
    openapi::{self, ProblemResponse},
    problem::{Code, Problem},
};
use crate::{
    cluster::{Finding, LogPlace, Mark, Receipt, ReceiptStatus, ShardHash, Verdict, Violation},
    commerce::time::rfc3339,
    entity::{EntityKey, ShardId},
};
use axum::{
    Json, Router,
    extract::{Path, State},
    http::Uri,
    routing::get,
};
use serde::Serialize;
use serde_json::{Value, json};

pub fn routes() -> Router<Api> {
    Router::new()
        .route("/admin/v1/receipts/{receipt}", get(receipt))
        .route("/admin/v1/state-hashes", get(state_hashes))
        .route("/admin/v1/violations", get(violations))
}

#[derive(Serialize)]
pub struct ReceiptView {
    receipt: String,
    shard: ShardId,
    term: u64,
    index: u64,
    entry_hash: String,
    verdict: Verdict,
    node: Option<u64>,
    replicas: Vec<u64>,
    applied_index: Option<u64>,
    last_log_index: Option<u64>,
    found: Option<FoundView>,
}

#[derive(Serialize)]
struct FoundView {
    term: u64,
    entry_hash: String,
}

impl From<ReceiptStatus> for ReceiptView {
    fn from(status: ReceiptStatus) -> Self {
        let Receipt { shard, term, index, entry_hash } = status.receipt;
        let found = |place: LogPlace| FoundView { term: place.term, entry_hash: format!("{:08x}", place.entry_hash) };
        Self {
            receipt: status.receipt.to_string(),
            shard,
            term,
            index,
            entry_hash: format!("{entry_hash:08x}"),
            verdict: status.verdict,
            node: status.node.map(|node| node.0),
            replicas: status.replicas.iter().map(|node| node.0).collect(),
            applied_index: status.applied_index,
            last_log_index: status.last_log_index,
            found: status.applied.map(found),
        }
    }
}

/// Whether this node's replica confirms a receipt.
///
/// A write is proven once a majority of `replicas` confirms its receipt; `quorate verify` asks them.
#[utoipa::path(
    get, operation_id = "check_receipt", path = "/admin/v1/receipts/{receipt}", tag = "administration",
    params(("receipt" = String, Path, description = "The `x-receipt` of a write", example = "3-2-1047-9c0b7e11")),
    responses(
        (status = 200, description = "What this node's replica says", body = openapi::ReceiptStatus),
        (status = 400, response = ProblemResponse), (status = 503, response = ProblemResponse),
    )
)]
pub async fn receipt(
    State(api): State<Api>,
    Path(receipt): Path<String>,
    uri: Uri,
) -> Result<Json<ReceiptView>, Problem> {
    Params::none(&uri)?;
    let receipt: Receipt =
        receipt.parse().map_err(|error: crate::cluster::InvalidReceipt| invalid("receipt", error.to_string()))?;
    let status = api.cluster.check_receipt(receipt).map_err(|error| {
        tracing::error!(%receipt, %error, "a receipt cannot be checked");
        Problem::new(Code::Internal, "the applied state cannot be read")
    })?;
    Ok(Json(status.into()))
}

#[derive(Serialize)]
pub struct StateHashView {
    shard: ShardId,
    applied_index: u64,
    hash: String,
    since: u64,
    marks: Vec<MarkView>,
}

#[derive(Serialize)]
struct MarkView {
    index: u64,
    hash: String,
}

impl From<Mark> for MarkView {
    fn from(mark: Mark) -> Self {
        Self { index: mark.index, hash: format!("{:016x}", mark.hash) }
    }
}

impl From<ShardHash> for StateHashView {
    fn from(ShardHash { shard, hash }: ShardHash) -> Self {
        let MarkView { index, hash: now } = hash.now.into();
        let marks = hash.marks.into_iter().map(MarkView::from).collect();
        Self { shard, applied_index: index, hash: now, since: hash.since, marks }
    }
}

/// The running hash over what each of this node's replicas has applied.
///
/// Replicas of one shard have the same hash after the same entry; compare only those with the same `since`.
#[utoipa::path(
    get, operation_id = "list_state_hashes", path = "/admin/v1/state-hashes", tag = "administration",
    responses(
        (status = 200, description = "One per replica on this node", body = openapi::List<openapi::StateHash>),
        (status = 400, response = ProblemResponse),
    )
)]
pub async fn state_hashes(State(api): State<Api>, uri: Uri) -> Result<Json<Value>, Problem> {
    Params::none(&uri)?;
    Ok(list::<_, StateHashView>(api.cluster.state_hashes()))
}

#[derive(Serialize)]
pub struct ViolationView {
    shard: ShardId,
    invariant: &'static str,
    entity: Option<EntityKey>,
    version: Option<u64>,
    peer: Option<u64>,
    index: Option<u64>,
    detail: String,
    frozen: bool,
    found_at: String,
}

impl From<Finding> for ViolationView {
    fn from(finding: Finding) -> Self {
        let (shard, found_at) = (finding.shard, rfc3339(finding.found_at_ms));
        match finding.violation {
            Violation::Conservation { entity, version, detail } => Self {
                shard,
                invariant: "conservation",
                entity: Some(entity),
                version: Some(version),
                peer: None,
                index: None,
                detail,
                frozen: true,
                found_at,
            },
            Violation::StateHash { peer, index } => Self {
                shard,
                invariant: "state_hash",
                entity: None,
                version: None,
                peer: Some(peer.0),
                index: Some(index),
                detail: format!("after entry {index} this node's replica and that of node {peer} differ"),
                frozen: false,
                found_at,
            },
        }
    }
}

/// Broken invariants that this node has found and that still stand.
///
/// An entity whose state does not add up is frozen: its commands answer 409 `frozen`, it can be read.
#[utoipa::path(
    get, operation_id = "list_violations", path = "/admin/v1/violations", tag = "administration",
    responses(
        (status = 200, description = "What was found on this node", body = openapi::List<openapi::Violation>),
        (status = 400, response = ProblemResponse),
    )
)]
pub async fn violations(State(api): State<Api>, uri: Uri) -> Result<Json<Value>, Problem> {
    Params::none(&uri)?;
    Ok(list::<_, ViolationView>(api.cluster.findings()))
}

fn list<T, V: From<T> + Serialize>(all: Vec<T>) -> Json<Value> {
    let data: Vec<V> = all.into_iter().map(V::from).collect();
    Json(json!({"data": data, "has_more": false}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingress::openapi::describes;

    #[test]
    fn what_is_said_of_a_receipt_is_what_is_described() {
        let status = ReceiptStatus {
            receipt: "3-2-1047-9c0b7e11".parse().expect("a receipt"),
            verdict: Verdict::NotAppliedYet,
            node: None,
            replicas: Vec::new(),
            applied_index: Some(1),
            last_log_index: Some(2),
            applied: Some(LogPlace { term: 2, index: 1047, entry_hash: 1 }),
        };
        let view = ReceiptView::from(status);
        let json = serde_json::to_value(&view).expect("JSON");
        assert_eq!((&json["verdict"], &json["entry_hash"]), (&"not-applied-yet".into(), &"9c0b7e11".into()));
        describes("AppliedEntry", &json["found"]);
        describes("ReceiptStatus", view);
    }

    #[test]
    fn hashes_and_violations_are_what_is_described() {
        let mark = Mark { index: 64, hash: 0xab };
        let hash = crate::cluster::StateHash { since: 0, now: Mark { index: 70, hash: 1 }, marks: vec![mark] };
        let json = serde_json::to_value(StateHashView::from(ShardHash { shard: ShardId(3), hash })).expect("JSON");
        assert_eq!((&json["applied_index"], &json["marks"][0]["hash"]), (&70.into(), &"00000000000000ab".into()));
        describes("StateMark", &json["marks"][0]);
        describes("StateHash", json);
        let entity = EntityKey::new("stock", "mug").expect("a name");
        let broken = Violation::Conservation { entity, version: 7, detail: "x".into() };
        let differs = Violation::StateHash { peer: serde_json::from_str("2").expect("a node"), index: 64 };
        for (violation, frozen) in [(broken, true), (differs, false)] {
            let view = ViolationView::from(Finding { shard: ShardId(1), violation, found_at_ms: 1 });
            assert_eq!(view.frozen, frozen);
            describes("Violation", view);
        }
    }
}
