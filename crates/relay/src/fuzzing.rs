//! Entry point of the fuzzer: a guest that sends arbitrary bytes after the handshake.

use crate::frame::{Frame, announcement, decode};
use crate::{End, Hello, NONCE, RelayError, host};
use bytes::BytesMut;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

/// Longer than any run takes: beyond it the relay hangs.
const LIMIT: Duration = Duration::from_secs(10);
const HELLO: Hello = Hello { nonce: [7; NONCE], now_ns: 0 };

/// The result of a run, for a host with one connection that only reads.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    received: Vec<u8>,
    /// `None` for an error.
    end: Option<End>,
}

fn expected(bytes: &[u8]) -> Outcome {
    let mut from = BytesMut::from(bytes);
    let (mut received, mut open, mut bye) = (Vec::new(), true, false);
    let end = loop {
        match decode(&mut from) {
            Ok(None) => break Some(if bye { End::Bye } else { End::Closed }),
            Ok(Some(Frame::Data(1, data))) if open => received.extend_from_slice(&data),
            Ok(Some(Frame::End(1))) if open => open = false,
            // The connection has its full credit, and a grant may arrive after a connection's end.
            Ok(Some(Frame::Credit(id, bytes))) if id != 1 || bytes == 0 => {}
            Ok(Some(Frame::Bye)) if !bye => bye = true,
            _ => break None,
        }
    };
    Outcome { received, end }
}

/// Runs a host against a guest that sends `bytes` after the handshake. The client has to receive
/// the data of all frames before the first invalid one, then end of file; the host has to return
/// its result.
///
/// # Panics
///
/// If the host does anything else.
#[allow(clippy::panic, clippy::expect_used, reason = "a fuzzer detects panics")]
pub fn host_input(bytes: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime
        .expect("a runtime")
        .block_on(async { tokio::time::timeout(LIMIT, run_host(bytes)).await });
    let outcome = result.expect("the relay hangs").expect("sockets");
    assert_eq!(outcome, expected(bytes));
}

async fn run_host(bytes: &[u8]) -> io::Result<Outcome> {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net;
    // An abstract address, new for each call: nothing remains in the file system.
    let listener = net::UnixListener::bind_addr(&net::SocketAddr::from_abstract_name([])?)?;
    let address = listener.local_addr()?;
    listener.set_nonblocking(true)?;
    let (ours, mut theirs) = UnixStream::pair()?;
    let host = tokio::spawn(host(ours, UnixListener::from_std(listener)?, HELLO));
    let client = net::UnixStream::connect_addr(&address)?;
    client.set_nonblocking(true)?;
    let mut client = UnixStream::from_std(client)?;
    let client = tokio::spawn(async move {
        let mut received = Vec::new();
        client.read_to_end(&mut received).await.map(|_| received)
    });
    let mut handshake = BytesMut::from(&announcement()[..]);
    Frame::Welcome(HELLO.nonce).encode(&mut handshake);
    theirs.write_all(&handshake).await?;
    // Wait until the connection is open.
    let mut received = BytesMut::new();
    while !matches!(last_frame(&mut received), Some(Frame::Open(1))) {
        theirs.read_buf(&mut received).await?;
    }
    let (mut from, mut to) = theirs.into_split();
    let sending = async {
        // A host that found an error stops reading.
        if to.write_all(bytes).await.is_ok() {
            let _ = to.shutdown().await;
        }
    };
    let mut rest = Vec::new();
    let (_, _) = tokio::join!(sending, from.read_to_end(&mut rest));
    let end = match host.await? {
        Ok(end) => Some(end),
        Err(RelayError::Io(error)) => return Err(error),
        Err(RelayError::Frame(_) | RelayError::Protocol(_)) => None,
    };
    Ok(Outcome { received: client.await??, end })
}

/// Returns the last complete frame.
fn last_frame(received: &mut BytesMut) -> Option<Frame> {
    let mut last = None;
    while let Ok(Some(frame)) = decode(received) {
        last = Some(frame);
    }
    last
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    #[test]
    fn i_relay_host_seeds_pass() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/relay_host");
        let seeds = fs::read_dir(seeds).unwrap().map(|seed| seed.unwrap().path());
        let seeds = seeds.inspect(|seed| host_input(&fs::read(seed).unwrap())).count();
        assert!(seeds > 0);
    }
}
