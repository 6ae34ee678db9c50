//! A card gateway of the tests' own: an HTTP server on loopback with a ledger, and with a temper.
//!
//! It is the independent witness of what was charged. Whatever the temper does to an answer, the
//! ledger takes each idempotency key as one operation, and writes down whatever it would have to
//! refuse as an offence: a capture beyond the authorization, a refund beyond the capture, one key
//! for two operations.

use super::https::{Door, Entered};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tokio::task::JoinHandle;

pub const API_KEY: &str = "sk_test_till";

/// What happens to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// The connection breaks before anything is done.
    LostBefore,
    /// It is done, and the connection breaks.
    LostAfter,
    /// It is done, and the answer takes its time.
    Slow(Duration),
    /// Nobody answers, and it is done after the client has given up.
    Late(Duration),
    /// Something on the way repeats the request.
    Repeated,
    /// It is done, and the answer cannot be read.
    Garbled,
    /// This status, and nothing is done.
    Instead(u16),
    /// It is done, and this status is answered.
    After(u16),
}

/// What the temper decides about: the key, and how often it has been seen, from 1.
pub type Temper = dyn Fn(&str, u32) -> Fault + Send + Sync;

pub struct Till {
    pub url: String,
    books: Arc<Books>,
    serving: JoinHandle<()>,
}

struct Books {
    temper: Mutex<Box<Temper>>,
    ledger: Mutex<Ledger>,
}

#[derive(Debug, Default)]
pub struct Ledger {
    /// By key: what was asked, and the answer that every repetition gets.
    operations: BTreeMap<String, (String, StatusCode, Value)>,
    pub intents: BTreeMap<String, Intent>,
    /// How often each key was seen.
    pub seen: BTreeMap<String, u32>,
    pub offences: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Intent {
    pub payment_id: String,
    pub currency: String,
    pub method: String,
    pub metadata: BTreeMap<String, String>,
    pub authorized: i64,
    pub captured: Option<i64>,
    pub refunded: i64,
    pub canceled: bool,
}

impl Till {
    pub async fn open(temper: impl Fn(&str, u32) -> Fault + Send + Sync + 'static) -> Self {
        Self::open_at(Door::open().await, temper)
    }

    pub fn open_at(door: Door, temper: impl Fn(&str, u32) -> Fault + Send + Sync + 'static) -> Self {
        let url = door.url();
        let books = Arc::new(Books { temper: Mutex::new(Box::new(temper)), ledger: Mutex::default() });
        let serving = tokio::spawn(serve(door, books.clone()));
        Self { url, books, serving }
    }

    /// From now on.
    pub fn change_temper(&self, temper: impl Fn(&str, u32) -> Fault + Send + Sync + 'static) {
        *self.books.temper.lock().expect("not poisoned") = Box::new(temper);
    }

    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.books.ledger.lock().expect("not poisoned")
    }
}

/// The payment says what the gateway's books say about it, to the unit.
pub fn assert_agrees(account: Option<&Intent>, payment: &Value) {
    let units = |member: &str| payment[member]["amount"].as_i64().unwrap_or(0);
    let Some(intent) = account else {
        let never_begun = ["declined", "voided"].map(Value::from).contains(&payment["status"]);
        assert!(never_begun && units("captured") == 0, "the gateway has no account of {payment}");
        return;
    };
    let books = (intent.captured.unwrap_or(0), intent.refunded);
    assert_eq!((units("captured"), units("refunded")), books, "{payment}");
    assert_eq!(intent.authorized, units("amount"), "{payment}");
    let status = match (intent.canceled, intent.captured) {
        (true, _) => "voided",
        (false, Some(_)) => "captured",
        (false, None) => "authorized",
    };
    assert_eq!(payment["status"], status, "{payment}");
}

impl Drop for Till {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(door: Door, books: Arc<Books>) {
    while let Some(knock) = door.accept().await {
        let books = books.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| books.clone().answer(request));
            let server = http1::Builder::new();
            // An error is a connection that was broken on purpose.
            let _ = match knock.enter().await {
                Some(Entered::Plain(stream)) => server.serve_connection(TokioIo::new(stream), service).await,
                Some(Entered::Tls(stream)) => server.serve_connection(TokioIo::new(stream), service).await,
                None => Ok(()),
            };
        });
    }
}

/// One request, read.
#[derive(Clone)]
struct Asked {
    method: Method,
    path: String,
    key: String,
    form: BTreeMap<String, String>,
}

impl Books {
    /// An error closes the connection without an answer.
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> io::Result<Response<Full<Bytes>>> {
        let lost = || io::Error::other("lost on purpose");
        let bearer = request.headers().get("authorization").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let asked = Asked::read(request).await;
        if bearer.as_deref() != Some(&format!("Bearer {API_KEY}")) {
            return Ok(refuse(StatusCode::UNAUTHORIZED, "invalid_api_key"));
        }
        match self.fault(&asked.key) {
            Fault::None => Ok(self.carry_out(&asked)),
            Fault::LostBefore => Err(lost()),
            Fault::LostAfter => {
                self.carry_out(&asked);
                Err(lost())
            }
            Fault::Slow(by) => {
                let answer = self.carry_out(&asked);
                tokio::time::sleep(by).await;
                Ok(answer)
            }
            Fault::Late(after) => {
                // In a task of its own: this future ends when the client goes away.
                let books = self.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(after).await;
                    books.carry_out(&asked);
                });
                std::future::pending().await
            }
            Fault::Repeated => {
                self.carry_out(&asked);
                Ok(self.carry_out(&asked))
            }
            Fault::Garbled => {
                self.carry_out(&asked);
                Ok(Response::new(Full::new(Bytes::from_static(b"<html>it works"))))
            }
            Fault::Instead(status) => Ok(refuse(StatusCode::from_u16(status).expect("a status"), "on_purpose")),
            Fault::After(status) => {
                self.carry_out(&asked);
                Ok(refuse(StatusCode::from_u16(status).expect("a status"), "on_purpose"))
            }
        }
    }

    fn fault(&self, key: &str) -> Fault {
        let seen = {
            let mut ledger = self.ledger.lock().expect("not poisoned");
            let seen = ledger.seen.entry(key.to_owned()).or_default();
            *seen += 1;
            *seen
        };
        (self.temper.lock().expect("not poisoned"))(key, seen)
    }

    fn carry_out(&self, asked: &Asked) -> Response<Full<Bytes>> {
        let mut ledger = self.ledger.lock().expect("not poisoned");
        let (status, body) = ledger.carry_out(asked);
        let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
        *response.status_mut() = status;
        response
    }
}

impl Ledger {
    fn carry_out(&mut self, asked: &Asked) -> (StatusCode, Value) {
        let missing = (StatusCode::NOT_FOUND, json!({"error": {"code": "resource_missing"}}));
        if asked.method == Method::GET {
            let known = self.operations.get(&asked.key);
            return known.map_or(missing, |(_, status, body)| (*status, body.clone()));
        }
        let wanted = format!("{} {:?}", asked.path, asked.form);
        if let Some((first, status, body)) = self.operations.get(&asked.key) {
            if *first != wanted {
                self.offences.push(format!("{} stands for {first} and for {wanted}", asked.key));
            }
            return (*status, body.clone());
        }
        let segments: Vec<&str> = asked.path.trim_start_matches('/').split('/').collect();
        let (status, body) = match segments[..] {
            ["v1", "payment_intents"] => self.authorize(asked),
            ["v1", "payment_intents", id, "capture"] => self.capture(id, asked.number("amount_to_capture")),
            ["v1", "payment_intents", id, "cancel"] => self.cancel(id),
            ["v1", "refunds"] => self.refund(asked),
            _ => missing,
        };
        self.operations.insert(asked.key.clone(), (wanted, status, body.clone()));
        (status, body)
    }

    fn authorize(&mut self, asked: &Asked) -> (StatusCode, Value) {
        let text = |name: &str| asked.form.get(name).cloned().unwrap_or_default();
        if text("payment_method") == "pm_declined" {
            return declined("card_declined", Some("insufficient_funds"));
        }
        if text("capture") != "false" {
            self.offences.push(format!("{} captures at once", asked.key));
        }
        let inside = |(name, value): (&String, &String)| {
            let name = name.strip_prefix("metadata[")?.strip_suffix(']')?;
            Some((name.to_owned(), value.clone()))
        };
        let metadata: BTreeMap<_, _> = asked.form.iter().filter_map(inside).collect();
        let id = format!("pi_{}", self.intents.len() + 1);
        let intent = Intent {
            payment_id: metadata.get("payment_id").cloned().unwrap_or_default(),
            currency: text("currency"),
            method: text("payment_method"),
            metadata,
            authorized: asked.number("amount"),
            ..Intent::default()
        };
        self.intents.insert(id.clone(), intent);
        (StatusCode::OK, json!({"id": id, "status": "requires_capture"}))
    }

    fn capture(&mut self, id: &str, amount: i64) -> (StatusCode, Value) {
        let Some(intent) = self.intents.get_mut(id) else { return self.offence(format!("{id} was never authorized")) };
        if intent.method == "pm_capture_declined" {
            return declined("do_not_honor", None);
        }
        if intent.captured.is_some() || intent.canceled || amount > intent.authorized || amount <= 0 {
            let what = format!("{id}: a capture of {amount} from {intent:?}");
            return self.offence(what);
        }
        intent.captured = Some(amount);
        (StatusCode::OK, json!({"id": id, "status": "succeeded"}))
    }

    fn cancel(&mut self, id: &str) -> (StatusCode, Value) {
        let Some(intent) = self.intents.get_mut(id) else { return self.offence(format!("{id} was never authorized")) };
        if intent.captured.is_some() || intent.canceled {
            let what = format!("{id}: a second end for {intent:?}");
            return self.offence(what);
        }
        intent.canceled = true;
        (StatusCode::OK, json!({"id": id, "status": "canceled"}))
    }

    fn refund(&mut self, asked: &Asked) -> (StatusCode, Value) {
        let id = asked.form.get("payment_intent").cloned().unwrap_or_default();
        let amount = asked.number("amount");
        let Some(intent) = self.intents.get_mut(&id) else { return self.offence(format!("{id} was never authorized")) };
        if intent.refunded + amount > intent.captured.unwrap_or(0) || amount <= 0 {
            let what = format!("{id}: a refund of {amount} from {intent:?}");
            return self.offence(what);
        }
        intent.refunded += amount;
        (StatusCode::OK, json!({"id": format!("re_{}", asked.key), "status": "succeeded"}))
    }

    fn offence(&mut self, what: String) -> (StatusCode, Value) {
        self.offences.push(what);
        declined("offence", None)
    }
}

impl Asked {
    async fn read(request: Request<Incoming>) -> Self {
        let (head, body) = request.into_parts();
        // A client that goes away in the middle has asked for nothing.
        let body = body.collect().await.map(|collected| collected.to_bytes()).unwrap_or_default();
        let header = head.headers.get("idempotency-key").and_then(|value| value.to_str().ok());
        let path = decoded(head.uri.path());
        let key = match path.strip_prefix("/v1/operations/") {
            Some(key) => key.to_owned(),
            None => header.expect("every change has a key").to_owned(),
        };
        let text = String::from_utf8(body.to_vec()).expect("a form is ASCII");
        let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
        let form = pairs.map(|(name, value)| (decoded(&name.replace('+', " ")), decoded(&value.replace('+', " "))));
        Self { method: head.method, path, key, form: form.collect() }
    }

    fn number(&self, name: &str) -> i64 {
        self.form.get(name).and_then(|value| value.parse().ok()).unwrap_or(0)
    }
}

fn decoded(text: &str) -> String {
    let mut bytes = text.bytes();
    let mut plain = Vec::new();
    while let Some(byte) = bytes.next() {
        let mut digit = || bytes.next().and_then(|digit| char::from(digit).to_digit(16)).expect("two digits");
        plain.push(if byte == b'%' { (digit() * 16 + digit()) as u8 } else { byte });
    }
    String::from_utf8(plain).expect("UTF-8")
}

fn declined(code: &str, decline_code: Option<&str>) -> (StatusCode, Value) {
    (StatusCode::PAYMENT_REQUIRED, json!({"error": {"code": code, "decline_code": decline_code}}))
}

fn refuse(status: StatusCode, code: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(json!({"error": {"code": code}}).to_string())));
    *response.status_mut() = status;
    response
}
