//! Connections, carried piece by piece.

use super::{Lines, condition::Line};
use std::{sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::Instant,
};

/// Connections to one node at a time, those that wait for a cut to heal included; one more is
/// closed at once.
pub(super) const CONNECTIONS_MAX: usize = 128;
const PIECE_BYTES: usize = 16 << 10;
/// Pieces on their way in one direction of a connection: 512 KiB.
const PIECES_MAX: usize = 32;
/// A pause after `accept` failed for want of file descriptors or the like.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A piece, and when it arrives.
type Piece = (Instant, Vec<u8>);

pub(super) async fn run(listener: TcpListener, lines: Lines) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => {
                let Ok((stream, peer)) = accepted else {
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                };
                // Nobody else has business here; and past the bound a connection ends at once.
                if let (Some(from), Ok(permit)) = (lines.sender(peer.ip()), permits.clone().try_acquire_owned()) {
                    let lines = lines.clone();
                    connections.spawn(async move {
                        carry(stream, &lines, from).await;
                        drop(permit);
                    });
                }
            }
        }
    }
}

/// From the first packet to the last, both ways.
async fn carry(stream: TcpStream, lines: &Lines, from: usize) {
    let (mut there, mut back) = (lines.line(from, lines.to), lines.line(lines.to, from));
    let mut resets = lines.line(from, lines.to);
    let carried = async {
        // A connection is made of packets in both directions.
        there.open().await;
        back.open().await;
        let Ok(onward) = TcpStream::connect(lines.target()).await else { return };
        if stream.set_nodelay(true).and_then(|()| onward.set_nodelay(true)).is_err() {
            return;
        }
        let (near_read, near_write) = stream.into_split();
        let (far_read, far_write) = onward.into_split();
        tokio::join!(pump(near_read, far_write, there), pump(far_read, near_write, back));
    };
    tokio::select! {
        () = carried => {}
        () = resets.reset() => {}
    }
}

/// One direction: reads, waits as long as the pieces are on their way, writes.
async fn pump(read: OwnedReadHalf, write: OwnedWriteHalf, line: Line) {
    let (queue, pieces) = mpsc::channel(PIECES_MAX);
    let writer_line = line.again();
    tokio::join!(take(read, queue, line), give(write, pieces, writer_line));
}

async fn take(mut read: OwnedReadHalf, queue: mpsc::Sender<Piece>, mut line: Line) {
    let mut last = Instant::now();
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        let taken = tokio::select! {
            taken = read.read(&mut buffer) => taken,
            // Whoever should get it is gone.
            () = queue.closed() => return,
        };
        let Ok(taken @ 1..) = taken else { return };
        // Never before what was sent before it.
        last = last.max(Instant::now() + line.stream_delay());
        if queue.send((last, buffer[..taken].to_vec())).await.is_err() {
            return;
        }
    }
}

async fn give(mut write: OwnedWriteHalf, mut pieces: mpsc::Receiver<Piece>, mut line: Line) {
    while let Some((due, piece)) = pieces.recv().await {
        tokio::time::sleep_until(due).await;
        line.open().await;
        if write.write_all(&piece).await.is_err() {
            return;
        }
    }
    // The end of a stream is sent like anything else.
    line.open().await;
    let _ = write.shutdown().await;
}
