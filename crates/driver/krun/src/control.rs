//! The connection on which the agent says that it is there, and that it goes.

use std::io;
use std::os::unix::net::UnixListener as StdListener;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const UP: &[u8; 3] = b"up\n";
const BYE: &[u8; 4] = b"bye\n";

/// How far the agent has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Silent,
    Up,
    Bye,
}

/// The host's end. It listens until it is dropped.
#[derive(Debug)]
pub(crate) struct Control {
    phase: watch::Receiver<Phase>,
    task: JoinHandle<()>,
}

impl Control {
    /// Listens from now on. Must be called inside the runtime.
    pub(crate) fn listen(listener: StdListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        let (tell, phase) = watch::channel(Phase::Silent);
        let task = tokio::spawn(async move {
            let talked = async {
                let (stream, _) = listener.accept().await?;
                talk(stream, &tell).await
            };
            // The guest's programs may connect as well, once the agent has: nobody hears them.
            if let Err(error) = talked.await {
                tracing::debug!(%error, "the agent's control connection ended");
            }
        });
        Ok(Control { phase, task })
    }

    /// Waits until the agent is there. Cancel-safe.
    pub(crate) async fn up(&mut self) -> io::Result<()> {
        let up = self.phase.wait_for(|phase| *phase != Phase::Silent).await;
        up.map(drop).map_err(|_| io::Error::other("the agent broke its control connection off"))
    }

    /// How far it has come.
    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn talk(mut stream: UnixStream, tell: &watch::Sender<Phase>) -> io::Result<()> {
    let mut up = [0; UP.len()];
    stream.read_exact(&mut up).await?;
    if &up != UP {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
    stream.write_all(&now.to_le_bytes()).await?;
    tell.send_replace(Phase::Up);
    let mut bye = [0; BYE.len()];
    stream.read_exact(&mut bye).await?;
    if &bye == BYE {
        tell.send_replace(Phase::Bye);
    }
    // The end of the stream is the answer.
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

    async fn begin() -> (tempfile::TempDir, Control, UnixStream) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let control = Control::listen(StdListener::bind(&path).unwrap()).unwrap();
        let stream = UnixStream::connect(&path).await.unwrap();
        (dir, control, stream)
    }

    #[test]
    fn the_agent_comes_hears_the_time_and_says_good_bye() {
        run(async {
            let (_dir, mut control, mut agent) = begin().await;
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
    fn i_a_guest_that_says_something_else_is_not_up_and_one_that_goes_silently_said_no_bye() {
        run(async {
            let (_dir, mut control, mut other) = begin().await;
            other.write_all(b"xyz").await.unwrap();
            assert!(control.up().await.is_err());
            let (_dir, mut control, mut agent) = begin().await;
            agent.write_all(UP).await.unwrap();
            control.up().await.unwrap();
            agent.write_all(b"by").await.unwrap();
            drop(agent);
            (&mut control.task).await.unwrap();
            assert_eq!(control.phase(), Phase::Up);
        });
    }
}
