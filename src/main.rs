//! The `quorate` command. See `quorate --help`, and [`quorate::cli`] for the code.

use std::process::ExitCode;

/// Rows of a shard are small, many, and dropped by another thread than made them: docs/decisions/0042-allocator.md.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    quorate::cli::main()
}
