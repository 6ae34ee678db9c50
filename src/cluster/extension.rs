//! [`Extension`]: what runs on every node beside its entities, with a handle of that node.

use super::{handle::Cluster, node::Node};
use crate::{
    entity::Entity,
    shard::{Registry, Tap, TaskContext, TaskError, typed_handler},
};
use futures::future::BoxFuture;
use serde::{Serialize, de::DeserializeOwned};
use std::sync::{Arc, OnceLock, Weak};

/// Adds to one node what needs to know on which node it is. See [`super::Builder::extend`].
pub struct Extension<'a> {
    pub(super) registry: &'a mut Registry,
    pub(super) node: NodeHandle,
    pub(super) services: &'a mut Vec<Service>,
}

/// Runs as long as its node.
pub(super) type Service = Box<dyn FnOnce(Cluster) -> BoxFuture<'static, ()> + Send>;

/// A node that is about to start, runs, or has stopped.
#[derive(Clone, Default)]
pub struct NodeHandle(Arc<OnceLock<Weak<Node>>>);

impl NodeHandle {
    /// The cluster seen from the node; `None` before it has started and after it is gone.
    pub fn cluster(&self) -> Option<Cluster> {
        self.0.get().and_then(Weak::upgrade).map(|node| Cluster::of(vec![node]))
    }

    fn attach(&self, node: &Arc<Node>) {
        // Set once, by the one who made both.
        _ = self.0.set(Arc::downgrade(node));
    }
}

impl Extension<'_> {
    /// The node that this is for.
    pub fn node(&self) -> NodeHandle {
        self.node.clone()
    }

    /// Registers an entity type, of whose decisions `tap` is told on this node.
    pub fn tap<E: Entity>(&mut self, tap: Arc<dyn Tap<E>>) {
        self.registry.add_tap(tap);
    }

    /// As [`super::Builder::task_handler`].
    pub fn task_handler<P, R, F, Fut>(&mut self, name: &str, handler: F)
    where
        P: DeserializeOwned + Send + 'static,
        R: Serialize + Send + 'static,
        F: Fn(TaskContext, P) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, TaskError>> + Send + 'static,
    {
        self.registry.add_handler(name, typed_handler(handler));
    }

    /// Runs in the background from the start of the node to its end, at which it is dropped.
    pub fn service<Fut>(&mut self, run: impl FnOnce(Cluster) -> Fut + Send + 'static)
    where
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.services.push(Box::new(|cluster| Box::pin(run(cluster))));
    }
}

/// What the extensions have made of one node, before it starts.
pub(super) struct Extended {
    pub registry: Arc<Registry>,
    node: NodeHandle,
    services: Vec<Service>,
}

/// A builder's extensions.
pub(super) type Extend = Box<dyn Fn(&mut Extension<'_>) + Send>;

impl Extended {
    pub fn of(mut registry: Registry, extensions: &[Extend]) -> Self {
        let (node, mut services) = (NodeHandle::default(), Vec::new());
        for extend in extensions {
            extend(&mut Extension { registry: &mut registry, node: node.clone(), services: &mut services });
        }
        Self { registry: Arc::new(registry), node, services }
    }

    /// The node has started.
    pub fn begin(self, node: &Arc<Node>) {
        self.node.attach(node);
        for service in self.services {
            node.spawn(service(Cluster::of(vec![node.clone()])));
        }
    }
}
