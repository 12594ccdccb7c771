//! The kinds of frames: numbers, senders, longest payloads.

use crate::limits::{MAX_CONTROL, MAX_DATA, MAX_HELLO};

/// Declares each kind once: its number, its sender, its level.
macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $sender:ident, $level:ident;)*) => {
        /// The kind of a frame: its fifth byte.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Kind {
            $($(#[$doc])* $name = $value,)*
        }

        impl Kind {
            /// All kinds, in order.
            pub const ALL: &'static [Kind] = &[$(Kind::$name),*];

            pub(crate) fn from_byte(byte: u8) -> Option<Kind> {
                match byte {
                    $($value => Some(Kind::$name),)*
                    _ => None,
                }
            }

            pub(crate) const fn sender(self) -> Sender {
                match self { $(Kind::$name => Sender::$sender,)* }
            }

            pub(crate) const fn level(self) -> Level {
                match self { $(Kind::$name => Level::$level,)* }
            }
        }
    };
}

/// Which peer may send a kind.
#[derive(PartialEq, Eq)]
pub(crate) enum Sender {
    Host,
    Agent,
    Both,
}

/// Whether a kind concerns the connection (channel 0) or one channel.
#[derive(PartialEq, Eq)]
pub(crate) enum Level {
    Connection,
    Channel,
}

kinds! {
    /// See [`Message::Hello`].
    Hello = 1, Both, Connection;
    /// See [`Message::Error`].
    Error = 2, Both, Connection;
    /// See [`Message::Ping`].
    Ping = 3, Host, Connection;
    /// See [`Message::Pong`].
    Pong = 4, Agent, Connection;
    /// See [`Message::Shutdown`].
    Shutdown = 5, Host, Connection;
    /// See [`Message::Bye`].
    Bye = 6, Agent, Connection;
    /// See [`Message::Exec`].
    Exec = 16, Host, Channel;
    /// See [`Message::Attach`].
    Attach = 17, Host, Channel;
    /// See [`Message::List`].
    List = 18, Host, Channel;
    /// See [`Message::Signal`].
    Signal = 19, Host, Channel;
    /// See [`Message::Resize`].
    Resize = 20, Host, Channel;
    /// See [`Message::Stdin`].
    Stdin = 21, Host, Channel;
    /// See [`Message::StdinEof`].
    StdinEof = 22, Host, Channel;
    /// See [`Message::Close`].
    Close = 23, Host, Channel;
    /// See [`Message::Credit`].
    Credit = 24, Both, Channel;
    /// See [`Message::FollowAll`].
    FollowAll = 25, Host, Channel;
    /// See [`Message::Started`].
    Started = 32, Agent, Channel;
    /// See [`Message::Attached`].
    Attached = 33, Agent, Channel;
    /// See [`Message::Stdout`].
    Stdout = 34, Agent, Channel;
    /// See [`Message::Stderr`].
    Stderr = 35, Agent, Channel;
    /// See [`Message::StdinError`].
    StdinError = 36, Agent, Channel;
    /// See [`Message::Exited`].
    Exited = 37, Agent, Channel;
    /// See [`Message::Failed`].
    Failed = 38, Agent, Channel;
    /// See [`Message::End`].
    End = 39, Agent, Channel;
    /// See [`Message::Sessions`].
    Sessions = 40, Agent, Channel;
    /// See [`Message::Verdict`].
    Verdict = 41, Agent, Channel;
    /// See [`Message::Opened`].
    Opened = 42, Agent, Channel;
    /// See [`FsMessage::Request`](crate::FsMessage::Request).
    FsRequest = 64, Host, Channel;
    /// See [`FsMessage::Data`](crate::FsMessage::Data).
    FsData = 65, Both, Channel;
    /// See [`FsMessage::Eof`](crate::FsMessage::Eof).
    FsEof = 66, Host, Channel;
    /// See [`FsMessage::Opened`](crate::FsMessage::Opened).
    FsOpened = 80, Agent, Channel;
    /// See [`FsMessage::Reply`](crate::FsMessage::Reply).
    FsReply = 81, Agent, Channel;
    /// See [`FsMessage::Failed`](crate::FsMessage::Failed).
    FsFailed = 82, Agent, Channel;
}

impl Kind {
    /// Returns the longest payload of the kind, before and after the peer has sent its hello.
    pub(crate) const fn max_len(self, got_hello: bool) -> usize {
        match self {
            _ if !got_hello => MAX_HELLO,
            Kind::Stdin | Kind::Stdout | Kind::Stderr => MAX_DATA,
            Kind::Exec | Kind::Sessions => MAX_CONTROL,
            _ => MAX_DATA,
        }
    }
}
