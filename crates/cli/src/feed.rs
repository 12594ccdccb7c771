//! Standard input on its way to a command.

use crate::stdio;
use microsandbox::ExecSink;
use nix::sys::signal::{SigSet, Signal};
use rustix::io::Errno;
use rustix::process::getpgrp;
use rustix::termios::tcgetpgrp;
use std::fs::File;
use std::future::pending;
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::time::Duration;
use std::{io, thread};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinHandle;

/// How much is read at once.
const CHUNK: usize = 64 * 1024;
/// How many chunks may wait: one on its way while the next is read.
const WAITING: usize = 1;

/// How often a process in the background looks whether it still is.
const BACKGROUND_INTERVAL: Duration = Duration::from_millis(200);

type Chunk = io::Result<Vec<u8>>;

/// What became of passing it on: a failure to read comes with the sink.
type Passed = Result<(), (io::Error, ExecSink)>;

/// Whether standard input is for the command, when nobody said so: it is a terminal at which someone
/// waits for this process, and sees what it says. Someone who pages through its output types for the
/// pager.
pub(crate) fn is_for_us() -> bool {
    let input = io::stdin();
    input.is_terminal() && io::stdout().is_terminal() && in_foreground(input)
}

fn in_foreground(terminal: impl AsFd) -> bool {
    tcgetpgrp(terminal).is_ok_and(|group| group == getpgrp())
}

/// Passes this process's input on, until one of the two ends has enough.
#[derive(Debug, Default)]
pub(crate) struct Feed {
    task: Option<JoinHandle<Passed>>,
    /// Kept open after a failure: its end would tell the command that it has had everything.
    held: Option<ExecSink>,
}

impl Feed {
    /// Begins to pass it on.
    pub(crate) fn begin(sink: ExecSink) -> io::Result<Self> {
        let (sender, receiver) = channel(WAITING);
        let file = stdio::input()?;
        // A thread of its own, since a read of a terminal or a pipe may never end and must not
        // keep anything else waiting.
        thread::Builder::new().name("msb-stdin".to_owned()).spawn(move || read(&file, &sender))?;
        Ok(Feed { task: Some(tokio::spawn(pass(receiver, sink))), held: None })
    }

    /// Waits for a failure to read, which is not the input's end and must not pass for it.
    pub(crate) async fn failed(&mut self) -> io::Error {
        if let Some(task) = &mut self.task {
            let result = task.await;
            self.task = None;
            if let Ok(Err((error, sink))) = result {
                self.held = Some(sink);
                return error;
            }
        }
        pending().await
    }
}

fn read(file: &File, sender: &Sender<Chunk>) {
    // Whoever reads the terminal from the background is stopped, and the output with it. Here the
    // read fails instead, and waits until someone is at the terminal.
    let mut stop = SigSet::empty();
    stop.add(Signal::SIGTTIN);
    let _ = stop.thread_block();
    loop {
        let mut buffer = vec![0; CHUNK];
        let result = stdio::read(file, &mut buffer);
        if is_in_background(&result) && file.is_terminal() && !in_foreground(file) {
            thread::sleep(BACKGROUND_INTERVAL);
            continue;
        }
        let last = !matches!(result, Ok(1..));
        let chunk = result.map(|length| {
            buffer.truncate(length);
            buffer
        });
        if sender.blocking_send(chunk).is_err() || last {
            return;
        }
    }
}

fn is_in_background(result: &io::Result<usize>) -> bool {
    let error = result.as_ref().err().and_then(io::Error::raw_os_error);
    error == Some(Errno::IO.raw_os_error())
}

/// An empty chunk is the end.
async fn pass(mut receiver: Receiver<Chunk>, sink: ExecSink) -> Passed {
    while let Some(chunk) = receiver.recv().await {
        match chunk {
            Err(error) => return Err((error, sink)),
            Ok(data) if data.is_empty() => break,
            // That the command stopped reading, or is gone, shows in its events.
            Ok(data) if sink.write(&data).await.is_err() => break,
            Ok(_) => {}
        }
    }
    Ok(())
}
