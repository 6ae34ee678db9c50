//! Whoever knocks at the cluster port without belonging there: harmless, logged, bounded.

use super::*;
use crate::transport::{links::Links, ractor_wire::RactorWire};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

struct Target {
    wire: Arc<RactorWire>,
    links: Arc<Links>,
    address: String,
}

fn hasty() -> Options {
    Options { handshake_timeout: Duration::from_millis(300), handshakes_max: 8, ..Options::default() }
}

async fn target(options: Options, secret: &str) -> Target {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let identity = Identity::new(format!("{:016x}", rand::random::<u64>()), secret);
    let (links, wire) =
        ractor_wire::start(&options, identity, listener, Arc::new(Obedient::default()), Impairments::none())
            .await
            .unwrap();
    Target { wire, links, address }
}

impl Target {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(&self.address).await.unwrap()
    }

    /// It still answers who belongs to it.
    async fn assert_serves(&self) {
        let friend = target(Options::default(), "secret").await;
        let answer = friend.links.introduce(self.address.clone(), "friend".into(), PATIENCE).await;
        assert_eq!(answer.unwrap().0, "nice to meet you, friend");
        friend.links.close(PATIENCE).await;
    }

    async fn wait_rejected(&self, count: u64, reason: &str) {
        eventually(reason, || self.wire.rejected() >= count).await;
    }
}

/// Reads until the other side closes.
async fn closed(mut stream: TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    // a reset is as good as an end
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the stranger is not shown out");
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_is_closed_and_counted() {
    let target = target(hasty(), "secret").await;
    let magic = b"QUORATE\n\x00\x01";
    let mut knocks: Vec<Vec<u8>> = vec![
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        vec![0xff; 100_000],
        b"QUORATE\n\x00\x09 and so on, for long enough to be read as a start".to_vec(),
        // a purpose that does not exist
        [&magic[..], &[77], &[0; 32]].concat(),
        // a length of 4 GiB
        [&magic[..], &[1], &[0; 32], &[0xff; 4], &[0; 64]].concat(),
        // a session of ractor_cluster, without our handshake
        [&24u64.to_be_bytes()[..], &[10; 24]].concat(),
        // right shape, wrong proof
        [&magic[..], &[2], &[0; 32], &2u32.to_be_bytes(), b"hi", &[0; 32]].concat(),
    ];
    let random = |len: usize| (0..len).map(|_| rand::random::<u8>()).collect::<Vec<_>>();
    knocks.extend((1..40).map(|number| random(43 + number * 37)));
    let count = knocks.len() as u64;
    for knock in knocks {
        let mut stream = target.connect().await;
        // it may be closed before everything is written
        let _ = stream.write_all(&knock).await;
        closed(stream).await;
    }
    target.wait_rejected(count, "every stranger is counted").await;
    target.assert_serves().await;
    target.links.close(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_and_half_a_handshake_end_at_the_deadline() {
    let target = target(hasty(), "secret").await;
    let halves: [&[u8]; 4] =
        [b"", b"QUOR", b"QUORATE\n\x00\x01\x01", b"QUORATE\n\x00\x01\x010123456789abcdef0123456789abcdef\x00\x00"];
    for half in halves {
        let mut stream = target.connect().await;
        stream.write_all(half).await.unwrap();
        closed(stream).await;
    }
    target.wait_rejected(4, "all of them time out").await;
    // one who leaves in the middle
    let mut stream = target.connect().await;
    stream.write_all(b"QUORATE\n\x00").await.unwrap();
    drop(stream);
    target.wait_rejected(5, "the one who left is counted").await;
    target.assert_serves().await;
    target.links.close(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_is_bounded_and_does_not_keep_friends_out() {
    // long handshakes: without the bound these connections would stay for the whole test
    let options = Options { handshake_timeout: PATIENCE * 100, handshakes_max: 8, ..Options::default() };
    let target = target(options, "secret").await;
    let mut flood = Vec::new();
    for _ in 0..200 {
        flood.push(target.connect().await);
    }
    target.wait_rejected(192, "the oldest had to go").await;
    assert!(target.wire.unproven() <= 8, "{}", target.wire.unproven());
    target.assert_serves().await;
    let mut last = flood.split_off(180);
    for stream in flood {
        closed(stream).await;
    }
    // of the last ones some are still let wait
    last.truncate(0);
    eventually("the lobby empties when they leave", || target.wire.unproven() == 0).await;
    target.links.close(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_secret_is_refused_in_words() {
    let target = target(Options::default(), "secret").await;
    let other = self::target(Options::default(), "another").await;
    let error = other.links.introduce(target.address.clone(), Bytes::new(), PATIENCE).await.unwrap_err();
    assert_eq!(error, format!("{}: the cluster secret differs", target.address));
    target.wait_rejected(1, "it is counted").await;
    target.links.close(PATIENCE).await;
    other.links.close(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_acceptor_ends_an_introduction_at_its_timeout() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let target = target(Options::default(), "secret").await;
    let error = target.links.introduce(address.clone(), Bytes::new(), Duration::from_millis(200)).await.unwrap_err();
    assert_eq!(error, format!("{address} did not answer within 200ms"));
    drop(silent);
    target.links.close(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn options_and_identities_that_cannot_work_are_refused() {
    let handler: Arc<dyn Handler> = Arc::new(Obedient::default());
    let try_start = |options: Options, identity: Identity| {
        let handler = handler.clone();
        async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            start(&options, identity, listener, handler, Impairments::none()).await.err().map(|error| error.to_string())
        }
    };
    let bad = Options { handshakes_max: 0, ..Options::default() };
    assert_eq!(try_start(bad, Identity::new("x", "s")).await.unwrap(), "node links: handshakes_max is zero");
    assert!(try_start(Options::default(), Identity::new("x", "")).await.unwrap().contains("secret is empty"));
    assert!(try_start(Options::default(), Identity::new("", "s")).await.unwrap().contains("1 to 255 bytes"));
}
