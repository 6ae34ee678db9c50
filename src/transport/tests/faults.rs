//! Faults of the network in memory, and what links make of them.

use super::*;
use std::collections::HashSet;

fn quick() -> Options {
    Options {
        heartbeat_interval: Duration::from_millis(50),
        dead_after: Duration::from_millis(250),
        connect_timeout: Duration::from_millis(200),
        redial_max: Duration::from_millis(100),
        ..Options::default()
    }
}

async fn pair() -> (Pair, Network) {
    let pair = Pair::start(Kind::Memory, quick(), Arc::new(Obedient::default())).await;
    let network = pair.network.clone().unwrap();
    (pair, network)
}

#[tokio::test]
async fn a_crash_breaks_what_waits_at_once() {
    let (pair, network) = pair().await;
    let asked = std::time::Instant::now();
    let waiting: Vec<_> = (0..100)
        .map(|_| {
            tokio::spawn(pair.a.transport.request(
                pair.b.peer.node,
                Class::Command,
                Bytes::from_static(b"never"),
                PATIENCE,
            ))
        })
        .collect();
    assert!(pair.a.ask(&pair.b, "sent after them").await.is_ok());
    network.crash(&pair.b.peer.address);
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap(), Err(Error::Broken(pair.b.peer.node)));
    }
    assert!(asked.elapsed() < PATIENCE / 4, "waited for a deadline");
    pair.b.wait_link(&pair.a, "down on the crashed node itself", |state| !state.up).await;
    assert_eq!(pair.b.ask(&pair.a, "ghost").await, Err(Error::NotConnected(pair.a.peer.node)));
    let error = pair.b.transport.introduce(pair.a.peer.address.clone(), Bytes::new(), PATIENCE).await.unwrap_err();
    assert_eq!(error, "this node is gone");
    let error = pair.a.transport.introduce(pair.b.peer.address.clone(), Bytes::new(), PATIENCE).await.unwrap_err();
    assert!(error.contains("nobody listens"), "{error}");
}

#[tokio::test]
async fn a_frozen_peer_is_noticed_by_its_silence() {
    let (pair, network) = pair().await;
    let waiting = tokio::spawn(pair.a.transport.request(
        pair.b.peer.node,
        Class::Command,
        Bytes::from_static(b"never"),
        PATIENCE,
    ));
    assert!(pair.a.ask(&pair.b, "sent after it").await.is_ok());
    let cut = tokio::time::Instant::now();
    network.partition(&pair.a.peer.address, &pair.b.peer.address);
    pair.a.wait_link(&pair.b, "down after the silence", |state| !state.up).await;
    pair.b.wait_link(&pair.a, "down after the silence", |state| !state.up).await;
    assert!(cut.elapsed() >= Duration::from_millis(150), "closed before the peer was silent for long");
    assert_eq!(waiting.await.unwrap(), Err(Error::Broken(pair.b.peer.node)));
    network.heal_all();
    pair.wait_up().await;
    assert!(pair.a.ask(&pair.b, "again").await.is_ok());
}

#[tokio::test]
async fn a_cut_of_one_direction_closes_the_link_on_both_sides() {
    for (from, to) in [(1, 2), (2, 1)] {
        let (pair, network) = pair().await;
        let address = |number| if number == 1 { &pair.a.peer.address } else { &pair.b.peer.address };
        network.cut(address(from), address(to));
        pair.a.wait_link(&pair.b, "down", |state| !state.up).await;
        pair.b.wait_link(&pair.a, "down", |state| !state.up).await;
        network.heal_all();
        pair.wait_up().await;
    }
}

#[tokio::test]
async fn a_short_cut_delays_and_loses_nothing() {
    let (pair, network) = pair().await;
    network.cut(&pair.a.peer.address, &pair.b.peer.address);
    let asked: Vec<_> = (0..50)
        .map(|number| {
            tokio::spawn(pair.a.transport.request(pair.b.peer.node, Class::Raft, Bytes::from(vec![number]), PATIENCE))
        })
        .collect();
    // some heartbeats of the other direction get through meanwhile
    tokio::time::timeout(Duration::from_millis(100), std::future::pending::<()>()).await.unwrap_err();
    network.heal_all();
    for (number, asked) in asked.into_iter().enumerate() {
        assert_eq!(asked.await.unwrap(), Ok(Bytes::from(vec![number as u8])));
    }
}

#[tokio::test]
async fn delay_adds_to_the_round_trip() {
    let (pair, network) = pair().await;
    network.delay(&pair.a.peer.address, &pair.b.peer.address, Duration::from_millis(30));
    network.delay(&pair.b.peer.address, &pair.a.peer.address, Duration::from_millis(40));
    let asked = tokio::time::Instant::now();
    assert!(pair.a.ask(&pair.b, "slow").await.is_ok());
    assert!(asked.elapsed() >= Duration::from_millis(70), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn a_reset_link_comes_back() {
    let (pair, network) = pair().await;
    let mut view = pair.a.transport.links();
    view.mark_unchanged();
    network.disconnect(&pair.b.peer.address, &pair.a.peer.address);
    timeout(PATIENCE, view.changed()).await.expect("notices").unwrap();
    pair.wait_up().await;
    assert!(pair.a.ask(&pair.b, "again").await.is_ok());
}

#[tokio::test]
async fn lost_batches_cost_requests_but_neither_the_link_nor_its_credit() {
    let (pair, network) = pair().await;
    network.drop_probability(&pair.a.peer.address, &pair.b.peer.address, 0.3);
    network.drop_probability(&pair.b.peer.address, &pair.a.peer.address, 0.3);
    let mut outcomes = HashSet::new();
    // 60 MB through a window of 4 MiB: a leak of credit would end in Overloaded
    for _ in 0..600 {
        let answer = pair
            .a
            .transport
            .request(pair.b.peer.node, Class::Raft, Bytes::from(vec![7; 100_000]), Duration::from_millis(20))
            .await;
        outcomes.insert(format!("{:?}", answer.map(|_| ())));
    }
    assert!(outcomes.contains("Ok(())") && outcomes.contains("Err(TimedOut(NodeId(2)))"), "{outcomes:?}");
    assert!(!outcomes.contains("Err(Overloaded(NodeId(2)))"), "{outcomes:?}");
    network.heal_all();
    pair.wait_up().await;
    assert!(pair.a.ask(&pair.b, "fine").await.is_ok());
}

#[tokio::test]
async fn the_same_seed_drops_the_same_batches() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let network = Network::with(
            Options {
                heartbeat_interval: Duration::from_secs(60),
                dead_after: Duration::from_secs(600),
                ..Options::default()
            },
            42,
        );
        let a = Node::memory(&network, 1, "a", Arc::new(Obedient::default()));
        let b = Node::memory(&network, 2, "b", Arc::new(Obedient::default()));
        let pair = Pair { a, b, network: Some(network.clone()), certificates: None };
        pair.acquaint();
        pair.wait_up().await;
        // one ask for every batch: heartbeats of the start are through
        assert!(pair.a.ask(&pair.b, "warm").await.is_ok());
        network.drop_probability("address of a", "address of b", 0.5);
        let mut outcomes = Vec::new();
        for _ in 0..30 {
            let answer =
                pair.a.transport.request(NodeId(2), Class::Raft, Bytes::new(), Duration::from_millis(100)).await;
            outcomes.push(answer.is_ok());
        }
        runs.push(outcomes);
    }
    assert_eq!(runs[0], runs[1]);
    assert!(runs[0].contains(&true) && runs[0].contains(&false));
}

#[tokio::test]
async fn an_isolated_node_loses_every_link_and_only_those() {
    let network = Network::with(quick(), 1);
    let nodes: Vec<Node> = (1..=4)
        .map(|number| Node::memory(&network, number, &format!("n{number}"), Arc::new(Obedient::default())))
        .collect();
    let peers: Vec<Peer> = nodes.iter().map(|node| node.peer.clone()).collect();
    for node in &nodes {
        node.transport.set_peers(node.peer.node, peers.clone());
    }
    for (a, b) in [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)] {
        nodes[a].wait_link(&nodes[b], "up", |state| state.up).await;
        nodes[b].wait_link(&nodes[a], "up", |state| state.up).await;
    }
    network.isolate(&nodes[1].peer.address);
    for other in [0, 2, 3] {
        nodes[1].wait_link(&nodes[other], "down", |state| !state.up).await;
        nodes[other].wait_link(&nodes[1], "down", |state| !state.up).await;
    }
    assert!(nodes[0].ask(&nodes[3], "still here").await.is_ok());
    network.heal_all();
    nodes[1].wait_link(&nodes[3], "up again", |state| state.up).await;
}

#[tokio::test]
async fn a_node_at_a_borrowed_address_does_not_pass_for_the_one_that_was_there() {
    let (pair, network) = pair().await;
    network.crash(&pair.b.peer.address);
    pair.a.wait_link(&pair.b, "down", |state| !state.up).await;
    let stranger = network.join("stranger", &pair.b.peer.address, Arc::new(Obedient::default()));
    stranger.set_peers(NodeId(3), vec![pair.a.peer.clone()]);
    let knows = stranger.introduce(pair.a.peer.address.clone(), "stranger".into(), PATIENCE).await;
    assert_eq!(knows.unwrap().0, "nice to meet you, stranger");
    // several dials pass
    tokio::time::timeout(Duration::from_millis(400), std::future::pending::<()>()).await.unwrap_err();
    assert!(!pair.a.transport.links().borrow()[&pair.b.peer.node].up);
}

#[tokio::test]
async fn a_peer_that_closes_each_link_at_once_is_dialled_after_ever_longer_pauses() {
    let (pair, network) = pair().await;
    let mut view = pair.a.transport.links();
    let began = tokio::time::Instant::now();
    let mut opened = 0u32;
    while opened < 12 {
        let is_up = |links: &LinkView| links.get(&pair.b.peer.node).is_some_and(|link| link.up);
        tokio::time::timeout(PATIENCE, view.wait_for(is_up)).await.expect("it is dialled again").expect("links");
        opened += 1;
        network.disconnect(&pair.a.peer.address, &pair.b.peer.address);
        let is_down = |links: &LinkView| !is_up(links);
        tokio::time::timeout(PATIENCE, view.wait_for(is_down)).await.expect("it breaks").expect("links");
    }
    // Eleven pauses, each at least half of `redial_min` (50 ms), from the second on of `redial_max` (100 ms).
    assert!(began.elapsed() >= Duration::from_millis(25 + 10 * 50), "dialled in a hurry: {:?}", began.elapsed());
}

#[tokio::test]
async fn a_node_that_is_gone_dials_nobody() {
    let (pair, network) = pair().await;
    network.crash(&pair.a.peer.address);
    pair.b.wait_link(&pair.a, "down", |state| !state.up).await;
    let mut view = pair.b.transport.links();
    let ghost = view.wait_for(|links| links.get(&pair.a.peer.node).is_some_and(|link| link.up));
    assert!(tokio::time::timeout(Duration::from_millis(500), ghost).await.is_err(), "a ghost has called");
}
