//! The signals that end the runner, sent at a system shutdown for example.

use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM, SIGINT and SIGHUP. Child processes get the defaults.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Catches the signals from now on. Call it inside the runtime.
    pub(crate) fn catch() -> io::Result<Self> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for one of the signals. Cancel-safe.
    pub(crate) async fn arrived(&mut self) {
        let arrived = tokio::select! {
            arrived = self.terminate.recv() => arrived,
            arrived = self.interrupt.recv() => arrived,
            arrived = self.hangup.recv() => arrived,
        };
        if arrived.is_none() {
            // The runtime shuts down.
            std::future::pending::<()>().await;
        }
    }
}
