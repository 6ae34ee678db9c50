//! Node links under the fuzzer: see `crate::fuzzing`.
//!
//! | mode | the peer sends | what must hold |
//! |---|---|---|
//! | bytes | a batch of any bytes | it is malformed, or what was read from it is written as the same bytes |
//! | link | batches over an open link, right ones and others; requests go the other way meanwhile | what this side sends is well-formed, in order and in bounds; replies belong to requests; in the end every request has ended |
//! | handshake | any bytes, as dialler and as acceptor; any body behind a right proof | no panic, and a hello is what was sent |

use super::{
    BATCH_BYTES_MAX, Class, Counterpart, Error, FRAME_BYTES_MAX, Handler, Options, Peer, Transport,
    frame::{self, Frame, Frames, HEADER_BYTES, Header, Malformed, Outcome},
    links::Links,
    ractor_wire,
    wire::{Line, LinkId},
};
use crate::{catalog::NodeId, fuzzing::Input};
use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{runtime::Builder, task::JoinHandle};

const ME: NodeId = NodeId(2);
/// The smaller id: it dials, so this side needs no wire.
const PEER: NodeId = NodeId(1);
const LINK: LinkId = LinkId(0x11);
const STEPS_MAX: usize = 64;
/// No clock ends anything here.
const PATIENCE: Duration = Duration::from_secs(600);

pub fn links(data: &[u8]) {
    let mut input = Input::new(data);
    match input.below(8) {
        0 | 1 => bytes(input.rest()),
        2 => run(ractor_wire::fuzzing::handshake(input)),
        _ => run(link(input)),
    }
}

/// The first bytes to try.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut batch = Vec::new();
    Header { flags: frame::ACK_WANTED, link: LINK.0, position: 0, ack: 0 }.put(&mut batch);
    frame::put_request(&mut batch, 1, Class::Command, 1000, b"a command");
    frame::put_request(&mut batch, 2, Class::Raft, 1000, b"an append");
    for outcome in [Outcome::Done("done".into()), Outcome::Refused("no".into()), Outcome::Overloaded] {
        frame::put_reply(&mut batch, 3, &outcome);
    }
    let mut seeds = vec![[&[0][..], &batch].concat()];
    seeds.extend(ractor_wire::fuzzing::seeds().into_iter().map(|seed| [&[2][..], &seed].concat()));
    // To be asked, to ask, to listen, to answer, to say anything.
    let script: [&[u8]; 7] = [
        &[3, 0, 0, 1, 2, 9, 9],
        &[0, 254, 1],
        &[7],
        &[2, 1, 0, 2, 5, 1, 3, b'a', b's', b'k', 0, 6, 0, 1, b'x', 0],
        &[5, 1, 0, 1, 0, 2, b'o', b'k', 2],
        &[6, 1, 1, 1, 0, 0, 4, 1, 2, 3, 4],
        &[7],
    ];
    seeds.extend((2..=script.len()).map(|length| script[..length].concat()));
    seeds
}

fn run(what: impl Future<Output = ()>) {
    let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime without threads");
    runtime.block_on(what);
}

fn bytes(batch: &[u8]) {
    let mut rest = Bytes::copy_from_slice(batch);
    let Ok(header) = Header::take(&mut rest) else { return };
    let Ok(frames) = Frames(rest).collect::<Result<Vec<_>, _>>() else { return };
    let mut again = Vec::new();
    header.put(&mut again);
    frames.iter().for_each(|frame| put(&mut again, frame));
    assert_eq!(again, batch, "{header:?} {frames:?}");
}

fn put(batch: &mut Vec<u8>, frame: &Frame) {
    match frame {
        Frame::Request { correlation, class, timeout_ms, body } => {
            frame::put_request(batch, *correlation, *class, *timeout_ms, body);
        }
        Frame::Reply { correlation, outcome } => frame::put_reply(batch, *correlation, outcome),
    }
}

async fn link(mut input: Input<'_>) {
    let mut peer = PeerSide::connect();
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        match input.below(8) {
            0 | 1 => peer.be_asked(&mut input),
            2..=4 => peer.say(&mut input),
            5 => peer.answer(&mut input),
            6 => peer.say_anything(&mut input),
            _ => peer.listen().await,
        }
    }
    peer.listen().await;
    peer.part().await;
}

/// The other end of a link, and what it knows of this one.
struct PeerSide {
    links: Arc<Links>,
    line: Arc<Heard>,
    /// Bytes of the batches that came, and that were sent.
    came: u64,
    sent: u64,
    /// Where the last one ended, by what the batches say themselves.
    claimed: u64,
    /// What was asked under each correlation id, and how often it was answered.
    asked: BTreeMap<u64, Vec<Bytes>>,
    replies: BTreeMap<u64, usize>,
    /// Requests of this node that the peer has not answered.
    unanswered: Vec<u64>,
    /// Bodies that the peer has answered with.
    answered: Vec<Bytes>,
    requests: Vec<JoinHandle<Result<Bytes, Error>>>,
}

impl PeerSide {
    fn connect() -> Self {
        let options = Options { command_handlers_max: 4, raft_handlers_max: 4, ..Options::default() };
        let links = Links::new("me".into(), 7, options, Arc::new(Echo), crate::impairment::Impairments::none());
        links.set_peers(ME, vec![Peer { node: PEER, name: "peer".into(), address: "peer:1".into() }]);
        let line = Arc::new(Heard::default());
        assert!(links.link_up(LINK, PEER, 8, line.clone()), "the peer is known");
        Self {
            links,
            line,
            came: 0,
            sent: 0,
            claimed: 0,
            asked: BTreeMap::new(),
            replies: BTreeMap::new(),
            unanswered: Vec::new(),
            answered: Vec::new(),
            requests: Vec::new(),
        }
    }

    /// This node asks the peer something.
    fn be_asked(&mut self, input: &mut Input<'_>) {
        let body = match input.byte() {
            255 => Bytes::from(vec![1; FRAME_BYTES_MAX + usize::from(input.is_odd())]),
            254 => Bytes::from(vec![2; BATCH_BYTES_MAX]),
            _ => Bytes::copy_from_slice(input.piece()),
        };
        let request = self.links.request(PEER, any_class(input), body, PATIENCE);
        self.requests.push(tokio::spawn(request));
    }

    /// A batch as it should be, but for what the input wants otherwise.
    fn say(&mut self, input: &mut Input<'_>) {
        let mut batch = Vec::new();
        self.right_header(input).put(&mut batch);
        for _ in 0..input.below(4) {
            let (correlation, class, body) = (input.number(), any_class(input), Bytes::copy_from_slice(input.piece()));
            let timeout_ms = if input.below(8) > 0 { 600_000 } else { input.number() as u32 };
            frame::put_request(&mut batch, correlation, class, timeout_ms, &body);
        }
        self.deliver(batch);
    }

    fn answer(&mut self, input: &mut Input<'_>) {
        let mut batch = Vec::new();
        self.right_header(input).put(&mut batch);
        for _ in 0..input.below(4) {
            let correlation = match self.unanswered.len() {
                0 => input.number(),
                some => self.unanswered.swap_remove(usize::from(input.byte()) % some),
            };
            let body = Bytes::copy_from_slice(input.piece());
            let outcome = match input.below(4) {
                0 => Outcome::Overloaded,
                1 => Outcome::Refused(body),
                _ => {
                    self.answered.push(body.clone());
                    Outcome::Done(body)
                }
            };
            frame::put_reply(&mut batch, correlation, &outcome);
        }
        self.deliver(batch);
    }

    fn say_anything(&mut self, input: &mut Input<'_>) {
        let mut batch = Vec::new();
        if input.is_odd() {
            let link = if input.is_odd() { LINK.0 } else { input.number() };
            let header = Header { flags: input.byte(), link, position: input.number(), ack: input.number() };
            header.put(&mut batch);
        }
        batch.extend_from_slice(input.piece());
        self.deliver(batch);
    }

    fn right_header(&mut self, input: &mut Input<'_>) -> Header {
        let ack = if input.below(4) > 0 { self.came } else { u64::from(input.byte()) % (self.came + 1) };
        Header { flags: input.below(2), link: LINK.0, position: self.sent, ack }
    }

    fn deliver(&mut self, batch: Vec<u8>) {
        self.sent += batch.len() as u64;
        let batch = Bytes::from(batch);
        let (length, mut rest) = (batch.len() as u64, batch.clone());
        if let Ok(header) = Header::take(&mut rest) {
            self.claimed = self.claimed.max(header.position.saturating_add(length));
            for (correlation, body) in requests_in(rest) {
                self.asked.entry(correlation).or_default().push(body);
            }
        }
        self.links.received(batch);
    }

    /// Lets this node go on, and takes in what it sends.
    async fn listen(&mut self) {
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
        let batches = std::mem::take(&mut *self.line.batches.lock());
        for batch in batches {
            let (length, mut rest) = (batch.len(), Bytes::from(batch));
            let header = Header::take(&mut rest).expect("what is sent has a header");
            assert_eq!((header.link, header.position), (LINK.0, self.came), "what is sent comes in order");
            assert!(header.ack <= self.claimed, "acknowledges {} of {} bytes", header.ack, self.claimed);
            self.came += length as u64;
            let frames: Result<Vec<_>, Malformed> = Frames(rest).collect();
            let frames = frames.expect("what is sent is well-formed");
            assert!(length <= BATCH_BYTES_MAX || frames.len() == 1, "{} frames in {length} bytes", frames.len());
            frames.into_iter().for_each(|frame| self.hear(frame));
        }
    }

    fn hear(&mut self, frame: Frame) {
        match frame {
            Frame::Request { correlation, .. } => self.unanswered.push(correlation),
            Frame::Reply { correlation, outcome } => {
                let asked = self.asked.get(&correlation).expect("an answer to what was asked");
                let replies = self.replies.entry(correlation).or_default();
                *replies += 1;
                assert!(*replies <= asked.len(), "{replies} replies to {} requests", asked.len());
                if let Outcome::Done(body) = outcome {
                    assert!(asked.contains(&body), "the answer to another request");
                }
            }
        }
    }

    /// Whoever still waits is told when the link goes.
    async fn part(self) {
        self.links.link_down(LINK, "the input ends");
        for request in self.requests {
            let waiting = tokio::time::timeout(PATIENCE, request);
            match waiting.await.expect("a request ends with its link").expect("requests do not panic") {
                Ok(body) => assert!(self.answered.contains(&body), "an answer that the peer did not give"),
                Err(Error::TimedOut(_)) => panic!("a request whose link is gone goes on waiting"),
                Err(_) => {}
            }
        }
        assert!(!self.links.links().borrow()[&PEER].up);
        assert!(self.came == 0 || self.came >= HEADER_BYTES as u64);
        assert!(self.line.is_hung_up.load(Ordering::Relaxed) || self.line.batches.lock().is_empty());
    }
}

fn requests_in(frames: Bytes) -> Vec<(u64, Bytes)> {
    let requests = Frames(frames).filter_map(Result::ok).filter_map(|frame| match frame {
        Frame::Request { correlation, body, .. } => Some((correlation, body)),
        Frame::Reply { .. } => None,
    });
    requests.collect()
}

fn any_class(input: &mut Input<'_>) -> Class {
    if input.is_odd() { Class::Raft } else { Class::Command }
}

/// Answers with what it was asked; refuses the empty request.
struct Echo;

impl Handler for Echo {
    fn handle(&self, _: NodeId, _: Class, request: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        Box::pin(async move { if request.is_empty() { Err("nothing was asked".into()) } else { Ok(request) } })
    }

    fn introduce(&self, _: Counterpart, request: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        Box::pin(async move { Ok(request) })
    }
}

/// Keeps what this node sends.
#[derive(Default)]
struct Heard {
    batches: Mutex<Vec<Vec<u8>>>,
    is_hung_up: AtomicBool,
}

impl Line for Heard {
    fn send(&self, batch: Vec<u8>) -> bool {
        let is_open = !self.is_hung_up.load(Ordering::Relaxed);
        if is_open {
            self.batches.lock().push(batch);
        }
        is_open
    }

    fn hang_up(&self) {
        self.is_hung_up.store(true, Ordering::Relaxed);
    }
}
