//! The embedded sandbox gateway: a card gateway that needs no network and no memory.
//!
//! [`answer`] is a pure function. It is idempotent by construction: every result is derived from
//! the request's key, so the same key is always the same charge, on whichever node it is asked.
//!
//! | payment method | behaves |
//! |---|---|
//! | `pm_card_ok` | approves at once |
//! | `pm_card_declined` | declines the authorization: `card_declined` |
//! | `pm_card_timeout` | does what it is asked, but the first answer to every operation is lost |
//! | `pm_card_slow` | answers the authorization after [`SLOW_MS`], the rest at once |
//! | `pm_card_flaky` | is unavailable for the first two attempts at every operation |
//! | anything else | declines the authorization: `unknown_payment_method` |

use super::gateway::{GatewayRequest, GatewayResponse, Operation, operation_of};

/// How long `pm_card_slow` takes, in milliseconds.
pub const SLOW_MS: u64 = 2000;
/// How many attempts `pm_card_flaky` fails.
const FLAKY_FAILURES: u32 = 2;

/// What the driver around the sandbox does with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SandboxAnswer {
    Reply(GatewayResponse),
    /// The operation took place, but nobody hears of it: end the attempt as a timeout.
    Lost,
    /// Reply after so many milliseconds.
    Slow {
        ms: u64,
        response: GatewayResponse,
    },
    /// Nothing took place: end the attempt as a failure that may be retried.
    Unavailable,
}

/// Answers attempt number `attempt` (1 for the first) at `request`.
pub fn answer(request: &GatewayRequest, attempt: u32) -> SandboxAnswer {
    let response = respond(request);
    let first_authorization = request.operation == Operation::Authorize;
    match request.payment_method.as_str() {
        _ if request.operation == Operation::Query => SandboxAnswer::Reply(response),
        "pm_card_timeout" if attempt <= 1 => SandboxAnswer::Lost,
        "pm_card_slow" if first_authorization => SandboxAnswer::Slow { ms: SLOW_MS, response },
        "pm_card_flaky" if attempt <= FLAKY_FAILURES => SandboxAnswer::Unavailable,
        _ => SandboxAnswer::Reply(response),
    }
}

fn respond(request: &GatewayRequest) -> GatewayResponse {
    // A query answers what the operation of that key answers: there is no ledger to look it up in.
    let Some(operation) = operation_of(&request.key) else {
        return GatewayResponse::NotFound;
    };
    let decline = match request.payment_method.as_str() {
        _ if operation != Operation::Authorize => None,
        "pm_card_ok" | "pm_card_timeout" | "pm_card_slow" | "pm_card_flaky" => None,
        "pm_card_declined" => Some("card_declined"),
        _ => Some("unknown_payment_method"),
    };
    match decline {
        Some(reason) => GatewayResponse::Declined { reason: reason.to_owned() },
        None => GatewayResponse::Approved { reference: reference(operation, &request.key) },
    }
}

/// The gateway's name for a charge: a prefix and 96 bits of the key's BLAKE3 hash.
fn reference(operation: Operation, key: &str) -> String {
    let prefix = match operation {
        Operation::Authorize => "auth",
        Operation::Capture => "cap",
        Operation::Void => "void",
        Operation::Refund | Operation::Query => "re",
    };
    let hash = blake3::hash(key.as_bytes()).to_hex();
    format!("{prefix}_{}", hash.get(..24).unwrap_or(&hash))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commerce::{Money, gateway};

    fn request(operation: Operation, method: &str) -> GatewayRequest {
        GatewayRequest {
            operation,
            key: gateway::key("pay_1", operation, 1),
            payment_method: method.into(),
            amount: Money::new(100, "USD".parse().expect("known")).expect("in range"),
            authorization: None,
            metadata: Default::default(),
        }
    }

    fn reply(answer: SandboxAnswer) -> GatewayResponse {
        match answer {
            SandboxAnswer::Reply(response) | SandboxAnswer::Slow { response, .. } => response,
            other => panic!("no reply: {other:?}"),
        }
    }

    #[test]
    fn the_same_key_is_always_the_same_charge() {
        for method in ["pm_card_ok", "pm_card_timeout", "pm_card_slow", "pm_card_flaky"] {
            let authorize = request(Operation::Authorize, method);
            let third = reply(answer(&authorize, 3));
            assert_eq!(third, reply(answer(&authorize, 9)), "{method}");
            let query = GatewayRequest { operation: Operation::Query, ..authorize };
            assert_eq!(third, reply(answer(&query, 1)), "{method}");
        }
    }

    #[test]
    fn different_keys_are_different_charges() {
        let authorized = reply(answer(&request(Operation::Authorize, "pm_card_ok"), 1));
        let captured = reply(answer(&request(Operation::Capture, "pm_card_ok"), 1));
        assert_ne!(authorized, captured);
    }

    #[test]
    fn each_card_has_the_temper_it_is_named_for() {
        let first = |method| answer(&request(Operation::Authorize, method), 1);
        let declined = |reason: &str| GatewayResponse::Declined { reason: reason.into() };
        assert!(matches!(first("pm_card_ok"), SandboxAnswer::Reply(GatewayResponse::Approved { .. })));
        assert_eq!(first("pm_card_declined"), SandboxAnswer::Reply(declined("card_declined")));
        assert_eq!(first("pm_nobody"), SandboxAnswer::Reply(declined("unknown_payment_method")));
        assert_eq!(first("pm_card_timeout"), SandboxAnswer::Lost);
        assert!(matches!(first("pm_card_slow"), SandboxAnswer::Slow { ms: SLOW_MS, .. }));
        let flaky = |attempt| answer(&request(Operation::Authorize, "pm_card_flaky"), attempt);
        assert_eq!([flaky(1), flaky(2)], [SandboxAnswer::Unavailable, SandboxAnswer::Unavailable]);
        assert!(matches!(flaky(3), SandboxAnswer::Reply(GatewayResponse::Approved { .. })));
    }

    #[test]
    fn a_query_for_a_foreign_key_finds_nothing() {
        let query = GatewayRequest { key: "who".into(), ..request(Operation::Query, "pm_card_ok") };
        assert_eq!(answer(&query, 1), SandboxAnswer::Reply(GatewayResponse::NotFound));
    }
}
