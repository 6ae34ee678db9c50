//! The card gateway of a simulated world: the independent witness of what was charged.
//!
//! It takes each key as one operation and repeats its first answer, as a real one does. It loses
//! answers, declines, and takes its time; what it would have to refuse as nonsense (a capture beyond
//! the authorization, a refund beyond the capture, one key for two operations) it writes down.

use quorate::{
    commerce::gateway::{GatewayRequest, GatewayResponse, Operation, operation_of},
    gateway::{Error, PaymentGateway},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

const LOSES_ANSWERS: f64 = 0.05;
const DECLINES: f64 = 0.05;
const SLOW: f64 = 0.05;
const FAST_MS: std::ops::RangeInclusive<u64> = 5..=80;
const SLOW_MS: std::ops::RangeInclusive<u64> = 1_000..=8_000;

/// What the gateway has done for one payment, in minor units.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Charge {
    pub authorizations: u32,
    pub authorized: u64,
    pub captures: u32,
    pub captured: u64,
    pub voided: bool,
    pub refunded: u64,
}

#[derive(Default)]
struct Ledger {
    answers: BTreeMap<String, (GatewayRequest, GatewayResponse)>,
    charges: BTreeMap<String, Charge>,
    offences: Vec<String>,
}

/// Clones are the same gateway.
#[derive(Clone)]
pub struct Gateway {
    ledger: Arc<Mutex<Ledger>>,
    random: Arc<Mutex<StdRng>>,
}

impl Gateway {
    pub fn new(seed: u64) -> Self {
        Self { ledger: Arc::default(), random: Arc::new(Mutex::new(StdRng::seed_from_u64(seed))) }
    }

    pub fn charge(&self, payment: &str) -> Charge {
        lock(&self.ledger).charges.get(payment).cloned().unwrap_or_default()
    }

    pub fn offences(&self) -> Vec<String> {
        lock(&self.ledger).offences.clone()
    }

    fn draw(&self, probability: f64) -> bool {
        lock(&self.random).random_bool(probability)
    }
}

impl PaymentGateway for Gateway {
    async fn attempt(&self, request: &GatewayRequest, _: u32) -> Result<GatewayResponse, Error> {
        let slow = self.draw(SLOW);
        let took = lock(&self.random).random_range(if slow { SLOW_MS } else { FAST_MS });
        let (declined, lost) = (self.draw(DECLINES), self.draw(LOSES_ANSWERS));
        // Half of the way before it happens, half after: an attempt may be given up at either end.
        tokio::time::sleep(Duration::from_millis(took / 2)).await;
        let answer = lock(&self.ledger).take(request, declined);
        tokio::time::sleep(Duration::from_millis(took / 2)).await;
        if lost { Err(Error::Unanswered("the answer was lost".into())) } else { Ok(answer) }
    }
}

impl Ledger {
    fn take(&mut self, request: &GatewayRequest, declined: bool) -> GatewayResponse {
        if request.operation == Operation::Query {
            let known = self.answers.get(&request.key).map(|(_, answer)| answer.clone());
            return known.unwrap_or(GatewayResponse::NotFound);
        }
        if let Some((first, answer)) = self.answers.get(&request.key) {
            let (answer, same) = (answer.clone(), first == request);
            if !same {
                self.offend(request, "the key stood for something else before");
            }
            return answer;
        }
        if operation_of(&request.key) != Some(request.operation) {
            self.offend(request, "the key names another operation");
        }
        let refused = declined && request.operation == Operation::Authorize;
        let answer = match refused {
            true => GatewayResponse::Declined { reason: "card_declined".into() },
            false => {
                self.book(request);
                GatewayResponse::Approved { reference: format!("ref_{}", request.key) }
            }
        };
        self.answers.insert(request.key.clone(), (request.clone(), answer.clone()));
        answer
    }

    fn book(&mut self, request: &GatewayRequest) {
        let amount = u64::try_from(request.amount.amount()).unwrap_or_default();
        let mut charge = self.charges.get(request.payment_id()).cloned().unwrap_or_default();
        match request.operation {
            Operation::Authorize => {
                charge.authorizations += 1;
                charge.authorized += amount;
            }
            Operation::Capture => {
                charge.captures += 1;
                charge.captured += amount;
            }
            Operation::Void => charge.voided = true,
            Operation::Refund => charge.refunded += amount,
            Operation::Query => {}
        }
        for (offence, is_so) in [
            ("captured more than was authorized", charge.captured > charge.authorized),
            ("refunded more than was captured", charge.refunded > charge.captured),
            ("authorized twice", charge.authorizations > 1),
            ("captured after it was voided", charge.voided && charge.captured > 0),
        ] {
            if is_so {
                self.offend(request, offence);
            }
        }
        self.charges.insert(request.payment_id().to_owned(), charge);
    }

    fn offend(&mut self, request: &GatewayRequest, offence: &str) {
        self.offences.push(format!("{offence}: {request:?}"));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
