//! A host inside this process, for tests of operations on files.

use super::Root;
use crate::client::Client;
use crate::connection::Connection;
use crate::dispatch;
use crate::registry::Registry;
use bytes::{Bytes, BytesMut};
use msb_transport::Stream;
use msb_wire::limits::{FS_WINDOW, MAX_DATA, OUTPUT_WINDOW};
use msb_wire::{
    Decoder, Frame, FsAction, FsError, FsInput, FsMessage, FsOp, FsReply, FsRequest, FsState,
    Hello, Message, Peer, ReceiveCredit, SendCredit, cost, encode,
};
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// The result of an operation: its data, and its end.
pub(crate) type Ended = (Vec<u8>, Result<FsReply, FsError>);

/// A host with one connection to an agent, whose root is a directory of its own.
pub(crate) struct Host {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) registry: Rc<Registry>,
    stream: Stream,
    serving: tokio::task::JoinHandle<()>,
    /// Lengths of the data frames of the operation that ended last.
    pub(crate) lengths: Vec<usize>,
    decoder: Decoder,
    buffer: BytesMut,
    next: u32,
    user: Option<String>,
    channels: HashMap<u32, Channel>,
}

/// A channel of an operation.
struct Channel {
    state: FsState,
    received: ReceiveCredit,
    credit: SendCredit,
    data: Vec<u8>,
    lengths: Vec<usize>,
    owed: u64,
    receives: bool,
    is_complete: bool,
    is_closed: bool,
    end: Option<Result<FsReply, FsError>>,
}

/// Runs a test in the agent's kind of runtime.
pub(crate) fn run(test: impl AsyncFnOnce()) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test());
}

impl Host {
    /// Starts an agent, and connects to it.
    pub(crate) async fn start() -> Host {
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::new([0; 16], Default::default());
        registry.serve_files(Root::confined(folder.path()).unwrap()).unwrap();
        Host::connect(folder, registry).await
    }

    async fn connect(folder: tempfile::TempDir, registry: Rc<Registry>) -> Host {
        let (near, stream) = msb_transport::memory::pair().unwrap();
        let client = Client::new(Connection::new(1, near));
        let serving = tokio::task::spawn_local(dispatch::serve(client, Rc::clone(&registry)));
        let (decoder, buffer) = (Decoder::new(Peer::Agent), BytesMut::new());
        let (user, channels) = (None, HashMap::new());
        let mut host = Host {
            folder,
            registry,
            stream,
            serving,
            lengths: Vec::new(),
            decoder,
            buffer,
            next: 0,
            user,
            channels,
        };
        host.send(0, Message::Hello(Hello::ours(None))).await;
        assert!(matches!(host.frame().await.message, Message::Hello(_)));
        host
    }

    /// Ends the connection and connects again.
    pub(crate) async fn reconnect(self) -> Host {
        let Host { folder, registry, stream, serving, .. } = self;
        drop(stream);
        serving.await.unwrap();
        Host::connect(folder, registry).await
    }

    /// Acts as another user from now on.
    pub(crate) fn become_user(&mut self, user: &str) {
        self.user = Some(user.to_owned());
    }

    /// Returns the host's path of a path in the agent's root.
    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path.trim_start_matches('/'))
    }

    pub(crate) async fn send(&self, channel: u32, message: Message) {
        let mut out = BytesMut::new();
        assert!(encode(&Frame { channel, message }, &mut out), "too long");
        let mut rest = &out[..];
        while !rest.is_empty() {
            self.stream.writable().await.unwrap();
            match self.stream.try_write(&[io::IoSlice::new(rest)]) {
                Ok(count) => rest = &rest[count..],
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
    }

    /// Waits for the next frame.
    pub(crate) async fn frame(&mut self) -> Frame {
        loop {
            if let Some(frame) = self.decoder.next(&mut self.buffer).unwrap() {
                return frame;
            }
            self.stream.readable().await.unwrap();
            self.buffer.reserve(2 * MAX_DATA);
            match self.stream.try_read(&mut self.buffer) {
                Ok(count) => assert!(count > 0, "the agent has closed the connection"),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
    }

    /// Begins an operation.
    pub(crate) async fn begin(&mut self, op: FsOp) -> u32 {
        self.next += 1;
        let channel = Channel {
            state: FsState::new(&op),
            received: ReceiveCredit::new(OUTPUT_WINDOW),
            credit: SendCredit::new(FS_WINDOW),
            data: Vec::new(),
            lengths: Vec::new(),
            owed: 0,
            receives: op.receives_data(),
            is_complete: false,
            is_closed: false,
            end: None,
        };
        self.channels.insert(self.next, channel);
        let request = FsRequest { user: self.user.clone(), window: OUTPUT_WINDOW, op };
        self.send(self.next, Message::Fs(FsMessage::Request(request))).await;
        self.next
    }

    /// Takes the next frame of any operation, and checks that it may come now.
    async fn step(&mut self) {
        let Frame { channel: number, message } = self.frame().await;
        let channel = self.channels.get_mut(&number).unwrap();
        if channel.is_closed {
            // Sent before the agent knew.
            return;
        }
        let (state, action) = channel.state.on(FsInput::of(&message));
        assert!(!matches!(action, FsAction::Violation(_)), "{action:?}: {message:?}");
        channel.state = state;
        match message {
            Message::Credit(limit) => channel.credit.grant(limit).unwrap(),
            Message::Fs(FsMessage::Data(data)) => {
                channel.received.receive(data.len()).unwrap();
                channel.owed += cost(data.len());
                channel.data.extend_from_slice(&data);
                channel.lengths.push(data.len());
            }
            Message::Fs(FsMessage::Reply(reply)) => channel.end = Some(Ok(reply)),
            Message::Fs(FsMessage::Failed(error)) => channel.end = Some(Err(error)),
            Message::Fs(FsMessage::Opened(_)) => {}
            other => panic!("{other:?}"),
        }
    }

    /// Waits until an operation is announced.
    pub(crate) async fn wait_until_open(&mut self, channel: u32) {
        while self.channels[&channel].state == FsState::Announcing {
            self.step().await;
        }
    }

    /// Waits for data of an operation, and grants credit for it. Returns it with the lengths of its
    /// frames.
    pub(crate) async fn pieces(&mut self, channel: u32) -> (Vec<u8>, Vec<usize>) {
        while self.channels[&channel].data.is_empty() {
            self.step().await;
        }
        let own = self.channels.get_mut(&channel).unwrap();
        let pieces = (std::mem::take(&mut own.data), std::mem::take(&mut own.lengths));
        if let Some(limit) = own.received.release(std::mem::take(&mut own.owed)) {
            self.send(channel, Message::Credit(limit)).await;
        }
        pieces
    }

    /// Waits until an operation has sent something, its end included.
    pub(crate) async fn wait_for_data(&mut self, channel: u32) -> Vec<u8> {
        while self.channels[&channel].data.is_empty() && self.channels[&channel].end.is_none() {
            self.step().await;
        }
        let own = self.channels.get_mut(&channel).unwrap();
        own.lengths.clear();
        std::mem::take(&mut own.data)
    }

    /// Sends data, waiting for credit. Stops when the operation has ended.
    pub(crate) async fn write(&mut self, channel: u32, data: &[u8]) {
        let mut rest = data;
        while !rest.is_empty() && self.channels[&channel].end.is_none() {
            let credit = &mut self.channels.get_mut(&channel).unwrap().credit;
            let piece = &rest[..rest.len().min(credit.room())];
            if piece.is_empty() {
                self.step().await;
                continue;
            }
            assert!(credit.spend(piece.len()));
            rest = &rest[piece.len()..];
            let data = Bytes::copy_from_slice(piece);
            self.send(channel, Message::Fs(FsMessage::Data(data))).await;
        }
    }

    /// Ends the input of an operation.
    pub(crate) async fn complete(&mut self, channel: u32) {
        self.channels.get_mut(&channel).unwrap().is_complete = true;
        self.send(channel, Message::Fs(FsMessage::Eof)).await;
    }

    /// Gives an operation up.
    pub(crate) async fn close(&mut self, channel: u32) {
        self.channels.get_mut(&channel).unwrap().is_closed = true;
        self.send(channel, Message::Close).await;
    }

    /// Waits for the end of an operation, and grants credit meanwhile.
    pub(crate) async fn end(&mut self, channel: u32) -> Ended {
        loop {
            let own = self.channels.get_mut(&channel).unwrap();
            if let Some(end) = own.end.take() {
                self.lengths = std::mem::take(&mut own.lengths);
                return (std::mem::take(&mut own.data), end);
            }
            if let Some(limit) = own.received.release(std::mem::take(&mut own.owed)) {
                self.send(channel, Message::Credit(limit)).await;
            }
            self.step().await;
        }
    }

    /// Returns whether an operation takes input now.
    pub(crate) fn takes_input(&self, channel: u32) -> bool {
        let own = self.channels.get(&channel);
        own.is_some_and(|own| own.receives && !own.is_complete && !own.is_closed)
    }

    /// Returns the operations that were not given up, and whose end was not taken.
    pub(crate) fn open_operations(&self) -> Vec<u32> {
        let has_end = |own: &Channel| own.state != FsState::Ended || own.end.is_some();
        let open = self.channels.iter().filter(|(_, own)| !own.is_closed && has_end(own));
        open.map(|(number, _)| *number).collect()
    }

    /// Performs an operation without input.
    pub(crate) async fn call(&mut self, op: FsOp) -> Ended {
        let channel = self.begin(op).await;
        self.end(channel).await
    }

    /// Performs an operation that must succeed.
    pub(crate) async fn ok(&mut self, op: FsOp) -> (Vec<u8>, FsReply) {
        let text = format!("{op:?}");
        let (data, end) = self.call(op).await;
        (data, end.unwrap_or_else(|error| panic!("{text}: {error:?}")))
    }

    /// Performs an operation that must fail.
    pub(crate) async fn fails(&mut self, op: FsOp) -> FsError {
        let text = format!("{op:?}");
        let (_, end) = self.call(op).await;
        match end {
            Err(error) => error,
            Ok(reply) => panic!("{text}: {reply:?}"),
        }
    }

    /// Performs an operation with input.
    pub(crate) async fn feed(&mut self, op: FsOp, data: &[u8]) -> Result<FsReply, FsError> {
        let channel = self.begin(op).await;
        self.write(channel, data).await;
        self.complete(channel).await;
        self.end(channel).await.1
    }

    /// Waits until the agent has removed what was given up.
    pub(crate) async fn settle(&mut self) {
        // Answered by the agent's main thread, behind everything that came before.
        let (path, follow) = (b"/".to_vec(), false);
        self.ok(FsOp::Stat { path, follow }).await;
        self.registry.files().unwrap().finish(std::time::Duration::from_secs(10));
    }
}

/// Returns the names in a directory, sorted.
pub(crate) fn names(path: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(path).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}
