//! Gossip: finds peers, spreads small metadata, and hints that a node is gone.
//!
//! ```text
//!            ┌──────────────── driver (one task) ────────────────┐
//! UDP or ───▶│ Datagrams ─▶ Seal::open ─▶ Engine::receive        │
//! memory ◀───│ Datagrams ◀─ Seal::seal ◀─ Engine::take_packets   │──▶ watch<View> ──▶ whoever cares
//!            │                  clock ──▶ Engine::advance        │
//!            └───────────────────────────────────────────────────┘
//! ```
//!
//! [`Engine`] is the whole protocol (SWIM by `foca`, the records, the announcements) without a
//! clock, a socket or a random source of its own, so a simulation runs it in virtual time. The
//! driver gives it packets first and the time second: a process that was stopped for a while
//! hears what its peers said before it suspects any of them.
//!
//! Invariants:
//! - GOSSIP-NEVER-OWNS: nothing here decides ownership, votes or the roster; those change only
//!   through Raft. What is seen here is a hint and nothing more.
//! - What does not carry the cluster's seal is counted, never answered, and changes nothing.
//! - A restart is told by another boot id, never by a name or an address.
//!
//! docs/protocol.md has the bytes.

mod announce;
mod datagram;
mod driver;
mod engine;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod handle;
mod identity;
mod impaired;
pub mod memory;
mod options;
mod record;
mod seal;
mod shelf;
mod timers;
mod udp;
mod view;
mod wire;

#[cfg(test)]
mod driver_tests;
#[cfg(test)]
mod engine_tests;
#[cfg(test)]
mod simulation;

pub use datagram::{Datagrams, PACKET_BYTES_MAX};
pub use engine::{Counts, Engine, Packet, Refused};
pub use handle::{Error, Membership, start, start_with};
pub use options::Options;
pub use record::{Load, LocalRecord, RECORD_BYTES_MAX, Record};
pub use udp::Udp;
pub use view::{MemberView, State, View};
