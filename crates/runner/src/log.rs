//! The log of what the sessions put out.
//!
//! Owns: a thread, with a connection of its own to the agent, that follows every session and
//! writes what comes into the sandbox's log. The runner does this because it lives exactly as long
//! as the sandbox does, and the sandbox cannot reach it.
//!
//! The thread gives credit back when something is written: a disk that is slow slows the programs,
//! and nothing is lost. A disk that refuses ends the log, and with it the connection; the programs
//! go on. Everything blocks, on purpose: one thing after the other is the whole flow control.

use bytes::BytesMut;
use msb_driver::{Failure, LogConfig, LogEvent, LogSource, LogWriter, SandboxDir};
use msb_wire::limits::OUTPUT_WINDOW;
use msb_wire::{
    Decoder, Exited, FEATURE_FOLLOW_ALL, FollowAll, Frame, Hello, Message, Opened, Peer,
    ReceiveCredit, WireError, agree, cost, encode,
};
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// How long the last records may take to be written when the sandbox has ended.
const FINISH_LIMIT: Duration = Duration::from_secs(10);
/// How much is read from the connection at once.
const READ: usize = 256 * 1024;
/// The channel of the one request.
const REQUEST: u32 = 1;

/// A log that is being written.
#[derive(Debug)]
pub(crate) struct Log {
    finished: oneshot::Receiver<()>,
}

impl Log {
    /// Begins it. When this returns, every session that starts is in it.
    pub(crate) async fn begin(dir: &SandboxDir, config: LogConfig) -> Result<Log, Failure> {
        let text =
            |error: msb_driver::Error| Failure::boot(format!("cannot begin the log: {error}"));
        let writer = LogWriter::open(&dir.log(), config).map_err(text)?;
        let stream = dir.connect_agent().map_err(text)?;
        let (begun_sender, begun) = oneshot::channel();
        let (finished_sender, finished) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name("msb-log".to_owned());
        let spawned = thread.spawn(move || {
            live(Follower::new(stream, writer), begun_sender);
            drop(finished_sender);
        });
        spawned.map_err(|error| Failure::boot(format!("cannot make a thread: {error}")))?;
        match begun.await {
            Ok(Ok(())) => Ok(Log { finished }),
            Ok(Err(error)) => Err(Failure::boot(format!("cannot begin the log: {error}"))),
            Err(_) => Err(Failure::boot("the thread of the log ended during its start")),
        }
    }

    /// Waits until all is written that came before the agent's end.
    pub(crate) async fn finished(self) {
        // Nothing is ever sent: it ends when the thread does.
        if timeout(FINISH_LIMIT, self.finished).await.is_err() {
            tracing::error!("the end of the log was not written in time");
        }
    }
}

fn live(mut follower: Follower, begun: oneshot::Sender<Result<(), Ending>>) {
    let asked = follower.ask();
    let is_begun = asked.is_ok();
    if begun.send(asked).is_err() || !is_begun {
        return;
    }
    match follower.follow() {
        Ending::Closed => follower.lose_the_rest(),
        Ending::Log(error) => {
            tracing::error!(%error, "log_failed: the log ends here, the sandbox goes on");
            follower.writer.give_up(&error.to_string());
        }
        ending => {
            tracing::error!(%ending, "log_failed: the log ends here, the sandbox goes on");
            follower.lose_the_rest();
            follower.writer.give_up(&ending.to_string());
        }
    }
}

/// Why the log ends.
#[derive(Debug, thiserror::Error)]
enum Ending {
    #[error("the agent has ended")]
    Closed,
    #[error("{0}")]
    Log(#[from] msb_driver::Error),
    #[error("the connection to the agent: {0}")]
    Io(#[from] io::Error),
    #[error("the agent broke the protocol: {0}")]
    Wire(#[from] WireError),
    #[error("the agent gave the connection up: {0}")]
    Refused(String),
    #[error("the agent cannot have its sessions followed; it is of an older version")]
    Unable,
}

/// One session of the log.
#[derive(Debug)]
struct Session {
    id: String,
    argv: Vec<String>,
    tty: bool,
    credit: ReceiveCredit,
    exited: bool,
}

#[derive(Debug)]
struct Follower {
    stream: UnixStream,
    decoder: Decoder,
    buffer: BytesMut,
    writer: LogWriter,
    sessions: HashMap<u32, Session>,
}

impl Follower {
    fn new(stream: UnixStream, writer: LogWriter) -> Self {
        Follower {
            stream,
            decoder: Decoder::new(Peer::Agent),
            buffer: BytesMut::new(),
            writer,
            sessions: HashMap::new(),
        }
    }

    /// Asks for every session, and waits until that holds.
    fn ask(&mut self) -> Result<(), Ending> {
        let ours = Hello::ours(None);
        self.send(0, Message::Hello(ours.clone()))?;
        loop {
            match self.receive()?.message {
                Message::Hello(theirs) => {
                    if !agree(&ours, &theirs)?.has(FEATURE_FOLLOW_ALL) {
                        return Err(Ending::Unable);
                    }
                    self.send(REQUEST, Message::FollowAll(FollowAll { window: OUTPUT_WINDOW }))?;
                }
                Message::Verdict(verdict) if verdict.refusal.is_none() => return Ok(()),
                Message::Verdict(verdict) => return Err(Ending::Refused(verdict.message)),
                Message::Error(why) => return Err(Ending::Refused(why)),
                _ => {}
            }
        }
    }

    fn follow(&mut self) -> Ending {
        loop {
            let taken = self.receive().and_then(|frame| self.take(frame));
            if let Err(ending) = taken {
                return ending;
            }
        }
    }

    fn take(&mut self, frame: Frame) -> Result<(), Ending> {
        let Frame { channel, message } = frame;
        match message {
            Message::Opened(opened) => {
                self.sessions.insert(channel, Session::new(opened));
                return Ok(());
            }
            Message::Error(why) => return Err(Ending::Refused(why)),
            _ => {}
        }
        // Farewells and the like belong to no session.
        let Some(session) = self.sessions.get_mut(&channel) else { return Ok(()) };
        match message {
            Message::Started(started) => {
                let (argv, tty) = (std::mem::take(&mut session.argv), session.tty);
                let event = LogEvent::Started { pid: started.pid, argv, tty };
                self.writer.event(&session.id, &event)?;
            }
            Message::Stdout(data) => return self.write(channel, LogSource::Stdout, &data),
            Message::Stderr(data) => return self.write(channel, LogSource::Stderr, &data),
            Message::Exited(exited) => {
                let Exited { code, signal, core_dumped, timed_out, .. } = exited;
                let event = LogEvent::Exited { code, signal, core_dumped, timed_out };
                session.exited = true;
                self.writer.event(&session.id, &event)?;
            }
            Message::Failed(failure) => {
                let event = LogEvent::Failed {
                    argv: std::mem::take(&mut session.argv),
                    failure: failure.kind.name().to_owned(),
                    stage: failure.stage.name().to_owned(),
                    errno: failure.errno,
                    message: failure.message,
                };
                self.writer.event(&session.id, &event)?;
                self.sessions.remove(&channel);
            }
            Message::End(_) => {
                self.sessions.remove(&channel);
            }
            _ => {}
        }
        Ok(())
    }

    fn write(&mut self, channel: u32, stream: LogSource, data: &[u8]) -> Result<(), Ending> {
        let Some(session) = self.sessions.get_mut(&channel) else { return Ok(()) };
        session.credit.receive(data.len())?;
        self.writer.data(&session.id, stream, data)?;
        if let Some(limit) = session.credit.release(cost(data.len())) {
            self.send(channel, Message::Credit(limit))?;
        }
        Ok(())
    }

    /// Notes that nothing more is known of the sessions whose end did not come.
    fn lose_the_rest(&mut self) {
        for session in self.sessions.values().filter(|session| !session.exited) {
            if let Err(error) = self.writer.event(&session.id, &LogEvent::Lost) {
                tracing::error!(%error, "log_failed: the end of the log is missing");
                self.writer.give_up(&error.to_string());
                return;
            }
        }
    }

    fn send(&mut self, channel: u32, message: Message) -> Result<(), Ending> {
        let mut bytes = BytesMut::new();
        // Nothing that is sent here can be too long.
        let _ = encode(&Frame { channel, message }, &mut bytes);
        match self.stream.write_all(&bytes) {
            // It has ended; what it wrote before is still to be read.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
                ) =>
            {
                Ok(())
            }
            result => Ok(result?),
        }
    }

    fn receive(&mut self) -> Result<Frame, Ending> {
        loop {
            if let Some(frame) = self.decoder.next(&mut self.buffer)? {
                return Ok(frame);
            }
            let filled = self.buffer.len();
            self.buffer.resize(filled + READ, 0);
            let space = self.buffer.get_mut(filled..).unwrap_or_default();
            let read = self.stream.read(space);
            self.buffer.truncate(filled + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => return Err(Ending::Closed),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // It was killed with something from here unread.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Err(Ending::Closed);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Session {
    fn new(opened: Opened) -> Self {
        let lossy = |word: &[u8]| String::from_utf8_lossy(word).into_owned();
        Session {
            id: opened.session.to_string(),
            argv: opened.argv.iter().map(|word| lossy(word)).collect(),
            tty: opened.tty,
            credit: ReceiveCredit::new(OUTPUT_WINDOW),
            exited: false,
        }
    }
}
