//! What a stock remembers: counters, and the reservations that are still open.

use super::{Event, RESERVATIONS_MAX, SWEEP_GRAIN_MS};
use crate::commerce::order::Refusal;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub levels: Levels,
    /// Open reservations by order id. Closed ones leave no trace here.
    pub open: BTreeMap<String, Reservation>,
    /// When the sweep timer is set to, in milliseconds since the epoch.
    pub sweep_at_ms: Option<u64>,
}

/// The counters of one SKU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Levels {
    /// False until the first `Put`.
    pub listed: bool,
    pub on_hand: u64,
    /// Sum of the open reservations.
    pub reserved: u64,
    /// Taken by orders, less what came back from orders that were never shipped.
    pub committed: u64,
    /// First supply and every change by people since: `on_hand + committed`.
    pub supplied: i64,
    pub backorder_limit: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    pub quantity: u32,
    pub expires_at_ms: u64,
}

impl Levels {
    pub fn available(&self) -> u64 {
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
}

impl State {
    pub(super) fn apply(&mut self, event: &Event) {
        match event {
            Event::Put { on_hand, backorder_limit } => self.levels.put(*on_hand, *backorder_limit),
            Event::Adjusted { delta, .. } => self.levels.adjust(*delta),
            Event::Reserved { order_id, quantity, expires_at_ms } => {
                self.sweep_at_ms = self.earlier_sweep(*expires_at_ms).or(self.sweep_at_ms);
                self.levels.reserved += u64::from(*quantity);
                let held = Reservation { quantity: *quantity, expires_at_ms: *expires_at_ms };
                self.open.insert(order_id.clone(), held);
            }
            Event::Committed { order_id } => {
                let quantity = self.close(order_id);
                self.levels.on_hand -= quantity;
                self.levels.committed += quantity;
            }
            Event::Released { order_id } | Event::Expired { order_id } => {
                self.close(order_id);
            }
            Event::Restocked { quantity, .. } => {
                self.levels.on_hand += u64::from(*quantity);
                self.levels.committed -= u64::from(*quantity);
            }
            Event::Swept { expired, next_sweep_ms } => {
                for order_id in expired {
                    self.close(order_id);
                }
                self.sweep_at_ms = *next_sweep_ms;
            }
        }
    }

    /// Why so many cannot be reserved until then; `None` if they can.
    pub(super) fn refusal(&self, quantity: u32, expires_at_ms: u64, now_ms: u64) -> Option<Refusal> {
        if !self.levels.listed {
            Some(Refusal::UnknownSku)
        } else if expires_at_ms <= now_ms {
            Some(Refusal::TooLate)
        } else if self.levels.available() < u64::from(quantity) {
            Some(Refusal::InsufficientStock { available: self.levels.available() })
        } else if self.open.len() >= RESERVATIONS_MAX {
            Some(Refusal::TooManyReservations)
        } else {
            None
        }
    }

    /// When to sweep for a new deadline, unless the timer is early enough as it is.
    pub(super) fn earlier_sweep(&self, expires_at_ms: u64) -> Option<u64> {
        let at_ms = sweep_time(expires_at_ms);
        self.sweep_at_ms.is_none_or(|set_ms| at_ms < set_ms).then_some(at_ms)
    }

    /// Orders whose reservation has run out, at most `limit`.
    pub(super) fn expired(&self, now_ms: u64, limit: usize) -> Vec<String> {
        let over = self.open.iter().filter(|(_, held)| held.expires_at_ms <= now_ms);
        over.map(|(order_id, _)| order_id.clone()).take(limit).collect()
    }

    /// When to sweep next once those are gone; at once if more are due.
    pub(super) fn sweep_after(&self, gone: &[String], now_ms: u64) -> Option<u64> {
        // Both are sorted by order id.
        let left = self.open.iter().filter(|(order_id, _)| gone.binary_search(order_id).is_err());
        let earliest = left.map(|(_, held)| held.expires_at_ms).min()?;
        Some(if earliest <= now_ms { now_ms } else { sweep_time(earliest) })
    }

    /// CONSERVATION, as this SKU can check it alone.
    pub fn is_conserved(&self) -> bool {
        let held: u64 = self.open.values().map(|held| u64::from(held.quantity)).sum();
        let balance = self.levels.supplied - self.levels.committed as i64;
        held == self.levels.reserved
            && self.levels.reserved <= self.levels.on_hand
            && i64::try_from(self.levels.on_hand) == Ok(balance)
    }

    fn close(&mut self, order_id: &str) -> u64 {
        let quantity = self.open.remove(order_id).map_or(0, |held| u64::from(held.quantity));
        self.levels.reserved -= quantity;
        quantity
    }
}

fn sweep_time(expires_at_ms: u64) -> u64 {
    expires_at_ms.div_ceil(SWEEP_GRAIN_MS).saturating_mul(SWEEP_GRAIN_MS)
}
