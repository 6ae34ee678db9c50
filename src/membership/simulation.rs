//! Many engines in virtual time on one thread. The same seed gives the same trace, byte by byte.

use super::{Engine, LocalRecord, Options, State, View};
use crate::catalog::NodeId;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

pub(super) const MS: Duration = Duration::from_millis(1);
pub(super) const SECOND: Duration = Duration::from_secs(1);

/// A cluster of engines whose clocks, packets and losses the test decides.
pub(super) struct Simulation {
    pub now: Duration,
    pub loss: f64,
    /// Packets that wait for a paused node at most; further ones are lost.
    pub backlog_max: usize,
    /// Nodes between which nothing passes, both ways.
    pub cut: BTreeSet<(usize, usize)>,
    /// Nodes that hear nothing, but are heard.
    pub deaf: BTreeSet<usize>,
    /// (who, about whom, when) for each time that a view turned to `Down`.
    pub downs: Vec<(usize, NodeId, Duration)>,
    options: Options,
    http_bytes: usize,
    seed: u64,
    random: StdRng,
    sequence: u64,
    in_flight: BTreeMap<(Duration, u64), (usize, Vec<u8>)>,
    nodes: Vec<Node>,
    trace: blake3::Hasher,
}

struct Node {
    engine: Engine,
    /// When it was started: an engine's clock begins at zero.
    started: Duration,
    dead: bool,
    paused_until: Duration,
    /// What arrived while it was paused.
    inbox: Vec<Vec<u8>>,
}

impl Simulation {
    /// `nodes` engines, started within the first 200 ms, all with node 0 as their seed.
    pub fn start(nodes: usize, seed: u64) -> Self {
        Self::start_with(nodes, seed, Options::default(), 10)
    }

    /// As [`Simulation::start`]; `http_bytes` is the length of each node's HTTP host name.
    pub fn start_with(nodes: usize, seed: u64, options: Options, http_bytes: usize) -> Self {
        let mut simulation = Self {
            now: Duration::ZERO,
            loss: 0.0,
            backlog_max: 1000,
            cut: BTreeSet::new(),
            deaf: BTreeSet::new(),
            downs: Vec::new(),
            options,
            http_bytes,
            seed,
            random: StdRng::seed_from_u64(seed),
            sequence: 0,
            in_flight: BTreeMap::new(),
            nodes: Vec::new(),
            trace: blake3::Hasher::new(),
        };
        for node in 0..nodes {
            let delay = MS * simulation.random.random_range(0..200);
            let new = simulation.boot(node, 1, 1000, delay);
            simulation.nodes.push(new);
        }
        simulation
    }

    fn boot(&self, node: usize, boot_id: u64, generation: u64, started: Duration) -> Node {
        let local = LocalRecord {
            node: NodeId(node as u64),
            name: format!("node-{node}"),
            address: address(node),
            http: format!("{}:8080", "h".repeat(self.http_bytes)),
            boot_id,
        };
        let seed = self.seed * 1000 + node as u64 + boot_id * 77;
        let engine = Engine::new(&self.options, local, vec![address(0)], generation, seed).expect("valid");
        Node { engine, started, dead: false, paused_until: started, inbox: Vec::new() }
    }

    pub fn engine(&mut self, node: usize) -> &mut Engine {
        &mut self.nodes[node].engine
    }

    /// The node's process ends; what was under way to it is lost.
    pub fn kill(&mut self, node: usize) {
        self.nodes[node].dead = true;
    }

    /// The node starts (again) as a new process.
    pub fn restart(&mut self, node: usize, boot_id: u64, generation: u64) {
        let new = self.boot(node, boot_id, generation, self.now);
        if node == self.nodes.len() {
            self.nodes.push(new);
        } else {
            self.nodes[node] = new;
        }
    }

    /// The node's process stands still; packets wait for it.
    pub fn pause(&mut self, node: usize, length: Duration) {
        self.nodes[node].paused_until = self.now + length;
    }

    /// As if the owner had asked the engine to leave.
    pub fn leave(&mut self, node: usize) {
        let at = self.now - self.nodes[node].started;
        self.nodes[node].engine.leave(at);
        self.after(node);
    }

    /// How `about` looks to `node`, if it is listed.
    pub fn state(&self, node: usize, about: usize) -> Option<State> {
        self.view_of(node).get(&NodeId(about as u64)).map(|member| member.state)
    }

    pub fn view_of(&self, node: usize) -> &View {
        self.nodes[node].engine.view()
    }

    /// The hash of all packets sent so far, with their times.
    pub fn trace(&self) -> blake3::Hash {
        self.trace.finalize()
    }

    pub fn run_for(&mut self, length: Duration) {
        let end = self.now + length;
        while self.step(end) {}
        self.now = end;
    }

    /// Runs until the condition holds; how long that took. Panics after `limit`.
    pub fn run_until(&mut self, reason: &str, limit: Duration, holds: impl Fn(&Self) -> bool) -> Duration {
        let (start, seed) = (self.now, self.seed);
        while !holds(self) {
            assert!(self.step(start + limit), "seed {seed}: not within {limit:?}: {reason}");
        }
        self.now - start
    }

    /// Whether all living nodes list all others as what they are, alive or down.
    pub fn agree(&self) -> bool {
        let mut living = (0..self.nodes.len()).filter(|i| !self.nodes[*i].dead);
        let truth = |other: usize| if self.nodes[other].dead { State::Down } else { State::Alive };
        let knows = |of: usize, other: usize| of == other || self.state(of, other) == Some(truth(other));
        living.all(|of| (0..self.nodes.len()).all(|other| knows(of, other)))
    }

    /// Does the next thing that happens before `end`; false if there is none.
    fn step(&mut self, end: Duration) -> bool {
        let timer = (0..self.nodes.len()).filter_map(|i| self.nodes[i].wakes_at().map(|at| (at, i))).min();
        let packet = self.in_flight.first_key_value().map(|(key, _)| *key);
        match (timer, packet) {
            // Packets first: the driver drains its socket before it fires timers.
            (timer, Some(key)) if key.0 <= end && timer.is_none_or(|(at, _)| key.0 <= at) => self.deliver(key),
            (Some((at, node)), _) if at <= end => self.fire(at, node),
            _ => return false,
        }
        true
    }

    fn deliver(&mut self, key: (Duration, u64)) {
        let Some((to, bytes)) = self.in_flight.remove(&key) else { return };
        self.now = self.now.max(key.0);
        let node = &mut self.nodes[to];
        if node.dead || key.0 < node.started {
            return;
        }
        if key.0 < node.paused_until {
            if node.inbox.len() < self.backlog_max {
                node.inbox.push(bytes);
            }
            return;
        }
        node.receive(self.now, &bytes);
        self.after(to);
    }

    fn fire(&mut self, at: Duration, node: usize) {
        self.now = self.now.max(at);
        let waking = &mut self.nodes[node];
        for bytes in std::mem::take(&mut waking.inbox) {
            waking.receive(self.now, &bytes);
        }
        waking.engine.advance(self.now - waking.started);
        self.after(node);
    }

    /// Takes what an engine wants to send, and what it has seen.
    fn after(&mut self, from: usize) {
        for packet in self.nodes[from].engine.take_packets() {
            assert!(packet.bytes.len() <= 1358, "a packet of {} bytes", packet.bytes.len());
            self.trace.update(&self.now.as_nanos().to_le_bytes()).update(packet.to.as_bytes()).update(&packet.bytes);
            self.carry(from, &packet.to, packet.bytes);
        }
        let before: Vec<_> = self.downs.iter().filter(|(who, ..)| *who == from).map(|(_, about, _)| *about).collect();
        if let Some(view) = self.nodes[from].engine.take_view() {
            for (about, member) in view {
                if member.state == State::Down && !before.contains(&about) {
                    self.downs.push((from, about, self.now));
                }
            }
        }
    }

    fn carry(&mut self, from: usize, to: &str, bytes: Vec<u8>) {
        let latency = Duration::from_micros(self.random.random_range(300..1000));
        let lost = self.random.random::<f64>() < self.loss;
        let Some(to) = (0..self.nodes.len()).find(|i| address(*i) == to) else { return };
        if lost || self.deaf.contains(&to) || self.cut.contains(&(from.min(to), from.max(to))) {
            return;
        }
        self.sequence += 1;
        self.in_flight.insert((self.now + latency, self.sequence), (to, bytes));
    }
}

impl Node {
    fn wakes_at(&self) -> Option<Duration> {
        let deadline = self.engine.next_deadline().filter(|_| !self.dead)?;
        Some((self.started + deadline).max(self.paused_until))
    }

    fn receive(&mut self, now: Duration, bytes: &[u8]) {
        self.engine.receive(now - self.started, bytes).expect("peers send what can be read");
    }
}

pub(super) fn address(node: usize) -> String {
    format!("10.0.0.{node}:7101")
}
