//! A connection, with or without TLS, as `ractor_cluster` takes it, and a handle that closes it from outside.

use ractor_cluster::{BoxRead, BoxWrite, ClusterBidiStream};
use std::{
    io,
    net::Shutdown,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, BufReader, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::TlsStream;

const READ_BUFFER_BYTES: usize = 128 * 1024;

/// Sets what every connection of ours has: no delay, and probes when idle.
pub(super) fn tune(stream: &TcpStream, keepalive: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let probes = socket2::TcpKeepalive::new().with_time(keepalive).with_interval(keepalive / 2);
    socket2::SockRef::from(stream).set_tcp_keepalive(&probes)
}

/// Where bytes go to a peer and come from it.
pub(super) enum Channel {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Channel {
    /// What closes it when it belongs to someone else.
    pub fn socket(&self) -> io::Result<Socket> {
        let tcp = match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
        };
        socket2::SockRef::from(tcp).try_clone().map(Socket)
    }
}

impl AsyncRead for Channel {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, into),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, into),
        }
    }
}

impl AsyncWrite for Channel {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}

/// Closes a connection that belongs to someone else.
pub(super) struct Socket(socket2::Socket);

impl Socket {
    /// Ends both directions at once. Reads and writes under way return.
    pub fn shut_down(&self) {
        // an error means that it is closed already
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// The stream of a link, with the label by which its session is recognised.
pub(super) struct LinkStream {
    pub channel: Channel,
    pub label: String,
}

impl ClusterBidiStream for LinkStream {
    fn split(self: Box<Self>) -> (BoxRead, BoxWrite) {
        match self.channel {
            Channel::Plain(tcp) => {
                let (read, write) = tcp.into_split();
                (Box::new(BufReader::with_capacity(READ_BUFFER_BYTES, read)), Box::new(write))
            }
            Channel::Tls(tls) => {
                let (read, write) = tokio::io::split(tls);
                (Box::new(BufReader::with_capacity(READ_BUFFER_BYTES, read)), Box::new(write))
            }
        }
    }

    fn peer_label(&self) -> Option<String> {
        Some(self.label.clone())
    }
}
