//! The shop: stock, payment and order as pure entities, and the saga that ties them together.
//!
//! ```text
//!            Reserve / Commit / Undo: one chain over the order's SKUs, in sorted order
//!   order ─▶ stock(a) ─▶ stock(b) ─▶ … ─▶ order
//!     │
//!     └────▶ payment ─▶ task "payment-gateway" ─▶ payment ─▶ order
//! ```
//!
//! | module | is |
//! |---|---|
//! | [`order`] | the order, its transition table and the saga (it is the process manager) |
//! | [`stock`] | what there is of one SKU, and who holds a reservation on it |
//! | [`reservation`] | units of several SKUs held for a time, without an order |
//! | [`payment`] | one charge: authorize, capture, give back |
//! | [`gateway`], [`sandbox`] | what a payment says to a card gateway, and the embedded one |
//! | [`money`], [`time`], [`fields`] | amounts, timestamps, named errors of a request |
//!
//! Invariants: CONSERVATION (per SKU `on_hand = supplied + returned − committed`, `reserved = Σ held`,
//! `backordered = Σ waiting`, `reserved ≤ on_hand`; per payment `refunded ≤ captured ≤ authorized`) and ONE-KEY-PER-CHARGE.
//! docs/shop.md draws the state machines.
//!
//! This module knows [`crate::entity`] and nothing else: no clock, no randomness, no I/O.

mod currencies;
mod draft;
pub mod fields;
pub mod gateway;
pub mod money;
pub mod order;
pub mod payment;
pub mod reservation;
pub mod saga;
pub mod sandbox;
pub mod stock;
pub mod time;

#[cfg(test)]
mod tests;

pub use fields::FieldError;
pub use money::{Currency, Money};
pub use order::{CancelOrder, FulfillOrder, Order, OrderView, PlaceOrder, ReturnOrder};
pub use payment::{CreatePayment, Payment, PaymentView};
pub use reservation::{Reservation, ReservationView};
pub use saga::SagaView;
pub use stock::{AdjustStock, PutStock, Stock, StockView};
