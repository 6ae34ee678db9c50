//! Whether the world kept its word, asked when the trouble is over.
//!
//! What is read here is read from every node; what it is compared with is what customers were told
//! and what the gateway's own ledger says.

use crate::{
    client::{Answer, Ask},
    load::{Placed, REGISTERS, SUPPLY, Told, Touch},
    world::World,
};
use serde_json::Value;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::time::Instant;

/// How long a healed cluster may take to finish what it has begun. A gateway that loses an answer is
/// asked again minutes later.
const PATIENCE: Duration = Duration::from_secs(1_200);
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Of so many keys one is tried again, long after its first answer.
const KEYS_STEP: usize = 16;
const FINAL: [&str; 3] = ["confirmed", "cancelled", "rejected"];

/// Everything that was found to be wrong, one line each.
pub async fn check(world: &Arc<World>, told: &Told) -> Vec<String> {
    let mut reader = Reader { world: world.clone(), deadline: Instant::now() + PATIENCE, found: told.wrong.clone() };
    let mut sold = BTreeMap::new();
    for placed in &told.placed {
        reader.check_order(placed, &mut sold).await;
    }
    for placed in told.placed.iter().step_by(KEYS_STEP) {
        reader.check_key(placed).await;
    }
    for (sku, supplied) in SUPPLY {
        reader.check_stock(sku, supplied, told.unknown == 0, sold.get(sku).copied().unwrap_or(0)).await;
    }
    for register in REGISTERS {
        let touches: Vec<&Touch> = told.touches.iter().filter(|touch| touch.register == register).collect();
        reader.found.extend(check_register(&touches));
    }
    reader.found.extend(world.gateway.offences());
    reader.found
}

/// Everything that is wrong in a world that was restored from a backup which was asked for when these orders were
/// acknowledged. What the gateway did after that backup is another story.
pub async fn check_restored(world: &Arc<World>, acknowledged: &[Placed]) -> Vec<String> {
    let mut reader = Reader { world: world.clone(), deadline: Instant::now() + PATIENCE, found: Vec::new() };
    for placed in acknowledged {
        reader.check_fixed(placed).await;
    }
    for placed in acknowledged.iter().step_by(KEYS_STEP) {
        reader.check_key(placed).await;
    }
    let sold = reader.sold().await;
    for (sku, supplied) in SUPPLY {
        reader.check_stock(sku, supplied, true, sold.get(sku).copied().unwrap_or(0)).await;
    }
    reader.found.into_iter().map(|found| format!("RESTORED: {found}")).collect()
}

struct Reader {
    world: Arc<World>,
    deadline: Instant,
    found: Vec<String>,
}

impl Reader {
    async fn check_order(&mut self, placed: &Placed, sold: &mut BTreeMap<String, u64>) {
        let Some(order) = self.check_fixed(placed).await else { return };
        self.check_replicas(&path_of(&order), &order).await;
        add_sold(&order, sold);
        self.check_charge(&order, is_confirmed(&order)).await;
    }

    /// It ends, and is what was acknowledged.
    async fn check_fixed(&mut self, placed: &Placed) -> Option<Value> {
        let order = self.read_until(&path_of(&placed.answer), "the order ends", has_ended).await?;
        for field in ["id", "customer_id", "items", "currency", "total", "payment_id", "created_at"] {
            if order[field] != placed.answer[field] {
                self.found.push(format!("`{field}` of {order} was acknowledged as {}", placed.answer));
            }
        }
        Some(order)
    }

    /// What all orders that there are have taken, once they have ended.
    async fn sold(&mut self) -> BTreeMap<String, u64> {
        let (mut sold, mut after) = (BTreeMap::new(), String::new());
        loop {
            let path = format!("/v1/orders?limit=100{after}");
            let all_ended = |page: &Value| page["data"].as_array().is_some_and(|orders| orders.iter().all(has_ended));
            let Some(page) = self.read_until(&path, "all orders end", all_ended).await else { return sold };
            let orders = page["data"].as_array().map_or(&[][..], Vec::as_slice);
            orders.iter().for_each(|order| add_sold(order, &mut sold));
            match orders.last().filter(|_| page["has_more"] == true) {
                Some(last) => after = format!("&starting_after={}", last["id"].as_str().unwrap_or_default()),
                None => return sold,
            }
        }
    }

    async fn check_key(&mut self, placed: &Placed) {
        let answer = self.ask_until(&placed.again(), "the key has an answer", |answer| !answer.is_excuse()).await;
        if let Some(Err(wrong)) = answer.map(|answer| placed.is_repeated_by(&answer)) {
            self.found.push(wrong);
        }
    }

    /// The gateway's ledger says the same as the order and its payment.
    async fn check_charge(&mut self, order: &Value, confirmed: bool) {
        let payment = order["payment_id"].as_str().unwrap_or_default();
        let owed = if confirmed { order["total"]["amount"].as_u64().unwrap_or(0) } else { 0 };
        let charge = self.world.gateway.charge(payment);
        if charge.captured - charge.refunded != owed || charge.captures > 1 || charge.authorizations > 1 {
            self.found.push(format!("the gateway kept {charge:?} where {owed} was due for {order}"));
        }
        if !confirmed && charge.authorized > 0 && !charge.voided && charge.refunded != charge.captured {
            self.found.push(format!("the gateway still holds {charge:?} of {order}"));
        }
        if charge.authorizations == 0 {
            return;
        }
        let path = format!("/v1/payments/{payment}");
        let agrees = |shown: &Value| {
            let amount = |name: &str| shown[name]["amount"].as_u64().unwrap_or(u64::MAX);
            amount("captured") == charge.captured && amount("refunded") == charge.refunded
        };
        let expected = format!("the payment shows what the gateway did: {charge:?}");
        self.read_until(&path, &expected, agrees).await;
    }

    async fn check_stock(&mut self, sku: &str, supplied: u64, all_known: bool, sold: u64) {
        let path = format!("/v1/inventory/{sku}");
        let clear = |stock: &Value| stock["reserved"] == 0;
        let Some(stock) = self.read_until(&path, "nothing is reserved any more", clear).await else { return };
        let amount = |name: &str| stock[name].as_u64().unwrap_or(u64::MAX);
        if amount("on_hand").checked_add(amount("committed")) != Some(supplied) {
            self.found.push(format!("CONSERVATION: {supplied} of {sku} were supplied, and now {stock}"));
        }
        let committed = amount("committed");
        if committed < sold || (all_known && committed != sold) {
            self.found.push(format!("{sold} of {sku} were sold by confirmed orders, and now {stock}"));
        }
        self.check_replicas(&path, &stock).await;
    }

    /// Every node's own replica comes to hold exactly `expected`.
    async fn check_replicas(&mut self, path: &str, expected: &Value) {
        let path = format!("{path}?consistency=local");
        for node in 0..self.world.size() {
            loop {
                let answer = Ask::get(path.clone()).send(&self.world, node).await;
                if answer.as_ref().is_some_and(|answer| answer.body == *expected) {
                    break;
                }
                if Instant::now() > self.deadline {
                    let shown = answer.map(|answer| answer.body.to_string()).unwrap_or_default();
                    self.found.push(format!("the replica of node {node} shows {shown} and not {expected}"));
                    break;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        }
    }

    async fn read_until(&mut self, path: &str, what: &str, good: impl Fn(&Value) -> bool) -> Option<Value> {
        let good = |answer: &Answer| answer.status == 200 && good(&answer.body);
        self.ask_until(&Ask::get(path), what, good).await.map(|answer| answer.body)
    }

    /// Asks node after node.
    async fn ask_until(&mut self, ask: &Ask<'_>, what: &str, good: impl Fn(&Answer) -> bool) -> Option<Answer> {
        let mut node = 0;
        loop {
            node = (node + 1) % self.world.size();
            let answer = ask.send(&self.world, node).await;
            if let Some(answer) = answer.as_ref().filter(|answer| good(answer)) {
                return Some(answer.clone());
            }
            if Instant::now() > self.deadline {
                let shown = answer.map(|answer| answer.body.to_string()).unwrap_or_default();
                self.found.push(format!("waited in vain until {what}; {} is {shown}", ask.path));
                return None;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

fn path_of(order: &Value) -> String {
    format!("/v1/orders/{}", order["id"].as_str().unwrap_or_default())
}

fn has_ended(order: &Value) -> bool {
    order["status"].as_str().is_some_and(|status| FINAL.contains(&status))
}

fn is_confirmed(order: &Value) -> bool {
    order["status"] == "confirmed"
}

fn add_sold(order: &Value, sold: &mut BTreeMap<String, u64>) {
    for item in order["items"].as_array().into_iter().flatten().filter(|_| is_confirmed(order)) {
        let sku = item["sku"].as_str().unwrap_or_default().to_owned();
        *sold.entry(sku).or_default() += item["quantity"].as_u64().unwrap_or(0);
    }
}

/// Versions order everything that ever happened to a register, so linearizability is simple: no
/// version has two numbers, and nothing that began after something had ended shows a version below
/// it (a write: nor the same one).
fn check_register(touches: &[&Touch]) -> Vec<String> {
    let (mut found, mut numbers) = (Vec::new(), BTreeMap::new());
    for touch in touches {
        let known = numbers.entry(touch.version).or_insert(touch.number);
        if *known != touch.number {
            found.push(format!("version {} was {known}, and then {touch:?}", touch.version));
        }
    }
    let mut by_end = touches.to_vec();
    by_end.sort_by_key(|touch| touch.ended_us);
    let mut by_begin = touches.to_vec();
    by_begin.sort_by_key(|touch| touch.began_us);
    let mut newest: Option<&Touch> = None;
    let mut ended = by_end.into_iter().peekable();
    for touch in by_begin {
        while let Some(earlier) = ended.next_if(|earlier| earlier.ended_us < touch.began_us) {
            newest = newest.filter(|newest| newest.version >= earlier.version).or(Some(earlier));
        }
        let Some(newest) = newest else { continue };
        let oldest_good = newest.version + u64::from(touch.wrote);
        if touch.version < oldest_good {
            found.push(format!("LINEARIZABILITY: {touch:?} after {newest:?}"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(began_us: u64, ended_us: u64, wrote: bool, version: u64, number: u64) -> Touch {
        Touch { register: "r", began_us, ended_us, wrote, version, number }
    }

    fn judge(touches: &[Touch]) -> usize {
        check_register(&touches.iter().collect::<Vec<_>>()).len()
    }

    #[test]
    fn overlapping_operations_may_take_either_order() {
        let good = [touch(0, 10, true, 1, 7), touch(5, 20, false, 0, 0), touch(5, 20, false, 1, 7)];
        assert_eq!(judge(&good), 0);
    }

    #[test]
    fn a_stale_read_a_lost_write_and_a_split_brain_are_found() {
        assert_eq!(judge(&[touch(0, 10, true, 2, 7), touch(11, 12, false, 1, 3)]), 1, "a stale read");
        assert_eq!(judge(&[touch(0, 10, true, 2, 7), touch(11, 12, true, 2, 7)]), 1, "a write that was lost");
        assert_eq!(judge(&[touch(0, 10, true, 2, 7), touch(0, 10, true, 2, 8)]), 1, "two owners");
    }
}
