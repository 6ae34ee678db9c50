//! Delivers a shard's effects while this node owns it.
//!
//! EFFECTS-WITH-EVENTS: an effect stays in the outbox until its receiver has it in its own log.
//! It may be sent more than once; the receiver recognises (source, number).

use super::{
    applied::Delivery,
    entry::Item,
    request::{Cause, CommandReply, CommandRequest},
    session::Session,
    tasks,
};
use crate::{
    cluster::Unavailable,
    entity::{EntityKey, Versioned},
};
use std::{sync::Arc, time::Duration};
use tokio::sync::{Semaphore, mpsc};

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
    let runner = tasks::Runner::new(&session);
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
                    let (session_, done) = (session.clone(), done.clone());
                    session.spawn(async move {
                        tell(&session_, number, to, command).await;
                        drop(permit);
                        // The receiver lives as long as the session.
                        let _ = done.send(number).await;
                    });
                }
                Delivery::Task { .. } => runner.start(&session, number, outgoing, done.clone()),
            }
        }
    }
}

/// Sends one tell until its receiver has it, or refuses it for good.
async fn tell(session: &Arc<Session>, number: u64, to: EntityKey, command: Versioned) {
    let mut backoff = BACKOFF_MIN;
    loop {
        let cause = Cause::Effect { source: session.group_id, number, done_below: session.machine.outbox_first() };
        let request = CommandRequest {
            key: to.clone(),
            command: command.clone(),
            cause,
            idempotency: None,
            if_version: None,
            trace_id: None,
        };
        match session.router.command(request, ATTEMPT_TIMEOUT).await {
            CommandReply::Done { .. } | CommandReply::Duplicate => return,
            CommandReply::Rejected(_) => {
                tracing::debug!(%to, "a tell was rejected");
                return;
            }
            CommandReply::Unavailable(Unavailable::Invalid { detail }) => {
                tracing::error!(%to, detail, "a tell cannot be read by its receiver and is dropped");
                return;
            }
            other => tracing::debug!(%to, ?other, "a tell is not delivered yet"),
        }
        tokio::time::sleep(backoff).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
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
