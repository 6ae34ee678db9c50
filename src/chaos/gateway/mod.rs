//! A card gateway with books of its own, for the nodes of a run to talk to.
//!
//! The sandbox that is built into a node keeps no books: it could not tell a double charge. This
//! one is a server beside the run ([`crate::gateway`] is its client), so that what was charged is
//! known from someone who is not under test. It stumbles as the sandbox does: it loses the first
//! answer to `pm_card_timeout`, and is out of order for the first two tries of `pm_card_flaky`.

mod ledger;

pub use ledger::{Asked, Intent, Ledger};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use std::{collections::BTreeMap, io, sync::Arc};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinHandle,
};

const API_KEY: &str = "sk_chaos";
/// The largest form: metadata and all, a payment's is below 64 KiB.
const BODY_BYTES_MAX: usize = 256 << 10;
/// More connections than this wait to be taken.
const CONNECTIONS_MAX: usize = 256;
/// Keys whose stumbles are remembered; beyond that nothing stumbles.
const STUMBLES_MAX: usize = 200_000;

/// A gateway that is open until it is dropped.
pub struct Gateway {
    pub url: String,
    books: Arc<Books>,
    serving: JoinHandle<()>,
}

#[derive(Default)]
struct Books {
    ledger: Mutex<Ledger>,
    /// How often a key was sent, of those that stumble.
    stumbles: Mutex<BTreeMap<String, u32>>,
    /// Cards by authorization, so that later operations stumble as the first did.
    cards: Mutex<BTreeMap<String, String>>,
}

impl Gateway {
    /// On a free port of loopback.
    ///
    /// # Errors
    /// There is none.
    pub async fn open() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let books = Arc::new(Books::default());
        let serving = tokio::spawn(serve(listener, books.clone()));
        Ok(Self { url, books, serving })
    }

    /// Arguments that make a node use it.
    #[must_use]
    pub fn node_arguments(&self) -> Vec<String> {
        let settings = [
            "gateway.kind=http".to_owned(),
            format!("gateway.base_url={}", self.url),
            format!("gateway.api_key={API_KEY}"),
        ];
        settings.into_iter().flat_map(|setting| ["--set".to_owned(), setting]).collect()
    }

    /// The books as they are.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        self.books.ledger.lock().clone()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, books: Arc<Books>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        // One that is gone before it was taken is its own affair.
        let Ok((stream, _)) = listener.accept().await else { continue };
        let books = books.clone();
        tokio::spawn(async move {
            talk(stream, books).await;
            drop(slot);
        });
    }
}

async fn talk(stream: TcpStream, books: Arc<Books>) {
    let service = service_fn(move |request| books.clone().answer(request));
    // An error is a connection that was broken, on purpose or by a node that died.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

enum Stumble {
    None,
    /// Out of order: nothing is done.
    OutOfOrder,
    /// It is done, and the connection breaks.
    AnswerLost,
}

impl Books {
    /// An error closes the connection without an answer.
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> io::Result<Response<Full<Bytes>>> {
        let authorized =
            request.headers().get("authorization").is_some_and(|value| value == &format!("Bearer {API_KEY}"));
        if !authorized {
            return Ok(response(401, &serde_json::json!({"error": {"code": "invalid_api_key"}})));
        }
        let Some(asked) = read(request).await else {
            return Ok(response(400, &serde_json::json!({"error": {"code": "bad_request"}})));
        };
        match self.stumble(&asked) {
            Stumble::OutOfOrder => Ok(response(503, &serde_json::json!({"error": {"code": "out_of_order"}}))),
            Stumble::AnswerLost => {
                self.carry_out(&asked);
                Err(io::Error::other("the answer is lost on purpose"))
            }
            Stumble::None => Ok(self.carry_out(&asked)),
        }
    }

    fn carry_out(&self, asked: &Asked) -> Response<Full<Bytes>> {
        let (status, said) = self.ledger.lock().carry_out(asked);
        if let (Some(card), Some(id)) = (asked.form.get("payment_method"), said["id"].as_str())
            && stumbles(card)
        {
            self.cards.lock().insert(id.to_owned(), card.clone());
        }
        response(status, &said)
    }

    fn stumble(&self, asked: &Asked) -> Stumble {
        let id = asked.form.get("payment_intent").map(String::as_str).or_else(|| asked.path.split('/').nth(3));
        let known = id.and_then(|id| self.cards.lock().get(id).cloned());
        let Some(card) = asked.form.get("payment_method").cloned().or(known) else { return Stumble::None };
        if asked.is_query || !stumbles(&card) {
            return Stumble::None;
        }
        let mut sent = self.stumbles.lock();
        if sent.len() >= STUMBLES_MAX && !sent.contains_key(&asked.key) {
            return Stumble::None;
        }
        let times = sent.entry(asked.key.clone()).or_default();
        *times += 1;
        match (card.as_str(), *times) {
            ("pm_card_timeout", 1) => Stumble::AnswerLost,
            ("pm_card_flaky", 1 | 2) => Stumble::OutOfOrder,
            _ => Stumble::None,
        }
    }
}

fn stumbles(card: &str) -> bool {
    ["pm_card_timeout", "pm_card_flaky"].contains(&card)
}

/// `None` for what no client of ours sends.
async fn read(request: Request<Incoming>) -> Option<Asked> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, BODY_BYTES_MAX).collect().await.ok()?.to_bytes();
    let path = decoded(head.uri.path())?;
    let is_query = head.method == Method::GET;
    let key = if is_query {
        path.strip_prefix("/v1/operations/")?.to_owned()
    } else {
        head.headers.get("idempotency-key")?.to_str().ok()?.to_owned()
    };
    let text = std::str::from_utf8(&body).ok()?;
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        Some((decoded(&name.replace('+', " "))?, decoded(&value.replace('+', " "))?))
    };
    let form = text.split('&').filter(|part| !part.is_empty()).map(pair).collect::<Option<_>>()?;
    Some(Asked { is_query, path, key, form })
}

/// Percent-decoded; `None` if that is no UTF-8.
fn decoded(text: &str) -> Option<String> {
    let (mut bytes, mut plain) = (text.bytes(), Vec::with_capacity(text.len()));
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            plain.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        plain.push(u8::try_from(digit()? * 16 + digit()?).ok()?);
    }
    String::from_utf8(plain).ok()
}

fn response(status: u16, said: &serde_json::Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(said.to_string())));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::http::{Client, Error};

    async fn send(gateway: &Gateway, path: &str, key: &str, form: &str) -> Result<u16, Error> {
        let client = Client::new(&gateway.url)?.with_token(Some(API_KEY));
        let headers = [("idempotency-key", key)];
        Ok(client.send(Method::POST, path, &headers, Some(form.to_owned())).await?.status)
    }

    fn authorize(card: &str) -> String {
        format!("amount=500&payment_method={card}&capture=false&metadata%5Bpayment_id%5D=pay_1")
    }

    #[tokio::test]
    async fn an_answer_that_is_lost_is_in_the_books_and_comes_again() {
        let gateway = Gateway::open().await.expect("a port");
        let form = authorize("pm_card_timeout");
        assert!(matches!(send(&gateway, "/v1/payment_intents", "k", &form).await, Err(Error::Broken { .. })));
        assert_eq!(gateway.ledger().intents["pi_1"].payment_id, "pay_1");
        assert_eq!(send(&gateway, "/v1/payment_intents", "k", &form).await, Ok(200));
        let capture = "/v1/payment_intents/pi_1/capture";
        assert!(send(&gateway, capture, "c", "amount_to_capture=500").await.is_err());
        assert_eq!(send(&gateway, capture, "c", "amount_to_capture=500").await, Ok(200));
        let ledger = gateway.ledger();
        assert_eq!((ledger.intents.len(), ledger.intents["pi_1"].captured), (1, Some(500)));
        assert_eq!(ledger.offences, Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_gateway_out_of_order_does_nothing() {
        let gateway = Gateway::open().await.expect("a port");
        let form = authorize("pm_card_flaky");
        let mut statuses = Vec::new();
        for _ in 0..3 {
            statuses.push(send(&gateway, "/v1/payment_intents", "k", &form).await.expect("an answer"));
        }
        assert_eq!((statuses, gateway.ledger().intents.len()), (vec![503, 503, 200], 1));
    }

    #[tokio::test]
    async fn strangers_and_nonsense_are_refused() {
        let gateway = Gateway::open().await.expect("a port");
        let stranger = Client::new(&gateway.url).expect("a url");
        let answer = stranger.get("/v1/operations/k").await.expect("an answer");
        assert_eq!(answer.status, 401);
        assert_eq!(send(&gateway, "/v1/payment_intents", "k", "amount=%zz").await, Ok(400));
        assert_eq!(gateway.ledger().intents.len(), 0);
    }
}
