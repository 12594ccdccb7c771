//! The relay of a machine that offers one stream only.

use msb_relay::{End, Hello, NONCE, RelayError, host};
use std::io;
use std::os::unix::net;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

/// How a relay ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RelayEnd {
    /// After the agent's shutdown message.
    Bye,
    /// The machine closed the stream.
    Closed,
    /// A protocol violation of the guest.
    Broken(String),
}

/// A running relay. It ends when it is dropped.
#[derive(Debug)]
pub struct Relay {
    task: JoinHandle<Result<End, RelayError>>,
    end: Option<RelayEnd>,
}

impl Relay {
    /// Starts a relay between the machine's stream and the connections to a socket. Call it inside
    /// the runtime.
    pub fn start(stream: net::UnixStream, listener: net::UnixListener) -> io::Result<Relay> {
        stream.set_nonblocking(true)?;
        listener.set_nonblocking(true)?;
        let (stream, listener) = (UnixStream::from_std(stream)?, UnixListener::from_std(listener)?);
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).map_err(io::Error::other)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let hello = Hello { nonce, now_ns: u64::try_from(now.as_nanos()).unwrap_or(u64::MAX) };
        Ok(Relay { task: tokio::spawn(host(stream, listener, hello)), end: None })
    }

    /// Returns how it ended; `None` while it runs or nobody has waited for it.
    pub fn end(&self) -> Option<&RelayEnd> {
        self.end.as_ref()
    }

    /// Waits for its end, which [`Relay::end`] then returns. Cancel-safe.
    pub async fn ended(&mut self) {
        if self.end.is_none() {
            self.end = Some(match (&mut self.task).await {
                Ok(Ok(End::Bye)) => RelayEnd::Bye,
                Ok(Ok(End::Closed)) => RelayEnd::Closed,
                Ok(Err(error)) => RelayEnd::Broken(error.to_string()),
                Err(error) => RelayEnd::Broken(error.to_string()),
            });
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}
