//! The stock of one SKU: how many there are, who holds how many of them, and who waits for more.
//!
//! An owner (an order, or a reservation of its own) reserves by a *chain*: it tells the stock of
//! its first SKU (sorted by name), each stock that grants its leg passes the rest on to the next,
//! the last one answers the owner; a refusal answers the owner at once, which then undoes the legs
//! granted so far. A stock never waits for anything, so nothing can deadlock; and because every
//! owner takes SKUs in the same order, two of them never refuse each other over the last units: the
//! one that got the first contested SKU goes on. A chain over n SKUs costs n + 1 replicated hops,
//! where telling each SKU and hearing from each would cost 2n.
//!
//! ```text
//!            ┌────────────▶ refused
//! Reserve ───┼─▶ open ────▶ committed | released | expired
//!            └─▶ waiting ─▶ open, when stock comes in; first come, first served
//! ```
//!
//! One durable timer per SKU sweeps expired reservations: it is set when the first one opens and
//! moved only by an earlier deadline, so a hot SKU does not pay for it on every order. An owner
//! that may wait, or that keeps its time itself, reserves without a deadline.
//!
//! | module | is |
//! |---|---|
//! | `supply`, `legs`, `restock`, `serve` | decisions: what people change; one leg of a chain; what customers send back; the queue and the sweep |
//! | `open`, `queue`, `state` | what is remembered, with its indexes |
//! | `owner` | who is answered, and what |
//!
//! CONSERVATION: `on_hand = supplied + returned − committed`, `reserved = Σ open`, `reserved ≤ on_hand`,
//! `backordered = Σ waiting`. No step costs more than O(log n) in what is open or waits, but for
//! what it opens or ends itself.

mod legs;
mod messages;
mod open;
mod owner;
mod queue;
mod requests;
mod restock;
mod serve;
mod state;
mod supply;
mod upcast;

pub use messages::{Command, Event, Leg, Rejection, Reply, Restock, Route, Undo, UndoLeg};
pub use open::{Open, Reservation};
pub use owner::{Answer, Owner};
pub use queue::{Queue, Waiting};
pub use requests::{AdjustStock, PutStock, SKU_BYTES_MAX, StockView};
pub use restock::RETURNS_REMEMBERED;
pub use state::{Levels, State};

use crate::entity::{Context, Decision, Entity, Row, codec};
use std::borrow::Cow;

/// The list of every SKU that was ever put.
pub const LIST: &str = "all";
/// The most that may be on hand of one SKU.
pub const ON_HAND_MAX: u64 = 1_000_000_000_000;
/// The most reservations that may be open on one SKU; past it, reserving is refused. Together with
/// [`BACKORDERS_MAX`] and [`RETURNS_REMEMBERED`] it keeps the encoded state under [`codec::STATE_BYTES_MAX`].
pub const RESERVATIONS_MAX: usize = 8192;
/// The most owners that may wait for one SKU; past it, they are refused.
pub const BACKORDERS_MAX: usize = 2048;
/// The most reservations that one sweep ends; it comes back at once for the rest.
pub const SWEEP_BATCH_MAX: usize = 256;
/// The most of those who wait that one decision serves; it goes on at once with the rest.
pub const SERVE_BATCH_MAX: usize = 64;
/// Sweeps happen on whole multiples of this, so that deadlines close together share one.
const SWEEP_GRAIN_MS: u64 = 1000;
const SWEEP_TIMER: &str = "sweep";

/// The entity; its id is the SKU.
pub struct Stock;

impl Entity for Stock {
    const TYPE: &'static str = "stock";
    const EVENT_VERSION: u16 = 2;
    const COMMAND_VERSION: u16 = 2;
    const STATE_VERSION: u16 = 3;
    const LISTS_VERSION: u16 = 1;

    type State = State;
    type Command = Command;
    type Event = Event;
    type Reply = Reply;
    type Rejection = Rejection;

    fn decide(state: &State, command: Command, context: &Context<'_>) -> Decision<Self> {
        match command {
            Command::Put { on_hand, backorder_limit } => supply::put(state, on_hand, backorder_limit, context),
            Command::Adjust { delta, reason } => supply::adjust(state, delta, reason, context),
            Command::Reserve { route, until_ms, may_wait } => legs::reserve(state, route, until_ms, may_wait, context),
            Command::Commit(route) => legs::commit(state, route, context),
            Command::Undo(undo) => legs::give_back(state, undo, context),
            Command::Sweep => serve::sweep(state, context),
            Command::Serve => serve::go_on(state, context),
            Command::Restock(returned) => restock::restock(state, returned, context),
        }
    }

    fn evolve(state: &mut State, event: &Event) {
        state.apply(event);
    }

    /// By SKU: that is the id.
    fn rows(state: &State) -> Vec<Row> {
        if state.levels.listed { vec![Row::new(LIST, "", 0)] } else { Vec::new() }
    }

    /// Who holds it and who waits for it stays where it is: that may be most of a megabyte.
    fn listed(state: &State) -> Cow<'_, State> {
        Cow::Owned(State { levels: state.levels, ..State::default() })
    }

    fn check(state: &State) -> Result<(), String> {
        state.check()
    }

    fn upcast_event(version: u16, bytes: &[u8]) -> Result<Event, codec::Error> {
        match version {
            1 => upcast::event(bytes),
            found => Err(codec::Error::UnknownVersion { what: "event", found, known: Self::EVENT_VERSION }),
        }
    }

    fn upcast_command(version: u16, bytes: &[u8]) -> Result<Command, codec::Error> {
        match version {
            1 => upcast::command(bytes),
            found => Err(codec::Error::UnknownVersion { what: "command", found, known: Self::COMMAND_VERSION }),
        }
    }
}
