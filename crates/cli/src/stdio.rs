//! This process's standard streams.
//!
//! They are used without the buffers of the standard library, which would look for ends of lines
//! in bytes that are none of ours, and may have been made non-blocking by whoever shares them.

use crate::failure::Failure;
use rustix::event::{PollFd, PollFlags, poll};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

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

/// Text that cannot move a terminal's cursor, whoever chose it.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.trim().chars() {
        match c {
            '\n' | '\t' => line.push(' '),
            c if c.is_control() => line.extend(c.escape_default()),
            c => line.push(c),
        }
    }
    line
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
