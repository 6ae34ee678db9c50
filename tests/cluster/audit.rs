//! Whether a cluster kept its word, asked when the trouble is over.
//!
//! For every acknowledged order: it ended, as its card and the stock let it end; it is the order
//! that was acknowledged; every replica has it; its key still gives the first answer; its payment
//! took no more than it may. For every SKU: what was supplied is either there or sold.

use crate::{
    harness::{Cluster, Node, PATIENCE, Response, wait_until},
    shop::{Customer, Placed, SUPPLY, assert_conserved},
};
use futures::future::join_all;
use quorate::cli::http::Client;
use serde_json::Value;
use std::sync::Mutex;

/// Orders that are looked at at the same time.
const CLERKS: usize = 16;
const FINAL: [&str; 3] = ["confirmed", "cancelled", "rejected"];
/// What an order can never change.
const FIXED: [&str; 8] = ["id", "customer_id", "items", "currency", "total", "payment_id", "metadata", "created_at"];

/// Panics unless everything holds for the orders in `placed`, which must be all there are.
pub async fn audit(cluster: &Cluster, placed: &[Placed]) {
    audit_on(cluster.nodes(), placed).await;
}

/// The same, where only these nodes are there to be asked.
pub async fn audit_on(nodes: &[Node], placed: &[Placed]) {
    assert!(!placed.is_empty(), "there is nothing to check");
    let clerk = |(number, part): (usize, &'_ [Placed])| {
        let part = part.to_vec();
        async move { Clerk::new(nodes, number).check_all(part).await }
    };
    let parts = placed.chunks(placed.len().div_ceil(CLERKS)).enumerate();
    let confirmed: Vec<Placed> = join_all(parts.map(clerk)).await.into_iter().flatten().collect();
    for (sku, supplied) in SUPPLY {
        let sold: u64 = confirmed.iter().map(|order| order.sells(sku)).sum();
        check_stock(nodes, sku, supplied, sold).await;
    }
}

struct Clerk {
    nodes: Vec<Client>,
    customer: Customer,
    /// The node asked for linearizable reads.
    reader: usize,
}

impl Clerk {
    fn new(nodes: &[Node], number: usize) -> Self {
        let clients = nodes.iter().map(Node::client).collect();
        Self { nodes: clients, customer: Customer::new(nodes, number + 1), reader: number % nodes.len() }
    }

    /// Returns those that were confirmed.
    async fn check_all(mut self, orders: Vec<Placed>) -> Vec<Placed> {
        let mut confirmed = Vec::new();
        for placed in orders {
            let order = self.settled(&placed).await;
            check_content(&placed, &order);
            self.check_replicas(&format!("/v1/orders/{}", placed.id()), &order).await;
            self.check_payment(&order).await;
            self.customer.repeat(&placed).await;
            if order["status"] == "confirmed" {
                confirmed.push(placed);
            }
        }
        confirmed
    }

    /// The order once it has ended.
    async fn settled(&self, placed: &Placed) -> Value {
        let path = format!("/v1/orders/{}", placed.id());
        let reason = format!("order {} ({}) ends", placed.id(), placed.key);
        let ended = |order: &Value| order["status"].as_str().is_some_and(|status| FINAL.contains(&status));
        read_until(&self.nodes[self.reader], &path, &reason, ended).await
    }

    /// Every node's own replica comes to hold exactly `expected`.
    async fn check_replicas(&self, path: &str, expected: &Value) {
        let path = format!("{path}?consistency=local");
        for node in &self.nodes {
            let reason = format!("the replica on {} has {expected}", node.url());
            read_until(node, &path, &reason, |local| local == expected).await;
        }
    }

    async fn check_payment(&self, order: &Value) {
        let path = format!("/v1/payments/{}", order["payment_id"].as_str().expect("a payment id"));
        let answer = answered(&self.nodes[self.reader], &path).await;
        if order["status"] == "rejected" {
            assert_eq!(answer.status, 404, "nothing was charged for {order}: {}", answer.text());
            return;
        }
        assert_eq!(answer.status, 200, "the payment of {order}: {}", answer.text());
        let payment = answer.json();
        let amount = |name: &str| payment[name]["amount"].as_u64().unwrap_or_else(|| panic!("{name} of {payment}"));
        assert!(amount("refunded") <= amount("captured") && amount("captured") <= amount("amount"), "{payment}");
        assert_eq!(payment["amount"], order["total"], "{payment} for {order}");
        let kept = amount("captured") - amount("refunded");
        let owed = if order["status"] == "confirmed" { amount("amount") } else { 0 };
        assert_eq!(kept, owed, "{payment} for {order}");
        self.check_replicas(&path, &payment).await;
    }
}

/// It is the order that was acknowledged, and ended as it had to.
fn check_content(placed: &Placed, order: &Value) {
    for field in FIXED {
        assert_eq!(order[field], placed.answer[field], "`{field}` of {order}, acknowledged as {}", placed.answer);
    }
    assert_eq!(order["items"], placed.request["items"], "{order}");
    let expected: &[&str] = match (placed.has_good_card(), placed.is_in_stock()) {
        (true, true) => &["confirmed"],
        (true, false) => &["confirmed", "rejected"],
        (false, true) => &["cancelled"],
        (false, false) => &["cancelled", "rejected"],
    };
    let status = order["status"].as_str().expect("a status");
    assert!(expected.contains(&status), "not {expected:?}: {order}");
}

async fn check_stock(nodes: &[Node], sku: &str, supplied: u64, sold: u64) {
    let path = format!("/v1/inventory/{sku}");
    let reason = format!("nothing of {sku} is reserved any more");
    let stock = read_until(&nodes[0].client(), &path, &reason, |stock| stock["reserved"] == 0).await;
    assert_conserved(&stock, supplied);
    assert_eq!(stock["committed"], sold, "confirmed orders and {stock}");
    for node in nodes {
        let reason = format!("the replica on {} has {stock}", node.name);
        read_until(&node.client(), &format!("{path}?consistency=local"), &reason, |local| *local == stock).await;
    }
}

/// The first answer that is neither an excuse nor a request for patience.
pub async fn answered(client: &Client, path: &str) -> Response {
    let answer = Mutex::default();
    wait_until(&format!("{} has an answer to {path}", client.url()), PATIENCE, || async {
        let got = client.get(path).await.ok().filter(|got| got.status < 500 && got.status != 429);
        let done = got.is_some();
        *answer.lock().expect("no panic while held") = got;
        done
    })
    .await;
    answer.into_inner().expect("no panic while held").expect("it was waited for")
}

/// Reads until `good`; fails with the last answer.
pub async fn read_until(client: &Client, path: &str, reason: &str, good: impl Fn(&Value) -> bool) -> Value {
    let last: Mutex<Option<Response>> = Mutex::default();
    let outcome = tokio::time::timeout(
        PATIENCE,
        wait_until(reason, PATIENCE * 2, || async {
            let Ok(answer) = client.get(path).await else { return false };
            let done = answer.status == 200 && good(&answer.json());
            *last.lock().expect("no panic while held") = Some(answer);
            done
        }),
    )
    .await;
    let last = last.into_inner().expect("no panic while held");
    let shown = last.as_ref().map_or("no answer".into(), Response::text);
    assert!(outcome.is_ok(), "waited {PATIENCE:?} in vain until {reason}; {path} at {}: {shown}", client.url());
    last.map(|answer| answer.json()).unwrap_or_default()
}
