//! What carries packets between nodes: UDP in production, memory for many nodes in one process.

use futures::future::BoxFuture;

/// The longest packet on the wire. With IP and UDP headers it stays below 1500 bytes.
pub const PACKET_BYTES_MAX: usize = PLAINTEXT_BYTES_MAX + super::seal::OVERHEAD_BYTES;
/// The longest packet before it is sealed.
pub(super) const PLAINTEXT_BYTES_MAX: usize = 1358;

/// An unreliable packet service: packets may get lost, doubled, reordered or forged.
pub trait Datagrams: Send + Sync + 'static {
    /// Sends a packet to `address` (`host:port`). Never waits; what cannot be sent is dropped.
    fn send(&self, address: &str, packet: Vec<u8>);

    /// As [`Datagrams::send`], to everyone whom the name stands for at this moment.
    fn send_to_all(&self, name: &str, packet: Vec<u8>);

    /// Completes when there may be a packet to receive. Dropping it loses nothing.
    fn readable(&self) -> BoxFuture<'_, ()>;

    /// Takes a packet that has arrived, cut to the length of `buffer`.
    fn try_receive(&self, buffer: &mut [u8]) -> Option<usize>;
}
