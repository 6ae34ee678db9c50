//! For owners that do not know the endpoints at the moment: they commit what happened, and who
//! wants it is found out later.
//!
//! That is so for as long as a node has just started, or has not heard of the endpoints for
//! [`super::COPY_VALID`]. What is on its way here is no slower to decide, only to send.

use super::{
    copy::{self, Copy},
    delivery::{self, Delivery},
};
use crate::{
    cluster::{NodeHandle, TaskError},
    entity::{Context, Decision, Effect, Entity},
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

pub const HANDLER: &str = "webhook-announce";

/// An entity without a memory, one per subject: it turns word of events into a task.
pub struct Announcement;

/// What happened to a subject: numbers and types of its events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    pub subject_type: String,
    pub subject_id: String,
    pub events: Vec<(u64, String)>,
}

impl Entity for Announcement {
    const TYPE: &'static str = "webhook_announcement";

    type State = ();
    type Command = Notice;
    type Event = ();
    type Reply = ();
    type Rejection = delivery::Never;

    fn decide((): &(), notice: Notice, _: &Context<'_>) -> Decision<Self> {
        Decision::reply(()).with(Effect::task(HANDLER, "announce", notice))
    }

    fn evolve((): &mut (), (): &()) {}
}

/// Tells the deliveries of those endpoints that want one of the events.
pub async fn deliver(node: NodeHandle, copy: Arc<Copy>, notice: Notice) -> Result<(), TaskError> {
    let again = |why: &dyn std::fmt::Display| TaskError::Retry(why.to_string());
    let cluster = node.cluster().ok_or_else(|| again(&"the node has not started"))?;
    let endpoints = copy::current(&copy, &cluster).await.map_err(|error| again(&error))?;
    for endpoint in endpoints.iter() {
        let wanted = || notice.events.iter().filter(|(_, kind)| endpoint.wants(kind)).map(|(number, _)| *number);
        let (Some(first), Some(last)) = (wanted().min(), wanted().max()) else { continue };
        let delivery = delivery::id(&endpoint.id, &notice.subject_type, &notice.subject_id);
        let poke = delivery::Command::Poke { first, last, slot: endpoint.slot };
        cluster.entity::<Delivery>(delivery).ask(poke).await.map_err(|error| again(&error))?;
    }
    Ok(())
}
