//! How a node leaves its cluster for good.

use super::{
    entity_ref::EntityRef,
    handle::Cluster,
    types::{AskError, AskOptions, Idempotency, Unavailable},
};
use crate::{
    catalog::{CATALOG_ID, Catalog, Command, Rejection, Reply},
    entity::ShardId,
    storage::GroupId,
};
use std::time::Duration;
use tokio::time::Instant;

const FOUNDED_TICK: Duration = Duration::from_millis(50);

/// Why a member cannot be removed. Nothing happened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RemoveError {
    #[error("there is no member `{0}`")]
    NotFound(String),
    /// All others have left, or are on their way out.
    #[error("{0} is the last member that stays: with it the cluster and its data would be gone")]
    LastMember(String),
    #[error("the idempotency key was used before with another request")]
    IdempotencyKeyReused,
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// A member is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removal {
    /// True when the idempotency key had been used before.
    pub replayed: bool,
}

impl Cluster {
    /// Has a member, which may be down, leave for good: its shards are filled elsewhere first, as far as
    /// there is somewhere, then it is struck off the roster and, if it runs, stops. Returns when that is
    /// decided; [`Cluster::members`] shows when it is done. Asked again, it changes nothing.
    ///
    /// # Errors
    /// [`RemoveError`].
    pub async fn remove(&self, name: &str, idempotency: Option<Idempotency>) -> Result<Removal, RemoveError> {
        self.founded().await?;
        let catalog = EntityRef::<Catalog>::new(self.node().clone(), CATALOG_ID.into());
        let options = AskOptions { idempotency, ..AskOptions::default() };
        match catalog.ask_with(Command::Leave { name: name.to_owned() }, options).await {
            Ok(answer) => {
                debug_assert!(matches!(answer.reply, Reply::Member(_)), "{:?}", answer.reply);
                Ok(Removal { replayed: answer.replayed })
            }
            Err(AskError::Rejected(rejection) | AskError::RejectedBefore(rejection)) => Err(match rejection {
                Rejection::LastMember { name } => RemoveError::LastMember(name),
                _ => RemoveError::NotFound(name.to_owned()),
            }),
            Err(AskError::IdempotencyKeyReused) => Err(RemoveError::IdempotencyKeyReused),
            Err(AskError::VersionMismatch { .. }) => Err(RemoveError::NotFound(name.to_owned())),
            Err(AskError::Unavailable(unavailable)) => Err(unavailable.into()),
        }
    }

    /// Waits until there is a catalog to ask, for a moment after the cluster was founded: a refusal before that
    /// would be kept under the key.
    async fn founded(&self) -> Result<(), Unavailable> {
        let deadline = Instant::now() + self.config().shard.command_timeout;
        while self.node().read_catalog().await.is_none() {
            if Instant::now() >= deadline {
                return Err(Unavailable::NoQuorum { shard: ShardId(GroupId::CATALOG.0) });
            }
            tokio::time::sleep(FOUNDED_TICK).await;
        }
        Ok(())
    }

    /// Completes when this node has left its cluster, as [`Cluster::remove`] of any node asked it to. It
    /// still runs: [`Cluster::shutdown`] stops it.
    pub async fn left(&self) {
        self.node().left().await;
    }

    /// Leaves for good: as [`Cluster::remove`] of this node, then [`Cluster::shutdown`]. Takes as long as it takes to
    /// fill its shards elsewhere; ends early if the node fails or is shut down meanwhile. Where nobody stays behind (the last node, or a cluster that is all in this
    /// process), it only stops.
    ///
    /// # Errors
    /// [`Unavailable`]: the cluster cannot decide it at the moment; the node goes on.
    pub async fn leave(&self) -> Result<(), Unavailable> {
        if self.members_in_process() == 1 {
            match self.remove(self.name(), None).await {
                Ok(_) => tokio::select! {
                    () = self.left() => {}
                    _ = self.failed() => {}
                    () = self.draining() => {}
                },
                Err(RemoveError::Unavailable(unavailable)) => return Err(unavailable),
                Err(RemoveError::LastMember(_) | RemoveError::NotFound(_) | RemoveError::IdempotencyKeyReused) => {}
            }
        }
        self.shutdown().await;
        Ok(())
    }
}
