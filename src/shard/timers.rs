//! Fires a shard's durable timers while this node owns it, and forgets old idempotency keys.

use super::{
    applied::Timer,
    entry::Item,
    request::{Cause, CommandReply, CommandRequest},
    session::Session,
};
use futures::future::join_all;
use std::{sync::Arc, time::Duration};

/// Timers fired at once.
const STEP: usize = 128;
const FIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// Wait before timers that could not be fired are tried again.
const RETRY_AFTER: Duration = Duration::from_millis(100);
const FORGET_INTERVAL_MS: u64 = 60_000;
/// Answers forgotten by one item.
const FORGET_STEP: u32 = 2000;
/// Answers stay this much longer than they must: the clock of the owner that forgets them may be
/// ahead of the clock of the owner that kept them.
const FORGET_SLACK_MS: u64 = 60_000;
/// How often it is looked whether a checkpoint has come.
const CHECKPOINT_PAUSE: Duration = Duration::from_millis(50);

pub async fn run(session: Arc<Session>) {
    loop {
        let changed = session.machine.timers_changed().notified();
        let now_ms = session.clock.now_ms();
        match session.machine.next_timer_at_ms() {
            Some(due_ms) if due_ms <= now_ms => {
                if !fire_due(&session, now_ms).await {
                    tokio::time::sleep(RETRY_AFTER).await;
                }
            }
            Some(due_ms) => {
                tokio::select! {
                    () = session.clock.sleep_until(due_ms) => {}
                    () = changed => {}
                }
            }
            None => changed.await,
        }
    }
}

/// Fires what is due; false if some of it must be tried again.
async fn fire_due(session: &Arc<Session>, now_ms: u64) -> bool {
    let due = match session.machine.due_timers(now_ms, STEP) {
        Ok(due) => due,
        Err(error) => {
            tracing::error!(%error, "timers cannot be read");
            return false;
        }
    };
    let fired = due.into_iter().map(|(at_ms, number, timer)| fire(session, at_ms, number, timer));
    join_all(fired).await.into_iter().all(|fired| fired)
}

async fn fire(session: &Arc<Session>, at_ms: u64, number: u64, timer: Timer) -> bool {
    let request = CommandRequest {
        key: timer.entity,
        command: timer.command,
        cause: Cause::Timer { at_ms, number },
        idempotency: None,
        if_version: None,
        trace_id: None,
    };
    let entity = request.key.clone();
    match session.router.command(request, FIRE_TIMEOUT).await {
        CommandReply::Done { .. } | CommandReply::Duplicate => true,
        CommandReply::Rejected(_) => {
            // Nothing was committed, so the timer would fire forever.
            tracing::debug!(%entity, "a timer's command was rejected; the timer is dropped");
            session.submitter.upkeep(&Item::TimerDone { at_ms, number }).await
        }
        other => {
            tracing::debug!(%entity, ?other, "a timer could not be fired yet");
            false
        }
    }
}

/// Drops the answers whose retention is over, a bounded number at a time. When each is over is part
/// of the applied state, so that this goes on wherever and whenever there is an owner.
pub async fn forget_answers(session: Arc<Session>) {
    loop {
        let now_ms = session.clock.now_ms();
        let before_ms = now_ms.saturating_sub(FORGET_SLACK_MS);
        while matches!(session.machine.has_expired_answers(before_ms), Ok(true)) {
            room_for_changes(&session).await;
            if !session.submitter.upkeep(&Item::ForgetKeys { before_ms, limit: FORGET_STEP }).await {
                break;
            }
        }
        session.clock.sleep_until(now_ms + FORGET_INTERVAL_MS).await;
    }
}

/// Waits while a checkpoint is due: what is deleted before it has to be skipped by every look at
/// what is left.
async fn room_for_changes(session: &Session) {
    while session.machine.dirty_bytes() as u64 >= session.options.checkpoint_bytes.as_u64() {
        tokio::time::sleep(CHECKPOINT_PAUSE).await;
    }
}
