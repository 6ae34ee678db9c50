//! A rush for the last items, while whoever owns them is killed again and again.
//!
//! 200 customers order at the same moment what only 50 of them can get, each with a key of its own
//! and at any node that answers. Exactly 50 get it and are charged once, whoever dies meanwhile.

use crate::{
    audit::{answered, read_until},
    cards::{accounts, cluster_at, dice},
    harness::{Cluster, Node, PATIENCE, turn, wait_until},
    https::Https,
    shop::Customer,
    till::{Fault, Intent, Till, assert_agrees},
};
use futures::future::join_all;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{sync::Barrier, task::JoinSet};

const CUSTOMERS: usize = 200;
const WINNERS: usize = 50;
const PRICE: i64 = 1999;
/// Orders that are looked at at the same time.
const CLERKS: usize = 16;

/// Payments that the gateway takes before the last owner has died.
const LET_THROUGH: usize = WINNERS * 3 / 4;

/// How far the sale has come when the owner of the contested SKU is killed.
const KILLS: [(&str, Reached); 3] = [
    ("the first card was charged", |seen| seen.authorized >= 1),
    ("a third was paid for", |seen| seen.captured >= WINNERS / 3),
    ("three quarters were paid for", |seen| seen.captured >= LET_THROUGH),
];

type Reached = fn(&Seen) -> bool;

/// What the gateway has seen of the sale.
struct Seen {
    authorized: usize,
    captured: usize,
}

impl Seen {
    fn at(till: &Till) -> Self {
        let ledger = till.ledger();
        let captured = ledger.intents.values().filter(|intent| intent.captured.is_some()).count();
        Self { authorized: ledger.intents.len(), captured }
    }
}

/// Some cards take their time; some answers are lost.
fn busy_day(key: &str, seen: u32) -> Fault {
    match dice(key, 8) {
        0..=2 => Fault::Slow(Duration::from_millis(500)),
        3 if seen == 1 => Fault::LostAfter,
        _ => Fault::None,
    }
}

/// Holds payments back while owners die, so that the sale is still on then, however fast the
/// machine is.
#[derive(Default)]
struct Turnstile {
    is_open: AtomicBool,
    through: Mutex<BTreeSet<String>>,
}

impl Turnstile {
    fn admits(&self, key: &str) -> bool {
        if self.is_open.load(Ordering::Relaxed) || !key.ends_with(":capture") {
            return true;
        }
        let mut through = self.through.lock().expect("not poisoned");
        if through.len() < LET_THROUGH {
            through.insert(key.to_owned());
        }
        through.contains(key)
    }

    fn open(&self) {
        self.is_open.store(true, Ordering::Relaxed);
    }
}

/// What is on the shelves, and what is left of it when everyone has ordered.
struct Shelf {
    sku: &'static str,
    on_hand: u64,
}

#[tokio::test(flavor = "multi_thread")]
async fn of_200_checkouts_of_50_in_stock_exactly_50_are_confirmed_while_owners_are_killed() {
    rush(&[Shelf { sku: "last", on_hand: WINNERS as u64 }], |_| vec!["last"]).await;
}

/// Ten get the first SKU and must give it back, because the second is gone.
#[tokio::test(flavor = "multi_thread")]
async fn of_200_orders_over_two_skus_in_opposing_lines_exactly_50_are_confirmed_while_owners_are_killed() {
    let shelves =
        [Shelf { sku: "cup", on_hand: WINNERS as u64 + 10 }, Shelf { sku: "saucer", on_hand: WINNERS as u64 }];
    rush(&shelves, |number| if number.is_multiple_of(2) { vec!["cup", "saucer"] } else { vec!["saucer", "cup"] }).await;
}

/// The last of `shelves` is what decides.
async fn rush(shelves: &[Shelf], lines: fn(usize) -> Vec<&'static str>) {
    let _turn = turn().await;
    let turnstile = Arc::new(Turnstile::default());
    let gate = turnstile.clone();
    let temper = move |key: &str, seen: u32| if gate.admits(key) { busy_day(key, seen) } else { Fault::Instead(503) };
    let https = Https::new();
    let till = Till::open_at(https.listen().await, temper);
    let cluster = cluster_at(&till, &https).await;
    for shelf in shelves {
        let path = format!("/v1/inventory/{}", shelf.sku);
        let put = cluster.node(0).put(&path, &json!({"on_hand": shelf.on_hand})).await;
        assert_eq!(put.status, 200, "{}", put.text());
    }
    let mut sale = Sale::open(&cluster, lines);
    let contested = shelves.last().expect("something is sold").sku;
    for (when, reached) in KILLS {
        wait_until(when, PATIENCE, || async { reached(&Seen::at(&till)) }).await;
        let owner = owner_of(&cluster, contested).await;
        owner.kill9();
        assert!(sale.ended() < CUSTOMERS, "{} died too late, when {when}", owner.name);
        owner.restart();
    }
    turnstile.open();
    let orders = sale.close().await;
    cluster.wait_ready("when everything is sold").await;
    check(&cluster, &accounts(&till), shelves, &orders).await;
}

/// The node that owns the stock of `sku`, once those who live agree that it is one of them.
async fn owner_of<'a>(cluster: &'a Cluster, sku: &str) -> &'a Node {
    let found = Mutex::new(None);
    wait_until(&format!("{sku} has an owner that runs"), PATIENCE, || async {
        let owner = find_owner(cluster, sku).await;
        *found.lock().expect("no panic while held") = owner;
        owner.is_some()
    })
    .await;
    found.into_inner().expect("no panic while held").expect("it was waited for")
}

/// The node that says so itself.
async fn find_owner<'a>(cluster: &'a Cluster, sku: &str) -> Option<&'a Node> {
    for node in cluster.nodes() {
        let json = async |path: &str| node.get(path).await.ok().filter(|answer| answer.status == 200).map(|a| a.json());
        let Some(entity) = json(&format!("/admin/v1/entities/stock/{sku}?consistency=local")).await else { continue };
        let (Some(me), Some(shards)) = (json("/admin/v1/status").await, json("/admin/v1/shards").await) else {
            continue;
        };
        let mut shards = shards["data"].as_array().into_iter().flatten();
        let owner = shards.find(|shard| shard["shard"] == entity["shard"]).map(|shard| &shard["owner"]);
        if owner.is_some_and(|owner| *owner == me["node"] && !owner.is_null()) {
            return Some(node);
        }
    }
    None
}

/// Everyone who orders.
struct Sale {
    customers: JoinSet<Value>,
    ended: Arc<AtomicUsize>,
}

impl Sale {
    /// They all come in at once.
    fn open(cluster: &Cluster, lines: fn(usize) -> Vec<&'static str>) -> Self {
        let (ended, door) = (Arc::new(AtomicUsize::new(0)), Arc::new(Barrier::new(CUSTOMERS)));
        let mut customers = JoinSet::new();
        for number in 0..CUSTOMERS {
            let mut customer = Customer::patient(cluster.nodes(), number);
            let (ended, door) = (ended.clone(), door.clone());
            customers.spawn(async move {
                let request = order(number, &lines(number));
                door.wait().await;
                let answer = customer.carry_through("/v1/orders", &format!("rush-{number}"), &request).await;
                assert_eq!(answer.status, 201, "{}", answer.text());
                ended.fetch_add(1, Ordering::Relaxed);
                answer.json()
            });
        }
        Self { customers, ended }
    }

    fn ended(&self) -> usize {
        self.ended.load(Ordering::Relaxed)
    }

    /// The orders, once each has settled.
    async fn close(&mut self) -> Vec<Value> {
        let mut orders = Vec::new();
        while let Some(order) = self.customers.join_next().await {
            orders.push(order.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())));
        }
        orders
    }
}

fn order(number: usize, skus: &[&str]) -> Value {
    let item = |sku: &&str| json!({"sku": sku, "quantity": 1, "unit_price": PRICE});
    let items: Vec<Value> = skus.iter().map(item).collect();
    json!({"customer_id": format!("c{number}"), "currency": "USD", "payment_method": "pm_any", "items": items})
}

async fn check(cluster: &Cluster, accounts: &BTreeMap<String, Intent>, shelves: &[Shelf], orders: &[Value]) {
    let mut ended: BTreeMap<&str, usize> = BTreeMap::new();
    for order in orders {
        *ended.entry(order["status"].as_str().expect("a status")).or_default() += 1;
    }
    assert_eq!(ended, [("confirmed", WINNERS), ("rejected", CUSTOMERS - WINNERS)].into());
    assert_eq!(accounts.len(), WINNERS, "nobody else's card was touched");
    for shelf in shelves {
        check_stock(cluster, shelf).await;
    }
    let share = |share: usize| async move {
        for order in orders.iter().skip(share).step_by(CLERKS) {
            check_order(cluster, accounts, order).await;
        }
    };
    join_all((0..CLERKS).map(share)).await;
}

/// Every replica comes to say exactly this.
async fn check_stock(cluster: &Cluster, shelf: &Shelf) {
    let left = shelf.on_hand - WINNERS as u64;
    let levels = json!({"on_hand": left, "reserved": 0, "available": left, "committed": WINNERS, "backordered": 0});
    let exact = |stock: &Value| levels.as_object().into_iter().flatten().all(|(level, units)| stock[level] == *units);
    for node in cluster.nodes() {
        let path = format!("/v1/inventory/{}?consistency=local", shelf.sku);
        read_until(&node.client(), &path, &format!("the replica on {} has {levels}", node.name), exact).await;
    }
}

/// Every replica has the order as it was answered, and its payment as the gateway has it.
async fn check_order(cluster: &Cluster, accounts: &BTreeMap<String, Intent>, order: &Value) {
    let text = |member: &str| order[member].as_str().unwrap_or_else(|| panic!("{member} of {order}"));
    let (id, payment_id) = (text("id"), text("payment_id"));
    let account = accounts.get(payment_id);
    for node in cluster.nodes() {
        let path = format!("/v1/orders/{id}?consistency=local");
        let reason = format!("the replica on {} has {order}", node.name);
        read_until(&node.client(), &path, &reason, |local| local == order).await;
    }
    if text("status") == "rejected" {
        let answer = answered(&cluster.node(0).client(), &format!("/v1/payments/{payment_id}")).await;
        assert_eq!((answer.status, account), (404, None), "nothing was charged for {order}: {}", answer.text());
        return;
    }
    for node in cluster.nodes() {
        let path = format!("/v1/payments/{payment_id}?consistency=local");
        let reason = format!("the replica on {} has captured the payment of {order}", node.name);
        let payment = read_until(&node.client(), &path, &reason, |payment| payment["status"] == "captured").await;
        assert_agrees(account, &payment);
        assert_eq!((&payment["captured"], &payment["refunded"]["amount"]), (&order["total"], &json!(0)), "{payment}");
    }
}
