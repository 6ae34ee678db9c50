//! A node that impairs its own links on purpose: over both wires, it is as if the network did.

use super::*;
use crate::impairment::{Condition, Direction, Impairment};
use std::time::Instant;

/// A pair of which one node can impair what is between it and the other.
struct Impaired {
    pair: Pair,
    impairments: Impairments,
}

impl Impaired {
    async fn start(kind: Kind, options: Options, which: u64) -> Self {
        let (tag, impairments) = (rand::random::<u32>(), Impairments::armed());
        let names = [1, 2].map(|number| format!("{tag:08x}-{number}"));
        let network = (kind == Kind::Memory).then(|| Network::with(options.clone(), 1));
        let mut nodes = Vec::new();
        for (number, name) in (1..).zip(&names) {
            let own = if number == which { impairments.clone() } else { Impairments::none() };
            let handler = Arc::new(Obedient::default());
            let (transport, address) = match &network {
                Some(network) => {
                    let address = format!("address of {name}");
                    (network.join_impaired(name, &address, handler, own), address)
                }
                None => {
                    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                    let address = listener.local_addr().unwrap().to_string();
                    let identity = Identity::new(name, "secret");
                    (start(&options, identity, listener, handler, own).await.unwrap(), address)
                }
            };
            nodes.push(Node { transport, peer: Peer { node: NodeId(number), name: name.clone(), address } });
        }
        let b = nodes.remove(1);
        let pair = Pair { a: nodes.remove(0), b, network, certificates: None };
        pair.acquaint();
        pair.wait_up().await;
        Self { pair, impairments }
    }

    fn impair(&self, direction: Direction, condition: Condition) {
        let peers = Some(vec![self.pair.b.peer.name.clone()]);
        self.impairments.replace(vec![Impairment { peers, direction, condition }]);
    }

    fn heal(&self) {
        self.impairments.replace(Vec::new());
    }
}

impl Pair {
    /// Whether a link comes up while several dials pass.
    async fn links_again(&self) -> bool {
        let mut links = self.a.transport.links();
        let up = links.wait_for(|links| links.get(&NodeId(2)).is_some_and(|link| link.up));
        timeout(Duration::from_millis(1500), up).await.is_ok()
    }
}

/// Short, so that silence is soon noticed.
fn quick() -> Options {
    Options {
        heartbeat_interval: Duration::from_millis(50),
        dead_after: Duration::from_millis(500),
        connect_timeout: Duration::from_millis(300),
        handshake_timeout: Duration::from_millis(600),
        redial_max: Duration::from_millis(100),
        ..Options::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_is_silence_in_its_directions_and_the_link_comes_back_when_it_ends() {
    for kind in BOTH {
        for direction in [Direction::Both, Direction::Outgoing, Direction::Incoming] {
            let impaired = Impaired::start(kind, quick(), 1).await;
            let Impaired { pair, .. } = &impaired;
            assert!(pair.a.ask(&pair.b, "before").await.is_ok());
            impaired.impair(direction, Condition::cut());
            let asked = pair.a.transport.request(NodeId(2), Class::Command, Bytes::from_static(b"during"), PATIENCE);
            assert_eq!(asked.await, Err(Error::Broken(NodeId(2))), "{kind:?} {direction:?}");
            pair.a.wait_link(&pair.b, "down here", |state| !state.up).await;
            pair.b.wait_link(&pair.a, "down there", |state| !state.up).await;
            let introduced =
                pair.a.transport.introduce(pair.b.peer.address.clone(), "me".into(), Duration::from_millis(200)).await;
            let silent = introduced.as_ref().is_err_and(|error| error.contains("did not answer within"));
            assert!(silent, "{kind:?} {direction:?}: {introduced:?}");
            assert!(!pair.links_again().await, "{kind:?} {direction:?}");
            impaired.heal();
            pair.wait_up().await;
            assert!(pair.a.ask(&pair.b, "after").await.is_ok() && pair.b.ask(&pair.a, "after").await.is_ok());
            impaired.pair.close().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_dialled_across_its_own_cut_does_not_answer() {
    for kind in BOTH {
        // The node with the smaller id dials, and knows of no cut.
        let impaired = Impaired::start(kind, quick(), 2).await;
        let pair = &impaired.pair;
        let cut = Impairment { peers: None, direction: Direction::Both, condition: Condition::cut() };
        impaired.impairments.replace(vec![cut]);
        pair.a.wait_link(&pair.b, "down", |state| !state.up).await;
        assert!(!pair.links_again().await, "{kind:?}");
        impaired.heal();
        pair.wait_up().await;
        assert!(pair.a.ask(&pair.b, "after").await.is_ok(), "{kind:?}");
        impaired.pair.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_slow_comes_late_in_its_order_and_whole() {
    for kind in BOTH {
        // What is lost again and again may be silent for longer than usual.
        let options = Options { dead_after: PATIENCE, ..Options::default() };
        let impaired = Impaired::start(kind, options, 1).await;
        let pair = &impaired.pair;
        let delay = Duration::from_millis(60);
        for direction in [Direction::Outgoing, Direction::Incoming] {
            impaired.impair(direction, Condition { delay, ..Condition::default() });
            let asked = Instant::now();
            let many = (0..200).map(|number: u32| pair.a.ask(&pair.b, format!("{number}")));
            let answers = futures::future::join_all(many).await;
            assert!(asked.elapsed() >= delay, "{kind:?} {direction:?}");
            for (number, answer) in (0..200).zip(answers) {
                assert_eq!(answer.unwrap(), format!("{number}"), "{kind:?} {direction:?}");
            }
        }
        // As fast as ever, and nothing that was late is lost.
        impaired.heal();
        assert_eq!(pair.a.ask(&pair.b, "after").await.unwrap(), "after");
        let lossy = Condition { loss: 0.2, ..Condition::default() };
        impaired.impair(Direction::Both, lossy);
        for number in 0..10 {
            assert_eq!(pair.a.ask(&pair.b, format!("{number}")).await.unwrap(), format!("{number}"), "{kind:?}");
        }
        impaired.pair.close().await;
    }
}
