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
    cluster::{Place, Receipt, ReceiptStatus, Verdict},
    entity::ShardId,
};
use axum::{
    Json, Router,
    extract::{Path, State},
    http::Uri,
    routing::get,
};
use serde::Serialize;

pub fn routes() -> Router<Api> {
    Router::new().route("/admin/v1/receipts/{receipt}", get(receipt))
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
        let found = |place: Place| FoundView { term: place.term, entry_hash: format!("{:08x}", place.entry_hash) };
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
            applied: Some(Place { term: 2, index: 1047, entry_hash: 1 }),
        };
        let view = ReceiptView::from(status);
        let json = serde_json::to_value(&view).expect("JSON");
        assert_eq!((&json["verdict"], &json["entry_hash"]), (&"not-applied-yet".into(), &"9c0b7e11".into()));
        describes("AppliedEntry", &json["found"]);
        describes("ReceiptStatus", view);
    }
}
