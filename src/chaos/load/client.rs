//! One client: a way to each node, one request at a time, every attempt recorded.

use super::{Options, Workload, recorder::Recorder};
use crate::{
    chaos::history::{Json, Method, Outcome, Request},
    cli::http::{self, Error, Response},
};
use hyper::Method as HttpMethod;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::Value;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Longest wait for one answer: twice what a node takes to give up on a write. A frozen node
/// never answers.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How long an operation is tried, node after node, until it is decided.
const INSIST_MAX: Duration = Duration::from_secs(30);
/// Between two attempts at one operation.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

pub(super) struct Client {
    number: u32,
    workload: Workload,
    nodes: Vec<http::Client>,
    urls: Vec<String>,
    random: StdRng,
    recorder: Arc<Recorder>,
    /// Operations begun, for keys and values that nobody else uses.
    begun: u64,
}

impl Client {
    pub fn new(number: usize, workload: Workload, options: &Options, recorder: Arc<Recorder>) -> Self {
        let node = |url: &String| Some(http::Client::new(url).ok()?.with_timeout(ANSWER_MAX));
        let nodes: Vec<_> = options.urls.iter().filter_map(node).collect();
        assert_eq!(nodes.len(), options.urls.len(), "an address of {:?} is none", options.urls);
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        // Each client has a stream of its own out of the one seed.
        let random = StdRng::seed_from_u64(options.seed ^ (u64::from(number) << 32) ^ workload as u64);
        Self { number, workload, nodes, urls: options.urls.clone(), random, recorder, begun: 0 }
    }

    pub fn workload(&self) -> Workload {
        self.workload
    }

    pub fn is_stopped(&self) -> bool {
        self.recorder.stop.is_cancelled()
    }

    /// Waits about so long; less if the load is stopped. False once it is.
    pub async fn pause(&mut self, about: Duration) -> bool {
        let pause = about.mul_f64(self.random.random_range(0.5..1.5));
        let _ = tokio::time::timeout(pause, self.recorder.stop.cancelled()).await;
        !self.is_stopped()
    }

    /// From 0 to `below`, which must not be 0.
    pub fn draw(&mut self, below: usize) -> usize {
        self.random.random_range(0..below)
    }

    /// True once in `n`.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.draw(n) == 0
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.draw(from.len())]
    }

    /// A number that no other operation of this run has.
    pub fn unique(&mut self) -> u64 {
        self.begun += 1;
        u64::from(self.number) * 10_000_000 + self.begun
    }

    pub fn key(&mut self, what: &str) -> String {
        format!("chaos-{what}-{}", self.unique())
    }

    pub async fn get(&mut self, path: String) -> Outcome {
        let node = self.draw(self.nodes.len());
        let request = Request { method: Method::Get, path, key: None, if_match: None, body: Json::default() };
        self.attempt(node, request).await
    }

    /// Reads from this node, and does not wait for long: what only reads may be given up.
    pub async fn glance(&mut self, node: usize, path: String, patience: Duration) -> Outcome {
        let request = Request { method: Method::Get, path, key: None, if_match: None, body: Json::default() };
        self.attempt_within(node, request, patience).await
    }

    /// Sends a request to one node, once.
    pub async fn once(&mut self, request: Request) -> Outcome {
        let node = self.draw(self.nodes.len());
        self.attempt(node, request).await
    }

    /// POST with a key, to one node after the other until it is decided; `None` if that never was.
    pub async fn post(&mut self, path: String, key: String, body: &Value) -> Option<(u16, Value)> {
        let request = Request { method: Method::Post, path, key: Some(key), if_match: None, body: body.into() };
        self.insist(request).await
    }

    /// The same request to one node after the other, until one of them decides.
    pub async fn insist(&mut self, request: Request) -> Option<(u16, Value)> {
        let first = self.draw(self.nodes.len());
        let begun = Instant::now();
        for attempt in 0.. {
            let outcome = self.attempt((first + attempt) % self.nodes.len(), request.clone()).await;
            if let Outcome::Answered { status, body, .. } = outcome {
                return Some((status, body.value()));
            }
            if begun.elapsed() > INSIST_MAX {
                break;
            }
            // Also once the load is stopped: what is begun is brought to an end.
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        None
    }

    async fn attempt(&mut self, node: usize, request: Request) -> Outcome {
        self.attempt_within(node, request, ANSWER_MAX).await
    }

    async fn attempt_within(&mut self, node: usize, request: Request, patience: Duration) -> Outcome {
        let id = self.recorder.begin(self.number, self.workload, &self.urls[node], request.clone());
        let answer = tokio::time::timeout(patience, send(&self.nodes[node], request)).await;
        let late = |_| Err(Error::TimedOut { url: self.urls[node].clone(), after: patience });
        let (outcome, receipt) = read(answer.unwrap_or_else(late));
        self.recorder.end(id, outcome.clone(), receipt);
        outcome
    }
}

async fn send(node: &http::Client, request: Request) -> Result<Response, Error> {
    let condition = request.if_match.map(|version| format!("\"{version}\""));
    let key = request.key.as_deref().map(|key| ("idempotency-key", key));
    let headers: Vec<_> = key.into_iter().chain(condition.as_deref().map(|tag| ("if-match", tag))).collect();
    let method = match request.method {
        Method::Get => HttpMethod::GET,
        Method::Put => HttpMethod::PUT,
        Method::Post => HttpMethod::POST,
    };
    let body = (request.method != Method::Get).then(|| request.body.value().to_string());
    node.send(method, &request.path, &headers, body).await
}

/// What an answer means for whoever must not take a guess for knowledge.
fn read(answer: Result<Response, Error>) -> (Outcome, Option<String>) {
    let answer = match answer {
        Ok(answer) => answer,
        // Nothing was sent.
        Err(Error::Unreachable { .. }) => {
            return (Outcome::Refused { status: 0, code: "unreachable".into() }, None);
        }
        Err(error @ (Error::TimedOut { .. } | Error::Broken { .. })) => {
            return (Outcome::Unknown { reason: error.to_string() }, None);
        }
        Err(error @ (Error::BadUrl { .. } | Error::BadRequest(_))) => {
            return (Outcome::Refused { status: 0, code: error.to_string() }, None);
        }
    };
    let body = answer.json();
    let code = || body["code"].as_str().unwrap_or("no code").to_owned();
    let outcome = match answer.status {
        429 | 503 => Outcome::Refused { status: answer.status, code: code() },
        // 504 says so itself; of a 500 nothing is believed.
        status @ 500.. => Outcome::Unknown { reason: format!("{status} {}", code()) },
        status => {
            let replayed = answer.header("idempotent-replayed") == Some("true");
            Outcome::Answered { status, replayed, body: (&body).into() }
        }
    };
    (outcome, answer.header("x-receipt").map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::HeaderMap;

    fn response(status: u16, body: &'static str) -> Result<Response, Error> {
        let headers = [("x-receipt".parse().expect("a name"), "3-1-7-ab".parse().expect("a value"))];
        Ok(Response { status, headers: HeaderMap::from_iter(headers), body: body.into() })
    }

    #[test]
    fn only_what_certainly_did_not_happen_is_refused() {
        let url = || String::from("http://a");
        let (refused, _) = read(Err(Error::Unreachable { url: url(), reason: "refused".into() }));
        assert!(matches!(refused, Outcome::Refused { .. }));
        let lost = [
            Err(Error::TimedOut { url: url(), after: ANSWER_MAX }),
            Err(Error::Broken { url: url(), reason: "reset".into() }),
            response(504, r#"{"code":"outcome-unknown"}"#),
            response(500, r#"{"code":"internal"}"#),
        ];
        assert!(lost.into_iter().all(|lost| matches!(read(lost).0, Outcome::Unknown { .. })));
        for status in [429, 503] {
            assert!(matches!(read(response(status, "{}")).0, Outcome::Refused { .. }), "{status}");
        }
    }

    #[test]
    fn a_decision_keeps_its_body_and_receipt() {
        for status in [200, 201, 404, 409, 412] {
            let (outcome, receipt) = read(response(status, r#"{"id":"ord_1"}"#));
            let Outcome::Answered { status: kept, body, replayed: false } = outcome else { panic!("{outcome:?}") };
            assert_eq!((kept, body.value()["id"].as_str()), (status, Some("ord_1")));
            assert_eq!(receipt.as_deref(), Some("3-1-7-ab"));
        }
    }
}
