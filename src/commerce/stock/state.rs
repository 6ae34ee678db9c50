//! What a stock remembers: counters, the reservations that are still open, and who waits.

use super::{BACKORDERS_MAX, Event, Open, Owner, Queue, RESERVATIONS_MAX, Reservation, SWEEP_GRAIN_MS, Waiting};
use crate::commerce::order::Refusal;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub levels: Levels,
    /// Closed reservations leave no trace here.
    pub open: Open,
    /// When the sweep timer is set to, in milliseconds since the epoch.
    pub sweep_at_ms: Option<u64>,
    /// Who waits for stock to come in.
    pub waiting: Queue,
    /// Events so far.
    pub version: u64,
    /// The number of the last event by which people changed what is on hand; 0 if there is none.
    pub last_supply: u64,
    /// The last returns that were taken in, oldest first.
    pub returns: VecDeque<String>,
}

/// The counters of one SKU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Levels {
    /// False until the first `Put`.
    pub listed: bool,
    pub on_hand: u64,
    /// Sum of the open reservations.
    pub reserved: u64,
    /// Taken by orders and reservations, less what came back before it was sent.
    pub committed: u64,
    /// First supply and every change by people since: `on_hand + committed − returned`.
    pub supplied: i64,
    pub backorder_limit: u64,
    /// Sum of what is waited for.
    pub backordered: u64,
    /// Came back from customers.
    pub returned: u64,
}

/// What a stock does about someone who wants to reserve.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Hold,
    Wait,
    Refuse(Refusal),
}

impl Levels {
    /// What a newcomer can have: what is on hand and not promised to anyone. Below zero when more
    /// is owed to those who wait than there is.
    pub fn available(&self) -> i64 {
        // Sums of at most RESERVATIONS_MAX quantities and counts below ON_HAND_MAX: far from 2^63.
        self.on_hand as i64 - self.reserved as i64 - self.backordered as i64
    }

    /// What is on hand and not held: what those who wait can be served from.
    pub fn free(&self) -> u64 {
        self.on_hand.saturating_sub(self.reserved)
    }

    pub(super) fn put(&mut self, on_hand: u64, backorder_limit: u64) {
        self.supplied += on_hand as i64 - self.on_hand as i64;
        self.on_hand = on_hand;
        self.backorder_limit = backorder_limit;
        self.listed = true;
    }

    pub(super) fn adjust(&mut self, delta: i64) {
        self.supplied += delta;
        self.on_hand = self.on_hand.saturating_add_signed(delta);
    }

    pub(super) fn release(&mut self, quantity: u64) {
        self.reserved -= quantity;
    }

    pub(super) fn commit(&mut self, quantity: u64) {
        self.reserved -= quantity;
        self.on_hand -= quantity;
        self.committed += quantity;
    }

    pub(super) fn restock(&mut self, quantity: u64) {
        self.on_hand += quantity;
        self.committed -= quantity;
    }

    /// From a customer.
    pub(super) fn take_back(&mut self, quantity: u64) {
        self.on_hand += quantity;
        self.returned += quantity;
    }

    pub(super) fn serve(&mut self, quantity: u64) {
        self.backordered -= quantity;
        self.reserved += quantity;
    }
}

impl State {
    pub(super) fn apply(&mut self, event: &Event) {
        self.version += 1;
        match event {
            Event::Put { on_hand, backorder_limit, .. } => {
                self.levels.put(*on_hand, *backorder_limit);
                self.last_supply = self.version;
            }
            Event::Adjusted { delta, .. } => {
                self.levels.adjust(*delta);
                self.last_supply = self.version;
            }
            Event::Reserved { owner, quantity, until_ms } => {
                self.sweep_at_ms = until_ms.and_then(|until_ms| self.earlier_sweep(until_ms)).or(self.sweep_at_ms);
                self.levels.reserved += u64::from(*quantity);
                self.open.insert(owner.clone(), Reservation { quantity: *quantity, until_ms: *until_ms });
            }
            Event::Committed { owner } => {
                let quantity = self.close(owner);
                self.levels.commit(quantity);
            }
            Event::Released { owner } | Event::Expired { owner } => self.release(owner),
            Event::Restocked { quantity, .. } => self.levels.restock(u64::from(*quantity)),
            Event::Swept { expired, next_sweep_ms } => {
                expired.iter().for_each(|owner| self.release(owner));
                self.sweep_at_ms = *next_sweep_ms;
            }
            Event::Backordered { owner, quantity, done } => {
                self.levels.backordered += u64::from(*quantity);
                self.waiting.push(Waiting { owner: owner.clone(), quantity: *quantity, done: *done });
            }
            Event::Served { owners } => owners.iter().for_each(|owner| self.serve(owner)),
            Event::Withdrawn { owner } => {
                if let Some(waiting) = self.waiting.remove(owner) {
                    self.levels.backordered -= u64::from(waiting.quantity);
                }
            }
            Event::Returned { return_id, quantity, .. } => self.take_in(return_id, *quantity),
        }
    }

    /// Whether so many can be held until then. Who has stock to wait for is put behind those who
    /// wait already; they are never overtaken, because what is owed to them is not available.
    pub(super) fn admit(&self, quantity: u32, until_ms: Option<u64>, may_wait: bool, now_ms: u64) -> Admission {
        let left = self.levels.available() - i64::from(quantity);
        let limit = self.levels.backorder_limit;
        if !self.levels.listed {
            Admission::Refuse(Refusal::UnknownSku)
        } else if until_ms.is_some_and(|until_ms| until_ms <= now_ms) {
            Admission::Refuse(Refusal::TooLate)
        } else if left >= 0 && self.open.len() >= RESERVATIONS_MAX {
            Admission::Refuse(Refusal::TooManyReservations)
        } else if left >= 0 {
            Admission::Hold
        } else if !may_wait || limit == 0 {
            Admission::Refuse(Refusal::InsufficientStock { available: self.levels.available().max(0) as u64 })
        } else if left.unsigned_abs() > limit {
            Admission::Refuse(Refusal::BackorderLimit { limit })
        } else if self.waiting.len() >= BACKORDERS_MAX {
            Admission::Refuse(Refusal::TooManyBackorders)
        } else {
            Admission::Wait
        }
    }

    /// When to sweep for a new deadline, unless the timer is early enough as it is.
    pub(super) fn earlier_sweep(&self, until_ms: u64) -> Option<u64> {
        let at_ms = sweep_time(until_ms);
        self.sweep_at_ms.is_none_or(|set_ms| at_ms < set_ms).then_some(at_ms)
    }

    /// When to sweep next once the first `gone` are; at once if more are due.
    pub(super) fn sweep_after(&self, gone: usize, now_ms: u64) -> Option<u64> {
        let earliest = self.open.deadline_after(gone)?;
        Some(if earliest <= now_ms { now_ms } else { sweep_time(earliest) })
    }

    /// CONSERVATION, as this SKU can check it alone.
    pub fn is_conserved(&self) -> bool {
        self.check().is_ok()
    }

    /// CONSERVATION, and what of it does not hold.
    pub fn check(&self) -> Result<(), String> {
        let Levels { on_hand, reserved, committed, supplied, backordered, returned, .. } = self.levels;
        let balance = i128::from(supplied) + i128::from(returned) - i128::from(committed);
        let (held, waiting) = (self.open.units(), self.waiting.units());
        if held != reserved {
            Err(format!("reserved is {reserved}, the open reservations hold {held}"))
        } else if waiting != backordered {
            Err(format!("backordered is {backordered}, those who wait want {waiting}"))
        } else if reserved > on_hand {
            Err(format!("reserved is {reserved}, on hand are {on_hand}"))
        } else if i128::from(on_hand) != balance {
            Err(format!("on hand are {on_hand}, supplied {supplied} + returned {returned} − committed {committed}"))
        } else {
            Ok(())
        }
    }

    fn release(&mut self, owner: &Owner) {
        let quantity = self.close(owner);
        self.levels.release(quantity);
    }

    fn serve(&mut self, owner: &Owner) {
        let Some(Waiting { owner, quantity, .. }) = self.waiting.remove(owner) else { return };
        self.levels.serve(u64::from(quantity));
        // Whoever could wait keeps the time itself.
        self.open.insert(owner, Reservation { quantity, until_ms: None });
    }

    fn close(&mut self, owner: &Owner) -> u64 {
        self.open.remove(owner).map_or(0, |held| u64::from(held.quantity))
    }
}

fn sweep_time(until_ms: u64) -> u64 {
    until_ms.div_ceil(SWEEP_GRAIN_MS).saturating_mul(SWEEP_GRAIN_MS)
}
