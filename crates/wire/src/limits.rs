//! Every bound of the protocol and of its queues, in bytes unless stated otherwise.

use std::time::Duration;

/// Longest payload of a data frame; also the size of one read from a pipe.
pub const MAX_DATA: usize = 64 * 1024;

/// Longest payload of a control frame after the handshake. Larger than the 6 MiB of arguments and
/// environment that a kernel accepts, so that the kernel reports "too long".
pub const MAX_CONTROL: usize = 8 * 1024 * 1024;

/// Longest payload before the handshake completes.
pub const MAX_HELLO: usize = 4 * 1024;

/// How long each peer waits for the other's hello (a time). A silent peer would hold one of the
/// agent's connections forever; an agent in a busy sandbox may be slow.
pub const GREETING: Duration = Duration::from_secs(30);

/// Credit that a data frame costs beyond its payload: roughly its size in a queue, so that a
/// million one-byte frames are bounded as well.
pub const FRAME_OVERHEAD: u64 = 64;

/// Initial credit that a reader of output grants, per session.
pub const OUTPUT_WINDOW: u64 = 1024 * 1024;

/// Largest output window that a reader may request. At most [`REPLAY`], so that the replay buffer
/// never drops what a reader has not been sent yet.
pub const OUTPUT_WINDOW_MAX: u64 = 1024 * 1024;

/// Smallest output window: one full data frame.
pub const OUTPUT_WINDOW_MIN: u64 = MAX_DATA as u64 + FRAME_OVERHEAD;

/// Initial credit for standard input of each channel.
pub const STDIN_WINDOW: u64 = 512 * 1024;

/// Output that the agent keeps for each session, for a reader that reconnects.
pub const REPLAY: usize = 1024 * 1024;

/// A payload shorter than this is copied out of the receive buffer instead of pinning it.
pub const COPY_BELOW: usize = 8 * 1024;

/// Pending bytes for one connection beyond which the agent stops reading from pipes.
pub const CONNECTION_OUT: usize = 2 * 1024 * 1024;

/// Pending bytes for one connection beyond which the agent accepts no more requests from it. Output
/// alone never reaches it: only a peer that sends requests and does not read is blocked.
pub const CONNECTION_OUT_MAX: usize = 2 * CONNECTION_OUT;

/// Channels that may be open at once on one connection (a count).
pub const CHANNELS: usize = 16 * 1024;

/// First number of the channels that an agent opens; see `FollowAll` (a number, not a size).
pub const AGENT_CHANNELS: u32 = 1 << 31;

/// Pending bytes for a connection that follows all sessions, beyond which no session starts. Output
/// stops at [`CONNECTION_OUT`]: only announcements reach this.
pub const FOLLOW_ALL_OUT: usize = 16 * 1024 * 1024;

/// Sessions that may run at once in one agent (a count).
pub const SESSIONS: usize = 8 * 1024;

/// Ended sessions that the agent remembers (a count).
pub const ENDED_SESSIONS: usize = 1024;

/// Chunks of a replay buffer (a count): at most the frames that [`OUTPUT_WINDOW_MAX`] pays for.
pub const REPLAY_CHUNKS: usize = 16 * 1024;

/// Output kept for all ended sessions together; beyond it the agent drops the oldest.
pub const ENDED_REPLAY: usize = 64 * 1024 * 1024;

/// How long the agent remembers an ended session, in seconds.
pub const ENDED_SESSION_SECONDS: u64 = 600;

/// How long the agent forwards output of other processes after the exit, in milliseconds.
pub const DRAIN_MILLIS: u64 = 250;

/// Arguments of a session in lists and announcements, each with one byte more for its end.
pub const ARGV_SHOWN: usize = 4 * 1024;

/// Longest message or path of an agent that a host keeps; the rest is truncated.
pub const TEXT: usize = 4 * 1024;

/// Longest part of an agent's text in an error (in characters).
pub const ERROR_TEXT: usize = 200;

/// Largest error number that Linux returns (a number).
pub const ERRNO_MAX: i32 = 4095;

/// Largest process id on Linux (a number).
pub const PID_MAX: u32 = 1 << 22;

/// Largest signal number of Linux (a number).
pub const SIGNAL_MAX: u8 = 64;

/// Initial credit for data to the agent on each channel of [`fs`](crate::fs).
pub const FS_WINDOW: u64 = 512 * 1024;

/// Operations on files that one connection may have under way (a count).
pub const FS_OPERATIONS: usize = 4 * 1024;

/// Handles that one connection may have open (a count).
pub const FS_HANDLES: usize = 1024;

/// Directories that one agent watches (a count).
pub const FS_WATCHES: usize = 8 * 1024;

/// Skipped files that the reply to a copy names (a count).
pub const FS_SKIPPED: usize = 64;

/// Longest path of a skipped file that a reply names: all of them fit into one frame.
pub const FS_SKIPPED_PATH: usize = 512;
