//! Five thousand orders at a gateway that loses answers, declines and takes its time, with nodes
//! dying in between. In the end three books are compared, to the unit: what the orders must have
//! come to, what the nodes say, and what the gateway itself has written down.

mod plan;

use crate::{
    audit::{answered, read_until},
    cards::{REQUEST_TIMEOUT, accounts, cluster_at, dice},
    harness::{Cluster, Node, Response, turn, wait_until},
    https::Https,
    shop::Customer,
    till::{Fault, Intent, Till, assert_agrees},
};
use futures::future::join_all;
use plan::{Fate, Plan, SKUS, sku, supply};
use quorate::cli::http::Client;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::task::JoinSet;

const ORDERS: usize = 5000;
const CUSTOMERS: usize = 96;
/// Orders that have ended while a node is down.
const ORDERS_WITHOUT: usize = 200;
/// For a third of them to end, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(240);
/// What is looked at at the same time.
const CLERKS: usize = 32;

/// By the key of the operation, so that it is the same whoever asks: of 5 % the answer is lost, 5 %
/// are slow.
fn bad_day(key: &str, seen: u32) -> Fault {
    let first = seen == 1;
    match dice(key, 1000) {
        0..40 if first => Fault::LostAfter,
        40..45 if first => Fault::LostBefore,
        // Refused on the way after it was done: nobody tries again, only the query tells.
        45..49 if first => Fault::After(403),
        // No attempt is answered: here, too, only the query tells.
        49 if seen <= 8 => Fault::LostAfter,
        50..98 if first => Fault::Slow(Duration::from_millis(200 + dice(&format!("{key} slow"), 800))),
        98..100 if first => Fault::Late(REQUEST_TIMEOUT * 3 / 2),
        _ => Fault::None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_5000_orders_at_a_bad_gateway_every_one_ends_and_the_books_agree_to_the_unit() {
    let _turn = turn().await;
    let https = Https::new();
    let till = Till::open_at(https.listen().await, bad_day);
    let cluster = cluster_at(&till, &https).await;
    stock_up(&cluster).await;
    let shop = Shop::open(&cluster);
    for (victim, part) in [(0, 3), (1, 2)] {
        shop.wait_ended(ORDERS / part, "before a node dies").await;
        let node = cluster.node(victim);
        node.kill9();
        shop.wait_ended(shop.ended() + ORDERS_WITHOUT, &format!("without {}", node.name)).await;
        node.restart();
        node.wait_ready("after it was killed").await;
    }
    let orders = shop.close().await;
    assert_eq!(orders.len(), ORDERS);
    check_orders(&cluster, &accounts(&till), &orders).await;
    check_stock(&cluster, &orders).await;
    check_day(&till, &orders);
}

async fn stock_up(cluster: &Cluster) {
    let share = |share: u64| async move {
        let node = &cluster.nodes()[share as usize % cluster.nodes().len()];
        let client = node.client();
        for number in (share..SKUS).step_by(CLERKS) {
            let path = format!("/v1/inventory/{}", sku(number));
            let put = client.put(&path, &json!({"on_hand": supply(number)}), &[]).await.expect("an answer");
            assert_eq!(put.status, 200, "{}", put.text());
        }
    };
    join_all((0..CLERKS as u64).map(share)).await;
}

/// An order that has come to its end.
struct Ended {
    plan: Plan,
    order: Value,
}

/// Customers who take one order after the other, until all are placed.
struct Shop {
    customers: JoinSet<Vec<Ended>>,
    ended: Arc<AtomicUsize>,
}

impl Shop {
    fn open(cluster: &Cluster) -> Self {
        let (next, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut customers = JoinSet::new();
        for first in 0..CUSTOMERS {
            let (hasty, patient) = (Customer::new(cluster.nodes(), first), Customer::patient(cluster.nodes(), first));
            let mut buyer = Buyer { hasty, patient };
            let (next, ended) = (next.clone(), ended.clone());
            customers.spawn(async move {
                let mut done = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= ORDERS {
                        return done;
                    }
                    let plan = Plan::of(number);
                    let order = buyer.live(&plan).await;
                    done.push(Ended { plan, order });
                    ended.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        Self { customers, ended }
    }

    fn ended(&self) -> usize {
        self.ended.load(Ordering::Relaxed)
    }

    async fn wait_ended(&self, orders: usize, reason: &str) {
        wait_until(&format!("{orders} orders have ended {reason}"), PATIENCE, || async { self.ended() >= orders })
            .await;
    }

    async fn close(mut self) -> Vec<Ended> {
        let mut all = Vec::new();
        while let Some(done) = self.customers.join_next().await {
            all.extend(done.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())));
        }
        all
    }
}

struct Buyer {
    hasty: Customer,
    patient: Customer,
}

impl Buyer {
    /// Does with an order what its plan says; returns it as it is in the end.
    async fn live(&mut self, plan: &Plan) -> Value {
        if plan.fate == Fate::CancelledAtOnce {
            let placed = self.hasty.place(&plan.key(), plan.request()).await;
            if let Some(cancelled) = self.cancel_in_time(plan, placed.id()).await {
                return cancelled;
            }
        }
        let placed = self.patient.carry_through("/v1/orders", &plan.key(), &plan.request()).await;
        assert_eq!(placed.status, 201, "{}", placed.text());
        let order = placed.json();
        if order["status"] != "confirmed" {
            return order;
        }
        let id = order["id"].as_str().expect("an id");
        let sends = [Fate::Sent, Fate::ReturnedInPart, Fate::ReturnedWhole].contains(&plan.fate);
        let sent = if sends { self.change(plan, "fulfillments", &json!({}), id).await } else { order.clone() };
        match plan.fate {
            Fate::CancelledLate => self.change(plan, "cancel", &json!({"reason": "too late"}), id).await,
            Fate::ReturnedInPart => self.change(plan, "returns", &plan.part(), id).await,
            Fate::ReturnedWhole => self.change(plan, "returns", &json!({}), id).await,
            Fate::Kept | Fate::Sent | Fate::CancelledAtOnce => sent,
        }
    }

    /// The order once it is cancelled; nothing if it was declined or rejected before.
    async fn cancel_in_time(&mut self, plan: &Plan, id: &str) -> Option<Value> {
        let answer = self.try_to(plan, "cancel", &json!({}), id).await;
        let (body, too_late) = (answer.json(), ["compensating", "cancelled", "rejected"].map(Value::from));
        if answer.status == 409 && too_late.contains(&body["state"]) {
            return None;
        }
        assert_eq!(answer.status, 200, "cancelling {plan:?}: {}", answer.text());
        Some(body)
    }

    /// A change that must be accepted.
    async fn change(&mut self, plan: &Plan, action: &str, body: &Value, id: &str) -> Value {
        let answer = self.try_to(plan, action, body, id).await;
        assert_eq!(answer.status, 200, "{action} of {plan:?}: {}", answer.text());
        answer.json()
    }

    async fn try_to(&mut self, plan: &Plan, action: &str, body: &Value, id: &str) -> Response {
        let path = format!("/v1/orders/{id}/{action}");
        self.patient.carry_through(&path, &format!("{}-{action}", plan.key()), body).await
    }
}

/// Every order has ended as its plan lets it; its payment says what the gateway has; both say what
/// the order must have come to.
async fn check_orders(cluster: &Cluster, accounts: &BTreeMap<String, Intent>, orders: &[Ended]) {
    let share = |share: usize| async move {
        let client = cluster.nodes()[share % cluster.nodes().len()].client();
        let mut books: BTreeMap<&str, [i64; 3]> = BTreeMap::new();
        for ended in orders.iter().skip(share).step_by(CLERKS) {
            let sums = books.entry(ended.plan.currency).or_default();
            let own = check_order(&client, accounts, ended).await;
            sums.iter_mut().zip(own).for_each(|(sum, own)| *sum += own);
        }
        books
    };
    let mut ours: BTreeMap<String, [i64; 3]> = BTreeMap::new();
    for (currency, sums) in join_all((0..CLERKS).map(share)).await.into_iter().flatten() {
        let all = ours.entry(currency.to_lowercase()).or_default();
        all.iter_mut().zip(sums).for_each(|(all, sum)| *all += sum);
    }
    let mut theirs: BTreeMap<String, [i64; 3]> = BTreeMap::new();
    for intent in accounts.values() {
        let all = theirs.entry(intent.currency.clone()).or_default();
        let own = [intent.authorized, intent.captured.unwrap_or(0), intent.refunded];
        all.iter_mut().zip(own).for_each(|(all, own)| *all += own);
    }
    assert_eq!(ours, theirs, "authorized, captured and refunded in all");
}

/// What its payment says was authorized, captured and refunded.
async fn check_order(client: &Client, accounts: &BTreeMap<String, Intent>, ended: &Ended) -> [i64; 3] {
    let Ended { plan, order } = ended;
    let read = answered(client, &format!("/v1/orders/{}", order["id"].as_str().expect("an id"))).await;
    let now = read.json();
    assert_eq!((read.status, &now["status"]), (200, &order["status"]), "{now} was {order}");
    let payment_id = now["payment_id"].as_str().expect("a payment id");
    let (read, account) = (answered(client, &format!("/v1/payments/{payment_id}")).await, accounts.get(payment_id));
    let outcome = plan.outcome(now["status"].as_str().expect("a status"));
    let kept = account.map_or(0, |intent| intent.captured.unwrap_or(0) - intent.refunded);
    assert_eq!(kept, outcome.kept, "{account:?} for {now}");
    if read.status == 404 {
        // Rejected or cancelled before anything was charged.
        assert_eq!(account, None, "{now}");
        return [0; 3];
    }
    let payment = read.json();
    assert_agrees(account, &payment);
    let Some(intent) = account else { return [0; 3] };
    let facts = (intent.authorized, intent.currency.as_str(), intent.metadata.get("order_id").map(String::as_str));
    let expected = (plan.total(), plan.currency.to_lowercase(), now["id"].as_str());
    assert_eq!(facts, (expected.0, expected.1.as_str(), expected.2), "the books can be compared");
    ["amount", "captured", "refunded"].map(|member| payment[member]["amount"].as_i64().expect("units"))
}

/// What was supplied is there or was sold, on every replica of every SKU.
async fn check_stock(cluster: &Cluster, orders: &[Ended]) {
    let (mut sold, mut returned) = (BTreeMap::<String, u64>::new(), BTreeMap::<String, u64>::new());
    for ended in orders {
        let outcome = ended.plan.outcome(ended.order["status"].as_str().expect("a status"));
        outcome.sold.into_iter().for_each(|(sku, units)| *sold.entry(sku).or_default() += units);
        outcome.returned.into_iter().for_each(|(sku, units)| *returned.entry(sku).or_default() += units);
    }
    let (sold, returned) = (&sold, &returned);
    let check = |node: &'_ Node, share: u64| {
        let client = node.client();
        async move {
            for number in (share..SKUS).step_by(CLERKS) {
                let sku = sku(number);
                let [sold, returned] = [sold, returned].map(|units| units.get(&sku).copied().unwrap_or(0));
                check_levels(&client, &sku, supply(number), sold, returned).await;
            }
        }
    };
    join_all(cluster.nodes().iter().flat_map(|node| (0..CLERKS as u64).map(move |share| check(node, share)))).await;
}

async fn check_levels(client: &Client, sku: &str, supplied: u64, sold: u64, returned: u64) {
    let path = format!("/v1/inventory/{sku}?consistency=local");
    let left = supplied + returned - sold;
    let expected = [("on_hand", left), ("reserved", 0), ("available", left), ("committed", sold), ("backordered", 0)];
    let exact = |stock: &Value| {
        expected.iter().all(|(level, units)| stock[level] == *units)
            && stock["returned"].as_u64().unwrap_or(0) == returned
    };
    read_until(client, &path, &format!("{sku} has {expected:?}, returned {returned}"), exact).await;
}

/// The day was as bad as it was meant to be, and every way to end was taken.
fn check_day(till: &Till, orders: &[Ended]) {
    let ledger = till.ledger();
    let repeated = ledger.seen.values().filter(|seen| **seen > 1).count();
    let part = repeated * 100 / ledger.seen.len();
    assert!((4..=8).contains(&part), "{repeated} of {} operations were asked for again", ledger.seen.len());
    for status in ["confirmed", "rejected", "cancelled", "fulfilled", "partially_returned", "returned"] {
        assert!(orders.iter().any(|ended| ended.order["status"] == status), "no order is {status}");
    }
}
