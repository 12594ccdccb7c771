//! The heartbeat: detects an agent that no longer answers although its machine runs.

use crate::agent_link;
use msb_client::{Connection, Error, Pending};
use msb_state::SandboxDir;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// Interval of the pings.
const PERIOD: Duration = Duration::from_secs(10);
/// Least time limit for a pong. An emulated machine on a busy host is slow: better to detect a hang
/// late than to kill a slow machine.
const PONG_LIMIT: Duration = Duration::from_secs(60);

/// Pings the agent on a separate connection until it is dropped.
#[derive(Debug)]
pub(crate) struct Heartbeat {
    limit: Duration,
    hung: oneshot::Receiver<()>,
    task: JoinHandle<()>,
}

impl Heartbeat {
    /// Opens the connection and starts the pings. A machine with a longer `boot_timeout` also has
    /// longer for a pong. Call it inside the runtime.
    pub(crate) fn start(dir: &SandboxDir, boot_timeout: Duration) -> io::Result<Self> {
        let limit = boot_timeout.max(PONG_LIMIT);
        let (notify, hung) = oneshot::channel();
        let connection = agent_link::connect(dir, limit)?;
        let task = tokio::spawn(async move {
            if beat(connection).await.is_timeout() {
                // Fails if the supervisor has stopped listening.
                let _ = notify.send(());
            }
        });
        Ok(Heartbeat { limit, hung, task })
    }

    /// Returns the time limit for a pong.
    pub(crate) fn limit(&self) -> Duration {
        self.limit
    }

    /// Waits until a pong is overdue. Cancel-safe. Waits forever once the connection has closed:
    /// the machine's exit then has the reason.
    pub(crate) async fn hung(&mut self) {
        if (&mut self.hung).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Returns why the agent no longer answers.
async fn beat(connection: Pending<Arc<Connection>>) -> Error {
    let beats = async {
        let connection = connection.await?;
        loop {
            sleep(PERIOD).await;
            connection.ping()?.await?;
        }
    };
    let Err(error): Result<Infallible, Error> = beats.await;
    error
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use msb_wire::{Decoder, Frame, Hello, Message, Peer, encode};
    use std::os::unix::net::UnixListener;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;
    use tokio::time::error::Elapsed;
    use tokio::time::timeout;

    /// An agent that sends its hello and `pongs` pongs, then is silent or hangs up. Without any
    /// pong it does not even send its hello.
    async fn agent(mut stream: UnixStream, pongs: usize, hang_up: bool) {
        if pongs == 0 {
            return std::future::pending().await;
        }
        let (mut buffer, mut decoder, mut left) =
            (BytesMut::new(), Decoder::new(Peer::Host), pongs);
        let mut output = BytesMut::new();
        let hello = Message::Hello(Hello::ours(Some([1; 16])));
        assert!(encode(&Frame { channel: 0, message: hello }, &mut output));
        loop {
            stream.write_all(&output.split()).await.unwrap();
            while let Some(frame) = decoder.next(&mut buffer).unwrap() {
                match frame.message {
                    Message::Ping(number) if left > 0 => {
                        left -= 1;
                        let pong = Message::Pong(number);
                        assert!(encode(&Frame { channel: 0, message: pong }, &mut output));
                    }
                    Message::Ping(_) if hang_up => return,
                    _ => {}
                }
            }
            if output.is_empty() && stream.read_buf(&mut buffer).await.unwrap() == 0 {
                return;
            }
        }
    }

    async fn watched(pongs: usize, hang_up: bool) -> Result<(), Elapsed> {
        watched_for(600, 1, pongs, hang_up).await
    }

    /// Returns whether the agent counts as hung within some seconds.
    async fn watched_for(
        seconds: u64,
        boot_timeout: u64,
        pongs: usize,
        hang_up: bool,
    ) -> Result<(), Elapsed> {
        let root = tempfile::tempdir().unwrap();
        let dir = SandboxDir::open(&root.path().join("box")).unwrap();
        std::fs::create_dir_all(dir.run()).unwrap();
        let listener = UnixListener::bind(dir.run().join("agent.sock")).unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::UnixListener::from_std(listener).unwrap();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            agent(stream, pongs, hang_up).await;
        });
        let mut heartbeat = Heartbeat::start(&dir, Duration::from_secs(boot_timeout)).unwrap();
        timeout(Duration::from_secs(seconds), heartbeat.hung()).await
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn silent_agent_is_hung_closed_connection_is_not() {
        assert!(watched(3, false).await.is_ok(), "silent after three pongs");
        assert!(watched(0, false).await.is_ok(), "silent from the start");
        assert!(watched(3, true).await.is_err(), "the connection closed");
        assert!(watched(usize::MAX, false).await.is_err(), "it always answers");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn started_heartbeat_is_connected() {
        let root = tempfile::tempdir().unwrap();
        let dir = SandboxDir::open(&root.path().join("box")).unwrap();
        std::fs::create_dir_all(dir.run()).unwrap();
        let listener = UnixListener::bind(dir.run().join("agent.sock")).unwrap();
        listener.set_nonblocking(true).unwrap();
        let _heartbeat = Heartbeat::start(&dir, Duration::from_secs(1)).unwrap();
        assert!(listener.accept().is_ok(), "before its task ran");
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn pong_limit_follows_the_boot_timeout() {
        assert!(watched_for(300, 300, 1, false).await.is_err(), "as long as for the boot");
        assert!(watched_for(330, 300, 1, false).await.is_ok(), "and no longer");
        assert!(watched_for(75, 1, 1, false).await.is_err(), "a minute at least");
        assert!(watched_for(85, 1, 1, false).await.is_ok(), "and no longer");
    }
}
