//! Small histories, and what may be read after them.

use super::observe::{Observed, Reading, Seen};
use crate::chaos::{
    history::{History, Method, Operation, Outcome, Request},
    load::Workload,
};
use serde_json::Value;

pub const NODES: [&str; 2] = ["http://a", "http://b"];

/// An operation that was answered; each takes the time from twice its id to the moment after.
pub fn answered(id: u64, method: Method, path: &str, status: u16, body: Value) -> Operation {
    let outcome = Outcome::Answered { status, replayed: false, body: (&body).into() };
    operation(id, method, path, Value::Null, outcome)
}

/// An operation that was never answered, with the body it had.
pub fn unknown(id: u64, method: Method, path: &str, body: Value) -> Operation {
    operation(id, method, path, body, Outcome::Unknown { reason: "no answer".into() })
}

/// A POST with a key and its answer.
pub fn posted(id: u64, path: &str, key: &str, asked: Value, status: u16, said: Value) -> Operation {
    let outcome = Outcome::Answered { status, replayed: false, body: (&said).into() };
    let mut operation = operation(id, Method::Post, path, asked, outcome);
    operation.request.key = Some(key.to_owned());
    operation
}

/// The same without an answer.
pub fn posted_in_vain(id: u64, path: &str, key: &str, asked: Value) -> Operation {
    let mut operation = unknown(id, Method::Post, path, asked);
    operation.request.key = Some(key.to_owned());
    operation
}

fn operation(id: u64, method: Method, path: &str, body: Value, outcome: Outcome) -> Operation {
    Operation {
        id,
        client: 1,
        workload: Workload::Checkout,
        node: NODES[0].into(),
        invoked_us: 2 * id,
        returned_us: 2 * id + 1,
        request: Request { method, path: path.into(), key: None, if_match: None, body: (&body).into() },
        outcome,
        receipt: None,
    }
}

pub fn history(operations: Vec<Operation>) -> History {
    History { operations, samples: Vec::new() }
}

/// An entity that every node shows alike.
pub fn everywhere(value: Value) -> Seen {
    let replicas = NODES.map(|node| (node.to_owned(), Reading::Found(value.clone())));
    Seen { owner: Reading::Found(value), replicas: replicas.into() }
}

pub fn nowhere() -> Seen {
    Seen { owner: Reading::Missing, replicas: NODES.map(|node| (node.to_owned(), Reading::Missing)).into() }
}

pub fn observed(entities: impl IntoIterator<Item = (&'static str, Seen)>) -> Observed {
    let entities = entities.into_iter().map(|(path, seen)| (path.to_owned(), seen)).collect();
    Observed { entities, ..Observed::default() }
}
