//! Tests with real processes of the real binary, on loopback.

mod audit;
mod cli;
mod duplicates;
mod frozen;
mod garbage;
mod harness;
mod kills;
mod quorum;
mod readme;
mod restart;
mod routes;
mod shop;
#[path = "../it/http/till.rs"]
#[allow(dead_code, reason = "its books are audited elsewhere")]
mod till;
