//! The place of one peer: whom to dial, the link if there is one, and how much of it is handled.

use super::{Class, Options, Peer, link::Link};
use crate::catalog::NodeId;
use parking_lot::{Mutex, RwLock};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use tokio::{sync::Notify, task::AbortHandle};

pub(super) struct Slot {
    pub node: NodeId,
    /// Name and address may change; the node does not.
    pub peer: RwLock<Peer>,
    pub link: RwLock<Option<Arc<Link>>>,
    /// Wakes the dialler: the link went down, or the address changed.
    pub poke: Notify,
    pub dialer: Mutex<Option<AbortHandle>>,
    raft: Limit,
    commands: Limit,
}

#[derive(Debug)]
struct Limit {
    running: AtomicUsize,
    max: usize,
}

/// One running handler; gives its place back when dropped.
pub(super) struct Running {
    slot: Arc<Slot>,
    class: Class,
}

impl Slot {
    pub fn new(peer: Peer, options: &Options) -> Arc<Self> {
        let limit = |max| Limit { running: AtomicUsize::new(0), max };
        Arc::new(Self {
            node: peer.node,
            peer: RwLock::new(peer),
            link: RwLock::new(None),
            poke: Notify::new(),
            dialer: Mutex::new(None),
            raft: limit(options.raft_handlers_max),
            commands: limit(options.command_handlers_max),
        })
    }

    /// A place for one more handler, if the class has one left. Raft has its own places.
    pub fn admit(self: &Arc<Self>, class: Class) -> Option<Running> {
        let limit = self.limit(class);
        if limit.running.fetch_add(1, Ordering::AcqRel) >= limit.max {
            limit.running.fetch_sub(1, Ordering::AcqRel);
            metrics::counter!("quorate_link_handlers_exhausted_total").increment(1);
            return None;
        }
        Some(Running { slot: self.clone(), class })
    }

    pub fn idle(&self) -> bool {
        [Class::Raft, Class::Command].iter().all(|class| self.limit(*class).running.load(Ordering::Acquire) == 0)
    }

    fn limit(&self, class: Class) -> &Limit {
        match class {
            Class::Raft => &self.raft,
            Class::Command => &self.commands,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.slot.limit(self.class).running.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(dialer) = self.dialer.lock().take() {
            dialer.abort();
        }
    }
}
