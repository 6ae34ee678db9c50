//! What a payment says to a card gateway, and what it hears.
//!
//! A [`GatewayRequest`] is the payload of a durable task for the handler [`HANDLER`]; its
//! [`GatewayResponse`] comes back through `Payment::task_finished`. Both travel in
//! [`crate::entity::codec`] encoding.
//!
//! ONE-KEY-PER-CHARGE: [`GatewayRequest::key`] is `payment_id:step` and stays the same over
//! retries, failovers and queries. Only after the gateway has *definitely* refused a step (so no
//! money moved) does a new try of it get a new key: `payment_id:refund-2`.

use super::Money;
use crate::entity::codec;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

/// The task handler, and its queue, that talks to the gateway.
pub const HANDLER: &str = "payment-gateway";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Hold the amount on the card.
    Authorize,
    /// Take what was authorized.
    Capture,
    /// Let go of what was authorized.
    Void,
    /// Give back what was captured.
    Refund,
    /// What became of the operation with this key? Changes nothing.
    Query,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayRequest {
    pub operation: Operation,
    /// The gateway's idempotency key; for a query, the key that is asked about.
    pub key: String,
    pub payment_method: String,
    pub amount: Money,
    /// The gateway's reference of the authorization; absent while there is none.
    pub authorization: Option<String>,
    /// With an authorization: what the client keeps with the payment, or the order it belongs to.
    pub metadata: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GatewayResponse {
    /// Done (once, however often the key is sent); `reference` is the gateway's name for it.
    Approved { reference: String },
    /// Refused for good; no money moved. `reason` is a stable code like `card_declined`.
    Declined { reason: String },
    /// Only to a query: the gateway never saw this key. Sending the operation again is safe.
    NotFound,
}

impl GatewayRequest {
    /// The payment it is about.
    pub fn payment_id(&self) -> &str {
        self.key.rsplit_once(':').map_or(&self.key, |(payment_id, _)| payment_id)
    }

    /// The task payload.
    pub fn encode(&self) -> Result<Vec<u8>, codec::Error> {
        codec::encode("gateway request", self)
    }

    pub fn decode(payload: &[u8]) -> Result<Self, codec::Error> {
        codec::decode("gateway request", payload)
    }
}

impl GatewayResponse {
    /// The task's result.
    pub fn encode(&self) -> Result<Vec<u8>, codec::Error> {
        codec::encode("gateway response", self)
    }

    pub fn decode(result: &[u8]) -> Result<Self, codec::Error> {
        codec::decode("gateway response", result)
    }
}

impl Operation {
    pub fn name(self) -> &'static str {
        match self {
            Self::Authorize => "authorize",
            Self::Capture => "capture",
            Self::Void => "void",
            Self::Refund => "refund",
            Self::Query => "query",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The key of try number `number` (1 for the first) of `operation` on a payment.
pub fn key(payment_id: &str, operation: Operation, number: u16) -> String {
    match number {
        0 | 1 => format!("{payment_id}:{operation}"),
        _ => format!("{payment_id}:{operation}-{number}"),
    }
}

/// The operation a key stands for; `None` if it is not one of ours.
pub fn operation_of(key: &str) -> Option<Operation> {
    let step = key.rsplit_once(':')?.1;
    let name = step.split_once('-').map_or(step, |(name, _)| name);
    use Operation::{Authorize, Capture, Refund, Void};
    [Authorize, Capture, Void, Refund].into_iter().find(|operation| operation.name() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_its_operation() {
        assert_eq!(key("pay_1", Operation::Capture, 1), "pay_1:capture");
        assert_eq!(key("pay_1", Operation::Refund, 2), "pay_1:refund-2");
        for operation in [Operation::Authorize, Operation::Capture, Operation::Void, Operation::Refund] {
            assert_eq!(operation_of(&key("pay_a:b-c", operation, 3)), Some(operation));
        }
        assert_eq!(operation_of("pay_1:query"), None);
        assert_eq!(operation_of("nonsense"), None);
    }

    #[test]
    fn requests_and_responses_survive_encoding() {
        let amount = Money::new(5, "EUR".parse().expect("known")).expect("in range");
        let request = GatewayRequest {
            operation: Operation::Void,
            key: "pay_1:void".into(),
            payment_method: "pm_card_ok".into(),
            amount,
            authorization: Some("auth_1".into()),
            metadata: [("cart".to_owned(), "7".to_owned())].into(),
        };
        assert_eq!(GatewayRequest::decode(&request.encode().expect("encodes")), Ok(request));
        let response = GatewayResponse::Declined { reason: "card_declined".into() };
        assert_eq!(GatewayResponse::decode(&response.encode().expect("encodes")), Ok(response));
        assert!(GatewayResponse::decode(&[9, 9, 9]).is_err());
    }
}
