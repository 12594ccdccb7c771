//! The messages, one type for each kind of frame that carries more than raw bytes.

use crate::failure::Failure;
use crate::handshake::Hello;
use crate::session_id::SessionId;
use bytes::Bytes;
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

/// What a frame says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Both ways, first on a connection.
    Hello(Hello),
    /// Both ways: the connection ends because of what the other side sent; one line says why.
    Error(String),
    /// Host: are you there? Answered by `Pong` with the same number.
    Ping(u64),
    /// Agent: the answer to `Ping`.
    Pong(u64),
    /// Host: end every session, then yourself.
    Shutdown(Shutdown),
    /// Agent: it ends now, because it was asked to.
    Bye,
    /// Host: run a command; opens a channel.
    Exec(Exec),
    /// Host: follow a session that runs or ran; opens a channel.
    Attach(Attach),
    /// Host: follow every session that starts from now on. Answered by `Verdict` on the same channel;
    /// only for peers that agreed on [`crate::FEATURE_FOLLOW_ALL`].
    FollowAll(FollowAll),
    /// Host: which sessions are there? Answered by `Sessions` on the same channel.
    List,
    /// Host: send a signal. Answered by `Verdict` on the same channel.
    Signal(SignalRequest),
    /// Host: change a terminal's size. Answered by `Verdict` on the same channel.
    Resize(ResizeRequest),
    /// Host: bytes for standard input.
    Stdin(Bytes),
    /// Host: no more standard input.
    StdinEof,
    /// Host: it no longer follows the session of this channel. Nothing is killed.
    Close,
    /// Both ways: the total cost of data frames that the other side may send on this channel.
    Credit(u64),
    /// Agent: the command runs.
    Started(Started),
    /// Agent: the channel follows the session from here.
    Attached(Attached),
    /// Agent: bytes from standard output, or from the terminal.
    Stdout(Bytes),
    /// Agent: bytes from standard error.
    Stderr(Bytes),
    /// Agent: the command no longer reads its input.
    StdinError(StdinError),
    /// Agent: the command ended; all that it wrote itself has been sent.
    Exited(Exited),
    /// Agent: the command never started. Last on its channel.
    Failed(Failure),
    /// Agent: no more output. Last on its channel.
    End(End),
    /// Agent: the answer to `List`.
    Sessions(Sessions),
    /// Agent: the answer to a request that has no other. Last on its channel.
    Verdict(Verdict),
    /// Agent: a session starts, and this channel, which the agent opens by it, follows the session.
    Opened(Opened),
}

/// Which of the two outputs.
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

/// What a command's standard input is.
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
    /// What the process may raise it to.
    #[n(2)]
    pub hard: u64,
}

/// A command to run.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Exec {
    /// The session's name.
    #[n(0)]
    pub session: SessionId,
    /// Program and arguments; never empty.
    #[n(1)]
    pub argv: Vec<ByteVec>,
    /// `NAME=value` entries, complete but for what the user's account supplies.
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
    /// A terminal of this size.
    #[n(6)]
    pub tty: Option<TtySize>,
    /// Kill it after this long, in nanoseconds of the guest's monotonic clock.
    #[n(7)]
    pub timeout_ns: Option<u64>,
    /// Resource limits.
    #[n(8)]
    #[cbor(default)]
    pub rlimits: Vec<Rlimit>,
    /// How long others' output is forwarded after the exit, in nanoseconds.
    #[n(9)]
    pub drain_ns: Option<u64>,
    /// Forward until every writer is gone, however long that takes.
    #[n(10)]
    #[cbor(default)]
    pub wait_for_eof: bool,
    /// Credit for output at the start.
    #[n(11)]
    pub window: u64,
}

/// Follow a session.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Attach {
    /// Which.
    #[n(0)]
    pub session: SessionId,
    /// The first byte wanted, counted over both outputs; `None`: only what is still to come.
    #[n(1)]
    pub from: Option<u64>,
    /// Credit for output at the start.
    #[n(2)]
    pub window: u64,
}

/// Follow every session that starts from now on, until the connection ends.
///
/// For each the agent opens a channel of its own, numbered from [`crate::limits::AGENT_CHANNELS`]
/// up, and announces it with [`Opened`]; then come `Started` or `Failed` and the rest, as for the
/// one who started it. A host that has sent this opens no channels with such numbers.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct FollowAll {
    /// Credit for output at the start, for each session.
    #[n(0)]
    pub window: u64,
}

/// A session starts, and is followed on this channel.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Opened {
    /// Its name.
    #[n(0)]
    pub session: SessionId,
    /// Program and arguments, cut at 4 KiB.
    #[cbor(n(1), decode_with = "crate::check::shown_argv")]
    pub argv: Vec<ByteVec>,
    /// Whether it has a terminal.
    #[n(2)]
    #[cbor(default)]
    pub tty: bool,
}

/// The command runs.
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
    /// Where the output that follows begins.
    #[n(1)]
    pub from: u64,
    /// How many bytes between the wanted position and that are no longer kept.
    #[n(2)]
    #[cbor(default)]
    pub missed: u64,
    /// Whether its input can still be written to.
    #[n(3)]
    #[cbor(default)]
    pub stdin_open: bool,
    /// Whether it has a terminal.
    #[n(4)]
    #[cbor(default)]
    pub tty: bool,
}

/// The command no longer reads its input.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct StdinError {
    /// The guest's `errno`.
    #[n(0)]
    pub errno: i32,
}

/// How the command ended.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct Exited {
    /// Exit code; -1 for a death by signal.
    #[n(0)]
    pub code: i32,
    /// The signal that killed it.
    #[n(1)]
    pub signal: Option<u8>,
    /// Whether it left a core dump.
    #[n(2)]
    #[cbor(default)]
    pub core_dumped: bool,
    /// Whether its time had run out and that was why it was killed.
    #[n(3)]
    #[cbor(default)]
    pub timed_out: bool,
    /// CPU time in user mode, in nanoseconds, its waited-for children included.
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

/// No more output.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct End {
    /// Whether some other process still had the output open.
    #[n(0)]
    #[cbor(default)]
    pub writer_left: bool,
    /// All bytes that the session ever put out.
    #[n(1)]
    #[cbor(default)]
    pub total: u64,
}

/// Whom a signal is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Scope {
    /// The session's process group.
    #[n(0)]
    Group,
    /// Everything that the session started, also what left its group.
    #[n(1)]
    Everything,
}

/// Send a signal.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SignalRequest {
    /// To which session.
    #[n(0)]
    pub session: SessionId,
    /// Linux's number of the signal.
    #[n(1)]
    pub signal: i32,
    /// To whom in it.
    #[n(2)]
    pub scope: Scope,
}

/// Change a terminal's size.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ResizeRequest {
    /// Of which session.
    #[n(0)]
    pub session: SessionId,
    /// To what.
    #[n(1)]
    pub size: TtySize,
}

/// Why a request was turned down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Refusal {
    /// No such session is known (any more).
    #[n(1)]
    NoSuchSession,
    /// The session's process is gone.
    #[n(2)]
    NoSuchProcess,
    /// The request makes no sense: an unknown signal, a size of zero.
    #[n(3)]
    Invalid,
    /// The session has no terminal.
    #[n(4)]
    NotATerminal,
    /// A bound of the agent is reached.
    #[n(5)]
    TooMany,
    /// The system refused it; the errno says how.
    #[n(6)]
    System,
}

/// The answer to a request that has no other.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct Verdict {
    /// Absent when it was done.
    #[n(0)]
    pub refusal: Option<Refusal>,
    /// The guest's `errno`, or 0.
    #[n(1)]
    #[cbor(default)]
    pub errno: i32,
    /// One line for people.
    #[n(2)]
    #[cbor(default)]
    pub message: String,
}

/// One session of a list.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SessionInfo {
    /// Its name.
    #[n(0)]
    pub session: SessionId,
    /// Its process id in the guest.
    #[n(1)]
    pub pid: u32,
    /// Program and arguments, cut at 4 KiB.
    #[cbor(n(2), decode_with = "crate::check::shown_argv")]
    pub argv: Vec<ByteVec>,
    /// Whether it has a terminal.
    #[n(3)]
    #[cbor(default)]
    pub tty: bool,
    /// How it ended; absent while it runs.
    #[n(4)]
    pub exited: Option<Exited>,
    /// How long ago it started, in nanoseconds.
    #[n(5)]
    pub age_ns: u64,
    /// All bytes that it has put out.
    #[n(6)]
    pub total: u64,
    /// How many readers follow it.
    #[n(7)]
    #[cbor(default)]
    pub followers: u32,
}

/// The answer to `List`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Sessions {
    /// Running sessions, then ended ones that are remembered; each in order of their start.
    #[cbor(n(0), decode_with = "crate::check::sessions")]
    pub sessions: Vec<SessionInfo>,
}

/// End every session, then the agent.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Shutdown {
    /// How long processes have between SIGTERM and SIGKILL, in nanoseconds.
    #[n(0)]
    pub grace_ns: u64,
}
