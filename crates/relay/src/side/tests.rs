use super::*;
use crate::frame::{Hello, announcement};
use crate::{NONCE, WINDOW};
use bytes::Bytes;
use proptest::prelude::*;
use std::future::Future;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const HELLO: Hello = Hello { nonce: [7; NONCE], now_ns: 5 };
const LIMIT: Duration = Duration::from_secs(60);

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { timeout(LIMIT, future).await.unwrap() })
}

struct Pair {
    dir: tempfile::TempDir,
    host: JoinHandle<Result<End, RelayError>>,
    guest: Guest,
}

impl Pair {
    async fn new() -> Pair {
        let dir = tempfile::tempdir().unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let listener = UnixListener::bind(dir.path().join("s")).unwrap();
        let host = tokio::spawn(host(ours, listener, HELLO));
        let (guest, hello) = begin_guest(theirs).await;
        assert_eq!(hello, HELLO);
        Pair { dir, host, guest }
    }

    async fn connect(&mut self) -> (UnixStream, UnixStream) {
        let client = UnixStream::connect(self.dir.path().join("s")).await.unwrap();
        (client, self.guest.connections.recv().await.unwrap())
    }
}

async fn begin_guest(mut port: UnixStream) -> (Guest, Hello) {
    port.write_all(&announcement()).await.unwrap();
    guest(port).await.unwrap()
}

/// Runs a host against a guest that sends these frames, and returns the host's result.
async fn host_result(frames: Vec<Frame>) -> Result<End, RelayError> {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let host = tokio::spawn(host(ours, listener, HELLO));
    let client = UnixStream::connect(&path).await.unwrap();
    let mut bytes = BytesMut::new();
    frames.iter().for_each(|frame| frame.encode(&mut bytes));
    theirs.write_all(&bytes).await.unwrap();
    theirs.shutdown().await.unwrap();
    // Read until the host closes the port.
    let mut reader = Reader::new(Arc::new(theirs));
    while let Ok(Some(_)) = reader.next().await {}
    drop(client);
    host.await.unwrap()
}

#[test]
fn connections_forward_any_bytes_in_both_directions() {
    run(async {
        let mut pair = Pair::new().await;
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..50_u8 {
            let (mut client, server) = pair.connect().await;
            tasks.spawn(async move {
                let (mut from, mut to) = server.into_split();
                tokio::io::copy(&mut from, &mut to).await.unwrap();
            });
            tasks.spawn(async move {
                let sent: Vec<u8> =
                    (0..100_000_u32).map(|i| (i % 251).to_le_bytes()[0] ^ number).collect();
                let copy = sent.clone();
                let (mut from, mut to) = client.split();
                let writing = async {
                    to.write_all(&copy).await.unwrap();
                    to.shutdown().await.unwrap();
                };
                let mut got = Vec::new();
                let (_, read) = tokio::join!(writing, from.read_to_end(&mut got));
                assert_eq!(read.unwrap(), sent.len());
                assert!(got == sent, "connection {number} has other bytes");
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
    });
}

#[test]
fn b6_unread_connection_blocks_only_its_writer() {
    run(async {
        let mut pair = Pair::new().await;
        let (stuck, mut writer) = pair.connect().await;
        let (mut client, mut server) = pair.connect().await;
        let written = tokio::spawn(async move {
            let (mut sum, piece) = (0, [b'x'; 4096]);
            // Until the relay accepts no more.
            while let Ok(result) =
                timeout(Duration::from_millis(300), writer.write_all(&piece)).await
            {
                result.unwrap();
                sum += piece.len();
            }
            (sum, writer)
        });
        let (sum, writer) = written.await.unwrap();
        assert!((WINDOW / 2..4 * WINDOW).contains(&sum), "{sum}");
        server.write_all(b"hello").await.unwrap();
        let mut heard = [0; 5];
        client.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"hello");
        drop((stuck, writer));
    });
}

#[test]
fn i_data_beyond_the_credit_is_refused() {
    run(async {
        let links = Links::new().0;
        let (out, _frames) = mpsc::channel(OUT);
        let (ours, _theirs) = UnixStream::pair().unwrap();
        links.open(1, ours, &out).unwrap();
        let piece = Bytes::from(vec![0; 65_536]);
        // No await in between, so that nothing is forwarded and no credit comes back.
        for _ in 0..WINDOW / piece.len() {
            links.data(1, piece.clone()).unwrap();
        }
        assert!(links.data(1, piece).unwrap_err().contains("credit"));
        assert!(links.credit(1, 1).unwrap_err().contains("credit"));
        assert_eq!(links.credit(9, 1), Ok(()), "a grant for an ended connection");
    });
}

#[test]
fn end_of_file_reaches_the_peer() {
    run(async {
        let mut pair = Pair::new().await;
        let (client, mut server) = pair.connect().await;
        drop(client);
        assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0);
        let (mut client, server) = pair.connect().await;
        drop(server);
        assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
        // A client that closes early loses its data, and affects no other connection.
        let (client, mut server) = pair.connect().await;
        drop(client);
        let piece = vec![0; 3 * WINDOW];
        let _ = timeout(Duration::from_secs(5), server.write_all(&piece)).await;
        let (mut client, mut server) = pair.connect().await;
        server.write_all(b"still there").await.unwrap();
        client.read_exact(&mut [0; 11]).await.unwrap();
    });
}

#[test]
fn b7_shutdown_follows_the_last_byte_and_differs_from_crash() {
    run(async {
        let mut pair = Pair::new().await;
        let (mut client, mut server) = pair.connect().await;
        server.write_all(&[b'y'; 300_000]).await.unwrap();
        drop(server);
        let Pair { guest, host, dir } = pair;
        let reading = tokio::spawn(async move {
            let mut got = Vec::new();
            client.read_to_end(&mut got).await.unwrap();
            got.len()
        });
        guest.shutdown.announce().await;
        assert_eq!(reading.await.unwrap(), 300_000);
        assert_eq!(host.await.unwrap().unwrap(), End::Bye);
        drop(dir);

        let mut pair = Pair::new().await;
        let (mut client, server) = pair.connect().await;
        let Pair { guest, host, dir: _dir } = pair;
        guest.shutdown.relay.abort();
        drop((guest, server));
        assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
        assert_eq!(host.await.unwrap().unwrap(), End::Closed);
    });
}

#[test]
fn i_protocol_violation_differs_from_an_end() {
    let nonce = HELLO.nonce;
    let started = [Frame::Up, Frame::Welcome(nonce)];
    let after = |more: &[Frame]| host_result([&started[..], more].concat());
    run(async {
        assert_eq!(host_result(vec![]).await.unwrap(), End::Closed);
        assert_eq!(after(&[]).await.unwrap(), End::Closed);
        assert_eq!(after(&[Frame::Bye]).await.unwrap(), End::Bye);
        let wrong = [
            (host_result(vec![Frame::Bye]).await, "announce"),
            (host_result(vec![Frame::Up, Frame::Welcome([9; NONCE])]).await, "hello"),
            (host_result(vec![Frame::Up, Frame::Open(1)]).await, "hello"),
            (after(&[Frame::Data(9, Bytes::from_static(b"x"))]).await, "not open"),
            (after(&[Frame::End(9)]).await, "ended twice"),
            (after(&[Frame::Open(1)]).await, "out of turn"),
            (after(&[Frame::Hello(HELLO)]).await, "out of turn"),
        ];
        for (result, part) in wrong {
            let message = result.unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn bytes_survive_any_split(
        pieces in proptest::collection::vec(
            (0_usize..4, any::<bool>(), proptest::collection::vec(any::<u8>(), 1..5000)), 1..60),
    ) {
        run(async {
            let mut pair = Pair::new().await;
            let mut ends = Vec::new();
            for _ in 0..4 {
                ends.push(pair.connect().await);
            }
            let mut expected = vec![(Vec::new(), Vec::new()); 4];
            for (which, up, bytes) in &pieces {
                let (client, server) = &mut ends[*which];
                if *up {
                    client.write_all(bytes).await.unwrap();
                    expected[*which].0.extend_from_slice(bytes);
                } else {
                    server.write_all(bytes).await.unwrap();
                    expected[*which].1.extend_from_slice(bytes);
                }
            }
            for ((mut client, mut server), (up, down)) in ends.into_iter().zip(expected) {
                client.shutdown().await.unwrap();
                server.shutdown().await.unwrap();
                let (mut got_up, mut got_down) = (Vec::new(), Vec::new());
                server.read_to_end(&mut got_up).await.unwrap();
                client.read_to_end(&mut got_down).await.unwrap();
                assert!(got_up == up && got_down == down);
            }
        });
    }
}

#[test]
fn j4_connections_that_a_guest_never_ends_are_bounded() {
    run(async {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let host = tokio::spawn(host(ours, listener, HELLO));
        let mut bytes = BytesMut::new();
        bytes.extend_from_slice(&announcement());
        Frame::Welcome(HELLO.nonce).encode(&mut bytes);
        theirs.write_all(&bytes).await.unwrap();
        let mut opened = 0;
        let mut reader = Reader::new(Arc::new(theirs));
        for _ in 0..MAX_OPEN {
            drop(UnixStream::connect(&path).await.unwrap());
            loop {
                match reader.next().await.unwrap().unwrap() {
                    Frame::Open(_) => opened += 1,
                    Frame::End(_) => break,
                    _ => {}
                }
            }
        }
        assert_eq!(opened, MAX_OPEN);
        let mut one_more = UnixStream::connect(&path).await.unwrap();
        assert_eq!(one_more.read(&mut [0; 16]).await.unwrap(), 0, "it is closed at once");
        assert!(!host.is_finished(), "the sandbox goes on");
        host.abort();
    });
}
