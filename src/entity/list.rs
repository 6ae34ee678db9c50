//! Lists: how an entity is found by something else than its id.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// One place of an entity in one list of its type: the list, of which there is one for each value
/// (`status` of `confirmed`), and where in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Row {
    /// The list's name, at most 64 bytes.
    pub list: &'static str,
    /// Of what; empty where a list has no values.
    pub of: Cow<'static, str>,
    /// Sorts the list, the lowest first; entities with the same number are sorted by their ids. If
    /// two lists are to be asked for together, an entity has the same number in both.
    pub order: u64,
}

/// A place in a list. It stays one when the entity that stood there is there no more.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// As the entity's [`Row`] says.
    pub order: u64,
    pub id: String,
}

impl Row {
    pub fn new(list: &'static str, of: impl Into<Cow<'static, str>>, order: u64) -> Self {
        Self { list, of: of.into(), order }
    }
}

/// The `order` that puts the newest first.
pub fn newest_first(at_ms: u64) -> u64 {
    u64::MAX - at_ms
}
