//! The runner's own connection to the agent.

use bytes::BytesMut;
use msb_state::SandboxDir;
use msb_wire::limits::ERROR_TEXT;
use msb_wire::{Decoder, Frame, Hello, Message, Peer, Shutdown, agree, encode, one_line};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// A connection to an agent that has sent its hello.
#[derive(Debug)]
pub(crate) struct AgentLink {
    stream: UnixStream,
    decoder: Decoder,
    buffer: BytesMut,
    next_channel: u32,
}

impl AgentLink {
    /// Connects and waits for the agent's hello.
    pub(crate) async fn connect(dir: &SandboxDir) -> io::Result<Self> {
        AgentLink::handshake(AgentLink::open(dir)?).await
    }

    /// Opens a connection for a handshake.
    pub(crate) fn open(dir: &SandboxDir) -> io::Result<UnixStream> {
        let stream = dir.connect_agent().map_err(io::Error::other)?;
        stream.set_nonblocking(true)?;
        UnixStream::from_std(stream)
    }

    /// Sends the hello on a connection and waits for the agent's.
    pub(crate) async fn handshake(stream: UnixStream) -> io::Result<Self> {
        let mut link = AgentLink {
            stream,
            decoder: Decoder::new(Peer::Agent),
            buffer: BytesMut::new(),
            next_channel: 1,
        };
        let ours = Hello::ours(None);
        link.send(0, Message::Hello(ours.clone())).await?;
        match link.receive().await? {
            Message::Hello(theirs) => {
                agree(&ours, &theirs).map_err(io::Error::other)?;
                Ok(link)
            }
            Message::Error(why) => Err(io::Error::other(one_line(&why, ERROR_TEXT).into_owned())),
            _ => Err(io::Error::other("the agent did not send its hello first")),
        }
    }

    /// Asks the agent to end every process, by a signal that is not SIGTERM if there is one, and
    /// itself.
    pub(crate) async fn shut_down(
        &mut self,
        grace: Duration,
        signal: Option<i32>,
    ) -> io::Result<()> {
        let grace_ns = u64::try_from(grace.as_nanos()).unwrap_or(u64::MAX);
        self.send(0, Message::Shutdown(Shutdown { grace_ns, signal })).await
    }

    /// Sends a ping and waits for the pong.
    pub(crate) async fn ping(&mut self) -> io::Result<()> {
        let number = u64::from(self.next_channel);
        self.next_channel = self.next_channel.wrapping_add(1).max(1);
        self.send(0, Message::Ping(number)).await?;
        while self.receive().await? != Message::Pong(number) {}
        Ok(())
    }

    /// What shows that the agent was used: the sessions that run, and the newest one's name.
    pub(crate) async fn activity(&mut self) -> io::Result<Activity> {
        let channel = self.next_channel;
        self.next_channel = channel.wrapping_add(1).max(1);
        self.send(channel, Message::List).await?;
        loop {
            if let Message::Sessions(list) = self.receive().await? {
                let newest = list.sessions.iter().min_by_key(|session| session.age_ns);
                return Ok(Activity {
                    running: list.sessions.iter().any(|session| session.exited.is_none()),
                    newest: newest.map(|session| session.session.to_string()),
                });
            }
        }
    }

    async fn send(&mut self, channel: u32, message: Message) -> io::Result<()> {
        let mut bytes = BytesMut::new();
        if !encode(&Frame { channel, message }, &mut bytes) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.stream.write_all(&bytes).await
    }

    async fn receive(&mut self) -> io::Result<Message> {
        loop {
            if let Some(frame) = self.decoder.next(&mut self.buffer).map_err(io::Error::other)? {
                return Ok(frame.message);
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// The agent's activity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Activity {
    /// Whether a session runs.
    pub(crate) running: bool,
    /// The session that started last.
    pub(crate) newest: Option<String>,
}
