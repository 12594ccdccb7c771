//! The process of the testee, and the pipes to it.

use crate::bytes::show;
use crate::command::asks_for;
use crate::format::{Case, Kind};
use crate::protocol::{self, Cannot, Done, Reply, Request, Said};
use std::collections::HashMap;
use std::ffi::OsString;
use std::io::BufReader;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

type Waiting = Arc<Mutex<Option<HashMap<u64, Sender<Reply>>>>>;

/// A running testee. Any thread may send requests; each receives its own replies.
pub(crate) struct Testee {
    child: Child,
    input: Mutex<Option<ChildStdin>>,
    next: AtomicU64,
    /// The requesters that wait for replies; `None` after the last reply.
    waiting: Waiting,
    /// How reading the replies ended.
    over: Mutex<Receiver<Result<(), String>>>,
    trace: bool,
    /// What it said of its language.
    pub(crate) hello: Vec<String>,
}

/// The result of a request.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) id: u64,
    pub(crate) done: Done,
}

impl Answer {
    /// Describes it in one line.
    pub(crate) fn describe(&self) -> String {
        match &self.done {
            Done::Error { kind, message } => format!("{kind}: {message}"),
            done => format!("{done:?}"),
        }
    }
}

impl Testee {
    /// Starts a testee with its own state directory.
    pub(crate) fn start(command: &[OsString], home: &Path, trace: bool) -> Result<Self, String> {
        let (program, args) = command.split_first().ok_or("no testee")?;
        let mut child = Command::new(program);
        child.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).env("MSB_HOME", home);
        if std::env::var_os("MSB_DRIVER").is_none() {
            child.env("MSB_DRIVER", "container");
        }
        let mut child =
            child.spawn().map_err(|error| format!("cannot start {program:?}: {error}"))?;
        let output = child.stdout.take().ok_or("the testee has no output")?;
        let waiting = Waiting::new(Mutex::new(Some(HashMap::new())));
        let (ended, over) = channel();
        thread::spawn({
            let waiting = Arc::clone(&waiting);
            move || {
                let result = read(output, &waiting, trace);
                *waiting.lock().unwrap_or_else(PoisonError::into_inner) = None;
                let _ = ended.send(result);
            }
        });
        let (input, next) = (Mutex::new(child.stdin.take()), AtomicU64::new(1));
        Ok(Testee { child, input, next, waiting, over: Mutex::new(over), trace, hello: Vec::new() })
    }

    /// Whether its language is the bare C ABI, which returns what others raise.
    pub(crate) fn is_bare(&self) -> bool {
        self.says("bare")
    }

    /// Whether the path of a failure has U+FFFD in place of bytes that are not UTF-8.
    pub(crate) fn is_lossy(&self) -> bool {
        self.says("lossy")
    }

    /// Returns what a case asks for and its language cannot express.
    pub(crate) fn cannot(&self, case: &Case) -> Option<Cannot> {
        Cannot::ALL.into_iter().find(|it| self.says(it.name()) && asks_for(case, *it))
    }

    fn says(&self, word: &str) -> bool {
        self.hello.iter().any(|said| said == word)
    }

    /// Sends a request, passes its events to `on_event`, and returns its result.
    pub(crate) fn ask(
        &self,
        request: Request,
        deadline: Instant,
        mut on_event: impl FnMut(Kind, Vec<u8>) -> Result<(), String>,
    ) -> Result<Answer, String> {
        let (id, replies) = self.send(request)?;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let reply = match replies.recv_timeout(left) {
                Ok(reply) => reply,
                Err(RecvTimeoutError::Timeout) => return Err("hung".to_owned()),
                Err(RecvTimeoutError::Disconnected) => return Err("the testee is gone".to_owned()),
            };
            match reply.said {
                Said::Done(done) => return Ok(Answer { id, done }),
                Said::Event(kind, data) => on_event(kind, data.0)?,
            }
        }
    }

    fn send(&self, request: Request) -> Result<(u64, Receiver<Reply>), String> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, replies) = channel();
        let gone = || "the testee is gone".to_owned();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.as_mut().ok_or_else(gone)?.insert(id, sender);
        drop(waiting);
        let fields = request.encode(id);
        if self.trace {
            trace("->", &fields);
        }
        let mut input = self.input.lock().unwrap_or_else(PoisonError::into_inner);
        let input = input.as_mut().ok_or_else(gone)?;
        let sent = protocol::write(input, &fields);
        sent.map_err(|error| format!("cannot write to the testee: {error}"))?;
        Ok((id, replies))
    }

    /// Closes the testee's input and waits for a clean exit.
    pub(crate) fn end(mut self, patience: Duration) -> Result<(), String> {
        *self.input.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let over = self.over.get_mut().unwrap_or_else(PoisonError::into_inner);
        let read = over.recv_timeout(patience);
        if read.is_err() {
            let _ = self.child.kill();
        }
        let status = self.child.wait().map_err(|error| error.to_string())?;
        match read {
            Ok(Err(why)) => Err(format!("the testee broke the protocol: {why}")),
            Ok(Ok(())) if status.success() => Ok(()),
            Ok(Ok(())) => Err(format!("the testee ended badly: {status}")),
            Err(_) => Err("the testee did not end with its input".to_owned()),
        }
    }
}

fn read(output: ChildStdout, waiting: &Waiting, trace_it: bool) -> Result<(), String> {
    let mut output = BufReader::with_capacity(1 << 16, output);
    while let Some(fields) = protocol::read(&mut output).map_err(|error| error.to_string())? {
        if trace_it {
            trace("<-", &fields);
        }
        let reply = Reply::new(fields).map_err(|error| error.to_string())?;
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = waiting.as_mut().ok_or("it goes on")?;
        // The requester may have timed out; its reply is dropped.
        let over = matches!(reply.said, Said::Done(_));
        let id = reply.id;
        if let Some(sender) = waiting.get(&id) {
            let _ = sender.send(reply);
        } else {
            return Err(format!("a reply to {id}, which is no open request"));
        }
        if over {
            waiting.remove(&id);
        }
    }
    Ok(())
}

#[allow(clippy::print_stderr, reason = "asked for with --trace")]
fn trace(direction: &str, fields: &[Vec<u8>]) {
    let fields: Vec<String> = fields.iter().map(|field| show(field)).collect();
    eprintln!("{direction} {}", fields.join(" "));
}
