//! Tests of the whole in one process. Tests with real processes are in tests/cluster.

mod entities;
mod http;
