//! Every bound of the protocol and of the queues that stand on it, in bytes unless said otherwise.

use std::time::Duration;

/// Longest payload of a data frame; also the size of one read from a pipe.
pub const MAX_DATA: usize = 64 * 1024;

/// Longest payload of a control frame after the handshake. Larger than the 6 MiB that a kernel
/// accepts as arguments and environment, so that "too long" is the kernel's own answer.
pub const MAX_CONTROL: usize = 8 * 1024 * 1024;

/// Longest payload before the handshake is done.
pub const MAX_HELLO: usize = 4 * 1024;

/// How long each side waits for the other's greeting (a time). A caller that never speaks would hold
/// one of the agent's connections for ever; an agent whose sandbox is busy may be slow.
pub const GREETING: Duration = Duration::from_secs(30);

/// What a data frame costs in credit beyond its payload: roughly what it takes to keep it in a
/// queue, so that a million one-byte frames are bounded as well.
pub const FRAME_OVERHEAD: u64 = 64;

/// Credit that a reader of output grants at the start, per session.
pub const OUTPUT_WINDOW: u64 = 1024 * 1024;

/// Largest output window that a reader may ask for. Not above [`REPLAY`], so that what a reader
/// has not been sent yet is never dropped from the replay buffer.
pub const OUTPUT_WINDOW_MAX: u64 = 1024 * 1024;

/// Smallest output window: one full data frame.
pub const OUTPUT_WINDOW_MIN: u64 = MAX_DATA as u64 + FRAME_OVERHEAD;

/// Credit for standard input that every channel starts with.
pub const STDIN_WINDOW: u64 = 512 * 1024;

/// Output that the agent keeps for each session, to be read again after a reconnect.
pub const REPLAY: usize = 1024 * 1024;

/// A payload shorter than this is copied out of the receive buffer instead of pinning it.
pub const COPY_BELOW: usize = 8 * 1024;

/// Bytes waiting in the agent for one connection beyond which it stops reading from pipes.
pub const CONNECTION_OUT: usize = 2 * 1024 * 1024;

/// Bytes waiting in the agent for one connection beyond which it takes no more requests from it.
/// Output alone never comes that far, so only a caller that asks and does not read is held up.
pub const CONNECTION_OUT_MAX: usize = 2 * CONNECTION_OUT;

/// Channels that may be open at once on one connection (a count).
pub const CHANNELS: usize = 16 * 1024;

/// The first number of the channels that an agent opens; see `FollowAll` (a number, not a size).
pub const AGENT_CHANNELS: u32 = 1 << 31;

/// Bytes that may wait in the agent for a connection that follows all sessions. Output stops at
/// [`CONNECTION_OUT`] already; beyond this, which only announcements reach, no session is started.
pub const FOLLOW_ALL_OUT: usize = 16 * 1024 * 1024;

/// Sessions that may run at once in one agent (a count).
pub const SESSIONS: usize = 8 * 1024;

/// Ended sessions that the agent remembers (a count).
pub const ENDED_SESSIONS: usize = 1024;

/// Pieces in which that output is kept (a count): no more than the frames that
/// [`OUTPUT_WINDOW_MAX`] pays for.
pub const REPLAY_CHUNKS: usize = 16 * 1024;

/// Output kept for all ended sessions together; beyond it the oldest lose theirs.
pub const ENDED_REPLAY: usize = 64 * 1024 * 1024;

/// How long the agent remembers an ended session, in seconds.
pub const ENDED_SESSION_SECONDS: u64 = 600;

/// How long output of other processes is still forwarded after the exit, in milliseconds.
pub const DRAIN_MILLIS: u64 = 250;

/// Arguments of a session as lists and announcements show them, each with one byte more for its end.
pub const ARGV_SHOWN: usize = 4 * 1024;

/// Longest message or path of an agent that a host keeps; the rest is cut off.
pub const TEXT: usize = 4 * 1024;

/// Longest part of a text of an agent in an error (in characters).
pub const ERROR_TEXT: usize = 200;

/// Largest error number that Linux returns (a number).
pub const ERRNO_MAX: i32 = 4095;

/// Largest process id that Linux gives (a number).
pub const PID_MAX: u32 = 1 << 22;

/// Largest signal number of Linux (a number).
pub const SIGNAL_MAX: u8 = 64;
