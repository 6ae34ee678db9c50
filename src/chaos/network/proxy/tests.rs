use super::*;
use std::{
    net::SocketAddrV4,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream, UdpSocket},
};

const PATIENCE: Duration = Duration::from_secs(20);
/// Long enough for anything on loopback to have arrived if it were going to.
const SILENCE: Duration = Duration::from_millis(300);

/// Two nodes and the network between them: they are the sockets of this test.
struct Pair {
    network: Proxies,
    places: Vec<Place>,
    listeners: Vec<TcpListener>,
    sockets: Vec<UdpSocket>,
}

impl Pair {
    /// `block` keeps tests that run side by side out of each other's way.
    async fn start(block: u8) -> Self {
        let address = |role: u8, number: u8, port: u16| {
            SocketAddrV4::new(std::net::Ipv4Addr::new(127, block, role, number), port)
        };
        let probe = std::net::TcpListener::bind(SocketAddr::V4(address(1, 1, 0))).expect("a port");
        let port = probe.local_addr().expect("its address").port();
        drop(probe);
        let place = |number| Place { listen: address(1, number, port), proxied: address(2, number, port) };
        let places: Vec<Place> = (1..=2).map(place).collect();
        let network = Proxies::start(&places, 1).await.expect("the proxies");
        let (mut listeners, mut sockets) = (Vec::new(), Vec::new());
        for place in &places {
            listeners.push(TcpListener::bind(SocketAddr::V4(place.listen)).await.expect("a listener"));
            sockets.push(UdpSocket::bind(SocketAddr::V4(place.listen)).await.expect("a socket"));
        }
        Self { network, places, listeners, sockets }
    }

    /// A connection from node 1 to node 2, as each of them has it.
    async fn connect(&self) -> (TcpStream, TcpStream) {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(SocketAddr::V4(SocketAddrV4::new(*self.places[0].listen.ip(), 0))).expect("its own address");
        let (near, far) =
            tokio::join!(socket.connect(SocketAddr::V4(self.places[1].proxied)), self.listeners[1].accept());
        (near.expect("connected"), far.expect("accepted").0)
    }

    fn block(&self, from: u16, to: u16) {
        self.network.apply(1, Change { pairs: vec![(from, to)], condition: Condition::blocked() });
    }
}

async fn says(stream: &mut TcpStream, text: &[u8]) {
    stream.write_all(text).await.expect("written");
}

async fn hears(stream: &mut TcpStream, text: &[u8]) {
    let mut heard = vec![0; text.len()];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut heard)).await.expect("in time").expect("read");
    assert_eq!(heard, text);
}

async fn hears_nothing(stream: &mut TcpStream) {
    let mut byte = [0];
    assert!(tokio::time::timeout(SILENCE, stream.read(&mut byte)).await.is_err(), "something came through: {byte:?}");
}

#[tokio::test]
async fn a_blocked_direction_is_silent_while_the_other_one_speaks() {
    let pair = Pair::start(101).await;
    let (mut near, mut far) = pair.connect().await;
    says(&mut near, b"hello").await;
    hears(&mut far, b"hello").await;
    pair.block(1, 2);
    says(&mut near, b"lost?").await;
    hears_nothing(&mut far).await;
    says(&mut far, b"heard").await;
    hears(&mut near, b"heard").await;
    pair.network.restore(1);
    hears(&mut far, b"lost?").await;
}

#[tokio::test]
async fn no_connection_is_made_and_none_ends_across_a_cut() {
    let pair = Pair::start(102).await;
    let (mut near, far) = pair.connect().await;
    pair.block(2, 1);
    drop(far);
    hears_nothing(&mut near).await;
    let waiting = pair.connect();
    tokio::pin!(waiting);
    assert!(tokio::time::timeout(SILENCE, &mut waiting).await.is_err(), "connected across a cut");
    pair.network.restore_all();
    waiting.await;
    let mut rest = Vec::new();
    tokio::time::timeout(PATIENCE, near.read_to_end(&mut rest)).await.expect("the end arrives").expect("read");
}

#[tokio::test]
async fn datagrams_are_dropped_in_one_direction_only() {
    let pair = Pair::start(103).await;
    pair.block(1, 2);
    let [one, two] = &pair.sockets[..] else { unreachable!("two nodes") };
    let mut buffer = [0; 16];
    one.send_to(b"lost", SocketAddr::V4(pair.places[1].proxied)).await.expect("sent");
    assert!(tokio::time::timeout(SILENCE, two.recv_from(&mut buffer)).await.is_err());
    two.send_to(b"heard", SocketAddr::V4(pair.places[0].proxied)).await.expect("sent");
    let (length, _) = tokio::time::timeout(PATIENCE, one.recv_from(&mut buffer)).await.expect("in time").expect("read");
    assert_eq!(&buffer[..length], b"heard");
}

#[tokio::test]
async fn what_passes_takes_as_long_as_it_was_told_to() {
    let pair = Pair::start(104).await;
    let (mut near, mut far) = pair.connect().await;
    let delay = Duration::from_millis(150);
    let condition = Condition { delay, ..Condition::default() };
    pair.network.apply(7, Change { pairs: vec![(1, 2)], condition });
    let sent = Instant::now();
    says(&mut near, b"slow").await;
    pair.sockets[0].send_to(b"slow", SocketAddr::V4(pair.places[1].proxied)).await.expect("sent");
    hears(&mut far, b"slow").await;
    assert!(sent.elapsed() >= delay);
    let mut buffer = [0; 16];
    tokio::time::timeout(PATIENCE, pair.sockets[1].recv_from(&mut buffer)).await.expect("in time").expect("read");
    assert!(sent.elapsed() >= delay);
}

#[tokio::test]
async fn a_reset_ends_the_connections_of_a_node() {
    let pair = Pair::start(105).await;
    let (mut near, _far) = pair.connect().await;
    says(&mut near, b"x").await;
    pair.network.reset(2);
    let mut byte = [0];
    let read = tokio::time::timeout(PATIENCE, near.read(&mut byte)).await.expect("in time");
    assert!(matches!(read, Ok(0) | Err(_)));
}

#[tokio::test]
async fn a_cut_takes_no_more_memory_than_its_bound() {
    let pair = Pair::start(106).await;
    let (mut near, _far) = pair.connect().await;
    pair.block(1, 2);
    let piece = vec![0; 64 << 10];
    let mut taken = 0;
    // Ends because nobody reads on: queue and the kernel's buffers are full.
    while let Ok(Ok(written)) = tokio::time::timeout(SILENCE, near.write(&piece)).await {
        taken += written;
        assert!(taken < 64 << 20, "it takes whatever it is given");
    }
    let flood: Vec<u8> = vec![1; 1000];
    let slow = Condition { delay: Duration::from_secs(60), ..Condition::default() };
    pair.network.apply(1, Change { pairs: vec![(1, 2)], condition: slow });
    for _ in 0..2 * udp::DELAYED_MAX {
        pair.sockets[0].send_to(&flood, SocketAddr::V4(pair.places[1].proxied)).await.expect("sent");
    }
    // Still alive, and as fast as ever in the other direction.
    pair.sockets[1].send_to(b"heard", SocketAddr::V4(pair.places[0].proxied)).await.expect("sent");
    let mut buffer = [0; 16];
    let heard = tokio::time::timeout(PATIENCE, pair.sockets[0].recv_from(&mut buffer)).await;
    assert_eq!(heard.expect("in time").expect("read").0, 5);
}

#[tokio::test]
async fn strangers_are_turned_away() {
    let pair = Pair::start(107).await;
    let mut stranger = TcpStream::connect(SocketAddr::V4(pair.places[1].proxied)).await.expect("connected");
    let mut byte = [0];
    let read = tokio::time::timeout(PATIENCE, stranger.read(&mut byte)).await.expect("in time");
    assert!(matches!(read, Ok(0) | Err(_)));
}
