//! A little world without a runtime: entities, the mail between them, timers, a clock, and a
//! gateway. Every command and event goes through its encoding; every decision is made twice and
//! must come out the same; every change is checked against the tables and CONSERVATION.

use super::gateway::{Balance, Gateway, Mood};
use crate::commerce::{
    gateway::GatewayRequest,
    order::{self, Order, payment_id},
    payment::{self, Payment},
    reservation::{self, Reservation},
    stock::{self, Stock},
};
use crate::entity::{
    Context, Decision, Effect, Entity, Task, TaskOutcome, Versioned, codec, decode_command, decode_event,
    encode_command, encode_event,
};
use std::{collections::BTreeMap, fmt::Debug};

pub const START_MS: u64 = 1_800_000_000_000;

/// An entity with everything that ever happened to it.
pub struct Kept<E: Entity> {
    pub state: E::State,
    pub history: Vec<Versioned>,
    pub facts: Vec<E::Event>,
}

/// What is under way.
#[derive(Clone)]
pub enum Mail {
    Command { entity_type: String, id: String, command: Versioned },
    Task { payment: String, task: Task },
}

pub struct World {
    pub now_ms: u64,
    pub orders: BTreeMap<String, Kept<Order>>,
    pub stocks: BTreeMap<String, Kept<Stock>>,
    pub payments: BTreeMap<String, Kept<Payment>>,
    pub reservations: BTreeMap<String, Kept<Reservation>>,
    pub mail: Vec<Mail>,
    /// By entity type, id and name.
    pub timers: BTreeMap<(String, String, String), (u64, Versioned)>,
    pub gateway: Gateway,
    /// Per SKU: what people put in or took out.
    pub supplied: BTreeMap<String, i64>,
}

/// What the world needs to know of an entity type.
pub trait Kind: Entity<State: PartialEq + Debug, Event: PartialEq + Debug> {
    fn kept(world: &mut World) -> &mut BTreeMap<String, Kept<Self>>;
    fn check_event(before: &Self::State, after: &Self::State);
}

impl World {
    pub fn new() -> Self {
        Self {
            now_ms: START_MS,
            orders: BTreeMap::new(),
            stocks: BTreeMap::new(),
            payments: BTreeMap::new(),
            reservations: BTreeMap::new(),
            mail: Vec::new(),
            timers: BTreeMap::new(),
            gateway: Gateway::default(),
            supplied: BTreeMap::new(),
        }
    }

    /// Decides and applies a command, and sends its effects on their way.
    pub fn ask<E: Kind>(&mut self, id: &str, command: &E::Command) -> Result<E::Reply, E::Rejection> {
        let command = encode_command::<E>(command).expect("encodes");
        self.deliver_command::<E>(id, &command)
    }

    fn deliver_command<E: Kind>(&mut self, id: &str, command: &Versioned) -> Result<E::Reply, E::Rejection> {
        // Owners' clocks differ; one entity's clock never goes back.
        let now_ms = self.now_ms + id.bytes().map(u64::from).sum::<u64>() % 400;
        let kept = E::kept(self).entry(id.to_owned()).or_insert_with(|| Kept {
            state: E::State::default(),
            history: Vec::new(),
            facts: Vec::new(),
        });
        let context = Context { id, version: kept.history.len() as u64, now_ms, random: 7 };
        let decide = || {
            let command = decode_command::<E>(command).expect("decodes");
            E::decide(&kept.state, command, &context)
        };
        let (decision, again) = (decide(), decide());
        assert_eq!(traits_of(&decision), traits_of(&again), "decide is pure");
        let (events, effects, reply) = match decision {
            Decision::Reject(rejection) => return Err(rejection),
            Decision::Accept { events, effects, reply } => (events, effects, reply),
        };
        for event in events {
            kept.history.push(encode_event::<E>(&event).expect("encodes"));
            let before = kept.state.clone();
            E::evolve(&mut kept.state, &event);
            E::check_event(&before, &kept.state);
            assert_eq!(E::check(&kept.state), Ok(()), "{id} obeys its own laws");
            kept.facts.push(event);
        }
        effects.into_iter().for_each(|effect| self.send(E::TYPE, id, effect));
        Ok(reply)
    }

    fn send(&mut self, from: &str, id: &str, effect: Effect) {
        match effect {
            Effect::Tell { entity_type, id, command } => {
                self.mail.push(Mail::Command { entity_type, id, command });
            }
            Effect::Schedule { name, at_ms, command } => {
                self.timers.insert((from.into(), id.into(), name), (at_ms, command));
            }
            Effect::CancelSchedule { name } => {
                self.timers.remove(&(from.into(), id.into(), name));
            }
            Effect::Task(task) => self.mail.push(Mail::Task { payment: id.into(), task }),
            Effect::TimedTask(timed) => self.mail.push(Mail::Task { payment: id.into(), task: timed.task }),
        }
    }

    /// Delivers one piece of mail; `mood` is the gateway's, should it be a task.
    pub fn deliver(&mut self, at: usize, mood: Mood) {
        match self.mail.swap_remove(at) {
            Mail::Command { entity_type, id, command } => {
                let rejected = match entity_type.as_str() {
                    Order::TYPE => self.deliver_command::<Order>(&id, &command).err().map(|r| r.to_string()),
                    Stock::TYPE => self.deliver_command::<Stock>(&id, &command).err().map(|r| r.to_string()),
                    Reservation::TYPE => {
                        self.deliver_command::<Reservation>(&id, &command).err().map(|r| r.to_string())
                    }
                    _ => self.deliver_command::<Payment>(&id, &command).err().map(|r| r.to_string()),
                };
                assert_eq!(rejected, None, "entities never reject each other's commands: {entity_type}/{id}");
            }
            Mail::Task { payment, task } => self.run_task(payment, task, mood),
        }
    }

    /// Delivers a copy of one piece of mail later on, as a network may, where its receiver promises
    /// that this changes nothing. (What else is sent takes effect once because the runtime sees to
    /// it; docs/shop.md says what relies on that.)
    pub fn repeat(&mut self, at: usize) {
        let Mail::Command { entity_type, command, .. } = &self.mail[at] else { return };
        let harmless = match entity_type.as_str() {
            Order::TYPE | Payment::TYPE => true,
            Stock::TYPE => {
                matches!(decode_command::<Stock>(command).expect("decodes"), stock::Command::Restock(_))
            }
            _ => false,
        };
        if harmless {
            self.mail.push(self.mail[at].clone());
        }
    }

    fn run_task(&mut self, payment: String, task: Task, mood: Mood) {
        let request = GatewayRequest::decode(&task.payload).expect("decodes");
        let response = self.gateway.run(request, mood);
        let result = response.map(|response| response.encode().expect("encodes"));
        let outcome = TaskOutcome { handler: task.handler, tag: task.tag, attempts: 1, result };
        let command = Payment::task_finished(outcome).expect("a command");
        let command = encode_command::<Payment>(&command).expect("encodes");
        self.mail.push(Mail::Command { entity_type: Payment::TYPE.into(), id: payment, command });
    }

    /// Moves the clock and turns timers that are due into mail.
    pub fn advance(&mut self, by_ms: u64) {
        self.now_ms += by_ms;
        let due = |at_ms: u64| at_ms <= self.now_ms;
        let (fired, waiting) = std::mem::take(&mut self.timers).into_iter().partition(|(_, (at, _))| due(*at));
        self.timers = waiting;
        let fired: BTreeMap<(String, String, String), (u64, Versioned)> = fired;
        for ((entity_type, id, _), (_, command)) in fired {
            self.mail.push(Mail::Command { entity_type, id, command });
        }
    }

    /// Delivers mail, oldest first, until none is left. Timers stay where they are.
    pub fn settle(&mut self, mood: Mood) {
        for _ in 0..100_000 {
            if self.mail.is_empty() {
                return;
            }
            self.deliver(0, mood);
        }
        panic!("the mail never ends");
    }

    /// Settles, then lets time pass timer by timer until nothing is left to happen.
    pub fn run_to_the_end(&mut self) {
        for _ in 0..10_000 {
            self.settle(Mood::Approve);
            let Some(next_ms) = self.timers.values().map(|(at_ms, _)| *at_ms).min() else { return };
            self.advance(next_ms.saturating_sub(self.now_ms));
        }
        panic!("timers never end");
    }

    pub fn put_stock(&mut self, sku: &str, on_hand: u64) -> Result<stock::Reply, stock::Rejection> {
        self.supply(sku, &stock::Command::Put { on_hand, backorder_limit: 0 })
    }

    /// Puts or adjusts, and keeps a book of its own about it.
    pub fn supply(&mut self, sku: &str, command: &stock::Command) -> Result<stock::Reply, stock::Rejection> {
        let on_hand = |world: &World| world.stocks.get(sku).map_or(0, |kept| kept.state.levels.on_hand as i64);
        let before = on_hand(self);
        let reply = self.ask::<Stock>(sku, command)?;
        *self.supplied.entry(sku.into()).or_default() += on_hand(self) - before;
        Ok(reply)
    }

    pub fn order(&self, id: &str) -> &order::State {
        &self.orders[id].state
    }

    pub fn payment_of(&self, order_id: &str) -> &payment::State {
        &self.payments[&payment_id(order_id)].state
    }

    pub fn reservation(&self, id: &str) -> &reservation::State {
        &self.reservations[id].state
    }

    pub fn levels(&self, sku: &str) -> stock::Levels {
        self.stocks[sku].state.levels
    }

    pub fn balance(&self, order_id: &str) -> Balance {
        self.gateway.balance(&payment_id(order_id))
    }

    /// Everything that must hold once nothing is under way.
    pub fn verdict(&self) -> Result<(), String> {
        let mut taken: BTreeMap<&str, u64> = BTreeMap::new();
        let mut returned: BTreeMap<&str, u64> = BTreeMap::new();
        for (id, kept) in &self.orders {
            self.order_verdict(id, &kept.state)?;
            let legs = kept.state.reservations.iter().enumerate();
            for (at, leg) in legs.filter(|_| kept.state.stock == order::StockTrack::Committed) {
                *taken.entry(&leg.sku).or_default() += u64::from(leg.quantity);
                *returned.entry(&leg.sku).or_default() += u64::from(kept.state.shipping.returned(at));
            }
        }
        for (id, kept) in &self.reservations {
            let state = &kept.state;
            let ended = state.status.allowed().is_empty() && state.is_settled();
            ensure(ended, || format!("{id} never ended: {state:?}"))?;
            for leg in state.items.iter().filter(|_| state.status == reservation::Status::Committed) {
                *taken.entry(&leg.sku).or_default() += u64::from(leg.quantity);
            }
        }
        for (sku, kept) in &self.stocks {
            let levels = kept.state.levels;
            let taken = taken.get(sku.as_str()).copied().unwrap_or(0);
            let returned = returned.get(sku.as_str()).copied().unwrap_or(0);
            let supplied = self.supplied.get(sku).copied().unwrap_or(0);
            ensure(kept.state.open.is_empty() && levels.reserved == 0, || format!("{sku} stays reserved"))?;
            ensure(kept.state.waiting.is_empty(), || format!("someone waits for {sku} for ever"))?;
            ensure(levels.committed == taken, || format!("{sku}: {levels:?}, orders took {taken}"))?;
            ensure(levels.returned == returned, || format!("{sku}: {levels:?}, customers sent {returned} back"))?;
            let expected = supplied + returned as i64 - taken as i64;
            ensure(levels.on_hand as i64 == expected, || format!("{sku}: {levels:?}, supplied {supplied}"))?;
        }
        self.replay_verdict::<Order>(&self.orders)?;
        self.replay_verdict::<Stock>(&self.stocks)?;
        self.payment_verdicts()?;
        self.replay_verdict::<Reservation>(&self.reservations)?;
        self.replay_verdict::<Payment>(&self.payments)
    }

    /// Every payment has ended, and the gateway's books say the same to the unit.
    fn payment_verdicts(&self) -> Result<(), String> {
        use payment::Status::{Authorized, Captured};
        for (id, kept) in &self.payments {
            let state = &kept.state;
            let under_way = state.in_flight.is_some() || state.refunds_pending() > 0;
            ensure(!under_way, || format!("{id} never ended: {state:?}"))?;
            let amount = state.amount.map_or(0, |amount| amount.amount());
            let held = if state.status == Authorized { amount } else { 0 };
            let expected = Balance { held, captured: state.captured, refunded: state.refunded };
            let found = self.gateway.balance(id);
            ensure(found == expected, || format!("{id}: {expected:?} here, {found:?} at the gateway"))?;
            ensure(state.captured == 0 || state.status == Captured, || format!("{id}: {state:?}"))?;
        }
        Ok(())
    }

    fn order_verdict(&self, id: &str, state: &order::State) -> Result<(), String> {
        use order::Status::*;
        let total = state.details.as_ref().map_or(0, |details| details.total.amount());
        let money = self.balance(id);
        let kept = money.captured - money.refunded;
        match state.status {
            Confirmed => ensure(kept == total && money.held == 0, || format!("{id} is confirmed: {money:?}")),
            PartiallyFulfilled | Fulfilled | PartiallyReturned | Returned => {
                let backs = &state.shipping.returns;
                let done = backs.iter().all(|back| back.restocked && back.refund == order::Refund::Succeeded);
                ensure(done, || format!("{id}: a return never ended: {backs:?}"))?;
                let owed = total - state.shipping.refunds();
                ensure(kept == owed && money.held == 0, || format!("{id} is {}: {money:?}", state.status))
            }
            Rejected | Cancelled | Expired => {
                ensure(kept == 0 && money.held == 0, || format!("{id} is {}: {money:?}", state.status))
            }
            other => Err(format!("{id} never ended: it is {other}")),
        }
    }

    fn replay_verdict<E: Kind>(&self, all: &BTreeMap<String, Kept<E>>) -> Result<(), String> {
        for (id, kept) in all {
            let mut replayed = E::State::default();
            for event in &kept.history {
                E::evolve(&mut replayed, &decode_event::<E>(event).map_err(|e| e.to_string())?);
            }
            ensure(replayed == kept.state, || format!("{id}: {replayed:?} replayed, {:?} live", kept.state))?;
        }
        Ok(())
    }
}

impl Kind for Order {
    fn kept(world: &mut World) -> &mut BTreeMap<String, Kept<Self>> {
        &mut world.orders
    }

    fn check_event(before: &order::State, after: &order::State) {
        let (from, to) = (before.status, after.status);
        assert!(from == to || before.next().contains(&to), "no transition from {from} to {to}");
        super::parcels::check(after);
    }
}

impl Kind for Stock {
    fn kept(world: &mut World) -> &mut BTreeMap<String, Kept<Self>> {
        &mut world.stocks
    }

    fn check_event(_: &stock::State, after: &stock::State) {
        assert!(after.is_conserved(), "not conserved: {after:?}");
    }
}

impl Kind for Reservation {
    fn kept(world: &mut World) -> &mut BTreeMap<String, Kept<Self>> {
        &mut world.reservations
    }

    fn check_event(before: &reservation::State, after: &reservation::State) {
        let (from, to) = (before.status, after.status);
        assert!(from == to || from.may_become(to), "no transition from {from} to {to}");
    }
}

impl Kind for Payment {
    fn kept(world: &mut World) -> &mut BTreeMap<String, Kept<Self>> {
        &mut world.payments
    }

    fn check_event(before: &payment::State, after: &payment::State) {
        let (from, to) = (before.status, after.status);
        assert!(from == to || from.may_become(to), "no transition from {from} to {to}");
        let authorized = after.amount.map_or(0, |amount| amount.amount());
        let refunds = after.refunded + after.refunds_pending();
        assert!(refunds <= after.captured && after.captured <= authorized, "{after:?}");
    }
}

/// A decision as bytes, for comparing.
fn traits_of<E: Entity>(decision: &Decision<E>) -> Vec<u8> {
    match decision {
        Decision::Accept { events, effects, reply } => {
            codec::encode("decision", &(events, effects, reply)).expect("encodes")
        }
        Decision::Reject(rejection) => codec::encode("rejection", rejection).expect("encodes"),
    }
}

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}
