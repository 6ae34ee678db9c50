//! When to stop.

use super::Failure;
use std::io::Read;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};

/// Whatever tells this process to stop, from the moment of its creation on.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    stdin_closed: Option<mpsc::Receiver<()>>,
}

impl Signals {
    /// SIGTERM and SIGINT.
    pub fn listen() -> Result<Self, Failure> {
        let one =
            |kind| signal(kind).map_err(|error| Failure::operation(format!("cannot listen for signals: {error}")));
        Ok(Self {
            terminate: one(SignalKind::terminate())?,
            interrupt: one(SignalKind::interrupt())?,
            stdin_closed: None,
        })
    }

    /// The end of stdin, too: whoever started this process and held the other end is gone.
    #[must_use]
    pub fn and_stdin(mut self) -> Self {
        let (closed, receiver) = mpsc::channel(1);
        // A thread of its own, never joined: a blocked read must not keep the process alive.
        std::thread::spawn(move || {
            let mut scrap = [0; 64];
            while std::io::stdin().read(&mut scrap).is_ok_and(|read| read > 0) {}
            drop(closed);
        });
        self.stdin_closed = Some(receiver);
        self
    }

    /// Waits for the next one and tells which it was. None is lost if the wait is given up.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            () = closed(&mut self.stdin_closed) => {
                self.stdin_closed = None;
                "stdin closed"
            }
        }
    }
}

async fn closed(stdin: &mut Option<mpsc::Receiver<()>>) {
    match stdin {
        Some(receiver) => while receiver.recv().await.is_some() {},
        None => std::future::pending().await,
    }
}
