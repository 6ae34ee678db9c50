//! Which path and form an operation becomes.

use crate::{
    commerce::gateway::{GatewayRequest, Operation},
    gateway::Error,
};
use bytes::Bytes;
use http_body_util::Full;
use hyper::Method;

/// One request, before headers.
#[derive(Debug)]
pub struct Call {
    pub method: Method,
    pub path: String,
    pub form: Form,
}

/// `application/x-www-form-urlencoded`.
#[derive(Debug, Default)]
pub struct Form(String);

impl Call {
    /// # Errors
    /// [`Error::Fatal`] for a capture, void or refund without an authorization to refer to.
    pub fn of(request: &GatewayRequest) -> Result<Self, Error> {
        let amount = request.amount.amount().to_string();
        let mut form = Form::default();
        let path = match request.operation {
            Operation::Authorize => {
                form.field("amount", &amount);
                form.field("currency", &request.amount.currency().code().to_ascii_lowercase());
                form.field("payment_method", &request.payment_method);
                form.field("capture", "false");
                form.field("metadata[payment_id]", request.payment_id());
                // Ours is the name that the gateway's books are searched by.
                for (key, value) in request.metadata.iter().filter(|(key, _)| *key != "payment_id") {
                    form.field(&format!("metadata[{key}]"), value);
                }
                "/v1/payment_intents".to_owned()
            }
            Operation::Capture => {
                form.field("amount_to_capture", &amount);
                format!("/v1/payment_intents/{}/capture", escaped(authorization(request)?))
            }
            Operation::Void => format!("/v1/payment_intents/{}/cancel", escaped(authorization(request)?)),
            Operation::Refund => {
                form.field("payment_intent", authorization(request)?);
                form.field("amount", &amount);
                "/v1/refunds".to_owned()
            }
            Operation::Query => {
                let path = format!("/v1/operations/{}", escaped(&request.key));
                return Ok(Self { method: Method::GET, path, form });
            }
        };
        Ok(Self { method: Method::POST, path, form })
    }
}

fn authorization(request: &GatewayRequest) -> Result<&str, Error> {
    let missing = || Error::Fatal(format!("{} has no authorization to refer to", request.operation));
    request.authorization.as_deref().ok_or_else(missing)
}

impl Form {
    fn field(&mut self, name: &str, value: &str) {
        if !self.0.is_empty() {
            self.0.push('&');
        }
        self.0.push_str(&form_encoded(name));
        self.0.push('=');
        self.0.push_str(&form_encoded(value));
    }

    pub fn into_body(self) -> Full<Bytes> {
        Full::new(Bytes::from(self.0))
    }
}

/// The form serializer of the WHATWG URL standard.
fn form_encoded(text: &str) -> String {
    encoded(text, |byte| byte.is_ascii_alphanumeric() || b"*-._".contains(&byte)).replace("%20", "+")
}

/// `text` as one segment of a path.
fn escaped(text: &str) -> String {
    encoded(text, |byte| byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte))
}

fn encoded(text: &str, plain: impl Fn(u8) -> bool) -> String {
    let character = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(character).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commerce::{Money, gateway};

    fn call(operation: Operation) -> Call {
        let request = GatewayRequest {
            operation,
            key: gateway::key("pay_1", operation, 2),
            payment_method: "pm card/ö+&=".into(),
            amount: Money::new(1999, "KWD".parse().expect("known")).expect("in range"),
            authorization: Some("pi_1/..".into()),
            metadata: [("cart", "a b"), ("payment_id", "pay_2")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        };
        Call::of(&request).expect("complete")
    }

    #[test]
    fn an_authorization_is_a_form_that_stripe_would_recognise() {
        let call = call(Operation::Authorize);
        assert_eq!((call.method, call.path.as_str()), (Method::POST, "/v1/payment_intents"));
        let expected = "amount=1999&currency=kwd&payment_method=pm+card%2F%C3%B6%2B%26%3D&capture=false\
                        &metadata%5Bpayment_id%5D=pay_1&metadata%5Bcart%5D=a+b";
        assert_eq!(call.form.0, expected);
    }

    #[test]
    fn what_follows_refers_to_the_authorization_and_cannot_leave_its_place() {
        let capture = call(Operation::Capture);
        assert_eq!(capture.path, "/v1/payment_intents/pi_1%2F../capture");
        assert_eq!(capture.form.0, "amount_to_capture=1999");
        let void = call(Operation::Void);
        assert_eq!((void.path.as_str(), void.form.0.as_str()), ("/v1/payment_intents/pi_1%2F../cancel", ""));
        let refund = call(Operation::Refund);
        assert_eq!(
            (refund.path.as_str(), refund.form.0.as_str()),
            ("/v1/refunds", "payment_intent=pi_1%2F..&amount=1999")
        );
        let query = call(Operation::Query);
        assert_eq!((query.method, query.path.as_str()), (Method::GET, "/v1/operations/pay_1:query-2"));
    }

    #[test]
    fn nothing_is_captured_without_an_authorization() {
        let request = GatewayRequest {
            operation: Operation::Capture,
            key: "pay_1:capture".into(),
            payment_method: "pm".into(),
            amount: Money::new(1, "USD".parse().expect("known")).expect("in range"),
            authorization: None,
            metadata: Default::default(),
        };
        assert!(matches!(Call::of(&request), Err(Error::Fatal(_))));
    }
}
