//! What waits to be sent to one peer, and the credit it may use. Pure: no clock, no I/O.
//!
//! ```text
//! request ─▶ lane raft ────┐                       position, ack
//! reply   ─▶ lane commands ┴▶ next_batch ≤ 64 KiB ───────────────▶ line
//!             (bounded)         while sent − acked < pipe
//! ```
//!
//! Invariants: queued requests + unacknowledged bytes ≤ window (a lone request may exceed it);
//! queued replies ≤ window per lane; Raft goes first, but commands get every fifth batch.

use super::{
    BATCH_BYTES_MAX, Class, Options,
    frame::{self, Header, Malformed, Outcome},
};
use bytes::Bytes;
use std::collections::VecDeque;
use tokio::time::Instant;

/// Consumed bytes after which an acknowledgement is sent even if there is nothing else to say.
const ACK_EVERY_BYTES: u64 = BATCH_BYTES_MAX as u64;
/// Batches of Raft alone after which waiting commands go first once.
const RAFT_STREAK_MAX: u32 = 4;

/// The window or the queue is used up.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

#[derive(Debug, Default)]
struct Lane {
    items: VecDeque<Item>,
    requests: usize,
    request_bytes: u64,
    reply_bytes: u64,
}

#[derive(Debug)]
enum Item {
    Request { correlation: u64, deadline: Instant, body: Bytes },
    Reply { correlation: u64, outcome: Outcome },
}

#[derive(Debug)]
pub(super) struct Outbox {
    link: u64,
    window: u64,
    pipe: u64,
    queue_frames_max: usize,
    raft: Lane,
    commands: Lane,
    raft_streak: u32,
    /// Bytes handed to the line, and how many of them the peer has consumed.
    sent: u64,
    acked: u64,
    /// Position up to which we consumed the peer's bytes, and what of it the peer was told.
    consumed: u64,
    told: u64,
    /// Send a batch even without frames; ask for one in return.
    speak: bool,
    ask: bool,
}

impl Outbox {
    pub fn new(link: u64, options: &Options) -> Self {
        Self {
            link,
            window: options.window.as_u64(),
            pipe: options.pipe.as_u64(),
            queue_frames_max: options.queue_frames_max,
            raft: Lane::default(),
            commands: Lane::default(),
            raft_streak: 0,
            sent: 0,
            acked: 0,
            consumed: 0,
            told: 0,
            speak: false,
            ask: false,
        }
    }

    /// Queues a request. Past the window, or three quarters of it for commands, it is refused.
    pub fn push_request(&mut self, class: Class, correlation: u64, deadline: Instant, body: Bytes) -> Result<(), Full> {
        let bytes = frame::request_len(body.len()) as u64;
        let limit = match class {
            Class::Raft => self.window,
            Class::Command => self.window / 4 * 3,
        };
        let outstanding = self.raft.request_bytes + self.commands.request_bytes + self.in_transit();
        // what is left of a heartbeat's bytes must not keep out the largest frame
        let idle = outstanding < BATCH_BYTES_MAX as u64;
        let queue_frames_max = self.queue_frames_max;
        let lane = self.lane(class);
        if (outstanding + bytes > limit && !idle) || lane.requests >= queue_frames_max {
            return Err(Full);
        }
        lane.requests += 1;
        lane.request_bytes += bytes;
        lane.items.push_back(Item::Request { correlation, deadline, body });
        Ok(())
    }

    /// Queues a reply, or gives it back if there is no room for it now.
    pub fn push_reply(&mut self, class: Class, correlation: u64, outcome: Outcome) -> Result<(), Outcome> {
        let bytes = frame::reply_len(&outcome) as u64;
        let window = self.window;
        let lane = self.lane(class);
        if lane.reply_bytes > 0 && lane.reply_bytes + bytes > window {
            return Err(outcome);
        }
        lane.reply_bytes += bytes;
        lane.items.push_back(Item::Reply { correlation, outcome });
        Ok(())
    }

    /// The next batch to send, if there is one and the pipe has room. Requests whose deadline
    /// has passed are left out.
    pub fn next_batch(&mut self, now: Instant) -> Option<Vec<u8>> {
        let blocked = self.in_transit() >= self.pipe;
        let idle = self.raft.items.is_empty() && self.commands.items.is_empty();
        let speak = self.speak || self.ask || self.ack_due();
        if (blocked || idle) && !speak {
            return None;
        }
        let queued = if blocked { 0 } else { self.raft.bytes() + self.commands.bytes() };
        let mut batch = Vec::with_capacity(frame::HEADER_BYTES + queued.min(BATCH_BYTES_MAX as u64) as usize);
        self.header().put(&mut batch);
        if !blocked {
            self.pack(&mut batch, now);
        }
        if batch.len() == frame::HEADER_BYTES && !speak {
            return None;
        }
        self.speak = false;
        self.ask = false;
        self.told = self.consumed;
        self.sent += batch.len() as u64;
        Some(batch)
    }

    /// Says something soon, even if it is nothing; with `ask`, so that the peer answers.
    pub fn heartbeat(&mut self, ask: bool) {
        self.speak = true;
        self.ask |= ask;
    }

    /// The peer has consumed everything before `position`. True if that may unblock the sender.
    pub fn acknowledged(&mut self, position: u64) -> Result<bool, Malformed> {
        if position > self.sent {
            return Err(Malformed("acknowledges what was never sent"));
        }
        let was_blocked = self.in_transit() >= self.pipe;
        self.acked = self.acked.max(position);
        Ok(was_blocked && self.in_transit() < self.pipe)
    }

    /// A batch of `len` bytes at `position` was consumed. True if the sender should wake up to
    /// say so. An error if the batch is older than what was consumed.
    pub fn consume(&mut self, header: &Header, len: u64) -> Result<bool, Malformed> {
        if header.position < self.consumed {
            return Err(Malformed("comes out of order"));
        }
        let Some(end) = header.position.checked_add(len) else {
            return Err(Malformed("position out of range"));
        };
        self.consumed = end;
        if header.flags & frame::ACK_WANTED != 0 {
            self.speak = true;
        }
        Ok(self.speak || self.ack_due())
    }

    /// Everything was sent and acknowledged.
    pub fn drained(&self) -> bool {
        self.raft.items.is_empty() && self.commands.items.is_empty() && self.in_transit() == 0
    }

    fn in_transit(&self) -> u64 {
        self.sent - self.acked
    }

    fn ack_due(&self) -> bool {
        self.consumed - self.told >= ACK_EVERY_BYTES
    }

    fn lane(&mut self, class: Class) -> &mut Lane {
        match class {
            Class::Raft => &mut self.raft,
            Class::Command => &mut self.commands,
        }
    }

    fn header(&self) -> Header {
        let flags = if self.ask { frame::ACK_WANTED } else { 0 };
        Header { flags, link: self.link, position: self.sent, ack: self.consumed }
    }

    fn pack(&mut self, batch: &mut Vec<u8>, now: Instant) {
        let commands_first = self.raft_streak >= RAFT_STREAK_MAX && !self.commands.items.is_empty();
        if commands_first {
            self.commands.pack(Class::Command, batch, now);
            self.raft.pack(Class::Raft, batch, now);
            self.raft_streak = 0;
            return;
        }
        self.raft.pack(Class::Raft, batch, now);
        self.raft_streak = if batch.len() > frame::HEADER_BYTES { self.raft_streak + 1 } else { 0 };
        let before = batch.len();
        self.commands.pack(Class::Command, batch, now);
        if batch.len() > before || self.commands.items.is_empty() {
            self.raft_streak = 0;
        }
    }
}

impl Lane {
    fn bytes(&self) -> u64 {
        self.request_bytes + self.reply_bytes
    }

    /// Moves frames into `batch` until it is full or the lane is empty.
    fn pack(&mut self, class: Class, batch: &mut Vec<u8>, now: Instant) {
        while let Some(item) = self.items.front() {
            let expired = matches!(item, Item::Request { deadline, .. } if *deadline <= now);
            let fits = batch.len() + item.len() <= BATCH_BYTES_MAX || batch.len() == frame::HEADER_BYTES;
            if !expired && !fits {
                return;
            }
            let Some(item) = self.items.pop_front() else { return };
            self.forget(&item);
            match item {
                Item::Request { .. } if expired => {}
                Item::Request { correlation, deadline, body } => {
                    let left = u32::try_from((deadline - now).as_millis()).unwrap_or(u32::MAX);
                    frame::put_request(batch, correlation, class, left.max(1), &body);
                }
                Item::Reply { correlation, outcome } => frame::put_reply(batch, correlation, &outcome),
            }
        }
    }

    fn forget(&mut self, item: &Item) {
        let bytes = item.len() as u64;
        match item {
            Item::Request { .. } => {
                self.requests -= 1;
                self.request_bytes -= bytes;
            }
            Item::Reply { .. } => self.reply_bytes -= bytes,
        }
    }
}

impl Item {
    /// Bytes in a batch.
    fn len(&self) -> usize {
        match self {
            Self::Request { body, .. } => frame::request_len(body.len()),
            Self::Reply { outcome, .. } => frame::reply_len(outcome),
        }
    }
}

#[cfg(test)]
#[path = "tests/outbox.rs"]
mod tests;
