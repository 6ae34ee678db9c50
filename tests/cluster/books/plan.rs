//! What each of the orders is, what happens to it afterwards, and what that must come to.
//!
//! All of it follows from the order's number, so that a run can be repeated, and what must be in
//! the books is known without asking anybody.

use crate::cards::dice;
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub const SKUS: u64 = 1000;
/// Digits of the minor unit: 2, 2, 0 and 3. To the gateway they are all whole numbers.
const CURRENCIES: [&str; 4] = ["USD", "EUR", "JPY", "KWD"];
/// One SKU of so many runs out.
const SCARCE_EVERY: u64 = 20;
const PLENTY: u64 = 1_000_000;
const SCARCE: u64 = 8;

/// What becomes of an order once it is placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Kept,
    /// Cancelled at once, somewhere on its way.
    CancelledAtOnce,
    /// Cancelled when it is confirmed.
    CancelledLate,
    Sent,
    /// Sent, and one unit of its first line comes back.
    ReturnedInPart,
    ReturnedWhole,
}

#[derive(Debug, Clone)]
pub struct Line {
    pub sku: String,
    pub quantity: u64,
    pub unit_price: i64,
}

#[derive(Debug, Clone)]
pub struct Plan {
    pub number: usize,
    pub currency: &'static str,
    pub lines: Vec<Line>,
    pub good_card: bool,
    pub fate: Fate,
}

/// What an order came to: units that left the shelves and came back, money taken and given back.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub sold: BTreeMap<String, u64>,
    pub returned: BTreeMap<String, u64>,
    pub kept: i64,
}

pub fn sku(number: u64) -> String {
    format!("sku-{number:04}")
}

/// How much there is of a SKU at first.
pub fn supply(number: u64) -> u64 {
    if is_scarce(number) { SCARCE } else { PLENTY }
}

fn is_scarce(number: u64) -> bool {
    number.is_multiple_of(SCARCE_EVERY)
}

impl Plan {
    pub fn of(number: usize) -> Self {
        let roll = |what: &str, sides: u64| dice(&format!("{number} {what}"), sides);
        let fate = match roll("fate", 100) {
            0..3 => Fate::CancelledAtOnce,
            3..6 => Fate::CancelledLate,
            6..9 => Fate::Sent,
            9..13 => Fate::ReturnedInPart,
            13..15 => Fate::ReturnedWhole,
            _ => Fate::Kept,
        };
        let line = |at: u64| {
            // The first lines go round, so that every SKU is ordered.
            let sku = sku(if at == 0 { number as u64 % SKUS } else { roll(&format!("sku {at}"), SKUS) });
            let (quantity, price) = (roll(&format!("quantity {at}"), 3), roll(&format!("price {at}"), 20_000));
            Line { sku, quantity: 1 + quantity, unit_price: 1 + i64::try_from(price).expect("a small number") }
        };
        let lines = [1, 1, 1, 2, 3][usize::try_from(roll("lines", 5)).expect("a small number")];
        Self {
            number,
            currency: CURRENCIES[number % CURRENCIES.len()],
            lines: (0..lines).map(line).collect(),
            good_card: roll("card", 20) > 0,
            fate,
        }
    }

    pub fn key(&self) -> String {
        format!("books-{}", self.number)
    }

    pub fn request(&self) -> Value {
        let card = if self.good_card { "pm_any" } else { "pm_declined" };
        let item = |line: &Line| json!({"sku": line.sku, "quantity": line.quantity, "unit_price": line.unit_price});
        let items: Vec<Value> = self.lines.iter().map(item).collect();
        let customer = format!("c{}", self.number % 97);
        json!({"customer_id": customer, "currency": self.currency, "payment_method": card, "items": items})
    }

    /// What comes back of a [`Fate::ReturnedInPart`].
    pub fn part(&self) -> Value {
        json!({"items": [{"sku": self.lines[0].sku, "quantity": 1}], "reason": "chipped"})
    }

    pub fn total(&self) -> i64 {
        self.lines.iter().map(|line| line.unit_price * i64::try_from(line.quantity).expect("few")).sum()
    }

    pub fn units(&self) -> BTreeMap<String, u64> {
        let mut units = BTreeMap::new();
        for line in &self.lines {
            *units.entry(line.sku.clone()).or_default() += line.quantity;
        }
        units
    }

    /// What an order that ended as `status` comes to; panics if it cannot end so.
    pub fn outcome(&self, status: &str) -> Outcome {
        let sold = |returned: BTreeMap<String, u64>, kept| Outcome { sold: self.units(), returned, kept };
        let first = &self.lines[0];
        let single = self.units().values().sum::<u64>() == 1;
        let back = || [(first.sku.clone(), 1)].into();
        match (self.good_card, self.fate, status) {
            (_, _, "rejected") if self.wants_what_is_scarce() => Outcome::default(),
            (false, _, "cancelled") => Outcome::default(),
            (true, Fate::CancelledAtOnce | Fate::CancelledLate, "cancelled") => Outcome::default(),
            (true, Fate::Kept, "confirmed") | (true, Fate::Sent, "fulfilled") => sold(BTreeMap::new(), self.total()),
            (true, Fate::ReturnedInPart, "partially_returned") if !single => {
                // A SKU on several lines is refunded from its first line on.
                sold(back(), self.total() - first.unit_price)
            }
            (true, Fate::ReturnedInPart, "returned") if single => sold(back(), 0),
            (true, Fate::ReturnedWhole, "returned") => sold(self.units(), 0),
            _ => panic!("{status} is no end for {self:?}"),
        }
    }

    fn wants_what_is_scarce(&self) -> bool {
        let scarce: Vec<String> = (0..SKUS).filter(|number| is_scarce(*number)).map(sku).collect();
        self.lines.iter().any(|line| scarce.contains(&line.sku))
    }
}

#[test]
fn plans_are_the_same_every_time_and_of_every_kind() {
    let plans: Vec<Plan> = (0..5000).map(Plan::of).collect();
    let again: Vec<String> = (0..5000).map(|number| format!("{:?}", Plan::of(number))).collect();
    assert!(plans.iter().zip(&again).all(|(plan, again)| format!("{plan:?}") == *again));
    let count = |is: &dyn Fn(&Plan) -> bool| plans.iter().filter(|plan| is(plan)).count();
    let declined = count(&|plan| !plan.good_card);
    assert!((200..300).contains(&declined), "about 5 % of 5000 cards: {declined}");
    for fate in [Fate::CancelledAtOnce, Fate::CancelledLate, Fate::Sent, Fate::ReturnedInPart, Fate::ReturnedWhole] {
        assert!(count(&|plan| plan.fate == fate) > 80, "{fate:?}");
    }
    assert!(count(&Plan::wants_what_is_scarce) > 250, "some orders find nothing");
    assert!(count(&|plan| plan.units().len() < plan.lines.len()) > 0, "a SKU on two lines");
    let skus: std::collections::BTreeSet<String> = plans.iter().flat_map(|plan| plan.units().into_keys()).collect();
    assert_eq!(skus.len(), 1000, "every SKU is ordered");
}
