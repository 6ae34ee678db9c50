//! What is asked for: requests as bytes with a few places to fill in.

use super::super::args::Workload;
use super::wire::find;
use crate::config::Secret;

/// Digits of a request's number in its idempotency key.
const NUMBER_DIGITS: usize = 16;
/// Digits of a SKU's number in its name.
const SKU_DIGITS: usize = 6;

/// The name of SKU `number`.
pub(super) fn sku(number: u32) -> String {
    format!("bench-{number:0SKU_DIGITS$}")
}

/// Headers that every request has.
#[derive(Debug, Clone)]
pub(super) struct Envelope {
    pub authority: String,
    pub token: Option<Secret>,
}

impl Envelope {
    fn head(&self, line: &str) -> String {
        let header = |token: &Secret| format!("authorization: Bearer {}\r\n", token.expose());
        let token = self.token.as_ref().map(header).unwrap_or_default();
        format!("{line} HTTP/1.1\r\nhost: {}\r\n{token}", self.authority)
    }
}

/// A worker's requests, one after the other.
pub(super) struct Requests {
    kind: Kind,
    /// Number of the next request.
    next: u64,
}

enum Kind {
    Order { bytes: Vec<u8>, number_at: usize, sku_at: usize, skus: u32 },
    Read { requests: Vec<Vec<u8>> },
}

impl Requests {
    /// Orders of worker `worker` in run `run`; no two runs or workers share an idempotency key.
    pub fn orders(envelope: &Envelope, workload: Workload, run: &str, worker: u32, skus: u32) -> Self {
        let zeros = "0".repeat(NUMBER_DIGITS);
        let body = format!(
            r#"{{"customer_id":"cus_bench_{worker}","items":[{{"sku":"{}","quantity":1,"unit_price":1999}}],"currency":"USD","payment_method":"pm_card_ok"}}"#,
            sku(0)
        );
        let wait = if workload == Workload::Place { "" } else { "prefer: wait=30\r\n" };
        let text = format!(
            "{}content-type: application/json\r\n{wait}idempotency-key: {run}-{worker}-{zeros}\r\ncontent-length: {}\r\n\r\n{body}",
            envelope.head("POST /v1/orders"),
            body.len()
        );
        let bytes = text.into_bytes();
        let number_at = find(&bytes, format!("-{zeros}\r\n").as_bytes()).map_or(0, |at| at + 1);
        let sku_at = find(&bytes, sku(0).as_bytes()).map_or(0, |at| at + "bench-".len());
        let skus = if workload == Workload::HotSku { 1 } else { skus };
        // Workers start at different SKUs and walk them in the same order.
        let kind = Kind::Order { bytes, number_at, sku_at, skus };
        Self { kind, next: u64::from(worker) * 7919 }
    }

    /// Reads of `orders`, over and over; they must not be empty.
    pub fn reads(envelope: &Envelope, orders: &[String], worker: u32) -> Self {
        let request = |id: &String| format!("{}\r\n", envelope.head(&format!("GET /v1/orders/{id}"))).into_bytes();
        Self { kind: Kind::Read { requests: orders.iter().map(request).collect() }, next: u64::from(worker) }
    }

    /// The next request. Never the same idempotency key twice.
    pub fn next(&mut self) -> &[u8] {
        let number = self.next;
        self.next += 1;
        match &mut self.kind {
            Kind::Order { bytes, number_at, sku_at, skus } => {
                write_digits(&mut bytes[*number_at..*number_at + NUMBER_DIGITS], number);
                write_digits(&mut bytes[*sku_at..*sku_at + SKU_DIGITS], number % u64::from(*skus));
                bytes
            }
            Kind::Read { requests } => {
                let at = usize::try_from(number).unwrap_or(0) % requests.len();
                &requests[at]
            }
        }
    }
}

/// Fills `digits` with the decimal digits of `number`, leading zeros included.
fn write_digits(digits: &mut [u8], mut number: u64) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(token: Option<&str>) -> Envelope {
        Envelope { authority: "127.0.0.1:1".into(), token: token.map(Secret::new) }
    }

    fn text(requests: &mut Requests) -> String {
        String::from_utf8(requests.next().to_vec()).expect("text")
    }

    #[test]
    fn each_order_has_its_own_key_and_a_body_of_the_length_it_says() {
        let mut requests = Requests::orders(&envelope(Some("t")), Workload::Checkout, "r", 3, 5);
        let (first, second) = (text(&mut requests), text(&mut requests));
        assert_ne!(first, second);
        assert!(first.contains("idempotency-key: r-3-0000000000023757\r\n"), "{first}");
        assert!(first.contains("authorization: Bearer t\r\n") && first.contains("prefer: wait=30\r\n"), "{first}");
        let (head, body) = second.split_once("\r\n\r\n").expect("head and body");
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{head}");
        let order: serde_json::Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(order["items"][0]["sku"], sku(23758 % 5));
    }

    #[test]
    fn a_hot_sku_is_always_the_same_and_placing_does_not_wait() {
        let mut hot = Requests::orders(&envelope(None), Workload::HotSku, "r", 1, 500);
        for _ in 0..3 {
            assert!(text(&mut hot).contains(&format!("\"{}\"", sku(0))));
        }
        let placed = text(&mut Requests::orders(&envelope(None), Workload::Place, "r", 1, 1));
        assert!(!placed.contains("prefer:"));
    }

    #[test]
    fn reads_go_round() {
        let mut reads = Requests::reads(&envelope(None), &["ord_1".into(), "ord_2".into()], 0);
        let lines: Vec<String> =
            (0..3).map(|_| text(&mut reads).lines().next().unwrap_or_default().to_owned()).collect();
        assert_eq!(
            lines,
            ["GET /v1/orders/ord_1 HTTP/1.1", "GET /v1/orders/ord_2 HTTP/1.1", "GET /v1/orders/ord_1 HTTP/1.1"]
        );
    }
}
