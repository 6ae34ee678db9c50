//! Everything that happens in a world, as text: what the product logs, what its customers and its
//! faults do, each line at its virtual time. Two runs of one seed give the same bytes.

use crate::world_clock::elapsed_us;
use std::{
    fmt::{self, Write as _},
    fs::File,
    io::{BufWriter, Write},
    sync::{Arc, Mutex, PoisonError},
};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context};

/// Clones are the same trace.
#[derive(Clone)]
pub struct Trace {
    inner: Arc<Mutex<Inner>>,
}

/// More lines than this at one moment, and nothing in the world waits any more.
const LINES_AT_ONCE_MAX: u64 = 200_000;

struct Inner {
    hash: blake3::Hasher,
    lines: u64,
    /// When the last one was, and how many before it were at the same time.
    now_us: u64,
    at_once: u64,
    file: Option<BufWriter<File>>,
}

impl Trace {
    /// Written to `file`, or only hashed.
    pub fn new(file: Option<File>) -> Self {
        let file = file.map(BufWriter::new);
        Self {
            inner: Arc::new(Mutex::new(Inner { hash: blake3::Hasher::new(), lines: 0, now_us: 0, at_once: 0, file })),
        }
    }

    fn line(&self, line: &str) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.hash.update(line.as_bytes());
        inner.lines += 1;
        let now_us = elapsed_us();
        inner.at_once = if inner.now_us == now_us { inner.at_once + 1 } else { 0 };
        inner.now_us = now_us;
        if inner.at_once > LINES_AT_ONCE_MAX {
            println!("violation: LIVELOCK: nothing waits any more at {now_us} us; the last line: {line}");
            std::process::exit(1);
        }
        if let Some(file) = &mut inner.file {
            // A trace that cannot be written shows in its size; the hash is of the whole.
            let _ = file.write_all(line.as_bytes());
        }
    }

    /// How many lines there were, and the first half of their BLAKE3.
    pub fn finish(&self) -> (u64, String) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = &mut inner.file {
            let _ = file.flush();
        }
        (inner.lines, inner.hash.finalize().to_hex()[..32].to_owned())
    }
}

impl<S: Subscriber> Layer<S> for Trace {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        let ours = metadata.target().starts_with("quorate") || metadata.target().starts_with("sim");
        *metadata.level() <= if ours { Level::DEBUG } else { Level::INFO }
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut line = format!("{:>12} {:5} {}:", elapsed_us(), metadata.level(), metadata.target());
        event.record(&mut Fields(&mut line));
        line.push('\n');
        self.line(&line);
    }
}

struct Fields<'a>(&'a mut String);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string cannot fail.
        let _ = write!(self.0, " {}={value:?}", field.name());
    }
}
