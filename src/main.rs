//! The `quorate` command. See `quorate --help`, and [`quorate::cli`] for the code.

use std::process::ExitCode;

fn main() -> ExitCode {
    quorate::cli::main()
}
