//! Lists over the entities of one shard: asked of its owner, or of any replica by those who are
//! content with that.
//!
//! ```text
//! apply: rows before ─▶ evolve ─▶ rows after ─▶ the difference, in the same batch      (rows)
//! ask:   router ─▶ host ─▶ a few rows at a time, with the states behind them           (here)
//! ```
//!
//! An answer is bounded in entries, in bytes and in rows looked at, and says where to go on. A
//! place in a list is an order and an id: it stays one when the entity that stood there leaves the
//! list, so that nobody who goes on from it sees an entity twice or misses one.

mod rows;

use super::{
    host::ShardHost,
    request::StoredState,
    router::{Router, SendFailure, Target, pause},
};
use crate::{
    catalog::NodeId,
    cluster::{Consistency, Unavailable},
    entity::{Place, ShardId, codec},
    replication::Service,
    storage::{Error, GroupId},
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

pub use rows::{Versions, of};

/// Entries of one answer.
pub const ENTRIES_MAX: u32 = 101;
/// Bytes of states in one answer; one entry is given in any case.
const BYTES_MAX: usize = 256 << 10;
/// Rows looked at for one answer, found or not.
const ROWS_MAX: usize = 2048;
/// Rows looked at while nothing is applied.
const ROWS_PER_LOOK: usize = 128;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListRequest {
    pub group: GroupId,
    pub asked: ListQuery,
    pub consistency: Consistency,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListQuery {
    pub entity_type: String,
    /// Lists and of what. The first is walked; what is not in the others too is passed over.
    pub lists: Vec<(String, String)>,
    /// The lowest order and the highest.
    pub orders: (u64, u64),
    pub after: Option<Place>,
    pub limit: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum ListReply {
    Part(ListPart),
    NotOwner { hint: Option<NodeId> },
    Unavailable(Unavailable),
}

/// A part of one shard's list.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ListPart {
    pub entries: Vec<ListEntry>,
    /// Where to go on. `None`: there is nothing behind the last entry.
    pub rest_after: Option<Place>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListEntry {
    pub place: Place,
    pub state: StoredState,
}

/// What may be looked at at once.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    pub rows: usize,
    pub bytes: usize,
    /// Then one entry is given however large it is.
    pub is_empty: bool,
}

impl ShardHost {
    pub async fn list(&self, asked: &ListQuery, consistency: Consistency) -> ListReply {
        if self.machine().is_restoring() {
            return ListReply::Unavailable(self.restoring());
        }
        if !self.may_answer(consistency).await {
            return ListReply::NotOwner { hint: self.not_owner() };
        }
        if self.machine().registry().entity_type(&asked.entity_type).is_none() {
            let entity_type = asked.entity_type.clone();
            return ListReply::Unavailable(Unavailable::UnknownType { entity_type });
        }
        self.walk(asked).await.map_or_else(
            |error| {
                tracing::error!(shard = %self.shard(), %error, "a list cannot be read");
                ListReply::Unavailable(Unavailable::NoQuorum { shard: self.shard() })
            },
            ListReply::Part,
        )
    }

    /// Looks again and again, each time at a few rows, until the answer is full.
    async fn walk(&self, asked: &ListQuery) -> Result<ListPart, Error> {
        let mut asked = ListQuery { limit: asked.limit.clamp(1, ENTRIES_MAX), ..asked.clone() };
        let (mut whole, mut bytes) = (ListPart::default(), 0);
        for _ in 0..ROWS_MAX / ROWS_PER_LOOK {
            let room = Room { rows: ROWS_PER_LOOK, bytes: BYTES_MAX.saturating_sub(bytes), is_empty: bytes == 0 };
            let part = self.machine().look(|state| state.list(&asked, room))?;
            bytes += part.entries.iter().map(|entry| entry.state.bytes()).sum::<usize>();
            let found = part.entries.len();
            whole.entries.extend(part.entries);
            let is_full = found == asked.limit as usize || part.rest_after == asked.after;
            asked.limit -= found as u32;
            whole.rest_after.clone_from(&part.rest_after);
            asked.after = part.rest_after;
            if is_full || asked.after.is_none() {
                break;
            }
            tokio::task::yield_now().await;
        }
        Ok(whole)
    }
}

impl Router {
    /// Asks one shard for a part of a list, until `deadline`.
    pub async fn list(&self, request: &ListRequest, deadline: Instant) -> Result<ListPart, Unavailable> {
        let (group, mut attempt) = (request.group, 0);
        loop {
            match self.try_list(request, attempt, deadline).await {
                ListReply::Part(part) => return Ok(part),
                ListReply::NotOwner { hint } => self.learn(group, hint),
                ListReply::Unavailable(unavailable) => return Err(unavailable),
            }
            attempt += 1;
            if !pause(attempt, deadline).await {
                return Err(Unavailable::NoQuorum { shard: ShardId(group.0) });
            }
        }
    }

    async fn try_list(&self, request: &ListRequest, attempt: u32, deadline: Instant) -> ListReply {
        let nobody = ListReply::NotOwner { hint: None };
        match self.reader(request.group, request.consistency, attempt) {
            Target::Nobody => nobody,
            Target::Here(host) => {
                let answer = host.list(&request.asked, request.consistency);
                tokio::time::timeout_at(deadline, answer).await.unwrap_or(nobody)
            }
            Target::Node(node) => match self.send(node, Service::List, request, deadline).await {
                Ok(reply) => reply,
                Err(SendFailure::Overloaded) => nobody,
                Err(SendFailure::NotSent | SendFailure::Lost) => {
                    self.learn(request.group, None);
                    nobody
                }
            },
        }
    }

    /// Answers a peer: here or not at all.
    pub async fn handle_list(&self, body: Bytes) -> Result<Bytes, String> {
        let request: ListRequest = codec::decode("request", &body).map_err(|e| e.to_string())?;
        let reply = match self.host(request.group) {
            Some(host) => host.list(&request.asked, request.consistency).await,
            None => ListReply::NotOwner { hint: None },
        };
        codec::encode("reply", &reply).map(Bytes::from).map_err(|e| e.to_string())
    }
}

#[cfg(test)]
mod tests;
