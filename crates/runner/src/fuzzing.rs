//! The entry points of the fuzzers and of the replays of their seeds: every parser of untrusted
//! bytes.
//!
//! The programs in `fuzz/` include these modules by path, since this crate is a program.

use crate::console::Console;
use crate::control::{Received, serve};
use crate::log::{Records, Sessions};
use bytes::BytesMut;
use msb_state::{LogEvent, LogSource, Reply};
use msb_wire::limits::{CHANNELS, ERROR_TEXT, TEXT};
use msb_wire::{Decoder, Frame, Hello, Message, Peer, encode};
use std::fs::File;
use std::io::Write;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// Longer than any run that does not hang.
const LIMIT: Duration = Duration::from_secs(10);
/// Largest file of the console's log, with its last chunk.
const CONSOLE: u64 = 1024 * 1024;

/// Counts the bytes of a log.
#[derive(Debug, Default)]
struct Counted {
    bytes: usize,
}

impl Records for Counted {
    fn data(&mut self, session: &str, _: LogSource, data: &[u8]) -> Result<(), msb_state::Error> {
        assert_eq!(session.len(), 32, "{session}");
        self.bytes += data.len();
        Ok(())
    }

    fn event(&mut self, session: &str, event: &LogEvent) -> Result<(), msb_state::Error> {
        assert_eq!(session.len(), 32, "{session}");
        match event {
            LogEvent::Exited { code, signal, .. } => {
                let by_itself = (0..=255).contains(code) && signal.is_none();
                assert!(by_itself || (*code == -1 && signal.is_some()), "{event:?}");
            }
            LogEvent::Failed { message, .. } => assert!(message.len() <= TEXT, "{event:?}"),
            _ => {}
        }
        Ok(())
    }

    fn record_failure(&self, _: &str) {}
}

/// An agent sends its hello and arbitrary bytes to the log, which ends or waits for more, and holds
/// no more sessions, and no more bytes, than were sent.
pub(crate) fn runner_log(data: &[u8]) {
    let mut sessions = Sessions::new(Counted::default());
    let (mut decoder, mut buffer) = (Decoder::new(Peer::Agent), BytesMut::new());
    let hello = Message::Hello(Hello::ours(Some([1; 16])));
    assert!(encode(&Frame { channel: 0, message: hello }, &mut buffer));
    buffer.extend_from_slice(data);
    while let Ok(Some(frame)) = decoder.next(&mut buffer) {
        if matches!(frame.message, Message::Hello(_)) {
            continue;
        }
        if let Err(end) = sessions.take(frame) {
            let text = end.to_string();
            // The longest escape has ten bytes.
            assert!(!text.is_empty() && text.len() < 100 + 10 * ERROR_TEXT, "{text}");
            assert!(!text.contains('\n'), "{text}");
            break;
        }
        assert!(sessions.len() <= CHANNELS);
    }
    assert!(sessions.records().bytes <= data.len());
}

fn in_runtime<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build().ok()?;
    let ended = runtime.block_on(async { timeout(LIMIT, future).await });
    assert!(ended.is_ok(), "it hangs");
    ended.ok()
}

/// A local process sends arbitrary bytes to the control socket: each reply is a line of JSON, there
/// are no more replies than lines, and the connection closes with the client.
pub(crate) fn runner_control(data: &[u8]) {
    in_runtime(async move {
        let Ok((ours, mut theirs)) = UnixStream::pair() else { return };
        let (requests, mut received) = tokio::sync::mpsc::channel(16);
        let runner = async move {
            while let Some(Received { reply, .. }) = received.recv().await {
                reply.send(Reply::Refused { message: "no".to_owned() });
            }
        };
        let client = async move {
            let _ = theirs.write_all(data).await;
            let _ = theirs.shutdown().await;
            let mut replies = Vec::new();
            let _ = theirs.read_to_end(&mut replies).await;
            let lines: Vec<&[u8]> = replies.split_inclusive(|byte| *byte == b'\n').collect();
            let sent = data.split(|byte| *byte == b'\n').count() + data.len() / 65_536;
            assert!(lines.len() <= sent, "{} replies to {sent} lines", lines.len());
            for line in lines {
                assert!(serde_json::from_slice::<Reply>(line).is_ok(), "{line:?}");
            }
        };
        let (_, _, ()) = tokio::join!(serve(ours, requests), runner, client);
    });
}

/// A guest prints arbitrary bytes: the log and its tail stay bounded.
pub(crate) fn runner_console(data: &[u8]) {
    let Ok(folder) = tempfile::tempdir() else { return };
    let path = folder.path().join("agent.log");
    in_runtime(async move {
        let Ok((console, sink)) = Console::start(path.clone()) else { return };
        let data = data.to_vec();
        let writing = tokio::task::spawn_blocking(move || File::from(sink).write_all(&data));
        let _ = writing.await;
        let tail = console.tail().await;
        assert!(tail.len() < 4096 && !tail.is_empty(), "{} bytes", tail.len());
        let size = File::open(&path).and_then(|file| file.metadata()).map(|meta| meta.len());
        assert!(size.is_ok_and(|size| size <= CONSOLE));
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    fn replay(target: &str, run: fn(&[u8])) {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
        let seeds = fs::read_dir(&seeds).unwrap().map(|seed| seed.unwrap().path());
        let seeds = seeds.inspect(|seed| run(&fs::read(seed).unwrap())).count();
        assert!(seeds > 0);
    }

    #[test]
    fn i1_seeds_of_the_runner_log_pass() {
        replay("runner_log", runner_log);
    }

    #[test]
    fn i1_seeds_of_the_runner_control_pass() {
        replay("runner_control", runner_control);
    }

    #[test]
    fn i1_seeds_of_the_runner_console_pass() {
        replay("runner_console", runner_console);
    }
}
