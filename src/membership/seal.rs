//! The seal on every packet: who does not know the cluster's secret can neither read nor write.
//!
//! ```text
//! byte 0     1       2        18        26                          n-16      n
//!      'Q' │ version │ salt 16 │ counter 8 │ ChaCha20-Poly1305 ciphertext │ tag 16
//!      └───────── authenticated ─────────┘
//! ```
//!
//! Each sender draws a random salt when it starts. The key is HKDF-SHA256 of the cluster secret
//! with that salt and the cluster id as context, the nonce is the counter, which never repeats
//! under one salt. The receiver keeps, per salt, the key and a replay window of 64 counters.
//!
//! A receiver that has just started, or has let go of a salt among [`PEERS_MAX`], knows no
//! counters of it and takes an old packet for a new one. SWIM orders news by generation and
//! incarnation, so such a packet tells it nothing that holds for long.

use super::handle::Error;
use crate::catalog::ClusterId;
use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey},
    hkdf,
    rand::{SecureRandom, SystemRandom},
};
use std::collections::HashMap;

/// What sealing adds to a packet.
pub(super) const OVERHEAD_BYTES: usize = HEADER_BYTES + TAG_BYTES;
/// The most senders whose keys are kept; the one unheard for longest gives way.
const PEERS_MAX: usize = 1024;
const HEADER_BYTES: usize = 26;
const TAG_BYTES: usize = 16;
const MAGIC: [u8; 2] = [b'Q', 1];
const WINDOW: u64 = 64;
const CONTEXT: &[u8] = b"quorate gossip v1";

type Salt = [u8; 16];

/// Why a packet was thrown away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Rejected {
    #[error("too short, too long, or not of this protocol")]
    Malformed,
    /// Another secret, another cluster, or tampered with: cannot be told apart.
    #[error("the seal does not fit")]
    Unauthentic,
    #[error("seen before, or too old to tell")]
    Replayed,
}

impl Rejected {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Unauthentic => "unauthentic",
            Self::Replayed => "replayed",
        }
    }
}

/// Seals what this node sends and opens what it receives.
pub(super) struct Seal {
    secret: Vec<u8>,
    cluster: ClusterId,
    salt: Salt,
    key: LessSafeKey,
    counter: u64,
    peers: HashMap<Salt, Peer>,
    /// Counts opened packets; tells which peer was unheard for longest.
    clock: u64,
}

struct Peer {
    key: LessSafeKey,
    window: Window,
    heard: u64,
}

impl Seal {
    pub fn new(secret: &[u8], cluster: ClusterId) -> Result<Self, Error> {
        let mut salt = Salt::default();
        SystemRandom::new().fill(&mut salt).map_err(|_| Error::Cryptography)?;
        Self::with_salt(secret, cluster, salt)
    }

    fn with_salt(secret: &[u8], cluster: ClusterId, salt: Salt) -> Result<Self, Error> {
        if secret.is_empty() {
            return Err(Error::NoSecret);
        }
        let key = derive(secret, cluster, &salt).ok_or(Error::Cryptography)?;
        Ok(Self { secret: secret.to_vec(), cluster, salt, key, counter: 0, peers: HashMap::new(), clock: 0 })
    }

    /// The packet for the wire; `None` if it is too long, or after 2^64 packets.
    pub fn seal(&mut self, plain: &[u8]) -> Option<Vec<u8>> {
        if plain.len() > super::datagram::PLAINTEXT_BYTES_MAX {
            return None;
        }
        self.counter = self.counter.checked_add(1)?;
        let mut packet = Vec::with_capacity(plain.len() + OVERHEAD_BYTES);
        packet.extend(MAGIC);
        packet.extend(self.salt);
        packet.extend(self.counter.to_be_bytes());
        let header = Aad::from(<[u8; HEADER_BYTES]>::try_from(packet.as_slice()).ok()?);
        packet.extend_from_slice(plain);
        let body = &mut packet[HEADER_BYTES..];
        let tag = self.key.seal_in_place_separate_tag(nonce(self.counter), header, body).ok()?;
        packet.extend(tag.as_ref());
        Some(packet)
    }

    /// The plaintext, in place. A packet that is refused changes nothing here.
    pub fn open<'a>(&mut self, packet: &'a mut [u8]) -> Result<&'a [u8], Rejected> {
        if packet.len() < OVERHEAD_BYTES || packet.len() > super::PACKET_BYTES_MAX {
            return Err(Rejected::Malformed);
        }
        let (header, body) = packet.split_at_mut(HEADER_BYTES);
        let (salt, counter) = parse(header).ok_or(Rejected::Malformed)?;
        if salt == self.salt {
            // Our own packet, sent back to us.
            return Err(Rejected::Replayed);
        }
        self.clock += 1;
        if let Some(peer) = self.peers.get_mut(&salt) {
            if !peer.window.admits(counter) {
                return Err(Rejected::Replayed);
            }
            let plain = open(&peer.key, counter, header, body)?;
            peer.window.mark(counter);
            peer.heard = self.clock;
            return Ok(plain);
        }
        let key = derive(&self.secret, self.cluster, &salt).ok_or(Rejected::Unauthentic)?;
        let plain = open(&key, counter, header, body)?;
        self.admit(salt, Peer { key, window: Window::starting_at(counter), heard: self.clock });
        Ok(plain)
    }

    /// Only senders who have proved that they know the secret get a place.
    fn admit(&mut self, salt: Salt, peer: Peer) {
        if self.peers.len() >= PEERS_MAX {
            let unheard = self.peers.iter().min_by_key(|(_, peer)| peer.heard).map(|(salt, _)| *salt);
            if let Some(unheard) = unheard {
                self.peers.remove(&unheard);
            }
        }
        self.peers.insert(salt, peer);
    }
}

fn parse(header: &[u8]) -> Option<(Salt, u64)> {
    let rest = header.strip_prefix(&MAGIC)?;
    let (salt, counter) = rest.split_at_checked(16)?;
    Some((salt.try_into().ok()?, u64::from_be_bytes(counter.try_into().ok()?)))
}

fn derive(secret: &[u8], cluster: ClusterId, salt: &Salt) -> Option<LessSafeKey> {
    let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(secret);
    let cluster = cluster.0.to_be_bytes();
    let info = [CONTEXT, &cluster];
    let expanded = extracted.expand(&info, &CHACHA20_POLY1305).ok()?;
    Some(LessSafeKey::new(UnboundKey::from(expanded)))
}

fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

fn open<'a>(key: &LessSafeKey, counter: u64, header: &[u8], body: &'a mut [u8]) -> Result<&'a [u8], Rejected> {
    let opened = key.open_in_place(nonce(counter), Aad::from(header), body);
    opened.map(|plain| &*plain).map_err(|_| Rejected::Unauthentic)
}

/// Which of the last [`WINDOW`] counters have been seen.
#[derive(Debug, Clone, Copy)]
struct Window {
    highest: u64,
    /// Bit n stands for `highest - n`.
    seen: u64,
}

impl Window {
    fn starting_at(counter: u64) -> Self {
        Self { highest: counter, seen: 1 }
    }

    fn admits(&self, counter: u64) -> bool {
        match self.highest.checked_sub(counter) {
            None => true,
            Some(age) => age < WINDOW && self.seen & (1 << age) == 0,
        }
    }

    fn mark(&mut self, counter: u64) {
        if counter <= self.highest {
            self.seen |= 1 << (self.highest - counter);
            return;
        }
        let step = counter - self.highest;
        self.seen = if step < WINDOW { self.seen << step | 1 } else { 1 };
        self.highest = counter;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: ClusterId = ClusterId(7);

    fn seal(salt: u8) -> Seal {
        Seal::with_salt(b"secret", CLUSTER, [salt; 16]).expect("valid")
    }

    fn reopened(seal: &mut Seal, packet: &[u8]) -> Result<Vec<u8>, Rejected> {
        seal.open(&mut packet.to_vec()).map(<[u8]>::to_vec)
    }

    #[test]
    fn a_packet_is_opened_once() {
        let (mut a, mut b) = (seal(1), seal(2));
        let packet = a.seal(&[5; 1358]).expect("fits");
        assert_eq!(packet.len(), super::super::PACKET_BYTES_MAX);
        assert_eq!(reopened(&mut b, &packet), Ok(vec![5; 1358]));
        assert_eq!(reopened(&mut b, &packet), Err(Rejected::Replayed));
        assert_eq!(reopened(&mut a, &packet), Err(Rejected::Replayed), "sent back to its sender");
        assert_eq!(a.seal(&[5; 1359]), None);
    }

    #[test]
    fn no_bit_can_be_changed_and_the_original_still_opens() {
        let (mut a, mut b) = (seal(1), seal(2));
        let known = a.seal(b"first").expect("fits");
        assert!(reopened(&mut b, &known).is_ok());
        let packet = a.seal(b"payload").expect("fits");
        for position in 0..packet.len() {
            let mut tampered = packet.clone();
            tampered[position] ^= 0x10;
            let expected = if position < 2 { Rejected::Malformed } else { Rejected::Unauthentic };
            let refused = reopened(&mut b, &tampered).expect_err("tampered");
            // A changed counter may also fall on one that was seen.
            assert!(refused == expected || refused == Rejected::Replayed, "byte {position}: {refused}");
        }
        for length in 0..packet.len() {
            assert!(reopened(&mut b, &packet[..length]).is_err(), "cut to {length}");
        }
        assert_eq!(reopened(&mut b, &packet), Ok(b"payload".to_vec()));
    }

    #[test]
    fn another_secret_or_another_cluster_does_not_fit() {
        let mut b = seal(2);
        let mut stranger = Seal::with_salt(b"other", CLUSTER, [3; 16]).expect("valid");
        let mut neighbour = Seal::with_salt(b"secret", ClusterId(8), [4; 16]).expect("valid");
        for other in [&mut stranger, &mut neighbour] {
            let packet = other.seal(b"hello").expect("fits");
            assert_eq!(reopened(&mut b, &packet), Err(Rejected::Unauthentic));
        }
        assert!(b.peers.is_empty(), "a stranger gets no place");
        assert!(matches!(Seal::new(b"", CLUSTER), Err(Error::NoSecret)));
    }

    #[test]
    fn packets_may_overtake_each_other_within_the_window() {
        let (mut a, mut b) = (seal(1), seal(2));
        let packets: Vec<_> = (0..70).map(|i| a.seal(&[i]).expect("fits")).collect();
        assert!(reopened(&mut b, &packets[69]).is_ok());
        for (late, packet) in packets.iter().enumerate().take(69).skip(6) {
            assert_eq!(reopened(&mut b, packet), Ok(vec![late as u8]), "{late}");
            assert_eq!(reopened(&mut b, packet), Err(Rejected::Replayed), "{late} again");
        }
        assert_eq!(reopened(&mut b, &packets[5]), Err(Rejected::Replayed), "64 behind: too old to tell");
    }

    #[test]
    fn a_jump_over_the_whole_window_forgets_the_old_counters() {
        let mut window = Window::starting_at(10);
        window.mark(11);
        window.mark(11 + WINDOW);
        assert!(!window.admits(11) && window.admits(12) && !window.admits(11 + WINDOW));
        window.mark(u64::MAX);
        assert!(!window.admits(u64::MAX) && window.admits(u64::MAX - 63) && !window.admits(12));
    }

    #[test]
    fn the_sender_unheard_for_longest_gives_way() {
        let mut b = seal(0xff);
        let salted = |i: usize| {
            let mut salt = [0; 16];
            salt[..8].copy_from_slice(&(i as u64 + 1).to_be_bytes());
            Seal::with_salt(b"secret", CLUSTER, salt).expect("valid")
        };
        let (mut first, mut second) = (salted(0), salted(1));
        for sender in [&mut first, &mut second] {
            assert!(reopened(&mut b, &sender.seal(b"x").expect("fits")).is_ok());
        }
        for i in 2..PEERS_MAX {
            assert!(reopened(&mut b, &salted(i).seal(b"x").expect("fits")).is_ok());
        }
        assert!(reopened(&mut b, &first.seal(b"x").expect("fits")).is_ok(), "heard again");
        assert!(reopened(&mut b, &salted(PEERS_MAX).seal(b"x").expect("fits")).is_ok());
        assert_eq!(b.peers.len(), PEERS_MAX);
        assert!(b.peers.contains_key(&first.salt) && !b.peers.contains_key(&second.salt));
    }
}
