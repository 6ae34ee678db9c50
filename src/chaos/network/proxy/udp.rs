//! Datagrams: lost, doubled, delayed, overtaken.

use super::{Lines, condition::Line};
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
};
use tokio::{net::UdpSocket, time::Instant};

/// Gossip packets have 1,358 bytes at most; what is longer is nobody's and is dropped.
const DATAGRAM_BYTES_MAX: usize = 2048;
/// Datagrams on their way to one node; one more is lost, as in a router.
pub(super) const DELAYED_MAX: usize = 4096;

/// In the order in which they arrive; the number keeps those of one moment in order.
type Delayed = BinaryHeap<Reverse<(Instant, u64, Vec<u8>)>>;

pub(super) async fn run(socket: UdpSocket, lines: Lines) {
    let mut delayed = Delayed::new();
    let mut senders: HashMap<usize, Line> = HashMap::new();
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX + 1];
    let mut number = 0;
    loop {
        let due = delayed.peek().map(|Reverse((due, ..))| *due);
        tokio::select! {
            received = socket.recv_from(&mut buffer) => {
                // An error is what became of an earlier datagram: nobody listened there.
                let Ok((length, from)) = received else { continue };
                let Some(from) = lines.sender(from.ip()).filter(|_| length <= DATAGRAM_BYTES_MAX) else { continue };
                let line = senders.entry(from).or_insert_with(|| lines.line(from, lines.to));
                for delay in line.datagram_delays() {
                    number += 1;
                    if delayed.len() < DELAYED_MAX {
                        delayed.push(Reverse((Instant::now() + delay, number, buffer[..length].to_vec())));
                    }
                }
            }
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                if let Some(Reverse((.., datagram))) = delayed.pop() {
                    // A loss is a loss.
                    let _ = socket.send_to(&datagram, lines.target()).await;
                }
            }
        }
    }
}
