//! The one remotable actor of a node: peers cast batches to it.

use super::{super::links::Links, sessions::Sessions};
use bytes::Bytes;
use ractor::{
    Actor, ActorProcessingErr, ActorRef, SupervisionEvent,
    message::{BoxedDowncastErr, SerializedMessage},
    pg::{self, GroupChangeMessage},
};
use std::sync::{Arc, Weak};

/// Process group scope of all gateways; the group is the node's name.
pub(super) const SCOPE: &str = "gw";

/// A batch of frames. Written by hand: what crosses the wire is the batch and nothing around it.
pub(super) struct Batch(pub Vec<u8>);

impl ractor::Message for Batch {
    fn serializable() -> bool {
        true
    }

    fn serialize(self) -> Result<SerializedMessage, BoxedDowncastErr> {
        Ok(SerializedMessage::Cast { variant: String::new(), args: self.0, metadata: None })
    }

    fn deserialize(message: SerializedMessage) -> Result<Self, BoxedDowncastErr> {
        match message {
            SerializedMessage::Cast { args, .. } => Ok(Self(args)),
            SerializedMessage::Call { .. } | SerializedMessage::CallReply(..) => Err(BoxedDowncastErr),
        }
    }
}

/// Receives batches, and learns from the process group which remote gateways there are.
pub(super) struct Gateway {
    pub name: String,
    pub links: Weak<Links>,
    pub sessions: Arc<Sessions>,
}

impl Actor for Gateway {
    type Msg = Batch;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Batch>, _: ()) -> Result<(), ActorProcessingErr> {
        pg::monitor_scope(SCOPE.to_owned(), myself.get_cell());
        pg::join_scoped(SCOPE.to_owned(), self.name.clone(), vec![myself.get_cell()]);
        Ok(())
    }

    async fn handle(&self, _: ActorRef<Batch>, batch: Batch, _: &mut ()) -> Result<(), ActorProcessingErr> {
        if let Some(links) = self.links.upgrade() {
            links.received(Bytes::from(batch.0));
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<Batch>,
        event: SupervisionEvent,
        _: &mut (),
    ) -> Result<(), ActorProcessingErr> {
        let SupervisionEvent::ProcessGroupChanged(GroupChangeMessage::Join(_, group, actors)) = event else {
            return Ok(());
        };
        for actor in actors.into_iter().filter(|actor| !actor.get_id().is_local()) {
            // a remote actor is the child of the session it came over: that tells the connection
            if let Some(session) = actor.try_get_supervisor() {
                self.sessions.joined(session.get_id(), &group, actor.into());
            }
        }
        Ok(())
    }
}
