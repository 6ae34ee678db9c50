//! Card gateways: what carries a payment's requests to whoever holds the money.
//!
//! ```text
//! payment ─▶ durable task "payment-gateway" ─▶ handler ─▶ PaymentGateway::attempt ─┬─▶ Sandbox (in this process)
//!    ▲                                            │                                ├─▶ HttpGateway ─▶ HTTP/1.1
//!    └─── GatewayAnswered, under the same key ────┘                                └─▶ one of your own
//! ```
//!
//! - [`PaymentGateway`] is one attempt at one operation. The runtime repeats attempts, survives
//!   the node's death between them, and the payment asks again later what nobody answered.
//! - [`Sandbox`] drives the pure [`crate::commerce::sandbox`]; [`HttpGateway`] speaks to a gateway
//!   of the kind Stripe is. [`Options`] chooses between them for a node; an app of one's own hands
//!   its gateway to [`crate::ingress::shop::register_with`].
//!
//! Invariants: ONE-KEY-PER-CHARGE (what goes out carries [`GatewayRequest::key`] and nothing made
//! up here); what is not known is never called declined. This module keeps no state beside idle
//! connections.

mod http;
mod options;
mod sandbox;

pub use http::HttpGateway;
pub use options::{Invalid, Kind, Options};
pub use sandbox::Sandbox;

use crate::{
    cluster::{TaskContext, TaskError},
    commerce::gateway::{GatewayRequest, GatewayResponse},
    sabotage::{self, Sabotage},
};
use futures::future::BoxFuture;
use std::sync::Arc;

/// A card gateway.
///
/// ```
/// use quorate::{
///     commerce::gateway::{GatewayRequest, GatewayResponse},
///     gateway::{Error, PaymentGateway},
/// };
///
/// /// Approves everything and remembers nothing.
/// struct Generous;
///
/// impl PaymentGateway for Generous {
///     async fn attempt(&self, request: &GatewayRequest, _: u32) -> Result<GatewayResponse, Error> {
///         Ok(GatewayResponse::Approved { reference: format!("gift_{}", request.key) })
///     }
/// }
///
/// let builder = quorate::ingress::shop::register_with(quorate::Cluster::in_memory(1), Generous);
/// ```
pub trait PaymentGateway: Send + Sync + 'static {
    /// Attempt number `attempt` (1 for the first) at `request`.
    ///
    /// The same [`GatewayRequest::key`] comes with every attempt at one operation, from any node,
    /// and also after an answer was lost: the gateway must take it as one operation and repeat its
    /// first answer. A `Query` asks for that answer and changes nothing. An attempt that takes
    /// longer than [`crate::commerce::payment::ATTEMPT_TIMEOUT_MS`] is dropped and made again.
    ///
    /// # Errors
    /// Whatever is not the gateway's own word on what became of the operation.
    fn attempt(
        &self,
        request: &GatewayRequest,
        attempt: u32,
    ) -> impl Future<Output = Result<GatewayResponse, Error>> + Send;
}

/// Why an attempt has no answer. Neither says that the operation did not take place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Lost, late, overloaded or broken: try again under the same key.
    #[error("{0}")]
    Unanswered(String),
    /// The request itself is refused (a wrong key or address, say): trying again at once is of no
    /// use. The payment stays `unknown` and asks again later, when somebody may have mended it.
    #[error("{0}")]
    Fatal(String),
}

/// The task handler around a gateway.
pub fn handler<G: PaymentGateway>(
    gateway: G,
) -> impl Fn(TaskContext, Vec<u8>) -> BoxFuture<'static, Result<Vec<u8>, TaskError>> + Send + Sync + 'static {
    let gateway = Arc::new(gateway);
    move |context, payload| {
        let gateway = gateway.clone();
        Box::pin(async move {
            // A payload that cannot be read now cannot be read later either.
            let mut request = GatewayRequest::decode(&payload).map_err(fatal)?;
            if sabotage::is(Sabotage::DoubleCharge) && context.attempt > 1 {
                // As a second try of the step would be called, far from any real one.
                request.key = format!("{}-{}", request.key, 90 + context.attempt);
            }
            match gateway.attempt(&request, context.attempt).await {
                Ok(response) => response.encode().map_err(fatal),
                Err(Error::Unanswered(why)) => Err(TaskError::Retry(why)),
                Err(Error::Fatal(why)) => Err(TaskError::Fatal(why)),
            }
        })
    }
}

fn fatal(error: impl ToString) -> TaskError {
    TaskError::Fatal(error.to_string())
}
