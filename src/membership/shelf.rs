//! Records on their way through foca's broadcasts.

use super::{identity::Identity, record::Record, record::Records};
use crate::catalog::NodeId;
use parking_lot::Mutex;
use std::{convert::Infallible, sync::Arc};

/// foca owns its broadcast handler, so the engine shares the records with it. Never contended:
/// both run on one task.
#[derive(Clone)]
pub(super) struct Shelf {
    pub records: Arc<Mutex<Records>>,
    me: NodeId,
}

/// Which record a broadcast carries.
pub(super) struct Key {
    node: NodeId,
    order: (u64, u64),
}

impl Shelf {
    pub fn new(me: NodeId) -> Self {
        Self { records: Arc::new(Mutex::new(Records::new(me))), me }
    }
}

impl foca::Invalidates for Key {
    /// One broadcast per node waits at most: BOUNDED by the number of nodes.
    fn invalidates(&self, other: &Self) -> bool {
        self.node == other.node && self.order >= other.order
    }
}

impl foca::BroadcastHandler<Identity> for Shelf {
    type Key = Key;
    type Error = Infallible;

    /// `Some` passes the record on. One that cannot be read is not: it may be of a later format,
    /// and who knows that format will spread it.
    fn receive_item(&mut self, data: &[u8], sender: Option<&Identity>) -> Result<Option<Key>, Infallible> {
        let Some(record) = Record::decode(data) else { return Ok(None) };
        let key = Key { node: record.node, order: record.order() };
        let own = sender.is_none() && record.node == self.me;
        let news = own || self.records.lock().offer(record);
        Ok(news.then_some(key))
    }
}
