//! Forwards standard input to a command.

use crate::{stdio, sys};
use microsandbox::ExecSink;
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

/// Size of one read, in bytes.
const CHUNK: usize = 64 * 1024;
/// Chunks in the queue: one is sent while the next is read.
const QUEUE: usize = 1;
/// Interval between checks whether a background process is back in the foreground.
const BACKGROUND_INTERVAL: Duration = Duration::from_millis(200);

type Chunk = io::Result<Vec<u8>>;

/// A read error comes with the sink, so that the caller decides when the input ends.
type Forwarded = Result<(), (io::Error, ExecSink)>;

/// Returns whether to forward standard input without an option: this process is in the
/// foreground of a terminal, and its output is a terminal, too. With a pager after it, keys are for
/// the pager.
pub(crate) fn is_interactive() -> bool {
    let input = io::stdin();
    input.is_terminal() && io::stdout().is_terminal() && in_foreground(input)
}

fn in_foreground(terminal: impl AsFd) -> bool {
    tcgetpgrp(terminal).is_ok_and(|group| group == getpgrp())
}

/// Forwards standard input until it ends or the command stops reading.
#[derive(Debug, Default)]
pub(crate) struct StdinForwarder {
    task: Option<JoinHandle<Forwarded>>,
    /// Open after a read error: closing it would tell the command that its input is complete.
    held: Option<ExecSink>,
}

impl StdinForwarder {
    /// Starts to forward.
    pub(crate) fn start(sink: ExecSink) -> io::Result<Self> {
        let (sender, receiver) = channel(QUEUE);
        let file = stdio::duplicate(io::stdin())?;
        // A dedicated thread: a read of a terminal or a pipe may block forever.
        thread::Builder::new().name("msb-stdin".to_owned()).spawn(move || read(&file, &sender))?;
        Ok(StdinForwarder { task: Some(tokio::spawn(forward(receiver, sink))), held: None })
    }

    /// Waits for a read error, which must not pass for the end of the input.
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
    // A background process that reads the terminal is stopped, and its output with it. With SIGTTIN
    // blocked, the read fails instead, and is repeated once the process is in the foreground.
    sys::block_sigttin();
    loop {
        let mut buffer = vec![0; CHUNK];
        let result = stdio::read(file, &mut buffer);
        if is_background_error(&result) && file.is_terminal() && !in_foreground(file) {
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

fn is_background_error(result: &io::Result<usize>) -> bool {
    let error = result.as_ref().err().and_then(io::Error::raw_os_error);
    error == Some(Errno::IO.raw_os_error())
}

/// Sends chunks to the command. An empty chunk is the end of the input.
async fn forward(mut receiver: Receiver<Chunk>, sink: ExecSink) -> Forwarded {
    while let Some(chunk) = receiver.recv().await {
        match chunk {
            Err(error) => return Err((error, sink)),
            Ok(data) if data.is_empty() => break,
            // The command's events report why it no longer reads.
            Ok(data) if sink.write(&data).await.is_err() => break,
            Ok(_) => {}
        }
    }
    Ok(())
}
