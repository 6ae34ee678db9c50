//! Tests with real processes of the real binary, on loopback.

mod cli;
mod harness;
