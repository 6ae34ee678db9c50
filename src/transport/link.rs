//! One open link: its queue, the requests that wait for replies, and the handling of what comes in.
//!
//! A link is made when a connection opens and never outlives it: a reconnect makes a new one, so
//! nothing of an earlier connection (or of an earlier process at the other end) can be confused
//! with the present one.

use super::{
    Class, Error, FRAME_BYTES_MAX, Handler, Options,
    frame::{Frame, Frames, Header, Malformed, Outcome},
    impaired::Gate,
    outbox::Outbox,
    slot::{Running, Slot},
    wire::{Line, LinkId},
};
use bytes::Bytes;
use futures::FutureExt;
use parking_lot::Mutex;
use std::{collections::HashMap, panic::AssertUnwindSafe, sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, timeout_at},
};

/// A deadline for those who set none.
const TIMEOUT_MAX: Duration = Duration::from_secs(3600);

/// A batch without its header, and how long it was with it.
pub(super) type Arrived = (Header, Bytes, u64);

pub(super) struct Link {
    pub id: LinkId,
    pub slot: Arc<Slot>,
    pub boot_id: u64,
    /// What comes in passes it, where it can be impaired on purpose.
    pub inlet: Option<Gate<Arrived>>,
    line: Arc<dyn Line>,
    handler: Arc<dyn Handler>,
    state: Mutex<State>,
    /// Wakes the sender.
    wake: Notify,
    /// Wakes replies that wait for room.
    room: Notify,
    /// Wakes `drained`.
    progress: Notify,
}

struct State {
    outbox: Outbox,
    pending: HashMap<u64, oneshot::Sender<Result<Bytes, Error>>>,
    correlation: u64,
    last_heard: Instant,
    closed: bool,
    /// Requests that come in are answered "overloaded".
    draining: bool,
}

impl Link {
    pub fn new(
        id: LinkId,
        boot_id: u64,
        slot: Arc<Slot>,
        line: Arc<dyn Line>,
        inlet: Option<Gate<Arrived>>,
        handler: Arc<dyn Handler>,
        options: &Options,
    ) -> Arc<Self> {
        let state = State {
            outbox: Outbox::new(id.0, options),
            pending: HashMap::new(),
            correlation: 0,
            last_heard: Instant::now(),
            closed: false,
            draining: false,
        };
        Arc::new(Self {
            id,
            slot,
            boot_id,
            inlet,
            line,
            handler,
            state: Mutex::new(state),
            wake: Notify::new(),
            room: Notify::new(),
            progress: Notify::new(),
        })
    }

    /// See [`super::Transport::request`].
    pub async fn request(self: Arc<Self>, class: Class, body: Bytes, timeout: Duration) -> Result<Bytes, Error> {
        let node = self.slot.node;
        if body.len() > FRAME_BYTES_MAX {
            let detail = format!("a request of {} bytes exceeds the limit of {FRAME_BYTES_MAX} bytes", body.len());
            return Err(Error::Refused { node, detail });
        }
        let deadline = Instant::now() + timeout.min(TIMEOUT_MAX);
        let (correlation, reply) = self.enqueue(class, body, deadline)?;
        let _forget = Forget { link: &self, correlation };
        match timeout_at(deadline, reply).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(Error::Broken(node)),
            Err(_) => Err(Error::TimedOut(node)),
        }
    }

    fn enqueue(
        &self,
        class: Class,
        body: Bytes,
        deadline: Instant,
    ) -> Result<(u64, oneshot::Receiver<Result<Bytes, Error>>), Error> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state.lock();
        if state.closed || state.draining {
            return Err(Error::NotConnected(self.slot.node));
        }
        state.correlation += 1;
        let correlation = state.correlation;
        if state.outbox.push_request(class, correlation, deadline, body).is_err() {
            metrics::counter!("quorate_link_overloaded_total").increment(1);
            return Err(Error::Overloaded(self.slot.node));
        }
        state.pending.insert(correlation, sender);
        drop(state);
        self.wake.notify_one();
        Ok((correlation, receiver))
    }

    /// Sends what is queued until the link closes. Between two batches it lets others run, so
    /// that under load many frames gather in the next one; when idle a frame leaves at once.
    pub async fn send_loop(self: Arc<Self>) {
        loop {
            self.wake.notified().await;
            loop {
                let batch = {
                    let mut state = self.state.lock();
                    if state.closed {
                        return;
                    }
                    state.outbox.next_batch(Instant::now())
                };
                let Some(batch) = batch else { break };
                if !self.line.send(batch) {
                    break;
                }
                self.room.notify_waiters();
                tokio::task::yield_now().await;
            }
        }
    }

    /// Takes in a batch (without its header). An error means that the link must be closed.
    pub fn receive(self: &Arc<Self>, (header, frames, batch_len): Arrived) -> Result<(), Malformed> {
        let (wake, draining) = {
            let mut state = self.state.lock();
            state.last_heard = Instant::now();
            let room = state.outbox.acknowledged(header.ack)?;
            let speak = state.outbox.consume(&header, batch_len)?;
            (room || speak, state.draining)
        };
        let mut replies = Vec::new();
        let mut result = Ok(());
        for frame in Frames(frames) {
            match frame {
                Ok(Frame::Reply { correlation, outcome }) => replies.push((correlation, outcome)),
                Ok(Frame::Request { correlation, class, timeout_ms, body }) => {
                    self.serve(correlation, class, timeout_ms, body, draining);
                }
                Err(malformed) => result = Err(malformed),
            }
        }
        self.resolve(replies);
        if wake {
            self.wake.notify_one();
        }
        if draining {
            self.progress.notify_waiters();
        }
        result
    }

    fn resolve(&self, replies: Vec<(u64, Outcome)>) {
        if replies.is_empty() {
            return;
        }
        let node = self.slot.node;
        let mut waiting = Vec::with_capacity(replies.len());
        {
            let mut state = self.state.lock();
            for (correlation, outcome) in replies {
                // absent: the asker gave up
                if let Some(sender) = state.pending.remove(&correlation) {
                    waiting.push((sender, outcome));
                }
            }
        }
        for (sender, outcome) in waiting {
            let _ = sender.send(match outcome {
                Outcome::Done(body) => Ok(body),
                Outcome::Refused(detail) => {
                    Err(Error::Refused { node, detail: String::from_utf8_lossy(&detail).into_owned() })
                }
                Outcome::Overloaded => Err(Error::Overloaded(node)),
            });
        }
    }

    /// Starts the handler of one request, or answers that there are too many.
    fn serve(self: &Arc<Self>, correlation: u64, class: Class, timeout_ms: u32, body: Bytes, draining: bool) {
        let running = if draining { None } else { self.slot.admit(class) };
        let Some(running) = running else {
            // no room even for the refusal: the asker's deadline tells
            let _ = self.state.lock().outbox.push_reply(class, correlation, Outcome::Overloaded);
            self.wake.notify_one();
            return;
        };
        let deadline = Instant::now() + Duration::from_millis(u64::from(timeout_ms)).min(TIMEOUT_MAX);
        tokio::spawn(self.clone().answer(correlation, class, deadline, body, running));
    }

    async fn answer(self: Arc<Self>, correlation: u64, class: Class, deadline: Instant, body: Bytes, running: Running) {
        let node = self.slot.node;
        let handled = AssertUnwindSafe(async { self.handler.handle(node, class, body).await }).catch_unwind().await;
        let outcome = match handled {
            Ok(Ok(body)) if body.len() <= FRAME_BYTES_MAX => Outcome::Done(body),
            Ok(Ok(body)) => {
                let detail = format!("the reply of {} bytes exceeds the limit of {FRAME_BYTES_MAX} bytes", body.len());
                Outcome::Refused(detail.into())
            }
            Ok(Err(detail)) => Outcome::Refused(clip(detail).into()),
            Err(_) => Outcome::Refused(Bytes::from_static(b"the handler panicked")),
        };
        // keeps its place among the handlers until the reply is queued: a peer that does not read
        // replies runs out of places, not this node out of memory
        let _ = timeout_at(deadline, self.reply(class, correlation, outcome)).await;
        drop(running);
        self.progress.notify_waiters();
    }

    async fn reply(&self, class: Class, correlation: u64, mut outcome: Outcome) {
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            {
                let mut state = self.state.lock();
                if state.closed {
                    return;
                }
                match state.outbox.push_reply(class, correlation, outcome) {
                    Ok(()) => break,
                    Err(back) => outcome = back,
                }
            }
            room.await;
        }
        self.wake.notify_one();
    }

    /// How long the peer has been silent.
    pub fn silence(&self) -> Duration {
        self.state.lock().last_heard.elapsed()
    }

    pub fn heartbeat(&self) {
        self.state.lock().outbox.heartbeat(false);
        self.wake.notify_one();
    }

    /// Takes no more requests, and resolves once every reply is out and acknowledged.
    pub async fn drained(&self) {
        {
            let mut state = self.state.lock();
            state.draining = true;
            state.outbox.heartbeat(true);
        }
        self.wake.notify_one();
        loop {
            let progress = self.progress.notified();
            tokio::pin!(progress);
            progress.as_mut().enable();
            {
                let mut state = self.state.lock();
                let idle = self.slot.idle();
                if state.closed || (idle && state.outbox.drained()) {
                    return;
                }
                if idle {
                    state.outbox.heartbeat(true);
                }
            }
            self.wake.notify_one();
            progress.await;
        }
    }

    /// Ends the link: whoever waits for a reply is told at once. The line is not touched.
    pub fn close(&self) {
        let pending = {
            let mut state = self.state.lock();
            state.closed = true;
            std::mem::take(&mut state.pending)
        };
        for sender in pending.into_values() {
            let _ = sender.send(Err(Error::Broken(self.slot.node)));
        }
        self.wake.notify_one();
        self.room.notify_waiters();
        self.progress.notify_waiters();
    }

    pub fn hang_up(&self) {
        self.line.hang_up();
    }
}

/// Forgets a request whose asker has its answer, or no longer wants one.
struct Forget<'a> {
    link: &'a Link,
    correlation: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.link.state.lock().pending.remove(&self.correlation);
    }
}

/// A handler's error, at most as long as a frame may be.
fn clip(mut detail: String) -> String {
    if detail.len() > FRAME_BYTES_MAX {
        let end = (0..=FRAME_BYTES_MAX).rev().find(|&at| detail.is_char_boundary(at)).unwrap_or(0);
        detail.truncate(end);
    }
    detail
}
