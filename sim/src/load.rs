//! What customers do all day, and what they were told.
//!
//! Each customer sends a request with a key of its own to one node after the other until one gives
//! an answer about the request itself, and writes that down. What the end of the day leaves without
//! an answer is kept as unknown: it may have happened, or not.

use crate::{
    client::{Answer, Ask},
    world::World,
    world_clock::elapsed_us,
};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use serde_json::{Value, json};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// SKUs that are sold, with what is on hand at first. The last one runs out.
pub const SUPPLY: [(&str, u64); 4] = [("mug", 100_000), ("plate", 100_000), ("bowl", 100_000), ("rare", 60)];
/// SKUs whose stock is only counted: each `PUT` replaces a number that reads must follow.
pub const REGISTERS: [&str; 2] = ["register-a", "register-b"];
const RETRY_PAUSE_MS: std::ops::RangeInclusive<u64> = 20..=200;
/// How long a whole cluster may leave a customer without an answer.
const PATIENCE: Duration = Duration::from_secs(120);
const REPEATS: f64 = 0.1;
const CANCELS: f64 = 0.1;

/// An acknowledged order.
#[derive(Debug, Clone)]
pub struct Placed {
    pub key: String,
    pub request: Value,
    pub answer: Value,
}

impl Placed {
    /// The request once more.
    pub fn again(&self) -> Ask<'static> {
        place(&self.key, &self.request)
    }

    /// A known key has its first answer again, whenever it is asked.
    pub fn is_repeated_by(&self, again: &Answer) -> Result<(), String> {
        let is_replay = again.header("idempotent-replayed") == "true";
        if is_replay && again.status == 201 && again.body == self.answer {
            return Ok(());
        }
        let Answer { status, body, .. } = again;
        Err(format!(
            "KEY: {} was first answered {} and then {status} {body} (a replay: {is_replay})",
            self.key, self.answer
        ))
    }
}

fn place(key: &str, request: &Value) -> Ask<'static> {
    Ask::post("/v1/orders", key, request.clone())
}

/// One operation on a register that ended, as its client saw it.
#[derive(Debug, Clone)]
pub struct Touch {
    pub register: &'static str,
    pub began_us: u64,
    pub ended_us: u64,
    pub wrote: bool,
    /// The register's version by then, and its number.
    pub version: u64,
    pub number: u64,
}

/// What was told to customers.
#[derive(Debug, Default)]
pub struct Told {
    pub placed: Vec<Placed>,
    /// Orders that nobody gave an answer for.
    pub unknown: u64,
    pub touches: Vec<Touch>,
    /// Answers that can never be right, whatever else happens.
    pub wrong: Vec<String>,
    pub requests: u64,
    pub excuses: u64,
}

/// Customers at work. Clones are the same.
#[derive(Clone)]
pub struct Load {
    world: Arc<World>,
    told: Arc<Mutex<Told>>,
    closing: CancellationToken,
    tasks: TaskTracker,
}

impl Load {
    /// Puts the supply on the shelves and opens the shop to `customers`.
    pub async fn open(world: Arc<World>, customers: u32, seed: u64) -> Self {
        let load = Self { world, told: Arc::default(), closing: CancellationToken::new(), tasks: TaskTracker::new() };
        let mut random = StdRng::seed_from_u64(seed);
        let registers = REGISTERS.iter().map(|register| (*register, 0));
        for (sku, on_hand) in SUPPLY.into_iter().chain(registers) {
            let put = Ask::put(format!("/v1/inventory/{sku}"), json!({"on_hand": on_hand}));
            load.insist(&put, &mut random).await;
        }
        for number in 0..customers {
            let random = StdRng::from_rng(&mut random);
            load.tasks.spawn(load.clone().customer(number, random));
        }
        for (number, register) in REGISTERS.into_iter().enumerate() {
            for client in 0..2 {
                let random = StdRng::from_rng(&mut random);
                load.tasks.spawn(load.clone().clerk(register, (number * 2 + client) as u64, random));
            }
        }
        load.tasks.close();
        load
    }

    /// Nothing new is begun from now on.
    pub fn close(&self) {
        self.closing.cancel();
    }

    /// Orders that are acknowledged by now.
    pub fn placed(&self) -> Vec<Placed> {
        self.book().placed.clone()
    }

    /// Waits until every customer has left, and gives what they were told.
    pub async fn told(self) -> Told {
        self.tasks.wait().await;
        std::mem::take(&mut *self.book())
    }

    async fn customer(self, number: u32, mut random: StdRng) {
        let mut orders = 0;
        while self.pause(&mut random, 100, 3_000).await {
            let (key, request) = (format!("order-{number}-{orders}"), order(&mut random));
            orders += 1;
            let post = place(&key, &request);
            let Some(answer) = self.insist(&post, &mut random).await else {
                self.book().unknown += 1;
                continue;
            };
            if answer.status != 201 {
                self.wrong(format!("order {key} was answered {}: {}", answer.status, answer.body));
                continue;
            }
            let placed = Placed { key: key.clone(), request, answer: answer.body };
            if random.random_bool(REPEATS) {
                self.repeat(&placed, &mut random).await;
            }
            if random.random_bool(CANCELS) {
                let id = placed.answer["id"].as_str().unwrap_or_default();
                let cancel = Ask::post(format!("/v1/orders/{id}/cancel"), &format!("{key}-cancel"), json!({}));
                self.insist(&cancel, &mut random).await;
            }
            self.book().placed.push(placed);
        }
    }

    async fn repeat(&self, placed: &Placed, random: &mut StdRng) {
        if let Some(again) = self.insist(&placed.again(), random).await
            && let Err(wrong) = placed.is_repeated_by(&again)
        {
            self.wrong(wrong);
        }
    }

    /// Sets and reads one register.
    async fn clerk(self, register: &'static str, number: u64, mut random: StdRng) {
        let path = format!("/v1/inventory/{register}");
        let mut next = number * 1_000_000;
        while self.pause(&mut random, 50, 1_500).await {
            let (wrote, began_us) = (random.random_bool(0.5), elapsed_us());
            let node = random.random_range(0..self.world.size());
            let ask = match wrote {
                true => {
                    next += 1;
                    Ask::put(path.clone(), json!({"on_hand": next}))
                }
                false => Ask::get(path.clone()),
            };
            // One attempt only: a write without an answer stays unknown.
            let Some(answer) = self.count(ask.send(&self.world, node).await) else { continue };
            let (Some(version), Some(number)) = (answer.version(), answer.body["on_hand"].as_u64()) else { continue };
            let touch = Touch { register, began_us, ended_us: elapsed_us(), wrote, version, number };
            self.book().touches.push(touch);
        }
    }

    /// False once the shop closes.
    async fn pause(&self, random: &mut StdRng, from_ms: u64, to_ms: u64) -> bool {
        let pause = Duration::from_millis(random.random_range(from_ms..=to_ms));
        tokio::select! {
            biased;
            () = self.closing.cancelled() => false,
            () = tokio::time::sleep(pause) => true,
        }
    }

    /// Asks until a node says something about the request itself. All is whole again when the shop
    /// closes: no word for long after that is wrong.
    async fn insist(&self, ask: &Ask<'_>, random: &mut StdRng) -> Option<Answer> {
        let mut closed_at = None;
        loop {
            let node = random.random_range(0..self.world.size());
            let answer = self.count(ask.send(&self.world, node).await);
            if let Some(answer) = answer.filter(|answer| !answer.is_excuse()) {
                return Some(answer);
            }
            if self.closing.is_cancelled() && closed_at.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                self.wrong(format!("nobody has a word about {} {} {:?}", ask.method, ask.path, ask.headers));
                return None;
            }
            tokio::time::sleep(Duration::from_millis(random.random_range(RETRY_PAUSE_MS))).await;
        }
    }

    fn count(&self, answer: Option<Answer>) -> Option<Answer> {
        let mut book = self.book();
        book.requests += 1;
        match answer {
            Some(answer) if answer.status == 500 => {
                book.wrong.push(format!("an internal error: {}", answer.body));
                Some(answer)
            }
            Some(answer) if !answer.is_excuse() => Some(answer),
            other => {
                book.excuses += 1;
                other
            }
        }
    }

    fn wrong(&self, what: String) {
        self.book().wrong.push(what);
    }

    fn book(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn order(random: &mut StdRng) -> Value {
    let lines = 1 + random.next_u32() % 2;
    let item = |random: &mut StdRng| {
        let (sku, _) = SUPPLY.choose(random).copied().unwrap_or(SUPPLY[0]);
        json!({"sku": sku, "quantity": 1 + random.next_u32() % 3, "unit_price": 1 + random.next_u32() % 5_000})
    };
    let items: Vec<Value> = (0..lines).map(|_| item(random)).collect();
    json!({"customer_id": "c1", "currency": "USD", "payment_method": "pm_card_ok", "items": items})
}
