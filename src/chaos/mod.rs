//! Chaos: a cluster of real processes, mistreated under load, and what became of it.
//!
//! ```text
//! plan (seed) ─▶ cluster: N × `quorate node` ◀── load: clients through all nodes ─▶ history
//!                   │ all their links                                              │
//!                   ▼                                                              ▼
//!                network ◀── faults, at their times ─▶ healed ─▶ quiet ─▶ check: verdicts ─▶ report
//! ```
//!
//! | file | is |
//! |---|---|
//! | `fault`, `schedule`, `plan` | what can be done, when it is done, what was asked for |
//! | `cluster`, `network` | the processes, and what is between them: a namespace with nft, a proxy |
//! | `faults` | each fault from its beginning to the moment when nothing is left of it |
//! | `load`, `history`, `check`, `verdict` | what is asked meanwhile, and whether the answers were true |
//! | `gateway` | a card gateway with a ledger of its own, to which the cluster's books are held |
//! | `run`, `quiet`, `timeline`, `progress`, `report` | one after the other, told live and afterwards |
//!
//! It talks to nodes as anyone can: over HTTP, by signals, on their disks, in their network. No
//! production module knows of it. docs/chaos.md is for its users.

pub mod check;
mod cluster;
mod fault;
mod faults;
pub mod gateway;
pub mod history;
pub mod load;
pub mod network;
pub mod plan;
pub mod progress;
mod quiet;
pub mod report;
mod run;
pub mod schedule;
mod timeline;
pub mod verdict;

pub use fault::{Fault, Kind};
pub use run::{Error, Settings, run};
