//! The order, and the saga it manages.
//!
//! ```text
//! place ─▶ reserve ─▶ authorize ─▶ commit stock ─▶ capture ─▶ confirmed
//!             │           │             │             │
//!             ▼           └──────┬──────┴─────────────┘  declined, expired, cancelled, unresolved
//!          rejected         compensating: give the money back ∥ give the stock back
//!                                │
//!                                └─▶ cancelled | expired | needs_attention
//!
//! confirmed ─▶ fulfilled, in parts ─▶ returned, in parts: restock ∥ refund
//! ```
//!
//! The order is the process manager: stock and payment only answer it. It keeps three things
//! apart: the [`Status`] the world sees, where its stock is ([`StockTrack`]) and where its money
//! is ([`PaymentTrack`]). Effects come unordered, so an answer counts only if the track it belongs
//! to is waiting for it, and compensation starts on each track as soon as that track has settled.
//!
//! Invariants: no status change outside [`Status::allowed`]; an order ends only when nothing is
//! reserved for it and no money is held for it, or all of both is taken; per SKU
//! `returned ≤ fulfilled ≤ ordered`; what is refunded for returns is the price of what came back.

mod backorder;
mod fulfill;
pub mod lists;
mod messages;
mod parcel_requests;
mod request;
mod returns;
mod saga;
mod shipping;
mod state;
mod status;
mod view;

pub use messages::{Command, Ending, Event, Fact, Reason, RefundOutcome, Refusal, Rejection, Reply, Reversal};
pub use parcel_requests::{FulfillOrder, ParcelItem, ReturnOrder};
pub use request::{
    CUSTOMER_ID_CHARS_MAX, CancelOrder, Item, LINES_MAX, NewOrder, PlaceItem, PlaceOrder, QUANTITY_MAX,
    RESERVATION_TTL_MS,
};
pub use shipping::{FULFILLMENTS_MAX, Fulfillment, Line, RETURNS_MAX, Refund, Return, Shipping};
pub use state::{Details, PaymentTrack, Reservation, ReservationStatus, State, StockTrack};
pub use status::{Action, Status};
pub use view::{FulfillmentStatus, FulfillmentView, OrderView, ReservationView, ReturnView};

use crate::entity::{Context, Decision, Entity, Row};

/// The longest order id, in bytes; bounds what a stock remembers per reservation.
pub const ID_BYTES_MAX: usize = 64;

/// The entity; its id is `ord_…`.
pub struct Order;

impl Entity for Order {
    const TYPE: &'static str = "order";
    const STATE_VERSION: u16 = 3;
    const LISTS_VERSION: u16 = 2;

    type State = State;
    type Command = Command;
    type Event = Event;
    type Reply = Reply;
    type Rejection = Rejection;

    fn decide(state: &State, command: Command, context: &Context<'_>) -> Decision<Self> {
        saga::decide(state, command, context)
    }

    fn evolve(state: &mut State, event: &Event) {
        state.apply(event);
    }

    fn rows(state: &State) -> Vec<Row> {
        state.rows()
    }

    fn check(state: &State) -> Result<(), String> {
        state.check()
    }
}

/// The payment of an order: `pay_` and the order's own suffix.
pub fn payment_id(order_id: &str) -> String {
    format!("pay_{}", suffix(order_id))
}

fn suffix(order_id: &str) -> &str {
    order_id.strip_prefix("ord_").unwrap_or(order_id)
}
