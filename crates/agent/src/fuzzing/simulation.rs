//! Simulates sessions without processes, and hosts that send anything.
//!
//! Two connections and two sessions; a script replaces the pump, the pipes and the hosts. Checks:
//! the order of messages on a channel, every byte from a position on exactly once, no byte without
//! credit, no input beyond its window, and an end for every channel that follows a session.

use crate::client::Client;
use crate::connection::Connection;
use crate::dispatch::handle;
use crate::registry::Registry;
use crate::resources::Resources;
use crate::session::testing::{exec, reaped};
use crate::session::{Actions, Input, OutputState, Session};
use bytes::{Bytes, BytesMut};
use msb_transport::Stream;
use msb_wire::limits::{MAX_DATA, OUTPUT_WINDOW_MAX, OUTPUT_WINDOW_MIN, STDIN_WINDOW};
use msb_wire::{
    Decoder, Frame, Hello, Kind, Message, OutputStream, Peer, ReceiveCredit, cost, encode,
};
use std::collections::HashMap;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Instant;

/// Runs the bytes of a fuzzer as a script: each step is a byte and its operands.
pub(super) fn run(data: &[u8]) {
    thread_local! {
        static RUNTIME: Option<tokio::runtime::Runtime> =
            tokio::runtime::Builder::new_current_thread().enable_all().build().ok();
    }
    RUNTIME.with(|runtime| {
        if let Some(runtime) = runtime {
            // Operations on files are tasks.
            tokio::task::LocalSet::new().block_on(runtime, async {
                if let Ok(simulation) = Simulation::new() {
                    simulation.run(data).await;
                }
            });
        }
    });
}

struct Simulation {
    registry: Rc<Registry>,
    hosts: [Host; 2],
    guests: [Option<Guest>; 2],
}

/// A session, and the state of its simulated pump.
struct Guest {
    session: Rc<Session>,
    state: OutputState,
}

/// The peer of one connection.
struct Host {
    client: Option<Rc<Client>>,
    far: UnixStream,
    decoder: Decoder,
    buffer: BytesMut,
    next: u32,
    channels: HashMap<u32, Followed>,
}

/// A host's state of one of its channels.
struct Followed {
    credit: ReceiveCredit,
    /// The credit that was consumed and not released.
    owed: u64,
    position: Option<u64>,
    exited: bool,
    ended: bool,
    closed: bool,
    stdin_granted: u64,
    stdin_sent: u64,
}

/// The output of every session repeats after this many bytes.
const PERIOD: u64 = 65_521;

/// Returns the output of every session at a position.
fn pattern(position: u64, len: usize) -> Bytes {
    thread_local! {
        static PATTERN: Bytes = (0..PERIOD + MAX_DATA as u64)
            .map(|at| at % PERIOD)
            .map(|at| u8::try_from((at * 167 + (at >> 8)) & 0xff).unwrap_or(0))
            .collect();
    }
    let start = usize::try_from(position % PERIOD).unwrap_or(0);
    PATTERN.with(|pattern| pattern.slice(start..start + len))
}

impl Host {
    fn new(id: u64) -> std::io::Result<Host> {
        let (near, far) = UnixStream::pair()?;
        far.set_nonblocking(true)?;
        let client = Client::new(Connection::new(id, Stream::from_unix(near)?));
        client.send(0, Message::Hello(Hello::ours(Some([0; 16]))));
        Ok(Host {
            client: Some(client),
            far,
            decoder: Decoder::new(Peer::Agent),
            buffer: BytesMut::new(),
            next: 0,
            channels: HashMap::new(),
        })
    }

    /// Opens an unused channel.
    fn open(&mut self, client: &Client) -> Option<u32> {
        self.next = self.next.checked_add(1)?;
        assert!(client.open(self.next, Kind::Exec).is_ok(), "an unused channel was refused");
        Some(self.next)
    }

    /// Reads all pending output of the agent, and checks it.
    async fn receive(&mut self) {
        let Some(client) = self.client.clone() else { return };
        while client.connection.pending() > 0 {
            tokio::select! {
                biased;
                () = client.connection.flush() => {}
                () = tokio::task::yield_now() => {}
            }
            self.read();
        }
        client.wake_sessions();
    }

    fn read(&mut self) {
        let mut chunk = [0; MAX_DATA];
        while let Ok(count) = self.far.read(&mut chunk)
            && count > 0
        {
            self.buffer.extend_from_slice(chunk.get(..count).unwrap_or_default());
            self.check();
        }
    }

    fn check(&mut self) {
        loop {
            let frame = self.decoder.next(&mut self.buffer);
            let Some(Frame { channel, message }) = frame
                .unwrap_or_else(|error| unreachable!("the agent violated the protocol: {error}"))
            else {
                return;
            };
            if let Some(followed) = self.channels.get_mut(&channel) {
                followed.check(&message);
            }
        }
    }
}

impl Followed {
    fn new(window: u64, position: Option<u64>) -> Followed {
        Followed {
            credit: ReceiveCredit::new(window),
            owed: 0,
            position,
            exited: false,
            ended: false,
            closed: false,
            stdin_granted: STDIN_WINDOW,
            stdin_sent: 0,
        }
    }

    fn check(&mut self, message: &Message) {
        assert!(!self.ended, "{message:?} after the end");
        match message {
            Message::Started(_) => {}
            Message::Attached(attached) => {
                assert!(self.position.is_none(), "attached twice");
                self.position = Some(attached.from);
            }
            Message::Stdout(data) | Message::Stderr(data) => self.data(data),
            Message::Exited(_) => {
                assert!(!self.exited, "a second exit");
                self.exited = true;
            }
            Message::End(end) => {
                assert!(self.exited, "an end before the exit");
                assert_eq!(self.position, Some(end.total), "bytes are missing at the end");
                self.ended = true;
            }
            Message::Credit(limit) => {
                assert!(*limit > self.stdin_granted, "an empty grant");
                assert!(*limit <= self.stdin_sent + STDIN_WINDOW, "more than one window");
                self.stdin_granted = *limit;
            }
            Message::StdinError(_) => {}
            Message::Verdict(_) | Message::Failed(_) => self.ended = true,
            other => unreachable!("{other:?} on a channel that follows a session"),
        }
    }

    fn data(&mut self, data: &Bytes) {
        assert!(!data.is_empty(), "output of no bytes");
        let paid = self.credit.receive(data.len());
        assert!(paid.is_ok(), "output without credit: {paid:?}");
        self.owed += cost(data.len());
        let Some(position) = &mut self.position else {
            unreachable!("output before the channel follows")
        };
        assert!(pattern(*position, data.len()) == data, "wrong bytes at {position}");
        *position += data.len() as u64;
    }
}

impl Simulation {
    fn new() -> std::io::Result<Simulation> {
        let registry = Registry::new([0; 16], Resources::default());
        Ok(Simulation { registry, hosts: [Host::new(1)?, Host::new(2)?], guests: [None, None] })
    }

    async fn run(mut self, data: &[u8]) {
        let mut bytes = data.iter().copied();
        while let Some(step) = bytes.next() {
            let mut next = || bytes.next().unwrap_or(0);
            let target = next();
            let (host, guest) = (usize::from(target & 1), usize::from(target >> 1 & 1));
            let channel = u32::from(target >> 2);
            match step % 18 {
                0 => self.exec(host, guest, next()),
                1 => self.attach(host, guest, next(), next()),
                2 => self.grant(host, channel),
                3 => {
                    let len = usize::from(next()) * if step & 32 == 0 { 1 } else { 257 };
                    self.stdin(host, channel, len.min(MAX_DATA));
                }
                4 => self.frame(host, channel, Message::StdinEof),
                5 => {
                    self.frame(host, channel, Message::Close);
                    if let Some(host) = self.hosts.get_mut(host)
                        && let Some(followed) = host.channels.get_mut(&channel)
                    {
                        followed.closed = true;
                    }
                }
                6 | 7 => self.output(guest, next(), usize::from(next()) << (next() % 9)),
                8 => self.on(guest, Input::Empty(stream(next()))),
                9 => self.on(guest, Input::Eof(stream(next()))),
                10 => self.exit(guest, next()),
                11 => self.on(guest, Input::DrainTimeOver),
                12 => self.read_input(guest, usize::from(next()) << (next() % 9)),
                13 => self.close_input(guest, next()),
                14 => self.receive(host).await,
                15 => self.hang_up(host),
                16 => {
                    let len = usize::from(next());
                    let raw: Vec<u8> = bytes.by_ref().take(len).collect();
                    self.raw(host, &raw);
                }
                _ => self.drop_replay(guest),
            }
        }
        self.finish().await;
    }

    fn guest(&self, guest: usize) -> Option<&Guest> {
        self.guests.get(guest)?.as_ref()
    }

    fn live(&mut self, host: usize) -> Option<(&mut Host, Rc<Client>)> {
        let host = self.hosts.get_mut(host)?;
        let client = host.client.clone()?;
        Some((host, client))
    }

    /// Starts a command like `Registry::exec`, without a process.
    fn exec(&mut self, host: usize, guest: usize, options: u8) {
        if self.guests.get(guest).is_none_or(Option::is_some) {
            return;
        }
        let exec = exec(guest, options);
        let window = exec.window.clamp(OUTPUT_WINDOW_MIN, OUTPUT_WINDOW_MAX);
        let Some((host, client)) = self.live(host) else { return };
        let Some(channel) = host.open(&client) else { return };
        host.channels.insert(channel, Followed::new(window, Some(0)));
        let session =
            Rc::new(Session::new(&exec, 1, None, Rc::default(), std::time::Instant::now()));
        session.follow_from_start(client.channel(channel), exec.window);
        client.bind(channel, &session);
        session.set_running();
        let state = OutputState::new(exec.tty.is_some());
        if let Some(slot) = self.guests.get_mut(guest) {
            *slot = Some(Guest { session, state });
        }
    }

    /// Attaches a reader like `Registry::attach`.
    fn attach(&mut self, host: usize, guest: usize, from: u8, scale: u8) {
        let Some(session) = self.guest(guest).map(|guest| Rc::clone(&guest.session)) else {
            return;
        };
        let Some((host, client)) = self.live(host) else { return };
        let Some(channel) = host.open(&client) else { return };
        let window = if scale & 1 == 0 { 0 } else { u64::MAX };
        let granted = window.clamp(OUTPUT_WINDOW_MIN, OUTPUT_WINDOW_MAX);
        host.channels.insert(channel, Followed::new(granted, None));
        client.bind(channel, &session);
        let from = (from != 255).then(|| u64::from(from) << (scale % 24));
        session.follow(client.channel(channel), from, window);
    }

    /// Grants all credit that the host owes on a channel.
    fn grant(&mut self, host: usize, channel: u32) {
        let Some((far, _)) = self.live(host) else { return };
        let Some(followed) = far.channels.get_mut(&channel) else { return };
        if let Some(limit) = followed.credit.release(std::mem::take(&mut followed.owed)) {
            self.frame(host, channel, Message::Credit(limit));
        }
    }

    fn stdin(&mut self, host: usize, channel: u32, len: usize) {
        let Some((far, _)) = self.live(host) else { return };
        let mut paid = None;
        if let Some(followed) = far.channels.get_mut(&channel)
            && !followed.closed
        {
            paid = Some(followed.stdin_sent + cost(len) <= followed.stdin_granted);
            followed.stdin_sent += cost(len);
        }
        self.frame(host, channel, Message::Stdin(Bytes::from(vec![0; len])));
        let broken = self.hosts.get(host).is_some_and(|host| host.client.is_none());
        // The agent must accept what it granted.
        assert!(!(broken && paid == Some(true)), "input was refused that was granted");
    }

    /// Handles a frame; a violation of the protocol ends the connection.
    fn frame(&mut self, host: usize, channel: u32, message: Message) {
        let registry = Rc::clone(&self.registry);
        let Some((_, client)) = self.live(host) else { return };
        if channel != 0 && handle(&client, &registry, channel, message).is_err() {
            self.hang_up(host);
        }
        // As the pumps do when the frame wakes them.
        self.guests.iter().flatten().for_each(|guest| guest.session.update_followers());
    }

    /// Handles raw bytes, except frames that affect processes.
    fn raw(&mut self, host: usize, bytes: &[u8]) {
        let mut buffer = BytesMut::new();
        let hello = Frame { channel: 0, message: Message::Hello(Hello::ours(None)) };
        assert!(encode(&hello, &mut buffer), "the hello is too long");
        buffer.extend_from_slice(bytes);
        let mut decoder = Decoder::new(Peer::Host);
        loop {
            match decoder.next(&mut buffer) {
                Ok(Some(Frame { channel, message })) => match message {
                    Message::Hello(_) | Message::Exec(_) | Message::Attach(_) => {}
                    Message::Signal(_) | Message::Shutdown(_) => {}
                    Message::Stdin(data) => self.stdin(host, channel, data.len()),
                    // May exceed what was received.
                    Message::Credit(_) => {}
                    Message::Close => {}
                    message => {
                        if let Some((far, _)) = self.live(host) {
                            far.next = far.next.max(channel);
                        }
                        self.frame(host, channel, message);
                    }
                },
                Ok(None) => return,
                Err(_) => return self.hang_up(host),
            }
        }
    }

    /// Simulates output, as much as the pump may read.
    fn output(&mut self, guest: usize, pick: u8, len: usize) {
        let Some(Some(guest)) = self.guests.get_mut(guest) else { return };
        let stream = stream(pick);
        let allowed = guest.session.allowance().min(MAX_DATA);
        let len = guest.state.may_read(stream, allowed).min(len);
        if len == 0 || !guest.state.wants(stream) {
            return;
        }
        let start = guest.session.position();
        guest.session.deliver(stream, &pattern(start, len));
        guest.on(Input::Read(stream, len as u64));
    }

    fn on(&mut self, guest: usize, input: Input) {
        if let Some(Some(guest)) = self.guests.get_mut(guest) {
            guest.on(input);
        }
    }

    fn exit(&mut self, guest: usize, pending: u8) {
        if let Some(Some(guest)) = self.guests.get_mut(guest) {
            guest.session.process_exited(&reaped());
            guest.on(Input::Exited { pending: [u64::from(pending) * 99, u64::from(pending & 7)] });
        }
    }

    /// Simulates a process that reads its input.
    fn read_input(&mut self, guest: usize, count: usize) {
        let Some(guest) = self.guest(guest) else { return };
        if let Some(front) = guest.session.next_stdin() {
            guest.session.stdin_written(count.min(front.len()));
        }
    }

    /// Simulates a process that closes its input.
    fn close_input(&mut self, guest: usize, errno: u8) {
        if let Some(guest) = self.guest(guest) {
            guest.session.stdin_failed(errno.into());
        }
    }

    async fn receive(&mut self, host: usize) {
        if let Some(host) = self.hosts.get_mut(host) {
            host.receive().await;
        }
    }

    /// Ends a connection.
    fn hang_up(&mut self, host: usize) {
        if let Some(host) = self.hosts.get_mut(host)
            && let Some(client) = host.client.take()
        {
            client.unfollow_all();
        }
    }

    /// Drops the output of an ended session.
    fn drop_replay(&mut self, guest: usize) {
        if let Some(guest) = self.guest(guest)
            && guest.state.has_ended()
        {
            guest.session.drop_replay();
        }
    }

    /// Ends every process and reads on every host: then every channel has received everything.
    async fn finish(mut self) {
        for guest in 0..self.guests.len() {
            self.on(guest, Input::Exited { pending: [0; 2] });
            for stream in [OutputStream::Stdout, OutputStream::Stderr] {
                self.on(guest, Input::Eof(stream));
            }
            let ended = self.guest(guest).is_none_or(|guest| guest.state.has_ended());
            assert!(ended, "a session that does not end");
        }
        // Each round has room for at least three quarters of a window.
        for _ in 0..64 {
            if (0..self.hosts.len()).all(|host| self.waiting(host).is_empty()) {
                break;
            }
            for host in 0..self.hosts.len() {
                self.receive(host).await;
                for channel in self.waiting(host) {
                    self.grant(host, channel);
                }
            }
        }
        for host in 0..self.hosts.len() {
            let waiting = self.waiting(host);
            assert!(waiting.is_empty(), "channels {waiting:?} wait for ever");
        }
        for guest in self.guests.iter().flatten() {
            let left = guest.session.follower_count();
            assert_eq!(left, 0, "followers remain after the end");
        }
        for host in 0..self.hosts.len() {
            self.hang_up(host);
        }
    }

    /// Returns the channels that have not received everything.
    fn waiting(&self, host: usize) -> Vec<u32> {
        let Some(host) = self.hosts.get(host) else { return Vec::new() };
        let channels = host.channels.iter().filter(|_| host.client.is_some());
        let is_complete = |followed: &Followed| followed.ended || followed.closed;
        channels
            .filter(|(_, followed)| !is_complete(followed))
            .map(|(channel, _)| *channel)
            .collect()
    }
}

impl Guest {
    /// Applies an input as the pump does.
    fn on(&mut self, input: Input) {
        let (state, Actions { exited, end }) = self.state.on(input);
        self.state = state;
        if exited {
            self.session.set_exited(&reaped(), Instant::now());
        }
        if let Some(writer_left) = end {
            self.session.set_end(writer_left);
        }
        self.session.update_followers();
    }
}

fn stream(pick: u8) -> OutputStream {
    if pick & 1 == 0 { OutputStream::Stdout } else { OutputStream::Stderr }
}
