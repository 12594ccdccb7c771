//! The files that a program needs to be run: itself, its loader and its libraries.

use crate::describe::Bind;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A program's files, to be bound into a jail at the same places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramFiles {
    /// The program, its loader and its libraries.
    pub paths: Vec<PathBuf>,
}

impl ProgramFiles {
    /// Asks the program's own loader which libraries it takes. The answer is kept in `cache`, if
    /// there is such a directory, for as long as the program stays the same.
    pub fn of(program: &Path, cache: Option<&Path>) -> io::Result<ProgramFiles> {
        let kept = cache.map(|cache| Ok::<_, io::Error>(cache.join(key(program)?))).transpose()?;
        if let Some(files) = kept.as_deref().and_then(read) {
            return Ok(files);
        }
        let mut paths = vec![program.to_path_buf()];
        if let Some(loader) = loader(program)? {
            let mut command = Command::new(&loader);
            let output = command.arg("--list").arg(program).stdin(Stdio::null()).output()?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                return Err(io::Error::other(format!("{} says: {said}", loader.display())));
            }
            paths.push(loader);
            paths.extend(parse(&output.stdout)?);
        }
        paths.sort();
        paths.dedup();
        let files = ProgramFiles { paths };
        if let Some(kept) = kept {
            // Without it the loader is asked again.
            let _ = files.keep(&kept);
        }
        Ok(files)
    }

    /// The binds of these files.
    pub fn binds(&self) -> impl Iterator<Item = Bind> {
        self.paths.iter().map(|path| Bind::program(path))
    }

    /// The environment variable by which the loader finds the libraries, without the list of them
    /// that the host has.
    pub fn environment(&self) -> (OsString, OsString) {
        let mut folders: Vec<&Path> = self.paths.iter().filter_map(|path| path.parent()).collect();
        folders.sort_unstable();
        folders.dedup();
        let value = folders.iter().map(|path| path.as_os_str()).collect::<Vec<_>>();
        ("LD_LIBRARY_PATH".into(), value.join(OsStr::new(":")))
    }

    fn keep(&self, path: &Path) -> io::Result<()> {
        let mut text = Vec::new();
        for path in &self.paths {
            text.extend_from_slice(path.as_os_str().as_bytes());
            text.push(b'\n');
        }
        let half = path.with_extension(std::process::id().to_string());
        fs::write(&half, text)?;
        fs::rename(half, path)
    }
}

/// Another program, or the same one after an update, is another file.
fn key(program: &Path) -> io::Result<String> {
    let found = fs::metadata(program)?;
    let (device, inode, at) = (found.dev(), found.ino(), found.mtime());
    Ok(format!("libraries-{device}-{inode}-{at}-{}", found.len()))
}

fn read(kept: &Path) -> Option<ProgramFiles> {
    let text = fs::read(kept).ok()?;
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let paths: Vec<PathBuf> = lines.map(|line| OsStr::from_bytes(line).into()).collect();
    let is_whole = !paths.is_empty() && paths.iter().all(|path| path.exists());
    is_whole.then_some(ProgramFiles { paths })
}

/// The loader that an ELF program names; `None` for one that is linked statically.
fn loader(program: &Path) -> io::Result<Option<PathBuf>> {
    const LOADER: u32 = 3;
    let mut file = fs::File::open(program)?;
    let mut header = [0; 64];
    let read = file.read(&mut header)?;
    if read < header.len() || !header.starts_with(b"\x7fELF\x02\x01") {
        return Err(io::Error::other(format!("{} is no ELF program", program.display())));
    }
    let (at, size, count) =
        (number(&header, 32, 8), number(&header, 54, 2), number(&header, 56, 2));
    for index in 0..count {
        let mut segment = [0; 56];
        file.seek(SeekFrom::Start(at + index * size))?;
        file.read_exact(&mut segment)?;
        if number(&segment, 0, 4) == u64::from(LOADER) {
            file.seek(SeekFrom::Start(number(&segment, 8, 8)))?;
            let mut name = Vec::new();
            file.take(number(&segment, 32, 8).min(4096)).read_to_end(&mut name)?;
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            return Ok(Some(OsStr::from_bytes(name).into()));
        }
    }
    Ok(None)
}

fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
    let bytes = bytes.get(at..at + length).unwrap_or_default();
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// Reads lines such as `libc.so.6 => /lib/libc.so.6 (0x7f12)` and `/lib64/ld.so (0x7f12)`.
fn parse(output: &[u8]) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for line in String::from_utf8_lossy(output).lines() {
        let line = line.trim();
        let found = line.split_once(" => ").map_or(line, |(_, found)| found);
        if found.starts_with("not found") {
            return Err(io::Error::other(format!("a library is missing: {line}")));
        }
        let path = found.rsplit_once(" (").map_or(found, |(path, _)| path);
        if path.starts_with('/') {
            paths.push(PathBuf::from(path));
        }
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn j2_the_libraries_of_a_program_are_found() {
        let program = Path::new("/bin/sh").canonicalize().unwrap();
        let cache = tempfile::tempdir().unwrap();
        let files = ProgramFiles::of(&program, Some(cache.path())).unwrap();
        assert!(files.paths.contains(&program), "{files:?}");
        assert!(files.paths.iter().any(|path| path.to_string_lossy().contains("libc.")));
        assert_eq!(ProgramFiles::of(&program, Some(cache.path())).unwrap(), files);
        let script = cache.path().join("script");
        fs::write(&script, "#!/bin/sh\n").unwrap();
        let error = ProgramFiles::of(&script, None).unwrap_err().to_string();
        assert!(error.ends_with("is no ELF program"), "{error}");
    }

    #[test]
    fn the_loaders_list_is_read() {
        let text = b"\tlinux-vdso.so.1 (0x7ffd)\n\tlibz.so.1 => /lib/x/libz.so.1 (0x7f)\n\
                     \t/lib64/ld-linux-x86-64.so.2 (0x7f00)\n";
        let paths = [Path::new("/lib/x/libz.so.1"), Path::new("/lib64/ld-linux-x86-64.so.2")];
        assert_eq!(parse(text).unwrap(), paths);
        assert!(parse(b"\tlibz.so.1 => not found\n").is_err());
    }
}
