//! Two processes over TCP: what one process cannot show. A test runs itself again as the peer.

use super::*;
use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
    time::Instant,
};

const CHILD: &str = "QUORATE_TEST_LINK_CHILD";

/// The other process; killed when dropped.
struct Other {
    child: Child,
    peer: Peer,
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Other {
    /// Runs the test `name` again, as node 2, with `caller` as its only peer. `port` 0 takes any.
    fn start(name: &str, caller: &Peer, port: u16) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &format!("transport::tests::processes::{name}"), "--nocapture", "--test-threads=1"])
            .env(CHILD, format!("{port} {} {}", caller.name, caller.address))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.split_once("listening on ").map(|(_, address)| address.to_owned()));
        // reads on, so that the child never blocks on its output
        std::thread::spawn(move || lines.for_each(drop));
        let peer = Peer {
            node: NodeId(2),
            name: "other".to_owned(),
            address: address.expect("the child says where it listens"),
        };
        Self { child, peer }
    }

    fn signal(&self, signal: &str) {
        let done = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(done.success());
    }

    fn as_node(&self, transport: &Arc<dyn Transport>) -> Node {
        Node { transport: transport.clone(), peer: self.peer.clone() }
    }
}

/// In the child: serves until the parent closes our standard input. False in the parent.
async fn served_as_child() -> bool {
    let Ok(role) = std::env::var(CHILD) else { return false };
    let [port, name, address] = role.split(' ').collect::<Vec<_>>()[..] else { panic!("{role}") };
    let listener = bind_again(port.parse().unwrap()).await;
    let here = listener.local_addr().unwrap();
    let transport = start(
        &Options::default(),
        Identity::new("other", "secret"),
        listener,
        Arc::new(Obedient::default()),
        Impairments::none(),
    )
    .await
    .unwrap();
    transport.set_peers(NodeId(2), vec![Peer { node: NodeId(1), name: name.to_owned(), address: address.to_owned() }]);
    writeln!(std::io::stdout(), "\nlistening on {here}").unwrap();
    tokio::task::spawn_blocking(|| std::io::stdin().lines().for_each(drop)).await.unwrap();
    transport.close(PATIENCE).await;
    true
}

/// Binds a port that another process may have held a moment ago.
async fn bind_again(port: u16) -> TcpListener {
    let binding = async {
        loop {
            match TcpListener::bind(("127.0.0.1", port)).await {
                Ok(listener) => return listener,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    timeout(PATIENCE, binding).await.expect("the port is free")
}

async fn parent(name: &str) -> Node {
    Node::ractor(1, &format!("parent-{name}"), &Options::default(), Arc::new(Obedient::default())).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_peer_breaks_requests_at_once_and_its_successor_is_linked() {
    if served_as_child().await {
        return;
    }
    let name = "a_killed_peer_breaks_requests_at_once_and_its_successor_is_linked";
    let me = parent("kill").await;
    let other = Other::start(name, &me.peer, 0);
    let there = other.as_node(&me.transport);
    me.transport.set_peers(NodeId(1), vec![other.peer.clone()]);
    let former = me.wait_link(&there, "up", |state| state.up).await.boot_id;
    let waiting = tokio::spawn(me.transport.request(NodeId(2), Class::Command, Bytes::from_static(b"never"), PATIENCE));
    assert!(me.ask(&there, "sent after it").await.is_ok());
    let killed = Instant::now();
    other.signal("-KILL");
    assert_eq!(waiting.await.unwrap(), Err(Error::Broken(NodeId(2))));
    assert!(killed.elapsed() < Duration::from_secs(2), "took {:?}: noticed by silence only", killed.elapsed());
    let port = other.peer.address.rsplit_once(':').unwrap().1.parse().unwrap();
    drop(other);
    let successor = Other::start(name, &me.peer, port);
    assert_eq!(successor.peer, there.peer);
    me.wait_link(&there, "up with a new boot id", |state| state.up && state.boot_id != former).await;
    assert_eq!(me.ask(&there, "who").await.unwrap(), "1");
    me.transport.close(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_process_is_noticed_and_linked_again_when_it_continues() {
    if served_as_child().await {
        return;
    }
    let me = parent("stop").await;
    let other = Other::start("a_stopped_process_is_noticed_and_linked_again_when_it_continues", &me.peer, 0);
    let there = other.as_node(&me.transport);
    me.transport.set_peers(NodeId(1), vec![other.peer.clone()]);
    let boot_id = me.wait_link(&there, "up", |state| state.up).await.boot_id;
    let waiting = tokio::spawn(me.transport.request(NodeId(2), Class::Command, Bytes::from_static(b"never"), PATIENCE));
    assert!(me.ask(&there, "sent after it").await.is_ok());
    other.signal("-STOP");
    let stopped = Instant::now();
    me.wait_link(&there, "down", |state| !state.up).await;
    assert_eq!(waiting.await.unwrap(), Err(Error::Broken(NodeId(2))));
    assert!(
        (Duration::from_millis(1500)..Duration::from_secs(5)).contains(&stopped.elapsed()),
        "{:?}",
        stopped.elapsed()
    );
    other.signal("-CONT");
    me.wait_link(&there, "up again", |state| state.up && state.boot_id == boot_id).await;
    assert_eq!(me.ask(&there, "who").await.unwrap(), "1");
    me.transport.close(PATIENCE).await;
}

/// Prints what docs/decisions/0002-node-links.md quotes; fails only where something is broken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_answer_each_other_at_speed() {
    if served_as_child().await {
        return;
    }
    let me = parent("speed").await;
    let other = Other::start("two_processes_answer_each_other_at_speed", &me.peer, 0);
    let there = other.as_node(&me.transport);
    me.transport.set_peers(NodeId(1), vec![other.peer.clone()]);
    me.wait_link(&there, "up", |state| state.up).await;
    for (askers, requests, size) in [(1, 2_000, 100), (64, 60_000, 100), (512, 120_000, 100), (64, 10_000, 4096)] {
        let rate = rate(&me, askers, requests, size).await;
        eprintln!(
            "{askers} askers, {size} B each way: {rate:.0} requests/s, {:.1} µs each",
            askers as f64 / rate * 1e6
        );
        assert!(rate > 1_000.0, "{askers} askers get {rate:.0} requests/s");
    }
    me.transport.close(PATIENCE).await;
}

/// Answered requests per second.
async fn rate(me: &Node, askers: usize, requests: usize, size: usize) -> f64 {
    let body = Bytes::from(vec![b'x'; size]);
    let started = Instant::now();
    let tasks: Vec<_> = (0..askers)
        .map(|_| {
            let (transport, body) = (me.transport.clone(), body.clone());
            tokio::spawn(async move {
                for _ in 0..requests / askers {
                    transport.request(NodeId(2), Class::Command, body.clone(), PATIENCE).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    (requests / askers * askers) as f64 / started.elapsed().as_secs_f64()
}
