//! The driver on real sockets and on the memory network, with short times.

use super::{Error, LocalRecord, MemberView, Membership, Options, State, View, memory::Network, start, start_with};
use crate::{
    catalog::{ClusterId, NodeId},
    impairment::{Condition, Direction, Impairment, Impairments},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{net::UdpSocket, time::Duration};

const CLUSTER: ClusterId = ClusterId(0xc1);
const SECRET: &[u8] = b"a cluster secret";
const DEADLINE: Duration = Duration::from_secs(30);

fn quick() -> Options {
    Options {
        probe_period: Duration::from_millis(200),
        probe_timeout: Duration::from_millis(80),
        suspicion_timeout: Duration::from_millis(800),
        gossip_period: Duration::from_millis(40),
        exchange_period: Duration::from_secs(1),
        announce_period: Duration::from_millis(500),
        ..Options::default()
    }
}

fn local(node: u64, address: &str, boot_id: u64) -> LocalRecord {
    LocalRecord { node: NodeId(node), name: format!("n{node}"), address: address.into(), http: String::new(), boot_id }
}

/// A running node, and where it listens.
struct Running {
    membership: Membership,
    address: String,
}

fn socket() -> (UdpSocket, String) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let address = socket.local_addr().expect("bound").to_string();
    (socket, address)
}

fn udp(node: u64, boot_id: u64, cluster: ClusterId, secret: &[u8], seeds: &[&str]) -> Running {
    let (socket, address) = socket();
    let seeds = seeds.iter().map(ToString::to_string).collect();
    let membership =
        start(&quick(), local(node, &address, boot_id), cluster, secret, socket, seeds, Impairments::none())
            .expect("starts");
    Running { membership, address }
}

fn member(node: u64, seeds: &[&str]) -> Running {
    udp(node, node, CLUSTER, SECRET, seeds)
}

impl Running {
    async fn wait(&self, reason: &str, holds: impl FnMut(&View) -> bool) -> View {
        let mut view = self.membership.view();
        let waited = tokio::time::timeout(DEADLINE, view.wait_for(holds)).await;
        waited.unwrap_or_else(|_| panic!("not in time: {reason}")).expect("runs").clone()
    }

    async fn wait_state(&self, node: u64, state: State) -> MemberView {
        let reason = format!("node {node} is {state}");
        let holds = |view: &View| view.get(&NodeId(node)).is_some_and(|m| m.state == state);
        self.wait(&reason, holds).await[&NodeId(node)].clone()
    }
}

/// Waits for something outside a view.
async fn until(reason: &str, mut holds: impl FnMut() -> bool) {
    let started = tokio::time::Instant::now();
    while !holds() {
        assert!(started.elapsed() < DEADLINE, "not in time: {reason}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn three_nodes_join_one_dies_and_comes_back_with_a_new_boot_id() {
    let a = member(1, &[]);
    let (b, c) = (member(2, &[&a.address]), member(3, &[&a.address]));
    for (of, others) in [(&a, [2, 3]), (&b, [1, 3]), (&c, [1, 2])] {
        for other in others {
            of.wait_state(other, State::Alive).await;
        }
    }
    c.membership.stop().await;
    for of in [&a, &b] {
        assert_eq!(of.wait_state(3, State::Down).await.record.boot_id, 3);
    }
    let again = udp(3, 33, CLUSTER, SECRET, &[&b.address]);
    for of in [&a, &b] {
        let reason = "the new boot id of node 3";
        let back =
            |view: &View| view.get(&NodeId(3)).is_some_and(|m| m.state == State::Alive && m.record.boot_id == 33);
        let view = of.wait(reason, back).await;
        assert_eq!(view[&NodeId(3)].record.address, again.address);
    }
    again.wait_state(1, State::Alive).await;
}

#[tokio::test]
async fn a_node_that_impairs_its_own_packets_is_not_heard_or_hears_nobody_as_long_as_it_does() {
    let impairments = Impairments::armed();
    let a = member(1, &[]);
    let b = member(2, &[&a.address]);
    let (socket, address) = socket();
    let (me, seeds) = (local(3, &address, 3), vec![a.address.clone()]);
    let started = start(&quick(), me, CLUSTER, SECRET, socket, seeds, impairments.clone());
    let c = Running { membership: started.expect("starts"), address };
    let all_alive = async || {
        for (of, others) in [(&a, [2, 3]), (&b, [1, 3]), (&c, [1, 2])] {
            for other in others {
                of.wait_state(other, State::Alive).await;
            }
        }
    };
    let impair = |peers: Option<&[&str]>, direction, condition| {
        let peers = peers.map(|names| names.iter().map(ToString::to_string).collect());
        impairments.replace(vec![Impairment { peers, direction, condition }]);
    };
    all_alive().await;
    impair(None, Direction::Outgoing, Condition::cut());
    a.wait_state(3, State::Down).await;
    b.wait_state(3, State::Down).await;
    impairments.replace(Vec::new());
    all_alive().await;
    impair(Some(&["n1", "n2"]), Direction::Incoming, Condition::cut());
    c.wait_state(1, State::Down).await;
    c.wait_state(2, State::Down).await;
    // Late, doubled and out of order is still heard.
    let slow = Condition { delay: Duration::from_millis(10), reorder: 0.3, duplicate: 0.3, ..Condition::default() };
    impair(None, Direction::Both, slow);
    all_alive().await;
}

#[tokio::test]
async fn neither_another_secret_nor_another_cluster_ever_joins_and_both_are_counted() {
    let a = member(1, &[]);
    let b = member(2, &[&a.address]);
    a.wait_state(2, State::Alive).await;
    let strangers = [udp(66, 1, CLUSTER, b"wrong", &[&a.address]), udp(67, 1, ClusterId(0xc2), SECRET, &[&a.address])];
    // Each calls again and again; the members' own talk goes on meanwhile.
    until("ten packets were rejected", || a.membership.rejected() >= 10).await;
    for stranger in &strangers {
        assert!(stranger.membership.view().borrow().is_empty());
        assert_eq!(stranger.membership.rejected(), 0, "nobody answers a stranger");
    }
    for of in [&a, &b] {
        assert_eq!(of.membership.view().borrow().len(), 1);
    }
    assert_eq!(b.membership.rejected(), 0);
}

#[tokio::test]
async fn garbage_from_the_network_is_counted_and_does_no_harm() {
    let a = member(1, &[]);
    let b = member(2, &[&a.address]);
    a.wait_state(2, State::Alive).await;
    let (attacker, _) = socket();
    let mut random = StdRng::seed_from_u64(5);
    for burst in 0..100 {
        for _ in 0..100 {
            let mut bytes = vec![0; random.random_range(0..1500)];
            random.fill(&mut bytes[..]);
            if bytes.len() > 2 && burst % 2 == 0 {
                bytes[..2].copy_from_slice(b"Q\x01");
            }
            attacker.send_to(&bytes, &a.address).expect("loopback");
        }
        // Not faster than they are read: the socket's own buffer must not be what saves the node.
        until("the burst was read", || a.membership.rejected() >= (burst + 1) * 90).await;
    }
    let c = member(3, &[&b.address]);
    a.wait_state(3, State::Alive).await;
    c.wait_state(1, State::Alive).await;
    a.wait_state(2, State::Alive).await;
}

#[tokio::test]
async fn packets_heard_on_the_wire_are_worth_nothing_a_second_time() {
    let network = Network::new(1);
    let on = |address: &str, node, seeds: &[&str]| {
        let seeds = seeds.iter().map(ToString::to_string).collect();
        start_with(&quick(), local(node, address, 1), CLUSTER, SECRET, network.join(address), seeds).expect("starts")
    };
    // Whoever listens at the seed's address gets an announcement that it can keep.
    let listener = network.join("seed:1");
    let a = on("a:1", 1, &["seed:1"]);
    let mut packet = vec![0; 1500];
    super::Datagrams::readable(&*listener).await;
    let length = super::Datagrams::try_receive(&*listener, &mut packet).expect("an announcement");
    let packet = &packet[..length];
    let b = on("b:1", 2, &[]);
    super::Datagrams::send(&*listener, "b:1", packet.to_vec());
    let mut view = b.view();
    let joined = view.wait_for(|view| view.contains_key(&NodeId(1)));
    tokio::time::timeout(DEADLINE, joined).await.expect("in time").expect("runs");
    let before = b.rejected();
    let mut tampered = packet.to_vec();
    tampered[length - 1] ^= 1;
    for bytes in [packet.to_vec(), packet.to_vec(), tampered] {
        super::Datagrams::send(&*listener, "b:1", bytes);
    }
    until("three packets were rejected", || b.rejected() >= before + 3).await;
    drop(a);
}

#[tokio::test]
async fn who_leaves_is_down_before_any_suspicion() {
    let a = member(1, &[]);
    let b = member(2, &[&a.address]);
    a.wait_state(2, State::Alive).await;
    b.wait_state(1, State::Alive).await;
    b.membership.leave().await;
    let mut view = a.membership.view();
    let states = async {
        loop {
            match view.borrow_and_update()[&NodeId(2)].state {
                State::Down => break,
                state => assert_eq!(state, State::Alive, "by its own word, not by suspicion"),
            }
            view.changed().await.expect("runs");
        }
    };
    tokio::time::timeout(DEADLINE, states).await.expect("node 2 is down in time");
    let mut closed = b.membership.view();
    closed.mark_unchanged();
    assert!(closed.changed().await.is_err(), "the view of the one that left is closed");
}

#[tokio::test]
async fn seeds_and_members_may_be_names() {
    let (socket, address) = socket();
    let port = address.rsplit_once(':').expect("host:port").1.to_owned();
    let name = format!("localhost:{port}");
    let named = start(&quick(), local(1, &name, 1), CLUSTER, SECRET, socket, vec![name.clone()], Impairments::none())
        .expect("starts");
    let a = Running { membership: named, address: name };
    let b = member(2, &["no-such-host.invalid:1", &a.address]);
    let seen = b.wait_state(1, State::Alive).await;
    assert_eq!(seen.record.address, a.address);
    a.wait_state(2, State::Alive).await;
    assert_eq!(a.membership.rejected() + b.membership.rejected(), 0);
}

#[tokio::test]
async fn many_nodes_share_a_process_over_memory() {
    let network = Network::new(3);
    network.set_loss(0.05);
    let addresses: Vec<_> = (0..8).map(|i| format!("n{i}:1")).collect();
    let nodes: Vec<_> = (0..8)
        .map(|i| {
            let address = &addresses[i];
            let me = local(i as u64, address, 1);
            let seeds = vec![addresses[0].clone(), addresses[7].clone()];
            let membership = start_with(&quick(), me, CLUSTER, SECRET, network.join(address), seeds).expect("starts");
            Running { membership, address: address.clone() }
        })
        .collect();
    let all_alive = |view: &View| view.len() == 7 && view.values().all(|m| m.state == State::Alive);
    for node in &nodes {
        node.wait("all others are alive", all_alive).await;
    }
    network.cut_off(&nodes[3].address);
    nodes[0].wait_state(3, State::Down).await;
    network.reconnect(&nodes[3].address);
    nodes[0].wait_state(3, State::Alive).await;
}

#[tokio::test]
async fn load_and_remembered_peers_reach_the_engine() {
    let options = Options { load_period: Duration::from_millis(10), ..quick() };
    let (first, address) = socket();
    let a =
        start(&options, local(1, &address, 1), CLUSTER, SECRET, first, vec![], Impairments::none()).expect("starts");
    let b = member(2, &[]);
    b.membership.remember([address]);
    b.wait_state(1, State::Alive).await;
    let load = super::Load { shards_owned: 3, ..Default::default() };
    a.update_load(load);
    b.wait("the load of node 1", |view| view.get(&NodeId(1)).is_some_and(|m| m.record.load == load)).await;
}

#[test]
fn outside_a_runtime_it_is_an_error() {
    let result = start(&quick(), local(1, "127.0.0.1:1", 1), CLUSTER, SECRET, socket().0, vec![], Impairments::none());
    assert!(matches!(result, Err(Error::NoRuntime)));
}
