//! Everything that happens in a world, as text: what the product logs, what its customers and its
//! faults do, each line at its virtual time. Two runs of one seed give the same bytes.

use crate::world_clock::elapsed_us;
use std::{
    fmt::{self, Write as _},
    fs::File,
    io::{BufWriter, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
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
/// A file is no longer than this. A usual world of ten minutes writes ten MB.
const FILE_BYTES_MAX: u64 = 512 << 20;

struct Inner {
    hash: blake3::Hasher,
    lines: u64,
    /// When the last one was, and how many before it were at the same time.
    now_us: u64,
    at_once: u64,
    file: Option<BufWriter<File>>,
    file_bytes: u64,
}

impl Trace {
    /// Written to `file`, or only hashed.
    pub fn new(file: Option<File>) -> Self {
        let (hash, file) = (blake3::Hasher::new(), file.map(BufWriter::new));
        let inner = Inner { hash, lines: 0, now_us: 0, at_once: 0, file, file_bytes: 0 };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    fn line(&self, line: &str) {
        let mut inner = self.inner();
        inner.hash.update(line.as_bytes());
        inner.lines += 1;
        let now_us = elapsed_us();
        inner.at_once = if inner.now_us == now_us { inner.at_once + 1 } else { 0 };
        inner.now_us = now_us;
        inner.write(line);
        if inner.at_once > LINES_AT_ONCE_MAX {
            inner.give_up(&format!("LIVELOCK: nothing waits any more at {now_us} us; the last line: {line}"));
        }
    }

    /// How many lines there were, and the first half of their BLAKE3.
    pub fn finish(&self) -> (u64, String) {
        let mut inner = self.inner();
        inner.flush();
        (inner.lines, inner.hash.finalize().to_hex()[..32].to_owned())
    }

    /// Ends the process with this violation, the trace written as far as it came.
    pub fn give_up(&self, why: &str) -> ! {
        self.inner().give_up(why)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// A trace that cannot be written shows in its size; the hash is of the whole.
    fn write(&mut self, line: &str) {
        let Some(file) = &mut self.file else { return };
        let _ = file.write_all(line.as_bytes());
        self.file_bytes += line.len() as u64;
        if self.file_bytes > FILE_BYTES_MAX {
            let _ = writeln!(file, "the trace goes on, but this file is long enough");
            self.flush();
            self.file = None;
        }
    }

    fn flush(&mut self) {
        if let Some(file) = &mut self.file {
            let _ = file.flush();
        }
    }

    fn give_up(&mut self, why: &str) -> ! {
        self.flush();
        println!("violation: {why}");
        std::process::exit(1)
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
