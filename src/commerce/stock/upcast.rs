//! What version 1 wrote: only orders reserved, every reservation had a deadline, nobody waited,
//! and people's changes were not linked to each other.

use super::{Command, Event, Leg, Owner, Route, Undo, UndoLeg};
use crate::entity::codec::{self, decode};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
pub(super) enum EventV1 {
    Put { on_hand: u64, backorder_limit: u64 },
    Adjusted { delta: i64, reason: String },
    Reserved { order_id: String, quantity: u32, expires_at_ms: u64 },
    Committed { order_id: String },
    Released { order_id: String },
    Restocked { order_id: String, quantity: u32 },
    Expired { order_id: String },
    Swept { expired: Vec<String>, next_sweep_ms: Option<u64> },
}

#[derive(Serialize, Deserialize)]
pub(super) enum CommandV1 {
    Put { on_hand: u64, backorder_limit: u64 },
    Adjust { delta: i64, reason: String },
    Reserve { route: RouteV1, expires_at_ms: u64 },
    Commit(RouteV1),
    Undo(UndoV1),
    Sweep,
}

#[derive(Serialize, Deserialize)]
pub(super) struct RouteV1 {
    pub order_id: String,
    pub done: u16,
    pub legs: Vec<Leg>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct UndoV1 {
    pub order_id: String,
    pub legs: Vec<UndoLeg>,
}

pub(super) fn event(bytes: &[u8]) -> Result<Event, codec::Error> {
    Ok(match decode("event", bytes)? {
        EventV1::Put { on_hand, backorder_limit } => Event::Put { on_hand, backorder_limit, previous: 0 },
        EventV1::Adjusted { delta, reason } => Event::Adjusted { delta, reason, previous: 0 },
        EventV1::Reserved { order_id, quantity, expires_at_ms } => {
            Event::Reserved { owner: Owner::order(&order_id), quantity, until_ms: Some(expires_at_ms) }
        }
        EventV1::Committed { order_id } => Event::Committed { owner: Owner::order(&order_id) },
        EventV1::Released { order_id } => Event::Released { owner: Owner::order(&order_id) },
        EventV1::Restocked { order_id, quantity } => Event::Restocked { owner: Owner::order(&order_id), quantity },
        EventV1::Expired { order_id } => Event::Expired { owner: Owner::order(&order_id) },
        EventV1::Swept { expired, next_sweep_ms } => {
            let expired = expired.iter().map(|order_id| Owner::order(order_id)).collect();
            Event::Swept { expired, next_sweep_ms }
        }
    })
}

pub(super) fn command(bytes: &[u8]) -> Result<Command, codec::Error> {
    Ok(match decode("command", bytes)? {
        CommandV1::Put { on_hand, backorder_limit } => Command::Put { on_hand, backorder_limit },
        CommandV1::Adjust { delta, reason } => Command::Adjust { delta, reason },
        CommandV1::Reserve { route, expires_at_ms } => {
            Command::Reserve { route: route.into(), until_ms: Some(expires_at_ms), may_wait: false }
        }
        CommandV1::Commit(route) => Command::Commit(route.into()),
        CommandV1::Undo(UndoV1 { order_id, legs }) => Command::Undo(Undo { owner: Owner::order(&order_id), legs }),
        CommandV1::Sweep => Command::Sweep,
    })
}

impl From<RouteV1> for Route {
    fn from(RouteV1 { order_id, done, legs }: RouteV1) -> Self {
        Self { owner: Owner::order(&order_id), done, legs }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upcast(old: &CommandV1) -> Command {
        command(&codec::encode("command", old).expect("encodes")).expect("stays readable")
    }

    /// Commands wait in outboxes and timers across an upgrade.
    #[test]
    fn commands_of_version_1_stay_readable() {
        let legs = || vec![Leg { sku: "apple".into(), quantity: 2 }];
        let route = || RouteV1 { order_id: "ord_1".into(), done: 3, legs: legs() };
        let today = Route { owner: Owner::order("ord_1"), done: 3, legs: legs() };
        assert_eq!(upcast(&CommandV1::Commit(route())), Command::Commit(today.clone()));
        let reserve = Command::Reserve { route: today, until_ms: Some(7), may_wait: false };
        assert_eq!(upcast(&CommandV1::Reserve { route: route(), expires_at_ms: 7 }), reserve);
        let legs = || vec![UndoLeg { sku: "apple".into(), quantity: 2, restock: true }];
        let undo = UndoV1 { order_id: "ord_1".into(), legs: legs() };
        let today = Undo { owner: Owner::order("ord_1"), legs: legs() };
        assert_eq!(upcast(&CommandV1::Undo(undo)), Command::Undo(today));
        assert_eq!(upcast(&CommandV1::Sweep), Command::Sweep);
        let put = upcast(&CommandV1::Put { on_hand: 1, backorder_limit: 2 });
        assert_eq!(put, Command::Put { on_hand: 1, backorder_limit: 2 });
        let adjust = upcast(&CommandV1::Adjust { delta: -1, reason: "broken".into() });
        assert_eq!(adjust, Command::Adjust { delta: -1, reason: "broken".into() });
    }
}
