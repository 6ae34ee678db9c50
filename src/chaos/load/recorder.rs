//! What happened, as it happens.

use crate::chaos::history::{History, NodeSample, Operation, Outcome, Request};
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use std::time::Instant;
use tokio_util::sync::CancellationToken;

/// When so many attempts are recorded the load ends by itself; [`Sample::ended`] says so.
pub const OPERATIONS_MAX: usize = 200_000;
/// The same for the bytes of requests and answers.
pub const HISTORY_BYTES_MAX: usize = 256 << 20;
/// Samples of nodes: five nodes for five hours. The newest beyond that are dropped.
const SAMPLES_MAX: usize = 100_000;
const LATENCY_MICROS_MAX: u64 = 60_000_000;
const DIGITS: u8 = 3;

/// How the load goes.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Decided attempts so far: 2xx, and 4xx that are for good.
    pub acknowledged: u64,
    /// Attempts of which the cluster said that nothing happened, or that reached nobody.
    pub refused: u64,
    pub unknown: u64,
    /// Microseconds until an attempt was decided, of those since the last sample.
    pub latency: Histogram<u64>,
    /// The load has reached its bound, and asks for nothing more.
    pub ended: bool,
}

/// Shared by all clients.
pub(super) struct Recorder {
    started: Instant,
    /// No new operation begins once it is cancelled.
    pub stop: CancellationToken,
    recorded: Mutex<Recorded>,
}

struct Recorded {
    history: History,
    bytes: usize,
    bytes_max: usize,
    operations_max: usize,
    acknowledged: u64,
    refused: u64,
    unknown: u64,
    latency: Histogram<u64>,
    ended: bool,
}

impl Recorder {
    pub fn new(started: Instant) -> Self {
        Self::bounded(started, OPERATIONS_MAX, HISTORY_BYTES_MAX)
    }

    fn bounded(started: Instant, operations_max: usize, bytes_max: usize) -> Self {
        let recorded = Recorded {
            history: History::default(),
            bytes: 0,
            bytes_max,
            operations_max,
            acknowledged: 0,
            refused: 0,
            unknown: 0,
            latency: latencies(),
            ended: false,
        };
        Self { started, stop: CancellationToken::new(), recorded: Mutex::new(recorded) }
    }

    pub fn now_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// An attempt begins. Whoever never comes to [`Self::end`] it leaves it unknown.
    pub fn begin(&self, client: u32, workload: super::Workload, node: &str, request: Request) -> u64 {
        let mut recorded = self.recorded.lock();
        let id = recorded.history.operations.len() as u64;
        recorded.bytes += request.path.len() + request.body.bytes();
        let unknown = Outcome::Unknown { reason: "the run ended first".into() };
        // The clock is read under the lock, so that ids and times agree.
        recorded.history.operations.push(Operation {
            id,
            client,
            workload,
            node: node.to_owned(),
            invoked_us: self.now_us(),
            returned_us: u64::MAX,
            request,
            outcome: unknown,
            receipt: None,
        });
        if recorded.history.operations.len() >= recorded.operations_max || recorded.bytes >= recorded.bytes_max {
            recorded.ended = true;
            self.stop.cancel();
        }
        id
    }

    pub fn end(&self, id: u64, outcome: Outcome, receipt: Option<String>) {
        let mut guard = self.recorded.lock();
        let recorded = &mut *guard;
        let now = self.now_us();
        let Some(operation) = recorded.history.operations.get_mut(id as usize) else { return };
        match &outcome {
            Outcome::Answered { body, .. } => {
                recorded.acknowledged += 1;
                recorded.bytes += body.bytes();
                recorded.latency.saturating_record(now.saturating_sub(operation.invoked_us).max(1));
            }
            Outcome::Refused { .. } => recorded.refused += 1,
            Outcome::Unknown { .. } => recorded.unknown += 1,
        }
        operation.returned_us = now;
        operation.outcome = outcome;
        operation.receipt = receipt;
    }

    pub fn watched(&self, sample: NodeSample) {
        let samples = &mut self.recorded.lock().history.samples;
        if samples.len() < SAMPLES_MAX {
            samples.push(sample);
        }
    }

    pub fn sample(&self) -> Sample {
        let mut recorded = self.recorded.lock();
        let latency = std::mem::replace(&mut recorded.latency, latencies());
        Sample {
            acknowledged: recorded.acknowledged,
            refused: recorded.refused,
            unknown: recorded.unknown,
            latency,
            ended: recorded.ended,
        }
    }

    pub fn take(&self) -> History {
        let mut history = std::mem::take(&mut self.recorded.lock().history);
        let now = self.now_us();
        history.operations.iter_mut().for_each(|one| one.returned_us = one.returned_us.min(now));
        history
    }
}

fn latencies() -> Histogram<u64> {
    // The bounds are constants that the histogram accepts; growing covers what is beyond.
    let mut latencies =
        Histogram::new_with_bounds(1, LATENCY_MICROS_MAX, DIGITS).unwrap_or_else(|_| unreachable!("constant bounds"));
    latencies.auto(true);
    latencies
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::{
        history::{Json, Method},
        load::Workload,
    };

    fn get() -> Request {
        Request { method: Method::Get, path: "/x".into(), key: None, if_match: None, body: Json::default() }
    }

    fn answered() -> Outcome {
        Outcome::Answered { status: 200, replayed: false, body: Json::default() }
    }

    #[test]
    fn what_is_never_ended_stays_unknown() {
        let recorder = Recorder::new(Instant::now());
        let first = recorder.begin(1, Workload::Register, "http://a", get());
        let second = recorder.begin(2, Workload::Register, "http://a", get());
        recorder.end(second, answered(), Some("0-1-2-ab".into()));
        let history = recorder.take();
        assert!(history.operations[first as usize].is_unknown());
        assert!(history.operations[first as usize].returned_us < u64::MAX);
        assert_eq!(history.operations[second as usize].receipt.as_deref(), Some("0-1-2-ab"));
    }

    #[test]
    fn samples_count_on_and_their_latencies_begin_anew() {
        let recorder = Recorder::new(Instant::now());
        for outcome in [answered(), Outcome::Refused { status: 503, code: "no-quorum".into() }, answered()] {
            let id = recorder.begin(1, Workload::Register, "http://a", get());
            recorder.end(id, outcome, None);
        }
        let first = recorder.sample();
        assert_eq!((first.acknowledged, first.refused, first.unknown, first.latency.len()), (2, 1, 0, 2));
        let second = recorder.sample();
        assert_eq!((second.acknowledged, second.latency.len(), second.ended), (2, 0, false));
    }

    #[test]
    fn the_load_ends_when_the_history_is_full() {
        let by_number = Recorder::bounded(Instant::now(), 2, usize::MAX);
        by_number.begin(1, Workload::Register, "http://a", get());
        assert!(!by_number.sample().ended && !by_number.stop.is_cancelled());
        by_number.begin(1, Workload::Register, "http://a", get());
        assert!(by_number.sample().ended && by_number.stop.is_cancelled());
        let by_bytes = Recorder::bounded(Instant::now(), usize::MAX, 5);
        by_bytes.begin(1, Workload::Register, "http://a", get());
        assert!(by_bytes.sample().ended);
    }
}
