//! The log of the sessions' output.
//!
//! Owns: a thread with its own connection to the agent, which follows every session and writes its
//! output to the sandbox's log. The runner does this because it lives exactly as long as the
//! sandbox, and the sandbox cannot reach it.
//!
//! The thread returns credit after each write: a slow disk slows the programs, and nothing is lost.
//! A write error ends the log and the connection; the programs continue. All I/O blocks on purpose,
//! which is the flow control.

use msb_client::{ExecLost, Frames};
use msb_state::{Failure, LogConfig, LogEvent, LogSource, LogWriter, SandboxDir};
use msb_wire::limits::{AGENT_CHANNELS, CHANNELS, ERROR_TEXT, OUTPUT_WINDOW};
use msb_wire::{
    ExecAction, ExecInput, ExecState, Exited, FEATURE_FOLLOW_ALL, FollowAll, Frame, Message,
    Opened, ReceiveCredit, WireError, cost, one_line,
};
use rustix::io::Errno;
use std::collections::HashMap;
use std::os::unix::net::UnixStream;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Time limit for the last records after the sandbox has ended.
const FINISH_LIMIT: Duration = Duration::from_secs(10);
/// The channel of the request.
const REQUEST: u32 = 1;

/// A running log.
#[derive(Debug)]
pub(crate) struct Log {
    finished: oneshot::Receiver<()>,
}

impl Log {
    /// Starts the log. Every session that starts afterwards is in it.
    pub(crate) async fn start(dir: &SandboxDir, config: LogConfig) -> Result<Log, Failure> {
        let text =
            |error: msb_state::Error| Failure::boot(format!("cannot start the log: {error}"));
        let writer = LogWriter::open(&dir.log(), config).map_err(text)?;
        let stream = dir.connect_agent().map_err(text)?;
        let (started_sender, started) = oneshot::channel();
        let (finished_sender, finished) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name("msb-log".to_owned());
        let spawned = thread.spawn(move || {
            match tokio::runtime::Builder::new_current_thread().enable_io().build() {
                Ok(runtime) => runtime.block_on(run(stream, writer, started_sender)),
                Err(error) => drop(started_sender.send(Err(LogEnd::Io(error)))),
            }
            drop(finished_sender);
        });
        spawned
            .map_err(|error| Failure::boot(format!("cannot start the log's thread: {error}")))?;
        match started.await {
            Ok(Ok(())) => Ok(Log { finished }),
            Ok(Err(error)) => Err(Failure::boot(format!("cannot start the log: {error}"))),
            Err(_) => Err(Failure::boot("the log's thread ended during its start")),
        }
    }

    /// Waits until everything that the agent sent has been written.
    pub(crate) async fn finished(self) {
        // Nothing is ever sent: the channel closes when the thread ends.
        if timeout(FINISH_LIMIT, self.finished).await.is_err() {
            tracing::error!("timed out writing the end of the log");
        }
    }
}

async fn run(stream: UnixStream, writer: LogWriter, started: oneshot::Sender<Result<(), LogEnd>>) {
    let mut follower = match Follower::subscribe(stream, writer).await {
        Ok(follower) => follower,
        Err(end) => return drop(started.send(Err(end))),
    };
    if started.send(Ok(())).is_err() {
        return;
    }
    match follower.follow().await {
        LogEnd::Closed => follower.sessions.record_lost(),
        LogEnd::Log(error) => {
            tracing::error!(%error, "log_failed: the log ends here, the sandbox runs on");
            follower.sessions.records.record_failure(&error.to_string());
        }
        end => {
            tracing::error!(%end, "log_failed: the log ends here, the sandbox runs on");
            follower.sessions.record_lost();
            follower.sessions.records.record_failure(&end.to_string());
        }
    }
}

/// Why the log ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogEnd {
    #[error("the agent has ended")]
    Closed,
    #[error(transparent)]
    Log(#[from] msb_state::Error),
    #[error(transparent)]
    Io(std::io::Error),
    #[error(transparent)]
    Lost(ExecLost),
    #[error("the agent broke the protocol: {0}")]
    Wire(WireError),
    #[error("the agent broke the protocol: {0}")]
    Rule(&'static str),
    #[error("the agent closed the connection: {}", one_line(.0, ERROR_TEXT))]
    Refused(String),
    #[error("the agent is too old to follow all sessions")]
    Unsupported,
}

impl From<ExecLost> for LogEnd {
    fn from(lost: ExecLost) -> Self {
        let reset = Errno::CONNRESET.raw_os_error();
        // The agent has exited, or was killed before it read everything.
        match lost.sandbox_gone && lost.os_error.is_none_or(|errno| errno == reset) {
            true => LogEnd::Closed,
            false => LogEnd::Lost(lost),
        }
    }
}

impl From<WireError> for LogEnd {
    fn from(error: WireError) -> Self {
        LogEnd::Wire(error)
    }
}

/// The sink of the records.
pub(crate) trait Records {
    /// Writes output of a session.
    fn data(
        &mut self,
        session: &str,
        stream: LogSource,
        data: &[u8],
    ) -> Result<(), msb_state::Error>;

    /// Writes an event of a session.
    fn event(&mut self, session: &str, event: &LogEvent) -> Result<(), msb_state::Error>;

    /// Records that the log ends here, and why.
    fn record_failure(&self, why: &str);
}

impl Records for LogWriter {
    fn data(
        &mut self,
        session: &str,
        stream: LogSource,
        data: &[u8],
    ) -> Result<(), msb_state::Error> {
        LogWriter::data(self, session, stream, data)
    }

    fn event(&mut self, session: &str, event: &LogEvent) -> Result<(), msb_state::Error> {
        LogWriter::event(self, session, event)
    }

    fn record_failure(&self, why: &str) {
        LogWriter::record_failure(self, why);
    }
}

/// One session of the log.
#[derive(Debug)]
struct Session {
    id: String,
    /// The arguments, NUL-terminated, until they are written: a session that never starts must not
    /// hold an allocation for each.
    argv: Vec<u8>,
    tty: bool,
    state: ExecState,
    credit: ReceiveCredit,
}

/// The open sessions. Does no I/O with the agent.
///
/// Invariant: it holds at most [`CHANNELS`] sessions, each with no more of its arguments than the
/// decoder lets through.
#[derive(Debug)]
pub(crate) struct Sessions<W> {
    records: W,
    open: HashMap<u32, Session>,
}

impl<W: Records> Sessions<W> {
    pub(crate) fn new(records: W) -> Self {
        Sessions { records, open: HashMap::new() }
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn records(&self) -> &W {
        &self.records
    }

    /// Returns the number of open sessions.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    /// Handles a frame of the agent. Returns a channel and its new credit limit, if one is due.
    pub(crate) fn take(&mut self, frame: Frame) -> Result<Option<(u32, u64)>, LogEnd> {
        let Frame { channel, message } = frame;
        match message {
            Message::Opened(opened) => return self.open(channel, opened).map(|()| None),
            Message::Error(why) => return Err(LogEnd::Refused(why)),
            // Shutdown notices and pongs belong to no session.
            _ if channel == 0 => return Ok(None),
            _ => {}
        }
        let session = self.open.get_mut(&channel);
        let session = session.ok_or(LogEnd::Rule("a frame on a channel that is not open"))?;
        let (state, action) = session.state.on(ExecInput::of(&message));
        match action {
            ExecAction::Violation(rule) => return Err(LogEnd::Rule(rule)),
            ExecAction::Apply | ExecAction::Ignore => return Ok(None),
            ExecAction::Deliver | ExecAction::DeliverLast | ExecAction::Finish => {}
        }
        session.state = state;
        match message {
            Message::Started(started) => {
                let (argv, tty) = (session.take_argv(), session.tty);
                let event = LogEvent::Started { pid: started.pid, argv, tty };
                self.records.event(&session.id, &event)?;
            }
            Message::Stdout(data) => return self.write(channel, LogSource::Stdout, &data),
            Message::Stderr(data) => return self.write(channel, LogSource::Stderr, &data),
            Message::Exited(exited) => {
                let Exited { code, signal, core_dumped, timed_out, .. } = exited;
                let event = LogEvent::Exited { code, signal, core_dumped, timed_out };
                self.records.event(&session.id, &event)?;
            }
            Message::Failed(failure) => {
                let event = LogEvent::Failed {
                    argv: session.take_argv(),
                    failure: failure.kind.name().to_owned(),
                    stage: failure.stage.name().to_owned(),
                    errno: failure.errno,
                    message: failure.message,
                };
                self.records.event(&session.id, &event)?;
            }
            _ => {}
        }
        if state == ExecState::Ended {
            self.open.remove(&channel);
        }
        Ok(None)
    }

    fn open(&mut self, channel: u32, opened: Opened) -> Result<(), LogEnd> {
        if channel < AGENT_CHANNELS || self.open.contains_key(&channel) {
            return Err(LogEnd::Rule("a session on a channel that is in use"));
        }
        if self.open.len() >= CHANNELS {
            return Err(LogEnd::Rule("more sessions than may be open at once"));
        }
        self.open.insert(channel, Session::new(&opened));
        Ok(())
    }

    fn write(
        &mut self,
        channel: u32,
        stream: LogSource,
        data: &[u8],
    ) -> Result<Option<(u32, u64)>, LogEnd> {
        let Some(session) = self.open.get_mut(&channel) else { return Ok(None) };
        session.credit.receive(data.len())?;
        self.records.data(&session.id, stream, data)?;
        Ok(session.credit.release(cost(data.len())).map(|limit| (channel, limit)))
    }

    /// Writes `lost` for every session that has started and whose end is unknown.
    fn record_lost(&mut self) {
        for session in self.open.values().filter(|session| session.state == ExecState::Running) {
            if let Err(error) = self.records.event(&session.id, &LogEvent::Lost) {
                tracing::error!(%error, "log_failed: the end of the log is missing");
                self.records.record_failure(&error.to_string());
                return;
            }
        }
    }
}

#[derive(Debug)]
struct Follower {
    frames: Frames,
    sessions: Sessions<LogWriter>,
}

impl Follower {
    /// Subscribes to every session.
    async fn subscribe(stream: UnixStream, writer: LogWriter) -> Result<Self, LogEnd> {
        let (mut frames, agreed) = Frames::greet(stream).await?;
        if !agreed.has(FEATURE_FOLLOW_ALL) {
            return Err(LogEnd::Unsupported);
        }
        frames.send(REQUEST, Message::FollowAll(FollowAll { window: OUTPUT_WINDOW })).await?;
        match frames.receive().await?.message {
            Message::Verdict(verdict) if verdict.refusal.is_none() => {
                Ok(Follower { frames, sessions: Sessions::new(writer) })
            }
            Message::Verdict(verdict) => Err(LogEnd::Refused(verdict.message)),
            Message::Error(why) => Err(LogEnd::Refused(why)),
            _ => Err(LogEnd::Rule("a reply that does not match the request")),
        }
    }

    async fn follow(&mut self) -> LogEnd {
        loop {
            if let Err(end) = self.step().await {
                return end;
            }
        }
    }

    async fn step(&mut self) -> Result<(), LogEnd> {
        let frame = self.frames.receive().await?;
        if let Some((channel, limit)) = self.sessions.take(frame)? {
            self.frames.send(channel, Message::Credit(limit)).await?;
        }
        Ok(())
    }
}

impl Session {
    fn new(opened: &Opened) -> Self {
        let mut argv = Vec::with_capacity(opened.argv.iter().map(|word| word.len() + 1).sum());
        for word in &opened.argv {
            argv.extend_from_slice(word);
            argv.push(0);
        }
        Session {
            id: opened.session.to_string(),
            argv,
            tty: opened.tty,
            state: ExecState::Opening,
            credit: ReceiveCredit::new(OUTPUT_WINDOW),
        }
    }

    fn take_argv(&mut self) -> Vec<String> {
        let argv = std::mem::take(&mut self.argv);
        let words = argv.split_inclusive(|byte| *byte == 0);
        let words = words.map(|word| word.strip_suffix(b"\0").unwrap_or(word));
        words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use msb_wire::{End, Hello, SessionId, Started, Verdict, encode};
    use std::io::Write;

    const FIRST: u32 = AGENT_CHANNELS;

    fn opened(number: u128, argv: &[&[u8]]) -> Message {
        let session = SessionId::from_bytes(number.to_be_bytes());
        let argv = argv.iter().map(|word| word.to_vec().into()).collect();
        Message::Opened(Opened { session, argv, tty: false })
    }

    fn put(stream: &mut UnixStream, frames: impl IntoIterator<Item = (u32, Message)>) -> bool {
        let mut bytes = BytesMut::new();
        for (channel, message) in frames {
            assert!(encode(&Frame { channel, message }, &mut bytes));
        }
        stream.write_all(&bytes).is_ok()
    }

    /// A subscribed follower of an agent that runs `script`.
    async fn followed(
        script: impl FnOnce(UnixStream) + Send + 'static,
    ) -> (tempfile::TempDir, Follower, std::thread::JoinHandle<()>) {
        let folder = tempfile::tempdir().unwrap();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let agent = std::thread::spawn(move || {
            put(&mut theirs, [(0, Message::Hello(Hello::ours(Some([1; 16]))))]);
            put(&mut theirs, [(REQUEST, Message::Verdict(Verdict::default()))]);
            script(theirs);
        });
        let writer = LogWriter::open(folder.path(), LogConfig::default()).unwrap();
        let follower = Follower::subscribe(ours, writer).await.unwrap();
        (folder, follower, agent)
    }

    #[tokio::test(flavor = "current_thread")]
    async fn j4_flood_of_opened_is_bounded() {
        let (folder, mut follower, agent) = followed(|mut stream| {
            let argv = vec![b'x'; 4000];
            for number in 0..1_000_000_u32 {
                let message = opened(number.into(), &[&argv]);
                if !put(&mut stream, [(FIRST + number, message)]) {
                    return;
                }
            }
            panic!("a million sessions were accepted");
        })
        .await;
        let end = follower.follow().await;
        assert!(matches!(end, LogEnd::Rule(_)), "{end}");
        assert_eq!(follower.sessions.len(), CHANNELS);
        let held: usize = follower.sessions.open.values().map(|one| one.argv.capacity()).sum();
        assert!(held <= CHANNELS * msb_wire::limits::ARGV_SHOWN, "{held}");
        follower.sessions.records.record_failure(&end.to_string());
        drop(follower);
        agent.join().unwrap();
        let texts: String = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| std::fs::read(entry.unwrap().path()).unwrap())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .collect();
        assert!(texts.contains("more sessions than may be open at once"), "{texts}");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn j4_agent_that_breaks_the_order_ends_the_log() {
        let started = || Message::Started(Started { pid: 2 });
        let data = || Message::Stdout(bytes::Bytes::from_static(b"x"));
        let exited = || Message::Exited(Exited::default());
        let end = || Message::End(End::default());
        let wrong: [Vec<Message>; 7] = [
            vec![started()],
            vec![opened(1, &[]), data()],
            vec![opened(1, &[]), opened(2, &[])],
            vec![opened(1, &[]), started(), started()],
            vec![opened(1, &[]), started(), exited(), exited()],
            vec![opened(1, &[]), started(), exited(), end(), end()],
            vec![opened(1, &[]), started(), Message::Verdict(Verdict::default())],
        ];
        for messages in wrong {
            let context = format!("{messages:?}");
            let (_folder, mut follower, agent) = followed(move |mut stream| {
                put(&mut stream, messages.into_iter().map(|message| (FIRST, message)));
            })
            .await;
            let end = follower.follow().await;
            assert!(matches!(end, LogEnd::Rule(_)), "{context}: {end}");
            agent.join().unwrap();
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn j4_agent_that_exceeds_its_credit_ends_the_log() {
        let (_folder, mut follower, agent) = followed(|mut stream| {
            put(
                &mut stream,
                [(FIRST, opened(1, &[])), (FIRST, Message::Started(Started { pid: 2 }))],
            );
            let data = bytes::Bytes::from(vec![0; msb_wire::limits::MAX_DATA]);
            let _ = stream.shutdown(std::net::Shutdown::Read);
            while put(&mut stream, [(FIRST, Message::Stdout(data.clone()))]) {}
        })
        .await;
        // A session with little credit left.
        follower.sessions.open.clear();
        let credit = ReceiveCredit::new(100);
        let end = loop {
            let frame = follower.frames.receive().await.unwrap();
            let is_opened = matches!(frame.message, Message::Opened(_));
            if let Err(end) = follower.sessions.take(frame) {
                break end;
            }
            if is_opened {
                follower.sessions.open.get_mut(&FIRST).unwrap().credit = credit.clone();
            }
        };
        assert!(matches!(end, LogEnd::Wire(WireError::Overrun { .. })), "{end}");
        drop(follower);
        agent.join().unwrap();
    }

    #[test]
    fn d6_arguments_are_kept_byte_for_byte() {
        for argv in [&[][..], &[b"".as_slice()], &[b"a", b"", b"b c"], &[b"\xff"]] {
            let Message::Opened(opened) = opened(1, argv) else { panic!() };
            let expected: Vec<String> =
                argv.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect();
            assert_eq!(Session::new(&opened).take_argv(), expected);
        }
    }
}
