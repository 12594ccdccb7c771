//! What QEMU itself says of the machine's end (QMP: a line of JSON each way).

use std::io;
use std::os::unix::net::UnixStream as StdStream;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// Longest line that is read, in bytes.
const LINE: u64 = 64 * 1024;
/// Longest word of it that goes into an error, in characters.
const WORD: usize = 64;

/// The last thing that QEMU said about the machine's end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Said(Arc<Mutex<Option<String>>>);

impl Said {
    /// Listens on a connection to QEMU from now on. Must be called inside the runtime.
    pub(crate) fn listen(stream: StdStream) -> io::Result<Said> {
        stream.set_nonblocking(true)?;
        let stream = UnixStream::from_std(stream)?;
        let said = Said::default();
        let copy = said.clone();
        tokio::spawn(async move {
            if let Err(error) = copy.follow(stream).await {
                tracing::debug!(%error, "QEMU was not heard to its end");
            }
        });
        Ok(said)
    }

    /// What it said, in words.
    pub(crate) fn words(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn follow(&self, mut stream: UnixStream) -> io::Result<()> {
        // Events come only behind this.
        stream.write_all(b"{\"execute\":\"qmp_capabilities\"}\n").await?;
        let mut lines = BufReader::new(stream);
        loop {
            let mut line = Vec::new();
            if (&mut lines).take(LINE).read_until(b'\n', &mut line).await? == 0 {
                return Ok(());
            }
            if let Some(words) = meaning(&line) {
                *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(words);
            }
        }
    }
}

fn meaning(line: &[u8]) -> Option<String> {
    let value: serde_json::Value = serde_json::from_slice(line).ok()?;
    match value.get("event")?.as_str()? {
        "GUEST_PANICKED" => Some("its kernel panicked".to_owned()),
        "SHUTDOWN" => {
            let reason = value.pointer("/data/reason")?.as_str()?;
            Some(match reason {
                "guest-reset" => "it was reset from within".to_owned(),
                "guest-shutdown" => "it was shut down from within".to_owned(),
                "guest-panic" => "its kernel panicked".to_owned(),
                "host-signal" => "QEMU was told to end by a signal".to_owned(),
                other => format!("it ended by {}", short(other)),
            })
        }
        _ => None,
    }
}

/// A word of QEMU as it goes into an error.
fn short(word: &str) -> String {
    word.chars().filter(|c| c.is_ascii_graphic()).take(WORD).collect()
}

/// QEMU, which a guest may have taken over, sends arbitrary bytes and ends: so does the reader, and
/// its words are few.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) async fn read_from(mut qemu: UnixStream, stream: UnixStream, data: &[u8]) {
    let said = Said::default();
    let sending = async {
        // The reader may have had enough.
        let _ = qemu.write_all(data).await;
        let _ = qemu.shutdown().await;
        let _ = qemu.read_to_end(&mut Vec::new()).await;
    };
    // The reader's own connection ends with it, and with that what QEMU reads.
    let reading = said.follow(stream);
    let _ = tokio::join!(sending, reading);
    let words = said.words().unwrap_or_default();
    assert!(
        words.len() < 2 * WORD + 32 && words.bytes().all(|b| b == b' ' || b.is_ascii_graphic())
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_that_tell_of_the_end_become_words() {
        let reset =
            br#"{"timestamp":{},"event":"SHUTDOWN","data":{"guest":true,"reason":"guest-reset"}}"#;
        assert_eq!(meaning(reset).as_deref(), Some("it was reset from within"));
        let panic = br#"{"event":"GUEST_PANICKED","data":{"action":"pause"}}"#;
        assert_eq!(meaning(panic).as_deref(), Some("its kernel panicked"));
        for other in [&br#"{"return":{}}"#[..], b"no json", br#"{"event":"SHUTDOWN"}"#] {
            assert_eq!(meaning(other), None);
        }
    }
}
