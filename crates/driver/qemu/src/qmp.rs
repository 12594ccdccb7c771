//! The reason of the machine's shutdown, from QEMU (QMP: lines of JSON).

use std::io;
use std::os::unix::net::UnixStream as StdStream;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// Longest line, in bytes.
const LINE: u64 = 64 * 1024;
/// Longest word of QEMU in an error, in characters.
const WORD: usize = 64;

/// The last reason that QEMU reported.
#[derive(Debug, Clone, Default)]
pub(crate) struct ShutdownReason(Arc<Mutex<Option<String>>>);

impl ShutdownReason {
    /// Starts reading a connection to QEMU. Call it inside the runtime.
    pub(crate) fn listen(stream: StdStream) -> io::Result<ShutdownReason> {
        stream.set_nonblocking(true)?;
        let stream = UnixStream::from_std(stream)?;
        let reason = ShutdownReason::default();
        let copy = reason.clone();
        tokio::spawn(async move {
            if let Err(error) = copy.follow(stream).await {
                tracing::debug!(%error, "the connection to QEMU failed");
            }
        });
        Ok(reason)
    }

    /// Returns the reason.
    pub(crate) fn get(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn follow(&self, mut stream: UnixStream) -> io::Result<()> {
        // QEMU sends events only after this.
        stream.write_all(b"{\"execute\":\"qmp_capabilities\"}\n").await?;
        let mut lines = BufReader::new(stream);
        loop {
            let mut line = Vec::new();
            if (&mut lines).take(LINE).read_until(b'\n', &mut line).await? == 0 {
                return Ok(());
            }
            if let Some(reason) = parse_event(&line) {
                *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
            }
        }
    }
}

fn parse_event(line: &[u8]) -> Option<String> {
    let value: serde_json::Value = serde_json::from_slice(line).ok()?;
    match value.get("event")?.as_str()? {
        "GUEST_PANICKED" => Some("its kernel panicked".to_owned()),
        "SHUTDOWN" => {
            let reason = value.pointer("/data/reason")?.as_str()?;
            Some(match reason {
                "guest-reset" => "it was reset from within".to_owned(),
                "guest-shutdown" => "it was shut down from within".to_owned(),
                "guest-panic" => "its kernel panicked".to_owned(),
                "host-signal" => "QEMU was asked to end by a signal".to_owned(),
                other => format!("it ended by {}", short(other)),
            })
        }
        _ => None,
    }
}

/// Returns a word of QEMU for an error.
fn short(word: &str) -> String {
    word.chars().filter(|c| c.is_ascii_graphic()).take(WORD).collect()
}

/// A compromised QEMU sends arbitrary bytes and closes: the reader returns, with a bounded reason.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) async fn read_from(mut qemu: UnixStream, stream: UnixStream, data: &[u8]) {
    let reason = ShutdownReason::default();
    let sending = async {
        // The reader may close the connection first.
        let _ = qemu.write_all(data).await;
        let _ = qemu.shutdown().await;
        let _ = qemu.read_to_end(&mut Vec::new()).await;
    };
    // The reader closes its connection when it returns, which ends QEMU's read.
    let reading = reason.follow(stream);
    let _ = tokio::join!(sending, reading);
    let text = reason.get().unwrap_or_default();
    assert!(text.len() < 2 * WORD + 32 && text.bytes().all(|b| b == b' ' || b.is_ascii_graphic()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shutdown_events_are_parsed() {
        let reset =
            br#"{"timestamp":{},"event":"SHUTDOWN","data":{"guest":true,"reason":"guest-reset"}}"#;
        assert_eq!(parse_event(reset).as_deref(), Some("it was reset from within"));
        let panic = br#"{"event":"GUEST_PANICKED","data":{"action":"pause"}}"#;
        assert_eq!(parse_event(panic).as_deref(), Some("its kernel panicked"));
        for other in [&br#"{"return":{}}"#[..], b"no json", br#"{"event":"SHUTDOWN"}"#] {
            assert_eq!(parse_event(other), None);
        }
    }
}
