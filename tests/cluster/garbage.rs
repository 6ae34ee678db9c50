//! Strangers on the cluster port: noise, threats, silence. The node writes it down and goes on.

use crate::{
    audit::audit,
    harness::{Cluster, Node, PATIENCE, turn, wait_until},
    shop::{self, Load},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::net::UdpSocket;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const VISITORS: usize = 40;
const DATAGRAMS: usize = 2000;
const DATAGRAM_BYTES_MAX: usize = 1400;
const SEED: u64 = 0x6761_7262_6167_6521;
/// Far below one line per visitor and datagram.
const LINES_MAX: usize = 200;
/// How a connection begins, by docs/protocol.md: magic, version 1.
const GREETING: &[u8] = b"QUORATE\n\x00\x01";

#[tokio::test]
async fn a_node_goes_on_serving_whatever_is_thrown_at_its_cluster_port() {
    let _turn = turn().await;
    let cluster = Cluster::start(3).await;
    shop::stock_up(cluster.node(0)).await;
    let load = Load::start(&cluster, "garbage", 16);
    let victim = cluster.node(0);
    let silent = callers(victim, &[]).await;
    let half = callers(victim, GREETING).await;
    shout(victim).await;
    spray(victim);
    load.wait_more(48, "under garbage").await;
    hung_up(silent, "a silent client").await;
    hung_up(half, "a client with half a greeting").await;
    check_log(victim).await;
    // As before: ready, linked with everyone, alive for everyone.
    for node in cluster.nodes() {
        assert_eq!(node.http_get("/readyz").await.status, 200, "{}", node.name);
        let healthy = || async { all_well(node).await };
        wait_until(&format!("{} sees three living, linked members", node.name), PATIENCE, healthy).await;
    }
    spray(victim);
    shout(victim).await;
    load.wait_more(48, "under more garbage").await;
    audit(&cluster, &load.finish().await).await;
}

/// Connections that say `words` and then nothing.
async fn callers(node: &Node, words: &[u8]) -> Vec<TcpStream> {
    let mut callers = Vec::new();
    for _ in 0..VISITORS {
        let mut stream = TcpStream::connect(&node.listen).await.expect("the port is open");
        stream.write_all(words).await.expect("a new connection takes a few bytes");
        callers.push(stream);
    }
    callers
}

/// The node does not wait for them for ever.
async fn hung_up(callers: Vec<TcpStream>, who: &str) {
    for mut stream in callers {
        let mut rest = Vec::new();
        // The end of the stream or a reset, it is all the same.
        let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "{who} is still connected");
    }
}

/// Random bytes, lengths past all measure, and greetings that go wrong.
async fn shout(node: &Node) {
    let mut rng = StdRng::seed_from_u64(SEED);
    let noise = |rng: &mut StdRng, len: usize| (0..len).map(|_| rng.random()).collect::<Vec<u8>>();
    for visitor in 0..VISITORS {
        let words = match visitor % 5 {
            0 => noise(&mut rng, 4096),
            1 => [&u64::MAX.to_be_bytes()[..], &[0; 64]].concat(),
            2 => [&u32::MAX.to_be_bytes()[..], &noise(&mut rng, 100)].concat(),
            // Purpose (a link), a nonce, and then a body of 4 GiB.
            3 => [GREETING, &[1], &noise(&mut rng, 32), &u32::MAX.to_be_bytes(), &noise(&mut rng, 2000)].concat(),
            _ => [GREETING, &noise(&mut rng, 500)].concat(),
        };
        let mut stream = TcpStream::connect(&node.listen).await.expect("the port is open");
        // The node may hang up at any byte of it.
        let _ = stream.write_all(&words).await;
        if visitor % 2 == 0 {
            drop(stream);
        } else {
            hung_up(vec![stream], "a client that sent noise").await;
        }
    }
}

fn spray(node: &Node) {
    let mut rng = StdRng::seed_from_u64(SEED + 1);
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    for _ in 0..DATAGRAMS {
        let len = rng.random_range(0..=DATAGRAM_BYTES_MAX);
        let bytes: Vec<u8> = (0..len).map(|_| rng.random()).collect();
        // A full buffer on the other side loses it: UDP.
        let _ = socket.send_to(&bytes, &node.listen);
    }
}

async fn check_log(node: &Node) {
    let (tcp, udp) = ("cluster port: rejected a connection", "threw away a gossip packet");
    for line in [tcp, udp] {
        wait_until(&format!("the log tells {line:?}"), PATIENCE, || async { node.log_text().contains(line) }).await;
    }
    let text = node.log_text();
    let lines = text.lines().filter(|line| line.contains(tcp) || line.contains(udp)).count();
    assert!(lines <= LINES_MAX, "{lines} lines: strangers fill the log");
    assert!(!text.contains("panicked"), "{text}");
}

async fn all_well(node: &Node) -> bool {
    let members = node.http_get("/admin/v1/members").await.json();
    let members = members["data"].as_array().cloned().unwrap_or_default();
    members.len() == 3 && members.iter().all(|member| member["gossip"] == "alive" && member["linked"] == true)
}
