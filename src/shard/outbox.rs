//! Delivers a shard's effects while this node owns it.
//!
//! EFFECTS-WITH-EVENTS: an effect stays in the outbox until its receiver has it in its own log.
//! It may be sent more than once; the receiver recognises (source, number).

use super::{
    applied::Delivery,
    entry::Item,
    patience::{Patience, refusal},
    request::{Cause, CommandReply, CommandRequest},
    session::Session,
    tasks,
};
use crate::entity::{EntityKey, Versioned};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Semaphore, mpsc},
    time::Instant,
};

/// Effects read from the outbox at once.
const STEP: usize = 256;
/// Deliveries noted in one item.
const DONE_MAX: usize = 512;
/// How long deliveries gather before they are noted. Nobody waits for the note; if it is lost,
/// the effects are sent again and recognised.
const NOTE_AFTER: Duration = Duration::from_millis(200);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
const BACKOFF_MIN: Duration = Duration::from_millis(5);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

pub async fn run(session: Arc<Session>) {
    let (done, delivered) = mpsc::channel(DONE_MAX * 4);
    session.spawn(note_deliveries(session.clone(), delivered));
    let window = Arc::new(Semaphore::new(session.options.tells_in_flight));
    let mut cursor = 0;
    loop {
        let batch = session.machine.outbox_after(cursor, STEP);
        if batch.is_empty() {
            session.machine.outbox_grew().notified().await;
            continue;
        }
        for (number, outgoing) in batch {
            cursor = number;
            match outgoing.delivery {
                Delivery::Tell { to, command } => {
                    let Ok(permit) = window.clone().acquire_owned().await else { return };
                    let (session_, done, window) = (session.clone(), done.clone(), window.clone());
                    session.spawn(async move {
                        let tell = Tell { session: &session_, number, to, command };
                        match tell.until_taken(&window, permit).await {
                            // The receiver lives as long as the session.
                            Ok(()) => _ = done.send(number).await,
                            Err(why) => {
                                tasks::give_up(&session_, number, why).await;
                                tasks::count_given_up("tell", "");
                            }
                        }
                    });
                }
                Delivery::Queued(_) | Delivery::Task { .. } => tasks::start(&session, number, outgoing, done.clone()),
            }
        }
    }
}

struct Tell<'a> {
    session: &'a Arc<Session>,
    number: u64,
    to: EntityKey,
    command: Versioned,
}

impl Tell<'_> {
    /// Sends it until its receiver has it; an error once the receiver has refused it for too long.
    async fn until_taken(
        &self,
        window: &Arc<Semaphore>,
        permit: tokio::sync::OwnedSemaphorePermit,
    ) -> Result<(), String> {
        let (mut place, mut backoff) = (Some(permit), BACKOFF_MIN);
        let mut patience = Patience::new(&self.session.options);
        loop {
            if place.is_none() {
                place = window.clone().acquire_owned().await.ok();
            }
            let reply = self.send().await;
            match &reply {
                CommandReply::Done { .. } | CommandReply::Duplicate => return Ok(()),
                CommandReply::Rejected(_) => {
                    tracing::debug!(to = %self.to, "a tell was rejected");
                    return Ok(());
                }
                other => tracing::debug!(to = %self.to, ?other, "a tell is not delivered yet"),
            }
            if let Some((reason, why)) = refusal(&reply) {
                metrics::counter!("quorate_tells_refused_total", "reason" => reason).increment(1);
                if patience.ends_at(Instant::now()) {
                    return Err(why);
                }
                // Others need not wait for it.
                place = None;
                tokio::time::sleep(patience.pause()).await;
            } else {
                tokio::time::sleep(backoff).await;
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
        }
    }

    async fn send(&self) -> CommandReply {
        let session = self.session;
        let done_below = session.machine.outbox_first();
        let request = CommandRequest {
            key: self.to.clone(),
            command: self.command.clone(),
            cause: Cause::Effect { source: session.group_id, number: self.number, done_below },
            idempotency: None,
            if_version: None,
            trace_id: None,
        };
        session.router.command(request, ATTEMPT_TIMEOUT).await
    }
}

/// Takes delivered effects out of the outbox, many at a time.
async fn note_deliveries(session: Arc<Session>, mut delivered: mpsc::Receiver<u64>) {
    let mut numbers = Vec::with_capacity(DONE_MAX);
    loop {
        if delivered.recv_many(&mut numbers, DONE_MAX).await == 0 {
            return;
        }
        let until = tokio::time::Instant::now() + NOTE_AFTER;
        while numbers.len() < DONE_MAX {
            let room = DONE_MAX - numbers.len();
            match tokio::time::timeout_at(until, delivered.recv_many(&mut numbers, room)).await {
                Ok(0) => return,
                Ok(_) => {}
                Err(_) => break,
            }
        }
        session.submitter.upkeep(&Item::EffectsDone(std::mem::take(&mut numbers))).await;
    }
}
