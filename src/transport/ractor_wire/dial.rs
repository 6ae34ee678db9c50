//! Opening a TCP connection.
//!
//! A node that listens on a loopback address of its own (127.0.1.2, say) also dials from it: so
//! nodes of one machine can be told apart by their addresses, by whoever stands between them. On
//! every other address the system chooses, as usual.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};
use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};

/// The address to dial from, if the listener has a loopback address that is not everyone's.
pub(super) fn source(listener: &TcpListener) -> Option<Ipv4Addr> {
    match listener.local_addr().ok()?.ip() {
        IpAddr::V4(ip) if ip.is_loopback() && ip != Ipv4Addr::LOCALHOST => Some(ip),
        _ => None,
    }
}

/// Connects to the first address of `host:port` that takes the connection.
pub(super) async fn connect(address: &str, from: Option<Ipv4Addr>) -> io::Result<TcpStream> {
    let Some(from) = from else { return TcpStream::connect(address).await };
    let mut last = io::Error::new(io::ErrorKind::InvalidInput, "the name has no address");
    for target in lookup_host(address).await? {
        match connect_from(target, from).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn connect_from(target: SocketAddr, from: Ipv4Addr) -> io::Result<TcpStream> {
    if !target.ip().is_loopback() || target.is_ipv6() {
        return TcpStream::connect(target).await;
    }
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(from.into(), 0))?;
    socket.connect(target).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_loopback_address_of_its_own_is_also_where_its_connections_come_from() {
        let target = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = target.local_addr().expect("an address").to_string();
        for (listens_on, comes_from) in [("127.0.99.7:0", "127.0.99.7"), ("127.0.0.1:0", "127.0.0.1")] {
            let own = TcpListener::bind(listens_on).await.expect("a port");
            let (dialled, accepted) = tokio::join!(connect(&address, source(&own)), target.accept());
            dialled.expect("connected");
            assert_eq!(accepted.expect("accepted").1.ip().to_string(), comes_from);
        }
    }
}
