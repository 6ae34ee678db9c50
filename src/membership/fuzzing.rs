//! Gossip under the fuzzer: see `crate::fuzzing`.
//!
//! | mode | what comes in | what must hold |
//! |---|---|---|
//! | stranger | any bytes | they are not opened, and what is sealed right is opened afterwards |
//! | window | packets of one sender, in any order, doubled and tampered with | each is opened once, if it is not too old to tell |
//! | talk | right seals around anything, well-formed SWIM messages about anyone, and time | what is sent can be sealed and read; bounds hold; nothing that came is a fault of our timers; the same again does the same |

use super::{
    Engine, Load, LocalRecord, Options, Packet, Record, View,
    datagram::PLAINTEXT_BYTES_MAX,
    identity::{ANYONE, Identity},
    record::RECORDS_MAX,
    seal::{Rejected, Seal},
    wire::Message,
};
use crate::{
    catalog::{ClusterId, NodeId},
    fuzzing::Input,
};
use foca::{Codec, Header, Member, Message as Swim, PostcardCodec, State};
use std::{collections::BTreeSet, time::Duration};

const CLUSTER: ClusterId = ClusterId(7);
const ME: NodeId = NodeId(0);
const GENERATION: u64 = 1000;
const STEPS_MAX: usize = 64;
/// Counters that a receiver can tell apart.
const WINDOW: usize = 64;

pub fn gossip(data: &[u8]) {
    let mut input = Input::new(data);
    match input.below(8) {
        0 => stranger(input.rest()),
        1 => window(&mut input),
        _ => {
            let again = talk(input.clone());
            assert_eq!(talk(input), again);
        }
    }
}

/// The first bytes to try.
pub fn seeds() -> Vec<Vec<u8>> {
    let sealed = Seal::new(b"another secret", CLUSTER).expect("a secret").seal(b"a packet").expect("it is short");
    let mut seeds = vec![[&[0][..], &sealed].concat(), [[1, 5, 0], [1, 9, 3], [5, 0, 200], [1, 2, 7]].concat()];
    let record = record_of(NodeId(1), 1, 1).encode().expect("it is short");
    let raw = |bytes: Vec<u8>| [&[2, 2, bytes.len() as u8][..], &bytes].concat();
    seeds.push(raw(Message::Record(&record).encode()));
    seeds.push(raw(Message::Ask { reply_to: "node-1:7100" }.encode()));
    // What an engine sends by itself: announcements, probes, gossip.
    let mut engine = engine();
    engine.remember(vec!["node-1:7100".into()]);
    engine.advance(Duration::from_secs(1));
    seeds.extend(engine.take_packets().into_iter().take(3).map(|packet| raw(packet.bytes)));
    // One by one: who it is from and to, what it is, whom it tells of, and time that passes.
    for kind in 0..11 {
        let said = [5, 1, 1, 0, 1, 0, kind, 2, 1, 1, 1, 0, 0, 2, 1, 2, 1, 1, 4, 1];
        seeds.push([&[2][..], &said, &[0, 200], &said, &[0, 250, 0, 0]].concat());
    }
    seeds
}

fn sealer() -> Seal {
    Seal::new(b"secret", CLUSTER).expect("a secret")
}

fn stranger(bytes: &[u8]) {
    let (mut node, mut friend) = (sealer(), sealer());
    assert!(node.open(&mut bytes.to_vec()).is_err(), "nobody guesses a seal");
    let mut packet = friend.seal(b"hello").expect("it is short");
    assert_eq!(node.open(&mut packet), Ok(&b"hello"[..]));
}

fn window(input: &mut Input<'_>) {
    let (mut node, mut sender) = (sealer(), sealer());
    let packets: Vec<Vec<u8>> = (0..=u8::MAX).map(|n| sender.seal(&[n]).expect("it is short")).collect();
    let mut opened = BTreeSet::new();
    while !input.is_empty() {
        let (number, at) = (usize::from(input.byte()), usize::from(input.byte()));
        let mut packet = packets[number].clone();
        if input.below(4) == 3 {
            let at = at % packet.len();
            packet[at] ^= 1 << input.below(8);
            assert!(node.open(&mut packet).is_err(), "byte {at} of packet {number} was changed");
            continue;
        }
        let is_too_old = opened.last().is_some_and(|newest| newest + 1 > number + WINDOW);
        let expected =
            if opened.contains(&number) || is_too_old { Err(Rejected::Replayed) } else { Ok(vec![number as u8]) };
        assert_eq!(node.open(&mut packet).map(|plain| plain.to_vec()), expected, "packet {number} after {opened:?}");
        if expected.is_ok() {
            opened.insert(number);
        }
    }
}

fn engine() -> Engine {
    let me = LocalRecord {
        node: ME,
        name: "node-0".into(),
        address: "node-0:7100".into(),
        http: "node-0:8080".into(),
        boot_id: 1,
    };
    Engine::new(&Options::default(), me, vec!["seed:7100".into()], GENERATION, 7).expect("right options")
}

/// What came of it.
type Told = (Vec<Packet>, View, u64);

fn talk(mut input: Input<'_>) -> Told {
    let mut talk = Talk { engine: engine(), node: sealer(), others: sealer(), now: Duration::ZERO, sent: Vec::new() };
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        match input.below(16) {
            0 | 1 => talk.pass(input.number()),
            2 => talk.hear(input.piece()),
            3 => talk.hear(&Message::Ask { reply_to: &String::from_utf8_lossy(input.piece()) }.encode()),
            4 => talk.hear(&Message::Record(&any_record(&mut input)).encode()),
            15 => talk.ask_for(&mut input),
            _ => {
                let content = any_swim(&mut input, talk.engine.generation());
                talk.hear(&Message::Swim(&content).encode());
            }
        }
        talk.look();
    }
    (talk.sent, talk.engine.view().clone(), talk.engine.generation())
}

struct Talk {
    engine: Engine,
    node: Seal,
    others: Seal,
    now: Duration,
    sent: Vec<Packet>,
}

impl Talk {
    fn pass(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms % 30_000);
        self.engine.advance(self.now);
    }

    fn hear(&mut self, plain: &[u8]) {
        let Some(mut packet) = self.others.seal(plain) else {
            assert!(plain.len() > PLAINTEXT_BYTES_MAX);
            return;
        };
        let opened = self.node.open(&mut packet).expect("sealed right, and new");
        assert_eq!(opened, plain);
        // What is refused is counted; that it did no harm, `look` sees.
        let _ = self.engine.receive(self.now, opened);
    }

    /// What the owner of the engine may ask for.
    fn ask_for(&mut self, input: &mut Input<'_>) {
        match input.below(8) {
            0 => self.engine.leave(self.now),
            1 => self.engine.repeat_farewell(self.now),
            2 | 3 => self.engine.remember(vec![String::from_utf8_lossy(input.piece()).into_owned()]),
            _ => self.engine.set_load(Load { shards_owned: input.number() as u32, ..Load::default() }),
        }
    }

    fn look(&mut self) {
        for packet in self.engine.take_packets() {
            assert!(packet.bytes.len() <= PLAINTEXT_BYTES_MAX, "{packet:?}");
            assert!(Message::decode(&packet.bytes).is_some(), "{packet:?}");
            self.sent.push(packet);
        }
        let view = self.engine.view();
        assert!(!view.contains_key(&ME) && view.len() <= RECORDS_MAX);
        assert!(view.iter().all(|(node, member)| *node == member.record.node));
        assert!(self.engine.generation() >= GENERATION);
        assert_eq!(self.engine.counts().faults, 0);
        assert!(self.engine.next_deadline().is_some());
    }
}

fn any_node(input: &mut Input<'_>) -> NodeId {
    match input.below(8) {
        7 => ANYONE,
        few => NodeId(u64::from(few % 5)),
    }
}

fn any_identity(input: &mut Input<'_>) -> Identity {
    let node = any_node(input);
    Identity { node, generation: any_generation(input), address: format!("node-{node}:7100").as_str().into() }
}

/// About that of this node, or any.
fn any_generation(input: &mut Input<'_>) -> u64 {
    if input.below(4) > 0 { GENERATION + u64::from(input.below(4)) } else { input.number() }
}

fn any_swim(input: &mut Input<'_>, generation: u64) -> Vec<u8> {
    let src = any_identity(input);
    let me = Identity { node: ME, generation, address: "node-0:7100".into() };
    let dst = if input.below(4) > 0 { me } else { any_identity(input) };
    let (incarnation, probe_number) = (input.number() as u16, input.below(4));
    let message = match input.below(11) {
        0 => Swim::Ping(probe_number),
        1 => Swim::Ack(probe_number),
        2 => Swim::PingReq { target: any_identity(input), probe_number },
        3 => Swim::IndirectPing { origin: any_identity(input), probe_number },
        4 => Swim::IndirectAck { target: any_identity(input), probe_number },
        5 => Swim::ForwardedAck { origin: any_identity(input), probe_number },
        6 => Swim::Announce,
        7 => Swim::Feed,
        8 => Swim::Gossip,
        9 => Swim::Broadcast,
        _ => Swim::TurnUndead,
    };
    let mut bytes = Vec::new();
    let has_members = !matches!(message, Swim::Announce | Swim::TurnUndead | Swim::Broadcast);
    let header = Header { src, src_incarnation: incarnation, dst, message };
    PostcardCodec.encode_header(&header, &mut bytes).expect("in memory");
    if has_members {
        let count = input.below(4);
        bytes.extend_from_slice(&u16::from(count).to_be_bytes());
        for _ in 0..count {
            let state = [State::Alive, State::Suspect, State::Down][usize::from(input.below(3))];
            let member = Member::new(any_identity(input), input.number() as u16, state);
            PostcardCodec.encode_member(&member, &mut bytes).expect("in memory");
        }
    }
    for _ in 0..input.below(3) {
        let record = any_record(input);
        bytes.extend_from_slice(&(record.len() as u16).to_be_bytes());
        bytes.extend_from_slice(&record);
    }
    if input.below(8) == 7 {
        bytes.extend_from_slice(input.piece());
    }
    bytes
}

fn any_record(input: &mut Input<'_>) -> Vec<u8> {
    if input.below(8) == 7 {
        return input.piece().to_vec();
    }
    let record = record_of(any_node(input), any_generation(input), input.number());
    record.encode().expect("in memory")
}

fn record_of(node: NodeId, generation: u64, sequence: u64) -> Record {
    let local = LocalRecord {
        node,
        name: format!("node-{node}"),
        address: format!("node-{node}:7100"),
        http: format!("node-{node}:8080"),
        boot_id: generation,
    };
    Record { sequence, ..Record::new(local, generation).expect("it is short") }
}
