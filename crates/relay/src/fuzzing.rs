//! What the fuzzer drives: a guest that sends anything, once it has greeted.

use crate::frame::{Frame, announcement, decode};
use crate::{End, Hello, NONCE, RelayError, host};
use bytes::BytesMut;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

/// Long enough for any machine; what takes longer hangs.
const LIMIT: Duration = Duration::from_secs(10);
const HELLO: Hello = Hello { nonce: [7; NONCE], now_ns: 0 };

/// What the frames in `bytes` come to, for a host with one connection that only listens.
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
            // It has all the credit that there is; and credit may cross a connection's end.
            Ok(Some(Frame::Credit(id, bytes))) if id != 1 || bytes == 0 => {}
            Ok(Some(Frame::Bye)) if !bye => bye = true,
            _ => break None,
        }
    };
    Outcome { received, end }
}

/// Plays a guest that sends `bytes` behind its greeting: the client gets what the frames carry up
/// to the first wrong one, and then its end, and the host tells how it ended.
///
/// # Panics
///
/// If it does anything else.
#[allow(clippy::panic, clippy::expect_used, reason = "that is how a fuzzer is told")]
pub fn host_input(bytes: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let played = runtime
        .expect("a runtime")
        .block_on(async { tokio::time::timeout(LIMIT, play(bytes)).await });
    let outcome = played.expect("the relay hangs").expect("sockets");
    assert_eq!(outcome, expected(bytes));
}

async fn play(bytes: &[u8]) -> io::Result<Outcome> {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net;
    // In the abstract namespace, and a new one for each call: nothing is left.
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
    let mut greeting = BytesMut::from(&announcement()[..]);
    Frame::Welcome(HELLO.nonce).encode(&mut greeting);
    theirs.write_all(&greeting).await?;
    // The connection is there from here on.
    let mut said = BytesMut::new();
    while !matches!(next(&mut said), Some(Frame::Open(1))) {
        theirs.read_buf(&mut said).await?;
    }
    let (mut from, mut to) = theirs.into_split();
    let sending = async {
        // A host that has found an error reads no more.
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

/// The last frame that is complete.
fn next(said: &mut BytesMut) -> Option<Frame> {
    let mut last = None;
    while let Ok(Some(frame)) = decode(said) {
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
    fn i_the_seeds_of_the_relays_host_pass() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/relay_host");
        let seeds = fs::read_dir(seeds).unwrap().map(|seed| seed.unwrap().path());
        let seeds = seeds.inspect(|seed| host_input(&fs::read(seed).unwrap())).count();
        assert!(seeds > 0);
    }
}
