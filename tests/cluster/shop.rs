//! Customers of the shop: what they order, how they insist, and what they were told.
//!
//! A customer sends an order with a key of its own to one node after the other until one answers,
//! and writes down what it said. Whatever is written down here was acknowledged.

use crate::harness::{Cluster, Node, PATIENCE, Response, wait_until};
use quorate::cli::http::Client;
use serde_json::{Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What is sold, and how much of it there is. The last one runs out.
pub const SUPPLY: [(&str, u64); 4] = [("mug", 100_000), ("plate", 100_000), ("bowl", 100_000), ("rare", 40)];
const RARE: usize = SUPPLY.len() - 1;
/// Longest wait for an answer before another node is asked. A frozen node never answers.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an order may take to settle before it is asked about again, in seconds.
const SETTLE_WAIT: &str = "wait=10";
/// Longest wait for the answer of a node that waits for an order to settle.
const SETTLED_TIMEOUT: Duration = Duration::from_secs(20);
/// Within which an order settles, however often its owners die.
const SETTLED_WITHIN: Duration = Duration::from_secs(120);
/// What an order is while it goes on by itself.
const UNSETTLED: [&str; 5] = ["pending", "backordered", "reserved", "authorized", "compensating"];
/// Between two tries at an order that was not answered.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// Between two orders of one customer: bounds the load, and what has to be checked afterwards.
const ORDER_PAUSE: Duration = Duration::from_secs(1);
/// Between two looks at the stock while it is being sold.
const LOOK_PAUSE: Duration = Duration::from_millis(250);

/// An acknowledged order.
#[derive(Debug, Clone)]
pub struct Placed {
    pub key: String,
    pub request: Value,
    /// The body of the first acknowledgement.
    pub answer: Value,
}

impl Placed {
    pub fn id(&self) -> &str {
        self.answer["id"].as_str().expect("an order has an id")
    }

    pub fn sells(&self, sku: &str) -> u64 {
        let items = self.request["items"].as_array().expect("items");
        let of_sku = items.iter().filter(|item| item["sku"] == sku);
        of_sku.map(|item| item["quantity"].as_u64().expect("a quantity")).sum()
    }

    /// Whether there was always stock for it.
    pub fn is_in_stock(&self) -> bool {
        self.sells(SUPPLY[RARE].0) == 0
    }

    pub fn has_good_card(&self) -> bool {
        self.request["payment_method"] != "pm_card_declined"
    }
}

/// Puts [`SUPPLY`] on the shelves.
pub async fn stock_up(node: &Node) {
    for (sku, on_hand) in SUPPLY {
        let answer = node.put(&format!("/v1/inventory/{sku}"), &json!({"on_hand": on_hand})).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

/// The `number`th thing to order: now and then two items, a card that is declined, or one whose
/// gateway stumbles.
pub fn order(number: usize) -> Value {
    let card = ["pm_card_ok", "pm_card_ok", "pm_card_declined", "pm_card_ok", "pm_card_flaky"][number % 5];
    let item = |choice: usize| {
        let sku = SUPPLY[choice % SUPPLY.len()].0;
        json!({"sku": sku, "quantity": choice % 3 + 1, "unit_price": 1999})
    };
    let items: Vec<Value> = (0..1 + number % 2).map(|line| item(number + line)).collect();
    json!({"customer_id": format!("c{}", number % 7), "currency": "USD", "payment_method": card, "items": items})
}

/// Someone with a way to each node.
pub struct Customer {
    clients: Vec<Client>,
    next: usize,
}

impl Customer {
    pub fn new(nodes: &[Node], first: usize) -> Self {
        Self::who_waits(nodes, first, ANSWER_TIMEOUT)
    }

    /// Someone who hangs on until what was asked for has settled ([`Self::carry_through`]).
    pub fn patient(nodes: &[Node], first: usize) -> Self {
        Self::who_waits(nodes, first, SETTLED_TIMEOUT)
    }

    fn who_waits(nodes: &[Node], first: usize, timeout: Duration) -> Self {
        let clients = nodes.iter().map(|node| node.client().with_timeout(timeout)).collect();
        Self { clients, next: first }
    }

    /// Orders, asking one node after the other with the same key until one answers.
    pub async fn place(&mut self, key: &str, request: Value) -> Placed {
        let answer = self.order(key, &request).await.json();
        Placed { key: key.to_owned(), request, answer }
    }

    /// Changes an order and waits for where that leads, at one node after the other, always under
    /// the same key. A client's mistake is an answer, too.
    pub async fn carry_through(&mut self, path: &str, key: &str, request: &Value) -> Response {
        let began = Instant::now();
        loop {
            // A repetition waits like the first try: nothing has to be asked in between.
            let answer = self.insist(path, request, &[("idempotency-key", key), ("prefer", SETTLE_WAIT)]).await;
            if !answer.is_success() || has_settled(&answer.json()) {
                return answer;
            }
            let waited = began.elapsed();
            assert!(waited < SETTLED_WITHIN, "{key} has not settled within {waited:?}: {}", answer.text());
        }
    }

    async fn order(&mut self, key: &str, request: &Value) -> Response {
        let answer = self.insist("/v1/orders", request, &[("idempotency-key", key)]).await;
        assert_eq!(answer.status, 201, "order {key} was answered {}", answer.text());
        answer
    }

    /// The first answer that says what came of it.
    async fn insist(&mut self, path: &str, request: &Value, headers: &[(&str, &str)]) -> Response {
        let (started, mut said) = (Instant::now(), String::from("nothing"));
        while started.elapsed() < PATIENCE {
            let client = &self.clients[self.next % self.clients.len()];
            self.next += 1;
            match client.post(path, request, headers).await {
                Ok(answer) if answer.status == 429 || answer.status >= 500 => {
                    assert_is_problem(&answer);
                    said = format!("{} said {}", client.url(), answer.text());
                }
                Ok(answer) => return answer,
                Err(error) => said = error.to_string(),
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        panic!("POST {path} {headers:?} was not answered within {PATIENCE:?}; at last {said}");
    }

    /// Sends an acknowledged order again: it must be answered as it was at first.
    pub async fn repeat(&mut self, placed: &Placed) {
        let again = self.order(&placed.key, &placed.request).await;
        assert_eq!(again.json(), placed.answer, "another answer to the same key {}", placed.key);
        assert_eq!(again.header("idempotent-replayed"), Some("true"), "{}", placed.key);
    }
}

/// Nothing happens to the order any more by itself.
fn has_settled(order: &Value) -> bool {
    let status = order["status"].as_str().unwrap_or_else(|| panic!("the status of {order}"));
    !UNSETTLED.contains(&status) && order["payment_status"] != "refunding"
}

pub fn assert_is_problem(answer: &Response) {
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{}", answer.text());
    assert_eq!(answer.json()["status"], answer.status, "{}", answer.text());
}

/// Customers that order, one order each per [`ORDER_PAUSE`], until told to stop.
pub struct Load {
    customers: JoinSet<Vec<Placed>>,
    acknowledged: Arc<AtomicUsize>,
    stop: CancellationToken,
}

impl Load {
    /// `name` makes the keys of this load its own.
    pub fn start(cluster: &Cluster, name: &str, customers: usize) -> Self {
        let (acknowledged, stop) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
        let mut running = JoinSet::new();
        for number in 0..customers {
            let customer = Customer::new(cluster.nodes(), number);
            let name = format!("{name}-{number}");
            running.spawn(buy(customer, name, number, acknowledged.clone(), stop.clone()));
        }
        let clients = cluster.nodes().iter().map(|node| node.client().with_timeout(ANSWER_TIMEOUT)).collect();
        running.spawn(watch_stock(clients, stop.clone()));
        Self { customers: running, acknowledged, stop }
    }

    pub fn acknowledged(&self) -> usize {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until so many more orders are acknowledged.
    pub async fn wait_more(&self, orders: usize, reason: &str) {
        let enough = self.acknowledged() + orders;
        let reason = format!("{orders} more orders are acknowledged {reason}");
        wait_until(&reason, PATIENCE, || async { self.acknowledged() >= enough }).await;
    }

    /// Lets every customer finish the order it is at.
    pub async fn finish(mut self) -> Vec<Placed> {
        self.stop.cancel();
        let mut all = Vec::new();
        while let Some(placed) = self.customers.join_next().await {
            all.extend(placed.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())));
        }
        all
    }
}

async fn buy(
    mut customer: Customer,
    name: String,
    first: usize,
    acknowledged: Arc<AtomicUsize>,
    stop: CancellationToken,
) -> Vec<Placed> {
    let mut all = Vec::new();
    while !stop.is_cancelled() {
        let number = all.len();
        let placed = customer.place(&format!("{name}-{number}"), order(first + number)).await;
        // Some ask again at once, as one does whose answer was lost.
        if number % 4 == 3 {
            customer.repeat(&placed).await;
        }
        all.push(placed);
        acknowledged.fetch_add(1, Ordering::Relaxed);
        // Ends early when the load does.
        let _ = tokio::time::timeout(ORDER_PAUSE, stop.cancelled()).await;
    }
    all
}

/// Looks again and again whether something was sold that is not there. Places nothing.
async fn watch_stock(clients: Vec<Client>, stop: CancellationToken) -> Vec<Placed> {
    for look in 0.. {
        let (sku, supplied) = SUPPLY[look % SUPPLY.len()];
        // Without an answer there is nothing to look at.
        if let Ok(answer) = clients[look % clients.len()].get(&format!("/v1/inventory/{sku}")).await
            && answer.status == 200
        {
            assert_conserved(&answer.json(), supplied);
        }
        if tokio::time::timeout(LOOK_PAUSE, stop.cancelled()).await.is_ok() {
            break;
        }
    }
    Vec::new()
}

/// CONSERVATION of a SKU, which holds at every moment.
pub fn assert_conserved(stock: &Value, supplied: u64) {
    let level = |name: &str| stock[name].as_u64().unwrap_or_else(|| panic!("{name} of {stock}"));
    assert_eq!(level("on_hand") + level("committed"), supplied, "{stock}");
    assert!(level("reserved") <= level("on_hand"), "oversold: {stock}");
    assert_eq!(level("available"), level("on_hand") - level("reserved"), "{stock}");
    assert_eq!(level("backordered"), 0, "{stock}");
}
