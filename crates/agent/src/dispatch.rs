//! Serves one client: decodes its frames and passes each to the registry or a session.

use crate::client::Client;
use crate::fs::Operation;
use crate::registry::Registry;
use crate::sys;
use bytes::BytesMut;
use msb_wire::limits::GREETING;
use msb_wire::{
    Decoder, FsError, FsErrorKind, FsMessage, Hello, Kind, Message, Peer, Verdict, WireError, agree,
};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use tokio::time::{sleep, timeout};

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Ending {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("closed by the host")]
    Closed,
    #[error("no hello within {} s", GREETING.as_secs())]
    Silent,
}

/// Serves a client until its connection ends. Its sessions continue.
pub(crate) async fn serve(client: Rc<Client>, registry: Rc<Registry>) {
    let writer = tokio::task::spawn_local(write(Rc::clone(&client)));
    let ending = read(&client, &registry).await;
    registry.remove_watcher(&client);
    client.unfollow_all();
    if let Err(ending @ (Ending::Wire(_) | Ending::Silent)) = ending {
        client.send(0, Message::Error(ending.to_string()));
        // The client may never read.
        let _ = timeout(GREETING, client.connection.flush()).await;
    }
    writer.abort();
    client.connection.close();
}

/// Writes output until the stream fails. The reader then fails as well, and ends the connection.
async fn write(client: Rc<Client>) {
    while let Ok(ended_congestion) = client.connection.write().await {
        if ended_congestion {
            client.wake_sessions();
        }
        client.drop_finished();
    }
}

async fn read(client: &Rc<Client>, registry: &Rc<Registry>) -> Result<(), Ending> {
    let ours = Hello::ours(Some(registry.boot_id));
    client.send(0, Message::Hello(ours.clone()));
    let mut decoder = Decoder::new(Peer::Host);
    let mut buffer = BytesMut::new();
    let mut silence = pin!(sleep(GREETING));
    loop {
        tokio::select! {
            count = client.connection.read(&mut buffer) => {
                if count? == 0 {
                    return Err(Ending::Closed);
                }
            }
            () = &mut silence, if !client.has_agreed() => return Err(Ending::Silent),
        }
        while let Some(frame) = decoder.next(&mut buffer)? {
            match frame.message {
                Message::Hello(theirs) => {
                    client.set_agreed(agree(&ours, &theirs)?);
                    sys::die_with_parent();
                }
                Message::Exec(exec) => {
                    client.open(frame.channel, Kind::Exec)?;
                    let id = exec.session;
                    registry.start_begins(id);
                    // Awaited, since the next frame may refer to this session.
                    registry.exec(client, frame.channel, exec).await;
                    registry.start_ends(id);
                    // One read can hold a thousand commands, each with a fork: let other tasks run.
                    tokio::task::yield_now().await;
                }
                message => {
                    let highest = client.highest();
                    if let Message::Attach(request) = &message {
                        registry.wait_for_session(request.session).await;
                    }
                    handle(client, registry, frame.channel, message)?;
                    let is_request = client.highest() != highest;
                    if is_request {
                        tokio::task::yield_now().await;
                    }
                }
            }
            client.connection.wait_for_room().await;
        }
    }
}

/// Handles a frame other than `Hello` and `Exec`.
pub(crate) fn handle(
    client: &Rc<Client>,
    registry: &Registry,
    channel: u32,
    message: Message,
) -> Result<(), WireError> {
    match message {
        Message::Ping(number) => client.send(0, Message::Pong(number)),
        Message::Error(_) => {}
        Message::Shutdown(request) => registry.request_shutdown(&request),
        Message::Attach(attach) => {
            client.open(channel, Kind::Attach)?;
            registry.attach(client, channel, &attach);
        }
        Message::FollowAll(request) => {
            client.open(channel, Kind::FollowAll)?;
            client.follow_all(&request)?;
            registry.add_watcher(client);
            // The host misses no session that starts after this answer.
            client.send(channel, Message::Verdict(Verdict::default()));
        }
        Message::List => {
            client.open(channel, Kind::List)?;
            client.send(channel, Message::Sessions(registry.list()));
        }
        Message::Signal(request) => {
            client.open(channel, Kind::Signal)?;
            client.send(channel, Message::Verdict(registry.signal(&request)));
        }
        Message::Resize(request) => {
            client.open(channel, Kind::Resize)?;
            client.send(channel, Message::Verdict(registry.resize(&request)));
        }
        Message::Fs(message) => files(client, registry, channel, message)?,
        Message::Stdin(data) => {
            if let Some(session) = client.session(channel, Kind::Stdin)? {
                session.write_stdin(client.channel_id(channel), &data)?;
            }
        }
        Message::StdinEof => {
            if let Some(session) = client.session(channel, Kind::StdinEof)? {
                session.close_stdin();
            }
        }
        Message::Credit(limit) => {
            if let Some(session) = client.session(channel, Kind::Credit)? {
                session.grant(client.channel_id(channel), limit);
            }
            client.with_operation(channel, |operation| operation.grant(limit));
        }
        Message::Close => {
            let session = client.session(channel, Kind::Close)?;
            client.unbind(channel);
            if let Some(session) = session {
                session.unfollow(client.channel_id(channel));
            }
        }
        // `read` handles the others, and the decoder accepts no more kinds from a host.
        _ => {}
    }
    Ok(())
}

/// Handles a message about files.
fn files(
    client: &Rc<Client>,
    registry: &Registry,
    channel: u32,
    message: FsMessage,
) -> Result<(), WireError> {
    match message {
        FsMessage::Request(request) => {
            client.open(channel, Kind::FsRequest)?;
            let operation = request.op.name();
            let own = client.channel(channel);
            let start = || Operation::start(registry.files(), &client.handles, own, request);
            if !client.begin(channel, start) {
                let error = FsError {
                    kind: FsErrorKind::Busy,
                    errno: 0,
                    operation: operation.to_owned(),
                    path: Vec::new(),
                    message: "too many operations on files on this connection".to_owned(),
                };
                client.send(channel, Message::Fs(FsMessage::Failed(error)));
            }
            Ok(())
        }
        FsMessage::Data(data) => {
            client.session(channel, Kind::FsData)?;
            client.with_operation(channel, |operation| operation.receive(data)).unwrap_or(Ok(()))
        }
        FsMessage::Eof => {
            client.session(channel, Kind::FsEof)?;
            client.with_operation(channel, Operation::complete).unwrap_or(Ok(()))
        }
        // The decoder accepts no more kinds from a host.
        _ => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::connection::Connection;
    use msb_transport::Stream;
    use msb_wire::SessionId;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::time::Duration;
    use tokio::time::Instant;

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn i_silent_client_gets_an_error_and_is_closed() {
        let everything = async {
            let (ours, theirs) = msb_transport::memory::pair().unwrap();
            let client = Client::new(Connection::new(1, ours));
            serve(client, Registry::new([0; 16], Default::default())).await;
            let (mut buffer, mut decoder) = (BytesMut::new(), Decoder::new(Peer::Agent));
            loop {
                theirs.readable().await.unwrap();
                match theirs.try_read(&mut buffer) {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
                }
            }
            let hello = decoder.next(&mut buffer).unwrap().unwrap().message;
            assert!(matches!(hello, Message::Hello(_)));
            let reason = decoder.next(&mut buffer).unwrap().unwrap().message;
            assert_eq!(reason, Message::Error("no hello within 30 s".into()));
        };
        tokio::task::LocalSet::new().run_until(everything).await;
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn i_garbage_of_a_client_that_never_reads_ends_it() {
        let everything = async {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let client = Client::new(Connection::new(1, Stream::from_unix(ours).unwrap()));
            for number in 0..10_000 {
                client.send(0, Message::Error(format!("{number:1000}")));
            }
            theirs.write_all(&[0xff; 64]).unwrap();
            serve(client, Registry::new([0; 16], Default::default())).await;
        };
        tokio::task::LocalSet::new().run_until(everything).await;
    }

    /// How long a request to attach waits while `meanwhile` happens.
    async fn attach_waits(meanwhile: impl AsyncFn(&Registry, SessionId)) -> Duration {
        let registry = Registry::new([0; 16], Default::default());
        let id = SessionId::from_bytes([3; 16]);
        let begun = Instant::now();
        tokio::join!(registry.wait_for_session(id), meanwhile(&registry, id));
        begun.elapsed()
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn d5_attach_waits_for_a_start_that_was_received() {
        let seconds = Duration::from_secs;
        let unknown = attach_waits(async |_, _| {}).await;
        assert!((seconds(1)..seconds(2)).contains(&unknown), "{unknown:?}");
        let slow = attach_waits(async |registry, id| {
            registry.start_begins(id);
            sleep(seconds(4)).await;
            registry.start_ends(id);
        });
        assert_eq!(slow.await.as_secs(), 4);
        let late = attach_waits(async |registry, id| {
            sleep(seconds(1)).await;
            registry.start_begins(id);
            sleep(seconds(4)).await;
            registry.start_ends(id);
        });
        assert_eq!(late.await.as_secs(), 5, "its turn came when the time was over");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn i_connection_ends_although_others_hold_it() {
        let everything = async {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let client = Client::new(Connection::new(1, Stream::from_unix(ours).unwrap()));
            let held = Rc::clone(&client);
            theirs.write_all(&[0xff; 64]).unwrap();
            serve(client, Registry::new([0; 16], Default::default())).await;
            // An open connection would be an error here.
            theirs.set_nonblocking(true).unwrap();
            let mut received = Vec::new();
            theirs.read_to_end(&mut received).unwrap();
            assert!(!received.is_empty(), "the hello and the reason come before the end");
            drop(held);
        };
        tokio::task::LocalSet::new().run_until(everything).await;
    }
}
