//! The idle timeout: detects a sandbox in which nothing runs.
//!
//! Queries the agent on a connection of its own, so that an agent that is slow to answer delays
//! neither a request to stop nor any other.

use crate::agent_link;
use msb_client::{Connection, Error, Pending};
use msb_state::SandboxDir;
use msb_wire::{SessionId, SessionInfo};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// Shortest and longest interval between two queries.
const PERIODS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Queries the agent's activity until it is dropped.
#[derive(Debug)]
pub(crate) struct Idle {
    over: oneshot::Receiver<()>,
    task: JoinHandle<()>,
}

impl Idle {
    /// Opens the connection and starts the queries. The agent has `answer` for each reply. Call it
    /// inside the runtime.
    pub(crate) fn start(dir: &SandboxDir, limit: Duration, answer: Duration) -> io::Result<Self> {
        let (notify, over) = oneshot::channel();
        let connection = agent_link::connect(dir, answer)?;
        let task = tokio::spawn(async move {
            match watch(connection, limit).await {
                // Fails if the supervisor has stopped listening.
                Ok(()) => drop(notify.send(())),
                // The agent has ended; the machine's exit says why.
                Err(error) => tracing::warn!(%error, "cannot query the agent's activity"),
            }
        });
        Ok(Idle { over, task })
    }

    /// Waits until the sandbox has been idle for too long. Cancel-safe.
    pub(crate) async fn over(&mut self) {
        if (&mut self.over).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Returns once nothing has run for `limit`. The heartbeat detects an agent that never answers.
async fn watch(connection: Pending<Arc<Connection>>, limit: Duration) -> Result<(), Error> {
    let connection = connection.await?;
    let mut state = IdleState::new(limit, Instant::now());
    loop {
        sleep_until(state.next_check).await;
        match connection.sessions()?.await {
            Ok(sessions) if state.on(Activity::of(&sessions), Instant::now()) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.is_timeout() => {}
            Err(error) => return Err(error),
        }
    }
}

/// The agent's activity.
#[derive(Debug, PartialEq, Eq)]
struct Activity {
    /// Whether a session runs.
    running: bool,
    /// The session that started last.
    newest: Option<SessionId>,
}

impl Activity {
    fn of(sessions: &[SessionInfo]) -> Self {
        let newest = sessions.iter().min_by_key(|session| session.age_ns);
        Activity {
            running: sessions.iter().any(|session| session.exited.is_none()),
            newest: newest.map(|session| session.session),
        }
    }
}

#[derive(Debug)]
struct IdleState {
    limit: Duration,
    period: Duration,
    next_check: Instant,
    active: Instant,
    last: Option<Activity>,
}

impl IdleState {
    fn new(limit: Duration, now: Instant) -> Self {
        let period = (limit / 4).clamp(PERIODS.0, PERIODS.1);
        IdleState { limit, period, next_check: now + period, active: now, last: None }
    }

    /// Returns whether it has been idle for too long.
    fn on(&mut self, activity: Activity, now: Instant) -> bool {
        let is_news = self.last.as_ref().is_some_and(|last| last.newest != activity.newest);
        if activity.running || is_news {
            self.active = now;
        }
        self.last = Some(activity);
        self.next_check = now + self.period;
        now.saturating_duration_since(self.active) >= self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use msb_client::Limits;
    use msb_wire::{Decoder, Frame, Hello, Message, Peer, Sessions, encode};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;
    use tokio::runtime::Handle;
    use tokio::time::{sleep, timeout};

    #[test]
    fn session_between_two_checks_counts_as_activity() {
        let start = Instant::now();
        let mut idle = IdleState::new(Duration::from_secs(1), start);
        let after = |ms| start + Duration::from_millis(ms);
        let quiet =
            |newest| Activity { running: false, newest: Some(SessionId::from_bytes([newest; 16])) };
        assert!(!idle.on(quiet(1), after(250)));
        assert!(!idle.on(quiet(2), after(900)));
        assert!(!idle.on(quiet(2), after(1800)));
        assert!(!idle.on(Activity { running: true, newest: None }, after(1850)));
        assert!(!idle.on(quiet(2), after(1900)), "the list changed");
        assert!(idle.on(quiet(2), after(2900)));
    }

    /// An agent in which nothing runs, and which takes its time for each list.
    async fn slow_agent(mut stream: UnixStream, pause: Duration) {
        let (mut buffer, mut decoder) = (BytesMut::new(), Decoder::new(Peer::Host));
        loop {
            while let Some(Frame { channel, message }) = decoder.next(&mut buffer).unwrap() {
                let answer = match message {
                    Message::Hello(_) => Message::Hello(Hello::ours(Some([1; 16]))),
                    _ => {
                        sleep(pause).await;
                        Message::Sessions(Sessions { sessions: Vec::new() })
                    }
                };
                let mut output = BytesMut::new();
                assert!(encode(&Frame { channel, message: answer }, &mut output));
                stream.write_all(&output).await.unwrap();
            }
            if stream.read_buf(&mut buffer).await.unwrap() == 0 {
                return;
            }
        }
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn g8_slow_agent_does_not_turn_the_idle_timeout_off() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        tokio::spawn(slow_agent(theirs, Duration::from_secs(20)));
        let begun = Instant::now();
        let (ours, limit) = (ours.into_std().unwrap(), Duration::from_secs(60));
        let ours = Connection::establish(ours, Limits::new(limit), &Handle::current()).unwrap();
        let watched = watch(ours, limit);
        assert!(timeout(Duration::from_secs(600), watched).await.unwrap().is_ok());
        assert!(begun.elapsed() >= Duration::from_secs(60), "{:?}", begun.elapsed());
    }
}
