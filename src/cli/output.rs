//! Writing to the terminal. A reader that went away (`quorate members | head -1`) is no error.

use super::Failure;
use std::io::{ErrorKind, IsTerminal, Write};

/// An answer, to stdout. A missing newline at the end is added.
pub(super) fn answer(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    let newline = if text.ends_with('\n') { "" } else { "\n" };
    match write!(stdout, "{text}{newline}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::operation(format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// A line about what is going on, to stderr. Where that is closed there is nobody to tell.
pub(super) fn note(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Whether somebody is looking at what [`note`] and [`redraw`] write.
pub(super) fn is_terminal() -> bool {
    std::io::stderr().is_terminal()
}

/// Writes over the line before, on a terminal; nothing elsewhere.
pub(super) fn redraw(line: &str) {
    if is_terminal() {
        let mut stderr = std::io::stderr().lock();
        let _ = write!(stderr, "\r\x1b[2K{line}").and_then(|()| stderr.flush());
    }
}

/// In release builds, a panic is one line. In debug builds the standard hook shows a backtrace.
pub(super) fn install_panic_hook() {
    if cfg!(debug_assertions) {
        return;
    }
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(|at| format!(" at {at}")).unwrap_or_default();
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("unnamed").to_owned();
        note(&format!("panic in thread {name}{place}: {}", message(panic.payload())));
    }));
}

fn message(payload: &dyn std::any::Any) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no message")
}
