//! Tests with real processes of the real binary, on loopback.

mod audit;
mod backup;
mod books;
mod cards;
mod certs;
mod chaos;
mod chaos_load;
mod chaos_network;
mod cli;
mod cut_off;
mod duplicates;
mod events;
mod frozen;
mod garbage;
mod harness;
#[path = "../it/http/https.rs"]
#[allow(dead_code, reason = "it can do more than these scenarios ask of it")]
mod https;
mod kills;
mod members;
mod quorum;
mod readme;
mod replace;
mod restart;
mod routes;
mod rush;
mod shop;
#[path = "../it/http/till.rs"]
#[allow(dead_code, reason = "it can do more than these scenarios ask of it")]
mod till;
mod tokens;
mod verify;
mod zones;
