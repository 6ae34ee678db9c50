//! A TCP connection as `ractor_cluster` takes it, and a handle that closes it from outside.

use ractor_cluster::{BoxRead, BoxWrite, ClusterBidiStream};
use std::{io, net::Shutdown, time::Duration};
use tokio::{io::BufReader, net::TcpStream};

const READ_BUFFER_BYTES: usize = 128 * 1024;

/// Sets what every connection of ours has: no delay, and probes when idle.
pub(super) fn tune(stream: &TcpStream, keepalive: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let probes = socket2::TcpKeepalive::new().with_time(keepalive).with_interval(keepalive / 2);
    socket2::SockRef::from(stream).set_tcp_keepalive(&probes)
}

/// Closes a connection whose halves belong to someone else.
pub(super) struct Socket(std::net::TcpStream);

impl Socket {
    /// Splits `stream` into what `ractor_cluster` gets and what closes it.
    pub fn share(stream: TcpStream) -> io::Result<(TcpStream, Self)> {
        let stream = stream.into_std()?;
        let handle = stream.try_clone()?;
        Ok((TcpStream::from_std(stream)?, Self(handle)))
    }

    /// Ends both directions at once. Reads and writes under way return.
    pub fn shut_down(&self) {
        // an error means that it is closed already
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// The stream of a link, with the label by which its session is recognised.
pub(super) struct LinkStream {
    pub stream: TcpStream,
    pub label: String,
}

impl ClusterBidiStream for LinkStream {
    fn split(self: Box<Self>) -> (BoxRead, BoxWrite) {
        let (read, write) = self.stream.into_split();
        (Box::new(BufReader::with_capacity(READ_BUFFER_BYTES, read)), Box::new(write))
    }

    fn peer_label(&self) -> Option<String> {
        Some(self.label.clone())
    }
}
