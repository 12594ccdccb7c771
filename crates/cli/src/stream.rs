//! A command's events on their way to this process's streams, and its end.

use crate::failure::{Failure, SIGPIPE, signal_code};
use crate::feed::Feed;
use crate::signals::{Signals, Wish};
use crate::stdio;
use microsandbox::{ErrorKind, ExecControl, ExecEvent, ExecHandle, ExitStatus};
use std::fs::File;
use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep_until, timeout};

/// How long the agent may take to kill a command that nobody listens to any more.
const KILL_LIMIT: Duration = Duration::from_secs(5);
/// How long the agent may take to tell the end of a command that was to be killed. With the grace
/// before that, no more than 15 s pass from the first signal on.
const END_LIMIT: Duration = Duration::from_secs(3);
/// How long the end is still waited for then: it may be here already, when this process was stopped.
const CONFIRM: Duration = Duration::from_secs(1);
/// Output that the agent may have kept for us (in bytes). One that goes on beyond it does not end.
const KEPT_OUTPUT: u64 = 8 * 1024 * 1024;

/// Follows a command to the end of its output, and gives the exit code that stands for its end.
pub(crate) async fn follow(
    handle: &mut ExecHandle,
    signals: &mut Signals,
    time: Option<Duration>,
) -> Result<u8, Failure> {
    let control = handle.control();
    let feed = match handle.take_stdin() {
        Some(sink) => Feed::begin(sink).map_err(|error| read_failure(&error))?,
        None => Feed::default(),
    };
    if let Err(failure) = pump(handle, feed, Some(&control), signals).await {
        // It would otherwise run on for nobody; that it has ended meanwhile is as good. Who leaves
        // has said it twice, and does not wait.
        if !failure.leaves && !failure.unanswered {
            let _ = timeout(KILL_LIMIT, control.kill()).await;
        }
        return Err(failure);
    }
    exit_code(&handle.wait().await?, time)
}

/// Follows a command that is someone else's: a signal ends this, and not the command.
pub(crate) async fn watch(handle: &mut ExecHandle, signals: &mut Signals) -> Result<u8, Failure> {
    tokio::select! {
        result = pump(handle, Feed::default(), None, signals) => result?,
        () = stdio::reader_gone() => return Err(Failure::signalled(SIGPIPE)),
    }
    exit_code(&handle.wait().await?, None)
}

/// The exit code that stands for a command's end.
pub(crate) fn exit_code(status: &ExitStatus, time: Option<Duration>) -> Result<u8, Failure> {
    if status.timed_out {
        let within = time.map(|time| format!(" within {time:?}")).unwrap_or_default();
        return Err(Failure::timed_out(format!(
            "the command did not end{within} and was killed; --timeout gives it longer"
        )));
    }
    Ok(match status.signal {
        Some(signal) => signal_code(signal),
        // The library lets no other through.
        None => u8::try_from(status.code)
            .map_err(|_| Failure::own(format!("the exit code {} is out of range", status.code)))?,
    })
}

/// Moves the output until its end.
///
/// One piece of output is being written at any time, and the next is taken only then: whoever does
/// not read our output stops the command, and no memory fills up.
async fn pump(
    handle: &mut ExecHandle,
    mut feed: Feed,
    control: Option<&ExecControl>,
    signals: &mut Signals,
) -> Result<(), Failure> {
    let mut outputs = Outputs::open()?;
    let mut end = None;
    loop {
        let is_flood = end.as_ref().is_some_and(End::is_flood);
        // Every arm may be given up: an event stays, a write goes on, a signal is kept. In this
        // order: nothing is late that is here.
        tokio::select! {
            biased;
            wish = signals.next() => {
                act(wish, control)?;
                if let Wish::Kill(_) = wish {
                    end = Some(End::new());
                }
            }
            error = feed.failed() => return Err(read_failure(&error)),
            written = outputs.written(), if outputs.busy() => written?,
            event = handle.recv(), if !outputs.busy() && !is_flood => {
                let data = match event {
                    Some(ExecEvent::Stdout(data)) => Some((Stream::Output, data)),
                    Some(ExecEvent::Stderr(data)) => Some((Stream::Errors, data)),
                    Some(_) => None,
                    None => return Ok(()),
                };
                if let Some((stream, data)) = data {
                    end.iter_mut().for_each(|end| end.output += data.len() as u64);
                    outputs.write(stream, data);
                }
            }
            () = late(&mut end), if !outputs.busy() => return Err(unanswered()),
        }
    }
}

/// The end of a command that was to be killed, while it has not come.
#[derive(Debug)]
struct End {
    due: Instant,
    confirmed: bool,
    /// The output that has come since.
    output: u64,
}

impl End {
    fn new() -> Self {
        End { due: Instant::now() + END_LIMIT, confirmed: false, output: 0 }
    }

    /// Whether more came after the time was over than can have been under way.
    fn is_flood(&self) -> bool {
        self.output > KEPT_OUTPUT && self.confirmed
    }
}

/// Waits until the end is too late; for ever when none is due.
async fn late(end: &mut Option<End>) {
    let Some(end) = end else { return pending().await };
    sleep_until(end.due).await;
    if !end.confirmed {
        end.confirmed = true;
        end.due = Instant::now() + CONFIRM;
        sleep_until(end.due).await;
    }
}

fn unanswered() -> Failure {
    let said = "the agent did not answer when the command was to be killed";
    Failure::unanswered(format!(
        "the connection to the sandbox was lost: {said}; how the command ended is not known"
    ))
}

fn read_failure(error: &io::Error) -> Failure {
    Failure::own(format!("cannot read standard input: {error}"))
}

fn act(wish: Wish, control: Option<&ExecControl>) -> Result<(), Failure> {
    let Some(control) = control.cloned() else {
        let (Wish::Pass(signal) | Wish::Kill(signal) | Wish::Leave(signal)) = wish;
        return Err(Failure::signalled(signal));
    };
    match wish {
        Wish::Leave(signal) => return Err(Failure::left(signal)),
        // Tasks of their own, for the output goes on while the agent answers.
        Wish::Pass(signal) => drop(tokio::spawn(async move {
            note(control.signal(signal).await);
        })),
        Wish::Kill(_) => drop(tokio::spawn(async move {
            note(control.kill().await);
        })),
    }
    Ok(())
}

fn note(result: microsandbox::MicrosandboxResult<()>) {
    match result {
        // It ended by itself at that moment, or the end of the stream will tell.
        Err(error) if !matches!(error.kind(), ErrorKind::NoSuchProcess | ErrorKind::StreamLost) => {
            stdio::complain(&format!("the signal did not reach the command: {error}"));
        }
        _ => {}
    }
}

/// Waits until a command that is to run on by itself has started.
pub(crate) async fn started(handle: &mut ExecHandle, signals: &mut Signals) -> Result<(), Failure> {
    // For whoever attaches to it.
    if let Some(input) = handle.take_stdin() {
        input.leave_open();
    }
    loop {
        tokio::select! {
            wish = signals.next() => match wish {
                Wish::Pass(signal) | Wish::Kill(signal) | Wish::Leave(signal) => {
                    let _ = timeout(KILL_LIMIT, handle.kill()).await;
                    return Err(Failure::signalled(signal));
                }
            },
            event = handle.recv() => match event {
                Some(ExecEvent::Started { .. }) => return Ok(()),
                Some(ExecEvent::Failed(failed)) => return Err(failed.into()),
                Some(_) => {}
                None => return handle.wait().await.map(drop).map_err(Failure::from),
            },
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Stream {
    Output,
    Errors,
}

/// Both outputs. One writer for both keeps the order in which they came, where they lead to the
/// same place.
#[derive(Debug)]
struct Outputs {
    output: Arc<File>,
    errors: Arc<File>,
    writing: Option<(Stream, JoinHandle<io::Result<()>>)>,
}

impl Outputs {
    fn open() -> Result<Self, Failure> {
        let failed = |error| Failure::write("to the standard streams", &error);
        let output = Arc::new(stdio::output().map_err(failed)?);
        let errors = Arc::new(stdio::errors().map_err(failed)?);
        Ok(Outputs { output, errors, writing: None })
    }

    fn busy(&self) -> bool {
        self.writing.is_some()
    }

    /// Begins to write, on a thread that may block.
    fn write(&mut self, stream: Stream, data: impl AsRef<[u8]> + Send + 'static) {
        let file = match stream {
            Stream::Output => Arc::clone(&self.output),
            Stream::Errors => Arc::clone(&self.errors),
        };
        let task = spawn_blocking(move || stdio::write_all(&file, data.as_ref()));
        self.writing = Some((stream, task));
    }

    /// Waits until what was begun is written.
    async fn written(&mut self) -> Result<(), Failure> {
        let Some((stream, task)) = &mut self.writing else { return Ok(()) };
        let (stream, result) = (*stream, task.await);
        self.writing = None;
        let name = match stream {
            Stream::Output => "standard output",
            Stream::Errors => "standard error",
        };
        let result = result.unwrap_or_else(|error| Err(io::Error::other(error)));
        result.map_err(|error| Failure::write(name, &error))
    }
}
