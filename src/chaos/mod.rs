//! Load, history and checkers: what a cluster is asked while it is mistreated, and whether it kept
//! its word afterwards.
//!
//! ```text
//! load ──▶ nodes                 (faults are somebody else's doing)
//!   │ every attempt, also those whose outcome is unknown
//!   ▼
//! history ──▶ check: observe (reads, once all is quiet) ──▶ judges (pure) ──▶ verdicts
//! gateway ──────────────────────────▲ its own ledger
//! ```
//!
//! It talks to nodes over HTTP only, as any client does, and takes none of their words for granted.

pub mod check;
pub mod gateway;
pub mod history;
pub mod load;
pub mod verdict;
