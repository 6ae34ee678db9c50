//! One connection of the closed loop.

use super::{
    super::args::Workload,
    receipts::Receipts,
    stats::{Live, Stats},
    wire::{Answer, Connection, find, string_field},
    workload::Requests,
};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// Longest wait for one answer: above the longest `Prefer: wait`.
const ANSWER_MAX: Duration = Duration::from_secs(40);
/// Pause after an error, so that a node that is down or overloaded is not hammered.
const ERROR_PAUSE: Duration = Duration::from_millis(20);

/// When measuring begins and ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub begin: Instant,
    pub end: Instant,
}

pub(super) struct Worker {
    pub authority: String,
    pub workload: Workload,
    pub requests: Requests,
    pub window: Window,
    pub live: Arc<Live>,
    pub receipts: Option<Receipts>,
}

impl Worker {
    /// Runs to the end of the window. A request that began in it is waited for, and its latency
    /// counts even if it ends after it: slow ones must not vanish.
    pub async fn run(mut self) -> Stats {
        let mut stats = Stats::new();
        let mut connection = None;
        while Instant::now() < self.window.end {
            let began = Instant::now();
            let outcome = self.once(&mut connection).await;
            let ended = Instant::now();
            self.live.count(outcome.is_ok());
            let failed = outcome.is_err();
            if began >= self.window.begin {
                stats.record(outcome, ended - began, ended <= self.window.end);
            }
            if failed {
                tokio::time::sleep(ERROR_PAUSE).await;
            }
        }
        stats
    }

    /// One request; the error is a problem code.
    async fn once(&mut self, connection: &mut Option<Connection>) -> Result<(), String> {
        let mut open = match connection.take() {
            Some(open) => open,
            None => Connection::open(&self.authority).await.map_err(|error| format!("connect: {}", error.kind()))?,
        };
        let answer = match tokio::time::timeout(ANSWER_MAX, open.exchange(self.requests.next())).await {
            Err(_) => return Err("no answer in time".into()),
            Ok(Err(error)) => return Err(format!("connection: {}", error.kind())),
            Ok(Ok(answer)) => answer,
        };
        let outcome = judge(self.workload, &answer);
        if let (Some(receipts), Some(receipt)) = (&self.receipts, &answer.receipt) {
            receipts.keep(receipt, string_field(answer.body, "id").unwrap_or_default());
        }
        if !answer.last {
            *connection = Some(open);
        }
        outcome
    }
}

fn judge(workload: Workload, answer: &Answer<'_>) -> Result<(), String> {
    if !(200..300).contains(&answer.status) {
        let code = string_field(answer.body, "code").map(str::to_owned);
        return Err(code.unwrap_or_else(|| format!("status {}", answer.status)));
    }
    let wants_confirmed = matches!(workload, Workload::Checkout | Workload::HotSku);
    if wants_confirmed && find(answer.body, b"\"status\":\"confirmed\"").is_none() {
        return Err(format!("not confirmed: {}", string_field(answer.body, "status").unwrap_or("no status")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_confirmed_order_is_a_checkout() {
        let answer = |status, body| Answer { status, body, last: false, receipt: None };
        let confirmed = br#"{"id":"ord_1","status":"confirmed"}"#;
        assert_eq!(judge(Workload::Checkout, &answer(201, confirmed)), Ok(()));
        let pending = br#"{"id":"ord_1","status":"pending"}"#;
        assert_eq!(judge(Workload::Place, &answer(201, pending)), Ok(()));
        assert_eq!(judge(Workload::HotSku, &answer(201, pending)), Err("not confirmed: pending".into()));
        assert_eq!(judge(Workload::Place, &answer(429, br#"{"code":"overloaded"}"#)), Err("overloaded".into()));
        assert_eq!(judge(Workload::Read, &answer(502, b"<html>")), Err("status 502".into()));
    }
}
