//! What an HTTP answer says about an operation.
//!
//! | answer | means |
//! |---|---|
//! | 2xx with an `id` | approved, if its `status` (where there is one) is a final one |
//! | 402 | declined; the reason is `error.decline_code`, else `error.code` |
//! | 404 to a query | the gateway never saw the key |
//! | 409, 429, 5xx, and 2xx that is not final or cannot be read | not known: again under the same key |
//! | anything else | the request is at fault: not known, and trying again at once is of no use |

use crate::{
    commerce::gateway::{GatewayRequest, GatewayResponse, Operation, operation_of},
    gateway::Error,
};
use hyper::StatusCode;
use serde_json::Value;

/// The longest reason and reference that are kept, in characters.
const WORD_CHARS_MAX: usize = 100;

pub fn classify(request: &GatewayRequest, status: StatusCode, body: &[u8]) -> Result<GatewayResponse, Error> {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    match status {
        status if status.is_success() => done(request, &body),
        StatusCode::PAYMENT_REQUIRED => Ok(GatewayResponse::Declined { reason: reason(&body) }),
        StatusCode::NOT_FOUND if request.operation == Operation::Query => Ok(GatewayResponse::NotFound),
        StatusCode::CONFLICT | StatusCode::TOO_MANY_REQUESTS => Err(unanswered(status)),
        status if status.is_server_error() => Err(unanswered(status)),
        status => {
            let code = word(&body["error"]["code"]).unwrap_or_else(|| "no code".into());
            Err(Error::Fatal(format!("the gateway refuses the request: {} ({code})", status.as_u16())))
        }
    }
}

fn unanswered(status: StatusCode) -> Error {
    Error::Unanswered(format!("the gateway answered {}", status.as_u16()))
}

/// A 2xx: done, unless its `status` says something else.
fn done(request: &GatewayRequest, body: &Value) -> Result<GatewayResponse, Error> {
    let Some(reference) = word(&body["id"]) else {
        return Err(Error::Unanswered("the gateway's answer has no id".into()));
    };
    let (good, bad): (&[&str], &[&str]) = match operation_of(&request.key) {
        Some(Operation::Authorize) => {
            (&["requires_capture", "succeeded"], &["requires_payment_method", "canceled", "failed"])
        }
        Some(Operation::Void) => (&["canceled"], &["failed"]),
        _ => (&["succeeded"], &["canceled", "failed"]),
    };
    match body["status"].as_str() {
        None => Ok(GatewayResponse::Approved { reference }),
        Some(status) if good.contains(&status) => Ok(GatewayResponse::Approved { reference }),
        Some(status) if bad.contains(&status) => Ok(GatewayResponse::Declined { reason: status.to_owned() }),
        Some(_) => {
            let status = word(&body["status"]).unwrap_or_default();
            Err(Error::Unanswered(format!("at the gateway it is still `{status}`")))
        }
    }
}

fn reason(body: &Value) -> String {
    let error = &body["error"];
    word(&error["decline_code"]).or_else(|| word(&error["code"])).unwrap_or_else(|| "card_declined".to_owned())
}

/// Text that may be kept and shown: it comes from outside.
fn word(value: &Value) -> Option<String> {
    let text = value.as_str()?;
    let sound = !text.is_empty() && text.len() <= WORD_CHARS_MAX && text.bytes().all(|byte| byte.is_ascii_graphic());
    sound.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commerce::{Money, gateway};

    fn answer(operation: Operation, status: u16, body: &str) -> Result<GatewayResponse, Error> {
        let asked = if operation == Operation::Query { Operation::Capture } else { operation };
        let request = GatewayRequest {
            operation,
            key: gateway::key("pay_1", asked, 1),
            payment_method: "pm".into(),
            amount: Money::new(1, "USD".parse().expect("known")).expect("in range"),
            authorization: None,
            metadata: Default::default(),
        };
        classify(&request, StatusCode::from_u16(status).expect("a status"), body.as_bytes())
    }

    fn approved(reference: &str) -> Result<GatewayResponse, Error> {
        Ok(GatewayResponse::Approved { reference: reference.into() })
    }

    fn declined(reason: &str) -> Result<GatewayResponse, Error> {
        Ok(GatewayResponse::Declined { reason: reason.into() })
    }

    #[test]
    fn success_with_an_id_is_approval() {
        assert_eq!(answer(Operation::Authorize, 200, r#"{"id":"pi_1"}"#), approved("pi_1"));
        assert_eq!(answer(Operation::Authorize, 201, r#"{"id":"pi_1","status":"requires_capture"}"#), approved("pi_1"));
        assert_eq!(answer(Operation::Void, 200, r#"{"id":"pi_1","status":"canceled"}"#), approved("pi_1"));
        assert_eq!(answer(Operation::Query, 200, r#"{"id":"pi_1","status":"succeeded"}"#), approved("pi_1"));
    }

    #[test]
    fn a_decline_carries_its_reason() {
        let body = r#"{"error":{"code":"card_declined","decline_code":"insufficient_funds"}}"#;
        assert_eq!(answer(Operation::Authorize, 402, body), declined("insufficient_funds"));
        assert_eq!(
            answer(Operation::Capture, 402, r#"{"error":{"code":"authorization_expired"}}"#),
            declined("authorization_expired")
        );
        assert_eq!(answer(Operation::Capture, 402, "<html>"), declined("card_declined"));
        let shouting = format!(r#"{{"error":{{"code":"{}"}}}}"#, "x".repeat(101));
        assert_eq!(answer(Operation::Capture, 402, &shouting), declined("card_declined"));
        assert_eq!(answer(Operation::Refund, 200, r#"{"id":"re_1","status":"failed"}"#), declined("failed"));
    }

    #[test]
    fn what_is_not_final_or_cannot_be_read_is_not_known() {
        for (operation, status, body) in [
            (Operation::Authorize, 409, ""),
            (Operation::Authorize, 429, ""),
            (Operation::Capture, 500, r#"{"id":"pi_1"}"#),
            (Operation::Capture, 503, ""),
            (Operation::Query, 500, ""),
            (Operation::Query, 409, ""),
            (Operation::Refund, 200, r#"{"id":"re_1","status":"pending"}"#),
            (Operation::Authorize, 200, r#"{"id":"pi_1","status":"requires_action"}"#),
            (Operation::Authorize, 200, "{}"),
            (Operation::Authorize, 200, "cut of"),
            (Operation::Void, 200, r#"{"id":"pi_1","status":"succeeded"}"#),
        ] {
            let found = answer(operation, status, body);
            assert!(matches!(found, Err(Error::Unanswered(_))), "{operation} {status} {body}: {found:?}");
        }
    }

    #[test]
    fn other_refusals_are_no_declines() {
        for status in [301, 400, 401, 403, 404, 422] {
            let found = answer(Operation::Authorize, status, r#"{"error":{"code":"no"}}"#);
            let Err(Error::Fatal(text)) = found else { panic!("{status}: {found:?}") };
            assert!(text.contains(&status.to_string()) && text.contains("no"), "{text}");
        }
        assert!(matches!(answer(Operation::Query, 401, ""), Err(Error::Fatal(_))));
    }

    #[test]
    fn only_a_query_finds_nothing() {
        assert_eq!(answer(Operation::Query, 404, ""), Ok(GatewayResponse::NotFound));
        assert!(answer(Operation::Capture, 404, "").is_err());
    }
}
