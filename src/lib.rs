//! Quorate: an actor-based clustered runtime.
//!
//! A cluster of equal nodes runs *entities*: supervised, event-sourced actors, each living on
//! exactly one node at a time, its events replicated to a quorum of peers and kept in local sled.
//!
//! ```text
//! HTTP (any node) ── ingress ── router ─ local or over a node link ─▶ shard host (owner) ─▶ entity actor: decide
//!      ▲                                                                     │ events + effects
//!      └──────── reply after commit ◀── apply (every replica: evolve) ◀── Raft ◀┘ packed proposal
//!                                           │                          │ journal: one sled batch + one fsync
//!                                           ▼                          │ per group commit, all shards together
//!                                outbox · timers · tasks (owner only) ─▶ the next entity's command
//! ```
//!
//! The crate map, from the inside out (docs/architecture.md has the long form):
//!
//! | module | is | knows |
//! |---|---|---|
//! | [`entity`] | the programming model: `decide`, `evolve`, effects, codecs | nothing |
//! | [`commerce`] | the shop: stock, payment, order and its saga | `entity` |
//! | [`storage`] | journal and state store on sled, and their memory twin | nothing |
//! | [`impairment`] | faults of the network on purpose, for links and gossip | nothing |
//! | [`transport`] | node links over `ractor_cluster`, and their memory twin | nothing |
//! | [`membership`] | SWIM gossip over sealed UDP | nothing |
//! | [`replication`] | one openraft group per shard; the only module that sees openraft | storage, transport |
//! | [`catalog`] | cluster id, roster, shard map; bootstrap from a seed list | replication |
//! | [`shard`] | applied state, entity actors, outbox, timers, tasks | replication, entity |
//! | [`cluster`] | wires it all up: [`Cluster`], builder, ordered shutdown | all of the above |
//! | [`outbound`] | HTTP/1.1 to the outside | nothing |
//! | [`gateway`] | card gateways: the trait, the sandbox, one over HTTP | commerce, cluster |
//! | [`webhooks`] | tells endpoints outside what happens in the shop | commerce, cluster, outbound |
//! | [`chaos`] | a cluster mistreated under load, and what became of it | `cli::http` |
//! | [`ingress`], [`cli`] | HTTP and command line | anything; nothing knows them |

pub mod catalog;
pub mod chaos;
pub mod cli;
pub mod cluster;
pub mod commerce;
pub mod config;
pub mod entity;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod gateway;
pub mod impairment;
pub mod ingress;
pub mod membership;
pub mod outbound;
pub mod replication;
#[doc(hidden)]
pub mod sabotage;
pub mod shard;
pub mod storage;
pub mod telemetry;
pub mod transport;
pub mod webhooks;

pub use cluster::{Cluster, EntityRef};
pub use config::Config;
pub use entity::{Context, Decision, Effect, Entity};

/// The README's example, compiled with the documentation's.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
