//! The messages: one type for each kind of frame that carries more than raw bytes.

use crate::failure::Failure;
use crate::fs::FsMessage;
use crate::handshake::Hello;
use crate::session_id::SessionId;
use crate::tty_modes::TtyModes;
use bytes::Bytes;
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

/// The content of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Both: first on a connection.
    Hello(Hello),
    /// Both: the sender closes the connection; one line with the reason.
    Error(String),
    /// Host: requests a `Pong` with the same number.
    Ping(u64),
    /// Agent: the answer to `Ping`.
    Pong(u64),
    /// Host: requests that the agent ends every session, then itself.
    Shutdown(Shutdown),
    /// Agent: it exits, as requested.
    Bye,
    /// Host: runs a command; opens a channel.
    Exec(Exec),
    /// Host: follows a running or ended session; opens a channel.
    Attach(Attach),
    /// Host: follows every session that starts from now on. Answered by `Verdict` on the same
    /// channel; requires [`crate::FEATURE_FOLLOW_ALL`].
    FollowAll(FollowAll),
    /// Host: lists the sessions. Answered by `Sessions` on the same channel.
    List,
    /// Host: sends a signal. Answered by `Verdict` on the same channel.
    Signal(SignalRequest),
    /// Host: changes a terminal's size. Answered by `Verdict` on the same channel.
    Resize(ResizeRequest),
    /// Host: bytes for standard input.
    Stdin(Bytes),
    /// Host: end of standard input.
    StdinEof,
    /// Host: stops following the session of this channel, which kills nothing; or gives up its
    /// operation on files.
    Close,
    /// Both: the total cost of the data frames that the peer may send on this channel.
    Credit(u64),
    /// Agent: the command started.
    Started(Started),
    /// Agent: the channel follows the session from here.
    Attached(Attached),
    /// Agent: bytes from standard output, or from the terminal.
    Stdout(Bytes),
    /// Agent: bytes from standard error.
    Stderr(Bytes),
    /// Agent: the command stopped reading its input.
    StdinError(StdinError),
    /// Agent: the command exited; everything that it wrote itself has been sent.
    Exited(Exited),
    /// Agent: the command never started. Last on its channel.
    Failed(Failure),
    /// Agent: end of output. Last on its channel.
    End(End),
    /// Agent: the answer to `List`.
    Sessions(Sessions),
    /// Agent: the result of a request that has no other answer. Last on its channel.
    Verdict(Verdict),
    /// Agent: opens this channel, which follows a session that starts.
    Opened(Opened),
    /// Both: a message about files; see [`fs`](crate::fs). Requires [`crate::FEATURE_FS`].
    Fs(FsMessage),
}

/// One of the two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum OutputStream {
    /// Standard output; with a terminal, everything.
    #[n(1)]
    Stdout,
    /// Standard error.
    #[n(2)]
    Stderr,
}

/// A command's standard input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(index_only)]
pub enum StdinMode {
    /// `/dev/null`.
    #[default]
    #[n(0)]
    Null,
    /// Fed by `Stdin` frames. Implied by a terminal.
    #[n(1)]
    Pipe,
}

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct TtySize {
    /// Lines.
    #[n(0)]
    pub rows: u16,
    /// Columns.
    #[n(1)]
    pub cols: u16,
}

/// A resource limit, `u64::MAX` being infinity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Rlimit {
    /// Linux's number of the resource (asm-generic/resource.h).
    #[n(0)]
    pub resource: u8,
    /// The limit in force.
    #[n(1)]
    pub soft: u64,
    /// The maximum to which the process may raise it.
    #[n(2)]
    pub hard: u64,
}

/// A command to run.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Exec {
    /// The session's id.
    #[n(0)]
    pub session: SessionId,
    /// Program and arguments; never empty.
    #[n(1)]
    pub argv: Vec<ByteVec>,
    /// `NAME=value` entries, without those that the user's account supplies.
    #[n(2)]
    pub env: Vec<ByteVec>,
    /// Working directory.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub cwd: Vec<u8>,
    /// `name`, `uid`, `name:group` or `uid:gid`; root when absent.
    #[n(4)]
    pub user: Option<String>,
    /// Standard input.
    #[n(5)]
    #[cbor(default)]
    pub stdin: StdinMode,
    /// Size of the terminal; no terminal when absent.
    #[n(6)]
    pub tty: Option<TtySize>,
    /// Time limit, in nanoseconds of the guest's monotonic clock.
    #[n(7)]
    pub timeout_ns: Option<u64>,
    /// Resource limits.
    #[n(8)]
    #[cbor(default)]
    pub rlimits: Vec<Rlimit>,
    /// How long to forward output of other processes after the exit, in nanoseconds.
    #[n(9)]
    pub drain_ns: Option<u64>,
    /// Whether to forward output until every writer has closed it.
    #[n(10)]
    #[cbor(default)]
    pub wait_for_eof: bool,
    /// Initial credit for output.
    #[n(11)]
    pub window: u64,
    /// Settings of the terminal; the kernel's defaults when absent.
    #[n(12)]
    pub modes: Option<TtyModes>,
}

/// A request to follow a session.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Attach {
    /// The session.
    #[n(0)]
    pub session: SessionId,
    /// Position of the first byte, counted over both outputs; `None`: only new output.
    #[n(1)]
    pub from: Option<u64>,
    /// Initial credit for output.
    #[n(2)]
    pub window: u64,
}

/// A request to follow every session that starts from now on, until the connection ends.
///
/// The agent opens a channel for each, numbered from [`crate::limits::AGENT_CHANNELS`] up, and
/// announces it with [`Opened`]; `Started` or `Failed` and the rest follow, as for the host that
/// started it. After this request a host opens no channels with such numbers.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct FollowAll {
    /// Initial credit for output, for each session.
    #[n(0)]
    pub window: u64,
}

/// A session that starts, and that this channel follows.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Opened {
    /// Its id.
    #[n(0)]
    pub session: SessionId,
    /// Program and arguments, cut at 4 KiB.
    #[cbor(n(1), decode_with = "crate::bounded::argv")]
    pub argv: Vec<ByteVec>,
    /// Whether it has a terminal.
    #[n(2)]
    #[cbor(default)]
    pub tty: bool,
}

/// The command started.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Started {
    /// Its process id in the guest.
    #[n(0)]
    pub pid: u32,
}

/// The channel follows the session.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Attached {
    /// Its process id in the guest.
    #[n(0)]
    pub pid: u32,
    /// Position of the output that follows.
    #[n(1)]
    pub from: u64,
    /// How many bytes before it were requested and are no longer kept.
    #[n(2)]
    #[cbor(default)]
    pub missed: u64,
    /// Whether its input is open.
    #[n(3)]
    #[cbor(default)]
    pub stdin_open: bool,
    /// Whether it has a terminal.
    #[n(4)]
    #[cbor(default)]
    pub tty: bool,
}

/// The command stopped reading its input.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct StdinError {
    /// The guest's `errno`.
    #[n(0)]
    pub errno: i32,
}

/// How the command exited.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct Exited {
    /// Exit code; -1 after a signal.
    #[n(0)]
    pub code: i32,
    /// The signal that killed it.
    #[n(1)]
    pub signal: Option<u8>,
    /// Whether it left a core dump.
    #[n(2)]
    #[cbor(default)]
    pub core_dumped: bool,
    /// Whether it was killed at its time limit.
    #[n(3)]
    #[cbor(default)]
    pub timed_out: bool,
    /// CPU time in user mode, in nanoseconds, with its waited-for children.
    #[n(4)]
    #[cbor(default)]
    pub user_ns: u64,
    /// CPU time in the kernel, in nanoseconds, likewise.
    #[n(5)]
    #[cbor(default)]
    pub system_ns: u64,
    /// Largest resident size, in bytes.
    #[n(6)]
    #[cbor(default)]
    pub max_rss: u64,
    /// Time from start to exit, in nanoseconds.
    #[n(7)]
    #[cbor(default)]
    pub wall_ns: u64,
}

/// The end of output.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct End {
    /// Whether another process still had the output open.
    #[n(0)]
    #[cbor(default)]
    pub writer_left: bool,
    /// Total output of the session, in bytes.
    #[n(1)]
    #[cbor(default)]
    pub total: u64,
}

/// The processes that receive a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Scope {
    /// The session's process group.
    #[n(0)]
    Group,
    /// Every process that the session started, also those that left its group.
    #[n(1)]
    Everything,
}

/// A request to send a signal.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SignalRequest {
    /// The session.
    #[n(0)]
    pub session: SessionId,
    /// Linux's number of the signal.
    #[n(1)]
    pub signal: i32,
    /// The processes in it.
    #[n(2)]
    pub scope: Scope,
}

/// A request to change a terminal's size.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ResizeRequest {
    /// The session.
    #[n(0)]
    pub session: SessionId,
    /// The new size.
    #[n(1)]
    pub size: TtySize,
}

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Refusal {
    /// The session is unknown, or was forgotten.
    #[n(1)]
    NoSuchSession,
    /// The session's process has exited.
    #[n(2)]
    NoSuchProcess,
    /// The request is invalid: an unknown signal, a size of zero.
    #[n(3)]
    Invalid,
    /// The session has no terminal.
    #[n(4)]
    NotATerminal,
    /// A limit of the agent is reached.
    #[n(5)]
    TooMany,
    /// The system refused it, with an errno.
    #[n(6)]
    System,
}

/// The result of a request that has no other answer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct Verdict {
    /// The reason of a refusal; absent on success.
    #[n(0)]
    pub refusal: Option<Refusal>,
    /// The guest's `errno`, or 0.
    #[n(1)]
    #[cbor(default)]
    pub errno: i32,
    /// One line for users.
    #[n(2)]
    #[cbor(default)]
    pub message: String,
}

impl Verdict {
    /// Returns a refusal with its reason.
    pub fn refused(refusal: Refusal, errno: i32, message: &str) -> Self {
        Verdict { refusal: Some(refusal), errno, message: message.to_owned() }
    }
}

/// One session in a list.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SessionInfo {
    /// Its id.
    #[n(0)]
    pub session: SessionId,
    /// Its process id in the guest.
    #[n(1)]
    pub pid: u32,
    /// Program and arguments, cut at 4 KiB.
    #[cbor(n(2), decode_with = "crate::bounded::argv")]
    pub argv: Vec<ByteVec>,
    /// Whether it has a terminal.
    #[n(3)]
    #[cbor(default)]
    pub tty: bool,
    /// How it exited; absent while it runs.
    #[n(4)]
    pub exited: Option<Exited>,
    /// Time since it started, in nanoseconds.
    #[n(5)]
    pub age_ns: u64,
    /// Total output so far, in bytes.
    #[n(6)]
    pub total: u64,
    /// Number of readers.
    #[n(7)]
    #[cbor(default)]
    pub followers: u32,
}

/// The answer to `List`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Sessions {
    /// Running sessions, then ended ones that are kept; each in order of their start.
    #[cbor(n(0), decode_with = "crate::bounded::sessions")]
    pub sessions: Vec<SessionInfo>,
}

/// A request to end every session, then the agent.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Shutdown {
    /// Time between SIGTERM, or `signal`, and SIGKILL, in nanoseconds.
    #[n(0)]
    pub grace_ns: u64,
    /// What the process of each session gets first; without it every process gets SIGTERM.
    #[n(1)]
    pub signal: Option<i32>,
}
