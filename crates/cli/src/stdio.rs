//! The standard streams of this process.
//!
//! They bypass the standard library's buffers, which would split a program's bytes at line ends.
//! Another process that shares a stream may have made it non-blocking.

use crate::text::one_line;
use rustix::event::{PollFd, PollFlags, poll};
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use tokio::sync::oneshot;

/// Duplicates a standard stream.
pub(crate) fn duplicate(stream: impl AsFd) -> io::Result<File> {
    stream.as_fd().try_clone_to_owned().map(File::from)
}

/// Writes all of `data`. Blocks also on a non-blocking descriptor.
pub(crate) fn write_all(mut file: &File, mut data: &[u8]) -> io::Result<()> {
    while !data.is_empty() {
        match file.write(data) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => data = data.get(written..).unwrap_or_default(),
            Err(error) => wait_to_retry(error, file, PollFlags::OUT)?,
        }
    }
    Ok(())
}

/// Reads what is available. Blocks also on a non-blocking descriptor.
pub(crate) fn read(mut file: &File, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match file.read(buffer) {
            Ok(length) => return Ok(length),
            Err(error) => wait_to_retry(error, file, PollFlags::IN)?,
        }
    }
}

/// Waits until the call that failed can be repeated; any other failure is returned.
fn wait_to_retry(error: io::Error, file: &File, until: PollFlags) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::Interrupted => Ok(()),
        io::ErrorKind::WouldBlock => match poll(&mut [PollFd::new(file, until)], None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        },
        _ => Err(error),
    }
}

/// Waits until the reader of standard output has closed it; forever if it is neither pipe nor
/// socket. For commands that may have nothing to write for a long time and so would never see
/// EPIPE.
pub(crate) async fn stdout_closed() {
    let (sender, receiver) = oneshot::channel();
    // Without events, poll reports errors only. The thread may block until the process exits.
    let wait = move || {
        let Ok(file) = duplicate(io::stdout()) else { return };
        let mut watched = [PollFd::new(&file, PollFlags::empty())];
        while poll(&mut watched, None).is_err_and(|errno| errno == rustix::io::Errno::INTR) {}
        let _ = sender.send(());
    };
    let watcher = std::thread::Builder::new().name("msb-stdout".to_owned()).spawn(wait);
    if watcher.is_err() || receiver.await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Prints a message on standard error, as one line that begins with `msb: `.
pub(crate) fn report(message: &str) {
    write_stderr(&format!("msb: {}\n", one_line(message)));
}

/// As [`report`], below what a program may have left on the current line of the terminal.
pub(crate) fn report_on_new_line(message: &str) {
    if io::stderr().is_terminal() {
        write_stderr("\n");
    }
    report(message);
}

/// Reports a panic in one line, without a backtrace. The terminal may still be in raw mode, so the
/// line begins and ends with a carriage return.
pub(crate) fn report_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let payload = panic.payload();
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let message = text.or(payload.downcast_ref::<&str>().copied()).unwrap_or("no message");
    let location = panic.location().map(ToString::to_string).unwrap_or_default();
    write_stderr(&panic_line(message, &location));
}

fn panic_line(message: &str, location: &str) -> String {
    let message = one_line(message);
    format!("\r\nmsb: internal error, please report it: {message} ({location})\r\n")
}

/// Writes to standard error; a failure to do so cannot be reported anywhere.
fn write_stderr(text: &str) {
    let _ = duplicate(io::stderr()).and_then(|file| write_all(&file, text.as_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panic_message_is_one_line_in_raw_mode() {
        let line = panic_line("a\nb", "src/x.rs:1:2");
        assert_eq!(line.matches('\n').count(), 2);
        assert!(line.starts_with("\r\nmsb: ") && line.ends_with("a b (src/x.rs:1:2)\r\n"));
    }

    #[test]
    fn non_blocking_pipe_is_waited_for() {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK).unwrap();
        let (reader, writer) = (File::from(reader), File::from(writer));
        let data: Vec<u8> = (0..1_000_000u32).map(|n| n.to_le_bytes()[0]).collect();
        let expected = data.clone();
        let thread = std::thread::spawn(move || write_all(&writer, &data));
        let (mut found, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            match read(&reader, &mut buffer).unwrap() {
                0 => break,
                length => found.extend_from_slice(&buffer[..length]),
            }
        }
        thread.join().unwrap().unwrap();
        assert!(found == expected);
    }
}
