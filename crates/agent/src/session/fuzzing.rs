//! Sessions without processes between hosts that send anything.
//!
//! Two connections and two sessions; a script moves what the pump, the pipes and the hosts would.
//! Held to: the order of what a channel is told, every byte from its position on exactly once, no
//! byte without credit, no input beyond its window, and an end for every channel that is followed.

use super::Session;
use super::machine::{Actions, Input, Machine};
use crate::connection::Connection;
use crate::registry::Registry;
use crate::resources::Resources;
use crate::sys::Reaped;
use bytes::{Bytes, BytesMut};
use msb_transport::Stream;
use msb_wire::limits::{MAX_DATA, OUTPUT_WINDOW_MAX, OUTPUT_WINDOW_MIN, STDIN_WINDOW};
use msb_wire::{
    Decoder, Exec, Frame, Hello, Message, OutputStream, Peer, ReceiveCredit, SessionId, StdinMode,
    TtySize, cost, encode,
};
use std::collections::HashMap;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Reads the bytes of a fuzzer as a script: each step is a byte and what belongs to it.
pub(crate) fn run(data: &[u8]) {
    thread_local! {
        static RUNTIME: Option<tokio::runtime::Runtime> =
            tokio::runtime::Builder::new_current_thread().enable_all().build().ok();
    }
    RUNTIME.with(|runtime| {
        if let Some(runtime) = runtime {
            runtime.block_on(async {
                if let Ok(play) = Play::new() {
                    play.run(data).await;
                }
            });
        }
    });
}

struct Play {
    registry: Rc<Registry>,
    hosts: [Host; 2],
    guests: [Option<Guest>; 2],
}

/// A session and what stands for its process and pump.
struct Guest {
    session: Rc<Session>,
    machine: Machine,
}

/// One connection's other side.
struct Host {
    connection: Option<Rc<Connection>>,
    far: UnixStream,
    decoder: Decoder,
    buffer: BytesMut,
    next: u32,
    channels: HashMap<u32, Followed>,
}

/// What a host knows about one of its channels.
struct Followed {
    credit: ReceiveCredit,
    /// What was read and not given back.
    owed: u64,
    position: Option<u64>,
    exited: bool,
    ended: bool,
    closed: bool,
    stdin_granted: u64,
    stdin_sent: u64,
}

/// The output of every session repeats itself after this many bytes.
const PERIOD: u64 = 65_521;

/// What stands in the output of every session at a position.
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
        let connection = Connection::new(id, Stream::from_unix(near)?);
        connection.send(0, Message::Hello(Hello::ours(Some([0; 16]))));
        Ok(Host {
            connection: Some(connection),
            far,
            decoder: Decoder::new(Peer::Agent),
            buffer: BytesMut::new(),
            next: 0,
            channels: HashMap::new(),
        })
    }

    /// A channel that was not used before.
    fn fresh(&mut self, connection: &Connection) -> Option<u32> {
        self.next = self.next.checked_add(1)?;
        assert!(connection.used(self.next), "a fresh channel was refused");
        Some(self.next)
    }

    /// Takes in all that the agent has to say, and checks it.
    async fn receive(&mut self) {
        let Some(connection) = self.connection.clone() else { return };
        while !connection.is_flushed() {
            tokio::select! {
                biased;
                () = connection.flush_now() => {}
                () = tokio::task::yield_now() => {}
            }
            self.read();
        }
        connection.release_congestion();
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
            let Some(Frame { channel, message }) =
                frame.unwrap_or_else(|error| unreachable!("the agent broke the protocol: {error}"))
            else {
                return;
            };
            if let Some(followed) = self.channels.get_mut(&channel) {
                followed.told(&message);
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

    fn told(&mut self, message: &Message) {
        assert!(!self.ended, "{message:?} behind the end");
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
                assert!(*limit > self.stdin_granted, "a grant that grants nothing");
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

impl Play {
    fn new() -> std::io::Result<Play> {
        let registry = Registry::new([0; 16], Resources::default());
        Ok(Play { registry, hosts: [Host::new(1)?, Host::new(2)?], guests: [None, None] })
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
                9 => self.on(guest, Input::Over(stream(next()))),
                10 => self.exit(guest, next()),
                11 => self.on(guest, Input::DrainTimeOver),
                12 => self.taken(guest, usize::from(next()) << (next() % 9)),
                13 => self.refused(guest, next()),
                14 => self.receive(host).await,
                15 => self.hang_up(host),
                16 => {
                    let len = usize::from(next());
                    let raw: Vec<u8> = bytes.by_ref().take(len).collect();
                    self.raw(host, &raw);
                }
                _ => self.forget(guest),
            }
        }
        self.finish().await;
    }

    fn guest(&self, guest: usize) -> Option<&Guest> {
        self.guests.get(guest)?.as_ref()
    }

    fn live(&mut self, host: usize) -> Option<(&mut Host, Rc<Connection>)> {
        let host = self.hosts.get_mut(host)?;
        let connection = host.connection.clone()?;
        Some((host, connection))
    }

    /// The command starts: what `Registry::exec` does, but for the process.
    fn exec(&mut self, host: usize, guest: usize, options: u8) {
        if self.guests.get(guest).is_none_or(Option::is_some) {
            return;
        }
        let exec = exec(guest, options);
        let window = exec.window.clamp(OUTPUT_WINDOW_MIN, OUTPUT_WINDOW_MAX);
        let Some((host, connection)) = self.live(host) else { return };
        let Some(channel) = host.fresh(&connection) else { return };
        host.channels.insert(channel, Followed::new(window, Some(0)));
        let session =
            Rc::new(Session::new(&exec, 1, None, Rc::default(), std::time::Instant::now()));
        session.follow_from_start(&connection, channel, exec.window);
        connection.channel_opened(channel, &session);
        session.begun();
        let machine = Machine::new(exec.tty.is_some());
        if let Some(slot) = self.guests.get_mut(guest) {
            *slot = Some(Guest { session, machine });
        }
    }

    /// A later reader: what `Registry::attach` does.
    fn attach(&mut self, host: usize, guest: usize, from: u8, scale: u8) {
        let Some(session) = self.guest(guest).map(|guest| Rc::clone(&guest.session)) else {
            return;
        };
        let Some((host, connection)) = self.live(host) else { return };
        let Some(channel) = host.fresh(&connection) else { return };
        let window = if scale & 1 == 0 { 0 } else { u64::MAX };
        let granted = window.clamp(OUTPUT_WINDOW_MIN, OUTPUT_WINDOW_MAX);
        host.channels.insert(channel, Followed::new(granted, None));
        connection.channel_opened(channel, &session);
        let from = (from != 255).then(|| u64::from(from) << (scale % 24));
        session.follow(&connection, channel, from, window);
    }

    /// The host gives all credit back that it owes on a channel.
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
        let broken = self.hosts.get(host).is_some_and(|host| host.connection.is_none());
        // Without a follower behind it nobody counts; with one, the agent has to accept what it
        // granted.
        assert!(!(broken && paid == Some(true)), "input was refused that was granted");
    }

    /// A frame arrives on a connection; one that breaks a rule ends it.
    fn frame(&mut self, host: usize, channel: u32, message: Message) {
        let registry = Rc::clone(&self.registry);
        let Some((_, connection)) = self.live(host) else { return };
        if channel != 0 && connection.handle(&registry, channel, message).is_err() {
            self.hang_up(host);
        }
        // The frame woke the pumps.
        self.guests.iter().flatten().for_each(|guest| guest.session.tell());
    }

    /// Bytes arrive as they are. What would touch processes is left out.
    fn raw(&mut self, host: usize, bytes: &[u8]) {
        let mut buffer = BytesMut::new();
        let hello = Frame { channel: 0, message: Message::Hello(Hello::ours(None)) };
        assert!(encode(&hello, &mut buffer), "the greeting is too long");
        buffer.extend_from_slice(bytes);
        let mut decoder = Decoder::new(Peer::Host);
        loop {
            match decoder.next(&mut buffer) {
                Ok(Some(Frame { channel, message })) => match message {
                    Message::Hello(_) | Message::Exec(_) | Message::Attach(_) => {}
                    Message::Signal(_) | Message::Shutdown(_) => {}
                    Message::Stdin(data) => self.stdin(host, channel, data.len()),
                    // Beyond what was received: a host that lies about its own credit.
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

    /// The process writes; the pump reads as much as it may.
    fn output(&mut self, guest: usize, pick: u8, len: usize) {
        let Some(Some(guest)) = self.guests.get_mut(guest) else { return };
        let stream = stream(pick);
        let allowed = guest.session.allowance().min(MAX_DATA);
        let len = guest.machine.may_read(stream, allowed).min(len);
        if len == 0 || !guest.machine.wants(stream) {
            return;
        }
        let start = guest.session.state.borrow().replay.end();
        guest.session.deliver(stream, &pattern(start, len));
        guest.on(Input::Read(stream, len as u64));
    }

    fn on(&mut self, guest: usize, input: Input) {
        if let Some(Some(guest)) = self.guests.get_mut(guest) {
            guest.on(input);
        }
    }

    fn exit(&mut self, guest: usize, waiting: u8) {
        if let Some(Some(guest)) = self.guests.get_mut(guest) {
            guest.session.child_ended(&reaped());
            guest.on(Input::Exited { waiting: [u64::from(waiting) * 99, u64::from(waiting & 7)] });
        }
    }

    /// The process reads its input.
    fn taken(&mut self, guest: usize, count: usize) {
        let Some(guest) = self.guest(guest) else { return };
        let mut state = guest.session.state.borrow_mut();
        let Some(front) = state.stdin.front() else { return };
        if let Some((connection, channel, len)) = state.stdin.written(count.min(front.len())) {
            let feeder = state.followers.iter_mut().find(|f| f.is(connection, channel));
            if let Some(feeder) = feeder {
                feeder.give_back_stdin(len);
            }
        }
    }

    /// The process no longer reads its input.
    fn refused(&mut self, guest: usize, errno: u8) {
        if let Some(guest) = self.guest(guest) {
            guest.session.stdin_failed(errno.into());
        }
    }

    async fn receive(&mut self, host: usize) {
        if let Some(host) = self.hosts.get_mut(host) {
            host.receive().await;
        }
    }

    /// The connection ends.
    fn hang_up(&mut self, host: usize) {
        if let Some(host) = self.hosts.get_mut(host)
            && let Some(connection) = host.connection.take()
        {
            connection.abandon();
        }
    }

    /// An ended session loses its output, as the oldest do.
    fn forget(&mut self, guest: usize) {
        if let Some(guest) = self.guest(guest)
            && guest.machine.ended()
        {
            guest.session.forget_output();
        }
    }

    /// Every process ends and every host reads: then every channel that is followed was told all.
    async fn finish(mut self) {
        for guest in 0..self.guests.len() {
            self.on(guest, Input::Exited { waiting: [0; 2] });
            for stream in [OutputStream::Stdout, OutputStream::Stderr] {
                self.on(guest, Input::Over(stream));
            }
            let ended = self.guest(guest).is_none_or(|guest| guest.machine.ended());
            assert!(ended, "a session that does not end");
        }
        // Each round has room for three quarters of a window, at the least.
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
            let left = guest.session.state.borrow().followers.len();
            assert_eq!(left, 0, "followers stay behind the end");
        }
        for host in 0..self.hosts.len() {
            self.hang_up(host);
        }
    }

    /// Channels that were not told all, and want to be.
    fn waiting(&self, host: usize) -> Vec<u32> {
        let Some(host) = self.hosts.get(host) else { return Vec::new() };
        let channels = host.channels.iter().filter(|_| host.connection.is_some());
        let told = |followed: &Followed| followed.ended || followed.closed;
        channels.filter(|(_, followed)| !told(followed)).map(|(channel, _)| *channel).collect()
    }
}

impl Guest {
    /// What the pump does with an input.
    fn on(&mut self, input: Input) {
        let (machine, Actions { exited, end }) = self.machine.on(input);
        self.machine = machine;
        if exited {
            self.session.set_exited(&reaped(), Instant::now());
        }
        if let Some(writer_left) = end {
            self.session.set_end(writer_left);
        }
        self.session.tell();
    }
}

fn stream(pick: u8) -> OutputStream {
    if pick & 1 == 0 { OutputStream::Stdout } else { OutputStream::Stderr }
}

pub(super) fn reaped() -> Reaped {
    Reaped {
        pid: 1,
        code: Some(0),
        signal: None,
        core_dumped: false,
        user: Duration::ZERO,
        system: Duration::ZERO,
        max_rss: 0,
    }
}

pub(super) fn exec(guest: usize, options: u8) -> Exec {
    Exec {
        session: SessionId::from_bytes([if guest == 0 { 1 } else { 2 }; 16]),
        argv: vec![b"true".to_vec().into()],
        env: Vec::new(),
        cwd: b"/".to_vec(),
        user: None,
        stdin: if options & 1 == 0 { StdinMode::Null } else { StdinMode::Pipe },
        tty: (options & 2 != 0).then_some(TtySize { rows: 24, cols: 80 }),
        timeout_ns: None,
        rlimits: Vec::new(),
        drain_ns: None,
        wait_for_eof: false,
        window: if options & 4 == 0 { 0 } else { u64::MAX },
    }
}
