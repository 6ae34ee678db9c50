//! Reads everything that the history is about, once all is quiet: from the owner, and from every
//! node's own replica.
//!
//! Nothing is judged here. An order that has not ended is read again until it has, a replica that
//! lags until it does not, both for a bounded time; then whatever was read last is what there is.

use super::targets::{Targets, payment_of};
use crate::{
    chaos::{
        history::{History, Method, Operation, Outcome, Request},
        load::Workload,
    },
    cli::http,
};
use futures::future::join_all;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};
use tokio::time::Instant;

/// How long a cluster may take to bring to an end what is under way, and its replicas to agree, if
/// nobody says otherwise.
pub const QUIET_MAX: Duration = Duration::from_secs(90);
/// Entities read at the same time.
const CLERKS: usize = 24;
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Between two looks at the same thing.
const POLL: Duration = Duration::from_millis(100);
/// A stock has come to rest when nothing happens to it for so long.
const STOCK_RESTS: Duration = Duration::from_millis(500);
const PAGE: usize = 100;

/// What was read.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// By path.
    pub entities: BTreeMap<String, Seen>,
    /// Changes by people, newest first, by the path of the stock.
    pub adjustments: BTreeMap<String, Result<Vec<Value>, String>>,
    /// Every register through every node, after everything else; numbered on from the history.
    pub last_reads: Vec<Operation>,
    /// What every node says of every receipt, by receipt.
    pub receipts: BTreeMap<String, Vec<(String, Said)>>,
    /// What every node says of its replicas' states.
    pub hashes: BTreeMap<String, Said>,
}

/// One entity.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// A linearizable read.
    pub owner: Reading,
    /// Every node's own replica, by url.
    pub replicas: Vec<(String, Reading)>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Reading {
    Found(Value),
    Missing,
    /// It could not be read, and why.
    Failed(String),
}

/// An answer of a route that not every node has.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    Value(Value),
    NotOffered,
    Failed(String),
}

impl Observed {
    /// The entity at a path, if it is there.
    #[must_use]
    pub fn found(&self, path: &str) -> Option<&Value> {
        self.entities.get(path)?.owner.found()
    }
}

impl Reading {
    #[must_use]
    pub fn found(&self) -> Option<&Value> {
        match self {
            Self::Found(value) => Some(value),
            _ => None,
        }
    }
}

/// Reads it all; what is under way has `quiet_max` to end.
pub async fn observe(history: &History, urls: &[String], quiet_max: Duration) -> Observed {
    let targets = Targets::of(history);
    let deadline = Instant::now() + quiet_max;
    let mut seen = Observed::default();
    // Stock comes to rest after the orders have, and so on: one kind after the other.
    let orders: Vec<(String, Kind)> = targets.orders.keys().map(|path| (path.clone(), Kind::Order)).collect();
    let payments = targets.payments.keys().cloned().chain(targets.orders.keys().map(|order| payment_of(order)));
    let payments: Vec<_> = payments.map(|path| (path, Kind::Payment)).collect();
    let reservations: Vec<_> = targets.reservations.keys().map(|path| (path.clone(), Kind::Reservation)).collect();
    let stocks: Vec<_> = targets.stocks.iter().map(|path| (path.clone(), Kind::Stock)).collect();
    for wanted in [orders, reservations, payments, stocks] {
        seen.entities.extend(read_all(urls, &wanted, deadline).await);
    }
    let Some(first) = Clerk::new(urls, deadline) else { return seen };
    for path in &targets.stocks {
        seen.adjustments.insert(path.clone(), first.adjustments(path).await);
    }
    seen.receipts = receipts(history, urls, deadline).await;
    for (node, url) in urls.iter().enumerate() {
        seen.hashes.insert(url.clone(), first.say(node, "/admin/v1/state-hashes").await);
    }
    seen.last_reads = first.last_reads(history, &targets.registers).await;
    seen
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Order,
    Payment,
    Reservation,
    Stock,
}

impl Kind {
    /// Nothing happens to it any more by itself, as far as it shows.
    fn is_at_rest(self, value: &Value) -> bool {
        let list = |name: &str| value[name].as_array().map(Vec::as_slice).unwrap_or_default().iter();
        match self {
            Self::Order => {
                let moving = ["pending", "backordered", "reserved", "authorized", "compensating"];
                !value["status"].as_str().is_some_and(|status| moving.contains(&status))
                    && value["payment_status"] != "refunding"
                    && list("returns").all(|back| back["restocked"] == true)
            }
            Self::Payment => {
                let moving = ["created", "authorizing", "capturing", "unknown"];
                !value["status"].as_str().is_some_and(|status| moving.contains(&status))
                    && value["in_progress"].is_null()
                    && list("refunds").all(|refund| refund["status"] != "pending" && refund["status"] != "unknown")
            }
            Self::Reservation => value["status"] != "pending",
            Self::Stock => true,
        }
    }
}

async fn read_all(urls: &[String], wanted: &[(String, Kind)], deadline: Instant) -> Vec<(String, Seen)> {
    let next = AtomicUsize::new(0);
    let work = |clerk: Clerk| {
        let next = &next;
        async move {
            let mut read = Vec::new();
            while let Some((path, kind)) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                read.push((path.clone(), clerk.see(path, *kind).await));
            }
            read
        }
    };
    let clerks = (0..CLERKS.min(wanted.len())).filter_map(|_| Clerk::new(urls, deadline));
    join_all(clerks.map(work)).await.into_iter().flatten().collect()
}

/// Each receipt, asked for on every node. Nodes that give no receipts are asked for none.
async fn receipts(history: &History, urls: &[String], deadline: Instant) -> BTreeMap<String, Vec<(String, Said)>> {
    let all: BTreeSet<&str> = history.operations.iter().filter_map(|operation| operation.receipt.as_deref()).collect();
    let all: Vec<&str> = all.into_iter().collect();
    let next = AtomicUsize::new(0);
    let work = |clerk: Clerk| {
        let (next, all) = (&next, &all);
        async move {
            let mut read = Vec::new();
            while let Some(receipt) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                read.push(((*receipt).to_owned(), clerk.confirm(receipt).await));
            }
            read
        }
    };
    let clerks = (0..CLERKS.min(all.len())).filter_map(|_| Clerk::new(urls, deadline));
    join_all(clerks.map(work)).await.into_iter().flatten().collect()
}

/// Someone with a connection to every node.
struct Clerk {
    nodes: Vec<http::Client>,
    deadline: Instant,
}

impl Clerk {
    /// `None` if an address is none.
    fn new(urls: &[String], deadline: Instant) -> Option<Self> {
        let node = |url: &String| Some(http::Client::new(url).ok()?.with_timeout(ANSWER_MAX));
        let nodes: Vec<_> = urls.iter().map(node).collect::<Option<_>>()?;
        (!nodes.is_empty()).then_some(Self { nodes, deadline })
    }

    async fn see(&self, path: &str, kind: Kind) -> Seen {
        let owner = self.owner(path, kind).await;
        let mut replicas = Vec::with_capacity(self.nodes.len());
        let local = format!("{path}?consistency=local");
        for (at, node) in self.nodes.iter().enumerate() {
            let mut replica = self.read(at, &local).await;
            while replica != owner && Instant::now() < self.deadline {
                tokio::time::sleep(POLL).await;
                replica = self.read(at, &local).await;
            }
            replicas.push((node.url(), replica));
        }
        Seen { owner, replicas }
    }

    /// Asks one node after the other until it is found at rest, or known not to be there.
    async fn owner(&self, path: &str, kind: Kind) -> Reading {
        let mut before: Option<Reading> = None;
        for at in 0.. {
            let reading = self.read(at % self.nodes.len(), path).await;
            let at_rest = match &reading {
                Reading::Found(_) if kind == Kind::Stock => before.as_ref() == Some(&reading),
                Reading::Found(value) => kind.is_at_rest(value),
                Reading::Missing => true,
                Reading::Failed(_) => false,
            };
            if at_rest || Instant::now() >= self.deadline {
                return reading;
            }
            tokio::time::sleep(if kind == Kind::Stock { STOCK_RESTS } else { POLL }).await;
            before = Some(reading);
        }
        Reading::Failed("never asked".into())
    }

    async fn read(&self, at: usize, path: &str) -> Reading {
        match self.nodes[at].get(path).await {
            Ok(answer) if answer.status == 200 => Reading::Found(answer.json()),
            Ok(answer) if answer.status == 404 => Reading::Missing,
            Ok(answer) => Reading::Failed(format!("{}: {}", answer.status, answer.text())),
            Err(error) => Reading::Failed(error.to_string()),
        }
    }

    /// All changes by people, page by page.
    async fn adjustments(&self, path: &str) -> Result<Vec<Value>, String> {
        let mut all: Vec<Value> = Vec::new();
        loop {
            let after = all.last().and_then(|last| last["id"].as_str());
            let after = after.map(|id| format!("&starting_after={id}")).unwrap_or_default();
            let page = match self.read(0, &format!("{path}/adjustments?limit={PAGE}{after}")).await {
                Reading::Found(page) => page,
                Reading::Missing => return Ok(all),
                Reading::Failed(_) if Instant::now() < self.deadline => {
                    tokio::time::sleep(POLL).await;
                    continue;
                }
                Reading::Failed(why) => return Err(why),
            };
            all.extend(page["data"].as_array().into_iter().flatten().cloned());
            if page["has_more"] != true {
                return Ok(all);
            }
        }
    }

    /// What every node says of a receipt; a replica that has not come so far is asked again.
    async fn confirm(&self, receipt: &str) -> Vec<(String, Said)> {
        let path = format!("/admin/v1/receipts/{receipt}");
        let mut all = Vec::new();
        for (at, node) in self.nodes.iter().enumerate() {
            let mut said = self.say(at, &path).await;
            let behind = |said: &Said| matches!(said, Said::Value(value) if value["verdict"] == "not-applied-yet");
            while behind(&said) && Instant::now() < self.deadline {
                tokio::time::sleep(POLL).await;
                said = self.say(at, &path).await;
            }
            all.push((node.url(), said));
        }
        all
    }

    async fn say(&self, at: usize, path: &str) -> Said {
        match self.nodes[at].get(path).await {
            Ok(answer) if answer.status == 200 => Said::Value(answer.json()),
            Ok(answer) if answer.status == 404 => Said::NotOffered,
            Ok(answer) => Said::Failed(format!("{}: {}", answer.status, answer.text())),
            Err(error) => Said::Failed(error.to_string()),
        }
    }

    /// Every register through every node, one read after the other.
    async fn last_reads(&self, history: &History, registers: &BTreeSet<String>) -> Vec<Operation> {
        let mut reads = Vec::new();
        let mut clock = history.operations.iter().map(|operation| operation.returned_us).max().unwrap_or(0);
        for path in registers {
            for (at, node) in self.nodes.iter().enumerate() {
                let mut reading = self.read(at, path).await;
                while matches!(reading, Reading::Failed(_)) && Instant::now() < self.deadline {
                    tokio::time::sleep(POLL).await;
                    reading = self.read(at, path).await;
                }
                let id = (history.operations.len() + reads.len()) as u64;
                // Only the order counts, and that they come after all else.
                reads.push(last_read(id, node.url(), path, clock + 1, reading));
                clock += 2;
            }
        }
        reads
    }
}

fn last_read(id: u64, node: String, path: &str, at_us: u64, reading: Reading) -> Operation {
    let outcome = match reading {
        Reading::Found(value) => Outcome::Answered { status: 200, replayed: false, body: (&value).into() },
        Reading::Missing => Outcome::Answered { status: 404, replayed: false, body: (&Value::Null).into() },
        Reading::Failed(reason) => Outcome::Unknown { reason },
    };
    let path = path.to_owned();
    let request = Request { method: Method::Get, path, key: None, if_match: None, body: (&Value::Null).into() };
    Operation {
        id,
        client: 0,
        workload: Workload::Register,
        node,
        invoked_us: at_us,
        returned_us: at_us + 1,
        request,
        outcome,
        receipt: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_order_is_at_rest_once_its_stock_and_its_money_are() {
        let rests = |order: Value| Kind::Order.is_at_rest(&order);
        assert!(rests(json!({"status": "confirmed", "payment_status": "captured", "returns": []})));
        assert!(!rests(json!({"status": "compensating", "payment_status": "voided"})));
        assert!(!rests(json!({"status": "returned", "payment_status": "refunding"})));
        assert!(!rests(json!({"status": "returned", "payment_status": "refunded", "returns": [{"restocked": false}]})));
    }

    #[test]
    fn a_payment_is_at_rest_once_the_gateway_owes_no_answer() {
        let rests = |payment: Value| Kind::Payment.is_at_rest(&payment);
        assert!(rests(json!({"status": "captured", "refunds": [{"status": "succeeded"}]})));
        assert!(!rests(json!({"status": "captured", "refunds": [{"status": "pending"}]})));
        assert!(!rests(json!({"status": "authorized", "in_progress": "void"})));
        assert!(!rests(json!({"status": "unknown"})));
    }

    #[tokio::test]
    async fn nodes_that_are_not_there_are_readings_that_failed() {
        let nobody = vec!["http://127.0.0.1:9".to_owned()];
        let clerk = Clerk::new(&nobody, Instant::now()).expect("an address");
        let seen = clerk.see("/v1/orders/ord_1", Kind::Order).await;
        assert!(matches!(seen.owner, Reading::Failed(_)) && matches!(seen.replicas[0].1, Reading::Failed(_)));
        assert!(matches!(clerk.say(0, "/x").await, Said::Failed(_)));
    }
}
