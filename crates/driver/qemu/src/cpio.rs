//! The initramfs, in the kernel's format ("newc", Documentation/driver-api/early-userspace/
//! buffer-format.rst).

use std::io::{self, Write};

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const TRAILER: &str = "TRAILER!!!";

/// Writes an archive entry by entry.
#[derive(Debug)]
pub(crate) struct Archive<W> {
    to: W,
    entries: u32,
}

impl<W: Write> Archive<W> {
    pub(crate) fn new(to: W) -> Self {
        Archive { to, entries: 0 }
    }

    /// Adds a directory, after its parents.
    pub(crate) fn directory(&mut self, path: &str) -> io::Result<()> {
        self.entry(path, DIRECTORY, b"")
    }

    /// Adds an executable file.
    pub(crate) fn file(&mut self, path: &str, contents: &[u8]) -> io::Result<()> {
        self.entry(path, PROGRAM, contents)
    }

    /// Writes the trailer.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.entry(TRAILER, 0, b"")?;
        Ok(self.to)
    }

    fn entry(&mut self, path: &str, mode: u32, contents: &[u8]) -> io::Result<()> {
        self.entries += 1;
        let too_long = |_| io::Error::from(io::ErrorKind::FileTooLarge);
        let length = u32::try_from(contents.len()).map_err(too_long)?;
        let name = u32::try_from(path.len() + 1).map_err(too_long)?;
        let links = if mode == DIRECTORY { 2 } else { 1 };
        // Number, mode, owner, group, links, time, length, four of devices, name's length, sum.
        let fields = [self.entries, mode, 0, 0, links, 0, length, 0, 0, 0, 0, name, 0];
        let mut header = String::from("070701");
        for field in fields {
            header.push_str(&format!("{field:08x}"));
        }
        self.to.write_all(header.as_bytes())?;
        self.to.write_all(path.as_bytes())?;
        self.to.write_all(padding(header.len() + path.len() + 1, 1))?;
        self.to.write_all(contents)?;
        self.to.write_all(padding(contents.len(), 0))
    }
}

/// Returns `more` zeros and those that pad to a multiple of four.
fn padding(length: usize, more: usize) -> &'static [u8] {
    let zeros: &'static [u8] = &[0; 4];
    zeros.get(..more + (4 - length % 4) % 4).unwrap_or(zeros)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn archive_has_the_kernels_format() {
        let mut archive = Archive::new(Vec::new());
        archive.directory("d").unwrap();
        archive.file("d/abc", b"hello").unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        assert!(bytes.starts_with(b"070701"));
        // busybox reads it as the kernel does.
        let folder = tempfile::tempdir().unwrap();
        let mut unpack = Command::new("busybox")
            .args(["cpio", "-i", "-m"])
            .current_dir(folder.path())
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        unpack.stdin.take().unwrap().write_all(&bytes).unwrap();
        assert!(unpack.wait().unwrap().success());
        assert_eq!(std::fs::read(folder.path().join("d/abc")).unwrap(), b"hello");
    }
}
