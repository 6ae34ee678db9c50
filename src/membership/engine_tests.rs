//! The protocol in virtual time: joins, deaths, stalls, losses, and the traps that foca holds.

use super::{
    Engine, Load, LocalRecord, MemberView, Options, State,
    identity::{ADDRESS_BYTES_MAX, Identity},
    simulation::{MS, SECOND, Simulation, address},
};
use crate::catalog::NodeId;
use foca::{Codec, Header, PostcardCodec};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::time::Duration;

fn joined(nodes: usize, seed: u64) -> Simulation {
    let mut simulation = Simulation::start(nodes, seed);
    simulation.run_until("everybody sees everybody", SECOND * 20, Simulation::agree);
    simulation
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let trace = |seed| {
        let mut simulation = Simulation::start(12, seed);
        simulation.loss = 0.1;
        simulation.run_for(SECOND * 30);
        simulation.trace()
    };
    assert_eq!(trace(42), trace(42));
    assert_ne!(trace(42), trace(43));
}

#[test]
fn five_to_twenty_nodes_find_each_other() {
    for (nodes, seed) in [(5, 1), (10, 2), (20, 3)] {
        let mut simulation = Simulation::start(nodes, seed);
        let took = simulation.run_until("everybody sees everybody", SECOND * 20, Simulation::agree);
        assert!(took < SECOND * 10, "{nodes} nodes took {took:?}");
        let view = simulation.engine(1).view().clone();
        assert_eq!(view.len(), nodes - 1);
        assert_eq!(view[&NodeId(0)].record.name, "node-0");
        assert!(!view.contains_key(&NodeId(1)), "a node does not list itself");
    }
}

#[test]
fn nobody_is_declared_down_for_lost_packets() {
    for seed in 1..=4 {
        let mut simulation = joined(10, seed);
        simulation.loss = 0.1;
        simulation.run_for(SECOND * 120);
        assert_eq!(simulation.downs, [], "seed {seed}");
        assert_eq!(simulation.engine(0).counts().faults, 0);
    }
}

#[test]
fn a_death_is_seen_by_all_and_a_new_boot_is_told_apart() {
    for seed in 1..=3 {
        let mut simulation = joined(8, seed);
        simulation.kill(5);
        let took = simulation.run_until("node 5 is down for all", SECOND * 30, Simulation::agree);
        assert!(took > SECOND * 4, "a death is not believed at once: {took:?}");
        assert_eq!(simulation.state(2, 5), Some(State::Down), "seed {seed}");
        simulation.restart(5, 2, 60_000);
        simulation.run_until("node 5 is back for all", SECOND * 20, Simulation::agree);
        let member = simulation.engine(2).view()[&NodeId(5)].clone();
        assert_eq!((member.record.boot_id, member.state), (2, State::Alive));
    }
}

#[test]
fn a_fast_restart_never_shows_the_old_boot_id_as_the_new_life() {
    let mut simulation = joined(5, 1);
    simulation.restart(3, 2, 60_000);
    simulation.run_until("the new boot id is known to all", SECOND * 10, |s| {
        (0..5).filter(|i| *i != 3).all(|i| s.boot_id(i, 3) == Some(2))
    });
    assert_eq!(simulation.downs, []);
}

#[test]
fn a_clock_set_back_before_a_restart_does_not_lock_a_node_out() {
    let mut simulation = joined(4, 7);
    simulation.restart(2, 2, 10);
    simulation.run_until("node 2 is back for all", SECOND * 30, |s| {
        s.agree() && (0..4).filter(|i| *i != 2).all(|i| s.boot_id(i, 2) == Some(2))
    });
    assert!(simulation.engine(2).generation() > 1000);
}

#[test]
fn a_stalled_member_is_not_declared_down_within_the_suspicion_time() {
    let mut suspected = 0;
    for seed in 1..=10 {
        let mut simulation = joined(5, seed);
        simulation.run_for(SECOND * 20);
        simulation.pause(1, SECOND * 4);
        for _ in 0..40 {
            simulation.run_for(MS * 100);
            suspected += (0..5).filter(|i| simulation.state(*i, 1) == Some(State::Suspect)).count();
        }
        simulation.run_for(SECOND * 30);
        assert_eq!(simulation.downs, [], "seed {seed}: neither the stalled one nor, by it, another");
        assert!(simulation.agree(), "seed {seed}");
        let counts = simulation.engine(1).counts();
        assert!(counts.stalls >= 1, "seed {seed}: the stall was noticed");
        assert_eq!((counts.rejoins, counts.faults), (0, 0), "seed {seed}");
    }
    assert!(suspected > 0, "the stalls were long enough to be noticed by others");
}

#[test]
fn a_suspect_keeps_its_time_when_the_suspecting_node_stalls() {
    for seed in 1..=10 {
        let mut simulation = joined(2, seed);
        simulation.cut.insert((0, 1));
        simulation.run_until("node 0 suspects node 1", SECOND * 10, |s| s.state(0, 1) == Some(State::Suspect));
        simulation.cut.clear();
        // The suspicion would run out during the stall, and the answer to it overflows the socket.
        simulation.backlog_max = 0;
        simulation.pause(0, MS * 5500);
        simulation.run_for(SECOND * 30);
        assert!(!simulation.downs.iter().any(|(who, ..)| *who == 0), "seed {seed}: {:?}", simulation.downs);
        assert_eq!(simulation.engine(0).counts().stalls, 1, "seed {seed}");
    }
}

#[test]
fn a_member_stalled_for_long_is_declared_down_and_comes_back_as_itself() {
    let mut simulation = joined(5, 3);
    simulation.pause(1, SECOND * 40);
    simulation.run_for(SECOND * 39);
    assert!((0..5).filter(|i| *i != 1).all(|i| simulation.state(i, 1) == Some(State::Down)));
    simulation.run_until("node 1 is back for all", SECOND * 30, Simulation::agree);
    assert!(simulation.downs.iter().all(|(who, about, _)| *who != 1 && *about == NodeId(1)));
    let record = simulation.engine(0).view()[&NodeId(1)].record.clone();
    assert_eq!(record.boot_id, 1, "the same process");
    assert!(record.generation > 1000, "in a new life");
    assert!(simulation.engine(1).counts().rejoins >= 1);
}

#[test]
fn a_split_cluster_grows_together_again() {
    let mut simulation = joined(6, 5);
    simulation.cut = (0..3).flat_map(|a| (3..6).map(move |b| (a, b))).collect();
    simulation.run_until("both halves gave the other up", SECOND * 60, |s| {
        (0..3).all(|a| (3..6).all(|b| s.state(a, b) == Some(State::Down) && s.state(b, a) == Some(State::Down)))
    });
    simulation.cut.clear();
    let took = simulation.run_until("all are one again", SECOND * 90, Simulation::agree);
    assert!(took < SECOND * 60, "{took:?}");
}

#[test]
fn a_node_that_heard_nobody_for_a_while_is_back_when_it_hears_again() {
    for seed in 1..=200 {
        let mut simulation = joined(3, seed);
        simulation.deaf.insert(2);
        simulation.run_until("node 2 gave the others up", SECOND * 60, |s| {
            (0..2).all(|other| s.state(2, other) == Some(State::Down))
        });
        simulation.deaf.clear();
        // The others were told by it that they are down, and suspect it themselves. Which of these
        // happens first differs between the seeds.
        simulation.run_until("all are one again", SECOND * 60, Simulation::agree);
    }
}

#[test]
fn who_leaves_is_down_at_once() {
    let mut simulation = joined(5, 9);
    simulation.leave(4);
    let all_know = |s: &Simulation| (0..4).all(|i| s.state(i, 4) == Some(State::Down));
    let took = simulation.run_until("node 4 is down for all", SECOND * 5, all_know);
    assert!(took < SECOND * 2, "{took:?}");
    // It stays away although its process goes on for a while.
    simulation.run_for(SECOND * 60);
    assert!(all_know(&simulation));
}

#[test]
fn a_late_joiner_gets_the_records_that_are_no_longer_sent_round() {
    let mut simulation = joined(6, 11);
    simulation.run_for(SECOND * 25);
    simulation.restart(6, 1, 5000);
    let took = simulation.run_until("the joiner sees all", SECOND * 10, |s| (0..6).all(|i| s.state(6, i).is_some()));
    assert!(took < SECOND * 3, "{took:?}");
    // Also under loss: what got lost is asked for again.
    simulation.loss = 0.3;
    simulation.restart(7, 1, 5000);
    simulation.run_until("the second joiner sees all", SECOND * 30, |s| (0..7).all(|i| s.state(7, i).is_some()));
}

#[test]
fn load_figures_reach_everybody() {
    let mut simulation = joined(6, 13);
    simulation.loss = 0.1;
    let load = Load { shards_owned: 5, entities_active: 70_000, requests_per_second: 12_345 };
    simulation.engine(2).set_load(load);
    simulation.run_until("all know the load of node 2", SECOND * 15, |s| {
        (0..6).filter(|i| *i != 2).all(|i| s.member(i, 2).is_some_and(|m| m.record.load == load))
    });
}

fn record_of(node: usize) -> LocalRecord {
    LocalRecord {
        node: NodeId(node as u64),
        name: format!("n{node}"),
        address: address(node),
        http: String::new(),
        boot_id: 1,
    }
}

/// An engine that knows nobody.
fn lone(node: usize) -> Engine {
    Engine::new(&Options::default(), record_of(node), vec![], 1, 1).expect("valid")
}

#[test]
fn remembered_peers_are_found_without_a_seed() {
    let mut engine = lone(1);
    engine.advance(Duration::ZERO);
    assert_eq!(engine.take_packets(), [], "nobody to call");
    engine.remember(vec![address(2), address(1)]);
    engine.advance(SECOND);
    let called: Vec<_> = engine.take_packets().into_iter().map(|p| (p.to.to_string(), p.to_all)).collect();
    assert!(!called.is_empty() && called.iter().all(|c| *c == (address(2), true)), "{called:?}");
}

/// Two nodes; node 0 suspects node 1 for lost packets, node 1 refutes, the suspicion runs out.
fn refuted_suspicion(withhold: bool) -> Simulation {
    let mut simulation = joined(2, 21);
    for node in 0..2 {
        simulation.engine(node).withhold_undead = withhold;
    }
    simulation.cut.insert((0, 1));
    simulation.run_until("node 0 suspects node 1", SECOND * 10, |s| s.state(0, 1) == Some(State::Suspect));
    simulation.cut.clear();
    simulation.run_until("node 1 has refuted", SECOND * 4, |s| s.state(0, 1) == Some(State::Alive));
    simulation.run_for(SECOND * 10);
    simulation
}

#[test]
fn a_refuted_suspicion_that_runs_out_does_not_turn_the_member_undead() {
    let mut simulation = refuted_suspicion(true);
    assert!(simulation.engine(0).counts().undead_withheld >= 1, "foca wanted to send it");
    assert_eq!(simulation.engine(1).counts().rejoins, 0);
    assert_eq!(simulation.engine(1).generation(), 1000);
    assert_eq!(simulation.downs, []);
}

#[test]
fn without_the_filter_that_member_starts_a_new_life() {
    // Proves that the test above can fail, and tells when foca has mended it.
    let mut simulation = refuted_suspicion(false);
    let rejoins: u64 = (0..2).map(|node| simulation.engine(node).counts().rejoins).sum();
    assert!(rejoins >= 1, "foca no longer sends TurnUndead to a refuted member: the filter can go");
}

#[test]
fn garbage_does_no_harm() {
    let mut simulation = joined(3, 17);
    let mut random = StdRng::seed_from_u64(17);
    let now = simulation.now;
    let mut refused = 0;
    for round in 0..10_000 {
        let mut bytes = vec![0; random.random_range(0..1400)];
        random.fill(&mut bytes[..]);
        if let Some(kind) = bytes.first_mut().filter(|_| round % 2 == 0) {
            // Half of it looks like a message of a known kind.
            *kind = 1 + round as u8 % 3;
        }
        refused += usize::from(simulation.engine(0).receive(now, &bytes).is_err());
        simulation.engine(0).take_packets();
    }
    assert!(refused > 9_900, "{refused}");
    simulation.run_for(SECOND * 30);
    assert!(simulation.agree());
    assert_eq!(simulation.downs, []);
    assert_eq!(simulation.engine(0).view().len(), 2);
}

#[test]
fn an_address_that_no_packet_could_hold_is_refused_and_does_not_end_the_probing() {
    let mut simulation = joined(3, 31);
    let now = simulation.now;
    let too_long = Identity { node: NodeId(9), generation: 1, address: "a".repeat(ADDRESS_BYTES_MAX + 1).into() };
    let me = Identity { node: NodeId(0), generation: 1000, address: address(0).into() };
    let header = Header { src: too_long, src_incarnation: 0, dst: me, message: foca::Message::Gossip };
    let mut bytes = vec![1];
    PostcardCodec.encode_header(&header, &mut bytes).expect("in memory");
    assert!(simulation.engine(0).receive(now, &bytes).is_err());
    simulation.kill(2);
    simulation.run_until("node 2 is down for all", SECOND * 30, Simulation::agree);
    assert_eq!(simulation.engine(0).counts().faults, 0);
    let local = LocalRecord { address: "a".repeat(ADDRESS_BYTES_MAX + 1), ..record_of(5) };
    assert!(Engine::new(&Options::default(), local, vec![], 1, 1).is_err());
}

#[test]
fn records_at_their_limit_fit_beside_the_rest() {
    // The simulation refuses longer packets than 1358 bytes.
    let mut simulation = Simulation::start_with(20, 29, Options::default(), 415);
    simulation.loss = 0.1;
    simulation.run_until("everybody sees everybody", SECOND * 30, Simulation::agree);
    let record = simulation.engine(3).view()[&NodeId(7)].record.clone();
    assert!(record.encode().expect("encodes").len() > 450);
    simulation.run_for(SECOND * 30);
    assert_eq!(simulation.downs, []);
}

#[test]
fn more_members_than_the_limit_are_refused() {
    let mut engine = lone(0);
    let mut refused = 0;
    for node in 1..=1030 {
        let mut other = lone(node);
        other.remember(vec![address(0)]);
        other.advance(Duration::ZERO);
        let call = other.take_packets().remove(0);
        refused += usize::from(engine.receive(Duration::ZERO, &call.bytes).is_err());
        engine.take_packets();
    }
    assert_eq!(refused, 1030 - 1024);
}

#[test]
fn the_dead_are_forgotten_after_their_time() {
    let options = Options { forget_after: SECOND * 60, ..Options::default() };
    let mut simulation = Simulation::start_with(4, 23, options, 10);
    simulation.run_until("everybody sees everybody", SECOND * 20, Simulation::agree);
    simulation.kill(3);
    simulation.run_until("node 3 is down for all", SECOND * 30, Simulation::agree);
    simulation.run_until("node 3 is forgotten", SECOND * 200, |s| (0..3).all(|i| s.state(i, 3).is_none()));
}

impl Simulation {
    fn member(&self, of: usize, about: usize) -> Option<&MemberView> {
        self.view_of(of).get(&NodeId(about as u64))
    }

    fn boot_id(&self, of: usize, about: usize) -> Option<u64> {
        self.member(of, about).map(|member| member.record.boot_id)
    }
}
