//! Stopping a sandbox, and waiting for its end.

use crate::completion::{Pending, Promise, completion};
use crate::error::{Error, ErrorKind, Origin};
use crate::output::ExitStatus;
use crate::runtime;
use crate::sandbox::builder::millis;
use crate::sandbox::{Inner, Sandbox, on_thread};
use msb_client::SIGKILL;
use msb_state::{Control, Outcome, Reason, Reply, Request, Status};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

/// How long a runner may take to answer beyond the request's own time limit.
const GRACE: Duration = Duration::from_secs(20);
/// Interval between attempts to connect to a runner that is starting or ending.
const RUNNER_PAUSE: Duration = Duration::from_millis(5);
/// Maximum length of a runner's answer, in bytes.
const MAX_ANSWER: u64 = 64 * 1024;

impl Sandbox {
    pub(crate) fn begin_stop(&self, timeout: Duration) -> Pending<ExitStatus> {
        let request = Request::Stop { timeout_ms: millis(timeout) };
        self.request(request, timeout.saturating_add(GRACE))
    }

    pub(crate) fn begin_kill(&self) -> Pending<ExitStatus> {
        self.request(Request::Kill, GRACE)
    }

    /// Waits for the end on the I/O thread, so that a long wait does not occupy a thread.
    pub(crate) fn begin_wait(&self) -> Pending<ExitStatus> {
        let (promise, pending) = completion();
        let inner = Arc::clone(&self.inner);
        let begun = runtime::get().and_then(|runtime| {
            runtime::spawn_thread("msb-control", move || {
                loop {
                    let error = match Control::connect(&inner.dir) {
                        Ok(control) => return runtime.spawn(wait(control, inner, promise)),
                        Err(error) => error,
                    };
                    match (inner.outcome(), error) {
                        // The runner is starting or ending.
                        (Ok(None), msb_state::Error::NotRunning(_)) if !promise.is_closed() => {
                            std::thread::sleep(RUNNER_PAUSE);
                        }
                        (Ok(None), error) => return promise.complete(Err(error.into())),
                        (Ok(Some(status)), _) => return promise.complete(Ok(status)),
                        (Err(error), _) => return promise.complete(Err(error)),
                    }
                }
            })
        });
        match begun {
            Ok(()) => pending,
            Err(error) => Pending::ready(Err(error)),
        }
    }

    fn request(&self, request: Request, timeout: Duration) -> Pending<ExitStatus> {
        let inner = Arc::clone(&self.inner);
        on_thread("msb-control", move || {
            let reply = Control::connect(&inner.dir)?.request(&request, Some(timeout))?;
            inner.concluded(reply)
        })
    }
}

impl Inner {
    fn concluded(&self, reply: Reply) -> Result<ExitStatus, Error> {
        match reply {
            Reply::Ended { outcome } => self.status_of(&outcome),
            Reply::Refused { message } => {
                Err(Error::new(ErrorKind::Internal, Origin::Driver, message))
            }
            _ => Err(Error::internal("the runner answered another question")),
        }
    }

    fn status_of(&self, outcome: &Outcome) -> Result<ExitStatus, Error> {
        match outcome.reason {
            Reason::Killed => Ok(ExitStatus::of_sandbox(Some(SIGKILL))),
            Reason::Crashed | Reason::BootFailed => {
                let detail = outcome.detail.as_deref().unwrap_or("it left no message");
                let context = format!("sandbox {} crashed: {detail}", self.config.name);
                Err(Error::new(ErrorKind::SandboxCrashed, Origin::Driver, context))
            }
            _ => Ok(ExitStatus::of_sandbox(None)),
        }
    }

    /// Returns how a sandbox whose runner does not listen has ended; `None` if it has not ended.
    /// Blocks.
    fn outcome(&self) -> Result<Option<ExitStatus>, Error> {
        // Written before the runner releases its lock, and removed by the next start.
        if let Some(outcome) = self.dir.read_outcome()? {
            return self.status_of(&outcome).map(Some);
        }
        match msb_state::get(&self.home, &self.config.name, None)?.status {
            Status::Crashed => self.status_of(&killed()).map(Some),
            Status::Running => Ok(None),
            _ => Err(msb_state::Error::NotRunning(self.config.name.clone()).into()),
        }
    }
}

fn killed() -> Outcome {
    Outcome::now(Reason::Crashed, Some("the runner was killed".to_owned()))
}

async fn wait(control: Control, inner: Arc<Inner>, promise: Promise<ExitStatus>) {
    let socket = match control.stream() {
        Ok(socket) => socket,
        Err(error) => return promise.complete(Err(error.into())),
    };
    let reply = tokio::select! {
        reply = ask(socket) => reply,
        // Closes the connection to the runner.
        () = promise.closed() => return,
    };
    match reply {
        Some(reply) => promise.complete(inner.concluded(reply)),
        // The runner was killed, and with it the sandbox. Reading the outcome blocks only briefly.
        None => {
            let started = runtime::spawn_thread("msb-control", move || {
                let outcome = control.outcome_after_hangup(None).map_err(Error::from);
                promise.complete(outcome.and_then(|outcome| inner.status_of(&outcome)));
            });
            if let Err(error) = started {
                tracing::warn!(%error, "the end of a sandbox could not be looked at");
            }
        }
    }
}

/// Asks the runner for the end; `None` if it ended without an answer.
async fn ask(socket: UnixStream) -> Option<Reply> {
    socket.set_nonblocking(true).ok()?;
    let mut stream = tokio::net::UnixStream::from_std(socket).ok()?;
    let mut line = serde_json::to_vec(&Request::Wait).ok()?;
    line.push(b'\n');
    // The line fits into the empty buffer of the socket, so SIGPIPE can only occur if the runner
    // has ended; this thread blocks that signal.
    stream.write_all(&line).await.ok()?;
    let mut answer = Vec::new();
    let mut reader = BufReader::new(stream).take(MAX_ANSWER);
    reader.read_until(b'\n', &mut answer).await.ok()?;
    serde_json::from_slice(&answer).ok()
}
