//! The control connection, on which the agent reports its start and its shutdown.

use std::io;
use std::os::unix::net::UnixListener as StdListener;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const UP: &[u8; 3] = b"up\n";
const BYE: &[u8; 4] = b"bye\n";

/// The agent's reported phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Silent,
    Up,
    Bye,
}

/// The host's end of the connection. It listens until it is dropped.
#[derive(Debug)]
pub(crate) struct Control {
    phase: watch::Receiver<Phase>,
    task: JoinHandle<()>,
}

impl Control {
    /// Starts listening. Call it inside the runtime.
    pub(crate) fn listen(listener: StdListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        let (sender, phase) = watch::channel(Phase::Silent);
        let task = tokio::spawn(async move {
            let served = async {
                let (stream, _) = listener.accept().await?;
                serve(stream, &sender).await
            };
            // Later connections, of the guest's programs, are never accepted.
            if let Err(error) = served.await {
                tracing::debug!(%error, "the agent's control connection ended");
            }
        });
        Ok(Control { phase, task })
    }

    /// Waits until the agent has started. Cancel-safe.
    pub(crate) async fn up(&mut self) -> io::Result<()> {
        let up = self.phase.wait_for(|phase| *phase != Phase::Silent).await;
        up.map(drop).map_err(|_| io::Error::other("the agent closed its control connection"))
    }

    /// Returns the reported phase.
    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: UnixStream, phase: &watch::Sender<Phase>) -> io::Result<()> {
    let mut up = [0; UP.len()];
    stream.read_exact(&mut up).await?;
    if &up != UP {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
    stream.write_all(&now.to_le_bytes()).await?;
    phase.send_replace(Phase::Up);
    let mut bye = [0; BYE.len()];
    stream.read_exact(&mut bye).await?;
    if &bye == BYE {
        phase.send_replace(Phase::Bye);
    }
    // Closing the stream is the reply.
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::time::Duration;

    fn run<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let limit = Duration::from_secs(20);
        runtime.block_on(async { tokio::time::timeout(limit, future).await.unwrap() })
    }

    async fn connect() -> (tempfile::TempDir, Control, UnixStream) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let control = Control::listen(StdListener::bind(&path).unwrap()).unwrap();
        let stream = UnixStream::connect(&path).await.unwrap();
        (dir, control, stream)
    }

    #[test]
    fn agent_reports_up_gets_the_time_and_says_bye() {
        run(async {
            let (_dir, mut control, mut agent) = connect().await;
            assert_eq!(control.phase(), Phase::Silent);
            agent.write_all(UP).await.unwrap();
            let now = agent.read_u64_le().await.unwrap();
            assert!(now > 1_700_000_000_000_000_000, "{now}");
            control.up().await.unwrap();
            agent.write_all(BYE).await.unwrap();
            assert_eq!(agent.read(&mut [0; 1]).await.unwrap(), 0);
            assert_eq!(control.phase(), Phase::Bye);
        });
    }

    #[test]
    fn i_phase_follows_the_exact_messages_only() {
        run(async {
            let (_dir, mut control, mut other) = connect().await;
            other.write_all(b"xyz").await.unwrap();
            assert!(control.up().await.is_err());
            let (_dir, mut control, mut agent) = connect().await;
            agent.write_all(UP).await.unwrap();
            control.up().await.unwrap();
            agent.write_all(b"by").await.unwrap();
            drop(agent);
            (&mut control.task).await.unwrap();
            assert_eq!(control.phase(), Phase::Up);
        });
    }
}
