//! A scripted agent, and a minimal executor for tests.

use crate::connection::Connection;
use crate::deadlines::Limits;
use crate::exec::Next;
use crate::exec::{ExecCore, ExecRequest, StdinSource};
use crate::lost::ExecLost;
use crate::queue::Event;
use bytes::{Bytes, BytesMut};
use msb_wire::limits::OUTPUT_WINDOW;
use msb_wire::{
    Decoder, End, Exec, Exited, Failure, FailureKind, Frame, Hello, Kind, Message, Peer, SessionId,
    Stage, Started, StdinMode, data_header, encode,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::future::Future;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::pin::{Pin, pin};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Handle};

/// How long a test waits for an expected event before it fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future to completion on this thread, without a runtime.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let begun = Instant::now();
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => {
                thread::park_timeout(PATIENCE.saturating_sub(begun.elapsed()));
                // Before the next poll, which might succeed without a wake-up.
                assert!(begun.elapsed() < PATIENCE, "nothing came for {PATIENCE:?}");
            }
        }
    }
}

/// Polls a future once, with a waker that does nothing.
pub fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Returns whether a descriptor polls readable now.
pub fn is_readable(fd: BorrowedFd<'_>) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&now)).unwrap() == 1
}

/// The agent's end of a connection, controlled by the test.
pub struct Agent {
    socket: UnixStream,
    decoder: Decoder,
    buffer: BytesMut,
}

/// The limits for the agent of a default sandbox.
pub fn limits() -> Limits {
    Limits::new(Duration::from_secs(30))
}

/// Returns the runtime of a thread that runs to the end of the process.
pub fn runtime() -> &'static Handle {
    static RUNTIME: LazyLock<Handle> = LazyLock::new(|| {
        let runtime = Builder::new_current_thread().enable_io().enable_time().build().unwrap();
        let handle = runtime.handle().clone();
        thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
        handle
    });
    &RUNTIME
}

/// Creates a connection, and the agent at its other end.
pub fn connect() -> (Arc<Connection>, Agent) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let pending = Connection::establish(ours, limits(), runtime()).unwrap();
    let mut agent = Agent::new(theirs);
    agent.greet();
    (block_on(pending).unwrap(), agent)
}

/// Returns a request that runs a command.
pub fn request(stdin: StdinSource) -> ExecRequest {
    let exec = Exec {
        session: SessionId::from_bytes([7; 16]),
        argv: vec![b"true".to_vec().into()],
        env: Vec::new(),
        cwd: b"/".to_vec(),
        user: None,
        stdin: StdinMode::Null,
        tty: None,
        timeout_ns: None,
        rlimits: Vec::new(),
        drain_ns: None,
        wait_for_eof: false,
        window: OUTPUT_WINDOW,
        modes: None,
    };
    ExecRequest { exec, stdin }
}

/// Returns a loss with this message.
pub fn lost(message: &str) -> ExecLost {
    ExecLost::gone(message, Some(104))
}

/// Returns the failure to find a program.
pub fn failure() -> Failure {
    Failure {
        kind: FailureKind::NotFound,
        stage: Stage::Execve,
        errno: 2,
        path: b"nope".to_vec(),
        message: "nope: not found".into(),
    }
}

/// Creates a connection with one requested command, and returns its channel.
pub fn opened(stdin: StdinSource) -> (Arc<Connection>, Agent, ExecCore, u32) {
    let (connection, mut agent) = connect();
    let core = ExecCore::start(&connection, request(stdin)).unwrap();
    let frame = agent.recv();
    assert!(matches!(frame.message, Message::Exec(_)), "{frame:?}");
    (connection, agent, core, frame.channel)
}

/// Waits for the next event.
pub fn next(core: &ExecCore) -> Option<Event> {
    let begun = Instant::now();
    let next = core.turn().unwrap().next(Some(begun + PATIENCE)).unwrap();
    assert!(begun.elapsed() < PATIENCE, "nothing came for {PATIENCE:?}");
    match next {
        Next::Event(received) => Some(received.event),
        Next::End(_) | Next::Nothing => None,
    }
}

/// Returns all remaining events.
pub fn rest(core: &ExecCore) -> Vec<Event> {
    std::iter::from_fn(|| next(core)).collect()
}

impl Agent {
    pub fn new(socket: UnixStream) -> Agent {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Agent { socket, decoder: Decoder::new(Peer::Host), buffer: BytesMut::new() }
    }

    pub fn say_hello(&mut self) {
        self.send(0, Message::Hello(Hello::ours(Some([1; 16]))));
    }

    pub fn greet(&mut self) {
        self.say_hello();
        assert!(matches!(self.recv().message, Message::Hello(_)));
    }

    pub fn send(&mut self, channel: u32, message: Message) {
        assert!(self.try_send(channel, message), "the host has closed the connection");
    }

    /// Sends a message; false if the host has closed the connection.
    pub fn try_send(&mut self, channel: u32, message: Message) -> bool {
        let mut out = BytesMut::new();
        assert!(encode(&Frame { channel, message }, &mut out));
        self.socket.write_all(&out).is_ok()
    }

    /// Sends raw bytes.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        // The host may have closed the connection.
        let _ = self.socket.write_all(bytes);
    }

    /// Sends the beginning of a data frame, then closes the connection.
    pub fn break_off(mut self, channel: u32) {
        self.send_raw(&data_header(Kind::Stdout, channel, 100));
        self.send_raw(b"not a hundred bytes");
    }

    pub fn started(&mut self, channel: u32) {
        self.send(channel, Message::Started(Started { pid: 42 }));
    }

    pub fn out(&mut self, channel: u32, data: &[u8]) {
        self.send(channel, Message::Stdout(Bytes::copy_from_slice(data)));
    }

    pub fn exited(&mut self, channel: u32, code: i32) {
        self.send(channel, Message::Exited(Exited { code, ..Exited::default() }));
    }

    pub fn end(&mut self, channel: u32) {
        self.send(channel, Message::End(End::default()));
    }

    /// Receives the host's next frame.
    pub fn recv(&mut self) -> Frame {
        self.try_recv().expect("the host has closed the connection")
    }

    /// Receives the host's next frame; `None` if the host has closed the connection.
    pub fn try_recv(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decoder.next(&mut self.buffer).unwrap() {
                return Some(frame);
            }
            let mut chunk = vec![0; 65536];
            match self.socket.read(&mut chunk) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    panic!("nothing came for {PATIENCE:?}")
                }
                Ok(0) | Err(_) => return None,
                Ok(n) => self.buffer.extend_from_slice(&chunk[..n]),
            }
        }
    }

    /// Receives the host's next frame other than a grant of credit.
    pub fn recv_but_credit(&mut self) -> Frame {
        loop {
            let frame = self.recv();
            if !matches!(frame.message, Message::Credit(_)) {
                return frame;
            }
        }
    }
}
