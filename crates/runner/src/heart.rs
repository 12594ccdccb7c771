//! Noticing an agent that no longer answers although its machine runs.

use crate::agent_link::AgentLink;
use msb_state::SandboxDir;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// How often the agent is asked whether it is there.
const PERIOD: Duration = Duration::from_secs(10);
/// How long it may take to say so, at least. An emulated machine on a host that has much else to do is
/// slow; one that hangs is found late rather than a slow one killed.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// Asks the agent from time to time, on a connection of its own, until it is dropped.
#[derive(Debug)]
pub(crate) struct Heart {
    limit: Duration,
    hung: oneshot::Receiver<()>,
    task: JoinHandle<()>,
}

impl Heart {
    /// Begins to ask. A machine that may take longer than usual for its start, which is
    /// `boot_timeout`, may do so for an answer. Must be called inside the runtime.
    pub(crate) fn begin(dir: &SandboxDir, boot_timeout: Duration) -> Self {
        let limit = boot_timeout.max(ANSWER_LIMIT);
        let (tell, hung) = oneshot::channel();
        let dir = dir.clone();
        let task = tokio::spawn(async move {
            let silent = match timeout(limit, AgentLink::connect(&dir)).await {
                Ok(Ok(link)) => beat(link, limit).await,
                Ok(Err(_)) => false,
                // It may hang from the very start.
                Err(_) => true,
            };
            if silent {
                // Nobody listens any more when the end has come in another way.
                let _ = tell.send(());
            }
        });
        Heart { limit, hung, task }
    }

    /// How long it waits for an answer.
    pub(crate) fn limit(&self) -> Duration {
        self.limit
    }

    /// Waits until an answer is missing. Cancel-safe; for ever, once the connection has ended: the
    /// machine's own end then says why.
    pub(crate) async fn hung(&mut self) {
        if (&mut self.hung).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// True when an answer is missing, false when the connection has ended.
async fn beat(mut link: AgentLink, limit: Duration) -> bool {
    loop {
        sleep(PERIOD).await;
        // A runner that was stopped itself finds the answer here, and not that time has passed.
        match timeout(limit, link.ping()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return false,
            Err(_) => return true,
        }
    }
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

    /// An agent that greets, answers so many pings, and then says nothing, or hangs up. Without any
    /// answer it does not even greet.
    async fn agent(mut stream: UnixStream, answers: usize, hang_up: bool) {
        if answers == 0 {
            return std::future::pending().await;
        }
        let (mut buffer, mut decoder, mut left) =
            (BytesMut::new(), Decoder::new(Peer::Host), answers);
        let mut say = BytesMut::new();
        let greeting = Message::Hello(Hello::ours(Some([1; 16])));
        assert!(encode(&Frame { channel: 0, message: greeting }, &mut say));
        loop {
            stream.write_all(&say.split()).await.unwrap();
            while let Some(frame) = decoder.next(&mut buffer).unwrap() {
                match frame.message {
                    Message::Ping(number) if left > 0 => {
                        left -= 1;
                        let pong = Message::Pong(number);
                        assert!(encode(&Frame { channel: 0, message: pong }, &mut say));
                    }
                    Message::Ping(_) if hang_up => return,
                    _ => {}
                }
            }
            if say.is_empty() && stream.read_buf(&mut buffer).await.unwrap() == 0 {
                return;
            }
        }
    }

    async fn watched(answers: usize, hang_up: bool) -> Result<(), Elapsed> {
        watched_for(600, 1, answers, hang_up).await
    }

    /// What comes of it within so many seconds, with a boot timeout of so many.
    async fn watched_for(
        seconds: u64,
        boot_timeout: u64,
        answers: usize,
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
            agent(stream, answers, hang_up).await;
        });
        let mut heart = Heart::begin(&dir, Duration::from_secs(boot_timeout));
        timeout(Duration::from_secs(seconds), heart.hung()).await
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn an_agent_that_stops_answering_is_found_and_one_that_hangs_up_is_not_its_matter() {
        assert!(watched(3, false).await.is_ok(), "it answered three times, and never again");
        assert!(watched(0, false).await.is_ok(), "it never said anything");
        assert!(watched(3, true).await.is_err(), "the connection has ended");
        assert!(watched(usize::MAX, false).await.is_err(), "it always answers");
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn a_machine_that_may_start_slowly_may_answer_slowly() {
        assert!(watched_for(300, 300, 1, false).await.is_err(), "it has as long as for its start");
        assert!(watched_for(330, 300, 1, false).await.is_ok(), "and no longer");
        assert!(watched_for(75, 1, 1, false).await.is_err(), "a minute at least");
        assert!(watched_for(85, 1, 1, false).await.is_ok(), "and no longer");
    }
}
