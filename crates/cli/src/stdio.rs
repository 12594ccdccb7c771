//! This process's standard streams.
//!
//! They are used without the buffers of the standard library, which would look for ends of lines
//! in bytes that are none of ours, and may have been made non-blocking by whoever shares them.

use crate::failure::Failure;
use rustix::event::{PollFd, PollFlags, poll};
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use tokio::sync::oneshot;

/// Standard input.
pub(crate) fn input() -> io::Result<File> {
    duplicate(io::stdin().as_fd())
}

/// Standard output.
pub(crate) fn output() -> io::Result<File> {
    duplicate(io::stdout().as_fd())
}

/// Standard error.
pub(crate) fn errors() -> io::Result<File> {
    duplicate(io::stderr().as_fd())
}

fn duplicate(fd: BorrowedFd<'_>) -> io::Result<File> {
    fd.try_clone_to_owned().map(File::from)
}

/// Writes all of it. Blocks, whatever the descriptor's own mode.
pub(crate) fn write_all(mut file: &File, mut data: &[u8]) -> io::Result<()> {
    while !data.is_empty() {
        match file.write(data) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => data = data.get(written..).unwrap_or_default(),
            Err(error) => try_again(error, file, PollFlags::OUT)?,
        }
    }
    Ok(())
}

/// Reads what there is. Blocks, whatever the descriptor's own mode.
pub(crate) fn read(mut file: &File, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match file.read(buffer) {
            Ok(length) => return Ok(length),
            Err(error) => try_again(error, file, PollFlags::IN)?,
        }
    }
}

fn try_again(error: io::Error, file: &File, until: PollFlags) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::Interrupted => Ok(()),
        io::ErrorKind::WouldBlock => match poll(&mut [PollFd::new(file, until)], None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        },
        _ => Err(error),
    }
}

/// Waits until nobody reads standard output any more; for ever when it is no pipe and no socket.
/// For those who have nothing to write for a long time and would not learn it otherwise.
pub(crate) async fn reader_gone() {
    let (sender, receiver) = oneshot::channel();
    // Asks for nothing, and is told of errors only. It may sit there to the end of the process.
    let wait = move || {
        let Ok(file) = output() else { return };
        let mut watched = [PollFd::new(&file, PollFlags::empty())];
        while poll(&mut watched, None).is_err_and(|errno| errno == rustix::io::Errno::INTR) {}
        let _ = sender.send(());
    };
    let watching = std::thread::Builder::new().name("msb-stdout".to_owned()).spawn(wait);
    if watching.is_err() || receiver.await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Prints what was asked for.
pub(crate) fn print(text: &[u8]) -> Result<(), Failure> {
    let written = output().and_then(|file| write_all(&file, text));
    written.map_err(|error| Failure::write("standard output", &error))
}

/// Says on standard error, in one line, what is wrong.
pub(crate) fn complain(message: &str) {
    let line = format!("msb: {}\n", one_line(message));
    // There is nowhere to say that nothing can be said.
    let _ = errors().and_then(|file| write_all(&file, line.as_bytes()));
}

/// As [`complain`], on a line of its own where a program was shown on the terminal before.
pub(crate) fn complain_anew(message: &str) {
    if io::stderr().is_terminal() {
        let _ = errors().and_then(|file| write_all(&file, b"\n"));
    }
    complain(message);
}

/// What a panic says: a defect, in one line and without a trace of the stack. The line begins anew,
/// and ends so that it does in raw mode too, in which the terminal may be still.
pub(crate) fn panicked(panic: &std::panic::PanicHookInfo<'_>) {
    let payload = panic.payload();
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let what = text.or(payload.downcast_ref::<&str>().copied()).unwrap_or("no message");
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let _ = errors().and_then(|file| write_all(&file, defect(what, &place).as_bytes()));
}

fn defect(what: &str, place: &str) -> String {
    let what = one_line(what);
    format!("\r\nmsb: this is a defect of msb, please report it: {what} ({place})\r\n")
}

/// Prints a JSON document, in which nothing acts on a terminal.
pub(crate) fn print_json(document: &str) -> Result<(), Failure> {
    print(microsandbox::escape_json(document).as_bytes())
}

/// Text that cannot act on a terminal, whoever chose it.
pub(crate) fn one_line(text: &str) -> String {
    microsandbox::escape(text.trim()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_stays_on_its_line_and_controls_no_terminal() {
        assert_eq!(one_line("a\nb\tc \n"), "a b c");
        assert_eq!(one_line("a\u{1b}[2Jb\r"), "a\\u{1b}[2Jb");
        assert_eq!(one_line("grün"), "grün");
    }

    #[test]
    fn a_defect_is_one_line_also_in_raw_mode() {
        let line = defect("a\nb", "src/x.rs:1:2");
        assert_eq!(line.matches('\n').count(), 2);
        assert!(line.starts_with("\r\nmsb: ") && line.ends_with("a b (src/x.rs:1:2)\r\n"));
    }

    #[test]
    fn a_pipe_that_does_not_block_is_waited_for() {
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
