//! The task around an [`Engine`]: its clock, its packets, its seal.

use super::{
    Datagrams, Engine, Load, PACKET_BYTES_MAX, State, View,
    announce::REMEMBERED_MAX,
    impaired::{Lane, Late},
    seal::{Rejected, Seal},
};
use crate::{
    impairment::Impairments,
    telemetry::{Limited, names},
};
use parking_lot::Mutex;
use std::{
    collections::VecDeque,
    mem,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

/// The most packets taken in before timers get their turn. More than a socket's usual buffer
/// holds, so that a process that stood still has heard everything before it suspects anybody;
/// a limit at all, so that a flood cannot keep the timers from firing.
const DRAIN_MAX: usize = 1024;
/// How often a farewell is said, and how far apart.
const FAREWELLS: u32 = 3;
const FAREWELL_PAUSE: Duration = Duration::from_millis(50);

static REJECTED: Limited = Limited::new();

/// What the handle and the driver share.
#[derive(Default)]
pub(super) struct Shared {
    pub inbox: Mutex<Inbox>,
    pub wake: Notify,
    pub rejected: AtomicU64,
}

/// What the driver is to do next. Later wishes replace earlier ones, so it needs no queue.
#[derive(Default)]
pub(super) struct Inbox {
    pub load: Option<Load>,
    addresses: VecDeque<String>,
    ending: Option<Ending>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Leave,
    Stop,
}

impl Inbox {
    pub fn remember(&mut self, addresses: impl IntoIterator<Item = String>) {
        for address in addresses {
            if self.addresses.len() == REMEMBERED_MAX {
                self.addresses.pop_front();
            }
            self.addresses.push_back(address);
        }
    }
}

impl Shared {
    /// The first ending asked for is the one that happens.
    pub fn end(&self, ending: Ending) {
        self.inbox.lock().ending.get_or_insert(ending);
        self.wake.notify_one();
    }
}

pub(super) struct Driver {
    engine: Engine,
    seal: Seal,
    datagrams: Arc<dyn Datagrams>,
    shared: Arc<Shared>,
    view: watch::Sender<View>,
    started: Instant,
    /// What is late on purpose.
    lane: Lane,
    /// One byte longer than a packet may be, so that a longer one shows.
    buffer: Box<[u8; PACKET_BYTES_MAX + 1]>,
}

impl Driver {
    pub fn new(
        engine: Engine,
        seal: Seal,
        datagrams: Arc<dyn Datagrams>,
        shared: Arc<Shared>,
        view: watch::Sender<View>,
        impairments: Impairments,
    ) -> Self {
        let buffer = Box::new([0; PACKET_BYTES_MAX + 1]);
        let lane = Lane::new(impairments);
        Self { engine, seal, datagrams, shared, view, started: Instant::now(), lane, buffer }
    }

    pub async fn run(mut self) {
        let ending = loop {
            let inbox = mem::take(&mut *self.shared.inbox.lock());
            if let Some(ending) = inbox.ending {
                break ending;
            }
            self.engine.remember(inbox.addresses.into());
            if let Some(load) = inbox.load {
                self.engine.set_load(load);
            }
            self.drain();
            self.hand_on_late();
            self.engine.advance(self.started.elapsed());
            self.flush();
            self.wait().await;
        };
        if ending == Ending::Leave {
            self.say_farewell().await;
        }
    }

    /// Until there is a packet, a wish of the owner, or a timer.
    async fn wait(&self) {
        let timer = async {
            match self.engine.next_deadline() {
                Some(deadline) => tokio::time::sleep_until(self.started + deadline).await,
                None => std::future::pending().await,
            }
        };
        let late = async {
            match self.lane.next() {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.datagrams.readable() => {}
            () = self.shared.wake.notified() => {}
            () = timer => {}
            () = late => {}
        }
    }

    fn drain(&mut self) {
        for _ in 0..DRAIN_MAX {
            let Some(length) = self.datagrams.try_receive(&mut self.buffer[..]) else { return };
            let now = self.started.elapsed();
            match self.seal.open(&mut self.buffer[..length]) {
                Ok(plain) => {
                    if self.lane.takes_in(&self.engine, plain) {
                        take_in(&mut self.engine, &self.shared, now, plain);
                    }
                }
                Err(rejected) => reject(&self.shared, Rejected::as_str(rejected), &rejected),
            }
        }
    }

    fn hand_on_late(&mut self) {
        for packet in self.lane.arrived() {
            match packet {
                Late::Outgoing { to, to_all: true, bytes } => self.datagrams.send_to_all(&to, bytes),
                Late::Outgoing { to, to_all: false, bytes } => self.datagrams.send(&to, bytes),
                Late::Incoming(plain) => take_in(&mut self.engine, &self.shared, self.started.elapsed(), &plain),
            }
        }
    }

    fn flush(&mut self) {
        for packet in self.engine.take_packets() {
            let Some(sealed) = self.seal.seal(&packet.bytes) else {
                tracing::error!(bytes = packet.bytes.len(), "a gossip packet could not be sealed");
                continue;
            };
            if !self.lane.sends(&self.engine, &packet, &sealed) {
                continue;
            }
            match packet.to_all {
                true => self.datagrams.send_to_all(&packet.to, sealed),
                false => self.datagrams.send(&packet.to, sealed),
            }
        }
        if let Some(view) = self.engine.take_view() {
            count(&view);
            self.view.send_replace(view);
        }
    }

    async fn say_farewell(&mut self) {
        self.engine.leave(self.started.elapsed());
        self.flush();
        for _ in 1..FAREWELLS {
            tokio::time::sleep(FAREWELL_PAUSE).await;
            self.engine.repeat_farewell(self.started.elapsed());
            self.flush();
        }
    }
}

fn take_in(engine: &mut Engine, shared: &Shared, now: Duration, plain: &[u8]) {
    if let Err(refused) = engine.receive(now, plain) {
        reject(shared, "undecodable", &refused);
    }
}

/// Counts a packet that nobody gets an answer to, and logs one a second.
fn reject(shared: &Shared, reason: &'static str, detail: &dyn std::fmt::Display) {
    shared.rejected.fetch_add(1, Ordering::Relaxed);
    metrics::counter!(names::GOSSIP_REJECTED, "reason" => reason).increment(1);
    if let Some(left_out) = REJECTED.admit() {
        tracing::warn!(reason, %detail, left_out, "threw away a gossip packet");
    }
}

fn count(view: &View) {
    for state in State::ALL {
        let members = view.values().filter(|member| member.state == state).count();
        metrics::gauge!(names::GOSSIP_MEMBERS, "state" => state.as_str()).set(members as f64);
    }
}
