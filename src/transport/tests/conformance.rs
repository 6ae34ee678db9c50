//! What holds over any wire.

use super::*;
use bytesize::ByteSize;
use futures::future::join_all;
use std::time::Instant;

async fn pair(kind: Kind) -> Pair {
    Pair::start(kind, Options::default(), Arc::new(Obedient::default())).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_answered_both_ways() {
    for kind in ALL {
        let pair = pair(kind).await;
        for class in [Class::Raft, Class::Command] {
            let request = pair.a.transport.request(pair.b.peer.node, class, Bytes::from_static(b"who"), PATIENCE);
            assert_eq!(request.await.unwrap(), "1", "{kind:?}");
            let request = pair.b.transport.request(pair.a.peer.node, class, Bytes::from_static(b"who"), PATIENCE);
            assert_eq!(request.await.unwrap(), "2", "{kind:?}");
        }
        assert_eq!(pair.a.ask(&pair.b, "").await.unwrap(), "");
        pair.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_concurrent_requests_get_their_own_answers() {
    for kind in ALL {
        let pair = pair(kind).await;
        let (a, b) = (&pair.a, &pair.b);
        let asked = (0..10_000u32).map(|number| async move {
            let class = if number % 3 == 0 { Class::Raft } else { Class::Command };
            let body = Bytes::from(format!("request {number} {}", "x".repeat(number as usize % 200)));
            let (from, to) = if number % 2 == 0 { (a, b) } else { (b, a) };
            assert_eq!(from.transport.request(to.peer.node, class, body.clone(), PATIENCE).await, Ok(body), "{kind:?}");
        });
        join_all(asked).await;
        pair.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_come_back_in_words_and_a_panic_is_one() {
    for kind in ALL {
        let pair = pair(kind).await;
        let node = pair.b.peer.node;
        let refused = |detail: &str| Err(Error::Refused { node, detail: detail.to_owned() });
        assert_eq!(pair.a.ask(&pair.b, "fail").await, refused("as you asked"));
        assert_eq!(pair.a.ask(&pair.b, "panic").await, refused("the handler panicked"));
        assert_eq!(
            pair.a.ask(&pair.b, "too much").await,
            refused("the reply of 2097153 bytes exceeds the limit of 2097152 bytes")
        );
        let long = pair.a.ask(&pair.b, vec![0; FRAME_BYTES_MAX + 1]).await;
        assert_eq!(long, refused("a request of 2097153 bytes exceeds the limit of 2097152 bytes"));
        pair.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_largest_frame_gets_through() {
    for kind in ALL {
        let pair = pair(kind).await;
        let body = Bytes::from((0..FRAME_BYTES_MAX).map(|at| (at % 251) as u8).collect::<Vec<_>>());
        for class in [Class::Raft, Class::Command] {
            let reply = pair.a.transport.request(pair.b.peer.node, class, body.clone(), PATIENCE).await;
            assert!(reply == Ok(body.clone()), "{kind:?} {class:?}");
        }
        pair.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_without_an_answer_ends_at_its_deadline() {
    for kind in ALL {
        let pair = pair(kind).await;
        let asked = Instant::now();
        let limit = Duration::from_millis(100);
        let answer =
            pair.a.transport.request(pair.b.peer.node, Class::Command, Bytes::from_static(b"never"), limit).await;
        assert_eq!(answer, Err(Error::TimedOut(pair.b.peer.node)));
        assert!(asked.elapsed() >= limit && asked.elapsed() < PATIENCE);
        pair.a.transport.close(Duration::ZERO).await;
        pair.b.transport.close(Duration::ZERO).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_no_peer_is_not_connected() {
    for kind in ALL {
        let pair = pair(kind).await;
        let answer = pair.a.transport.request(NodeId(9), Class::Raft, Bytes::new(), PATIENCE).await;
        assert_eq!(answer, Err(Error::NotConnected(NodeId(9))));
        pair.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handlers_past_their_bound_are_refused_and_raft_has_its_own() {
    for kind in ALL {
        let gate = Arc::new(Semaphore::new(0));
        let handler = Arc::new(Obedient { gate: Some(gate.clone()), ..Obedient::default() });
        let options = Options { command_handlers_max: 10, ..Options::default() };
        let pair = Pair::start(kind, options, handler.clone()).await;
        let node = pair.b.peer.node;
        let held: Vec<_> = (0..10)
            .map(|_| {
                tokio::spawn(pair.a.transport.request(node, Class::Command, Bytes::from_static(b"hold"), PATIENCE))
            })
            .collect();
        eventually("ten handlers run", || handler.handled.load(Ordering::SeqCst) == 10).await;
        assert_eq!(pair.a.ask(&pair.b, "one more").await, Err(Error::Overloaded(node)), "{kind:?}");
        assert_eq!(handler.handled.load(Ordering::SeqCst), 10);
        let raft = pair.a.transport.request(node, Class::Raft, Bytes::from_static(b"vote"), PATIENCE).await;
        assert_eq!(raft, Ok(Bytes::from_static(b"vote")), "{kind:?}");
        gate.add_permits(10);
        for held in held {
            assert_eq!(held.await.unwrap(), Ok(Bytes::from_static(b"hold")));
        }
        assert_eq!(pair.a.ask(&pair.b, "one more").await, Ok(Bytes::from_static(b"one more")));
        pair.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_stops_reading_costs_one_window_and_no_more() {
    let options = Options { window: ByteSize::mib(2), pipe: ByteSize::kib(256), ..Options::default() };
    let pair = Pair::start(Kind::Memory, options, Arc::new(Obedient::default())).await;
    let network = pair.network.clone().unwrap();
    network.cut(&pair.a.peer.address, &pair.b.peer.address);
    let node = pair.b.peer.node;
    let body = Bytes::from(vec![0; 100_000]);
    let ask = |class| tokio::spawn(pair.a.transport.request(node, class, body.clone(), PATIENCE));
    let commands: Vec<_> = (0..40).map(|_| ask(Class::Command)).collect();
    let (done, open) = settled(commands, Error::Overloaded(node)).await;
    assert_eq!((done, open.len()), (25, 15), "three quarters of 2 MiB are 15 requests");
    // Raft still gets its quarter, then fails at once as well
    let raft: Vec<_> = (0..10).map(|_| ask(Class::Raft)).collect();
    let (done, raft_open) = settled(raft, Error::Overloaded(node)).await;
    assert_eq!((done, raft_open.len()), (5, 5));
    // a path that heals in time loses nothing
    network.heal_all();
    for open in open.into_iter().chain(raft_open) {
        assert!(open.await.unwrap() == Ok(body.clone()));
    }
    pair.close().await;
}

/// How many of the requests failed with `error`, and those that are still under way.
async fn settled<T: std::fmt::Debug + PartialEq>(
    tasks: Vec<tokio::task::JoinHandle<Result<T, Error>>>,
    error: Error,
) -> (usize, Vec<tokio::task::JoinHandle<Result<T, Error>>>) {
    let (mut done, mut open, mut quiet_since) = (0, tasks, Instant::now());
    while quiet_since.elapsed() < Duration::from_millis(150) {
        let mut still = Vec::new();
        for task in open {
            if task.is_finished() {
                assert_eq!(task.await.unwrap(), Err(error.clone()));
                done += 1;
                quiet_since = Instant::now();
            } else {
                still.push(task);
            }
        }
        open = still;
        tokio::task::yield_now().await;
    }
    (done, open)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn introductions_need_no_link_and_errors_name_the_address() {
    for kind in ALL {
        let pair = pair(kind).await;
        let address = pair.b.peer.address.clone();
        let introduce =
            |address: &str, request: Bytes| pair.a.transport.introduce(address.to_owned(), request, PATIENCE);
        assert_eq!(introduce(&address, "a".into()).await.unwrap().0, "nice to meet you, a");
        let longest = introduce(&address, vec![b'x'; INTRODUCTION_BYTES_MAX - 18].into()).await.unwrap();
        assert_eq!(longest.0.len(), INTRODUCTION_BYTES_MAX);
        assert_eq!(introduce(&address, "fail".into()).await.unwrap_err(), format!("{address} refused: not you"));
        let error = introduce(&address, "too much".into()).await.unwrap_err();
        assert!(error.contains(&address) && error.contains("65537 bytes"), "{error}");
        let error = introduce(&address, vec![0; INTRODUCTION_BYTES_MAX + 1].into()).await.unwrap_err();
        assert!(error.contains("65537 bytes"), "{error}");
        let error = introduce("127.0.0.1:1", "a".into()).await.unwrap_err();
        assert!(error.contains("cannot connect to 127.0.0.1:1"), "{error}");
        pair.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_waits_for_the_answers_that_are_under_way() {
    for kind in ALL {
        let gate = Arc::new(Semaphore::new(0));
        let handler = Arc::new(Obedient { gate: Some(gate.clone()), ..Obedient::default() });
        let pair = Pair::start(kind, Options::default(), handler.clone()).await;
        let asked = tokio::spawn(pair.a.transport.request(
            pair.b.peer.node,
            Class::Command,
            Bytes::from_static(b"hold"),
            PATIENCE,
        ));
        eventually("the handler runs", || handler.handled.load(Ordering::SeqCst) == 1).await;
        let closing = tokio::spawn(pair.b.transport.close(PATIENCE));
        // what comes while it closes is refused, not lost
        let refused = async {
            while pair.a.ask(&pair.b, "new").await.is_ok() {}
            pair.a.ask(&pair.b, "new").await
        };
        assert_eq!(refused.await, Err(Error::Overloaded(pair.b.peer.node)), "{kind:?}");
        gate.add_permits(1);
        assert_eq!(asked.await.unwrap(), Ok(Bytes::from_static(b"hold")), "{kind:?}");
        timeout(PATIENCE, closing).await.expect("closes").unwrap();
        pair.a.wait_link(&pair.b, "down after the peer closed", |state| !state.up).await;
        assert_eq!(pair.a.ask(&pair.b, "late").await, Err(Error::NotConnected(pair.b.peer.node)));
        pair.a.transport.close(PATIENCE).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_peer_is_disconnected_and_comes_back_when_added() {
    for kind in ALL {
        let handler = Arc::new(Obedient::default());
        let pair = Pair::start(kind, Options::default(), handler.clone()).await;
        let waiting = tokio::spawn(pair.a.transport.request(
            pair.b.peer.node,
            Class::Command,
            Bytes::from_static(b"never"),
            PATIENCE,
        ));
        // Sent, and not only about to be.
        handler.wait_handled(1).await;
        pair.a.transport.set_peers(pair.a.peer.node, vec![]);
        assert_eq!(waiting.await.unwrap(), Err(Error::Broken(pair.b.peer.node)), "{kind:?}");
        assert!(pair.a.transport.links().borrow().is_empty());
        pair.b.wait_link(&pair.a, "down after the removal", |state| !state.up).await;
        pair.acquaint();
        pair.wait_up().await;
        assert!(pair.a.ask(&pair.b, "again").await.is_ok());
        pair.a.transport.close(Duration::ZERO).await;
        pair.b.transport.close(Duration::ZERO).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_peer_is_linked_again_with_its_new_boot_id() {
    for kind in ALL {
        let handler = Arc::new(Obedient::default());
        let mut pair = Pair::start(kind, Options::default(), handler.clone()).await;
        let former = pair.a.wait_link(&pair.b, "up", |state| state.up).await.boot_id;
        let waiting = tokio::spawn(pair.a.transport.request(
            pair.b.peer.node,
            Class::Command,
            Bytes::from_static(b"never"),
            PATIENCE,
        ));
        // Sent, and not only about to be.
        handler.wait_handled(1).await;
        pair.b.transport.close(Duration::ZERO).await;
        assert_eq!(waiting.await.unwrap(), Err(Error::Broken(pair.b.peer.node)), "{kind:?}");
        let name = pair.b.peer.name.clone();
        let surroundings = (pair.network.as_ref(), pair.certificates.as_ref());
        pair.b = Node::start(surroundings, 2, &name, Options::default(), handler.clone()).await;
        pair.acquaint();
        let again =
            pair.a.wait_link(&pair.b, "up with a new boot id", |state| state.up && state.boot_id != former).await;
        assert_ne!(again.boot_id, 0);
        pair.wait_up().await;
        assert!(pair.a.ask(&pair.b, "again").await.is_ok());
        pair.close().await;
    }
}
