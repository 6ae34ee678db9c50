//! Tests with real processes of the real binary, on loopback.

mod audit;
mod chaos;
mod cli;
mod frozen;
mod garbage;
mod harness;
mod kills;
mod quorum;
mod readme;
mod restart;
mod shop;
