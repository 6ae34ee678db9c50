//! The embedded sandbox as a gateway: waits, loses answers and fails as the pure one says.

use super::{Error, PaymentGateway};
use crate::commerce::{
    gateway::{GatewayRequest, GatewayResponse},
    sandbox::{self, SandboxAnswer},
};
use std::time::Duration;

/// Moves no money and needs no network; [`crate::commerce::sandbox`] lists its cards.
pub struct Sandbox;

impl PaymentGateway for Sandbox {
    async fn attempt(&self, request: &GatewayRequest, attempt: u32) -> Result<GatewayResponse, Error> {
        match sandbox::answer(request, attempt) {
            SandboxAnswer::Reply(response) => Ok(response),
            SandboxAnswer::Slow { ms, response } => {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                Ok(response)
            }
            // The charge is made: only the key keeps the next attempt from making it twice.
            SandboxAnswer::Lost => Err(Error::Unanswered("the gateway's answer was lost".into())),
            SandboxAnswer::Unavailable => Err(Error::Unanswered("the gateway is unavailable".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cluster::{TaskContext, TaskError},
        commerce::{Money, gateway::Operation},
        gateway::handler,
    };
    use futures::FutureExt;

    fn request(operation: Operation, method: &str) -> Vec<u8> {
        let amount = Money::new(1999, "USD".parse().expect("known")).expect("in range");
        let request = GatewayRequest {
            operation,
            key: crate::commerce::gateway::key("pay_1", operation, 1),
            payment_method: method.into(),
            amount,
            authorization: None,
            metadata: Default::default(),
        };
        request.encode().expect("encodes")
    }

    async fn attempt(method: &str, attempt: u32) -> Result<GatewayResponse, TaskError> {
        let context = TaskContext {
            idempotency_key: "k".into(),
            attempt,
            entity_type: "payment".into(),
            entity_id: "pay_1".into(),
        };
        let payload = request(Operation::Authorize, method);
        handler(Sandbox)(context, payload).await.map(|bytes| GatewayResponse::decode(&bytes).expect("decodes"))
    }

    #[tokio::test]
    async fn a_lost_answer_is_tried_again_and_is_the_same_charge() {
        assert!(matches!(attempt("pm_card_timeout", 1).await, Err(TaskError::Retry(_))));
        let second = attempt("pm_card_timeout", 2).await.expect("answered");
        assert!(matches!(second, GatewayResponse::Approved { .. }));
        assert_eq!(second, attempt("pm_card_timeout", 3).await.expect("answered"));
    }

    #[tokio::test]
    async fn an_unavailable_gateway_is_tried_again() {
        assert!(matches!(attempt("pm_card_flaky", 1).await, Err(TaskError::Retry(_))));
        assert!(attempt("pm_card_flaky", 3).await.is_ok());
    }

    #[tokio::test]
    async fn a_slow_gateway_does_not_answer_at_once() {
        assert!(attempt("pm_card_ok", 1).now_or_never().is_some());
        assert!(attempt("pm_card_slow", 1).now_or_never().is_none());
    }

    #[tokio::test]
    async fn a_decline_is_an_answer_and_a_broken_payload_is_the_end() {
        assert!(matches!(attempt("pm_card_declined", 1).await, Ok(GatewayResponse::Declined { .. })));
        let context = TaskContext {
            idempotency_key: "k".into(),
            attempt: 1,
            entity_type: "payment".into(),
            entity_id: "pay_1".into(),
        };
        assert!(matches!(handler(Sandbox)(context, vec![255; 3]).await, Err(TaskError::Fatal(_))));
    }
}
