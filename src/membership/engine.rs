//! The protocol without clock, socket and randomness: packets and the time in, packets out.
//!
//! All times are durations since the engine was made, on a clock that never goes back. After
//! every call: [`Engine::take_packets`], [`Engine::take_view`], [`Engine::next_deadline`].

mod settle;

use super::{
    Load, LocalRecord, Options, View,
    announce::Announcer,
    handle::Error,
    identity::{ADDRESS_BYTES_MAX, ANYONE, Identity},
    record::{RECORDS_MAX, Record},
    shelf::Shelf,
    timers::{Due, Timers},
    wire::Message,
};
use crate::catalog::NodeId;
use foca::{AccumulatingRuntime, Codec, Foca, Header, PostcardCodec};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{collections::BTreeSet, mem, sync::Arc, time::Duration};

/// How often missing records are asked for.
const HOUSEKEEPING_PERIOD: Duration = Duration::from_secs(1);
/// How often one's own record is sent round again unchanged, for those who missed it.
const REFRESH_PERIOD: Duration = Duration::from_secs(30);
/// The most nodes, dead ones included, that this node knows; what further ones send is refused.
const MEMBERS_MAX: usize = RECORDS_MAX;
/// The most records asked for at a time.
const ASKS_MAX: usize = 64;

/// A packet to send, not sealed yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// `host:port`.
    pub to: Arc<str>,
    /// Send it to every address the name has: an announcement to a seed.
    pub to_all: bool,
    pub bytes: Vec<u8>,
}

/// Why a packet changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("undecodable: {0}")]
pub struct Refused(pub String);

/// What has happened so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// `TurnUndead` packets to active members that were not sent.
    pub undead_withheld: u64,
    /// Times that the process was found to have stood still.
    pub stalls: u64,
    /// Times that this node came back after it had been declared down.
    pub rejoins: u64,
    /// Errors that foca reported about its timers. A defect, were it ever above zero.
    pub faults: u64,
}

/// One node's part in the gossip.
pub struct Engine {
    foca: Foca<Identity, PostcardCodec, StdRng, Shelf>,
    runtime: AccumulatingRuntime<Identity>,
    shelf: Shelf,
    own: Record,
    load: Load,
    published_at: Duration,
    load_period: Duration,
    announcer: Announcer,
    announce_number: u64,
    timers: Timers,
    jitter: StdRng,
    /// Emptied by the caller after every call; each call adds a few per member at most.
    packets: Vec<Packet>,
    view: View,
    view_changed: bool,
    counts: Counts,
    #[cfg(test)]
    pub(super) withhold_undead: bool,
}

impl Engine {
    /// `generation` must rise with every start of the node: its wall clock in milliseconds.
    /// `random_seed` decides everything that is left to chance.
    pub fn new(
        options: &Options,
        me: LocalRecord,
        seeds: Vec<String>,
        generation: u64,
        random_seed: u64,
    ) -> Result<Self, Error> {
        options.validate()?;
        if me.node == ANYONE {
            return Err(Error::Options(format!("node id {ANYONE} is reserved")));
        }
        if me.address.len() > ADDRESS_BYTES_MAX {
            let (bytes, max) = (me.address.len(), ADDRESS_BYTES_MAX);
            return Err(Error::Options(format!("the node's address is {bytes} bytes long; at most {max}")));
        }
        let identity = Identity { node: me.node, generation, address: me.address.as_str().into() };
        let own = Record::new(me, generation)?;
        let shelf = Shelf::new(identity.node);
        let mut random = StdRng::seed_from_u64(random_seed);
        let jitter = StdRng::seed_from_u64(random.random());
        let announcer = Announcer::new(identity.address.clone(), seeds, options.announce_period);
        let foca = Foca::with_custom_broadcast(identity, options.foca(), random, PostcardCodec, shelf.clone());
        let mut engine = Self {
            foca,
            runtime: AccumulatingRuntime::new(),
            shelf,
            own,
            load: Load::default(),
            published_at: Duration::ZERO,
            load_period: options.load_period,
            announcer,
            announce_number: 0,
            timers: Timers::new(options.probe_period),
            jitter,
            packets: Vec::new(),
            view: View::new(),
            view_changed: false,
            counts: Counts::default(),
            #[cfg(test)]
            withhold_undead: true,
        };
        engine.publish(Duration::ZERO);
        engine.timers.schedule(Duration::ZERO, Duration::ZERO, Due::Announce(0));
        engine.timers.schedule(Duration::ZERO, HOUSEKEEPING_PERIOD, Due::Housekeeping);
        Ok(engine)
    }

    /// Takes in an opened packet. An error is for counting: what was told before the place that cannot be
    /// read may have been taken in, as gossip is by its sender's word anyway.
    pub fn receive(&mut self, now: Duration, packet: &[u8]) -> Result<(), Refused> {
        self.timers.wake(now);
        let message = Message::decode(packet).ok_or_else(|| Refused("unknown kind".into()))?;
        let result = match message {
            Message::Swim(content) => self.receive_swim(content),
            Message::Ask { reply_to } => self.send_record(reply_to),
            Message::Record(content) => self.receive_record(content),
        };
        self.settle(now);
        result
    }

    /// Does what is due. Give it the packets that have arrived first.
    pub fn advance(&mut self, now: Duration) {
        self.timers.wake(now);
        while let Some(due) = self.timers.pop(now) {
            match due {
                Due::Swim(timer) => {
                    let result = self.foca.handle_timer(timer, &mut self.runtime);
                    self.note(result);
                }
                Due::Announce(number) if number == self.announce_number => self.announce(now),
                Due::Announce(_) => {}
                Due::Housekeeping => self.keep_house(now),
            }
            self.settle(now);
        }
    }

    /// When [`Engine::advance`] has something to do next.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.timers.next()
    }

    /// What is to be sent since the last call.
    pub fn take_packets(&mut self) -> Vec<Packet> {
        mem::take(&mut self.packets)
    }

    /// The view, if it has changed since the last call.
    pub fn take_view(&mut self) -> Option<View> {
        mem::take(&mut self.view_changed).then(|| self.view.clone())
    }

    pub fn view(&self) -> &View {
        &self.view
    }

    /// The name of the node that a packet comes from, if both are known.
    pub fn sender(&self, packet: &[u8]) -> Option<String> {
        let node = match Message::decode(packet)? {
            Message::Swim(mut content) => {
                let header: Header<Identity> = PostcardCodec.decode_header(&mut content).ok()?;
                header.src.node
            }
            Message::Ask { reply_to } => return self.name_at(reply_to),
            Message::Record(content) => Record::decode(content)?.node,
        };
        self.view.get(&node).map(|member| member.record.name.clone())
    }

    /// The name of the node at an address, if it is known.
    pub fn name_at(&self, address: &str) -> Option<String> {
        let at = self.view.values().find(|member| member.record.address == address);
        at.map(|member| member.record.name.clone())
    }

    /// Sets the load figures; they are sent round at the next `load_period`.
    pub fn set_load(&mut self, load: Load) {
        self.load = load;
    }

    /// Adds addresses to call when they are not members. At most 256; the oldest give way.
    pub fn remember(&mut self, addresses: Vec<String>) {
        self.announcer.remember(addresses);
    }

    /// Tells a few members that this node goes. Afterwards only [`Engine::repeat_farewell`] makes sense.
    pub fn leave(&mut self, now: Duration) {
        let result = self.foca.leave_cluster(&mut self.runtime);
        self.note(result);
        // No more calls: an announcement would ask to be let in again.
        self.announce_number += 1;
        self.settle(now);
    }

    /// Says good-bye to a few more members, for the case that packets got lost.
    pub fn repeat_farewell(&mut self, now: Duration) {
        let result = self.foca.gossip(&mut self.runtime);
        self.note(result);
        self.settle(now);
    }

    /// The number of this node's current life; rises when it was declared down by mistake.
    pub fn generation(&self) -> u64 {
        self.foca.identity().generation
    }

    pub fn counts(&self) -> Counts {
        Counts { stalls: self.timers.stalls, ..self.counts }
    }

    fn receive_swim(&mut self, content: &[u8]) -> Result<(), Refused> {
        let undecodable = |e: &dyn std::fmt::Display| Refused(e.to_string());
        let mut rest = content;
        let header: Header<Identity> = PostcardCodec.decode_header(&mut rest).map_err(|e| undecodable(&e))?;
        if header.src.node == ANYONE {
            return Err(Refused("sent by nobody".into()));
        }
        if !self.has_room_for(header.src.node) {
            return Err(Refused(format!("more than {MEMBERS_MAX} members")));
        }
        let result = if header.dst.node == ANYONE && header.message == foca::Message::Announce {
            let addressed = self.address_to_self(header, rest).map_err(|e| undecodable(&e))?;
            self.foca.handle_data(&addressed, &mut self.runtime)
        } else {
            self.outlive(&header.dst);
            self.foca.handle_data(content, &mut self.runtime)
        };
        match result {
            // A seed list usually names the node itself too.
            Ok(()) | Err(foca::Error::DataFromOurselves) => Ok(()),
            Err(error) => Err(undecodable(&error)),
        }
    }

    fn has_room_for(&self, node: NodeId) -> bool {
        let mut members = self.foca.iter_membership_state();
        members.len() < MEMBERS_MAX || members.any(|member| member.id().node == node)
    }

    /// A caller that knew only our address: its announcement, as if it had known our name.
    fn address_to_self(
        &self,
        header: Header<Identity>,
        rest: &[u8],
    ) -> Result<Vec<u8>, <PostcardCodec as Codec<Identity>>::Error> {
        let mut packet = Vec::new();
        let header = Header { dst: self.foca.identity().clone(), ..header };
        PostcardCodec.encode_header(&header, &mut packet)?;
        packet.extend_from_slice(rest);
        Ok(packet)
    }

    /// Others know a later life of this node: its clock was set back before it started. It
    /// would never be heard, so it takes the next life after that one.
    fn outlive(&mut self, addressee: &Identity) {
        let me = self.foca.identity();
        if addressee.node == me.node && addressee.generation > me.generation {
            let next = me.after(addressee.generation);
            let result = self.foca.change_identity(next, &mut self.runtime);
            self.note(result);
        }
    }

    fn receive_record(&mut self, content: &[u8]) -> Result<(), Refused> {
        let record = Record::decode(content).ok_or_else(|| Refused("no record".into()))?;
        self.shelf.records.lock().offer(record);
        Ok(())
    }

    fn send_record(&mut self, reply_to: &str) -> Result<(), Refused> {
        let record = self.own.encode().map_err(|e| Refused(e.to_string()))?;
        self.push(reply_to.into(), &Message::Record(&record));
        Ok(())
    }

    fn push(&mut self, to: Arc<str>, message: &Message<'_>) {
        self.packets.push(Packet { to, to_all: false, bytes: message.encode() });
    }

    fn note(&mut self, result: Result<(), foca::Error>) {
        if let Err(error) = result {
            self.counts.faults += 1;
            tracing::debug!(%error, "foca reports a fault");
        }
    }

    fn announce(&mut self, now: Duration) {
        let members: BTreeSet<_> = self.foca.iter_members().map(|m| m.id().address.clone()).collect();
        for address in self.announcer.targets(&members) {
            let result = self.foca.announce(Identity::anyone(address), &mut self.runtime);
            self.note(result);
        }
        self.announce_later(now);
    }

    fn announce_later(&mut self, now: Duration) {
        let wait = self.announcer.next_wait(self.foca.num_members() == 0);
        // ±20 %, so that nodes started together do not call together for ever.
        let wait = wait.mul_f64(self.jitter.random_range(0.8..1.2));
        self.announce_number += 1;
        self.timers.schedule(now, wait, Due::Announce(self.announce_number));
    }

    fn keep_house(&mut self, now: Duration) {
        let since = now.saturating_sub(self.published_at);
        let changed = self.load != self.own.load && since >= self.load_period;
        if changed || since >= REFRESH_PERIOD {
            self.publish(now);
        }
        let missing: Vec<_> = self.without_record().take(ASKS_MAX).collect();
        for address in missing {
            self.ask(address);
        }
        self.timers.schedule(now, HOUSEKEEPING_PERIOD, Due::Housekeeping);
    }

    /// Active members whose record is unknown or from an earlier life.
    fn without_record(&self) -> impl Iterator<Item = Arc<str>> {
        let records = self.shelf.records.lock();
        let missing = |id: &Identity| records.get(id.node).is_none_or(|r| r.generation < id.generation);
        let ids = self.foca.iter_members().map(foca::Member::id).filter(|id| missing(id));
        ids.map(|id| id.address.clone()).collect::<Vec<_>>().into_iter()
    }

    fn ask(&mut self, address: Arc<str>) {
        let reply_to = self.foca.identity().address.clone();
        self.push(address, &Message::Ask { reply_to: &reply_to });
    }

    /// Sends one's own record round.
    fn publish(&mut self, now: Duration) {
        self.own.generation = self.foca.identity().generation;
        self.own.sequence += 1;
        self.own.load = self.load;
        self.published_at = now;
        let result = self.own.encode().map_err(|e| e.to_string());
        let result = result.and_then(|bytes| self.foca.add_broadcast(&bytes).map_err(|e| e.to_string()));
        if let Err(error) = result {
            self.counts.faults += 1;
            tracing::warn!(error, "could not publish this node's record");
        }
    }
}
