//! What was sent to the customer and what came back, and what follows from it: how much is left,
//! where the order is, where its money is.
//!
//! Lines name a SKU by its place among the order's reservations, so that the state stays small
//! (a reply that is kept carries all of it).

use super::{Details, PaymentTrack, Reservation, State, Status, suffix};
use crate::commerce::stock::Leg;
use serde::{Deserialize, Serialize};

/// The most fulfillments of one order; the last one must complete it.
pub const FULFILLMENTS_MAX: usize = 20;
/// The most returns of one order.
pub const RETURNS_MAX: usize = 20;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shipping {
    /// Oldest first.
    pub fulfillments: Vec<Fulfillment>,
    /// Oldest first.
    pub returns: Vec<Return>,
}

/// So many units of one SKU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The SKU's place among the order's reservations.
    pub leg: u16,
    pub quantity: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fulfillment {
    pub lines: Vec<Line>,
    pub tracking: Option<String>,
    pub at_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Return {
    pub lines: Vec<Line>,
    /// The price of its lines, in minor units of the order's currency.
    pub amount: i64,
    pub refund: Refund,
    /// Which try at the refund it is, from 1: one that was declined gets a new id.
    pub tries: u16,
    pub restocked: bool,
    pub at_ms: u64,
}

/// Where the refund of a return is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refund {
    Pending,
    Succeeded,
    /// The gateway refused it.
    Declined,
    /// The gateway does not say what became of it.
    Unresolved,
}

impl Refund {
    /// It goes no further by itself, or nobody knows when.
    pub fn is_stuck(self) -> bool {
        matches!(self, Self::Declined | Self::Unresolved)
    }
}

impl Shipping {
    pub fn has_begun(&self) -> bool {
        !self.fulfillments.is_empty()
    }

    /// Units of a leg that were sent.
    pub fn fulfilled(&self, leg: usize) -> u32 {
        units(self.fulfillments.iter().flat_map(|parcel| &parcel.lines), leg)
    }

    /// Units of a leg that came back.
    pub fn returned(&self, leg: usize) -> u32 {
        units(self.returns.iter().flat_map(|back| &back.lines), leg)
    }

    /// Minor units that are given back for returns, or will be.
    pub fn refunds(&self) -> i64 {
        self.returns.iter().map(|back| back.amount).sum()
    }
}

impl Return {
    /// What the payment knows this try at the refund by.
    pub(super) fn refund_id(&self, return_id: &str) -> String {
        if self.tries <= 1 { return_id.to_owned() } else { format!("{return_id}-{}", self.tries) }
    }
}

/// `ful_`, the order's suffix, its place from 1.
pub(super) fn fulfillment_id(order_id: &str, at: usize) -> String {
    format!("ful_{}_{}", suffix(order_id), at + 1)
}

/// `ret_`, the order's suffix, its place from 1.
pub(super) fn return_id(order_id: &str, at: usize) -> String {
    format!("ret_{}_{}", suffix(order_id), at + 1)
}

/// The price of `quantity` units of a SKU after the first `before`, in minor units. Where a SKU is
/// on several lines at different prices, units count from the first line on, so that all returns
/// together give back exactly what was paid.
pub(super) fn price(details: &Details, sku: &str, before: u32, quantity: u32) -> i64 {
    let (mut skip, mut left, mut sum) = (before, quantity, 0);
    for item in details.items.iter().filter(|item| item.sku == sku) {
        let skipped = skip.min(item.quantity);
        let taken = left.min(item.quantity - skipped);
        skip -= skipped;
        left -= taken;
        sum += item.unit_price * i64::from(taken);
    }
    sum
}

impl State {
    /// CONSERVATION: units that came back ≤ sent ≤ ordered, for each SKU; money given back ≤ the total,
    /// which is what its lines cost.
    pub fn check(&self) -> Result<(), String> {
        let Some(details) = &self.details else { return Ok(()) };
        for (leg, Reservation { sku, quantity, .. }) in self.reservations.iter().enumerate() {
            let (sent, back) = (self.shipping.fulfilled(leg), self.shipping.returned(leg));
            if back > sent || sent > *quantity {
                return Err(format!("of {sku}, {quantity} were ordered, {sent} sent, and {back} came back"));
            }
        }
        let total = details.total.amount();
        let lines: i64 = details.items.iter().map(|item| item.unit_price * i64::from(item.quantity)).sum();
        if lines != total {
            return Err(format!("the total is {total}, its lines add up to {lines}"));
        }
        let refunds = self.shipping.refunds();
        if !(0..=total).contains(&refunds) {
            return Err(format!("the total is {total}, its returns give back {refunds}"));
        }
        Ok(())
    }

    /// By leg: how many units are left to send.
    pub(super) fn left_to_fulfill(&self) -> Vec<u32> {
        let left =
            |(leg, ordered): (usize, &Reservation)| ordered.quantity.saturating_sub(self.shipping.fulfilled(leg));
        self.reservations.iter().enumerate().map(left).collect()
    }

    /// By leg: how many units were sent and have not come back.
    pub(super) fn left_to_return(&self) -> Vec<u32> {
        let left = |leg: usize| self.shipping.fulfilled(leg).saturating_sub(self.shipping.returned(leg));
        (0..self.reservations.len()).map(left).collect()
    }

    pub(super) fn fulfilled(&mut self, items: &[Leg], tracking: Option<&str>, at_ms: u64) {
        let lines = self.lines(items);
        self.shipping.fulfillments.push(Fulfillment { lines, tracking: tracking.map(str::to_owned), at_ms });
        self.status = self.shipping_status();
    }

    pub(super) fn returned(&mut self, items: &[Leg], amount: i64, at_ms: u64) {
        let lines = self.lines(items);
        // Nothing to give back is given back.
        let refund = if amount == 0 { Refund::Succeeded } else { Refund::Pending };
        self.shipping.returns.push(Return { lines, amount, refund, tries: 1, restocked: false, at_ms });
        self.look_after_refunds();
    }

    pub(super) fn change_return(&mut self, id: &str, change: impl FnOnce(&mut Return)) {
        if let Some(at) = id.rsplit_once('_').and_then(|(_, place)| place.parse::<usize>().ok())
            && let Some(back) = at.checked_sub(1).and_then(|at| self.shipping.returns.get_mut(at))
        {
            change(back);
        }
    }

    pub(super) fn refund_becomes(&mut self, return_id: &str, refund: Refund) {
        self.change_return(return_id, |back| back.refund = refund);
        self.look_after_refunds();
    }

    pub(super) fn retry_refund(&mut self, return_id: &str) {
        self.change_return(return_id, |back| {
            // What was never refused may still happen: it keeps its id, and so its gateway key.
            back.tries += u16::from(back.refund == Refund::Declined);
            back.refund = Refund::Pending;
        });
        self.look_after_refunds();
    }

    /// Status, money and attention as the refunds stand.
    fn look_after_refunds(&mut self) {
        let returns = &self.shipping.returns;
        let stuck = returns.iter().any(|back| back.refund.is_stuck());
        let pending = returns.iter().any(|back| back.refund == Refund::Pending);
        let given_back: i64 =
            returns.iter().filter(|back| back.refund == Refund::Succeeded).map(|back| back.amount).sum();
        let total = self.details.as_ref().map_or(0, |details| details.total.amount());
        self.payment = match given_back {
            _ if stuck => PaymentTrack::Unknown,
            _ if pending => PaymentTrack::Refunding,
            all if all >= total => PaymentTrack::Refunded,
            0 => PaymentTrack::Captured,
            _ => PaymentTrack::PartiallyRefunded,
        };
        self.status = if stuck { Status::NeedsAttention } else { self.shipping_status() };
        if !stuck {
            self.attention = None;
        }
    }

    fn shipping_status(&self) -> Status {
        let sent = self.left_to_fulfill().iter().all(|left| *left == 0);
        let kept = self.left_to_return().iter().any(|left| *left > 0);
        match (sent, self.shipping.returns.is_empty()) {
            (false, _) => Status::PartiallyFulfilled,
            (true, true) => Status::Fulfilled,
            (true, false) if kept => Status::PartiallyReturned,
            (true, false) => Status::Returned,
        }
    }

    fn lines(&self, items: &[Leg]) -> Vec<Line> {
        let line = |item: &Leg| {
            let leg = self.reservations.iter().position(|leg| leg.sku == item.sku)?;
            Some(Line { leg: u16::try_from(leg).ok()?, quantity: item.quantity })
        };
        items.iter().filter_map(line).collect()
    }
}

fn units<'a>(lines: impl Iterator<Item = &'a Line>, leg: usize) -> u32 {
    lines.filter(|line| usize::from(line.leg) == leg).map(|line| line.quantity).sum()
}
