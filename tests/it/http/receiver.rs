//! A receiver of webhooks of the tests' own: an HTTP server on loopback with a temper, which checks
//! signatures by itself and writes down what comes.

use super::https::{Door, Entered};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use ring::hmac;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::task::JoinHandle;

/// What happens to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// This status, and it counts as not taken.
    Refused(u16),
    /// The connection breaks before anybody has looked.
    LostBefore,
    /// It is taken, and the connection breaks.
    LostAfter,
    /// It is taken, and the answer comes after this time.
    Late(Duration),
}

/// What the temper decides about: the event, and how often it has been seen, from 1.
pub type Temper = dyn Fn(&Value, u32) -> Fault + Send + Sync;

/// A request that was taken.
#[derive(Debug, Clone)]
pub struct Taken {
    pub webhook_id: String,
    pub signatures: Vec<String>,
    pub event: Value,
    timestamp: String,
    body: Vec<u8>,
}

pub struct Receiver {
    pub url: String,
    desk: Arc<Desk>,
    serving: JoinHandle<()>,
}

struct Desk {
    temper: Mutex<Box<Temper>>,
    seen: Mutex<BTreeMap<String, u32>>,
    taken: Mutex<Vec<Taken>>,
}

impl Receiver {
    pub async fn open(temper: impl Fn(&Value, u32) -> Fault + Send + Sync + 'static) -> Self {
        Self::open_at(Door::open().await, temper)
    }

    pub fn open_at(door: Door, temper: impl Fn(&Value, u32) -> Fault + Send + Sync + 'static) -> Self {
        let url = format!("{}/hooks?of=shop", door.url());
        let desk =
            Arc::new(Desk { temper: Mutex::new(Box::new(temper)), seen: Mutex::default(), taken: Mutex::default() });
        let serving = tokio::spawn(serve(door, desk.clone()));
        Self { url, desk, serving }
    }

    /// One that takes everything.
    pub async fn willing() -> Self {
        Self::open(|_, _| Fault::None).await
    }

    /// From now on.
    pub fn change_temper(&self, temper: impl Fn(&Value, u32) -> Fault + Send + Sync + 'static) {
        *self.desk.temper.lock().expect("not poisoned") = Box::new(temper);
    }

    /// In the order in which they came, repetitions included.
    pub fn taken(&self) -> Vec<Taken> {
        self.desk.taken.lock().expect("not poisoned").clone()
    }

    /// How often each event was seen, taken or not.
    pub fn seen(&self) -> BTreeMap<String, u32> {
        self.desk.seen.lock().expect("not poisoned").clone()
    }

    /// Types of the events about one subject, each event once, in the order in which they came.
    pub fn types_of(&self, subject: &str) -> Vec<String> {
        let mut events: Vec<Taken> = Vec::new();
        for taken in self.taken().into_iter().filter(|taken| taken.event["data"]["object"]["id"] == subject) {
            if events.iter().all(|known| known.webhook_id != taken.webhook_id) {
                events.push(taken);
            }
        }
        let sequences: Vec<_> = events.iter().map(|taken| taken.event["sequence"].as_u64()).collect();
        assert!(sequences.is_sorted(), "{subject}: {sequences:?}");
        events.iter().map(|taken| taken.event["type"].as_str().expect("a type").to_owned()).collect()
    }

    /// Waits until `done` of what was taken, and says what was awaited when it does not come.
    pub async fn wait_until(&self, reason: &str, done: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !done(self) {
            let types: Vec<_> = self.taken().iter().map(|taken| taken.event["type"].to_string()).collect();
            assert!(began.elapsed() < 2 * super::PATIENCE, "{reason}: {types:?}, seen {:?}", self.seen());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Taken {
    /// Which of its signatures this secret makes, by their place.
    pub fn signed_with(&self, secret: &str) -> Option<usize> {
        let key = decoded(secret.strip_prefix("whsec_").expect("a secret"));
        assert!((24..=64).contains(&key.len()), "{} bytes", key.len());
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
        let content = [format!("{}.{}.", self.webhook_id, self.timestamp).as_bytes(), &self.body].concat();
        let made_with = |signature: &String| {
            let tag = decoded(signature.strip_prefix("v1,").expect("a version"));
            hmac::verify(&key, &content, &tag).is_ok()
        };
        self.signatures.iter().position(made_with)
    }
}

async fn serve(door: Door, desk: Arc<Desk>) {
    while let Some(knock) = door.accept().await {
        let desk = desk.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| desk.clone().answer(request));
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

impl Desk {
    /// An error closes the connection without an answer.
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> io::Result<Response<Full<Bytes>>> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        let header = |name: &str| head.headers[name].to_str().expect("ASCII").to_owned();
        assert_eq!((head.method.as_str(), head.uri.to_string().as_str()), ("POST", "/hooks?of=shop"));
        assert_eq!(header("content-type"), "application/json");
        let event: Value = serde_json::from_slice(&body).expect("JSON");
        let webhook_id = header("webhook-id");
        assert_eq!(event["id"], webhook_id.as_str());
        let seen = {
            let mut seen = self.seen.lock().expect("not poisoned");
            let seen = seen.entry(webhook_id.clone()).or_default();
            *seen += 1;
            *seen
        };
        let signatures = header("webhook-signature").split(' ').map(str::to_owned).collect();
        let timestamp = header("webhook-timestamp");
        let taken = Taken { webhook_id, signatures, timestamp, body: body.to_vec(), event };
        let fault = (self.temper.lock().expect("not poisoned"))(&taken.event, seen);
        let take = |taken| self.taken.lock().expect("not poisoned").push(taken);
        match fault {
            Fault::None => take(taken),
            Fault::Refused(status) => return Ok(answered(status)),
            Fault::LostBefore => return Err(io::Error::other("lost on purpose")),
            Fault::LostAfter => {
                take(taken);
                return Err(io::Error::other("lost on purpose"));
            }
            Fault::Late(after) => {
                take(taken);
                tokio::time::sleep(after).await;
            }
        }
        Ok(answered(204))
    }
}

fn answered(status: u16) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    response
}

/// Base64, read without help of those who wrote it.
fn decoded(text: &str) -> Vec<u8> {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        other => panic!("{other} is no base64"),
    };
    assert_eq!(text.len() % 4, 0, "padded: {text}");
    let (mut bits, mut held, mut bytes) = (0_u32, 0, Vec::new());
    for byte in text.trim_end_matches('=').bytes() {
        (bits, held) = (bits << 6 | u32::from(value(byte)), held + 6);
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    bytes
}
